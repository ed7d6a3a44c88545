//! Moves a user to another cluster of the org, with one commit point (MAP-007).
//!
//! `depart` is the old cluster: it fences the record, carries everything over, asks until it knows what has
//! been decided, and then forgets what it had. `arrive` is the new one: it keeps what comes and commits it in
//! one transaction. `carry` says what goes with a user; objects do not: they live where they were made.
//!
//! Both sides are driven by durable rows, so that a crash at any point is only a repetition. What is decided
//! is in `fusion_machines::moving`. While a user is fenced, whoever asks here gets 503; once gone, 421 with a
//! hint, by `users` and `auth`.

mod arrive;
mod carry;
mod depart;
mod http;
mod store;
#[cfg(test)]
mod tests;

use axum::Router;
use fusion_machines::moving::Origin;
use fusion_protocol::{Address, ClusterName, Problem};

pub(crate) use depart::{clear, start};

use crate::Cluster;

pub(crate) fn routes() -> Router<Cluster> {
    http::routes()
}

/// Where a user went who was served here: the hint for whoever asks here.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn gone_to(cluster: &Cluster, user: &Address) -> Result<Option<ClusterName>, Problem> {
    let row = store::departure(cluster, user).await?.value;
    Ok(row.and_then(|row| match row.origin {
        Origin::Gone { to, .. } => Some(to),
        Origin::Active { .. } | Origin::Fenced { .. } => None,
    }))
}
