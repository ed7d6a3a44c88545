//! Loci: the persistent call objects (LOC).

use axum::Router;
use fusion_protocol::index::RowResult;
use fusion_protocol::locus::ActiveWrite;
use fusion_protocol::{Problem, Uuid};
use fusion_runtime::store::Batch;

use crate::{Cluster, StartError};

/// The leases and ring time-outs that this instance counts (LOC-007: only while it serves).
#[derive(Default)]
pub(crate) struct Leases {}

pub(crate) async fn start(cluster: &Cluster) -> Result<(), StartError> {
    let _ = cluster;
    Ok(())
}

/// `{conversation}/locus` and below, on the conversation's host.
pub(crate) fn call_routes() -> Router<Cluster> {
    Router::new()
}

/// The active lists, on the locus host.
pub(crate) fn list_routes() -> Router<Cluster> {
    Router::new()
}

/// LOC-001: the persistent locus of a new conversation, in the conversation's own commit.
pub(crate) fn create(cluster: &Cluster, batch: &mut Batch, conversation: Uuid) {
    let _ = (cluster, batch, conversation);
}

/// Writes a local user's entry of the active list, and wakes the devices: for local loci and for
/// `POST /v1/loci` alike.
pub(crate) async fn write_active(cluster: &Cluster, write: &ActiveWrite) -> Result<RowResult, Problem> {
    let _ = (cluster, write);
    unimplemented!()
}
