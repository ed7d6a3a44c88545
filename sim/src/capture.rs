//! Every packet of a run, as it left its machine: what a packet analyser is given
//! ([`crate::show::pcapng`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::fabric::{Cargo, Fate, Frame, Reason, TcpSign};

/// How much payload is kept; what is sent beyond is counted only.
const PAYLOAD_BYTES_MAX: u64 = 512 << 20;

/// The packets of a run, in the order in which they were sent.
#[derive(Debug, Default)]
pub struct Capture {
    packets: Vec<Packet>,
    payload_bytes: u64,
    /// How far each sender of a connection has come in its stream.
    furthest: BTreeMap<(u64, SocketAddr), u64>,
    /// How many were sent after no more was kept.
    beyond: u64,
}

/// A packet that was sent.
#[derive(Clone, Debug)]
pub struct Packet {
    /// When, virtual microseconds since the run began.
    pub at_us: u64,
    /// The sending machine and its address.
    pub from: (Arc<str>, SocketAddr),
    /// The receiving machine and its address.
    pub to: (Arc<str>, SocketAddr),
    /// The connection's number, from 1; 0 for datagrams.
    pub connection: u64,
    /// What it says of its connection; `None` for datagrams.
    pub tcp: Option<Tcp>,
    /// The payload.
    pub bytes: Bytes,
    /// What became of it.
    pub fate: Fate,
    /// Whether the same place of the stream had been sent before.
    pub again: bool,
}

/// What a segment says of its connection, in bytes of the two streams from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// What kind of segment.
    pub sign: TcpSign,
    /// Where in the sender's stream it stands.
    pub at: u64,
    /// Up to where the sender has received the other's.
    pub received: u64,
    /// For how many bytes more it has room.
    pub window: u64,
    /// Whether the stream ends with it.
    pub last: bool,
}

impl Capture {
    /// The packets, in the order in which they were sent.
    #[must_use]
    pub fn packets(&self) -> &[Packet] {
        &self.packets
    }

    /// How many packets were sent when no more payload was kept.
    #[must_use]
    pub fn beyond(&self) -> u64 {
        self.beyond
    }

    pub(crate) fn take(&mut self, frame: &Frame<'_>) {
        let (tcp, bytes) = parts(&frame.cargo);
        self.payload_bytes += bytes.len() as u64;
        if self.payload_bytes > PAYLOAD_BYTES_MAX {
            self.beyond += 1;
            return;
        }
        let again = self.is_repeated(frame, tcp, bytes.len());
        self.packets.push(Packet {
            at_us: frame.at_us,
            from: (frame.from.host.clone(), frame.from.address),
            to: (frame.to.host.clone(), frame.to.address),
            connection: frame.connection,
            tcp,
            bytes: Bytes::copy_from_slice(bytes),
            fate: frame.fate,
            again,
        });
    }

    /// The last packet like this that should have arrived by now did not.
    pub(crate) fn mark_lost(&mut self, frame: &Frame<'_>) {
        let (tcp, bytes) = parts(&frame.cargo);
        let is_it = |packet: &&mut Packet| {
            let due = matches!(packet.fate, Fate::Arrives { at_us, .. } if at_us <= frame.at_us);
            let place = |tcp: Option<Tcp>| tcp.map(|tcp| (tcp.sign, tcp.at));
            due && packet.connection == frame.connection
                && (packet.from.1, packet.to.1) == (frame.from.address, frame.to.address)
                && place(packet.tcp) == place(tcp)
                && packet.bytes == bytes
        };
        if let Some(packet) = self.packets.iter_mut().rev().find(is_it) {
            packet.fate = frame.fate;
        }
    }

    /// Whether a request, a piece of a stream or its end was sent before.
    fn is_repeated(&mut self, frame: &Frame<'_>, tcp: Option<Tcp>, len: usize) -> bool {
        let Some(tcp) = tcp else { return false };
        // As on the wire a request and a consent take the place before the first byte.
        let end = match tcp.sign {
            TcpSign::Request | TcpSign::Consent => 1,
            TcpSign::Goes if len > 0 || tcp.last => 1 + tcp.at + len as u64 + u64::from(tcp.last),
            TcpSign::Goes | TcpSign::Reset => return false,
        };
        let furthest = self.furthest.entry((frame.connection, frame.from.address)).or_default();
        let again = end <= *furthest;
        *furthest = end.max(*furthest);
        again
    }
}

impl Packet {
    /// Why it was lost, if so.
    #[must_use]
    pub fn lost(&self) -> Option<Reason> {
        match self.fate {
            Fate::Lost(reason) => Some(reason),
            Fate::Arrives { .. } => None,
        }
    }
}

fn parts<'a>(cargo: &Cargo<'a>) -> (Option<Tcp>, &'a [u8]) {
    match *cargo {
        Cargo::Udp(bytes) => (None, bytes),
        Cargo::Tcp { sign, at, received, window, bytes, last } => {
            (Some(Tcp { sign, at, received, window, last }), bytes)
        }
    }
}
