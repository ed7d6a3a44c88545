//! What a service sees: connecting, accepting, reading and writing.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use fusion_runtime::net::{Listener, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Hold, Side};
use crate::fabric::host::{HostId, Incarnation};
use crate::fabric::world::{Shared, State};

/// A listening socket and who waits to be accepted.
pub(in crate::fabric) struct Backlog {
    pub(super) host: HostId,
    pub(super) backlog: VecDeque<u64>,
    waiting: Option<Waker>,
}

impl Backlog {
    /// How many connections wait to be accepted.
    pub(in crate::fabric) fn waiting(&self) -> usize {
        self.backlog.len()
    }
}

/// One end of a connection. Dropping it closes the end.
struct FabricStream {
    shared: Arc<Shared>,
    connection: u64,
    side: Side,
}

struct FabricListener {
    shared: Arc<Shared>,
    machine: Incarnation,
    address: SocketAddr,
}

/// Connects `machine` to `to`.
pub(in crate::fabric) async fn connect(
    shared: &Arc<Shared>,
    machine: Incarnation,
    to: SocketAddr,
    name: &str,
) -> io::Result<Stream> {
    let opened = {
        let mut state = shared.lock();
        state.admit(machine)?;
        match state.destination(machine.host, to) {
            Some(to) => Some((state.open(machine.host, to)?, to)),
            None => None,
        }
    };
    let Some((connection, to)) = opened else {
        // Nobody has that address, so nobody answers.
        let (clock, limit_ms) = {
            let state = shared.lock();
            (state.clock.clone(), state.options.tcp.connect_timeout_ms)
        };
        clock.sleep(Duration::from_millis(limit_ms)).await;
        return Err(io::ErrorKind::TimedOut.into());
    };
    // From here on, a caller who stops waiting closes the connection.
    let stream = FabricStream { shared: shared.clone(), connection, side: Side::Client };
    poll_fn(|context| shared.lock().poll_open(connection, context)).await?;
    shared.lock().verify(to, name)?;
    Ok(Box::new(stream))
}

/// Listens on `machine` at `at`.
pub(in crate::fabric) fn listen(
    shared: &Arc<Shared>,
    machine: Incarnation,
    at: SocketAddr,
) -> io::Result<Box<dyn Listener>> {
    let mut state = shared.lock();
    let address = state.bind(machine, at)?;
    if state.listeners.contains_key(&address) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    state.listeners.insert(address, Backlog { host: machine.host, backlog: VecDeque::new(), waiting: None });
    Ok(Box::new(FabricListener { shared: shared.clone(), machine, address }))
}

impl Backlog {
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

impl State {
    /// Where `host` listens; with several places, one after the other.
    pub(in crate::fabric) fn listener_of(&self, host: HostId, number: u32) -> Option<SocketAddr> {
        let of_host = || self.listeners.iter().filter(|(_, listener)| listener.host == host);
        let count = of_host().count();
        of_host().map(|(at, _)| *at).nth(number as usize % count.max(1))
    }

    fn poll_accept(
        &mut self,
        machine: Incarnation,
        at: SocketAddr,
        context: &Context<'_>,
    ) -> Poll<io::Result<(u64, SocketAddr)>> {
        self.admit(machine)?;
        let Some(listener) = self.listeners.get_mut(&at) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        while let Some(id) = listener.backlog.pop_front() {
            // One that the client gave up meanwhile is passed over.
            if let Some(connection) = self.connections.open.get_mut(&id) {
                connection.end_mut(Side::Server).hold = Hold::Process;
                return Poll::Ready(Ok((id, connection.end(Side::Client).address)));
            }
        }
        listener.waiting = Some(context.waker().clone());
        Poll::Pending
    }
}

#[async_trait]
impl Listener for FabricListener {
    async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        let (shared, machine, address) = (&self.shared, self.machine, self.address);
        let (connection, peer) =
            poll_fn(|context| shared.lock().poll_accept(machine, address, context)).await?;
        Ok((Box::new(FabricStream { shared: shared.clone(), connection, side: Side::Server }), peer))
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for FabricListener {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        // After a crash the address may already belong to the next incarnation.
        if state.is_alive(self.machine)
            && let Some(listener) = state.listeners.remove(&self.address)
        {
            state.turn_away(listener.backlog);
        }
    }
}

impl AsyncRead for FabricStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.shared.lock().poll_read(self.connection, self.side, into, context)
    }
}

impl AsyncWrite for FabricStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared.lock().poll_write(self.connection, self.side, buffers, context)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shared.lock().finish(self.connection, self.side))
    }
}

impl Drop for FabricStream {
    fn drop(&mut self) {
        self.shared.lock().let_go(self.connection, self.side);
    }
}
