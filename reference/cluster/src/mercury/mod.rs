//! Mercury: wakes a user's devices over WebSockets (MER).

use axum::Router;
use fusion_protocol::mercury::Notification;
use fusion_protocol::{Address, Problem};
use fusion_runtime::store::Batch;

use crate::Cluster;

/// The sockets that this instance holds.
#[derive(Default)]
pub(crate) struct Sockets {}

/// Devices to wake once the commit is durable.
#[must_use]
#[derive(Default)]
pub(crate) struct Wake {}

pub(crate) fn start(cluster: &Cluster) {
    let _ = cluster;
}

pub(crate) fn routes() -> Router<Cluster> {
    Router::new()
}

/// Adds the event to the queues of all devices of a local user, in `batch`, so that it is durable with
/// the state it announces (MER-005). A notification whose id a device's queue has seen is not added twice.
pub(crate) async fn enqueue(
    cluster: &Cluster,
    batch: &mut Batch,
    user: &Address,
    notification: &Notification,
) -> Result<Wake, Problem> {
    let _ = (cluster, batch, user, notification);
    Ok(Wake::default())
}

impl Wake {
    /// Tells the connection servers over the bus.
    pub(crate) fn now(self, cluster: &Cluster) {
        let _ = cluster;
    }
}
