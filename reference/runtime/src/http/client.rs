//! The client: one request, one response, over a pooled or a new connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fusion_protocol::limits;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::ClientError;
use super::pool::Pool;
use crate::net::Stream;
use crate::{Clock, Host};

/// How long a request may take from its sending to the end of its response, unless told otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest response body that is read, in bytes.
pub const RESPONSE_MAX: usize = 4 << 20;

/// How long the opening of a connection may take: name, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How many addresses of a name are tried.
const ADDRESSES_MAX: usize = 4;
/// hyper's read and write buffers never grow beyond this.
const BUFFER_MAX: usize = 64 << 10;

pub(super) type Connection = http1::SendRequest<Full<Bytes>>;

/// An HTTP client of one machine. Clones share their connections.
///
/// It never follows a redirect and never repeats a request that may have been carried out.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    timeout: Duration,
}

struct Shared {
    host: Host,
    http: http1::Builder,
    pool: Mutex<Pool>,
}

/// Where a request goes: the name as in the certificate, and the port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Authority {
    pub(crate) name: Arc<str>,
    pub(crate) port: u16,
}

impl Client {
    /// A client with an empty pool and the time-out [`TIMEOUT`].
    #[must_use]
    pub fn new(host: &Host) -> Self {
        let mut http = http1::Builder::new();
        http.max_header_size(limits::HEADER_MAX).max_buf_size(BUFFER_MAX);
        let shared = Shared { host: host.clone(), http, pool: Mutex::default() };
        Self { shared: Arc::new(shared), timeout: TIMEOUT }
    }

    /// The same client, the same connections, another time-out.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// Sends `request`, whose URI is absolute (`https://host[:port]/path`), and reads the whole response.
    /// Any status is a response. Dropping the future closes the connection it was using.
    ///
    /// # Errors
    /// See [`ClientError`]: only after [`ClientError::Unreachable`] is it certain that nothing was sent.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ClientError> {
        let clock = &self.shared.host.clock;
        let started = clock.now();
        let (authority, mut request) = prepare(request)?;
        while let Some(connection) = self.pool(|pool| pool.take(&authority, started)) {
            match self.exchange(&authority, connection, request, started).await {
                Ok(response) => return Ok(response),
                Err(Failed::Unsent(returned)) => request = *returned,
                Err(Failed::Sent(error)) => return Err(error),
            }
        }
        self.send_over_new(&authority, request, started).await
    }

    /// As [`Client::send`], over a connection that nobody has used before: for a second try after one
    /// that a kept connection broke under, and to measure a round trip.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_anew(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ClientError> {
        let started = self.shared.host.clock.now();
        let (authority, request) = prepare(request)?;
        self.send_over_new(&authority, request, started).await
    }

    /// Sends `request` over a connection of its own, and answers as soon as the response has begun: its body
    /// is read as it comes. The time-out is that of the beginning.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn begin(&self, request: Request<Bytes>) -> Result<Response<Coming>, ClientError> {
        let clock = &self.shared.host.clock;
        let started = clock.now();
        let (authority, request) = prepare(request)?;
        let mut connection = self.connect(&authority, started).await?;
        let beginning = clock.timeout(self.left(started), connection.send_request(request)).await;
        let response = beginning.map_err(|_| ClientError::TimedOut)?.map_err(|error| read_error(&error))?;
        Ok(response.map(|body| Coming { body, clock: clock.clone() }))
    }

    async fn send_over_new(
        &self,
        authority: &Authority,
        request: Request<Full<Bytes>>,
        started: Duration,
    ) -> Result<Response<Bytes>, ClientError> {
        let connection = self.connect(authority, started).await?;
        self.exchange(authority, connection, request, started).await.map_err(|failed| match failed {
            Failed::Unsent(_) => authority.unreachable("the connection closed at once"),
            Failed::Sent(error) => error,
        })
    }

    async fn connect(&self, authority: &Authority, started: Duration) -> Result<Connection, ClientError> {
        let host = &self.shared.host;
        let left = self.left(started).min(CONNECT_TIMEOUT);
        let stream = open(host, authority, left).await?;
        let (sender, connection) = self
            .shared
            .http
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| authority.unreachable(error))?;
        host.tasks.spawn(async move {
            // Its failure is told to whoever waits for the response.
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// One request over one connection, which goes back to the pool when it is good for another.
    async fn exchange(
        &self,
        authority: &Authority,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
        started: Duration,
    ) -> Result<Response<Bytes>, Failed> {
        let whole = async {
            let response = connection.try_send_request(request).await.map_err(|mut error| {
                match error.take_message() {
                    Some(request) => Failed::Unsent(Box::new(request)),
                    None => Failed::Sent(read_error(&error.into_error())),
                }
            })?;
            read(response).await.map_err(Failed::Sent)
        };
        let clock = &self.shared.host.clock;
        let response = clock
            .timeout(self.left(started), whole)
            .await
            .map_err(|_| Failed::Sent(ClientError::TimedOut))??;
        // Not ready means that the request is still being sent, answered early: such a connection is
        // not worth waiting for.
        if connection.is_ready() {
            self.pool(|pool| pool.put(authority.clone(), connection, clock.now()));
        }
        Ok(response)
    }

    fn left(&self, started: Duration) -> Duration {
        (started + self.timeout).saturating_sub(self.shared.host.clock.now())
    }

    fn pool<T>(&self, with: impl FnOnce(&mut Pool) -> T) -> T {
        with(&mut self.shared.pool.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A response's body that is still coming. Dropping it closes its connection.
pub struct Coming {
    body: Incoming,
    clock: Clock,
}

impl Coming {
    /// The next piece, which must come within `limit`; `None`: that was all.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`], and whatever breaks a connection.
    pub async fn next(&mut self, limit: Duration) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame =
                self.clock.timeout(limit, self.body.frame()).await.map_err(|_| ClientError::TimedOut)?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(read_error(&error)),
                // Trailers are of no interest.
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }
}

/// How one exchange failed: with the request in hand again, or not.
enum Failed {
    Unsent(Box<Request<Full<Bytes>>>),
    Sent(ClientError),
}

/// A secured connection to `authority` within `limit`.
pub(crate) async fn open(host: &Host, authority: &Authority, limit: Duration) -> Result<Stream, ClientError> {
    let opening = async {
        let addresses = host.net.resolve(&authority.name, authority.port).await?;
        let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            match host.net.connect(address, &authority.name).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    match host.clock.timeout(limit, opening).await {
        Ok(opened) => opened.map_err(|error| authority.unreachable(error)),
        Err(elapsed) => Err(authority.unreachable(elapsed)),
    }
}

impl Authority {
    /// Where `uri` leads; `schemes` are the secured ones that the caller speaks.
    pub(crate) fn of(uri: &Uri, schemes: &[&str]) -> Result<Self, ClientError> {
        let scheme = uri.scheme().map_or("none", Scheme::as_str);
        if !schemes.contains(&scheme) {
            return Err(ClientError::Invalid(format!("the URL's scheme is {scheme}, not {}", schemes[0])));
        }
        let name = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        if name.is_empty() {
            return Err(ClientError::Invalid("the URL names no host".to_owned()));
        }
        Ok(Self { name: name.to_ascii_lowercase().into(), port: uri.port_u16().unwrap_or(443) })
    }

    /// The `Host` header: the name, and the port where it is not the scheme's own.
    pub(crate) fn header(&self) -> String {
        let name = if self.name.contains(':') { format!("[{}]", self.name) } else { self.name.to_string() };
        if self.port == 443 { name } else { format!("{name}:{}", self.port) }
    }

    pub(crate) fn unreachable(&self, reason: impl ToString) -> ClientError {
        ClientError::Unreachable { authority: self.header(), reason: reason.to_string() }
    }
}

/// The request as it is sent to the server itself: path only, with the `Host` it is for.
fn prepare(request: Request<Bytes>) -> Result<(Authority, Request<Full<Bytes>>), ClientError> {
    let (mut parts, body) = request.into_parts();
    let authority = Authority::of(&parts.uri, &["https"])?;
    parts.uri = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")).into();
    let host =
        HeaderValue::try_from(authority.header()).map_err(|error| ClientError::Invalid(error.to_string()))?;
    parts.headers.insert(header::HOST, host);
    Ok((authority, Request::from_parts(parts, Full::new(body))))
}

async fn read(response: Response<Incoming>) -> Result<Response<Bytes>, ClientError> {
    let (parts, body) = response.into_parts();
    if body.size_hint().lower() > RESPONSE_MAX as u64 {
        return Err(ClientError::TooLarge);
    }
    match Limited::new(body, RESPONSE_MAX).collect().await {
        Ok(body) => Ok(Response::from_parts(parts, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(ClientError::TooLarge),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(error) => read_error(&error),
            Err(error) => ClientError::Interrupted(error.to_string()),
        }),
    }
}

fn read_error(error: &hyper::Error) -> ClientError {
    if error.is_parse_too_large() {
        ClientError::TooLarge
    } else if error.is_parse() || error.is_user() {
        ClientError::Invalid(error.to_string())
    } else {
        ClientError::Interrupted(error.to_string())
    }
}
