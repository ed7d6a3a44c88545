//! The control interface: the relay's own cluster and its guests open and close legs, and look whether it
//! lives; the own cluster reads the accounts.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Path, RawQuery, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use fusion_cluster::auth::{self, Call};
use fusion_cluster::reply::{self, Answer, Refusal, json};
use fusion_cluster::router::with_manners;
use fusion_machines::legs::{OpenRefusal, Secrets};
use fusion_protocol::media::{BEAT, BEATS, Life, OpenLeg};
use fusion_protocol::{ClusterName, Code, Count, Problem, Service, Uuid};
use futures_util::stream::{self, StreamExt as _};
use http::StatusCode;
use serde::de::{DeserializeOwned, IgnoredAny};
use sha2::{Digest as _, Sha256};

use crate::Relay;

pub(crate) fn router(relay: &Relay) -> Router {
    let routes = Router::new()
        .route("/v1/legs", post(open_leg))
        .route("/v1/legs/{id}", delete(close_leg))
        .route("/v1/instances/{locus}/{instance}", delete(close_instance))
        .route("/v1/counters", get(counters))
        .route("/v1/life", get(life))
        .route("/v1/health", get(|| async { "ok" }))
        .with_state(relay.clone());
    // In one of the templates a service's name is a path.
    let prefix = relay.config.template.path_prefix(Service::Relay);
    let routes = if prefix.is_empty() { routes } else { Router::new().nest(&prefix, routes) };
    with_manners(routes, &relay.host, "relay")
}

/// The relay's own cluster or a guest, by a call that it signed (SEC-004), with the call's JSON body.
struct Tenant<T> {
    cluster: ClusterName,
    body: T,
}

impl<T> Tenant<T> {
    /// The call that this cluster means by a locus's id. Nobody reaches into the calls of another tenant,
    /// although the ids of loci are known to all who take part.
    fn room(&self, relay: &Relay, locus: Uuid) -> Uuid {
        if self.cluster == relay.config.cluster {
            return locus;
        }
        let start = Sha256::new().chain_update("sf-guest-room-v1").chain_update(self.cluster.as_str());
        let digest = start.chain_update([0]).chain_update(locus.as_bytes()).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Uuid::from_bytes(bytes)
    }
}

impl<T: DeserializeOwned> FromRequest<Relay> for Tenant<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, relay: &Relay) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let token = auth::bearer(&parts.headers)?;
        let body = reply::read_body(body).await?;
        let call = Call { method: parts.method.as_str(), url: &auth::absolute(&parts)?, body: &body };
        let cluster = relay.keyring.caller(&relay.audience, token, call).await?;
        if cluster != relay.config.cluster && !relay.config.guests.contains(&cluster) {
            return Err(Code::Forbidden.into());
        }
        let body = reply::parse(if body.is_empty() { b"null" } else { &body })?;
        Ok(Self { cluster, body })
    }
}

async fn open_leg(State(relay): State<Relay>, tenant: Tenant<OpenLeg>) -> Answer {
    let open = OpenLeg { locus: tenant.room(&relay, tenant.body.locus), ..tenant.body };
    let entropy = &relay.host.entropy;
    let secrets = Secrets { token: entropy.uuid().simple().to_string(), ssrc: entropy.u64() as u32 };
    // A newer call of the locus ends the older one's legs.
    let opened = relay.legs().open(&open, secrets);
    let leg = opened.map_err(refused)?;
    relay.stall.begin();
    relay.report(&[leg.id], "OPEN");
    Ok(json(StatusCode::CREATED, &leg))
}

async fn close_leg(State(relay): State<Relay>, Path(id): Path<String>, _: Tenant<IgnoredAny>) -> Answer {
    let id: Uuid = id.parse().map_err(|_| Code::NotFound)?;
    relay.legs().close_leg(id);
    relay.report(&[id], "CLOSED");
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn close_instance(
    State(relay): State<Relay>,
    Path((locus, instance)): Path<(String, String)>,
    tenant: Tenant<IgnoredAny>,
) -> Answer {
    let locus: Uuid = locus.parse().map_err(|_| Code::NotFound)?;
    let locus = tenant.room(&relay, locus);
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

async fn counters(State(relay): State<Relay>, tenant: Tenant<IgnoredAny>) -> Answer {
    if tenant.cluster != relay.config.cluster {
        return Err(Code::Forbidden.into());
    }
    Ok(json(StatusCode::OK, &relay.counters()))
}

/// Whoever asks: it tells nothing of anybody, and who asks whether a relay lives has no time for it to look
/// up who that is.
async fn life(State(relay): State<Relay>, RawQuery(query): RawQuery) -> Response {
    let answer = json(StatusCode::OK, &Life { life: relay.life });
    if query.as_deref() != Some("beats") {
        return answer;
    }
    answer.map(|life| {
        let beats = stream::unfold(BEATS, move |left| {
            let clock = relay.host.clock.clone();
            async move {
                let left = left.checked_sub(1)?;
                clock.sleep(BEAT).await;
                Some((Ok::<_, axum::Error>(Bytes::from_static(b"\n")), left))
            }
        });
        Body::from_stream(life.into_data_stream().chain(beats))
    })
}

fn refused(refusal: OpenRefusal) -> Problem {
    match refusal {
        OpenRefusal::CallOver => Code::CallOver.into(),
        OpenRefusal::OtherCall => Code::Conflict.into(),
        OpenRefusal::Full => Problem::new(Code::Unavailable).detail("the relay is full"),
    }
}
