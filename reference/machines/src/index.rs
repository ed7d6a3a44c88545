//! A user's pointer to one conversation, and how writes of the conversation's home merge into it
//! (RDV-002, RDV-004).
//!
//! Writes may come twice and out of order: the outcome depends only on which have come. The preview is
//! kept beside the entry, one row for each activity, so that a new message costs one small row.
//!
//! Not here: cursors of the whole index, who may write (SEC-005), storage.

use fusion_protocol::conversation::{Act, Activity, Kind};
use fusion_protocol::index::{IndexEntry, IndexWrite, Membership};
use fusion_protocol::limits::PREVIEW_MAX;
use fusion_protocol::{ClusterName, Count, Pii, Url};
use serde::{Deserialize, Serialize};

use crate::conversation::taken_back;

/// An entry without its preview.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
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
    /// Hidden by the user when this was the last activity; a later one shows it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_at: Option<Count>,
    /// The winner, when this conversation lost the race.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<Url>,
    /// Whether the user sees it.
    #[serde(default, skip_serializing_if = "Shown::is_listed")]
    pub shown: Shown,
    /// Its place in the user's index: goes up with every change.
    pub cursor: Count,
}

/// Whether a user sees an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    /// In the list.
    #[default]
    Listed,
    /// The winner of a race, kept back until the user's own activities have arrived in it (CNV-003):
    /// else a message there could come before an earlier one that is still moving.
    Held,
}

/// What a write changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The entry from now on, its cursor not yet set.
    pub entry: Entry,
    /// Activities that are in the preview, new or changed.
    pub keep: Vec<Activity>,
    /// The `seq`s of activities that have fallen out of the preview, if they were in it.
    pub drop: Vec<Count>,
}

/// Whether [`merge`] needs to see the preview for this write. The next activity after the last one, which
/// is what mostly comes, does not.
#[must_use]
pub fn needs_preview(entry: Option<&Entry>, write: &IndexWrite) -> bool {
    let Some(entry) = entry else { return false };
    let follows = |(place, activity): (usize, &Activity)| {
        activity.seq.0 == entry.last_seq.0 + 1 + place as u64 && !matches!(activity.act, Act::Delete { .. })
    };
    !write.activities.iter().enumerate().all(follows)
}

/// RDV-004: merges a write of the conversation's `home`; `None`: there is nothing new in it. `preview` is
/// what is kept, in order, if [`needs_preview`], else empty.
#[must_use]
pub fn merge(
    entry: Option<&Entry>,
    preview: &[Activity],
    write: &IndexWrite,
    home: &ClusterName,
) -> Option<Merged> {
    let before = entry.cloned().unwrap_or_else(|| Entry::of(write, home));
    let mut after = before.clone();
    after.take_newer(write);
    let keep = kept(preview, &write.activities, after.last_seq);
    let drop = dropped(before.last_seq, after.last_seq);
    if entry.is_some() && after == before && keep.is_empty() {
        return None;
    }
    Some(Merged { entry: after, keep, drop })
}

impl Entry {
    /// The entry as its user sees it.
    #[must_use]
    pub fn with_preview(&self, preview: Vec<Activity>) -> IndexEntry {
        IndexEntry {
            url: self.url.clone(),
            locus_url: self.locus_url.clone(),
            kind: self.kind,
            home: self.home.clone(),
            title: self.title.clone(),
            membership: self.membership,
            membership_seq: self.membership_seq,
            last_seq: self.last_seq,
            preview,
            hidden: self.is_hidden(),
            superseded_by: self.superseded_by.clone(),
            cursor: self.cursor,
            reachable: true,
        }
    }

    /// CNV-002: hides it, or shows it again. Something new shows it, too.
    pub fn hide(&mut self, hidden: bool) {
        self.hidden_at = hidden.then_some(self.last_seq);
    }

    /// Whether the user hides it now.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.hidden_at.is_some_and(|at| at >= self.last_seq)
    }

    /// The `seq`s that its preview can hold.
    #[must_use]
    pub fn preview_from(&self) -> Count {
        first_in_preview(self.last_seq)
    }

    fn of(write: &IndexWrite, home: &ClusterName) -> Self {
        Self {
            url: write.url.clone(),
            locus_url: write.locus_url.clone(),
            kind: write.kind,
            home: home.clone(),
            title: None,
            membership: write.membership,
            membership_seq: Count(0),
            last_seq: Count(0),
            hidden_at: None,
            superseded_by: None,
            shown: Shown::Listed,
            cursor: Count(0),
        }
    }

    fn take_newer(&mut self, write: &IndexWrite) {
        if write.membership_seq > self.membership_seq {
            self.membership_seq = write.membership_seq;
            self.membership = write.membership;
        }
        if write.last_seq >= self.last_seq {
            self.last_seq = write.last_seq;
            self.title.clone_from(&write.title);
        }
        if self.superseded_by.is_none() {
            self.superseded_by.clone_from(&write.superseded_by);
        }
    }
}

impl Shown {
    fn is_listed(&self) -> bool {
        *self == Self::Listed
    }
}

/// What the preview gains. Content that its author took back does not come back.
fn kept(preview: &[Activity], new: &[Activity], last_seq: Count) -> Vec<Activity> {
    let all = || preview.iter().chain(new);
    let is_taken_back = |activity: &Activity| {
        all().any(|other| matches!(other.act, Act::Delete { activity: target } if target == activity.id))
    };
    let mut keep: Vec<Activity> = Vec::new();
    for activity in all().filter(|activity| activity.seq >= first_in_preview(last_seq)) {
        let now = if is_taken_back(activity) { taken_back(activity) } else { activity.clone() };
        let known = preview.iter().chain(&keep).any(|known| known.seq == now.seq && known.act == now.act);
        if !known {
            keep.push(now);
        }
    }
    keep
}

/// What can have been in the preview before and cannot be now.
fn dropped(before: Count, after: Count) -> Vec<Count> {
    let (from, until) = (first_in_preview(before).0, first_in_preview(after).0.min(before.0 + 1));
    (from..until).map(Count).collect()
}

fn first_in_preview(last_seq: Count) -> Count {
    Count((last_seq.0 + 1).saturating_sub(PREVIEW_MAX as u64).max(1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fusion_protocol::conversation::ActivityId;
    use fusion_protocol::{Incarnation, Uuid};
    use proptest::prelude::*;

    use super::*;

    /// An index entry as a cluster keeps it.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Kept {
        entry: Option<Entry>,
        preview: BTreeMap<Count, Activity>,
        changes: u64,
    }

    impl Kept {
        fn write(&mut self, write: &IndexWrite) {
            let loaded: Vec<_> = if needs_preview(self.entry.as_ref(), write) {
                self.preview.values().cloned().collect()
            } else {
                Vec::new()
            };
            let home = "a".parse().unwrap();
            let Some(merged) = merge(self.entry.as_ref(), &loaded, write, &home) else { return };
            self.entry = Some(merged.entry);
            merged.drop.iter().for_each(|seq| drop(self.preview.remove(seq)));
            self.preview.extend(merged.keep.into_iter().map(|activity| (activity.seq, activity)));
            self.changes += 1;
        }

        fn after(writes: &[IndexWrite]) -> Self {
            let mut kept = Self::default();
            writes.iter().for_each(|write| kept.write(write));
            Self { changes: 0, ..kept }
        }
    }

    fn id(seq: u64) -> ActivityId {
        ActivityId([seq as u8; 32])
    }

    fn activity(seq: u64, act: Act) -> Activity {
        Activity {
            id: id(seq),
            seq: Count(seq),
            author: "alice@a.example".parse().unwrap(),
            incarnation: Incarnation(Uuid::from_u128(1)),
            published: String::new(),
            act,
            attested_by: None,
        }
    }

    fn message(seq: u64) -> Activity {
        activity(seq, Act::Message { text: format!("message {seq}").as_str().into() })
    }

    fn write(last_seq: u64, activities: Vec<Activity>) -> IndexWrite {
        let url: Url = "https://a-conv.provider.example/v1/conversations/1".parse().unwrap();
        IndexWrite {
            id: Uuid::from_u128(u128::from(last_seq)),
            user: "bob@b.example".parse().unwrap(),
            incarnation: Incarnation(Uuid::from_u128(2)),
            epoch: Count(1),
            locus_url: format!("{url}/locus").parse().unwrap(),
            url,
            kind: Kind::Group,
            title: Some(format!("title {}", last_seq / 3).as_str().into()),
            membership: Membership::Member,
            membership_seq: Count(1 + last_seq / 4),
            last_seq: Count(last_seq),
            activities,
            superseded_by: None,
            event: None,
        }
    }

    fn messages(count: u64) -> Vec<IndexWrite> {
        (1..=count).map(|seq| write(seq, vec![message(seq)])).collect()
    }

    #[test]
    fn the_preview_is_the_last_twenty() {
        let kept = Kept::after(&messages(50));
        assert_eq!(kept.preview.keys().map(|seq| seq.0).collect::<Vec<_>>(), (31..=50).collect::<Vec<_>>());
        assert_eq!(kept.entry.unwrap().last_seq, Count(50));
    }

    #[test]
    fn a_repeated_write_changes_nothing() {
        let writes = messages(25);
        let mut kept = Kept::after(&writes);
        writes.iter().for_each(|write| kept.write(write));
        assert_eq!(kept.changes, 0);
    }

    #[test]
    fn the_next_message_is_merged_without_reading_the_preview() {
        let kept = Kept::after(&messages(25));
        assert!(!needs_preview(kept.entry.as_ref(), &write(26, vec![message(26)])));
        assert!(needs_preview(kept.entry.as_ref(), &write(27, vec![message(27)])));
    }

    #[test]
    fn what_is_taken_back_leaves_the_preview() {
        let mut kept = Kept::after(&messages(3));
        kept.write(&write(4, vec![activity(4, Act::Delete { activity: id(2) })]));
        assert_eq!(kept.preview[&Count(2)].act, Act::Message { text: "".into() });
        kept.write(&write(2, vec![message(2)]));
        assert_eq!(kept.preview[&Count(2)].act, Act::Message { text: "".into() });
    }

    #[test]
    fn a_hidden_conversation_shows_itself_when_something_new_comes() {
        let mut kept = Kept::after(&messages(3));
        kept.entry.as_mut().unwrap().hide(true);
        kept.write(&write(3, vec![message(3)]));
        assert!(kept.entry.as_ref().unwrap().is_hidden());
        kept.write(&write(4, vec![message(4)]));
        assert!(!kept.entry.unwrap().is_hidden());
    }

    #[test]
    fn a_late_joiner_starts_with_what_the_home_sends() {
        let mut kept = Kept::default();
        kept.write(&write(100, vec![message(100)]));
        kept.write(&write(101, vec![message(101)]));
        assert_eq!(kept.preview.len(), 2);
    }

    /// Messages, some of them taking an earlier one back; some writes carry several.
    fn a_history() -> impl Strategy<Value = Vec<IndexWrite>> {
        prop::collection::vec((1_u64..4, prop::option::of(1_u64..40)), 1..30).prop_map(|sizes| {
            let mut seq = 0;
            let mut writes = Vec::new();
            for (size, target) in sizes {
                let first = seq + 1;
                seq += size;
                let one = |seq: u64| match target {
                    Some(target) if target < first => activity(seq, Act::Delete { activity: id(target) }),
                    _ => message(seq),
                };
                writes.push(write(seq, (first..=seq).map(one).collect()));
            }
            writes
        })
    }

    proptest! {
        #[test]
        fn neither_order_nor_repetition_of_writes_matters(
            (shuffled, history) in a_history().prop_flat_map(|history| {
                (Just([history.clone(), history.clone()].concat()).prop_shuffle(), Just(history))
            }),
        ) {
            let (expected, found) = (Kept::after(&history), Kept::after(&shuffled));
            prop_assert_eq!(found.entry, expected.entry);
            let seqs = |kept: &BTreeMap<Count, Activity>| kept.keys().copied().collect::<Vec<_>>();
            prop_assert_eq!(seqs(&found.preview), seqs(&expected.preview));
        }

        #[test]
        fn the_preview_is_bounded_and_ends_with_the_last(history in a_history()) {
            let last = history.last().unwrap().last_seq;
            let kept = Kept::after(&history);
            prop_assert!(kept.preview.len() <= PREVIEW_MAX);
            prop_assert_eq!(kept.preview.keys().next_back(), Some(&last));
        }
    }
}
