//! The REST router in front of a cluster: from host and path to a service (OPS-009). Keeps no state.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::MatchedPath;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use fusion_protocol::{Code, Service};
use fusion_runtime::probe::Level;
use http::{HeaderValue, header};
use serde_json::json;
use tower::ServiceExt as _;

use crate::reply::{Answer, Refusal};
use crate::{Cluster, auth, conversation, index, locus, mercury, provisioning, users};

/// Everything that a cluster serves, behind one listener.
pub fn router(cluster: &Cluster) -> Router {
    let (template, name) = (&cluster.config.template, &cluster.config.name);
    let place = |service| Place {
        host: template.host(name, service),
        prefix: template.path_prefix(service),
        routes: routes_of(service, cluster),
    };
    // Made once and shared: every request asks, and each has its own clone of the handler.
    let places: Arc<[Place]> = Service::ALL.into_iter().map(place).collect();
    Router::new().fallback(move |request: Request| {
        let places = places.clone();
        async move {
            let place = place_of(&request, &places);
            match place.and_then(|place| Some((place.routes.clone()?, &place.prefix))) {
                Some((service, prefix)) => forward(service, request, prefix).await,
                None => Refusal::from(Code::NotFound).into_response(),
            }
        }
    })
}

/// A router of our own with the manners of the house: problems for unknown paths and methods, and one
/// log line a request.
pub fn with_manners(router: Router, host: &fusion_runtime::Host, service: &'static str) -> Router {
    let host = Arc::new(host.clone());
    router
        .fallback(|| async { Refusal::from(Code::NotFound) })
        .method_not_allowed_fallback(|| async { Refusal::from(Code::MethodNotAllowed) })
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let host = host.clone();
            async move { logged(&host, service, request, next).await }
        }))
}

fn routes_of(service: Service, cluster: &Cluster) -> Option<Router> {
    let routes = match service {
        Service::Auth => auth::routes(),
        Service::Conv => conversation::routes().merge(index::routes()).merge(locus::call_routes()),
        Service::Locus => locus::list_routes(),
        Service::Mercury => mercury::routes(),
        Service::Provisioning => provisioning::routes(),
        Service::Users => users::routes(),
        Service::Media | Service::Relay => return None,
    };
    let routes = routes.route("/v1/health", axum::routing::get(health));
    Some(with_manners(routes.with_state(cluster.clone()), &cluster.host, service.as_str()))
}

/// Whether the cluster can serve (OPS-006).
async fn health(State(cluster): State<Cluster>) -> Answer {
    if !cluster.is_ready() {
        return Err(Code::ResolutionIncomplete.into());
    }
    Ok("ok".into_response())
}

/// Where a service is found.
struct Place {
    host: String,
    /// What its paths begin with.
    prefix: String,
    /// None where it is served elsewhere.
    routes: Option<Router>,
}

fn place_of<'a>(request: &Request, places: &'a [Place]) -> Option<&'a Place> {
    let authority = request.headers().get(header::HOST)?.to_str().ok()?;
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let path = request.uri().path();
    places.iter().find(|place| {
        let below = path.strip_prefix(place.prefix.as_str()).is_some_and(|rest| rest.starts_with('/'));
        host.eq_ignore_ascii_case(&place.host) && below
    })
}

async fn forward(service: Router, mut request: Request<Body>, prefix: &str) -> Response {
    if !prefix.is_empty() {
        let rest =
            request.uri().path_and_query().map_or("/", |both| &both.as_str()[prefix.len()..]).to_owned();
        match rest.parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(_) => return Refusal::from(Code::BadRequest).into_response(),
        }
    }
    match service.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// PRI-005: the route's template, never its path.
async fn logged(
    host: &fusion_runtime::Host,
    service: &'static str,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let started = host.clock.now();
    let mut response = in_our_words(next.run(request).await);
    let took_us = (host.clock.now() - started).as_micros() as u64;
    let status = response.status().as_u16();
    let level = if status >= 500 { Level::Warn } else { Level::Debug };
    if host.probe.logs(level) {
        let route = route.as_ref().map(MatchedPath::as_str);
        host.probe.log(
            level,
            "http.request",
            json!({"service": service, "method": method.as_str(), "route": route, "status": status, "tookUs": took_us}),
        );
    }
    if let Ok(name) = HeaderValue::from_str(&host.name) {
        response.headers_mut().insert(fusion_protocol::headers::CLUSTER, name);
    }
    response
}

/// axum's own extractors (a path, a query) refuse in plain text; here every refusal is a problem.
fn in_our_words(response: Response) -> Response {
    let text = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.to_str().is_ok_and(|media_type| media_type.starts_with("text/plain")));
    if text && response.status().is_client_error() {
        return Refusal::from(Code::BadRequest).into_response();
    }
    response
}
