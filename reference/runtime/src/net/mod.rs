//! Connections and datagrams, behind one object-safe trait.
//!
//! A [`Stream`] is already secured: the live network wraps it in TLS and checks the server's name, a
//! simulated network hands out a plain pipe for the same `https` URL.

#[cfg(not(madsim))]
pub mod live;
pub mod resolve;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

#[cfg(not(madsim))]
pub use live::{LiveConfig, LiveNet};
pub use resolve::{IpRange, ResolveTable};

/// Bytes in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A secured, ordered, reliable connection.
pub type Stream = Box<dyn Io>;

/// What a machine can do on the network.
#[async_trait]
pub trait Net: Send + Sync + 'static {
    /// The addresses of a host name. Errors: `NotFound` for a name that does not exist.
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>>;

    /// A secured connection to `to`, whose certificate must be good for `name`.
    async fn connect(&self, to: SocketAddr, name: &str) -> io::Result<Stream>;

    /// Accepts secured connections at `at`.
    async fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>>;

    /// A datagram socket at `at`; port 0 takes a free one.
    async fn udp(&self, at: SocketAddr) -> io::Result<Arc<dyn Udp>>;
}

/// A listening socket.
#[async_trait]
pub trait Listener: Send {
    /// The next connection with its peer's address. A failed handshake is not an error of the
    /// listener: it is passed over.
    async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)>;

    /// Where it listens.
    fn local_addr(&self) -> SocketAddr;
}

/// A datagram socket. Both calls are safe to cancel.
#[async_trait]
pub trait Udp: Send + Sync {
    /// Sends one datagram; whether it arrives is the network's affair.
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()>;

    /// Receives one datagram; longer ones are cut at `into.len()`.
    async fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)>;

    /// Where it is bound.
    fn local_addr(&self) -> SocketAddr;
}
