//! Calls to other clusters (SEC-004): signed, bounded, to URLs of the template only (NAM-005).
//!
//! Not here: repeating a call (the outbox does it, and knows whether it is harmless).

use std::time::Duration;

use bytes::Bytes;
use fusion_protocol::auth::{self as wire, CLUSTER_TOKEN_SECONDS, ClusterClaims, TYP_CLUSTER};
use fusion_protocol::{Code, Problem, Url, limits, problem};
use fusion_runtime::http::ClientError;
use http::{HeaderValue, Method, Request, Response, header};
use serde::Serialize;

use crate::{Cluster, auth};

/// How long a call may take unless told otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// The provider's host that clusters may call (MAP-006).
pub const PROVIDER_HOST: &str = "clustermap";

/// What another cluster answered, or why there is no answer.
#[derive(Debug)]
pub enum PeerError {
    /// Nobody answered, or the outcome is unknown: try again later.
    Unreachable,
    /// It refused; the problem's code says whether trying again makes sense.
    Refused(Box<Problem>),
}

/// Calls `url`, signed by this cluster, and returns the body of a 2xx answer. A GET and a DELETE carry
/// no body; pass `&()`.
///
/// # Errors
/// [`PeerError::Refused`] with `untrusted-url`, before anything is sent, for a URL that is not of this
/// federation, and with whatever problem the peer answers. [`PeerError::Unreachable`] otherwise.
pub async fn call(
    cluster: &Cluster,
    method: Method,
    url: &Url,
    body: &impl Serialize,
) -> Result<Bytes, PeerError> {
    let body = match method {
        Method::GET | Method::DELETE => Bytes::new(),
        _ => serde_json::to_vec(body).map_err(|_| refused(Code::Internal))?.into(),
    };
    call_within(cluster, TIMEOUT, method, url, body).await
}

/// As [`call`], with a body that is JSON already and another limit of time.
///
/// # Errors
/// As [`call`].
pub async fn call_within(
    cluster: &Cluster,
    limit: Duration,
    method: Method,
    url: &Url,
    body: Bytes,
) -> Result<Bytes, PeerError> {
    let clock = &cluster.host.clock;
    let until = clock.now() + limit;
    let request = signed(cluster, &method, url, &body)?;
    // The client's errors are told apart by whether trying again is harmless; here it always is.
    let answer = match cluster.http.with_timeout(limit).send(request).await {
        // A connection that was kept while the peer was started anew breaks under the first call.
        Err(ClientError::Interrupted(_)) => {
            let again = signed(cluster, &method, url, &body)?;
            cluster.http.with_timeout(until.saturating_sub(clock.now())).send_anew(again).await
        }
        answer => answer,
    };
    read(answer.map_err(|_| PeerError::Unreachable)?)
}

/// A request with a token of its own: one that may have arrived is not shown twice (SEC-004).
fn signed(cluster: &Cluster, method: &Method, url: &Url, body: &Bytes) -> Result<Request<Bytes>, PeerError> {
    if body.len() > limits::BODY_MAX {
        return Err(refused(Code::TooLarge));
    }
    let token = sign(cluster, method, url, body)?;
    Request::builder()
        .method(method)
        .uri(url.as_str())
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(body.clone())
        .map_err(|_| refused(Code::UntrustedUrl))
}

/// The token of one call by this cluster (SEC-004).
pub(crate) fn sign(cluster: &Cluster, method: &Method, url: &Url, body: &[u8]) -> Result<String, PeerError> {
    let iat = cluster.host.clock.wall().seconds();
    let claims = ClusterClaims {
        iss: cluster.issuer().to_owned(),
        aud: audience(cluster, url).ok_or_else(|| refused(Code::UntrustedUrl))?,
        exp: iat + CLUSTER_TOKEN_SECONDS,
        iat,
        jti: cluster.host.entropy.uuid().simple().to_string(),
        htm: method.as_str().to_owned(),
        htu: url.as_str().to_owned(),
        digest: auth::digest(body),
    };
    Ok(cluster.signing.sign(TYP_CLUSTER, &claims))
}

/// Who is called: a relay's cluster, the cluster that the URL names, or the provider's map.
fn audience(cluster: &Cluster, url: &Url) -> Option<String> {
    let template = &cluster.config.template;
    let borrowed = cluster.config.borrowed_relays.iter().find(|relay| relay.url.origin() == url.origin());
    if let Some(relay) = borrowed {
        return Some(wire::issuer(template, &relay.cluster));
    }
    if let Ok(located) = template.locate(url) {
        return Some(wire::issuer(template, &located.cluster));
    }
    if cluster.config.relays.iter().any(|relay| relay.origin() == url.origin()) {
        // A relay belongs to its cluster, under whatever name the operator gave it.
        return Some(cluster.issuer().to_owned());
    }
    let provider = template.provider_url(PROVIDER_HOST, "/").origin();
    let plain = url.username().is_empty() && url.password().is_none();
    (plain && provider == url.origin()).then(|| provider.ascii_serialization())
}

fn read(answer: Response<Bytes>) -> Result<Bytes, PeerError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer.into_body());
    }
    let media_type = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if media_type != Some(problem::MEDIA_TYPE) {
        // A proxy's page or a half-started service: nobody of ours has answered.
        return Err(PeerError::Unreachable);
    }
    let problem = serde_json::from_slice(answer.body()).map_err(|_| PeerError::Unreachable)?;
    Err(PeerError::Refused(Box::new(problem)))
}

fn refused(code: Code) -> PeerError {
    PeerError::Refused(Box::new(code.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CONSUMER, World};

    #[tokio::test(start_paused = true)]
    async fn a_token_is_never_sent_outside_the_federation() {
        let world = World::new(&["a"]).await;
        let evil = [
            "https://a-conv.provider.example.evil.test/",
            "https://user@clustermap.provider.example/",
            "https://clustermap.provider.example.evil.test/",
            "https://portal.provider.example/",
            "https://10.0.0.97/",
            "http://a-conv.provider.example/",
        ];
        for url in evil {
            let answer = call(world.cluster("a"), Method::POST, &url.parse().unwrap(), &()).await;
            let Err(PeerError::Refused(problem)) = answer else { panic!("{url}: {answer:?}") };
            assert_eq!(problem.code, Code::UntrustedUrl, "{url}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_at_home_and_a_page_that_is_no_problem_are_unreachable() {
        let world = World::new(&["a", "b"]).await;
        world.cut("b");
        for cluster in ["b", "z"] {
            let url = world.url(cluster, fusion_protocol::Service::Conv, "/v1/x");
            let answer = call(world.cluster("a"), Method::POST, &url, &()).await;
            assert!(matches!(answer, Err(PeerError::Unreachable)), "{answer:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_call_after_a_peers_restart_is_answered() {
        let mut world = World::new(&["a", "b"]).await;
        let url = world.url("b", fusion_protocol::Service::Conv, "/v1/health");
        for life in 1..=3 {
            let answer = call(world.cluster("a"), Method::GET, &url, &()).await;
            assert!(answer.is_ok(), "life {life}: {answer:?}");
            world.restart("b").await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_is_ready_when_it_has_seen_the_domain_map() {
        let mut world = World::new(&[CONSUMER]).await;
        let health = async |world: &World| {
            let (status, body) = world.get(CONSUMER, fusion_protocol::Service::Users, "/v1/health", "").await;
            (status.as_u16(), body["code"].as_str().map(str::to_owned))
        };
        assert_eq!(health(&world).await, (503, Some("resolution-incomplete".to_owned())));
        world.claim("acme.example", &[CONSUMER]).await;
        assert_eq!(health(&world).await, (200, None));
        world.restart(CONSUMER).await;
        assert_eq!(health(&world).await, (200, None), "it knows it from before");
    }
}
