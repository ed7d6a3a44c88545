//! What an org's admin asks of the old cluster, and the old cluster of the new one.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use axum::routing::{get, post, put};
use fusion_protocol::moving::{Arrival, Order, Part};
use fusion_protocol::{Address, ClusterName, Code, Count, Incarnation, Problem, UserRef};
use http::StatusCode;
use serde::de::IgnoredAny;

use super::arrive::{self, Coming};
use super::depart;
use crate::Cluster;
use crate::auth::{AdminCaller, ClusterCaller};
use crate::reply::{Answer, JsonBody, json};

pub(super) fn routes() -> Router<Cluster> {
    Router::new()
        .route("/v1/moves/{user}", get(look).post(order).delete(call_off))
        .route("/v1/arrivals/{user}", get(may_come))
        .route("/v1/arrivals/{user}/{incarnation}/{epoch}", post(commit).delete(withdraw))
        .route("/v1/arrivals/{user}/{incarnation}/{epoch}/{part}", put(take))
}

async fn order(
    State(cluster): State<Cluster>,
    _admin: AdminCaller,
    Path(user): Path<String>,
    JsonBody(order): JsonBody<Order>,
) -> Answer {
    let moved = depart::order(&cluster, &address(&user)?, &order.to).await?;
    Ok(json(StatusCode::ACCEPTED, &moved))
}

async fn look(State(cluster): State<Cluster>, _admin: AdminCaller, Path(user): Path<String>) -> Answer {
    Ok(json(StatusCode::OK, &depart::look(&cluster, &address(&user)?).await?))
}

async fn call_off(State(cluster): State<Cluster>, _admin: AdminCaller, Path(user): Path<String>) -> Answer {
    Ok(json(StatusCode::ACCEPTED, &depart::call_off(&cluster, &address(&user)?).await?))
}

async fn may_come(
    State(cluster): State<Cluster>,
    Path(user): Path<String>,
    caller: ClusterCaller<IgnoredAny>,
) -> Answer {
    arrive::may_come(&cluster, &caller.cluster, &address(&user)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn take(
    State(cluster): State<Cluster>,
    Path((user, incarnation, epoch, part)): Path<(String, String, String, String)>,
    caller: ClusterCaller<Part>,
) -> Answer {
    let number: u32 = part.parse().map_err(|_| Code::BadRequest)?;
    let coming = coming(caller.cluster, &user, &incarnation, &epoch)?;
    arrive::take(&cluster, &coming, number, caller.body).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn commit(
    State(cluster): State<Cluster>,
    Path((user, incarnation, epoch)): Path<(String, String, String)>,
    caller: ClusterCaller<Arrival>,
) -> Answer {
    let coming = coming(caller.cluster, &user, &incarnation, &epoch)?;
    Ok(json(StatusCode::OK, &arrive::commit(&cluster, &coming, caller.body).await?))
}

async fn withdraw(
    State(cluster): State<Cluster>,
    Path((user, incarnation, epoch)): Path<(String, String, String)>,
    caller: ClusterCaller<IgnoredAny>,
) -> Answer {
    let coming = coming(caller.cluster, &user, &incarnation, &epoch)?;
    Ok(json(StatusCode::OK, &arrive::withdraw(&cluster, &coming).await?))
}

fn coming(from: ClusterName, user: &str, incarnation: &str, epoch: &str) -> Result<Coming, Problem> {
    let incarnation = Incarnation(incarnation.parse().map_err(|_| Code::BadRequest)?);
    let epoch = Count(epoch.parse().map_err(|_| Code::BadRequest)?);
    Ok(Coming { from, who: UserRef { user: address(user)?, incarnation }, epoch })
}

fn address(text: &str) -> Result<Address, Problem> {
    text.parse().map_err(|_| Code::BadRequest.into())
}
