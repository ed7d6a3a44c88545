//! One request, one answer: the part of a client that touches the network.
//!
//! Not here: which token to send, and what to do about an answer ([`super::call`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fusion_protocol::provisioning::ScimError;
use fusion_protocol::{Code, Problem, Url, headers};
use fusion_runtime::Host;
use fusion_runtime::http::{Client, ClientError};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Method, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Failure, Refused};
use crate::Target;
use crate::transcript::{Exchange, Transcript};

/// A request, word for word.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// Where it goes; sent only within the federation (NAM-005).
    pub url: Url,
    /// The bearer token.
    pub token: Option<String>,
    /// The `Idempotency-Key`.
    pub key: Option<String>,
    /// The media type of the body.
    pub media_type: &'static str,
    /// The body.
    pub body: Bytes,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// The network of one client.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) host: Host,
    pub(crate) target: Arc<Target>,
    pub(crate) name: Arc<str>,
    pub(crate) transcript: Option<Transcript>,
    client: Client,
}

impl Ask {
    /// A request without token and body.
    #[must_use]
    pub fn new(method: Method, url: Url) -> Self {
        Self { method, url, token: None, key: None, media_type: "application/json", body: Bytes::new() }
    }

    /// With this bearer token.
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    /// With this `Idempotency-Key`.
    #[must_use]
    pub fn key(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// With this JSON body.
    #[must_use]
    pub fn json(self, body: &impl Serialize) -> Self {
        Self { body: serde_json::to_vec(body).unwrap_or_default().into(), ..self }
    }

    /// With this body of this media type.
    #[must_use]
    pub fn body(self, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { media_type, body: body.into(), ..self }
    }

    /// With its body called this.
    #[must_use]
    pub fn media_type(self, media_type: &'static str) -> Self {
        Self { media_type, ..self }
    }

    /// With this form as body.
    #[must_use]
    pub fn form(self, pairs: &[(&str, &str)]) -> Self {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        self.body("application/x-www-form-urlencoded", body)
    }
}

impl Reply {
    /// Whether it is a success.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body of a success.
    ///
    /// # Errors
    /// [`Failure::Refused`] for any other status, [`Failure::Garbled`] when the body is no `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        self.success()?;
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::Garbled { status: self.status, reason: error.to_string() })
    }

    /// That it is a success.
    ///
    /// # Errors
    /// [`Failure::Refused`] when not.
    pub fn success(&self) -> Result<(), Failure> {
        if self.is_success() { Ok(()) } else { Err(Failure::Refused(self.refusal())) }
    }

    /// The answer as a refusal.
    #[must_use]
    pub fn refusal(&self) -> Refused {
        let problem: Option<Problem> = serde_json::from_slice(&self.body).ok();
        let code = problem.as_ref().map(|problem| problem.code).or_else(|| foreign_code(&self.body));
        Refused {
            status: self.status,
            code,
            retry_after: self.header(&RETRY_AFTER).and_then(|seconds| seconds.parse().ok()),
            problem: problem.map(Box::new),
        }
    }

    /// Where a redirect leads, seen from `base`.
    #[must_use]
    pub fn location(&self, base: &Url) -> Option<Url> {
        base.join(self.header(&LOCATION)?).ok()
    }

    /// The media type of the body, without parameters.
    #[must_use]
    pub fn media_type(&self) -> &str {
        self.header(&CONTENT_TYPE).and_then(|value| value.split(';').next()).unwrap_or_default().trim()
    }

    fn header(&self, name: &http::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Wire {
    pub(crate) fn new(host: Host, target: Arc<Target>, name: Arc<str>) -> Self {
        Self { client: Client::new(&host), host, target, name, transcript: None }
    }

    /// Sends `ask` if it stays within the federation, and reads the answer within `limit`.
    pub(crate) async fn send(&self, ask: &Ask, limit: Duration) -> Result<Reply, Failure> {
        if !self.is_within(&ask.url) {
            return Err(Failure::Unreachable("the URL is not one of this federation (NAM-005)".to_owned()));
        }
        let request = request(ask)?;
        self.target.pace.turn(&self.host.clock, self.target.limits.max_requests_per_second).await;
        let at = self.host.clock.now();
        let sent = self.client.with_timeout(limit).send(request).await;
        let reply = sent.map(|response| {
            let (parts, body) = response.into_parts();
            Reply { status: parts.status.as_u16(), headers: parts.headers, body }
        });
        self.keep(at, ask, &reply);
        reply.map_err(failure)
    }

    /// NAM-005, for the provider's own hosts too.
    fn is_within(&self, url: &Url) -> bool {
        let template = &self.target.template;
        let of_provider = || {
            let label = url.host_str()?.strip_suffix(template.provider().as_str())?.strip_suffix('.')?;
            let same = *url == template.provider_url(label, &url[url::Position::BeforePath..]);
            Some(same && !label.is_empty() && !label.contains('.'))
        };
        template.locate(url).is_ok() || of_provider() == Some(true)
    }

    fn keep(&self, at: Duration, ask: &Ask, reply: &Result<Reply, ClientError>) {
        let Some(transcript) = &self.transcript else { return };
        let exchange = Exchange::new(at, &self.name, &ask.method, &ask.url, &ask.body);
        let took = self.host.clock.now().saturating_sub(at);
        transcript.add(match reply {
            Ok(reply) => exchange.answered(reply.status.to_string(), &reply.body, took),
            Err(error) => exchange.answered(error.to_string(), &Bytes::new(), took),
        });
    }
}

fn request(ask: &Ask) -> Result<Request<Bytes>, Failure> {
    let mut request = Request::builder().method(&ask.method).uri(ask.url.as_str());
    request = request.header(ACCEPT, "application/json, application/problem+json");
    if !ask.body.is_empty() {
        request = request.header(CONTENT_TYPE, ask.media_type);
    }
    if let Some(token) = &ask.token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    if let Some(key) = &ask.key {
        request = request.header(headers::IDEMPOTENCY_KEY, key);
    }
    request.body(ask.body.clone()).map_err(|error| Failure::Unreachable(error.to_string()))
}

fn failure(error: ClientError) -> Failure {
    match error {
        ClientError::Unreachable { .. } => Failure::Unreachable(error.to_string()),
        _ => Failure::Unknown(error.to_string()),
    }
}

/// The code of an error that is no problem: SCIM's, or OAuth's (RFC 6749, 5.2).
fn foreign_code(body: &[u8]) -> Option<Code> {
    if let Ok(error) = serde_json::from_slice::<ScimError>(body) {
        return Some(error.code);
    }
    let body: Value = serde_json::from_slice(body).ok()?;
    match body.get("error")?.as_str()? {
        "invalid_grant" => Some(Code::InvalidGrant),
        "invalid_target" => Some(Code::UntrustedUrl),
        "unsupported_grant_type" => Some(Code::UnsupportedGrant),
        "invalid_request" => Some(Code::BadRequest),
        "invalid_client" | "unauthorized_client" => Some(Code::Unauthorized),
        _ => None,
    }
}
