//! The authorisation server's routes: metadata, keys, tokens.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use fusion_protocol::auth::{GRANT_ASSERTION, GRANT_EXCHANGE, Jwks, Metadata, TokenRequest};
use fusion_protocol::{Code, Problem, Service};
use http::{HeaderValue, StatusCode, header};
use url::form_urlencoded;

use super::issue;
use crate::Cluster;
use crate::reply::{self, Answer};

/// How long others may keep the keys, in seconds. Short beside the time a retired key is still shown.
const KEYS_CACHE: HeaderValue = HeaderValue::from_static("public, max-age=3600");

pub(super) fn routes() -> Router<Cluster> {
    Router::new()
        .route("/.well-known/oauth-authorization-server", get(metadata))
        .route("/v1/jwks", get(jwks))
        .route("/v1/token", post(token))
}

/// RFC 8414.
async fn metadata(State(cluster): State<Cluster>) -> Response {
    let metadata = Metadata {
        issuer: cluster.issuer().to_owned(),
        token_endpoint: cluster.url(Service::Auth, "/v1/token"),
        jwks_uri: cluster.url(Service::Auth, "/v1/jwks"),
        grant_types_supported: vec![GRANT_ASSERTION.to_owned(), GRANT_EXCHANGE.to_owned()],
        response_types_supported: Vec::new(),
    };
    reply::json(StatusCode::OK, &metadata)
}

async fn jwks(State(cluster): State<Cluster>) -> Response {
    let mut response = reply::json(StatusCode::OK, &Jwks { keys: vec![cluster.signing.jwk()] });
    response.headers_mut().insert(header::CACHE_CONTROL, KEYS_CACHE);
    response
}

async fn token(State(cluster): State<Cluster>, body: Body) -> Answer {
    let request = form(&reply::read_body(body).await?);
    let answer = match request.grant_type.as_str() {
        GRANT_ASSERTION => issue::by_assertion(&cluster, &request).await,
        GRANT_EXCHANGE => issue::by_exchange(&cluster, &request).await,
        "" => Err(Problem::new(Code::BadRequest).detail("the parameter grant_type is needed")),
        _ => Err(Code::UnsupportedGrant.into()),
    };
    let mut response = reply::json(StatusCode::OK, &answer.map_err(oauth)?);
    // RFC 6749, 5.1.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A problem with RFC 6749's member `error` beside our code.
fn oauth(problem: Problem) -> Problem {
    if problem.members.contains_key("error") {
        return problem;
    }
    let error = match problem.code {
        Code::InvalidGrant => "invalid_grant",
        Code::UnsupportedGrant => "unsupported_grant_type",
        _ if problem.status >= 500 => "temporarily_unavailable",
        _ => "invalid_request",
    };
    problem.with("error", error)
}

/// Unknown parameters are ignored; of a repeated one the last counts.
fn form(body: &[u8]) -> TokenRequest {
    let mut request = TokenRequest::default();
    for (name, value) in form_urlencoded::parse(body) {
        let value = value.into_owned();
        match &*name {
            "grant_type" => request.grant_type = value,
            "assertion" => request.assertion = Some(value),
            "subject_token" => request.subject_token = Some(value),
            "subject_token_type" => request.subject_token_type = Some(value),
            "resource" => request.resource = Some(value),
            _ => {}
        }
    }
    request
}
