//! The rows of moves.
//!
//! | row | says |
//! |---|---|
//! | `departure/{user}` | that a user is being moved away, or where they went: at the old cluster |
//! | `departing/{user}` | that something of it is still to be done |
//! | `arrival/{user}/{incarnation}` | what has been decided about a person's coming: at the new cluster, for ever |
//! | `arriving/{user}/{part}` | what has come and is not committed |

use fusion_machines::moving::{Destination, Origin};
use fusion_protocol::moving::Carried;
use fusion_protocol::{Address, Incarnation, Problem, Uuid};
use fusion_runtime::store::{Batch, Key};
use serde::{Deserialize, Serialize};

use crate::Cluster;
use crate::rows::{self, Loaded};

/// How many users' departures are looked at together at the start.
const PAGE: usize = 256;

/// A user on the way out, or gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Departure {
    pub(super) incarnation: Incarnation,
    #[serde(flatten)]
    pub(super) origin: Origin,
}

/// A note that somebody's departure is not worked off.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Open {
    user: Address,
}

/// A part of what comes with a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Staged {
    pub(super) attempt: Uuid,
    pub(super) rows: Vec<Carried>,
}

pub(super) async fn departure(cluster: &Cluster, user: &Address) -> Result<Loaded<Departure>, Problem> {
    rows::load(&*cluster.host.store, rows::key("departure", &[user.as_str()])).await
}

/// Notes that a departure is to be worked off.
pub(super) fn open(batch: &mut Batch, user: &Address) {
    rows::put(batch, open_key(user), &Open { user: user.clone() });
}

/// Nothing is left to be done for it.
pub(super) fn close(batch: &mut Batch, user: &Address) {
    batch.delete(open_key(user));
}

pub(super) async fn is_open(cluster: &Cluster, user: &Address) -> Result<bool, Problem> {
    Ok(rows::load::<Open>(&*cluster.host.store, open_key(user)).await?.value.is_some())
}

/// Everybody whose departure is to be worked off.
pub(super) async fn all_open(cluster: &Cluster) -> Result<Vec<Address>, Problem> {
    let prefix = rows::key("departing", &[]);
    let (mut from, mut users) = (prefix.clone(), Vec::new());
    loop {
        let page: Vec<Loaded<Open>> =
            rows::list_range(&*cluster.host.store, &from, &prefix.end(), PAGE).await?;
        users.extend(page.iter().filter_map(|row| Some(row.value.as_ref()?.user.clone())));
        match page.last() {
            Some(last) if page.len() == PAGE => from = last.key().end(),
            _ => return Ok(users),
        }
    }
}

pub(super) async fn destination(
    cluster: &Cluster,
    user: &Address,
    incarnation: Incarnation,
) -> Result<Loaded<Destination>, Problem> {
    let key = rows::key("arrival", &[user.as_str(), &incarnation.0.to_string()]);
    rows::load(&*cluster.host.store, key).await
}

/// Keeps a part until the commit; a later attempt's takes its place.
pub(super) fn stage(batch: &mut Batch, user: &Address, part: u32, staged: &Staged) {
    rows::put(batch, part_key(user, part), staged);
}

/// The parts `0..count` as they came.
pub(super) async fn staged(
    cluster: &Cluster,
    user: &Address,
    count: u32,
) -> Result<Vec<Loaded<Staged>>, Problem> {
    rows::load_all(&*cluster.host.store, (0..count).map(|part| part_key(user, part)).collect()).await
}

/// Forgets all parts, of whatever attempt.
pub(super) async fn unstage(cluster: &Cluster, batch: &mut Batch, user: &Address) -> Result<(), Problem> {
    let prefix = rows::key("arriving", &[user.as_str()]);
    let found = cluster.host.store.scan(&prefix, &prefix.end(), usize::from(u16::MAX)).await;
    for (key, _) in found.map_err(rows::refused)? {
        batch.delete(key);
    }
    Ok(())
}

fn open_key(user: &Address) -> Key {
    rows::key("departing", &[user.as_str()])
}

fn part_key(user: &Address, part: u32) -> Key {
    rows::key("arriving", &[user.as_str(), &format!("{part:08x}")])
}
