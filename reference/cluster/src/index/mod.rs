//! The index: each user's pointers to all conversations, in the user's own cluster (RDV).
//!
//! `http` is what users and other clusters ask, `store` keeps entries, cursors and previews, `repair` brings
//! back what an index has lost, and
//! [`Changes`] is the one way to write: for participants served here and for rows of other clusters
//! alike. An entry, its cursor and the events that wake the user's devices are one commit (RDV-002).
//!
//! Not here: what an entry becomes (`fusion_machines::index`), and how rows for other clusters travel
//! (the outbox).

mod changes;
mod http;
mod repair;
mod store;
#[cfg(test)]
mod tests;

use axum::Router;
use bytes::Bytes;
use fusion_machines::index::Entry;
use fusion_protocol::{Address, Count, Problem, Url};

pub(crate) use changes::{Changes, hold};
pub(crate) use http::{apply, is_conversation_of, whereabouts};
pub(crate) use repair::{Repair, reconnected, start};
pub(crate) use store::{CARRIED, erase};

use crate::Cluster;

pub(crate) fn routes() -> Router<Cluster> {
    http::routes()
}

/// The bus's subject on which a user's index says that it has grown. It stays inside the cluster.
fn subject(user: &Address) -> String {
    format!("index.{}", user.as_str())
}

/// Tells waiting readers, in every instance, up to where a user's index has grown. Only a hint.
fn publish(cluster: &Cluster, user: &Address, cursor: Count) {
    cluster.host.bus.publish(&subject(user), Bytes::from(cursor.to_string()));
}

/// The URL of a conversation's locus.
pub(crate) fn locus_url(conversation: &Url) -> Url {
    let mut url = conversation.clone();
    let path = format!("{}/locus", conversation.path());
    url.set_path(&path);
    url
}

/// What a user's index knows of a conversation.
pub(crate) async fn entry(cluster: &Cluster, user: &Address, url: &Url) -> Result<Option<Entry>, Problem> {
    Ok(store::entry(cluster, user, url).await?.value)
}
