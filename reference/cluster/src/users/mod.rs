//! The user map, the replica of the domain map, and resolution (MAP).

use axum::Router;
use fusion_protocol::map::{Resolution, UserRecord};
use fusion_protocol::{Address, Pii, Problem};
use fusion_runtime::Host;
use serde::{Deserialize, Serialize};

use crate::rows::Loaded;
use crate::{Cluster, StartError};

/// The cluster's replica of the domain map (MAP-006).
pub(crate) struct Replica {}

/// A user that this cluster serves (PRO-005).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserRow {
    pub(crate) record: UserRecord,
    /// SCIM's id.
    pub(crate) id: fusion_protocol::Uuid,
    pub(crate) display_name: Option<Pii<String>>,
    pub(crate) external_id: Option<String>,
    pub(crate) active: bool,
}

impl Replica {
    pub(crate) async fn load(host: &Host) -> Result<Self, StartError> {
        let _ = host;
        unimplemented!()
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
    let _ = (cluster, user);
    unimplemented!()
}

/// The row of a user that this cluster serves; empty for anybody else. `unchanged` on it makes a commit
/// depend on the user still being served here.
pub(crate) async fn served_here(cluster: &Cluster, user: &Address) -> Result<Loaded<UserRow>, Problem> {
    let _ = (cluster, user);
    unimplemented!()
}
