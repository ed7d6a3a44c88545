//! The rows of conversations.
//!
//! | row | says |
//! |---|---|
//! | `conversation/{id}` | the conversation without its activities |
//! | `activity/{id}/{seq}` | an activity |
//! | `activity-id/{id}/{activity}` | where an activity is: a repeated post is found by it |
//! | `pair/{pair}` | the one 1:1 of a pair that lives here, superseded or not |
//! | `slot/{user}/{other}/{pair}` | which conversation is the pair's, for a user served here |
//! | `create/{user}/{key}` | what a creation with this `Idempotency-Key` made |

use fusion_machines::conversation::Conversation;
use fusion_machines::pair::{Contender, Slot};
use fusion_protocol::conversation::{Activity, ActivityId, PairKey};
use fusion_protocol::{Address, Code, Count, Problem, Url, UserRef, Uuid};
use fusion_runtime::store::{Batch, Key};
use serde::{Deserialize, Serialize};

use crate::Cluster;
use crate::rows::{self, Loaded};

/// The rows that go with a user who moves (MAP-007), each below the user: objects stay where they are.
pub(crate) const CARRIED: &[&str] = &["slot"];

/// How many rows are read at once.
const PAGE: usize = 256;

/// Which conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IdRow {
    pub(super) conversation: Uuid,
}

/// Which place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SeqRow {
    pub(super) seq: Count,
}

/// A slot, and when it was first set; for display.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SlotRow {
    pub(super) slot: Slot,
    pub(super) since: String,
}

/// The two of a pair, as seen from one of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'a> {
    pub(super) user: &'a Address,
    pub(super) other: &'a Address,
    pub(super) key: &'a PairKey,
}

pub(super) async fn conversation(cluster: &Cluster, id: Uuid) -> Result<Loaded<Conversation>, Problem> {
    rows::load(&*cluster.host.store, rows::key("conversation", &[&id.to_string()])).await
}

/// A conversation that exists, with the row that it was loaded from.
pub(super) async fn existing(
    cluster: &Cluster,
    id: Uuid,
) -> Result<(Loaded<Conversation>, Conversation), Problem> {
    let row = conversation(cluster, id).await?;
    let conversation = row.value.clone().ok_or(Code::NotFound)?;
    Ok((row, conversation))
}

/// The next conversations of this cluster after one, in no order that means anything, at most `limit`.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn page(
    cluster: &Cluster,
    after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<(Uuid, Conversation)>, Problem> {
    let all = rows::key("conversation", &[]);
    let from = after.map_or(all.clone(), |id| rows::key("conversation", &[&id.to_string()]).end());
    let found = rows::list_range(&*cluster.host.store, &from, &all.end(), limit).await?;
    let id = |row: &Loaded<Conversation>| std::str::from_utf8(row.key().parts().get(1)?).ok()?.parse().ok();
    Ok(found.into_iter().filter_map(|row| Some((id(&row)?, row.value?))).collect())
}

pub(super) fn put_new(batch: &mut Batch, id: Uuid, conversation: &Conversation) {
    // The id is new, so nothing can be there.
    rows::put(batch, rows::key("conversation", &[&id.to_string()]), conversation);
}

pub(super) async fn of_pair(cluster: &Cluster, pair: &PairKey) -> Result<Loaded<IdRow>, Problem> {
    rows::load(&*cluster.host.store, rows::key("pair", &[&pair.to_string()])).await
}

pub(super) async fn slot(cluster: &Cluster, pair: Pair<'_>) -> Result<Loaded<SlotRow>, Problem> {
    let (user, other, key) = (pair.user.as_str(), pair.other.as_str(), pair.key.to_string());
    rows::load(&*cluster.host.store, rows::key("slot", &[user, other, &key])).await
}

/// Some slot of the user for whoever is or was at an address: for when it cannot be resolved.
pub(super) async fn any_slot(
    cluster: &Cluster,
    user: &Address,
    other: &Address,
) -> Result<Option<SlotRow>, Problem> {
    let prefix = rows::key("slot", &[user.as_str(), other.as_str()]);
    let found = rows::list(&*cluster.host.store, &prefix, 2).await?;
    // Of several persons at one address nobody here can say which is meant.
    let mut found: Vec<SlotRow> = found.into_iter().filter_map(|row| row.value).collect();
    Ok(if found.len() == 1 { found.pop() } else { None })
}

/// The slots of a user; as many as one who tests a faulty rule has (CNV-005).
pub(super) async fn slots(cluster: &Cluster, user: &Address) -> Result<Vec<Loaded<SlotRow>>, Problem> {
    rows::list(&*cluster.host.store, &rows::key("slot", &[user.as_str()]), 1_000).await
}

/// Settles the slots of a user in which a loser is still merging (CNV-003): for when the loser's home tells
/// so from elsewhere. Answers whether there was one.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn settle_slots(
    cluster: &Cluster,
    batch: &mut Batch,
    user: &Address,
    loser: &Url,
    winner: &Contender,
) -> Result<bool, Problem> {
    let prefix = rows::key("slot", &[user.as_str()]);
    let (mut from, mut settled) = (prefix.clone(), false);
    loop {
        let page: Vec<Loaded<SlotRow>> =
            rows::list_range(&*cluster.host.store, &from, &prefix.end(), PAGE).await?;
        for row in &page {
            let Some(SlotRow { slot, since }) = &row.value else { continue };
            let next = slot.settled(loser, winner);
            if next != *slot {
                row.save(batch, &SlotRow { slot: next, since: since.clone() });
                settled = true;
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => from = last.key().end(),
            _ => return Ok(settled),
        }
    }
}

pub(super) async fn created(cluster: &Cluster, user: &UserRef, key: &str) -> Result<Loaded<IdRow>, Problem> {
    let user = format!("{}#{}", user.user.as_str(), user.incarnation.0);
    rows::load(&*cluster.host.store, rows::key("create", &[&user, key])).await
}

/// Where activities are, in the order of `activities`.
pub(super) async fn places(
    cluster: &Cluster,
    id: Uuid,
    activities: impl IntoIterator<Item = ActivityId>,
) -> Result<Vec<Loaded<SeqRow>>, Problem> {
    let keys = activities.into_iter().map(|activity| place_key(id, activity)).collect();
    rows::load_all(&*cluster.host.store, keys).await
}

pub(super) async fn activity(cluster: &Cluster, id: Uuid, seq: Count) -> Result<Loaded<Activity>, Problem> {
    rows::load(&*cluster.host.store, activity_key(id, seq)).await
}

/// The activity with this identity, if it is here.
pub(super) async fn find(
    cluster: &Cluster,
    id: Uuid,
    activity: ActivityId,
) -> Result<Option<Activity>, Problem> {
    let place = places(cluster, id, [activity]).await?.pop().and_then(|place| place.value);
    match place {
        Some(place) => Ok(self::activity(cluster, id, place.seq).await?.value),
        None => Ok(None),
    }
}

/// At most `limit` activities after a `seq`, in order.
pub(super) async fn activities(
    cluster: &Cluster,
    id: Uuid,
    after: Count,
    limit: usize,
) -> Result<Vec<Activity>, Problem> {
    let from = activity_key(id, Count(after.0.saturating_add(1)));
    let until = rows::key("activity", &[&id.to_string()]).end();
    let rows = rows::list_range(&*cluster.host.store, &from, &until, limit).await?;
    Ok(rows.into_iter().filter_map(|row| row.value).collect())
}

/// Adds an activity at the end: the conversation's own row guards its place.
pub(super) fn append(batch: &mut Batch, id: Uuid, activity: &Activity) {
    rows::put(batch, activity_key(id, activity.seq), activity);
    rows::put(batch, place_key(id, activity.id), &SeqRow { seq: activity.seq });
}

/// Writes an activity again whose content was taken back.
pub(super) fn rewrite(batch: &mut Batch, id: Uuid, activity: &Activity) {
    rows::put(batch, activity_key(id, activity.seq), activity);
}

fn activity_key(id: Uuid, seq: Count) -> Key {
    rows::key("activity", &[&id.to_string(), &format!("{:016x}", seq.0)])
}

fn place_key(id: Uuid, activity: ActivityId) -> Key {
    rows::key("activity-id", &[&id.to_string(), &activity.to_string()])
}
