//! How services read requests and answer: JSON in, JSON or a problem out.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use fusion_protocol::{Code, Problem, limits, problem};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A refused request.
#[derive(Debug)]
pub struct Refusal(pub Box<Problem>, Option<u64>);

/// What handlers return.
pub type Answer<T = Response> = Result<T, Refusal>;

/// A JSON body, at most [`limits::BODY_MAX`] octets; malformed ones are refused with a problem.
pub struct JsonBody<T>(pub T);

/// The `Idempotency-Key` of a request that creates something.
pub struct IdempotencyKey(pub String);

impl Refusal {
    /// Adds `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.1 = Some(seconds);
        self
    }
}

impl From<Problem> for Refusal {
    /// A 503 and a 429 always say when to try again.
    fn from(problem: Problem) -> Self {
        let retry = matches!(problem.status, 429 | 503).then_some(1);
        Self(Box::new(problem), retry)
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Problem::new(code).into()
    }
}

impl From<fusion_runtime::store::StoreError> for Refusal {
    fn from(error: fusion_runtime::store::StoreError) -> Self {
        crate::rows::refused(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = with_type(status, problem::MEDIA_TYPE, &*self.0);
        if let Some(seconds) = self.1 {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An answer with a JSON body.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    with_type(status, "application/json", body)
}

/// An answer with a JSON body of another media type.
pub fn with_type(status: StatusCode, media_type: &'static str, body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).expect("messages are plain data: string keys, no failing Serialize");
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// A redirect that keeps method and body: 307 for now, 308 for ever.
pub fn redirect(status: StatusCode, to: &fusion_protocol::Url) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if let Ok(value) = HeaderValue::from_str(to.as_str()) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

/// Reads a whole body.
///
/// # Errors
/// `too-large` beyond [`limits::BODY_MAX`], `bad-request` when it breaks off.
pub async fn read_body(body: Body) -> Result<Bytes, Refusal> {
    use http_body_util::{BodyExt as _, LengthLimitError, Limited};
    let collected = Limited::new(body, limits::BODY_MAX).collect().await;
    collected.map(http_body_util::Collected::to_bytes).map_err(|error| {
        let too_large = error.downcast_ref::<LengthLimitError>().is_some();
        if too_large { Code::TooLarge.into() } else { Code::BadRequest.into() }
    })
}

/// Parses JSON; says where it is wrong without quoting it.
///
/// # Errors
/// `bad-request` with line and column, `unprocessable` when it is JSON of another shape.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| {
        let code = if error.is_data() { Code::Unprocessable } else { Code::BadRequest };
        let place = format!("JSON, line {} column {}", error.line(), error.column());
        Problem::new(code).detail(place).into()
    })
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        parse(&read_body(request.into_body()).await?).map(Self)
    }
}

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for IdempotencyKey {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, Refusal> {
        const NAME: HeaderName = HeaderName::from_static(fusion_protocol::headers::IDEMPOTENCY_KEY);
        let value = parts.headers.get(NAME).and_then(|value| value.to_str().ok());
        match value {
            Some(key) if !key.is_empty() && key.len() <= limits::IDEMPOTENCY_KEY_MAX => {
                Ok(Self(key.to_owned()))
            }
            _ => Err(Problem::new(Code::BadRequest)
                .detail("an Idempotency-Key of 1 to 128 characters is needed")
                .into()),
        }
    }
}
