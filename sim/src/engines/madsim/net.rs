//! The seam's network over madsim's, with what its sockets need to be like others put right.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use fusion_runtime::Net;
use fusion_runtime::net::{Listener, Stream, Udp};
use madsim::net::{TcpListener, TcpStream, UdpSocket};
use madsim::runtime::Handle;
use madsim::task::{FallibleTask, NodeId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Mutex, mpsc};

use super::distance::{Arriving, Distances};
use super::names::Names;
use crate::engines::evidence::Evidence;

/// Datagrams that wait on one side of a socket; further ones are dropped, as by a kernel.
const DATAGRAMS_MAX: usize = 1024;
/// Longer than any datagram.
const DATAGRAM_MAX: usize = 64 << 10;

/// The network as one machine sees it, in whichever of its lives.
#[derive(Clone)]
pub(super) struct MachineNet {
    pub(super) name: Arc<str>,
    pub(super) node: NodeId,
    pub(super) ip: IpAddr,
    pub(super) distances: Distances,
    pub(super) names: Names,
    pub(super) evidence: Arc<Evidence>,
}

impl MachineNet {
    /// `open` as done by the machine: whoever calls may be a task of another one, as the play is when it
    /// acts for a device. Given up with the future.
    async fn on_machine<T: Send + 'static>(
        &self,
        open: impl Future<Output = io::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        let gone = || io::Error::new(io::ErrorKind::ConnectionAborted, "the machine has gone down");
        let node = Handle::current().get_node(self.node).ok_or_else(gone)?;
        node.spawn(open).cancel_on_drop().await.ok_or_else(gone)?
    }

    fn pipe(&self, stream: TcpStream, peer: SocketAddr) -> Stream {
        let tap = self.evidence.watches(&self.name).then(|| (self.name.clone(), self.evidence.clone()));
        Box::new(Pipe { stream, arriving: self.distances.arriving(self.ip, peer.ip()), tap })
    }
}

#[async_trait]
impl Net for MachineNet {
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let addresses = self.names.look_up(name);
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no such name: {name}")));
        }
        Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    async fn connect(&self, to: SocketAddr, _: &str) -> io::Result<Stream> {
        let way = self.distances.between(self.ip, to.ip());
        let connect = async move {
            madsim::time::sleep(way * 2).await;
            TcpStream::connect(to).await
        };
        Ok(self.pipe(self.on_machine(connect).await?, to))
    }

    async fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let listener = self.on_machine(TcpListener::bind(at)).await?;
        let at = listener.local_addr()?;
        Ok(Box::new(Accepting { net: self.clone(), listener, at }))
    }

    async fn udp(&self, at: SocketAddr) -> io::Result<Arc<dyn Udp>> {
        let net = self.clone();
        self.on_machine(async move { Ok(Arc::new(Datagrams::open(at, &net).await?) as Arc<dyn Udp>) }).await
    }
}

struct Accepting {
    net: MachineNet,
    listener: TcpListener,
    at: SocketAddr,
}

#[async_trait]
impl Listener for Accepting {
    async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((self.net.pipe(stream, peer), peer))
    }

    fn local_addr(&self) -> SocketAddr {
        self.at
    }
}

/// A connection that sends what is written at once. madsim's sends a packet at every flush, even with
/// nothing written, and hyper flushes whenever it is polled: two idle ends would wake each other for ever.
struct Pipe {
    stream: TcpStream,
    /// Without, what the network delivers is there at once.
    arriving: Option<Arriving>,
    /// Of the provider plane, what arrives is kept (PRI-001).
    tap: Option<(Arc<str>, Arc<Evidence>)>,
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let Self { stream, arriving, tap } = &mut *self;
        ready!(match arriving {
            Some(arriving) => arriving.poll_read(stream, context, into),
            None => Pin::new(stream).poll_read(context, into),
        })?;
        if let Some((name, evidence)) = tap {
            evidence.arrived(name, &into.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A datagram socket with a task on either side: madsim's own takes a millisecond for every call, and one
/// that is cancelled meanwhile loses the datagram.
struct Datagrams {
    outgoing: mpsc::Sender<Datagram>,
    incoming: Mutex<mpsc::Receiver<Datagram>>,
    at: SocketAddr,
    _sending: FallibleTask<()>,
    _receiving: FallibleTask<()>,
}

/// A datagram, and where it goes or comes from.
type Datagram = (Vec<u8>, SocketAddr);

impl Datagrams {
    /// Called on the machine itself.
    async fn open(at: SocketAddr, net: &MachineNet) -> io::Result<Self> {
        let socket = Arc::new(UdpSocket::bind(at).await?);
        let at = socket.local_addr()?;
        let (outgoing, to_send) = mpsc::channel(DATAGRAMS_MAX);
        let (arrived, incoming) = mpsc::channel(DATAGRAMS_MAX);
        let sending = madsim::task::spawn(send_all(socket.clone(), to_send));
        let receiving = madsim::task::spawn(receive_all(socket, arrived, net.clone()));
        Ok(Self {
            outgoing,
            incoming: Mutex::new(incoming),
            at,
            _sending: sending.cancel_on_drop(),
            _receiving: receiving.cancel_on_drop(),
        })
    }
}

async fn send_all(socket: Arc<UdpSocket>, mut datagrams: mpsc::Receiver<Datagram>) {
    while let Some((bytes, to)) = datagrams.recv().await {
        // The address comes first here. Whether it arrives is the network's affair.
        let _ = socket.send_to(to, &bytes).await;
    }
}

async fn receive_all(socket: Arc<UdpSocket>, arrived: mpsc::Sender<Datagram>, net: MachineNet) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        net.evidence.arrived(&net.name, &buffer[..length]);
        let (bytes, arrived) = (buffer[..length].to_vec(), arrived.clone());
        let way = net.distances.between(net.ip, from.ip());
        drop(madsim::task::spawn(async move {
            madsim::time::sleep(way).await;
            let _ = arrived.try_send((bytes, from));
        }));
    }
}

#[async_trait]
impl Udp for Datagrams {
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let _ = self.outgoing.try_send((bytes.to_vec(), to));
        Ok(())
    }

    async fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the socket is gone");
        let (bytes, from) = self.incoming.lock().await.recv().await.ok_or_else(gone)?;
        let length = bytes.len().min(into.len());
        into[..length].copy_from_slice(&bytes[..length]);
        Ok((length, from))
    }

    fn local_addr(&self) -> SocketAddr {
        self.at
    }
}
