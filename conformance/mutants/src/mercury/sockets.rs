//! Sockets gone wrong: a connection server that forgets to hang up.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use fusion_deployment::{Hooks, Role};
use fusion_runtime::Net;
use fusion_runtime::net::{Listener, Stream, Udp};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Mutant;
use crate::wrap::is_cluster;

/// How many sockets are left open at a time.
const FORGOTTEN_MAX: usize = 256;
/// How a frame begins that says goodbye.
const GOODBYE: &[u8] = br#"{"type":"closing""#;

/// MER-005: a socket that a newer one has replaced is told nothing and stays open.
pub(crate) const OLDER_STAYS_OPEN: Mutant = Mutant {
    name: "older-socket-stays-open",
    hooks: || {
        let wrap = |role: &Role, net: Arc<dyn Net>| match is_cluster(role) {
            true => Arc::new(Forgetful { net, open: Forgotten::default() }) as Arc<dyn Net>,
            false => net,
        };
        Hooks { wrap_net: Some(Arc::new(wrap)), ..Hooks::default() }
    },
};

/// Connections that nobody uses and nobody has closed.
type Forgotten = Arc<Mutex<VecDeque<Stream>>>;

struct Forgetful {
    net: Arc<dyn Net>,
    open: Forgotten,
}

struct Ear {
    listener: Box<dyn Listener>,
    open: Forgotten,
}

/// A connection that is not closed once it should have said goodbye.
struct Line {
    stream: Option<Stream>,
    is_over: bool,
    open: Forgotten,
}

#[async_trait]
impl Net for Forgetful {
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.net.resolve(name, port).await
    }

    async fn connect(&self, to: SocketAddr, name: &str) -> io::Result<Stream> {
        self.net.connect(to, name).await
    }

    async fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(Ear { listener: self.net.listen(at).await?, open: self.open.clone() }))
    }

    async fn udp(&self, at: SocketAddr) -> io::Result<Arc<dyn Udp>> {
        self.net.udp(at).await
    }
}

#[async_trait]
impl Listener for Ear {
    async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, from) = self.listener.accept().await?;
        Ok((Box::new(Line { stream: Some(stream), is_over: false, open: self.open.clone() }), from))
    }

    fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }
}

impl Line {
    fn stream(&mut self) -> io::Result<Pin<&mut Stream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(context, into)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_over |= bytes.windows(GOODBYE.len()).any(|window| window == GOODBYE);
        match self.is_over {
            true => Poll::Ready(Ok(bytes.len())),
            false => self.stream()?.poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.is_over {
            true => Poll::Ready(Ok(())),
            false => self.stream()?.poll_shutdown(context),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take().filter(|_| self.is_over) else { return };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() == FORGOTTEN_MAX {
            open.pop_front();
        }
        open.push_back(stream);
    }
}
