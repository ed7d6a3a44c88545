//! What an engine offers to whoever plays a plan on it.

use async_trait::async_trait;
use fusion_deployment::Federation;
use fusion_history::event::Sink;
use fusion_history::{Recorder, canary::Canaries};
use fusion_protocol::ClusterName;
use fusion_protocol::media::LegCounters;
use fusion_runtime::store::{Key, Row};
use fusion_runtime::{Clock, Host};
use serde_json::Value;

use crate::fabric::{Fault, FaultId};

/// A world with a federation in it, running, in which a plan can be played.
#[async_trait]
pub trait Stage: Send + Sync {
    /// The engine's name in histories.
    fn engine(&self) -> &'static str;

    /// The federation that runs in it.
    fn federation(&self) -> &Federation;

    /// The run's clock, never skewed.
    fn clock(&self) -> &Clock;

    /// Where everything observed is written.
    fn recorder(&self) -> &Recorder;

    /// A machine for a device of somebody's, for example `alice/phone`.
    fn device_host(&self, name: &str) -> Host;

    /// Begins a fault.
    ///
    /// # Errors
    /// When this engine cannot express it, or it cannot be.
    async fn begin(&self, fault: &Fault) -> Result<FaultId, String>;

    /// Ends a fault that may have ended by itself.
    async fn end(&self, fault: FaultId);

    /// Ends every fault and starts every machine that is down.
    async fn heal(&self);

    /// Searches everything that the provider plane holds and has seen (PRI-001), by host.
    fn search(&self, canaries: &Canaries) -> Vec<(String, Sink)>;

    /// Searches the logs outside of the provider plane (PRI-005), by host; empty where the engine does not
    /// see them.
    fn search_logs(&self, canaries: &Canaries) -> Vec<(String, Sink)> {
        let _ = canaries;
        Vec::new()
    }

    /// A token signed with a cluster's own key, which whoever runs the cluster has; `None` where the engine
    /// does not see into clusters.
    fn sign(&self, cluster: &ClusterName, typ: &str, claims: &Value) -> Option<String> {
        let _ = (cluster, typ, claims);
        None
    }

    /// What each relay says of its legs (MED-005), by host; empty where it cannot be asked.
    fn relay_accounts(&self) -> Vec<(String, LegCounters)>;
}

/// The rows of a store as one text to search.
pub(crate) fn rows_as_bytes<'a>(rows: impl Iterator<Item = (&'a Key, &'a Row)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, row) in rows {
        for part in [key.as_bytes(), b"\n", &row.value, b"\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes
}
