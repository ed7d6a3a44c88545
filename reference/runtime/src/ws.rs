//! WebSockets over the seam: text frames with small buffers, on both sides.
//!
//! Not here: what the frames say, when to ping, and when a silent peer is dead (MER-004 is the
//! device queue's decision; [`Frame::Pong`] tells it that the peer lives).

use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use bytes::Bytes;
use fusion_protocol::limits;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use url::Url;

use crate::Host;
use crate::http::{Authority, ClientError, Slot, open};
use crate::net::Stream;

/// How long the opening of a WebSocket may take, the connection's included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// tungstenite's own default is 128 KiB a connection; an idle device must cost less than 10 KiB.
const READ_BUFFER: usize = 4 << 10;
const WRITE_BUFFER: usize = 2 << 10;
/// Room for the longest frame and its header while the peer does not read.
const WRITE_BUFFER_MAX: usize = limits::FRAME_MAX + (4 << 10);

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text frame.
    Text(String),
    /// A ping; it has been answered.
    Ping,
    /// The answer to a ping: the peer lives.
    Pong,
    /// The peer is closing. Nothing follows.
    Close {
        /// RFC 6455 section 7.4; 1005 when none was given.
        code: u16,
        /// For people.
        reason: String,
    },
}

/// Why a socket is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WsError {
    /// The connection is gone: what was sent last may not have arrived.
    #[error("the connection is gone: {0}")]
    Gone(String),
    /// SEC-007: a frame longer than 64 KiB, received or to be sent.
    #[error("a frame is longer than {} bytes", limits::FRAME_MAX)]
    TooLarge,
    /// The peer does not speak the protocol, or sent a binary frame.
    #[error("the peer broke the protocol: {0}")]
    Invalid(String),
}

/// An open WebSocket. Dropping it drops the connection without a closing frame.
pub struct Socket(Channel);

/// The half of a [`Socket`] that sends.
pub struct Sender(SplitSink<Channel, Message>);

/// The half of a [`Socket`] that receives, and that answers pings.
pub struct Receiver(SplitStream<Channel>);

type Channel = WebSocketStream<Stream>;

/// Answers a request to open a WebSocket; when it is one, `serve` runs on the host with the socket.
///
/// The response must be sent as it is: 101, or 400 or 426 for a request that is none.
pub fn accept<S, F>(host: &Host, mut request: Request<Body>, serve: S) -> Response<Body>
where
    S: FnOnce(Socket) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let key = match accept_key(&request) {
        Ok(key) => key,
        Err(status) => return refusal(status),
    };
    let slot: Option<Slot> = request.extensions_mut().remove();
    let upgrade = hyper::upgrade::on(&mut request);
    host.tasks.spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            serve(Socket::upgraded(upgraded).await).await;
        }
        drop(slot);
    });
    switching(key)
}

/// Opens a WebSocket at `url` (`wss` or `https`).
///
/// # Errors
/// [`ClientError::Unreachable`], [`ClientError::TimedOut`], or [`ClientError::Refused`] with the
/// status that came instead of 101.
pub async fn connect(host: &Host, url: &Url) -> Result<Socket, ClientError> {
    let request = Request::get(url.as_str()).body(());
    connect_with(host, request.map_err(|error| ClientError::Invalid(error.to_string()))?).await
}

/// [`connect`] with headers of the caller's, such as `Authorization`. The URI is absolute.
///
/// # Errors
/// As [`connect`].
pub async fn connect_with(host: &Host, mut request: Request<()>) -> Result<Socket, ClientError> {
    let authority = Authority::of(request.uri(), &["wss", "https"])?;
    let mut nonce = [0; 16];
    host.entropy.fill(&mut nonce);
    let key = base64::prelude::BASE64_STANDARD.encode(nonce);
    for (name, value) in [
        (HOST, authority.header().as_str()),
        (CONNECTION, "Upgrade"),
        (UPGRADE, "websocket"),
        (SEC_WEBSOCKET_VERSION, "13"),
        (SEC_WEBSOCKET_KEY, key.as_str()),
    ] {
        let value = HeaderValue::from_str(value).map_err(|error| ClientError::Invalid(error.to_string()))?;
        request.headers_mut().insert(name, value);
    }
    let stream = open(host, &authority, CONNECT_TIMEOUT).await?;
    let opening = tokio_tungstenite::client_async_with_config(request, stream, Some(config()));
    match host.clock.timeout(CONNECT_TIMEOUT, opening).await {
        Ok(Ok((channel, _))) => Ok(Socket(channel)),
        Ok(Err(Error::Http(response))) => Err(ClientError::Refused(response.status().as_u16())),
        Ok(Err(Error::Io(error))) => Err(ClientError::Interrupted(error.to_string())),
        Ok(Err(error)) => Err(ClientError::Invalid(error.to_string())),
        Err(_) => Err(ClientError::TimedOut),
    }
}

impl Socket {
    /// The next frame; `None` when the connection has ended. Answers pings by itself. Safe to cancel.
    pub async fn recv(&mut self) -> Option<Result<Frame, WsError>> {
        frame(self.0.next().await?)
    }

    /// The next text; `None` when the peer has closed or gone. Safe to cancel.
    pub async fn recv_text(&mut self) -> Option<Result<String, WsError>> {
        loop {
            match self.recv().await? {
                Ok(Frame::Text(text)) => return Some(Ok(text)),
                Ok(Frame::Ping | Frame::Pong) => {}
                Ok(Frame::Close { .. }) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Sends `text` and waits until the connection has taken it.
    ///
    /// # Errors
    /// [`WsError::TooLarge`] without harm to the socket; [`WsError::Gone`] when it has ended.
    pub async fn send(&mut self, text: &str) -> Result<(), WsError> {
        send(&mut self.0, text).await
    }

    /// Asks for a pong.
    ///
    /// # Errors
    /// [`WsError::Gone`] when the connection has ended.
    pub async fn ping(&mut self) -> Result<(), WsError> {
        ping(&mut self.0).await
    }

    /// Says goodbye with an RFC 6455 code and a reason of at most 123 bytes. [`Socket::recv`] goes on
    /// until the peer has answered.
    ///
    /// # Errors
    /// [`WsError::Gone`] when the connection has ended.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<(), WsError> {
        close(&mut self.0, code, reason).await
    }

    /// Two halves that two tasks can use.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        let (sink, stream) = self.0.split();
        (Sender(sink), Receiver(stream))
    }

    async fn upgraded(upgraded: Upgraded) -> Self {
        // The stream as it was served, without hyper's wrappers: less to carry for an idle device.
        let (stream, read): (Stream, Bytes) = match upgraded.downcast::<TokioIo<Stream>>() {
            Ok(parts) => (parts.io.into_inner(), parts.read_buf),
            Err(upgraded) => (Box::new(TokioIo::new(upgraded)), Bytes::new()),
        };
        Self(WebSocketStream::from_partially_read(stream, read.to_vec(), Role::Server, Some(config())).await)
    }
}

impl Receiver {
    /// As [`Socket::recv`].
    pub async fn recv(&mut self) -> Option<Result<Frame, WsError>> {
        frame(self.0.next().await?)
    }
}

impl Sender {
    /// As [`Socket::send`].
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub async fn send(&mut self, text: &str) -> Result<(), WsError> {
        send(&mut self.0, text).await
    }

    /// As [`Socket::ping`].
    ///
    /// # Errors
    /// As [`Socket::ping`].
    pub async fn ping(&mut self) -> Result<(), WsError> {
        ping(&mut self.0).await
    }

    /// As [`Socket::close`].
    ///
    /// # Errors
    /// As [`Socket::close`].
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<(), WsError> {
        close(&mut self.0, code, reason).await
    }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_message_size(Some(limits::FRAME_MAX))
        .max_frame_size(Some(limits::FRAME_MAX))
}

trait Sink: futures_util::Sink<Message, Error = Error> + Unpin {}
impl<S: futures_util::Sink<Message, Error = Error> + Unpin> Sink for S {}

async fn send(sink: &mut impl Sink, text: &str) -> Result<(), WsError> {
    if text.len() > limits::FRAME_MAX {
        return Err(WsError::TooLarge);
    }
    sink.send(Message::text(text)).await.map_err(ws_error)
}

async fn ping(sink: &mut impl Sink) -> Result<(), WsError> {
    sink.send(Message::Ping(Bytes::new())).await.map_err(ws_error)
}

async fn close(sink: &mut impl Sink, code: u16, reason: &str) -> Result<(), WsError> {
    let frame = CloseFrame { code: code.into(), reason: reason.into() };
    match sink.send(Message::Close(Some(frame))).await {
        // The peer was first: both have said goodbye.
        Ok(()) | Err(Error::ConnectionClosed) => Ok(()),
        Err(error) => Err(ws_error(error)),
    }
}

fn frame(message: Result<Message, Error>) -> Option<Result<Frame, WsError>> {
    Some(match message {
        Ok(Message::Text(text)) => Ok(Frame::Text(text.as_str().to_owned())),
        Ok(Message::Ping(_)) => Ok(Frame::Ping),
        Ok(Message::Pong(_)) => Ok(Frame::Pong),
        Ok(Message::Close(Some(close))) => {
            Ok(Frame::Close { code: close.code.into(), reason: close.reason.as_str().to_owned() })
        }
        Ok(Message::Close(None)) => Ok(Frame::Close { code: 1005, reason: String::new() }),
        Ok(Message::Binary(_) | Message::Frame(_)) => Err(WsError::Invalid("a binary frame".to_owned())),
        Err(Error::ConnectionClosed | Error::AlreadyClosed) => return None,
        Err(error) => Err(ws_error(error)),
    })
}

fn ws_error(error: Error) -> WsError {
    match error {
        Error::Capacity(_) | Error::WriteBufferFull(_) => WsError::TooLarge,
        Error::Protocol(_) | Error::Utf8(_) | Error::AttackAttempt => WsError::Invalid(error.to_string()),
        error => WsError::Gone(error.to_string()),
    }
}

/// What `Sec-WebSocket-Accept` has to say to this request, or the status that refuses it.
fn accept_key(request: &Request<Body>) -> Result<String, StatusCode> {
    let headers = request.headers();
    if request.method() != Method::GET
        || !lists(headers, &CONNECTION, "upgrade")
        || !lists(headers, &UPGRADE, "websocket")
    {
        return Err(StatusCode::UPGRADE_REQUIRED);
    }
    if !lists(headers, &SEC_WEBSOCKET_VERSION, "13") {
        return Err(StatusCode::UPGRADE_REQUIRED);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(StatusCode::BAD_REQUEST)?;
    Ok(derive_accept_key(key.as_bytes()))
}

fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
}

fn switching(key: String) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    // Base64 is always a legal header value.
    if let Ok(key) = HeaderValue::from_str(&key) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    }
    response
}

fn refusal(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}
