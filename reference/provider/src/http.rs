//! The domain map's routes, at `https://clustermap.{provider}`.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::response::IntoResponse as _;
use axum::routing::get;
use fusion_cluster::auth::{self, Call};
use fusion_cluster::reply::{self, Answer, JsonBody, Refusal};
use fusion_cluster::router::with_manners;
use fusion_protocol::map::Claim;
use fusion_protocol::{ClusterName, Code, Count, Domain, Problem};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;

use crate::{CLUSTERMAP, Shared, claims, feed};

type Provider = State<Arc<Shared>>;

/// Everything that the provider serves, by host.
pub(crate) fn router(provider: &Arc<Shared>) -> Router {
    let clustermap = with_manners(routes().with_state(provider.clone()), &provider.host, CLUSTERMAP);
    let name = format!("{CLUSTERMAP}.{}", provider.config.template.provider());
    Router::new().fallback(move |request: Request| {
        let served = host(request.headers()).is_some_and(|host| host.eq_ignore_ascii_case(&name));
        let clustermap = clustermap.clone();
        async move {
            if !served {
                return Refusal::from(Code::NotFound).into_response();
            }
            match clustermap.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    })
}

fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/domains", get(changes).post(claim))
        .route("/v1/domains/{domain}", get(domain).delete(release))
        .route("/v1/health", get(|| async { "ok" }))
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: String,
    #[serde(default)]
    wait: u64,
}

/// MAP-003: one domain's record, for anybody who knows the domain's name. It never lists.
async fn domain(State(provider): Provider, Path(asked): Path<String>) -> Answer {
    let domain = parse(&asked)?;
    let row = claims::find(&provider, &domain).await?;
    match claims::record(&provider, &domain, &row) {
        Some(record) => Ok(reply::json(StatusCode::OK, &record)),
        None => {
            let version = claims::version(&provider).await?;
            Err(Problem::new(Code::DomainUnclaimed).with("version", version).into())
        }
    }
}

/// MAP-006: the feed, for clusters only.
async fn changes(State(provider): Provider, Query(asked): Query<After>, request: Request) -> Answer {
    caller(&provider, request).await?;
    let after = if asked.after.is_empty() { Ok(Count(0)) } else { asked.after.parse() };
    let after = after.map_err(|_| Problem::new(Code::BadRequest).detail("after is a version"))?;
    Ok(reply::json(StatusCode::OK, &feed::after(&provider, after, asked.wait).await?))
}

/// MAP-002: by an admin of the claiming org.
async fn claim(State(provider): Provider, headers: HeaderMap, body: JsonBody<Claim>) -> Answer {
    let JsonBody(claim) = body;
    if admin(&provider, &headers)? != claim.org {
        return Err(Code::Forbidden.into());
    }
    Ok(reply::json(StatusCode::OK, &claims::claim(&provider, claim).await?))
}

/// By an admin of the org that has it.
async fn release(State(provider): Provider, Path(asked): Path<String>, headers: HeaderMap) -> Answer {
    let org = admin(&provider, &headers)?;
    claims::release(&provider, &parse(&asked)?, &org).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The cluster that signed the request (SEC-004).
async fn caller(provider: &Shared, request: Request<Body>) -> Result<ClusterName, Refusal> {
    let (parts, body) = request.into_parts();
    let body = reply::read_body(body).await?;
    let url = auth::absolute(&parts)?;
    let call = Call { method: parts.method.as_str(), url: &url, body: &body };
    let origin = provider.config.template.provider_url(CLUSTERMAP, "/").origin().ascii_serialization();
    Ok(provider.keyring.caller(&origin, auth::bearer(&parts.headers)?, call).await?)
}

/// The org whose admin secret the request carries. Secrets are compared by digest, so that the time it
/// takes tells nothing of how much of one was right.
fn admin(provider: &Shared, headers: &HeaderMap) -> Result<String, Problem> {
    let given = Sha256::digest(auth::bearer(headers)?);
    let known =
        provider.config.orgs.iter().find(|account| {
            account.admin_secret.as_ref().is_some_and(|secret| Sha256::digest(secret) == given)
        });
    known.map(|account| account.org.clone()).ok_or_else(|| Code::Unauthorized.into())
}

fn host(headers: &HeaderMap) -> Option<&str> {
    let authority = headers.get(header::HOST)?.to_str().ok()?;
    Some(authority.rsplit_once(':').map_or(authority, |(host, _)| host))
}

fn parse(text: &str) -> Result<Domain, Problem> {
    text.parse().map_err(|_| Problem::new(Code::Unprocessable).detail("not a domain name"))
}
