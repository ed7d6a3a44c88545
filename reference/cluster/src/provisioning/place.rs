//! One place for one address in an org with several clusters (MAP-004): before a cluster adds a user, the
//! org's registrar writes down that the address is that cluster's, for one cluster only.
//!
//! The registrar is the first cluster of the domain's record, or of the consumer org. It decides only
//! between clusters that are asked for one address at the same moment; where a user is, is said by the
//! user maps. A place that was given and not used stays with its cluster until somebody adds the user
//! there.

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use fusion_protocol::{Address, ClusterName, Code, Problem, Service};
use fusion_runtime::store::{Batch, Key};
use http::{Method, StatusCode};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::auth::ClusterCaller;
use crate::peers::{self, PeerError};
use crate::reply::Answer;
use crate::rows::{self, Committed};
use crate::{Cluster, users};

/// Whose an address is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PlaceRow {
    cluster: ClusterName,
}

/// What the registrar is told.
enum Tell<'a> {
    Take,
    Leave,
    HandOver(&'a ClusterName),
}

/// `?to=`: to which cluster the address is passed on.
#[derive(Deserialize)]
pub(crate) struct Asked {
    to: Option<ClusterName>,
}

/// Makes the address this cluster's.
///
/// # Errors
/// `already-exists` when it is another cluster's, `resolution-incomplete` when the registrar is silent.
pub(super) async fn take(cluster: &Cluster, user: &Address) -> Result<(), Problem> {
    tell(cluster, user, Tell::Take).await
}

/// Gives the address up, for any cluster of the org to take.
///
/// # Errors
/// `resolution-incomplete` when the registrar is silent.
pub(super) async fn leave(cluster: &Cluster, user: &Address) -> Result<(), Problem> {
    tell(cluster, user, Tell::Leave).await
}

/// Makes the address another cluster's: the user has moved there (MAP-007). Done again, it is done.
///
/// # Errors
/// `conflict` while the address is not this cluster's yet, because whoever had the user before has not told;
/// `resolution-incomplete` when the registrar is silent.
pub(crate) async fn hand_over(cluster: &Cluster, user: &Address, to: &ClusterName) -> Result<(), Problem> {
    tell(cluster, user, Tell::HandOver(to)).await
}

/// `PUT /v1/places/{user}` by a cluster of the own org; with `?to=` by the cluster that has it.
pub(crate) async fn put(
    State(cluster): State<Cluster>,
    Path(user): Path<String>,
    Query(asked): Query<Asked>,
    caller: ClusterCaller<IgnoredAny>,
) -> Answer {
    let user = of_org(&cluster, &user, &caller.cluster)?;
    match asked.to {
        Some(to) => {
            of_org(&cluster, user.as_str(), &to)?;
            pass_on(&cluster, &user, &caller.cluster, &to).await?;
        }
        None => give(&cluster, &user, &caller.cluster).await?,
    }
    Ok(done())
}

/// `DELETE /v1/places/{user}` by the cluster that has it.
pub(crate) async fn delete(
    State(cluster): State<Cluster>,
    Path(user): Path<String>,
    caller: ClusterCaller<IgnoredAny>,
) -> Answer {
    let user = of_org(&cluster, &user, &caller.cluster)?;
    take_back(&cluster, &user, &caller.cluster).await?;
    Ok(done())
}

async fn tell(cluster: &Cluster, user: &Address, what: Tell<'_>) -> Result<(), Problem> {
    let clusters = users::clusters_of(cluster, &user.domain());
    let Some(registrar) = clusters.first().filter(|_| clusters.len() > 1) else { return Ok(()) };
    if registrar == cluster.name() {
        return match what {
            Tell::Take => give(cluster, user, cluster.name()).await,
            Tell::Leave => take_back(cluster, user, cluster.name()).await,
            Tell::HandOver(to) => pass_on(cluster, user, cluster.name(), to).await,
        };
    }
    let path = format!("/v1/places/{}", user.path_segment());
    let mut url = cluster.config.template.url(registrar, Service::Users, &path);
    let method = match what {
        Tell::Take => Method::PUT,
        Tell::Leave => Method::DELETE,
        Tell::HandOver(to) => {
            url.query_pairs_mut().append_pair("to", to.as_str());
            Method::PUT
        }
    };
    match peers::call(cluster, method, &url, &()).await {
        Ok(_) => Ok(()),
        Err(PeerError::Refused(problem)) if matches!(problem.code, Code::AlreadyExists | Code::Conflict) => {
            Err(*problem)
        }
        Err(_) => Err(Code::ResolutionIncomplete.into()),
    }
}

async fn give(cluster: &Cluster, user: &Address, to: &ClusterName) -> Result<(), Problem> {
    loop {
        let place = rows::load::<PlaceRow>(&*cluster.host.store, key(user)).await?;
        match &place.value {
            Some(row) if row.cluster == *to => return Ok(()),
            Some(_) => return Err(Code::AlreadyExists.into()),
            None => {}
        }
        let mut batch = Batch::default();
        place.save(&mut batch, &PlaceRow { cluster: to.clone() });
        if rows::commit(&*cluster.host.store, batch).await? == Committed::Yes {
            return Ok(());
        }
    }
}

/// An address that nobody has written down is whose cluster passes it on.
async fn pass_on(
    cluster: &Cluster,
    user: &Address,
    from: &ClusterName,
    to: &ClusterName,
) -> Result<(), Problem> {
    loop {
        let place = rows::load::<PlaceRow>(&*cluster.host.store, key(user)).await?;
        match &place.value {
            Some(row) if row.cluster == *to => return Ok(()),
            Some(row) if row.cluster != *from => return Err(Code::Conflict.into()),
            _ => {}
        }
        let mut batch = Batch::default();
        place.save(&mut batch, &PlaceRow { cluster: to.clone() });
        if rows::commit(&*cluster.host.store, batch).await? == Committed::Yes {
            return Ok(());
        }
    }
}

async fn take_back(cluster: &Cluster, user: &Address, from: &ClusterName) -> Result<(), Problem> {
    loop {
        let place = rows::load::<PlaceRow>(&*cluster.host.store, key(user)).await?;
        if place.value.as_ref().is_none_or(|row| row.cluster != *from) {
            return Ok(());
        }
        let mut batch = Batch::default();
        place.remove(&mut batch);
        if rows::commit(&*cluster.host.store, batch).await? == Committed::Yes {
            return Ok(());
        }
    }
}

/// Only clusters of one org decide among each other.
fn of_org(cluster: &Cluster, user: &str, caller: &ClusterName) -> Result<Address, Problem> {
    let user: Address = user.parse().map_err(|_| Code::Unprocessable)?;
    let clusters = users::clusters_of(cluster, &user.domain());
    let ours = clusters.contains(cluster.name()) && clusters.contains(caller);
    if ours { Ok(user) } else { Err(Code::Forbidden.into()) }
}

fn done() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

fn key(user: &Address) -> Key {
    rows::key("place", &[user.as_str()])
}
