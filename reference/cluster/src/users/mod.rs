//! The user map, the replica of the domain map, and resolution (MAP).

mod store;

use axum::Router;
use fusion_protocol::map::Resolution;
use fusion_protocol::{Address, Code, Problem};
use fusion_runtime::Host;

pub(crate) use store::{UserRow, by_id, insert, remove, served_here};

use crate::{Cluster, StartError};

/// The cluster's replica of the domain map (MAP-006).
pub(crate) struct Replica {}

impl Replica {
    pub(crate) async fn load(_: &Host) -> Result<Self, StartError> {
        Ok(Self {})
    }
}

/// Starts following the provider's feed.
pub(crate) fn start(cluster: &Cluster) {
    let _ = cluster;
}

pub(crate) fn routes() -> Router<Cluster> {
    Router::new()
}

/// The four steps of SPEC, from this cluster. Problems: `user-unknown`, `resolution-incomplete`.
pub(crate) async fn resolve(cluster: &Cluster, user: &Address) -> Result<Resolution, Problem> {
    let row = served_here(cluster, user).await?.value.ok_or(Code::ResolutionIncomplete)?;
    Ok(Resolution { record: row.record, stale: false, map_version: fusion_protocol::Count(0) })
}

/// As [`resolve`], remembering nothing.
pub(crate) async fn resolve_again(cluster: &Cluster, user: &Address) -> Result<Resolution, Problem> {
    resolve(cluster, user).await
}
