//! The seam's network over turmoil's sockets.
//!
//! turmoil loses a segment for ever and holds a datagram like a segment, where a real network loses datagrams
//! and sends segments again. So what is lost is told apart here: datagrams meet their losses in [`Wires`],
//! segments meet turmoil's holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use async_trait::async_trait;
use fusion_deployment::Federation;
use fusion_runtime::net::{Listener, Stream, Udp};
use fusion_runtime::{Entropy, Net};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream, UdpSocket};

use crate::engines::evidence::{Evidence, lock};

/// With which probability a datagram from one machine to another is lost, where any is.
pub(super) type Losses = BTreeMap<(IpAddr, IpAddr), f64>;

/// What all machines share of the network: names, and what becomes of datagrams.
pub(super) struct Wires {
    names: BTreeMap<String, Vec<IpAddr>>,
    losses: Mutex<Losses>,
    /// Machines that are down: turmoil leaves whoever connects to them without an answer, and the machine
    /// of a process that has crashed refuses.
    down: Mutex<BTreeSet<IpAddr>>,
    entropy: Entropy,
}

/// The network as one machine sees it.
pub(super) struct MachineNet {
    machine: Arc<str>,
    ip: IpAddr,
    wires: Arc<Wires>,
    evidence: Arc<Evidence>,
}

impl Wires {
    /// The names of `federation`, and nothing lost.
    pub(super) fn new(federation: &Federation, entropy: Entropy) -> Self {
        Self::named(&federation.resolve, entropy)
    }

    /// These names, and nothing lost.
    pub(super) fn named(names: &BTreeMap<String, Vec<IpAddr>>, entropy: Entropy) -> Self {
        let names = names.iter().map(|(name, ips)| (canonical(name), ips.clone()));
        Self { names: names.collect(), losses: Mutex::default(), down: Mutex::default(), entropy }
    }

    /// Which datagrams are lost from now on.
    pub(super) fn set(&self, losses: Losses) {
        *lock(&self.losses) = losses;
    }

    /// The machine has crashed.
    pub(super) fn take_down(&self, ip: IpAddr) {
        lock(&self.down).insert(ip);
    }

    /// The machine runs again.
    pub(super) fn bring_up(&self, ip: IpAddr) {
        lock(&self.down).remove(&ip);
    }

    /// Whether a machine that can be reached refuses, for nothing listens there.
    fn refuses(&self, from: IpAddr, to: IpAddr) -> bool {
        lock(&self.down).contains(&to) && self.loss(from, to) < 1.0
    }

    fn loses(&self, from: IpAddr, to: IpAddr) -> bool {
        let probability = self.loss(from, to);
        probability > 0.0 && self.entropy.chance(probability)
    }

    fn loss(&self, from: IpAddr, to: IpAddr) -> f64 {
        lock(&self.losses).get(&(from, to)).copied().unwrap_or_default()
    }
}

impl MachineNet {
    pub(super) fn new(machine: &str, ip: IpAddr, wires: Arc<Wires>, evidence: Arc<Evidence>) -> Self {
        Self { machine: machine.into(), ip, wires, evidence }
    }

    /// A stream of this machine; what reaches the provider plane is kept for the search (PRI-001).
    fn stream(&self, stream: TcpStream) -> Stream {
        tapped(&self.machine, &self.evidence, stream)
    }
}

#[async_trait]
impl Net for MachineNet {
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        match self.wires.names.get(&canonical(name)) {
            Some(ips) if !ips.is_empty() => Ok(ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect()),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, format!("no such name: {name}"))),
        }
    }

    async fn connect(&self, to: SocketAddr, _name: &str) -> io::Result<Stream> {
        if self.wires.refuses(self.ip, to.ip()) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(self.stream(TcpStream::connect(to).await?))
    }

    async fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let listener = TcpListener::bind(anywhere(at.port())).await?;
        let local = SocketAddr::new(self.ip, listener.local_addr()?.port());
        let (machine, evidence) = (self.machine.clone(), self.evidence.clone());
        Ok(Box::new(MachineListener { listener, local, machine, evidence }))
    }

    async fn udp(&self, at: SocketAddr) -> io::Result<Arc<dyn Udp>> {
        let socket = UdpSocket::bind(anywhere(at.port())).await?;
        let local = SocketAddr::new(self.ip, socket.local_addr()?.port());
        Ok(Arc::new(MachineUdp { socket, local, wires: self.wires.clone() }))
    }
}

struct MachineListener {
    listener: TcpListener,
    local: SocketAddr,
    machine: Arc<str>,
    evidence: Arc<Evidence>,
}

#[async_trait]
impl Listener for MachineListener {
    async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((tapped(&self.machine, &self.evidence, stream), peer))
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

struct MachineUdp {
    socket: UdpSocket,
    local: SocketAddr,
    wires: Arc<Wires>,
}

#[async_trait]
impl Udp for MachineUdp {
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        if self.wires.loses(self.local.ip(), to.ip()) {
            return Ok(());
        }
        match self.socket.send_to(bytes, to).await {
            // No machine has that address: what was sent is lost.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            sent => sent.map(|_| ()),
        }
    }

    async fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(into).await
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// A stream whose machine is of the provider plane.
struct Tapped {
    stream: TcpStream,
    machine: Arc<str>,
    evidence: Arc<Evidence>,
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        self.evidence.arrived(&self.machine, &into.filled()[before..]);
        read
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn tapped(machine: &Arc<str>, evidence: &Arc<Evidence>, stream: TcpStream) -> Stream {
    if evidence.watches(machine) {
        Box::new(Tapped { stream, machine: machine.clone(), evidence: evidence.clone() })
    } else {
        Box::new(stream)
    }
}

/// turmoil binds to no other address.
fn anywhere(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

/// Names compare without case and without the root's dot.
fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
