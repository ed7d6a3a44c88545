//! The server: an accept loop, one task a connection, and the limits that hold for every service.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use fusion_protocol::{Code, Problem, limits, problem};
use futures_util::future::{Either, ready};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service as _;

use super::{HyperTimer, PeerAddr};
use crate::net::{Listener, Stream};
use crate::probe::Level;
use crate::{Clock, Host, Latch};

/// How many connections one listening address serves at once, WebSockets included; further ones wait
/// to be accepted.
pub const CONNECTIONS_MAX: usize = 16 << 10;

/// How long a connection may take to send a request's header, or stay idle between requests. Longer
/// than the client's idle time-out, so that a pooled connection is closed by its client.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// hyper's read and write buffers never grow beyond this; a header beyond SEC-007 is refused before.
const BUFFER_MAX: usize = 64 << 10;

/// How much of a refused body is still read, so that the answer arrives, and for how long.
const LINGER_MAX: usize = 8 * limits::BODY_MAX;
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the accept loop rests after a failure (no file descriptors left, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running server. Dropping it leaves the server running.
pub struct Serving {
    /// Where it listens.
    pub local_addr: SocketAddr,
    stop: Arc<Latch>,
    slots: Arc<Semaphore>,
}

/// A served connection's place among [`CONNECTIONS_MAX`]; a WebSocket takes it over.
#[derive(Clone)]
pub(crate) struct Slot(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

/// Serves `router` at `at` (port 0 takes a free one) until [`Serving::stop`] or the machine's end.
///
/// SEC-007: a header above 16 KiB is answered by 431, a body announced or read above 1 MiB by 413. A
/// handler that panics costs its own connection only.
///
/// # Errors
/// When `at` cannot be listened on.
pub async fn serve(host: &Host, at: SocketAddr, router: Router) -> io::Result<Serving> {
    let listener = host.net.listen(at).await?;
    let serving = Serving {
        local_addr: listener.local_addr(),
        stop: Arc::default(),
        slots: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
    };
    let server = Server {
        router: router.layer(DefaultBodyLimit::max(limits::BODY_MAX)).with_state(()),
        http: connection_builder(host),
        stop: serving.stop.clone(),
        slots: serving.slots.clone(),
        host: host.clone(),
    };
    host.tasks.spawn(server.run(listener));
    Ok(serving)
}

impl Serving {
    /// Stops accepting and lets each connection end after the request it is serving. WebSockets are
    /// left to the service that holds them.
    pub fn stop(&self) {
        self.stop.open();
    }

    /// OPS-004: stops, and waits until no connection and no WebSocket is left.
    pub async fn drained(&self) {
        self.stop();
        let _all = self.slots.acquire_many(CONNECTIONS_MAX as u32).await;
    }

    /// How many connections are open now, WebSockets included.
    #[must_use]
    pub fn connections(&self) -> usize {
        CONNECTIONS_MAX - self.slots.available_permits()
    }
}

fn connection_builder(host: &Host) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(HyperTimer(host.clock.clone()))
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(limits::HEADER_MAX)
        .max_buf_size(BUFFER_MAX)
        .auto_date_header(false);
    builder
}

struct Server {
    host: Host,
    router: Router,
    http: http1::Builder,
    stop: Arc<Latch>,
    slots: Arc<Semaphore>,
}

impl Server {
    async fn run(self, mut listener: Box<dyn Listener>) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.opened() => return,
                accepted = self.accept(&mut listener) => accepted,
            };
            let Some((stream, peer, slot)) = accepted else { return };
            self.host.tasks.spawn(self.connection(stream, peer, slot));
        }
    }

    /// The next connection, once there is room to serve it.
    async fn accept(&self, listener: &mut Box<dyn Listener>) -> Option<(Stream, SocketAddr, Slot)> {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let permit = self.slots.clone().acquire_owned().await.ok()?;
                    return Some((stream, peer, Slot(Arc::new(permit))));
                }
                Err(error) => {
                    let fields = json!({ "error": error.kind().to_string() });
                    self.host.probe.log(Level::Warn, "http.accept", fields);
                    self.host.clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connection(&self, stream: Stream, peer: SocketAddr, slot: Slot) -> impl Future<Output = ()> + use<> {
        let (router, held, stop) = (self.router.clone(), slot.clone(), self.stop.clone());
        let host = self.host.clone();
        let service = service_fn(move |request| answer(&host, &router, request, peer, &slot));
        let connection = self.http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        async move {
            let mut connection = std::pin::pin!(connection);
            // A broken connection or a bad request is the peer's affair: hyper has answered it.
            tokio::select! {
                biased;
                _ = connection.as_mut() => return drop(held),
                () = stop.opened() => {}
            }
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
            drop(held);
        }
    }
}

fn answer(
    host: &Host,
    router: &Router,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    slot: &Slot,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + use<> {
    if announced_body(&request) > limits::BODY_MAX as u64 {
        // Read on while the answer goes out: a connection closed with bytes unread is reset, and a client
        // that is still sending would never see the answer.
        host.tasks.spawn(linger(host.clock.clone(), request.into_body()));
        return Either::Left(ready(Ok(too_large())));
    }
    request.extensions_mut().insert(PeerAddr(peer));
    request.extensions_mut().insert(slot.clone());
    Either::Right(router.clone().call(request))
}

/// Reads what nobody wants, a bounded amount for a bounded time.
async fn linger(clock: Clock, body: Incoming) {
    let mut body = Limited::new(body, LINGER_MAX);
    let reading = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = clock.timeout(LINGER_TIMEOUT, reading).await;
}

fn announced_body(request: &Request<Incoming>) -> u64 {
    let length = request.headers().get(header::CONTENT_LENGTH);
    length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0)
}

fn too_large() -> Response<Body> {
    let body = json!(Problem::new(Code::TooLarge)).to_string();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    let media_type = header::HeaderValue::from_static(problem::MEDIA_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}
