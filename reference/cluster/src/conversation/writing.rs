//! One commit of a conversation: its own rows, the indexes of participants served here, and outbox rows
//! for everybody else.

use fusion_machines::conversation::{Announce, Conversation, Members};
use fusion_machines::index::Shown;
use fusion_machines::pair::{Hold, Slot};
use fusion_protocol::conversation::{Activity, ConversationState};
use fusion_protocol::{Address, Problem, Url, Uuid};
use fusion_runtime::probe::StateChange;
use fusion_runtime::store::Batch;
use serde_json::json;

use super::store::{Pair, SlotRow};
use crate::Cluster;
use crate::index::{self, Changes};
use crate::outbox::{self, Announcement, Effect};
use crate::rows::{self, Committed, Loaded};

/// What is being written, until [`Writing::commit`].
pub(super) struct Writing<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) batch: Batch,
    pub(super) changes: Changes<'a>,
    reports: Vec<StateChange>,
}

impl<'a> Writing<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, batch: Batch::default(), changes: Changes::new(cluster), reports: Vec::new() }
    }

    /// Participants served here are told in this very commit, the others through the outbox.
    pub(super) async fn announce(
        &mut self,
        id: Uuid,
        conversation: &Conversation,
        announce: &[Announce],
        activity: Option<&Activity>,
    ) -> Result<(), Problem> {
        self.announce_all(id, conversation, announce, activity.map(std::slice::from_ref).unwrap_or_default())
            .await
    }

    /// As [`Writing::announce`], with several activities, in order.
    pub(super) async fn announce_all(
        &mut self,
        id: Uuid,
        conversation: &Conversation,
        announce: &[Announce],
        activities: &[Activity],
    ) -> Result<(), Problem> {
        for one in announce {
            let entry = Announcement {
                conversation: id,
                kind: conversation.kind(),
                title: conversation.title.clone(),
                membership: one.membership,
                membership_seq: conversation.membership_seq,
                last_seq: activities.last().map_or(conversation.last_seq, |activity| activity.seq),
                activities: activities.to_vec(),
                superseded_by: match conversation.life.state() {
                    ConversationState::Superseded => conversation.life.winner().map(|won| won.url.clone()),
                    _ => None,
                },
                event: Some(one.event),
            };
            if !self.write_here(one, &entry).await? {
                let effect = Effect::Index {
                    user: one.to.user.clone(),
                    incarnation: one.to.incarnation,
                    entry: Box::new(entry),
                };
                outbox::post(self.cluster, &mut self.batch, conversation.place.url.as_str(), effect)?;
            }
        }
        Ok(())
    }

    /// Writes a slot as it is to be.
    pub(super) fn save_slot(&mut self, pair: Pair<'_>, row: &Loaded<SlotRow>, slot: Slot) {
        if self.cluster.host.probe.watches_state() {
            self.reports.push(report_slot(pair, &slot));
        }
        let since = row.value.as_ref().map(|known| known.since.clone());
        let since = since.unwrap_or_else(|| self.cluster.host.clock.wall().to_string());
        row.save(&mut self.batch, &SlotRow { slot, since });
    }

    /// Reports a conversation's state once this is committed.
    pub(super) fn report(&mut self, conversation: &Conversation) {
        if self.cluster.host.probe.watches_state() {
            self.reports.push(report_conversation(conversation));
        }
    }

    /// Makes all of it durable, then tells everybody who waits for it.
    pub(super) async fn commit(mut self) -> Result<Committed, Problem> {
        let notices = self.changes.finish(&mut self.batch);
        if self.batch.is_empty() {
            return Ok(Committed::Yes);
        }
        let committed = rows::commit(&*self.cluster.host.store, self.batch).await?;
        if committed == Committed::Yes {
            outbox::wake(self.cluster);
            notices.now(self.cluster);
            self.reports.into_iter().for_each(|report| self.cluster.host.probe.state(report));
        }
        Ok(committed)
    }

    /// Whether the participant is served here, and so has been written.
    async fn write_here(&mut self, one: &Announce, entry: &Announcement) -> Result<bool, Problem> {
        let cluster = self.cluster;
        if one.to.cluster.as_ref() != Some(cluster.name()) {
            return Ok(false);
        }
        let Some(record) = self.changes.served(&one.to.user).await? else { return Ok(false) };
        if one.to.incarnation.is_some_and(|meant| meant != record.incarnation) {
            return Ok(false);
        }
        let write = entry.write(cluster, cluster.host.entropy.uuid(), &one.to.user, &record);
        self.changes.write(&mut self.batch, cluster.name(), &write, Shown::Listed).await?;
        Ok(true)
    }
}

/// Wakes a user served here: there is something to see in a conversation of theirs.
pub(super) async fn remind(cluster: &Cluster, user: &Address, conversation: &Url) -> Result<(), Problem> {
    let _held = index::hold(cluster, [user]).await;
    loop {
        let mut writing = Writing::new(cluster);
        writing.changes.remind(&mut writing.batch, user, conversation).await?;
        if writing.commit().await? == Committed::Yes {
            return Ok(());
        }
    }
}

/// Who of those to be told is served here, as far as the conversation knows.
pub(super) fn local<'n>(cluster: &Cluster, announce: &'n [Announce]) -> Vec<&'n Address> {
    let here = announce.iter().filter(|one| one.to.cluster.as_ref() == Some(cluster.name()));
    here.map(|one| &one.to.user).collect()
}

fn report_conversation(conversation: &Conversation) -> StateChange {
    let state = match conversation.life.state() {
        ConversationState::Provisional => "PROVISIONAL",
        ConversationState::Bound => "BOUND",
        ConversationState::Sealing => "SEALING",
        ConversationState::Superseded => "SUPERSEDED",
    };
    let pair = match conversation.members {
        Members::Fixed { pair } => Some(pair.to_string()),
        Members::Open => None,
    };
    let users: Vec<&Address> = conversation.participants.iter().map(|one| &one.user).collect();
    let winner: Option<&Url> = conversation.life.winner().map(|winner| &winner.url);
    StateChange {
        concept: "conversation",
        subject: conversation.place.url.to_string(),
        state: state.to_owned(),
        detail: json!({
            "kind": conversation.kind(),
            "pairKey": pair,
            "participants": users,
            "lastSeq": conversation.last_seq,
            "winner": winner,
        }),
    }
}

fn report_slot(pair: Pair<'_>, slot: &Slot) -> StateChange {
    let state = match slot.hold {
        Hold::Unbound => "UNBOUND",
        Hold::Bound => "BOUND",
    };
    StateChange {
        concept: "slot",
        subject: format!("{}/{}", pair.key, pair.user.as_str()),
        state: state.to_owned(),
        detail: json!({
            "user": pair.user,
            "other": pair.other,
            "url": slot.conversation.url,
            "mergingFrom": slot.merging_from,
        }),
    }
}
