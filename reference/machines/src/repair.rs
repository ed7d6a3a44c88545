//! Repair of indexes by the homes of conversations (RDV-007): what a home tells another cluster, what that
//! cluster misses, and when whom.
//!
//! Only the home can begin: an index that has lost the first entry of a conversation does not know whom to
//! ask. Not here: how a digest travels, and what is read from stores. Time and chance are arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fusion_protocol::conversation::Activity;
use fusion_protocol::index::{Difference, DigestRow};
use fusion_protocol::{ClusterName, Count, limits};

use crate::conversation::Conversation;
use crate::index::Entry;
use crate::pair::Life;

/// How often every cluster is told without a reason.
pub const ROUND: Duration = Duration::from_secs(24 * 60 * 60);
/// How long after a cluster has come back it is told: what waits in the outbox goes first.
pub const CALM: Duration = Duration::from_secs(5);
/// The wait after the first digest that nobody took; it doubles.
pub const RETRY_MIN: Duration = Duration::from_secs(20);
/// The longest such wait.
pub const RETRY_MAX: Duration = Duration::from_secs(60 * 60);
/// Octets of activities that one repaired entry brings, as JSON: a request has room for the rest.
const OCTETS_MAX: usize = limits::BODY_MAX / 4;

/// Whom a digest is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Every cluster that serves a participant, the own one included.
    Everybody,
    /// These.
    These(BTreeSet<ClusterName>),
}

/// When who is told.
#[derive(Clone, Debug)]
pub struct Schedule {
    round: Duration,
    due: BTreeMap<ClusterName, Duration>,
    failures: BTreeMap<ClusterName, u32>,
}

/// What a home expects in the indexes of the participants, by the cluster that serves them. Of a
/// conversation whose pair is not settled nobody else has heard (CNV-003); of a loser nobody is to hear.
pub fn rows(conversation: &Conversation) -> impl Iterator<Item = (&ClusterName, DigestRow)> {
    let home = &conversation.place.home;
    let told = move |cluster: &ClusterName| match conversation.life {
        Life::Bound => true,
        Life::Provisional => cluster == home,
        Life::Sealing { .. } | Life::Superseded { .. } => false,
    };
    conversation.participants.iter().filter_map(move |one| {
        let cluster = one.cluster.as_ref().filter(|cluster| told(cluster) && one.unreachable.is_none())?;
        let row = DigestRow {
            user: one.user.clone(),
            incarnation: one.incarnation?,
            url: conversation.place.url.clone(),
            membership_seq: conversation.membership_seq,
            last_seq: conversation.last_seq,
        };
        Some((cluster, row))
    })
}

/// What an entry misses of what its home expects; `None`: nothing. An entry that knows more is right: the
/// digest is the older of the two.
#[must_use]
pub fn difference(place: u32, row: &DigestRow, entry: Option<&Entry>) -> Option<Difference> {
    let behind = |entry: &&Entry| entry.membership_seq < row.membership_seq || entry.last_seq < row.last_seq;
    match entry {
        None => Some(Difference { row: place, last_seq: None }),
        Some(entry) => {
            Some(entry).filter(behind).map(|entry| Difference { row: place, last_seq: Some(entry.last_seq) })
        }
    }
}

/// The rows of a digest that its receiver asks for, with what it knows of each: each once, however often it
/// names them.
pub fn asked_for(
    rows: &[DigestRow],
    answered: Vec<Difference>,
) -> impl Iterator<Item = (&DigestRow, Option<Count>)> {
    let known: BTreeMap<u32, _> = answered.into_iter().map(|one| (one.row, one.last_seq)).collect();
    known.into_iter().filter_map(|(row, last_seq)| Some((rows.get(row as usize)?, last_seq)))
}

/// The first `seq` that is announced again to somebody who joined at `joined` and knows `known`: the own
/// index starts at the join (CNV-006), and a preview is bounded (RDV-004). `known` is another cluster's word.
#[must_use]
pub fn announced_from(last: Count, joined: Count, known: Option<Count>) -> Count {
    let preview = (last.0 + 1).saturating_sub(limits::PREVIEW_MAX as u64);
    Count(preview.max(joined.0).max(known.map_or(1, |known| known.0.saturating_add(1))).max(1))
}

/// The newest of `activities` that fit into one request.
#[must_use]
pub fn that_fit(mut activities: Vec<Activity>) -> Vec<Activity> {
    let mut octets = 0;
    let fit = activities.iter().rev().take_while(|activity| {
        octets += serde_json::to_vec(activity).map_or(OCTETS_MAX, |json| json.len());
        octets <= OCTETS_MAX
    });
    let count = fit.count();
    activities.drain(..activities.len() - count);
    activities
}

impl Schedule {
    /// A new life begins: what the last one left undone is not known, so everybody is told soon.
    #[must_use]
    pub fn start(now: Duration) -> Self {
        Self { round: now + CALM, due: BTreeMap::new(), failures: BTreeMap::new() }
    }

    /// `peer` was away and is back. Answers whether that changes anything.
    pub fn reconnected(&mut self, peer: &ClusterName, now: Duration) -> bool {
        self.failures.remove(peer);
        let soon = now + CALM;
        let sooner = self.due.get(peer).is_none_or(|due| *due > soon);
        if sooner {
            self.due.insert(peer.clone(), soon);
        }
        sooner
    }

    /// `peer` did not take its digest.
    pub fn failed(&mut self, peer: &ClusterName, now: Duration, jitter: u64) {
        let failures = self.failures.entry(peer.clone()).or_default();
        let whole = RETRY_MIN.saturating_mul(1 << (*failures).min(16)).min(RETRY_MAX);
        *failures += 1;
        self.due.entry(peer.clone()).or_insert(now + by_chance(whole, jitter));
    }

    /// A round could not be read to its end: who else is to be told is not known, so it begins again.
    pub fn broken_off(&mut self, now: Duration, jitter: u64) {
        self.round = self.round.min(now + by_chance(RETRY_MIN, jitter));
    }

    /// `peer` has taken its digest.
    pub fn told(&mut self, peer: &ClusterName) {
        self.failures.remove(peer);
    }

    /// Whom to tell now.
    pub fn take(&mut self, now: Duration, jitter: u64) -> Option<Whom> {
        if self.round <= now {
            self.round = now + by_chance(ROUND, jitter);
            self.due.clear();
            return Some(Whom::Everybody);
        }
        let these: BTreeSet<_> =
            self.due.iter().filter(|(_, due)| **due <= now).map(|(peer, _)| peer.clone()).collect();
        self.due.retain(|peer, _| !these.contains(peer));
        (!these.is_empty()).then_some(Whom::These(these))
    }

    /// When there is something to do.
    #[must_use]
    pub fn next_due(&self) -> Duration {
        self.due.values().fold(self.round, |next, due| next.min(*due))
    }
}

impl Whom {
    /// Whether this cluster is told.
    #[must_use]
    pub fn includes(&self, cluster: &ClusterName) -> bool {
        match self {
            Self::Everybody => true,
            Self::These(these) => these.contains(cluster),
        }
    }
}

/// At most `whole`, its upper half by chance, so that clusters do not speak all at once.
fn by_chance(whole: Duration, jitter: u64) -> Duration {
    let half = whole / 2;
    half + Duration::from_nanos(((half.as_nanos() * u128::from(jitter)) >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use fusion_protocol::conversation::{Kind, Participant};
    use fusion_protocol::index::Membership;
    use fusion_protocol::{Incarnation, UserRef, Uuid};

    use super::*;
    use crate::conversation::Members;
    use crate::index::Shown;
    use crate::pair::Contender;

    fn name(name: &str) -> ClusterName {
        name.parse().unwrap()
    }

    fn group(life: Life) -> Conversation {
        let url = "https://a-conv.provider.example/v1/conversations/1".parse().unwrap();
        let participant = |user: &str, cluster: Option<&str>| Participant {
            user: format!("{user}@x.example").parse().unwrap(),
            incarnation: cluster.map(|_| Incarnation(Uuid::from_u128(1))),
            cluster: cluster.map(name),
            joined_seq: Count(0),
            unreachable: None,
        };
        Conversation {
            place: Contender::new(url, name("a")),
            members: Members::Open,
            life,
            creator: UserRef {
                user: "alice@x.example".parse().unwrap(),
                incarnation: Incarnation(Uuid::from_u128(1)),
            },
            title: None,
            participants: vec![
                participant("alice", Some("a")),
                participant("bob", Some("b")),
                participant("dora", None),
            ],
            last_seq: Count(7),
            membership_seq: Count(2),
            created: String::new(),
        }
    }

    fn entry(row: &DigestRow) -> Entry {
        Entry {
            url: row.url.clone(),
            locus_url: row.url.clone(),
            kind: Kind::Group,
            home: name("a"),
            title: None,
            membership: Membership::Member,
            membership_seq: row.membership_seq,
            last_seq: row.last_seq,
            hidden_at: None,
            superseded_by: None,
            shown: Shown::Listed,
            cursor: Count(1),
        }
    }

    #[test]
    fn each_participant_who_was_found_is_a_row_for_the_own_cluster() {
        let told = |life| {
            rows(&group(life)).map(|(at, row)| format!("{at} {}", row.user.local_part())).collect::<Vec<_>>()
        };
        assert_eq!(told(Life::Bound), ["a alice", "b bob"]);
        assert_eq!(told(Life::Provisional), ["a alice"]);
        let winner = group(Life::Bound).place;
        assert!(told(Life::Superseded { winner }).is_empty());
    }

    #[test]
    fn an_entry_that_is_missing_or_behind_is_asked_for_and_no_other() {
        let (_, row) = rows(&group(Life::Bound)).next().unwrap();
        let right = entry(&row);
        let behind = Entry { last_seq: Count(4), ..right.clone() };
        let before_a_join = Entry { membership_seq: Count(1), ..right.clone() };
        let ahead = Entry { last_seq: Count(9), ..right.clone() };
        let asked = |entry: Option<&Entry>| difference(3, &row, entry);
        assert_eq!(asked(None), Some(Difference { row: 3, last_seq: None }));
        assert_eq!(asked(Some(&behind)), Some(Difference { row: 3, last_seq: Some(Count(4)) }));
        assert_eq!(asked(Some(&before_a_join)), Some(Difference { row: 3, last_seq: Some(Count(7)) }));
        assert_eq!((asked(Some(&right)), asked(Some(&ahead))), (None, None));
    }

    #[test]
    fn a_peer_that_asks_again_and_again_is_answered_once_for_each_row() {
        let (_, row) = rows(&group(Life::Bound)).next().unwrap();
        let told = [row.clone(), row];
        let storm = (0..9_000).map(|one| Difference { row: one % 3, last_seq: Some(Count(5)) }).collect();
        let asked: Vec<_> = asked_for(&told, storm).collect();
        assert_eq!(asked, [(&told[0], Some(Count(5))), (&told[1], Some(Count(5)))]);
    }

    #[test]
    fn a_repaired_entry_brings_what_is_new_and_nothing_from_before_the_join() {
        assert_eq!(announced_from(Count(50), Count(0), None), Count(31));
        assert_eq!(announced_from(Count(50), Count(40), None), Count(40));
        assert_eq!(announced_from(Count(50), Count(40), Some(Count(48))), Count(49));
        assert_eq!(announced_from(Count(3), Count(0), None), Count(1));
        assert_eq!(announced_from(Count(3), Count(0), Some(Count(u64::MAX))), Count(u64::MAX));
    }

    #[test]
    fn everybody_is_told_at_the_start_and_daily() {
        let mut schedule = Schedule::start(Duration::ZERO);
        assert_eq!(schedule.take(CALM - Duration::from_millis(1), 0), None);
        assert_eq!(schedule.take(CALM, u64::MAX), Some(Whom::Everybody));
        assert!(schedule.next_due() > CALM + ROUND / 2 && schedule.next_due() <= CALM + ROUND);
        assert_eq!(schedule.take(CALM + ROUND, 0), Some(Whom::Everybody));
    }

    #[test]
    fn a_round_that_could_not_be_read_begins_again_soon() {
        let mut schedule = Schedule::start(Duration::ZERO);
        assert_eq!(schedule.take(CALM, 0), Some(Whom::Everybody));
        schedule.broken_off(CALM, u64::MAX);
        assert_eq!(schedule.take(CALM, 0), None);
        assert_eq!(schedule.take(CALM + RETRY_MIN, 0), Some(Whom::Everybody));
    }

    #[test]
    fn whoever_comes_back_is_told_once_and_after_the_outbox() {
        let mut schedule = Schedule::start(Duration::ZERO);
        schedule.take(CALM, 0);
        let now = Duration::from_secs(100);
        assert!(schedule.reconnected(&name("b"), now));
        assert!(!schedule.reconnected(&name("b"), now + Duration::from_secs(1)));
        assert_eq!(schedule.take(now, 0), None);
        let these = BTreeSet::from([name("b")]);
        assert_eq!(schedule.take(now + CALM, 0), Some(Whom::These(these)));
        assert_eq!(schedule.take(now + CALM, 0), None);
    }

    #[test]
    fn a_digest_that_nobody_took_is_sent_again_ever_more_seldom() {
        let mut schedule = Schedule::start(Duration::ZERO);
        schedule.take(CALM, 0);
        let mut now = Duration::from_secs(100);
        let mut waits = Vec::new();
        for _ in 0..12 {
            schedule.failed(&name("b"), now, 0);
            waits.push(schedule.next_due() - now);
            now = schedule.next_due();
            assert!(schedule.take(now, 0).is_some());
        }
        assert_eq!((waits[0], waits[1], waits[11]), (RETRY_MIN / 2, RETRY_MIN, RETRY_MAX / 2));
        schedule.told(&name("b"));
        schedule.failed(&name("b"), now, 0);
        assert_eq!(schedule.next_due() - now, RETRY_MIN / 2);
    }
}
