//! Connections as whoever looks into the world is told of them.

use serde::Serialize;

use super::{Connection, Connections, Handshake, Hold, Pipe, Side};
use crate::fabric::host::HostSlot;
use crate::fabric::observe::Endpoint;

/// A connection at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionState {
    /// Its number, from 1.
    pub connection: u64,
    /// The side that opened it.
    pub from: Endpoint,
    /// The other side.
    pub to: Endpoint,
    /// `opening`, `open`, `closing` (one side has closed it) or `broken`.
    pub state: &'static str,
    /// What has gone from the side that opened it to the other.
    pub there: PipeState,
    /// What has gone back.
    pub back: PipeState,
}

/// One direction of a connection, in bytes since it was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PipeState {
    /// Given to the sender's kernel.
    pub sent: u64,
    /// Of that, known to have arrived.
    pub acknowledged: u64,
    /// Taken by the receiver's process.
    pub read: u64,
    /// Arrived and not yet taken: the receiver's queue.
    pub unread: u64,
    /// Since when nothing gets through, virtual microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled_since_us: Option<u64>,
}

impl Connections {
    /// All that are open or on their way to be, in the order in which they were asked for.
    pub(in crate::fabric) fn shown(&self, hosts: &[HostSlot]) -> Vec<ConnectionState> {
        self.open.iter().map(|(id, connection)| connection.shown(*id, hosts)).collect()
    }
}

impl Connection {
    fn shown(&self, id: u64, hosts: &[HostSlot]) -> ConnectionState {
        let endpoint = |side| {
            let end = self.end(side);
            Endpoint { host: hosts[end.host.0 as usize].name.clone(), address: end.address }
        };
        let [there, back] = [Side::Client, Side::Server].map(|side| self.pipes[side as usize].shown());
        ConnectionState {
            connection: id,
            from: endpoint(Side::Client),
            to: endpoint(Side::Server),
            state: self.word(),
            there,
            back,
        }
    }

    fn word(&self) -> &'static str {
        match &self.handshake {
            _ if self.ends.iter().any(|end| end.broken.is_some()) => "broken",
            Handshake::Asking { .. } => "opening",
            Handshake::Done if self.ends.iter().any(|end| matches!(end.hold, Hold::Closed | Hold::Gone)) => {
                "closing"
            }
            Handshake::Done => "open",
        }
    }
}

impl Pipe {
    fn shown(&self) -> PipeState {
        PipeState {
            sent: self.sent,
            acknowledged: self.acknowledged,
            read: self.read,
            unread: self.inbox.iter().map(|bytes| bytes.len() as u64).sum(),
            stalled_since_us: self.stalled_since_us,
        }
    }
}
