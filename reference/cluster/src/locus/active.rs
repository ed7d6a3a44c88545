//! The active lists of the users served here: which calls they could be in (LOC-002, LOC-007).
//!
//! An entry is a register ordered by (instance, rev). It is written by the locus's home, wherever that
//! is, and kept after the call's end, so that a late word of the call cannot bring it back.

use std::time::Duration;

use fusion_machines::locus::register_takes;
use fusion_protocol::index::RowResult;
use fusion_protocol::locus::{ACTIVE_HIDE_SECONDS, ActiveLocus, ActiveWrite, LocusState};
use fusion_protocol::mercury::Notification;
use fusion_protocol::{Address, ClusterName, Code, Incarnation, Problem, UserRef, Uuid};
use fusion_runtime::Timestamp;
use fusion_runtime::store::{Batch, Key};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::rows::{self, Committed, Loaded};
use crate::users::{self, UserRow};
use crate::{Cluster, mercury};

const HIDE: Duration = Duration::from_secs(ACTIVE_HIDE_SECONDS);
/// How many calls one user can be shown.
const LIST_MAX: usize = 1_000;
/// How many entries are erased in one commit.
const ERASE_PAGE: usize = 500;

/// The rows that go with a user who moves (MAP-007), each below the user.
pub(crate) const CARRIED: &[&str] = &["active", "active-now"];

/// An entry as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    incarnation: Incarnation,
    entry: ActiveLocus,
    /// When the home last said so, by this cluster's clock.
    renewed: Timestamp,
    /// The last row that woke the user's devices: one that comes again, its answer having been lost, is
    /// not news, even when they have acknowledged it since (MER-005).
    #[serde(default)]
    told: Option<Uuid>,
}

/// Writes a local user's entry of the active list, and wakes the devices: for local loci and for
/// `POST /v1/loci` alike. An entry that is older than what is known changes nothing and wakes nobody.
pub(crate) async fn write_active(cluster: &Cluster, write: &ActiveWrite) -> Result<RowResult, Problem> {
    let store = &*cluster.host.store;
    let _held = cluster.locks.hold(format!("active/{}", write.user.as_str())).await;
    loop {
        let user = match users::served_here(cluster, &write.user).await {
            // Nobody else's row waits for a user who is being moved (MAP-007).
            Err(problem) if problem.code == Code::Fenced => return Ok(refused(write, Code::Fenced, vec![])),
            user => user?,
        };
        if let Some(refused) = refusal(cluster, user.value.as_ref(), write).await {
            return Ok(refused);
        }
        let row: Loaded<Entry> = rows::load(store, key(&write.user, &write.entry)).await?;
        let known = row.value.as_ref().filter(|known| known.incarnation == write.incarnation);
        let repeated = known.is_some_and(|known| known.told == Some(write.id));
        if repeated || !register_takes(known.map(|known| &known.entry), &write.entry) {
            return Ok(written(write));
        }
        let mut batch = Batch::default();
        user.unchanged(&mut batch);
        put(cluster, &mut batch, &row, write);
        let wake = match notification(write) {
            Some(notification) => mercury::enqueue(cluster, &mut batch, &write.user, &notification).await?,
            None => mercury::Wake::default(),
        };
        if rows::commit(store, batch).await? == Committed::Yes {
            wake.now(cluster);
            return Ok(written(write));
        }
    }
}

/// The calls that go on now, for a user served here.
pub(super) async fn list(cluster: &Cluster, user: &UserRef) -> Result<Vec<ActiveLocus>, Problem> {
    let now = cluster.host.clock.wall();
    let prefix = rows::key("active-now", &[user.user.as_str()]);
    let rows: Vec<Loaded<Entry>> = rows::list(&*cluster.host.store, &prefix, LIST_MAX).await?;
    let entries = rows.into_iter().filter_map(|row| row.value);
    Ok(entries.filter(|entry| entry.is_shown(user.incarnation, now)).map(|entry| entry.entry).collect())
}

/// Removes the lists of a user who is deleted (PRO-005).
pub(crate) async fn erase(cluster: &Cluster, user: &Address) -> Result<(), Problem> {
    let store = &*cluster.host.store;
    for concept in ["active", "active-now"] {
        let prefix = rows::key(concept, &[user.as_str()]);
        loop {
            let page: Vec<Loaded<Entry>> = rows::list(store, &prefix, ERASE_PAGE).await?;
            if page.is_empty() {
                break;
            }
            let mut batch = Batch::default();
            page.iter().for_each(|row| row.remove(&mut batch));
            // A conflict is somebody's late word: the next round finds it.
            let _ = rows::commit(store, batch).await?;
        }
    }
    Ok(())
}

impl Entry {
    fn is_shown(&self, incarnation: Incarnation, now: Timestamp) -> bool {
        let age = Duration::from_micros(now.0.saturating_sub(self.renewed.0));
        self.incarnation == incarnation && self.entry.state != LocusState::Inactive && age <= HIDE
    }
}

/// Writes the register, and the list of those that go on now.
fn put(cluster: &Cluster, batch: &mut Batch, row: &Loaded<Entry>, write: &ActiveWrite) {
    let renewed = cluster.host.clock.wall();
    let before = row.value.as_ref().and_then(|entry| entry.told);
    let told = write.event.map_or(before, |_| Some(write.id));
    let entry = Entry { incarnation: write.incarnation, entry: write.entry.clone(), renewed, told };
    let shown = rows::key("active-now", &[write.user.as_str(), write.entry.locus_url.as_str()]);
    if write.entry.state == LocusState::Inactive {
        batch.delete(shown);
    } else {
        rows::put(batch, shown, &entry);
    }
    row.save(batch, &entry);
}

fn notification(write: &ActiveWrite) -> Option<Notification> {
    let entry = &write.entry;
    Some(Notification {
        id: write.id,
        event_type: write.event?,
        resource: entry.locus_url.clone(),
        incarnation: Some(write.incarnation),
        data: json!({
            "conversationUrl": entry.conversation_url,
            "instance": entry.instance,
            "rev": entry.rev,
            "state": entry.state,
            "participantState": entry.participant_state,
        }),
    })
}

/// Why the entry is not written, if it is not: the user is served elsewhere (MAP-005), has moved since
/// (MAP-007), or is another person now (NAM-004).
async fn refusal(cluster: &Cluster, user: Option<&UserRow>, write: &ActiveWrite) -> Option<RowResult> {
    let Some(user) = user else {
        return Some(match users::resolve(cluster, &write.user).await {
            Ok(found) if found.record.cluster != *cluster.name() => {
                refused(write, Code::WrongCluster, vec![found.record.cluster])
            }
            Err(problem) if problem.code == Code::UserUnknown => refused(write, Code::UserUnknown, vec![]),
            _ => refused(write, Code::WrongCluster, vec![]),
        });
    };
    if user.record.version > write.epoch {
        return Some(refused(write, Code::WrongCluster, vec![cluster.name().clone()]));
    }
    let gone = user.record.incarnation != write.incarnation;
    gone.then(|| refused(write, Code::IncarnationGone, vec![]))
}

fn written(write: &ActiveWrite) -> RowResult {
    RowResult { id: write.id, code: None, clusters: vec![] }
}

/// What becomes of a row that is not written.
pub(super) fn refused(write: &ActiveWrite, code: Code, clusters: Vec<ClusterName>) -> RowResult {
    RowResult { id: write.id, code: Some(code), clusters }
}

fn key(user: &Address, entry: &ActiveLocus) -> Key {
    rows::key("active", &[user.as_str(), entry.locus_url.as_str()])
}
