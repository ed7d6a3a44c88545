//! The rows of indexes.
//!
//! | row | says |
//! |---|---|
//! | `index/{user}/{conversation url}` | the entry |
//! | `index-at/{user}/{cursor}` | which entry changed there last: the index in order of change |
//! | `index-cursor/{user}` | the last cursor given out |
//! | `index-preview/{user}/{conversation url}/{seq}` | an activity of the preview |

use fusion_machines::index::Entry;
use fusion_protocol::conversation::Activity;
use fusion_protocol::{Address, Count, Problem, Url};
use fusion_runtime::store::{Batch, Key};
use serde::{Deserialize, Serialize};

use crate::Cluster;
use crate::rows::{self, Loaded};

/// The rows that go with a user who moves (MAP-007), each below the user.
pub(crate) const CARRIED: &[&str] = &["index", "index-at", "index-cursor", "index-preview"];

/// How many rows are read or removed at once.
const PAGE: usize = 256;

/// The last cursor of a user's index.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct CursorRow {
    pub(super) cursor: Count,
}

/// Which entry a place of the index is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AtRow {
    pub(super) cursor: Count,
    pub(super) url: Url,
}

pub(super) async fn entry(cluster: &Cluster, user: &Address, url: &Url) -> Result<Loaded<Entry>, Problem> {
    rows::load(&*cluster.host.store, rows::key("index", &[user.as_str(), url.as_str()])).await
}

/// Several entries as of one moment, in the order in which they are named.
pub(super) async fn entries(
    cluster: &Cluster,
    named: impl Iterator<Item = (&Address, &Url)>,
) -> Result<Vec<Option<Entry>>, Problem> {
    let keys = named.map(|(user, url)| rows::key("index", &[user.as_str(), url.as_str()])).collect();
    let found = rows::load_all(&*cluster.host.store, keys).await?;
    Ok(found.into_iter().map(|entry| entry.value).collect())
}

pub(super) async fn cursor(cluster: &Cluster, user: &Address) -> Result<Loaded<CursorRow>, Problem> {
    rows::load(&*cluster.host.store, rows::key("index-cursor", &[user.as_str()])).await
}

/// The preview of an entry, oldest first: no later than the entry itself, which may have been loaded
/// before its newest activities came.
pub(super) async fn preview(
    cluster: &Cluster,
    user: &Address,
    entry: &Entry,
) -> Result<Vec<Activity>, Problem> {
    let from = preview_key(user, &entry.url, entry.preview_from());
    let until = preview_key(user, &entry.url, Count(entry.last_seq.0.saturating_add(1)));
    let rows = rows::list_range(&*cluster.host.store, &from, &until, PAGE).await?;
    Ok(rows.into_iter().filter_map(|row| row.value).collect())
}

/// At most `limit` entries that changed after a cursor, each with its place as found: by the time the
/// entry is loaded it may have moved on, and what is in between must not be missed.
pub(super) async fn changed_after(
    cluster: &Cluster,
    user: &Address,
    after: Count,
    limit: usize,
) -> Result<Vec<(Count, Entry)>, Problem> {
    let store = &*cluster.host.store;
    let from = at_key(user, Count(after.0.saturating_add(1)));
    let until = rows::key("index-at", &[user.as_str()]).end();
    let places: Vec<Loaded<AtRow>> = rows::list_range(store, &from, &until, limit).await?;
    let places: Vec<_> = places.into_iter().filter_map(|place| place.value).collect();
    let keys = places.iter().map(|place| rows::key("index", &[user.as_str(), place.url.as_str()])).collect();
    let entries = rows::load_all(store, keys).await?;
    let found = places.into_iter().zip(entries);
    Ok(found.filter_map(|(place, entry)| Some((place.cursor, entry.value?))).collect())
}

pub(super) fn put_at(batch: &mut Batch, user: &Address, cursor: Count, url: &Url) {
    rows::put(batch, at_key(user, cursor), &AtRow { cursor, url: url.clone() });
}

pub(super) fn delete_at(batch: &mut Batch, user: &Address, cursor: Count) {
    batch.delete(at_key(user, cursor));
}

pub(super) fn put_preview(batch: &mut Batch, user: &Address, url: &Url, activity: &Activity) {
    rows::put(batch, preview_key(user, url, activity.seq), activity);
}

pub(super) fn delete_preview(batch: &mut Batch, user: &Address, url: &Url, seq: Count) {
    batch.delete(preview_key(user, url, seq));
}

/// Removes the content of a deleted user's index (PRO-005); done again after an error, it goes on where
/// it was. The cursor stays, so that a device of the next person never reads an older one.
///
/// # Errors
/// When the store cannot be read or written.
pub(crate) async fn erase(cluster: &Cluster, user: &Address) -> Result<(), Problem> {
    let store = &*cluster.host.store;
    let _held = super::hold(cluster, [user]).await;
    for concept in ["index-preview", "index-at", "index"] {
        let prefix = rows::key(concept, &[user.as_str()]);
        loop {
            let rows = store.scan(&prefix, &prefix.end(), PAGE).await.map_err(rows::refused)?;
            if rows.is_empty() {
                break;
            }
            let mut batch = Batch::default();
            for (key, _) in rows {
                batch.delete(key);
            }
            let _ = rows::commit(store, batch).await?;
        }
    }
    Ok(())
}

fn at_key(user: &Address, cursor: Count) -> Key {
    rows::key("index-at", &[user.as_str(), &number(cursor)])
}

fn preview_key(user: &Address, url: &Url, seq: Count) -> Key {
    rows::key("index-preview", &[user.as_str(), url.as_str(), &number(seq)])
}

/// A number whose text sorts as the number does.
fn number(count: Count) -> String {
    format!("{:016x}", count.0)
}
