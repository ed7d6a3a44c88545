//! Connections: ordered streams of bytes that are never lost, only late or broken off.
//!
//! A segment that a link drops is sent again after a time-out that doubles (200 ms at first); when
//! nothing gets through for long enough, the connection is broken off. Writers are held back by the
//! reader's window. What is modelled, and what is not:
//!
//! - Retransmission timers run only when something was dropped, because only then do they matter:
//!   there are no spurious retransmissions, no fast retransmit and no congestion window.
//! - Giving up breaks the connection off at *both* ends at once, as though the peer's own keep-alive
//!   had given up at the same moment.
//! - A killed process's kernel resets its connections; a machine without power says nothing, and its
//!   peers find out when they send.
//!
//! `handshake` opens, `transfer` moves bytes, `ending` closes and breaks, `stream` is what services see,
//! `frame` what an observer of frames is shown.

mod ending;
mod frame;
mod handshake;
mod shown;
mod stream;
mod transfer;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::task::Waker;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::host::HostId;
use super::link::Packet;
use super::observe::Protocol;

pub use shown::{ConnectionState, PipeState};
pub(super) use stream::{Backlog, connect, listen};

/// How connections behave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TcpOptions {
    /// How many bytes may be on their way or unread, per direction.
    pub window_bytes: u64,
    /// The longest segment, bytes of payload.
    pub segment_bytes: usize,
    /// How many connections wait to be accepted; further ones are refused.
    pub backlog_max: usize,
    /// When connecting is given up, milliseconds.
    pub connect_timeout_ms: u64,
    /// After how long a lost connection request is repeated, milliseconds; doubles each time.
    pub connect_retry_ms: u64,
    /// After how long a lost segment is sent again, milliseconds; doubles each time.
    pub retransmit_ms: u64,
    /// Where the doubling ends, milliseconds.
    pub retransmit_ms_max: u64,
    /// When a connection on which nothing gets through is broken off, milliseconds.
    pub give_up_ms: u64,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            window_bytes: 64 * 1024,
            segment_bytes: 1_460,
            backlog_max: 128,
            connect_timeout_ms: 7_000,
            connect_retry_ms: 1_000,
            retransmit_ms: 200,
            retransmit_ms_max: 5_000,
            give_up_ms: 16_000,
        }
    }
}

/// All connections and listeners of a world.
#[derive(Default)]
pub(super) struct Connections {
    open: BTreeMap<u64, Connection>,
    opened: u64,
}

/// One connection: two ends and two directions.
pub(super) struct Connection {
    ends: [End; 2],
    /// By the side that sends.
    pipes: [Pipe; 2],
    handshake: Handshake,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that connects.
    Client = 0,
    /// The one that accepts.
    Server = 1,
}

struct End {
    host: HostId,
    address: SocketAddr,
    hold: Hold,
    /// Why reading and writing fail from now on.
    broken: Option<io::ErrorKind>,
}

/// Who holds an end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// Nobody yet: the request has not arrived.
    Unborn,
    /// The kernel, until the listener accepts.
    Backlog,
    /// A process.
    Process,
    /// The kernel, which delivers what the process left.
    Closed,
    /// Nobody any more.
    Gone,
}

enum Handshake {
    Asking { attempts: u32, until_us: u64, waiting: Option<Waker> },
    Done,
}

/// One direction of a connection.
struct Pipe {
    // The sender's half.
    sent: u64,
    acknowledged: u64,
    /// Up to where the receiver has said it has room.
    edge: u64,
    unacknowledged: VecDeque<Segment>,
    /// Tidings of room on their way to the sender: (arrival, edge).
    tidings: VecDeque<(u64, u64)>,
    /// The last tidings were lost on their way.
    tidings_lost: bool,
    finished: bool,
    writer: Option<Waker>,
    timer: Option<Timer>,
    attempts: u32,
    stalled_since_us: Option<u64>,
    last_arrival_us: u64,
    // The receiver's half.
    received: u64,
    read: u64,
    told_edge: u64,
    early: BTreeMap<u64, Segment>,
    inbox: VecDeque<Bytes>,
    ended: bool,
    reader: Option<Waker>,
}

/// A retransmission timer that is set.
struct Timer;

/// A piece of the stream. The end of the stream counts as one byte.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    at: u64,
    bytes: Bytes,
    last: bool,
}

/// A step of a connection that has become due.
pub(super) enum Step {
    /// The connection request arrives.
    Request,
    /// Time to repeat the request.
    Repeat,
    /// The consent arrives.
    Consent,
    /// The refusal arrives.
    Refusal,
    /// A segment from this side arrives.
    Arrival(Side, Segment),
    /// Tidings of room reach this side, which waits for them.
    Room(Side),
    /// This side's retransmission timer fires.
    Timeout(Side),
    /// A reset reaches this side.
    Reset(Side),
}

impl Step {
    /// Whether it is something that arrives, not a timer.
    pub(super) fn is_packet(&self) -> bool {
        !matches!(self, Self::Repeat | Self::Timeout(_))
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl Connection {
    fn end(&self, side: Side) -> &End {
        &self.ends[side as usize]
    }

    fn end_mut(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }

    /// The direction in which `side` sends.
    fn outgoing(&mut self, side: Side) -> &mut Pipe {
        &mut self.pipes[side as usize]
    }

    /// The direction in which `side` receives.
    fn incoming(&mut self, side: Side) -> &mut Pipe {
        &mut self.pipes[side.other() as usize]
    }

    /// The envelope of a packet from `side`.
    fn packet(&self, connection: u64, side: Side, len: usize) -> Packet {
        let (from, to) = (self.end(side), self.end(side.other()));
        Packet {
            protocol: Protocol::Tcp,
            from: (from.host, from.address),
            to: (to.host, to.address),
            connection,
            len,
        }
    }

    /// Whether the machine of `side` knows nothing of this connection any more, and has told nobody.
    fn has_forgotten(&self, side: Side) -> bool {
        self.end(side).broken == Some(io::ErrorKind::ConnectionAborted)
    }

    /// Whether nobody is left who could notice anything.
    fn is_over(&self) -> bool {
        self.ends.iter().all(|end| matches!(end.hold, Hold::Unborn | Hold::Closed | Hold::Gone))
    }
}

impl Pipe {
    fn new(window_bytes: u64) -> Self {
        Self {
            sent: 0,
            acknowledged: 0,
            edge: window_bytes,
            unacknowledged: VecDeque::new(),
            tidings: VecDeque::new(),
            tidings_lost: false,
            finished: false,
            writer: None,
            timer: None,
            attempts: 0,
            stalled_since_us: None,
            last_arrival_us: 0,
            received: 0,
            read: 0,
            told_edge: window_bytes,
            early: BTreeMap::new(),
            inbox: VecDeque::new(),
            ended: false,
            reader: None,
        }
    }

    /// The next segment that has something new where the stream goes on.
    fn next_in_order(&mut self) -> Option<Segment> {
        while let Some(first) = self.early.first_entry() {
            if *first.key() > self.received {
                return None;
            }
            let segment = first.remove();
            if segment.end() > self.received {
                return Some(segment);
            }
        }
        None
    }

    /// Takes note of the tidings that have arrived by now.
    fn hear(&mut self, now_us: u64) {
        while self.tidings.front().is_some_and(|(at_us, _)| *at_us <= now_us) {
            if let Some((_, edge)) = self.tidings.pop_front() {
                self.edge = self.edge.max(edge);
            }
        }
    }

    fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }
}

impl Segment {
    /// The place just after it.
    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64 + u64::from(self.last)
    }
}
