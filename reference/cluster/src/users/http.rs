//! The user map's routes: for other clusters, for the cluster's own users, and before login.

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, put};
use fusion_machines::resolution::Answer as MapAnswer;
use fusion_protocol::map::LoginDiscovery;
use fusion_protocol::{Address, ClusterName, Code, Count, Domain, Problem, Service};
use http::StatusCode;
use serde::Deserialize;

use super::{resolve, served_here};
use crate::auth::{Caller, UserCaller};
use crate::provisioning::place;
use crate::reply::{self, Answer};
use crate::{Cluster, OrgRole, moves};

pub(super) fn routes() -> Router<Cluster> {
    Router::new()
        .route("/v1/users/{user}", get(user))
        .route("/v1/resolve/{user}", get(resolved))
        .route("/v1/login", get(login))
        .route("/v1/places/{user}", put(place::put).delete(place::delete))
        .merge(moves::routes())
}

/// `?reach=cluster`: the asker wants this cluster's own answer, not the org's.
#[derive(Deserialize)]
struct Asked {
    reach: Option<String>,
}

#[derive(Deserialize)]
struct Login {
    domain: Option<String>,
}

/// MAP-005, MAP-008: where a user of this org is, for clusters and the cluster's own users.
async fn user(
    State(cluster): State<Cluster>,
    Path(user): Path<String>,
    Query(asked): Query<Asked>,
    caller: Caller,
) -> Answer {
    let user = address(&user)?;
    match &caller {
        Caller::Cluster(peer) => cluster.quota.take(peer.as_str(), &cluster)?,
        Caller::User(caller) => own_user(&cluster, caller)?,
    }
    if let Some(row) = served_here(&cluster, &user).await?.value {
        not_taken_over(&cluster, &user).await?;
        return Ok(reply::json(StatusCode::OK, &row.record));
    }
    if asked.reach.as_deref() == Some("cluster") {
        return Err(match moves::gone_to(&cluster, &user).await? {
            Some(to) => wrong_cluster(&[to]).into(),
            None => Code::UserUnknown.into(),
        });
    }
    elsewhere(&cluster, &user).await
}

/// The four steps, for a user of this cluster.
async fn resolved(State(cluster): State<Cluster>, Path(user): Path<String>, caller: UserCaller) -> Answer {
    let user = address(&user)?;
    own_user(&cluster, &caller)?;
    Ok(reply::json(StatusCode::OK, &resolve(&cluster, &user).await?))
}

/// MAP-012: from the domain only, the same for users that exist and users that do not.
async fn login(State(cluster): State<Cluster>, Query(asked): Query<Login>) -> Answer<Response> {
    let domain: Option<Domain> = asked.domain.and_then(|domain| domain.parse().ok());
    let domain =
        domain.ok_or_else(|| Problem::new(Code::BadRequest).detail("the parameter domain is needed"))?;
    let view = cluster.map.view(&domain, cluster.host.clock.now());
    if view.version == Count(0) {
        return Err(Code::ResolutionIncomplete.into());
    }
    let org = view.record.iter().flat_map(|record| &record.clusters);
    // A claimed domain may still have consumer users.
    let servers = org.chain(&view.consumer);
    let servers = servers.map(|server| cluster.config.template.url(server, Service::Auth, "")).collect();
    Ok(reply::json(StatusCode::OK, &LoginDiscovery { authorization_servers: servers }))
}

/// A user without a row here: unknown to the whole org, or somebody else's to answer for.
async fn elsewhere(cluster: &Cluster, user: &Address) -> Answer {
    let view = cluster.map.view(&user.domain(), cluster.host.clock.now());
    if view.version == Count(0) {
        return Err(Code::ResolutionIncomplete.into());
    }
    match (cluster.config.role, &view.record) {
        // The consumer org is asked last: whoever asks it has asked the others (step 4).
        (OrgRole::Consumer, _) => {}
        (OrgRole::Private, Some(record)) if record.clusters.contains(cluster.name()) => {}
        (OrgRole::Private, Some(record)) => return Err(wrong_cluster(&record.clusters).into()),
        (OrgRole::Private, None) => return Err(wrong_cluster(&view.consumer).into()),
    }
    let siblings = resolve::siblings(cluster, &user.domain());
    let answer = match moves::gone_to(cluster, user).await? {
        // Where the user went, is asked first.
        Some(to) => resolve::among(cluster, user, &first(to, siblings)).await,
        None => resolve::among(cluster, user, &siblings).await,
    };
    match answer {
        MapAnswer::Found(record) => Err(wrong_cluster(&[record.cluster]).into()),
        MapAnswer::Unknown => Err(Code::UserUnknown.into()),
        _ => Err(Code::ResolutionIncomplete.into()),
    }
}

/// MAP-004: an account of the consumer org at a claimed domain is answered for only while the org that has
/// the domain gives the address to nobody. It is the org that is asked: it need not tell the consumer org
/// whom it takes in (PRI-002).
async fn not_taken_over(cluster: &Cluster, user: &Address) -> Result<(), Problem> {
    let view = cluster.map.view(&user.domain(), cluster.host.clock.now());
    let (OrgRole::Consumer, Some(record)) = (cluster.config.role, &view.record) else { return Ok(()) };
    match resolve::at_its_org(cluster, user, record).await {
        MapAnswer::Unknown => Ok(()),
        MapAnswer::Found(_) | MapAnswer::Elsewhere(_) => Err(wrong_cluster(&record.clusters)),
        _ => Err(Code::ResolutionIncomplete.into()),
    }
}

fn first(one: ClusterName, mut others: Vec<ClusterName>) -> Vec<ClusterName> {
    others.retain(|other| *other != one);
    others.insert(0, one);
    others
}

/// MAP-005: the clusters to ask instead.
fn wrong_cluster(clusters: &[ClusterName]) -> Problem {
    Problem::new(Code::WrongCluster).with("clusters", clusters)
}

/// Guests have their own cluster to ask (SEC-008).
fn own_user(cluster: &Cluster, caller: &UserCaller) -> Result<(), Problem> {
    if caller.home != *cluster.name() {
        return Err(Code::Forbidden.into());
    }
    cluster.quota.take(caller.user.user.as_str(), cluster)
}

fn address(text: &str) -> Result<Address, Problem> {
    text.parse().map_err(|error: fusion_protocol::address::AddressError| {
        Problem::new(Code::Unprocessable).detail(error.to_string())
    })
}
