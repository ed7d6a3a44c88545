//! Provisioning: SCIM 2.0 users of this cluster, by admins of its org (PRO).
//!
//! Not here: who is an admin (`auth`), where a user is found (`users`), PATCH, bulk and CSV.

mod create;
mod erasure;
mod http;
pub(crate) mod place;
mod scim;
#[cfg(test)]
mod tests;

use axum::Router;

use fusion_protocol::{Address, Problem};

use crate::{Cluster, StartError};

/// Finishes the erasures that an earlier life left.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn start(cluster: &Cluster) -> Result<(), StartError> {
    erasure::resume(cluster).await
}

/// The lock under which an address comes and goes.
pub(crate) fn lock(user: &Address) -> String {
    erasure::lock(user)
}

/// Erases what a deleted user left, if there is anything left: before anybody else gets the address. Under
/// [`lock`].
///
/// # Errors
/// When the store or the registrar cannot.
pub(crate) async fn finish_erasure(cluster: &Cluster, user: &Address) -> Result<(), Problem> {
    erasure::finish(cluster, user).await
}

pub(crate) fn routes() -> Router<Cluster> {
    http::routes()
}
