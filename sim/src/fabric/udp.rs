//! Datagrams: sent and forgotten, queued at the receiver, dropped when its queue is full.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use fusion_runtime::net::Udp;
use serde::{Deserialize, Serialize};

use super::host::{HostId, Incarnation, Life};
use super::link::{Packet, Transit, Turn};
use super::observe::{Cargo, Protocol, Reason, WireKind};
use super::world::{Event, Shared, State};

/// The longest datagram, bytes: what IPv4 and UDP headers leave of 65,535.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// How datagram sockets behave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UdpOptions {
    /// How many datagrams wait for a slow receiver; further ones are dropped.
    pub queue_max: usize,
}

/// A bound socket.
pub(super) struct Socket {
    host: HostId,
    queue: VecDeque<(Bytes, SocketAddr)>,
    waiting: Vec<Waker>,
}

struct FabricUdp {
    shared: Arc<Shared>,
    machine: Incarnation,
    address: SocketAddr,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self { queue_max: 256 }
    }
}

impl Socket {
    /// How many datagrams wait to be received.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }
}

/// Binds a datagram socket of `machine`.
pub(super) fn bind(shared: &Arc<Shared>, machine: Incarnation, at: SocketAddr) -> io::Result<Arc<dyn Udp>> {
    let mut state = shared.lock();
    let address = state.bind(machine, at)?;
    if state.sockets.contains_key(&address) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    state.sockets.insert(address, Socket { host: machine.host, queue: VecDeque::new(), waiting: Vec::new() });
    Ok(Arc::new(FabricUdp { shared: shared.clone(), machine, address }))
}

impl State {
    /// Closes the sockets of a machine that goes down.
    pub(super) fn close_sockets(&mut self, host: HostId) {
        for (_, socket) in self.sockets.extract_if(.., |_, socket| socket.host == host) {
            socket.waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// A datagram arrives; a duplicate has no turn of its own.
    pub(super) fn on_datagram(&mut self, packet: &Packet, bytes: &Bytes, turn: Option<Turn>) {
        let queued = self.enqueue(packet, bytes);
        if queued != Err(Reason::HostDown) {
            self.tap(packet, bytes);
        }
        if let Err(reason) = queued {
            self.counts.datagrams_overflowed += u64::from(reason == Reason::Socket);
            if self.watches_frames {
                self.frame_lost(packet, Cargo::Udp(bytes), &Transit::Dropped(reason));
            }
            return self.observe(packet, WireKind::Dropped(reason));
        }
        if let Some(turn) = turn {
            self.note_turn((packet.from.0, packet.to.0), turn);
        }
        self.observe(packet, WireKind::Delivered);
        self.reached(packet.to.0);
    }

    fn enqueue(&mut self, packet: &Packet, bytes: &Bytes) -> Result<(), Reason> {
        if self.host(packet.to.0).life == Life::Off {
            return Err(Reason::HostDown);
        }
        let queue_max = self.options.udp.queue_max;
        let socket = self.sockets.get_mut(&packet.to.1).ok_or(Reason::NoListener)?;
        if socket.queue.len() >= queue_max {
            return Err(Reason::Socket);
        }
        socket.queue.push_back((bytes.clone(), packet.from.1));
        socket.waiting.drain(..).for_each(Waker::wake);
        Ok(())
    }

    fn send_datagram(
        &mut self,
        machine: Incarnation,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.admit(machine)?;
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the datagram is too long"));
        }
        let Some(to) = self.destination(machine.host, to) else {
            // As on the internet: nobody tells the sender.
            self.counts.datagrams_sent += 1;
            self.counts.datagrams_dropped += 1;
            return Ok(());
        };
        let packet = Packet {
            protocol: Protocol::Udp,
            from: (machine.host, from),
            to,
            connection: 0,
            len: bytes.len(),
        };
        let transit = self.launch(&packet, WireKind::Sent);
        if self.watches_frames {
            self.frame(&packet, Cargo::Udp(bytes), &transit);
        }
        let Transit::Arrives { at_us, again_at_us, turn, flipped } = transit else {
            return Ok(());
        };
        let mut bytes = Bytes::copy_from_slice(bytes);
        if let Some(which) = flipped {
            self.counts.datagrams_corrupted += 1;
            bytes = with_flipped_bits(&bytes, which);
        }
        if let Some(again_at_us) = again_at_us {
            self.counts.datagrams_duplicated += 1;
            self.agenda.push(again_at_us, Event::Datagram { packet, bytes: bytes.clone(), turn: None });
        }
        self.agenda.push(at_us, Event::Datagram { packet, bytes, turn: Some(turn) });
        Ok(())
    }
}

/// One to three bits are the other way round, `which` says which. UDP's checksum misses one such datagram in
/// 65,536; only those are worth simulating, for the others are lost, which is a fault of its own.
fn with_flipped_bits(bytes: &[u8], which: u64) -> Bytes {
    let mut bytes = bytes.to_vec();
    let bits = bytes.len() as u64 * 8;
    if bits > 0 {
        let flips = 1 + which % 3;
        for flip in 0..flips {
            // Never the same bit twice where there are enough: that would undo it.
            let bit = (which / 3 + flip * (bits / 3).max(1)) % bits;
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
    }
    bytes.into()
}

#[async_trait]
impl Udp for FabricUdp {
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.shared.lock().send_datagram(self.machine, self.address, to, bytes)
    }

    async fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        poll_fn(|context| self.poll_recv(into, context)).await
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl FabricUdp {
    fn poll_recv(&self, into: &mut [u8], context: &Context<'_>) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut state = self.shared.lock();
        state.admit(self.machine)?;
        let Some(socket) = state.sockets.get_mut(&self.address) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let Some((bytes, from)) = socket.queue.pop_front() else {
            // A receiver that is polled again and again must not pile up.
            if !socket.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                socket.waiting.push(context.waker().clone());
            }
            return Poll::Pending;
        };
        let len = bytes.len().min(into.len());
        into[..len].copy_from_slice(&bytes[..len]);
        Poll::Ready(Ok((len, from)))
    }
}

impl Drop for FabricUdp {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        // After a crash the address may already belong to the next incarnation.
        if state.is_alive(self.machine) {
            state.sockets.remove(&self.address);
        }
    }
}
