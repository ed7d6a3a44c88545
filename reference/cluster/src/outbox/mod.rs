//! The transactional outbox: effects on other clusters leave with the state they announce (RDV-005).

use fusion_protocol::Address;
use fusion_protocol::Problem;
use fusion_protocol::locus::ActiveLocus;
use fusion_protocol::mercury::EventType;
use fusion_runtime::store::Batch;
use serde::{Deserialize, Serialize};

use crate::{Cluster, StartError};

/// The outbox as this instance works on it.
#[derive(Default)]
pub(crate) struct Outbox {}

/// Something to be made known, to be resolved, sent and retried until answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "effect")]
pub(crate) enum Effect {
    /// The user's entry of the active list is to say this (LOC-007).
    #[serde(rename_all = "camelCase")]
    Active {
        /// Whose list, wherever they are.
        user: Address,
        /// What it is to say.
        entry: Box<ActiveLocus>,
        /// What the devices are woken with.
        event: Option<EventType>,
    },
}

/// Starts sending, with whatever an earlier life left.
pub(crate) async fn start(cluster: &Cluster) -> Result<(), StartError> {
    let _ = cluster;
    Ok(())
}

/// Adds a row to `batch`. Rows with the same `stream` (an object's URL) for the same user leave in order.
pub(crate) fn post(
    cluster: &Cluster,
    batch: &mut Batch,
    stream: &str,
    effect: Effect,
) -> Result<(), Problem> {
    let _ = (cluster, batch, stream, effect);
    Ok(())
}

/// Call after the commit: there is something to send.
pub(crate) fn wake(cluster: &Cluster) {
    let _ = cluster;
}
