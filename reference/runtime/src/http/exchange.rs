//! One request and its response over one connection, driven by whoever waits for it.
//!
//! `ureq-proto` knows what goes over the line and what it means; here it meets a [`Stream`]. Nothing runs
//! while nobody waits: an idle connection has no task and no buffers, and costs what its stream costs.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use fusion_protocol::limits;
use futures_util::future::poll_fn;
use http::{HeaderValue, Method, Request, Response, header};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use ureq_proto::client::state::{RecvBody, RecvResponse};
use ureq_proto::client::{Call, RecvBodyResult, RecvResponseResult, SendRequestResult};
use ureq_proto::{BodyMode, Error};

use super::ClientError;
use super::client::RESPONSE_MAX;
use crate::net::Stream;

/// How much is read at once, in bytes: of a response's beginning, of a long body.
const READ_FIRST: usize = 2 << 10;
const READ_MORE: usize = 16 << 10;

/// A connection on which nothing is under way.
pub(super) struct Connection(Stream);

/// How an exchange failed.
pub(super) enum Failed {
    /// Nothing was sent: another connection may carry the request.
    Unsent(String),
    /// For good.
    Over(ClientError),
}

/// A response's body that is still coming, and the connection it comes over.
pub(super) struct Incoming {
    line: Line,
    state: State,
}

enum State {
    Body(Box<Call<RecvBody>>),
    /// All of it has come; whether the connection is good for another request.
    Whole {
        lasting: bool,
    },
}

/// The two directions of a connection while it is used.
struct Line {
    stream: Stream,
    head: Bytes,
    body: Bytes,
    sent_any: bool,
    /// Sending failed. An answer may have come all the same.
    broken: Option<io::Error>,
    inbox: BytesMut,
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self(stream)
    }

    /// Sends `request`, whose URI is a path and whose `Host` is set, and waits for its response to begin.
    pub(super) async fn ask(self, request: &Request<Bytes>) -> Result<Response<Incoming>, Failed> {
        let (head, mut call) = written(request).map_err(|error| Failed::Over(fault(&error)))?;
        let mut line = Line {
            stream: self.0,
            head,
            body: request.body().clone(),
            sent_any: false,
            broken: None,
            inbox: BytesMut::new(),
        };
        let response = match line.response(&mut call).await {
            Ok(response) => response,
            Err(error) if line.sent_any => return Err(Failed::Over(error)),
            Err(error) => return Err(Failed::Unsent(error.to_string())),
        };
        let state = match call.proceed() {
            Some(RecvResponseResult::RecvBody(call)) => State::Body(Box::new(call)),
            Some(RecvResponseResult::Cleanup(call)) => {
                State::Whole { lasting: !call.must_close_connection() }
            }
            Some(RecvResponseResult::Redirect(call)) => {
                State::Whole { lasting: !call.must_close_connection() }
            }
            None => State::Whole { lasting: false },
        };
        Ok(response.map(|()| Incoming { line, state }))
    }
}

impl Incoming {
    /// The whole body, and the connection where it is good for another request.
    pub(super) async fn collect(mut self) -> Result<(Bytes, Option<Connection>), ClientError> {
        let mut whole = BytesMut::new();
        if self.announced() > RESPONSE_MAX as u64 {
            return Err(ClientError::TooLarge);
        }
        while let Some(piece) = self.piece().await? {
            if whole.len() + piece.len() > RESPONSE_MAX {
                return Err(ClientError::TooLarge);
            }
            // Nearly always the first piece is all of it.
            whole = if whole.is_empty() { piece } else { joined(whole, &piece) };
        }
        Ok((whole.freeze(), self.rest()))
    }

    /// The next piece, as it comes; `None`: that was all.
    pub(super) async fn piece(&mut self) -> Result<Option<BytesMut>, ClientError> {
        loop {
            let State::Body(call) = &mut self.state else { return Ok(None) };
            let mut piece = BytesMut::zeroed(self.line.inbox.len());
            let (used, len) = call.read(&self.line.inbox, &mut piece).map_err(|error| fault(&error))?;
            self.line.inbox.advance(used);
            let until_closed = call.body_mode() == BodyMode::CloseDelimited;
            if call.can_proceed() && !until_closed {
                self.end();
            }
            if len > 0 {
                piece.truncate(len);
                return Ok(Some(piece));
            }
            if used > 0 || matches!(self.state, State::Whole { .. }) {
                continue;
            }
            // What is there and cannot be read is the beginning of a line between chunks.
            if self.line.inbox.len() > limits::HEADER_MAX {
                return Err(ClientError::TooLarge);
            }
            if self.line.more(READ_MORE).await? == 0 {
                if !until_closed {
                    return Err(ClientError::Interrupted("it was closed".to_owned()));
                }
                self.end();
            }
        }
    }

    /// How long the body will be, as far as that was said.
    fn announced(&self) -> u64 {
        match &self.state {
            State::Body(call) => match call.body_mode() {
                BodyMode::LengthDelimited(len) => len,
                _ => 0,
            },
            State::Whole { .. } => 0,
        }
    }

    fn end(&mut self) {
        let before = std::mem::replace(&mut self.state, State::Whole { lasting: false });
        let State::Body(call) = before else { return };
        let lasting = match call.proceed() {
            Some(RecvBodyResult::Cleanup(call)) => !call.must_close_connection(),
            Some(RecvBodyResult::Redirect(call)) => !call.must_close_connection(),
            None => false,
        };
        self.state = State::Whole { lasting };
    }

    /// The connection, where nothing is under way on it any more.
    fn rest(self) -> Option<Connection> {
        let lasting = matches!(self.state, State::Whole { lasting: true });
        // Answered before everything was sent, or more said than was asked: not worth waiting for.
        (lasting && self.line.is_idle()).then_some(Connection(self.line.stream))
    }
}

impl Line {
    async fn response(&mut self, call: &mut Call<RecvResponse>) -> Result<Response<()>, ClientError> {
        loop {
            let (used, response) = call.try_response(&self.inbox, false).map_err(|error| fault(&error))?;
            let head_len = if used > 0 { used } else { self.inbox.len() };
            if head_len > limits::HEADER_MAX {
                return Err(ClientError::TooLarge);
            }
            self.inbox.advance(used);
            match response {
                Some(response) => return Ok(response),
                // An interim response; the real one follows.
                None if used > 0 => continue,
                None => {}
            }
            if self.more(READ_FIRST).await? == 0 {
                let why = self.broken.take().map_or("it was closed".to_owned(), |error| error.to_string());
                return Err(ClientError::Interrupted(why));
            }
        }
    }

    /// Sends what is left to send, and waits for more to come; says how much did, 0 at the end.
    async fn more(&mut self, at_once: usize) -> Result<usize, ClientError> {
        let came = poll_fn(|context| self.poll_more(at_once, context)).await;
        came.map_err(|error| ClientError::Interrupted(self.broken.take().unwrap_or(error).to_string()))
    }

    fn poll_more(&mut self, at_once: usize, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Looked at before anything is sent: a connection that was closed while it was idle is none.
        if !self.sent_any
            && let Poll::Ready(came) = self.poll_read(at_once, context)
        {
            return Poll::Ready(match came? {
                0 => Ok(0),
                _ => Err(io::Error::other("the peer spoke before it was asked")),
            });
        }
        if self.broken.is_none()
            && let Poll::Ready(Err(error)) = self.poll_send(context)
        {
            if !self.sent_any {
                return Poll::Ready(Err(error));
            }
            self.broken = Some(error);
        }
        self.poll_read(at_once, context)
    }

    fn poll_read(&mut self, at_once: usize, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.inbox.capacity() == self.inbox.len() {
            self.inbox.reserve(at_once);
        }
        pin!(self.stream.read_buf(&mut self.inbox)).poll(context)
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_sent() {
            let buffers = [IoSlice::new(&self.head), IoSlice::new(&self.body)];
            let mut sent = match Pin::new(&mut self.stream).poll_write_vectored(context, &buffers) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(sent)) => sent,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            self.sent_any = true;
            let of_head = sent.min(self.head.len());
            self.head.advance(of_head);
            sent -= of_head;
            self.body.advance(sent);
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn is_sent(&self) -> bool {
        self.head.is_empty() && self.body.is_empty()
    }

    fn is_idle(&self) -> bool {
        self.is_sent() && self.broken.is_none() && self.inbox.is_empty()
    }
}

/// The request's head as it goes over the line, and what becomes of the rest.
fn written(request: &Request<Bytes>) -> Result<(Bytes, Call<RecvResponse>), Error> {
    let len = request.body().len();
    let mut bare = Request::new(());
    *bare.method_mut() = request.method().clone();
    *bare.uri_mut() = request.uri().clone();
    *bare.headers_mut() = request.headers().clone();
    if request.method() == Method::CONNECT {
        return Err(Error::MethodVersionMismatch(Method::CONNECT, http::Version::HTTP_11));
    }
    let expects_body = [Method::POST, Method::PUT, Method::PATCH].contains(request.method());
    if len > 0 || expects_body {
        bare.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    }
    let mut head = vec![0; head_len(&bare)];
    let mut call = Call::new(bare)?;
    if len > 0 && !expects_body {
        call.force_send_body();
    }
    let mut call = call.proceed();
    let mut used = 0;
    while !call.can_proceed() {
        used += call.write(&mut head[used..])?;
    }
    head.truncate(used);
    match call.proceed()? {
        Some(SendRequestResult::RecvResponse(call)) => Ok((head.into(), call)),
        Some(SendRequestResult::SendBody(mut call)) => {
            call.consume_direct_write(len)?;
            let call = call.proceed().ok_or(Error::BodyContentAfterFinish)?;
            Ok((head.into(), call))
        }
        // Nobody here asks whether a body is welcome before sending it.
        Some(SendRequestResult::Await100(_)) | None => Err(Error::OutputOverflow),
    }
}

/// As long as the head can be, in bytes.
fn head_len(request: &Request<()>) -> usize {
    const LINE: usize = "  HTTP/1.1\r\n\r\n".len() + 1;
    const FIELD: usize = ": \r\n".len();
    let target = request.uri().path_and_query().map_or(1, |target| target.as_str().len());
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD);
    request.method().as_str().len() + target + LINE + fields.sum::<usize>()
}

fn joined(mut whole: BytesMut, piece: &BytesMut) -> BytesMut {
    whole.extend_from_slice(piece);
    whole
}

fn fault(error: &Error) -> ClientError {
    match error {
        Error::HttpParseTooManyHeaders => ClientError::TooLarge,
        error => ClientError::Invalid(error.to_string()),
    }
}
