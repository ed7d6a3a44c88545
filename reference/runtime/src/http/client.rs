//! The client: one request, one response, over a pooled or a new connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};

use super::ClientError;
use super::exchange::{Connection, Failed, Incoming};
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
        let shared = Shared { host: host.clone(), pool: Mutex::default() };
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
        let started = self.shared.host.clock.now();
        let (authority, request) = prepare(request)?;
        while let Some(connection) = self.pool(|pool| pool.take(&authority, started)) {
            match self.exchange(&authority, connection, &request, started).await {
                Ok(response) => return Ok(response),
                Err(Failed::Unsent(_)) => {}
                Err(Failed::Over(error)) => return Err(error),
            }
        }
        self.send_over_new(&authority, &request, started).await
    }

    /// As [`Client::send`], over a connection that nobody has used before: for a second try after one
    /// that a kept connection broke under, and to measure a round trip.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_anew(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ClientError> {
        let started = self.shared.host.clock.now();
        let (authority, request) = prepare(request)?;
        self.send_over_new(&authority, &request, started).await
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
        let connection = self.connect(&authority, started).await?;
        let beginning = clock.timeout(self.left(started), connection.ask(&request)).await;
        let response = beginning.map_err(|_| ClientError::TimedOut)?;
        let response = response.map_err(|failed| authority.failed(failed))?;
        Ok(response.map(|body| Coming { body, clock: clock.clone() }))
    }

    async fn send_over_new(
        &self,
        authority: &Authority,
        request: &Request<Bytes>,
        started: Duration,
    ) -> Result<Response<Bytes>, ClientError> {
        let connection = self.connect(authority, started).await?;
        let response = self.exchange(authority, connection, request, started).await;
        response.map_err(|failed| authority.failed(failed))
    }

    async fn connect(&self, authority: &Authority, started: Duration) -> Result<Connection, ClientError> {
        let left = self.left(started).min(CONNECT_TIMEOUT);
        open(&self.shared.host, authority, left).await.map(Connection::new)
    }

    /// One request over one connection, which goes back to the pool when it is good for another.
    async fn exchange(
        &self,
        authority: &Authority,
        connection: Connection,
        request: &Request<Bytes>,
        started: Duration,
    ) -> Result<Response<Bytes>, Failed> {
        let clock = &self.shared.host.clock;
        let whole = async {
            let (parts, body) = connection.ask(request).await?.into_parts();
            let (body, connection) = body.collect().await.map_err(Failed::Over)?;
            Ok((Response::from_parts(parts, body), connection))
        };
        let answered = clock.timeout(self.left(started), whole).await;
        let (response, connection) = answered.map_err(|_| Failed::Over(ClientError::TimedOut))??;
        if let Some(connection) = connection {
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
        let piece = self.clock.timeout(limit, self.body.piece()).await;
        Ok(piece.map_err(|_| ClientError::TimedOut)??.map(BytesMut::freeze))
    }
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

    fn failed(&self, failed: Failed) -> ClientError {
        match failed {
            Failed::Unsent(reason) => self.unreachable(reason),
            Failed::Over(error) => error,
        }
    }

    pub(crate) fn unreachable(&self, reason: impl ToString) -> ClientError {
        ClientError::Unreachable { authority: self.header(), reason: reason.to_string() }
    }
}

/// The request as it is sent to the server itself: path only, with the `Host` it is for.
fn prepare(mut request: Request<Bytes>) -> Result<(Authority, Request<Bytes>), ClientError> {
    let authority = Authority::of(request.uri(), &["https"])?;
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
    let host =
        HeaderValue::try_from(authority.header()).map_err(|error| ClientError::Invalid(error.to_string()))?;
    request.headers_mut().insert(header::HOST, host);
    Ok((authority, request))
}
