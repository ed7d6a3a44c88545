//! HTTP/1.1 over the seam: a server, a pooled client, and what both can tell their callers.
//!
//! Not here: what is served (routers of the services), retries of whole operations (the caller knows
//! whether repeating is harmless), redirects (a token must not follow one, NAM-005).

mod client;
mod exchange;
mod pool;
mod server;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

pub(crate) use client::{Authority, open};
pub use client::{Client, Coming, RESPONSE_MAX, TIMEOUT};
pub(crate) use server::Slot;
pub use server::{CONNECTIONS_MAX, HEADER_TIMEOUT, Serving, serve};

use crate::Clock;

/// The address a request came from; every served request carries it as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Why there is no response, by what the caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The name, the connection or TLS failed: nothing was sent, so trying again is harmless.
    #[error("cannot reach {authority}: {reason}")]
    Unreachable {
        /// Host and port.
        authority: String,
        /// What failed.
        reason: String,
    },
    /// The connection broke after the request was sent: whether it was carried out is unknown.
    #[error("the connection broke before the response was complete: {0}")]
    Interrupted(String),
    /// No complete response in time: whether the request was carried out is unknown.
    #[error("no response in time")]
    TimedOut,
    /// The response is longer than this client reads.
    #[error("the response is too large")]
    TooLarge,
    /// The request cannot be sent as it is, or the response is not HTTP.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The server answered the opening of a WebSocket with this status instead.
    #[error("the server refused the WebSocket with status {0}")]
    Refused(u16),
}

/// hyper's timer, on the host's clock.
#[derive(Clone)]
struct HyperTimer(Clock);

impl Timer for HyperTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        let clock = self.0.clone();
        Box::pin(Sleeping(Box::pin(async move { clock.sleep(duration).await })))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(self.now()))
    }

    fn now(&self) -> Instant {
        self.0.instant()
    }
}

struct Sleeping(Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

impl Future for Sleeping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl Sleep for Sleeping {}
