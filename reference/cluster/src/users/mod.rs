//! The user map, the replica of the domain map, and resolution (MAP).

mod http;
mod quota;
mod replica;
mod resolve;
mod store;
#[cfg(test)]
mod tests;

use axum::Router;

pub(crate) use quota::Quota;
pub(crate) use replica::Replica;
pub(crate) use resolve::{Remembered, resolve, resolve_again};
pub(crate) use store::{UserRow, by_id, insert, remove, served_here};

use crate::Cluster;

/// Starts following the provider's feed.
pub(crate) fn start(cluster: &Cluster) {
    cluster.host.tasks.spawn(replica::follow(cluster.clone()));
}

pub(crate) fn routes() -> Router<Cluster> {
    http::routes()
}
