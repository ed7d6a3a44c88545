//! What a locus shows: to its participants, and in their active lists.

use std::collections::BTreeSet;

use fusion_protocol::locus::{
    ActiveLocus, Locus as View, LocusParticipant, LocusState, ParticipantState, Reason,
};
use fusion_protocol::{Address, Url, Uuid};
use sha2::{Digest as _, Sha256};

use super::{Locus, Party};

impl Locus {
    /// The locus as its participants see it; `members` are in the conversation now, in its order.
    #[must_use]
    pub fn view<'a>(&self, at: &Url, conversation: &Url, members: impl Iterator<Item = &'a Address>) -> View {
        let mut shown: Vec<&Address> = members.collect();
        let listed: BTreeSet<&Address> = shown.iter().copied().collect();
        shown.extend(self.parties.keys().filter(|user| !listed.contains(user)));
        let idle = Party::default();
        let participant = |user: &&Address| {
            let party = self.parties.get(*user).unwrap_or(&idle);
            LocusParticipant {
                id: participant_id(at, user),
                user: (*user).clone(),
                state: party.state,
                reason: party.reason,
                devices: party.devices.keys().cloned().collect(),
            }
        };
        View {
            url: at.clone(),
            conversation_url: conversation.clone(),
            state: self.state,
            instance: self.instance,
            rev: self.rev,
            participants: shown.iter().map(participant).collect(),
            replaces: self.replaces.clone(),
        }
    }

    /// What the user's active list is to say of this locus.
    #[must_use]
    pub fn entry(&self, user: &Address, at: &Url, conversation: &Url) -> ActiveLocus {
        let party = self.parties.get(user);
        let removed = party.is_some_and(|party| party.reason == Some(Reason::Removed));
        ActiveLocus {
            locus_url: at.clone(),
            conversation_url: conversation.clone(),
            instance: self.instance,
            rev: self.rev,
            // For somebody who was taken out of the conversation there is no call any more (SEC-006).
            state: if removed { LocusState::Inactive } else { self.state },
            participant_state: party.map_or(ParticipantState::Idle, |party| party.state),
        }
    }
}

/// The id of a user's part within the locus at `at`, for ever. Without the locus's URL, which only its
/// participants know, it says nothing of the user.
#[must_use]
pub fn participant_id(at: &Url, user: &Address) -> Uuid {
    derived("sf-participant-v1", &[at.as_str(), user.as_str()])
}

/// The id of the leg of a device that comes with a call that is taken over.
pub(super) fn leg_id(seed: Uuid, user: &Address, device: &str) -> Uuid {
    derived("sf-leg-v1", &[&seed.to_string(), user.as_str(), device])
}

/// LOC-007: whether `new` may replace `old` in an active list: a register ordered by (instance, rev), in
/// which an equal entry is a renewal.
#[must_use]
pub fn register_takes(old: Option<&ActiveLocus>, new: &ActiveLocus) -> bool {
    old.is_none_or(|old| (new.instance, new.rev) >= (old.instance, old.rev))
}

fn derived(purpose: &str, parts: &[&str]) -> Uuid {
    let start = Sha256::new().chain_update(purpose);
    let digest = parts.iter().fold(start, |hash, part| hash.chain_update([0]).chain_update(part)).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
