//! RDV-007: what an index has lost comes back.

use std::collections::BTreeMap;

use fusion_protocol::{Address, ClusterName};

use crate::event::{Answer, Call, EventId};
use crate::facts::{Facts, Fault, Known, Verb};
use crate::judge::{Casebook, Evidence, Judge};
use crate::table::Table;

/// RDV-007: when a home meets a cluster again, it tells it what its indexes should hold, and what is
/// missing comes back.
///
/// A case is an entry that its user had, in a conversation in which nothing more was said, whose index was
/// then lost, and whose home has met the user's cluster again: it was started again itself, or it had
/// something to tell that cluster while that was away.
pub(crate) struct IndexRepair;

/// The table whose loss is the loss of an index.
const TABLE: &str = "index";
/// A home that has something to tell this long before a cluster comes back has tried in vain by then:
/// longer than a call between clusters may take.
const NOTICED_US: u64 = 6_000_000;
/// For so long after its creation a conversation's home knows where its members are without asking: else
/// it would miss the user map of a cluster, and not notice that it misses more.
const RESOLVED_US: u64 = 240_000_000;

impl Judge for IndexRepair {
    fn name(&self) -> &'static str {
        "index-repair"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["RDV-007"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let losses = losses(facts);
        if losses.is_empty() {
            return;
        }
        let standing = facts.standing();
        let (served, deleted) = (facts.clusters_of_users(), facts.deprovisioned());
        let (said, shown) = (last_said(facts), first_shown(facts));
        let mut met: BTreeMap<(ClusterName, &ClusterName, EventId), Option<EventId>> = BTreeMap::new();
        for known in facts.conversations().iter().filter(|known| standing.contains(known.url.as_str())) {
            let Some(home) = facts.cluster_of(known.url) else { continue };
            for member in known.members.iter().filter(|member| !deleted.contains(**member)) {
                let Some(at) = served.get(*member).filter(|at| at.len() == 1).and_then(|at| at.first())
                else {
                    continue;
                };
                for loss in losses.get(*at).into_iter().flatten() {
                    let quiet = said.get(known.url.as_str()).is_none_or(|last| *last < loss.began);
                    if !quiet || !had_before(facts, &shown, known, member, loss.began) {
                        continue;
                    }
                    let met = met.entry((home.clone(), at, loss.began));
                    match *met.or_insert_with(|| met_again(facts, &home, at, loss)) {
                        Some(met) => judge_entry(facts, known, member, loss, met, case),
                        None => {
                            case.not_observed("whether a home met a cluster again that had lost its index");
                        }
                    }
                }
            }
        }
    }
}

/// The losses of indexes, by the cluster whose they were.
fn losses<'f, 'h>(facts: &'f Facts<'h>) -> BTreeMap<&'h ClusterName, Vec<&'f Fault<'h>>> {
    let of_index = |fault: &&Fault<'_>| {
        let tables = fault.member("tables").and_then(|tables| tables.as_array());
        tables.is_some_and(|tables| tables.iter().any(|table| table == TABLE))
    };
    let mut losses: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for fault in facts.faults().iter().filter(of_index) {
        for cluster in facts.world().into_iter().flat_map(|world| &world.clusters) {
            if facts.faults().strikes(fault, cluster.name.as_str()) {
                losses.entry(&cluster.name).or_default().push(fault);
            }
        }
    }
    losses
}

/// When somebody last tried to say something in each conversation.
fn last_said<'h>(facts: &Facts<'h>) -> Table<&'h str, EventId> {
    let posts = facts.asked_to(Verb::Post).filter_map(|asked| match asked.call {
        Call::Post { conversation, .. } => {
            Some((conversation.as_str(), asked.back.map_or(EventId(u64::MAX), |back| back.id)))
        }
        _ => None,
    });
    posts.fold(Table::default(), |mut last: Table<&str, EventId>, (url, at)| {
        let known = last.entry(url).or_insert(at);
        *known = (*known).max(at);
        last
    })
}

/// When each user's index first showed a conversation.
fn first_shown<'h>(facts: &Facts<'h>) -> Table<(&'h Address, &'h str), EventId> {
    let mut shown = Table::default();
    for asked in facts.asked_to(Verb::ReadIndex) {
        let (Some(back), Some(Answer::Index { entries, .. })) = (asked.back, asked.answer()) else {
            continue;
        };
        for entry in entries {
            shown.entry((asked.actor, entry.url.as_str())).or_insert(back.id);
        }
    }
    shown
}

/// Whether the member's index is known to have had the entry before it was lost.
fn had_before(
    facts: &Facts<'_>,
    shown: &Table<(&Address, &str), EventId>,
    known: &Known<'_>,
    member: &Address,
    loss: EventId,
) -> bool {
    let url = known.url.as_str();
    shown.get(&(member, url)).is_some_and(|at| *at < loss)
        || facts.devices().told(member, url).any(|told| told.id < loss)
}

/// What shows that a home and a cluster met again after a loss.
fn met_again(facts: &Facts<'_>, home: &ClusterName, at: &ClusterName, loss: &Fault<'_>) -> Option<EventId> {
    let faults = facts.faults();
    let over = |fault: &&Fault<'_>| fault.ended.is_some_and(|ended| loss.began < ended);
    let meets = |fault: &&Fault<'_>| {
        if fault.takes_down() && faults.strikes(fault, home.as_str()) {
            return true;
        }
        let away = fault.takes_down() && faults.strikes(fault, at.as_str());
        let parted = fault.family == "partition" && faults.concerns(fault, &[home.as_str(), at.as_str()]);
        (away || parted) && had_news(facts, home, at, fault)
    };
    faults.iter().filter(over).find(meets).and_then(|fault| fault.ended)
}

/// Whether a home had something for a cluster while that was away, and long enough to notice.
fn had_news(facts: &Facts<'_>, home: &ClusterName, at: &ClusterName, away: &Fault<'_>) -> bool {
    let served = facts.clusters_of_users();
    let is_there =
        |user: &&Address| served.get(*user).is_some_and(|at_all| at_all.iter().all(|one| *one == at));
    let posts = facts.asked_to(Verb::Post).skip_while(|asked| asked.at_us < away.from_us);
    let mut posts = posts.take_while(|asked| asked.at_us <= away.until_us);
    posts.any(|asked| {
        let Call::Post { conversation, .. } = asked.call else { return false };
        let Some(Answer::Accepted { created: true, redirected_to: None, .. }) = asked.answer() else {
            return false;
        };
        let Some(noticed) = asked.back.map(|back| back.at_us.saturating_add(NOTICED_US)) else {
            return false;
        };
        // A home that stood still has not noticed.
        let still = |fault: &Fault<'_>| {
            let meanwhile = fault.from_us <= noticed && asked.at_us <= fault.until_us;
            meanwhile && fault.family == "pause" && facts.faults().strikes(fault, home.as_str())
        };
        let during = noticed <= away.until_us;
        let Some(known) = facts.conversations().at(conversation) else { return false };
        let made = known.created.and_then(|at| facts.calls().get(at)).map_or(0, |creation| creation.at_us);
        during
            && !facts.faults().iter().any(still)
            && facts.cluster_of(conversation).as_ref() == Some(home)
            && known.members.iter().any(is_there)
            && away.until_us <= made.saturating_add(RESOLVED_US)
    })
}

fn judge_entry(
    facts: &Facts<'_>,
    known: &Known<'_>,
    member: &Address,
    loss: &Fault<'_>,
    met: EventId,
    case: &mut Casebook,
) {
    let Some(index) = facts.finals().indexes.get(member).filter(|index| index.complete) else {
        return case.not_observed("nobody read an index that had been lost once nothing moved any more");
    };
    case.reached();
    if !index.entries.contains_key(known.url.as_str()) {
        let (who, url) = (member.as_str(), known.url);
        let statement = format!("{who} had {url} in an index that was lost, and never got it back");
        case.violated("not-repaired", statement, [loss.began, met].into_iter().chain(index.events.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FaultPhase::{self, Began, Ended};
    use crate::judge::{Ruling, Verdict};
    use crate::testing::{Story, conversation, conversation_url, created, message};
    use fusion_protocol::Url;
    use fusion_protocol::conversation::ConversationState::Bound;
    use fusion_protocol::conversation::Kind;
    use serde_json::json;
    use std::time::Duration;

    fn lose(story: &mut Story, phase: FaultPhase) {
        story.fault(
            "lost",
            "lose_rows",
            phase,
            json!({ "kind": "lose_rows", "host": "b", "tables": ["index"] }),
        );
    }

    fn crash(story: &mut Story, host: &str, phase: FaultPhase) {
        story.fault("crash", "crash", phase, json!({ "kind": "crash", "host": host }));
    }

    /// Alice and Bob have a quiet chat and a busy group, and Bob's index is lost.
    fn lost() -> (Story, Url, Url) {
        let mut story = Story::new();
        let (quiet, busy) = (conversation_url("a", 1), conversation_url("a", 2));
        story.creates("alice", "bob", &quiet, Bound);
        let call = Call::Create {
            kind: Kind::Group,
            others: vec![crate::testing::user("bob"), crate::testing::user("carol")],
            at: crate::testing::cluster("a"),
            key: "g".into(),
        };
        story.does("alice", call, created(true, conversation(&busy, &["alice", "bob", "carol"], Bound)));
        story.has_in_index("bob", &[&quiet, &busy]);
        lose(&mut story, Began);
        lose(&mut story, Ended);
        (story, quiet, busy)
    }

    fn ends(mut story: Story, index: &[&Url]) -> Verdict {
        story.comes_to_rest();
        story.has_in_index("bob", index);
        IndexRepair.judge(story.told())
    }

    /// Bob's cluster is away while Alice says something in the busy group.
    fn away(story: &mut Story, busy: &Url) {
        crash(story, "b", Began);
        story.posts("alice", busy, &message("alice", "anybody?", 1));
        story.wait(Duration::from_secs(15));
        crash(story, "b", Ended);
    }

    #[test]
    fn an_entry_that_comes_back_when_the_clusters_meet_again_holds() {
        let (mut story, quiet, busy) = lost();
        away(&mut story, &busy);
        let verdict = ends(story, &[&busy, &quiet]);
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn an_entry_that_never_comes_back_violates() {
        let (mut story, _, busy) = lost();
        away(&mut story, &busy);
        let verdict = ends(story, &[&busy]);
        assert_eq!(verdict.violations[0].fingerprint, "index-repair/RDV-007/not-repaired");
    }

    #[test]
    fn a_home_that_was_started_again_has_no_excuse() {
        let (mut story, quiet, _) = lost();
        crash(&mut story, "a", Began);
        crash(&mut story, "a", Ended);
        let verdict = ends(story, &[&quiet]);
        assert_eq!((verdict.ruling, verdict.violated), (Ruling::Violated, 1));
    }

    #[test]
    fn homes_that_had_no_reason_to_look_are_not_accused() {
        let (story, ..) = lost();
        let verdict = ends(story, &[]);
        assert_eq!((verdict.ruling, verdict.reached, verdict.unjudged), (Ruling::Unknown, 0, 2));
        let (mut story, _, busy) = lost();
        crash(&mut story, "b", Began);
        story.wait(Duration::from_secs(15));
        crash(&mut story, "b", Ended);
        assert_eq!(ends(story, &[&busy]).ruling, Ruling::Unknown, "nobody had anything to tell");
    }

    #[test]
    fn without_a_loss_there_is_no_case() {
        let mut story = Story::new();
        story.creates("alice", "bob", &conversation_url("a", 1), Bound);
        assert!(ends(story, &[]).had_no_case());
    }
}
