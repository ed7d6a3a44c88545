//! What an outside observer is told: packets, connections, faults, bytes.
//!
//! Not here: what it makes of it. Histories, pcap files and privacy judges are observers.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use super::fault::{Fault, FaultId};

/// Told of everything on the wire and of every fault, in order.
///
/// Called in the middle of the world's work: implementations note it down and return; they must not
/// call back into the world.
pub trait Observer: Send + Sync + 'static {
    /// Whether [`Observer::wire`] is looked at; when not, no event is built. Asked once.
    fn watches_wire(&self) -> bool {
        true
    }

    /// Something happened on the wire. Acknowledgements are not reported.
    fn wire(&self, event: &WireEvent) {
        let _ = event;
    }

    /// A fault began or ended.
    fn fault(&self, event: &FaultEvent) {
        let _ = event;
    }

    /// Whether [`Observer::frame`] is looked at; when not, nothing is gathered for it. Asked once.
    fn watches_frames(&self) -> bool {
        false
    }

    /// A packet left its machine, acknowledgements included.
    fn frame(&self, frame: &Frame<'_>) {
        let _ = frame;
    }

    /// A frame that was shown as arriving was lost at its destination after all.
    fn frame_lost(&self, frame: &Frame<'_>) {
        let _ = frame;
    }

    /// Whether [`Observer::bytes`] wants what arrives at this host. Asked once per host.
    fn watches_bytes(&self, host: &str) -> bool {
        let _ = host;
        false
    }

    /// Payload that reached a watched host, in stream order for TCP and whether or not anybody took it
    /// (PRI-001: what its operator could see). `arrival` names both ends and the connection.
    fn bytes(&self, arrival: &WireEvent, bytes: &[u8]) {
        let _ = (arrival, bytes);
    }
}

/// The transport of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// A segment of a connection.
    Tcp,
    /// A datagram.
    Udp,
}

/// One end of a packet's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// The machine.
    pub host: Arc<str>,
    /// Its address and port.
    pub address: SocketAddr,
}

/// One thing that happened on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WireEvent {
    /// Virtual microseconds since the world began.
    pub at_us: u64,
    /// What happened.
    pub kind: WireKind,
    /// Over what.
    pub protocol: Protocol,
    /// The sender; of a connection as such, the side that opened it.
    pub from: Endpoint,
    /// The receiver.
    pub to: Endpoint,
    /// The connection's number, from 1; 0 for datagrams.
    pub connection: u64,
    /// Bytes of payload, without headers.
    pub len: usize,
}

/// A packet as it leaves its machine, with everything that is in it.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    /// Virtual microseconds since the world began.
    pub at_us: u64,
    /// The sender.
    pub from: Endpoint,
    /// The receiver.
    pub to: Endpoint,
    /// The connection's number, from 1; 0 for datagrams.
    pub connection: u64,
    /// What is in it.
    pub cargo: Cargo<'a>,
    /// What becomes of it.
    pub fate: Fate,
}

/// What is in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cargo<'a> {
    /// A datagram.
    Udp(&'a [u8]),
    /// A segment of a connection.
    Tcp {
        /// What it says of the connection.
        sign: TcpSign,
        /// Where in the sender's stream it stands, from 0; the end of the stream counts as one byte.
        at: u64,
        /// Up to where the sender has received the other's stream.
        received: u64,
        /// For how many bytes more it has room.
        window: u64,
        /// A piece of the stream.
        bytes: &'a [u8],
        /// Whether the stream ends with it.
        last: bool,
    },
}

/// What a segment says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpSign {
    /// A request to open it.
    Request,
    /// The consent.
    Consent,
    /// It is refused, or broken off.
    Reset,
    /// It goes on: a piece of the stream, an acknowledgement, or both.
    Goes,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Arrives {
        /// When, virtual microseconds.
        at_us: u64,
        /// Whether it arrives once more.
        twice: bool,
        /// Whether it arrives with flipped bits.
        corrupted: bool,
    },
    /// It is lost.
    Lost(Reason),
}

/// What happened on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WireKind {
    /// A server's machine took a connection in.
    Opened,
    /// A connection was refused.
    Refused,
    /// Both ends have closed the connection.
    Closed,
    /// An end learnt that its connection is broken: reset, or given up.
    Reset,
    /// A packet left.
    Sent,
    /// A packet left once more, because nothing was heard of it.
    Retransmitted,
    /// A packet reached the other machine's socket.
    Delivered,
    /// A packet was lost.
    Dropped(Reason),
}

/// Why a packet was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The two hosts were cut off from each other.
    Partition,
    /// Bad luck on the link.
    Loss,
    /// It is longer than the link carries.
    TooLong,
    /// Its bits were flipped, and its checksum tells.
    Checksum,
    /// The link's queue was full.
    Queue,
    /// The machine is switched off.
    HostDown,
    /// No machine has that address.
    NoHost,
    /// Nobody listens there.
    NoListener,
    /// The listener's backlog is full.
    Backlog,
    /// The receiving socket's queue is full.
    Socket,
}

/// The beginning or the end of a fault.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaultEvent {
    /// Virtual microseconds since the world began.
    pub at_us: u64,
    /// Which fault.
    pub id: FaultId,
    /// What it is.
    pub fault: Fault,
    /// Which moment of it.
    pub phase: FaultPhase,
    /// How often it has made a difference so far.
    pub effects: u64,
}

/// A moment in the life of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultPhase {
    /// It begins.
    Injected,
    /// It ends.
    Healed,
}

/// How often what happened on the wire, since the world began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WireCounts {
    /// Connections taken in by a server.
    pub connections_opened: u64,
    /// Connections refused.
    pub connections_refused: u64,
    /// Ends that learnt that their connection is broken.
    pub connections_reset: u64,
    /// Segments sent for the first time.
    pub segments_sent: u64,
    /// Segments sent again.
    pub segments_retransmitted: u64,
    /// Segments lost, connection requests and answers included.
    pub segments_dropped: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams delivered, duplicates included.
    pub datagrams_delivered: u64,
    /// Datagrams lost, for whatever reason.
    pub datagrams_dropped: u64,
    /// Datagrams that arrived twice.
    pub datagrams_duplicated: u64,
    /// Datagrams overtaken by a later one.
    pub datagrams_reordered: u64,
    /// Datagrams that arrived with flipped bits, at least once.
    pub datagrams_corrupted: u64,
    /// Datagrams lost because the receiver's queue was full; part of `datagrams_dropped`.
    pub datagrams_overflowed: u64,
}

impl WireCounts {
    pub(super) fn add(&mut self, protocol: Protocol, kind: WireKind) {
        let count = match (protocol, kind) {
            (_, WireKind::Opened) => &mut self.connections_opened,
            (_, WireKind::Refused) => &mut self.connections_refused,
            (_, WireKind::Reset) => &mut self.connections_reset,
            (_, WireKind::Closed) | (Protocol::Tcp, WireKind::Delivered) => return,
            (Protocol::Tcp, WireKind::Sent) => &mut self.segments_sent,
            (Protocol::Tcp, WireKind::Retransmitted) => &mut self.segments_retransmitted,
            (Protocol::Tcp, WireKind::Dropped(_)) => &mut self.segments_dropped,
            (Protocol::Udp, WireKind::Sent | WireKind::Retransmitted) => &mut self.datagrams_sent,
            (Protocol::Udp, WireKind::Delivered) => &mut self.datagrams_delivered,
            (Protocol::Udp, WireKind::Dropped(_)) => &mut self.datagrams_dropped,
        };
        *count += 1;
    }
}
