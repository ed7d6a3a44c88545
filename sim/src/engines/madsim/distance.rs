//! How far machines are from each other: madsim's network knows one latency for all.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use fusion_deployment::Federation;
use madsim::net::TcpStream;
use madsim::time::{Instant, Sleep, sleep_until};
use tokio::io::{AsyncRead as _, ReadBuf};

/// How much longer a packet is on its way between data centres.
const FAR: Duration = Duration::from_millis(20);
/// How much is taken from the network at a time.
const CHUNK: usize = 16 << 10;

/// Where everything with an address stands; nothing when all are as far as madsim has it.
#[derive(Clone)]
pub(super) struct Distances(Option<Arc<BTreeMap<IpAddr, String>>>);

impl Distances {
    pub(super) fn of(federation: &Federation) -> Self {
        let hosts = federation.hosts.iter().map(|host| (host.ip, host.data_center.clone()));
        Self(Some(Arc::new(hosts.collect())))
    }

    /// No distances beside madsim's own.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// What arrives at `one` from `other`, where the way between them matters.
    pub(super) fn arriving(&self, one: IpAddr, other: IpAddr) -> Option<Arriving> {
        self.0.as_ref()?;
        Some(Arriving::over(self.between(one, other)))
    }

    /// How much longer packets take between the two; a device is in nobody's data centre.
    pub(super) fn between(&self, one: IpAddr, other: IpAddr) -> Duration {
        let Some(places) = &self.0 else { return Duration::ZERO };
        let near = one == other || places.get(&one).is_some_and(|here| places.get(&other) == Some(here));
        if near { Duration::ZERO } else { FAR }
    }
}

/// What is on its way to this end of a connection.
pub(super) struct Arriving {
    way: Duration,
    /// Each with the moment of its arrival; an empty one is the end.
    chunks: VecDeque<(Instant, Vec<u8>)>,
    next: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl Arriving {
    fn over(way: Duration) -> Self {
        Self { way, chunks: VecDeque::new(), next: None, ended: false }
    }

    /// What has arrived of `stream`, as [`tokio::io::AsyncRead::poll_read`].
    pub(super) fn poll_read(
        &mut self,
        stream: &mut TcpStream,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.ended && self.take_in(stream, context)? {}
        let Some((arrival, _)) = self.chunks.front() else { return Poll::Pending };
        ready!(self.next.get_or_insert_with(|| Box::pin(sleep_until(*arrival))).as_mut().poll(context));
        if let Some((_, chunk)) = self.chunks.front_mut() {
            let length = chunk.len().min(into.remaining());
            into.put_slice(&chunk[..length]);
            chunk.drain(..length);
            // The end stays there for whoever reads again.
            if chunk.is_empty() && (self.chunks.len() > 1 || !self.ended) {
                self.chunks.pop_front();
                self.next = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether there was something to take.
    fn take_in(&mut self, stream: &mut TcpStream, context: &mut Context<'_>) -> io::Result<bool> {
        let mut chunk = [0; CHUNK];
        let mut buffer = ReadBuf::new(&mut chunk);
        let Poll::Ready(taken) = Pin::new(stream).poll_read(context, &mut buffer) else { return Ok(false) };
        taken?;
        self.ended = buffer.filled().is_empty();
        #[expect(clippy::disallowed_methods, reason = "the world's own clock, under this engine's network")]
        let arrival = Instant::now() + self.way;
        self.chunks.push_back((arrival, buffer.filled().to_vec()));
        Ok(true)
    }
}
