//! The control interface: the relay's own cluster opens and closes legs, and reads the accounts.

use axum::Router;
use axum::extract::{FromRequest, Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use fusion_cluster::auth::{self, Call};
use fusion_cluster::reply::{self, Answer, Refusal, json};
use fusion_cluster::router::with_manners;
use fusion_machines::legs::{OpenRefusal, Secrets};
use fusion_protocol::media::OpenLeg;
use fusion_protocol::{Code, Count, Problem, Service, Uuid};
use http::StatusCode;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::Relay;

pub(crate) fn router(relay: &Relay) -> Router {
    let routes = Router::new()
        .route("/v1/legs", post(open_leg))
        .route("/v1/legs/{id}", delete(close_leg))
        .route("/v1/instances/{locus}/{instance}", delete(close_instance))
        .route("/v1/counters", get(counters))
        .route("/v1/health", get(|| async { "ok" }))
        .with_state(relay.clone());
    // In one of the templates a service's name is a path.
    let prefix = relay.config.template.path_prefix(Service::Relay);
    let routes = if prefix.is_empty() { routes } else { Router::new().nest(&prefix, routes) };
    with_manners(routes, &relay.host, "relay")
}

/// The relay's own cluster, by a call that it signed (SEC-004), with the call's JSON body.
struct OwnCluster<T>(T);

impl<T: DeserializeOwned> FromRequest<Relay> for OwnCluster<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, relay: &Relay) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let token = auth::bearer(&parts.headers)?;
        let body = reply::read_body(body).await?;
        let call = Call { method: parts.method.as_str(), url: &auth::absolute(&parts)?, body: &body };
        let caller = relay.keyring.caller(&relay.audience, token, call).await?;
        if caller != relay.config.cluster {
            return Err(Code::Forbidden.into());
        }
        reply::parse(if body.is_empty() { b"null" } else { &body }).map(Self)
    }
}

async fn open_leg(State(relay): State<Relay>, OwnCluster(open): OwnCluster<OpenLeg>) -> Answer {
    let entropy = &relay.host.entropy;
    let secrets = Secrets { token: entropy.uuid().simple().to_string(), ssrc: entropy.u64() as u32 };
    // A newer call of the locus ends the older one's legs.
    let opened = relay.legs().open(&open, secrets);
    let leg = opened.map_err(refused)?;
    relay.stall.begin();
    relay.report(&[leg.id], "OPEN");
    Ok(json(StatusCode::CREATED, &leg))
}

async fn close_leg(State(relay): State<Relay>, Path(id): Path<String>, _: OwnCluster<IgnoredAny>) -> Answer {
    let id: Uuid = id.parse().map_err(|_| Code::NotFound)?;
    relay.legs().close_leg(id);
    relay.report(&[id], "CLOSED");
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn close_instance(
    State(relay): State<Relay>,
    Path((locus, instance)): Path<(String, String)>,
    _: OwnCluster<IgnoredAny>,
) -> Answer {
    let locus: Uuid = locus.parse().map_err(|_| Code::NotFound)?;
    let instance: Count = instance.parse().map_err(|_| Code::NotFound)?;
    let ended = {
        let mut legs = relay.legs();
        let ended = legs.open_legs(locus, instance);
        legs.close_instance(locus, instance);
        ended
    };
    relay.report(&ended, "CLOSED");
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn counters(State(relay): State<Relay>, _: OwnCluster<IgnoredAny>) -> Response {
    json(StatusCode::OK, &relay.counters())
}

fn refused(refusal: OpenRefusal) -> Problem {
    match refusal {
        OpenRefusal::CallOver => Code::CallOver.into(),
        OpenRefusal::OtherCall => Code::Conflict.into(),
        OpenRefusal::Full => Problem::new(Code::Unavailable).detail("the relay is full"),
    }
}
