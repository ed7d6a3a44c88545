//! A network in memory: names, and connections that can be cut. No latency, no loss.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use fusion_runtime::net::{Listener, Net, Stream, Udp};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

/// Bytes on their way in one direction of a connection.
const BUFFER: usize = 64 << 10;

/// The network that all machines of a test share.
#[derive(Clone, Default)]
pub(crate) struct MemoryNet(Arc<Mutex<Plugged>>);

#[derive(Default)]
struct Plugged {
    names: BTreeMap<String, SocketAddr>,
    listening: BTreeMap<SocketAddr, mpsc::UnboundedSender<Stream>>,
    cables: BTreeMap<SocketAddr, Arc<AtomicBool>>,
}

struct Accepting {
    at: SocketAddr,
    arriving: mpsc::UnboundedReceiver<Stream>,
}

/// One end of a connection; fails once its cable is cut.
struct Cabled {
    stream: DuplexStream,
    cut: Arc<AtomicBool>,
}

impl MemoryNet {
    /// Gives a host name its address.
    pub(crate) fn name(&self, host: &str, at: SocketAddr) {
        self.plugged().names.insert(host.to_owned(), at);
    }

    /// Ends every connection to `at` and refuses new ones until it listens again.
    pub(crate) fn unplug(&self, at: SocketAddr) {
        let mut plugged = self.plugged();
        plugged.listening.remove(&at);
        if let Some(cut) = plugged.cables.remove(&at) {
            cut.store(true, Ordering::Relaxed);
        }
    }

    fn plugged(&self) -> MutexGuard<'_, Plugged> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Net for MemoryNet {
    async fn resolve(&self, name: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        self.plugged().names.get(name).map(|at| vec![*at]).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    async fn connect(&self, to: SocketAddr, _: &str) -> io::Result<Stream> {
        let mut plugged = self.plugged();
        let cut = plugged.cables.entry(to).or_default().clone();
        let (near, far) = tokio::io::duplex(BUFFER);
        let listening = plugged.listening.get(&to).ok_or(io::ErrorKind::ConnectionRefused)?;
        let far = Cabled { stream: far, cut: cut.clone() };
        listening.send(Box::new(far)).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Box::new(Cabled { stream: near, cut }))
    }

    async fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let (sender, arriving) = mpsc::unbounded_channel();
        self.plugged().listening.insert(at, sender);
        Ok(Box::new(Accepting { at, arriving }))
    }

    async fn udp(&self, _: SocketAddr) -> io::Result<Arc<dyn Udp>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[async_trait]
impl Listener for Accepting {
    async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        match self.arriving.recv().await {
            Some(stream) => Ok((stream, SocketAddr::from(([10, 0, 0, 1], 1)))),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.at
    }
}

impl Cabled {
    fn whole(&self) -> io::Result<()> {
        if self.cut.load(Ordering::Relaxed) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Cabled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.whole()?;
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Cabled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.whole()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
