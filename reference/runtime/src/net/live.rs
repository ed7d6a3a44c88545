//! Real sockets: TCP under TLS, and UDP.
//!
//! Not here: retries and time-outs of whole requests (`http`), DNS caching (the system's resolver).

#![expect(clippy::disallowed_types, reason = "the one user of real sockets")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::resolve::is_public;
use super::{IpRange, Listener, Net, ResolveTable, Stream, Udp};
use crate::Clock;
use crate::tls::{self, Identity, TlsError};

/// How long a client may take for its TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes under way at one listener; further connections wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 512;

/// How a machine is placed on the network.
#[derive(Clone, Debug, Default)]
pub struct LiveConfig {
    /// Who it is as a server; the first that is good for the name asked for is shown.
    pub identities: Vec<Identity>,
    /// Certificates of the authorities it trusts as a client, PEM. Nobody else is trusted.
    pub trust_pem: String,
    /// Names with configured addresses; others are asked of the system's resolver.
    pub resolve: ResolveTable,
    /// NAM-005: addresses that may be reached although they are not public.
    pub allow: Vec<IpRange>,
    /// SEC-001: no TLS on loopback addresses, to and from. For machines without certificates.
    pub insecure_loopback: bool,
}

/// The network of a real machine.
pub struct LiveNet {
    config: LiveConfig,
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    clock: Clock,
}

impl LiveNet {
    /// The network as configured.
    ///
    /// # Errors
    /// When a certificate or a key cannot be used.
    pub fn new(config: LiveConfig) -> Result<Self, TlsError> {
        let connector = TlsConnector::from(Arc::new(tls::client_config(&config.trust_pem)?));
        let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(&config.identities)?));
        Ok(Self { config, connector, acceptor, clock: Clock::real() })
    }

    /// NAM-005: public addresses, those the operator allows, and what the table says of this very name.
    fn permit(&self, to: SocketAddr, name: &str) -> io::Result<()> {
        let ip = to.ip().to_canonical();
        let named = || self.config.resolve.lookup(name, to.port()) == Some(to);
        if is_public(ip) || self.config.allow.iter().any(|range| range.contains(ip)) || named() {
            return Ok(());
        }
        let reason =
            format!("{name} is at {ip}, which is not public: list it under `allow` or name it in `resolve`");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
    }

    fn in_clear(&self, ip: IpAddr) -> bool {
        self.config.insecure_loopback && ip.is_loopback()
    }
}

#[async_trait]
impl Net for LiveNet {
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Some(address) = self.config.resolve.lookup(name, port) {
            return Ok(vec![address]);
        }
        let found: Vec<_> = match name.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => match tokio::net::lookup_host((name, port)).await {
                Ok(found) => found.collect(),
                Err(error) => return Err(io::Error::new(io::ErrorKind::NotFound, error)),
            },
        };
        // One address that leads inside spoils the answer: whoever gave it means no good.
        found.iter().try_for_each(|&address| self.permit(address, name))?;
        Ok(found)
    }

    async fn connect(&self, to: SocketAddr, name: &str) -> io::Result<Stream> {
        self.permit(to, name)?;
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        if self.in_clear(to.ip()) {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(self.connector.connect(name, stream).await?))
    }

    async fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let in_clear = self.in_clear(at.ip());
        if !in_clear && self.config.identities.is_empty() {
            return Err(io::Error::other(format!("no certificate to listen with at {at}")));
        }
        let socket = TcpListener::bind(at).await?;
        Ok(Box::new(LiveListener {
            local_addr: socket.local_addr()?,
            socket,
            acceptor: (!in_clear).then(|| self.acceptor.clone()),
            clock: self.clock.clone(),
            handshakes: FuturesUnordered::new(),
        }))
    }

    async fn udp(&self, at: SocketAddr) -> io::Result<Arc<dyn Udp>> {
        let socket = UdpSocket::bind(at).await?;
        Ok(Arc::new(LiveUdp { local_addr: socket.local_addr()?, socket }))
    }
}

struct LiveListener {
    socket: TcpListener,
    local_addr: SocketAddr,
    /// None: in clear.
    acceptor: Option<TlsAcceptor>,
    clock: Clock,
    handshakes: FuturesUnordered<BoxFuture<'static, Option<(Stream, SocketAddr)>>>,
}

#[async_trait]
impl Listener for LiveListener {
    async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        loop {
            let room = self.handshakes.len() < HANDSHAKES_MAX;
            tokio::select! {
                biased;
                // A failed handshake is passed over.
                Some(secured) = self.handshakes.next() => if let Some(secured) = secured {
                    return Ok(secured);
                },
                accepted = self.socket.accept(), if room => {
                    let (stream, peer) = accepted?;
                    // It fails only on a connection that is gone already.
                    if stream.set_nodelay(true).is_err() {
                        continue;
                    }
                    match &self.acceptor {
                        None => return Ok((Box::new(stream), peer)),
                        Some(acceptor) => self.handshakes.push(handshake(acceptor, &self.clock, stream, peer)),
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

fn handshake(
    acceptor: &TlsAcceptor,
    clock: &Clock,
    stream: TcpStream,
    peer: SocketAddr,
) -> BoxFuture<'static, Option<(Stream, SocketAddr)>> {
    let (accepting, clock) = (acceptor.accept(stream), clock.clone());
    Box::pin(async move {
        let secured = clock.timeout(HANDSHAKE_TIMEOUT, accepting).await.ok()?.ok()?;
        Some((Box::new(secured) as Stream, peer))
    })
}

struct LiveUdp {
    socket: UdpSocket,
    local_addr: SocketAddr,
}

#[async_trait]
impl Udp for LiveUdp {
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.socket.send_to(bytes, to).await.map(|_| ())
    }

    async fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(into).await
    }

    fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}
