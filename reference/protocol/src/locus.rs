//! Loci: the persistent call objects (LOC).
//!
//! | call | answer |
//! |---|---|
//! | `GET {locus}?since={rev}` | [`Locus`], or [`LocusDelta`] with `since` (LOC-008) |
//! | `POST {locus}/participants` [`Join`] | 200 [`Joined`]; 409 `call-over` (LOC-003); 307 after a lost race |
//! | `PUT {locus}/participants/{id}` [`SetState`] | 200 [`Locus`] |
//! | `POST {locus}/participants/{id}/lease` [`Lease`] | 204; 409 `call-over` (LOC-007) |
//! | `GET https://{c}-locus.{provider}/v1/users/{me}/loci` | [`ActiveLoci`] |
//! | `POST https://{c}-locus.{provider}/v1/loci` [`ActiveBatch`] | 200 [`crate::index::BatchAnswer`] (clusters) |
//!
//! `{locus}` is `{conversation}/locus`.

use serde::{Deserialize, Serialize};

use crate::media::Leg;
use crate::mercury::EventType;
use crate::{Address, Count, Incarnation, Url, Uuid};

/// How long a call rings, in seconds (LOC-006).
pub const RING_SECONDS: u64 = 45;
/// How often a joined device renews its lease, in seconds (LOC-007).
pub const KEEP_ALIVE_SECONDS: u64 = 15;
/// After how many seconds without renewal a device has left (LOC-007).
pub const LEASE_SECONDS: u64 = 45;
/// How often the home renews the entries of the active lists, in seconds (LOC-007).
pub const ACTIVE_RENEW_SECONDS: u64 = 60;
/// After how many seconds without renewal an entry of the active list is hidden (LOC-007).
pub const ACTIVE_HIDE_SECONDS: u64 = 180;

/// The state of a locus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LocusState {
    /// No call.
    Inactive,
    /// A call begins: somebody joined, the others ring.
    Initializing,
    /// At least two are joined.
    Active,
    /// The call ends; its entries are being taken back.
    Terminating,
}

/// The state of a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ParticipantState {
    /// Not in this call.
    Idle,
    /// Their devices ring (the source's *alerting*).
    Notified,
    /// In the call.
    Joined,
    /// Was in the call.
    Left,
    /// Did not want to.
    Declined,
}

/// Why a participant is in a final state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// By their own doing.
    Hangup,
    /// Nobody answered in time (LOC-006).
    Missed,
    /// The device's lease ran out (LOC-007).
    Lease,
    /// Nobody else was left.
    Alone,
    /// No longer in the conversation.
    Removed,
}

/// A locus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Locus {
    /// Its only place; never changes (LOC-001).
    pub url: Url,
    /// The conversation it belongs to.
    pub conversation_url: Url,
    /// Its state.
    pub state: LocusState,
    /// Goes up by one with every call.
    pub instance: Count,
    /// Goes up with every change; never restarts (LOC-008).
    pub rev: Count,
    /// Everybody in the conversation.
    pub participants: Vec<LocusParticipant>,
    /// The calls that go on in this one (LOC-004).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<Replaces>,
}

/// A call of a lost conversation that goes on at the winner (LOC-004).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replaces {
    /// The loser's locus.
    pub locus_url: Url,
    /// Its call.
    pub instance: Count,
    /// Who was in it; told to the winner's home only, not to readers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<MovedParticipant>,
}

/// Somebody whose call goes on at the winner's locus (LOC-004).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MovedParticipant {
    /// Who.
    pub user: Address,
    /// Their devices in the call.
    pub devices: Vec<String>,
}

/// Somebody's part in a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocusParticipant {
    /// Their id within this locus, for ever.
    pub id: Uuid,
    /// Who.
    pub user: Address,
    /// Their state.
    pub state: ParticipantState,
    /// Why, when the state is final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Their devices that are in the call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
}

/// What a reader with `since` gets (LOC-008).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum LocusDelta {
    /// Nothing has changed since.
    Unchanged {
        /// The current revision.
        rev: Count,
    },
    /// What changed, or everything.
    Whole(Box<Locus>),
}

/// Joins, and thereby calls the others (LOC-002).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Join {
    /// The instance that the caller last saw: (INACTIVE, n) starts n+1, an active n+1 is joined,
    /// anything else is over (LOC-003).
    pub expect: Count,
    /// The device that joins: its mercury id, or any id of its own.
    pub device: String,
}

/// Joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Joined {
    /// The locus after the join.
    pub locus: Locus,
    /// The participant's id within the locus.
    pub participant: Uuid,
    /// Where the device sends its media; absent when the cluster has no relay up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leg: Option<Leg>,
    /// How often the device must renew its lease, in seconds.
    pub keep_alive_seconds: u64,
}

/// Changes the own state: `JOINED` only by [`Join`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetState {
    /// `DECLINED` or `LEFT`.
    pub state: ParticipantState,
    /// The call that is meant.
    pub instance: Count,
    /// The device that leaves; absent: all of the user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// Renews a device's lease (LOC-007).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The call that is meant.
    pub instance: Count,
    /// The device.
    pub device: String,
}

/// The calls a user could be in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveLoci {
    /// Those that go on now.
    pub loci: Vec<ActiveLocus>,
}

/// An entry of the active list: a register ordered by (instance, rev), kept after the end (LOC-007).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveLocus {
    /// The locus.
    pub locus_url: Url,
    /// Its conversation.
    pub conversation_url: Url,
    /// The call.
    pub instance: Count,
    /// The revision that this entry knows.
    pub rev: Count,
    /// The call's state.
    pub state: LocusState,
    /// The user's own part in it.
    pub participant_state: ParticipantState,
}

/// Rows of the outbox of one cluster for one other cluster (SEC-004).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveBatch {
    /// At most [`crate::limits::BATCH_MAX`].
    pub rows: Vec<ActiveWrite>,
}

/// Writes one user's entry of one locus, and wakes the user's devices after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveWrite {
    /// The outbox row's id, and the event's.
    pub id: Uuid,
    /// Whose list.
    pub user: Address,
    /// Who that is, as resolved.
    pub incarnation: Incarnation,
    /// The epoch of the user's record as resolved (MAP-007).
    pub epoch: Count,
    /// The entry; its locus must live in the calling cluster (SEC-005).
    pub entry: ActiveLocus,
    /// What the devices are woken with; `None`: not at all (a renewal).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventType>,
}
