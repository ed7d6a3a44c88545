//! How a service is made faulty from outside: its requests, its answers, its rows.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use fusion_deployment::{Hooks, Role};
use fusion_runtime::Host;
use http::StatusCode;
use serde::Serialize;

/// What a wrapper does with a request: answers it, or lets it pass.
pub(crate) enum Verdict {
    /// This is the answer; the service never sees the request.
    Answer(Response),
    /// The service answers.
    Pass(Request),
}

type Judged = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// Wraps what every cluster serves.
pub(crate) fn clusters(decide: fn(Host, Request) -> Judged) -> Hooks {
    roles(|role| matches!(role, Role::Cluster(_)), decide)
}

/// Wraps what the hosts of some roles serve.
pub(crate) fn roles(which: fn(&Role) -> bool, decide: fn(Host, Request) -> Judged) -> Hooks {
    let wrap = move |role: &Role, host: &Host, router: Router| {
        if which(role) { wrapped(router, host.clone(), decide) } else { router }
    };
    Hooks { wrap_router: Some(Arc::new(wrap)), ..Hooks::default() }
}

/// A router in front of which `decide` stands.
pub(crate) fn wrapped(router: Router, host: Host, decide: fn(Host, Request) -> Judged) -> Router {
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let host = host.clone();
        async move {
            match decide(host, request).await {
                Verdict::Answer(response) => response,
                Verdict::Pass(request) => next.run(request).await,
            }
        }
    }))
}

/// The body of a request, and the request as it was.
pub(crate) async fn body_of(request: Request) -> (Bytes, Request) {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, fusion_protocol::limits::BODY_MAX).await.unwrap_or_default();
    (bytes.clone(), Request::from_parts(parts, Body::from(bytes)))
}

/// An answer in JSON.
pub(crate) fn json(body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    (StatusCode::OK, [(http::header::CONTENT_TYPE, "application/json")], bytes).into_response()
}
