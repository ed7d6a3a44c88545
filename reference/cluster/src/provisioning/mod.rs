//! provisioning.

use axum::Router;

use crate::Cluster;

pub(crate) fn routes() -> Router<Cluster> {
    Router::new()
}
