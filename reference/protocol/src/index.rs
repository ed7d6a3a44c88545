//! The index: a user's pointers to all conversations, in the user's own cluster (RDV).
//!
//! | call | answer |
//! |---|---|
//! | `GET https://{c}-conv.{provider}/v1/users/{me}/index?after={cursor}&atLeast={cursor}` | [`IndexPage`]; waits until the index has reached `atLeast` (RDV-002) |
//! | `PATCH https://{c}-conv.{provider}/v1/users/{me}/index` [`Hide`] | 204 |
//! | `POST https://{c}-conv.{provider}/v1/index` [`IndexBatch`] | 200 [`BatchAnswer`] (clusters) |
//! | `POST https://{c}-conv.{provider}/v1/index/digests` [`IndexDigest`] | 200 [`DigestAnswer`] (clusters; RDV-007) |

use serde::{Deserialize, Serialize};

use crate::conversation::{Activity, Kind};
use crate::mercury::EventType;
use crate::{Address, ClusterName, Code, Count, Incarnation, Pii, Url, Uuid};

/// A pointer to a conversation: never a second truth (RDV-004).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexEntry {
    /// The conversation.
    pub url: Url,
    /// Its locus.
    pub locus_url: Url,
    /// Which kind.
    pub kind: Kind,
    /// The cluster it lives in.
    pub home: ClusterName,
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<Pii<String>>,
    /// Whether the user is in it now.
    pub membership: Membership,
    /// The version of the membership that this entry knows.
    pub membership_seq: Count,
    /// The `seq` of the last activity that this entry knows.
    pub last_seq: Count,
    /// The last activities, oldest first, at most [`crate::limits::PREVIEW_MAX`].
    pub preview: Vec<Activity>,
    /// Whether the user hides it (CNV-002).
    #[serde(default)]
    pub hidden: bool,
    /// The winner, when this conversation lost the race.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<Url>,
    /// The place of this entry in the user's index: goes up with every change.
    pub cursor: Count,
    /// Whether the home answered when it was last tried (RDV-006).
    #[serde(default = "yes")]
    pub reachable: bool,
}

/// Whether a user is in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Membership {
    /// In it.
    Member,
    /// Was in it.
    Left,
}

/// Entries that changed after a cursor, in order of cursor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexPage {
    /// The entries.
    pub entries: Vec<IndexEntry>,
    /// The `after` with which nothing is missed.
    pub cursor: Count,
    /// Whether more follows at once.
    pub more: bool,
}

/// Hides a conversation from the user's own list, or shows it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hide {
    /// The conversation.
    pub url: Url,
    /// Whether it is hidden.
    pub hidden: bool,
}

/// Rows of the outbox of one cluster for one other cluster (SEC-004).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexBatch {
    /// At most [`crate::limits::BATCH_MAX`].
    pub rows: Vec<IndexWrite>,
}

/// Writes one user's index entry of one conversation, and wakes the user's devices after (RDV-002).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexWrite {
    /// The outbox row's id, and the event's: a repeated one changes nothing.
    pub id: Uuid,
    /// Whose index.
    pub user: Address,
    /// Who that is, as resolved.
    pub incarnation: Incarnation,
    /// The epoch of the user's record as resolved (MAP-007).
    pub epoch: Count,
    /// The conversation; must live in the calling cluster (SEC-005).
    pub url: Url,
    /// Its locus.
    pub locus_url: Url,
    /// Which kind.
    pub kind: Kind,
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<Pii<String>>,
    /// Whether the user is in it.
    pub membership: Membership,
    /// The version of the membership.
    pub membership_seq: Count,
    /// The `seq` of the last activity.
    pub last_seq: Count,
    /// The activities to add to the preview.
    pub activities: Vec<Activity>,
    /// The winner, when the conversation lost the race.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<Url>,
    /// What the devices are woken with; `None`: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventType>,
}

/// What became of each row of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchAnswer {
    /// One for each row, in order.
    pub results: Vec<RowResult>,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RowResult {
    /// The row.
    pub id: Uuid,
    /// Absent: it is written. Otherwise why not: 421, 410 and so on by its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// With `wrong-cluster`: whom to ask.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<ClusterName>,
}

/// What a home expects in the indexes of another cluster's users, about conversations of its own (RDV-007).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexDigest {
    /// At most [`crate::limits::BATCH_MAX`].
    pub rows: Vec<DigestRow>,
}

/// One user's entry of one conversation, as far as a home expects it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DigestRow {
    /// Whose index.
    pub user: Address,
    /// Who that is, as the home knows; somebody else has no such entry.
    pub incarnation: Incarnation,
    /// The conversation; must live in the calling cluster (SEC-005).
    pub url: Url,
    /// The version of the membership.
    pub membership_seq: Count,
    /// The `seq` of the last activity.
    pub last_seq: Count,
}

/// What the receiver of a digest asks for: the home announces it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DigestAnswer {
    /// The entries that miss something.
    pub differences: Vec<Difference>,
}

/// An entry that is not as the home expects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The place of its row in the digest, from 0.
    pub row: u32,
    /// The `seq` of the last activity that the entry knows; absent: there is no entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<Count>,
}

fn yes() -> bool {
    true
}
