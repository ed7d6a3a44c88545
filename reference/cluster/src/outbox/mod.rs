//! The transactional outbox: effects on other clusters leave with the state they announce (RDV-005).
//!
//! [`post`] adds a row to the batch that changes the state; after the commit [`wake`] has it sent, in
//! order for each (stream, user), until it is answered. `dispatch` decides what is due, `send` carries
//! it, `store` keeps the rows.
//!
//! Not here: order, routes and back-off (`fusion_machines::outbox`); what claims and imports do to a
//! conversation (`conversation`).

mod dispatch;
mod reach;
mod send;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fusion_machines::outbox::{Addressee, Channel, Lane, Outbox as Machine, Row, RowId};
use fusion_protocol::conversation::{Activity, Kind};
use fusion_protocol::index::{IndexWrite, Membership};
use fusion_protocol::locus::ActiveLocus;
use fusion_protocol::map::UserRecord;
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, ClusterName, Count, Incarnation, Pii, Problem, Url, Uuid};
use fusion_runtime::store::Batch;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub(crate) use reach::{is_reachable, look};
pub(crate) use send::Fate;

use crate::{Cluster, StartError, conversation, index};

/// The outbox as this instance works on it.
#[derive(Default)]
pub(crate) struct Outbox {
    /// Which life of the cluster this is: rows of later lives come after those of earlier ones.
    life: AtomicU64,
    next: AtomicU64,
    due: Notify,
    state: Mutex<State>,
}

/// Something to be made known, to be resolved, sent and retried until answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "effect")]
pub(crate) enum Effect {
    /// The user's entry of the active list is to say this (LOC-007).
    #[serde(rename_all = "camelCase")]
    Active {
        /// Whose list, wherever they are.
        user: Address,
        /// What it is to say.
        entry: Box<ActiveLocus>,
        /// What the devices are woken with.
        event: Option<EventType>,
    },
    /// The user's index is to say this of a conversation of this cluster (RDV-002).
    #[serde(rename_all = "camelCase")]
    Index {
        /// Whose index, wherever they are.
        user: Address,
        /// Who that is; `None`: whoever it is when it is sent.
        incarnation: Option<Incarnation>,
        /// What it is to say.
        entry: Box<Announcement>,
    },
    /// The user's pair with the creator of a conversation of this cluster is to be that conversation
    /// (CNV-003).
    #[serde(rename_all = "camelCase")]
    Claim {
        /// The one who is asked, wherever they are.
        user: Address,
        /// The conversation.
        conversation: Uuid,
    },
    /// A loser's activities are to be in the winner (CNV-003).
    #[serde(rename_all = "camelCase")]
    Import {
        /// The winner's home.
        to: ClusterName,
        /// The loser, in this cluster.
        conversation: Uuid,
    },
}

/// What an index is to say: an index write without what is known only when it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Announcement {
    pub(crate) conversation: Uuid,
    pub(crate) kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) title: Option<Pii<String>>,
    pub(crate) membership: Membership,
    pub(crate) membership_seq: Count,
    pub(crate) last_seq: Count,
    pub(crate) activities: Vec<Activity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) superseded_by: Option<Url>,
    pub(crate) event: Option<EventType>,
}

impl Announcement {
    /// The row for a user as resolved.
    pub(crate) fn write(
        &self,
        cluster: &Cluster,
        id: Uuid,
        user: &Address,
        record: &UserRecord,
    ) -> IndexWrite {
        let url = conversation::url(cluster, self.conversation);
        IndexWrite {
            id,
            user: user.clone(),
            incarnation: record.incarnation,
            epoch: record.version,
            locus_url: index::locus_url(&url),
            url,
            kind: self.kind,
            title: self.title.clone(),
            membership: self.membership,
            membership_seq: self.membership_seq,
            last_seq: self.last_seq,
            activities: self.activities.clone(),
            superseded_by: self.superseded_by.clone(),
            event: self.event,
        }
    }
}

#[derive(Default)]
struct State {
    machine: Machine<Arc<store::OutboxRow>>,
    /// Rows that were posted, and are in the store if their commit was applied.
    posted: BTreeMap<RowId, Posted>,
    /// Some of them have been committed, as their poster says.
    committed: bool,
    /// Lanes that lost their claim: what still comes for them is pointless (CNV-003).
    over: BTreeSet<Lane>,
    /// What is being sent.
    senders: BTreeSet<(ClusterName, Channel)>,
    /// Who was not where they were thought to be.
    moved: BTreeSet<Address>,
    /// Clusters that were looked at because somebody asked: when, and whether they were there.
    looked: BTreeMap<ClusterName, reach::Look>,
}

/// A row that is known to be in the store.
struct Arriving {
    id: RowId,
    octets: usize,
    row: Arc<store::OutboxRow>,
}

struct Posted {
    row: Arc<store::OutboxRow>,
    octets: usize,
    at: Duration,
}

/// Starts sending, with whatever an earlier life left.
pub(crate) async fn start(cluster: &Cluster) -> Result<(), StartError> {
    let outbox = &cluster.outbox;
    outbox.life.store(store::begin_life(cluster).await?, Ordering::Relaxed);
    let mut pointless = Batch::default();
    for (id, octets, row) in store::left(cluster).await? {
        match row.is_pointless(cluster).await {
            true => store::delete(&mut pointless, id),
            false => drop(outbox.add(Arriving { id, octets, row: Arc::new(row) })),
        }
    }
    if !pointless.is_empty() {
        cluster.host.store.commit(pointless).await?;
    }
    cluster.host.tasks.spawn(dispatch::run(cluster.clone()));
    Ok(())
}

/// Adds a row to `batch`. Rows with the same `stream` (an object's URL) for the same user leave in order.
pub(crate) fn post(
    cluster: &Cluster,
    batch: &mut Batch,
    stream: &str,
    effect: Effect,
) -> Result<(), Problem> {
    let outbox = &cluster.outbox;
    let number = outbox.next.fetch_add(1, Ordering::Relaxed);
    let id = RowId(u128::from(outbox.life.load(Ordering::Relaxed)) << 64 | u128::from(number));
    let row = store::OutboxRow { id: cluster.host.entropy.uuid(), stream: stream.to_owned(), effect };
    let octets = store::put(batch, id, &row);
    let posted = Posted { row: Arc::new(row), octets, at: cluster.host.clock.now() };
    let first = {
        let mut state = outbox.state();
        state.posted.insert(id, posted);
        state.posted.len() == 1
    };
    if first {
        // Whoever posted may be cut off between the commit and `wake`: then the dispatcher looks by itself.
        outbox.due.notify_one();
    }
    Ok(())
}

/// Call after the commit: there is something to send.
pub(crate) fn wake(cluster: &Cluster) {
    cluster.outbox.state().committed = true;
    cluster.outbox.due.notify_one();
}

/// `peer` is there: what waits for it is due at once.
pub(crate) fn contact(cluster: &Cluster, peer: &ClusterName) {
    let (was_missed, is_news) = {
        let mut state = cluster.outbox.state();
        let was_missed = state.looked.get_mut(peer).is_some_and(reach::Look::met);
        (was_missed, state.machine.contact(peer))
    };
    if is_news {
        wake(cluster);
    }
    if was_missed || is_news {
        index::reconnected(cluster, peer);
    }
}

impl Outbox {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a committed row; answers whether it is to be sent.
    fn add(&self, arriving: Arriving) -> bool {
        let Arriving { id, octets, row } = arriving;
        let lane = Lane { stream: row.stream.clone(), to: row.effect.addressee() };
        let mut state = self.state();
        if state.over.contains(&lane) {
            return false;
        }
        state.machine.add(lane, Row { id, channel: row.effect.channel(), octets, what: row });
        true
    }
}

impl store::OutboxRow {
    /// Whether a lost race has left it: nobody else is to hear of a loser (CNV-003).
    async fn is_pointless(&self, cluster: &Cluster) -> bool {
        match &self.effect {
            Effect::Index { entry, .. } if entry.kind == Kind::OneToOne && entry.superseded_by.is_none() => {
                // When nobody can say, it is sent: an index entry of a loser leads to the winner.
                conversation::is_lost(cluster, entry.conversation).await.unwrap_or(false)
            }
            _ => false,
        }
    }
}

impl Effect {
    fn addressee(&self) -> Addressee {
        match self {
            Self::Active { user, .. } | Self::Index { user, .. } | Self::Claim { user, .. } => {
                Addressee::User(user.clone())
            }
            Self::Import { to, .. } => Addressee::Cluster(to.clone()),
        }
    }

    fn channel(&self) -> Channel {
        match self {
            Self::Active { .. } => Channel::Loci,
            Self::Index { .. } => Channel::Index,
            Self::Claim { .. } => Channel::Claims,
            Self::Import { .. } => Channel::Imports,
        }
    }
}
