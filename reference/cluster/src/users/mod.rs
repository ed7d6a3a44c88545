//! The user map, the replica of the domain map, and resolution (MAP).

mod http;
mod quota;
mod replica;
mod resolve;
mod store;
#[cfg(test)]
mod tests;

use axum::Router;
use fusion_protocol::Service;
use fusion_protocol::map::UserRecord;
use fusion_runtime::probe::StateChange;
use serde_json::json;

pub(crate) use quota::Quota;
pub(crate) use replica::{Replica, View};
pub(crate) use resolve::{
    Remembered, among, at_its_org, clusters_of, forget, of_one_org, resolve, resolve_again, siblings,
};
pub(crate) use store::{UserRow, by_id, held, insert, rely_on_free_id, remove, served_here};

use crate::Cluster;

/// Starts following the provider's feed.
pub(crate) fn start(cluster: &Cluster) {
    cluster.host.tasks.spawn(replica::follow(cluster.clone()));
}

pub(crate) fn routes() -> Router<Cluster> {
    http::routes()
}

/// Tells whoever watches that a user's row is now so (`ACTIVE`, `FENCED`, `GONE`, `DELETED`).
pub(crate) fn report(cluster: &Cluster, record: &UserRecord, state: &str) {
    let probe = &cluster.host.probe;
    if probe.watches_state() {
        let path = format!("/v1/users/{}", record.user.path_segment());
        probe.state(StateChange {
            concept: "user",
            subject: cluster.url(Service::Users, &path).to_string(),
            state: state.to_owned(),
            detail: json!({
                "user": record.user,
                "incarnation": record.incarnation,
                "cluster": record.cluster,
                "version": record.version,
            }),
        });
    }
}
