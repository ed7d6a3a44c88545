//! LOC-005: what races inside a locus is decided at its home, alone and once.

use std::collections::BTreeMap;

use fusion_protocol::locus::{Locus, LocusState, ParticipantState};
use fusion_protocol::{Address, ClusterName, Code, Url};

use super::locus_of;
use crate::event::{Call, EventId, Outcome};
use crate::facts::{Asked, Facts, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::table::Table;

/// How long a join may take whose home can reach nobody, in microseconds: some commits and a media leg.
/// One question to a cluster that does not answer takes longer.
const ALONE_MAX_US: u64 = 4_000_000;
/// What went wrong so shortly before may still be felt, in microseconds: connections stall and back off.
const AFTERMATH_US: u64 = 30_000_000;

/// LOC-005: a race inside a locus is settled by one compare-and-set in its home's store: each revision is
/// one outcome, whoever sees it; and no other cluster is asked, so that a join is answered at once while
/// the home can reach nobody else.
///
/// The cases are joins, leavings and refusals of one locus at one time, and joins at a home that was cut
/// off from the other participants' clusters.
pub(crate) struct DecidedAtHome;

impl Judge for DecidedAtHome {
    fn name(&self) -> &'static str {
        "decided-at-home"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["LOC-005"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        count_races(facts, case);
        judge_outcomes(facts, case);
        let homes = facts.clusters_of_users();
        for asked in facts.asked_to(Verb::Join) {
            if let Call::Join { locus, .. } = asked.call
                && let Some(home) = facts.cluster_of(locus)
                && homes.get(asked.actor).is_some_and(|at| at.len() == 1 && at.contains(&home))
            {
                judge_alone(facts, asked, locus, &home, case);
            }
        }
    }
}

/// Steps of one locus that several devices took at one time.
fn count_races(facts: &Facts<'_>, case: &mut Casebook) {
    let mut until: Table<&Url, (EventId, &str)> = Table::default();
    for asked in facts.calls().iter().filter(|asked| matches!(asked.verb, Verb::Join | Verb::SetState)) {
        let (Call::Join { locus, .. } | Call::SetState { locus, .. }) = asked.call else { continue };
        let (Some(_), Some(back)) = (locus_of(asked), asked.back) else { continue };
        let known = until.entry(locus).or_insert((back.id, asked.host));
        if known.0 > asked.id && known.1 != asked.host {
            case.reached();
        }
        if back.id >= known.0 {
            *known = (back.id, asked.host);
        }
    }
}

/// Whoever sees a revision of a locus sees the same.
fn judge_outcomes(facts: &Facts<'_>, case: &mut Casebook) {
    let mut outcomes: Table<(&Url, u64), (&Locus, EventId)> = Table::default();
    for (asked, back, locus) in facts.loci() {
        let (first, seen) = outcomes.entry((&locus.url, locus.rev.0)).or_insert((locus, back.id));
        if !is_same(first, locus) {
            let (url, rev) = (&locus.url, locus.rev);
            let statement = format!("revision {rev} of {url} has two outcomes");
            case.violated("two-outcomes", statement, asked.events().chain([*seen]));
        }
    }
}

/// Who is not in the call comes and goes with the conversation, under a revision that the locus had.
fn is_same(one: &Locus, other: &Locus) -> bool {
    let told = |locus: &Locus| match locus.state {
        LocusState::Terminating => LocusState::Inactive,
        state => state,
    };
    let parts = |locus| parts_of(locus).collect::<BTreeMap<_, _>>();
    one.instance == other.instance
        && told(one) == told(other)
        && (one.participants == other.participants || parts(one) == parts(other))
}

fn parts_of(locus: &Locus) -> impl Iterator<Item = (&Address, (ParticipantState, &[String]))> {
    let known = locus.participants.iter().filter(|part| part.state != ParticipantState::Idle);
    known.map(|part| (&part.user, (part.state, part.devices.as_slice())))
}

/// A join at the joiner's own cluster, while that one can reach none of the others'.
fn judge_alone(facts: &Facts<'_>, asked: &Asked<'_>, locus: &Url, home: &ClusterName, case: &mut Casebook) {
    let faults = facts.faults();
    let due_us = asked.at_us.saturating_add(ALONE_MAX_US);
    let mut near = faults.hosts_of(home);
    near.push(asked.host);
    if !is_alone(facts, asked, locus, home, due_us)
        || faults.hinder(&near, asked.at_us.saturating_sub(AFTERMATH_US), due_us)
    {
        return;
    }
    let decided = match asked.back.map(|back| (back.at_us, back.outcome)) {
        Some((at_us, Outcome::Done { .. })) => at_us <= due_us,
        Some((at_us, Outcome::Refused { code: Some(Code::CallOver), .. })) => at_us <= due_us,
        Some((_, Outcome::Refused { status: 503, .. } | Outcome::Unknown {})) => false,
        Some((_, Outcome::Refused { .. } | Outcome::Unreachable {})) => return,
        None => return case.not_observed("whether a join was answered before the run was cut off"),
    };
    case.reached();
    if !decided {
        let who = asked.actor.as_str();
        let statement =
            format!("{home} could reach nobody else, and {who}'s join of {locus} waited for somebody");
        case.violated("asks-others", statement, asked.events());
    }
}

/// Whether somebody of another cluster is in the conversation, and all of those were out of reach until
/// `due_us`.
fn is_alone(facts: &Facts<'_>, asked: &Asked<'_>, locus: &Url, home: &ClusterName, due_us: u64) -> bool {
    let Some(conversation) = locus.as_str().strip_suffix("/locus") else { return false };
    let Some(known) = facts.conversations().named(conversation) else { return false };
    let clusters = facts.world().map(|world| world.users.as_slice()).unwrap_or_default();
    let mut others = clusters
        .iter()
        .filter(|user| known.members.contains(&user.user) && user.cluster != *home)
        .map(|user| user.cluster.as_str())
        .peekable();
    let faults = facts.faults();
    others.peek().is_some() && others.all(|other| faults.part(home.as_str(), other, asked.at_us, due_us))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FaultPhase;
    use crate::judge::Ruling;
    use crate::testing::{Story, conversation_url, join, joined, locus};
    use fusion_protocol::conversation::ConversationState::Bound;
    use fusion_protocol::locus::ParticipantState::{Joined, Notified};
    use serde_json::json;
    use std::time::Duration;

    fn call(alice: ParticipantState, bob: ParticipantState) -> Locus {
        locus(&conversation_url("a", 1), LocusState::Initializing, 1, &[("alice", alice), ("bob", bob)])
    }

    fn judged(story: &Story) -> (Ruling, u64, Vec<String>) {
        let verdict = DecidedAtHome.judge(story.told());
        let kinds = verdict.violations.iter().map(|violation| violation.fingerprint.clone()).collect();
        (verdict.ruling, verdict.reached, kinds)
    }

    /// Both join at once, and see this.
    fn race(first: &Locus, second: &Locus) -> Story {
        let mut story = Story::new();
        story.creates("alice", "bob", &conversation_url("a", 1), Bound);
        let alice = story.asks("alice", join(&first.url, 0, "alice"));
        let bob = story.asks("bob", join(&second.url, 0, "bob"));
        story.answers(alice, joined(first));
        story.answers(bob, joined(second));
        story
    }

    #[test]
    fn one_after_the_other_at_home_holds() {
        let mut second = call(Joined, Joined);
        second.rev = second.rev.next();
        assert_eq!(judged(&race(&call(Joined, Notified), &second)), (Ruling::Holds, 1, vec![]));
    }

    #[test]
    fn one_revision_with_two_outcomes_violates() {
        let (_, _, kinds) = judged(&race(&call(Joined, Notified), &call(Notified, Joined)));
        assert_eq!(kinds, ["decided-at-home/LOC-005/two-outcomes"]);
    }

    /// Bob's cluster is out of reach for a minute, and Alice calls him.
    fn alice_calls_alone(detail: serde_json::Value, family: &str) -> (Story, EventId) {
        let mut story = Story::new();
        story.creates("alice", "bob", &conversation_url("a", 1), Bound);
        story.wait(Duration::from_secs(60)).fault("cut", family, FaultPhase::Began, detail);
        let asked = story.asks("alice", join(&call(Joined, Notified).url, 0, "alice"));
        (story, asked)
    }

    fn ends(story: &mut Story) {
        story.wait(Duration::from_secs(60)).fault("cut", "", FaultPhase::Ended, json!({}));
    }

    #[test]
    fn a_home_that_reaches_nobody_answers_at_once() {
        for (family, detail) in
            [("partition", json!({ "a": ["a"], "b": ["b", "c"] })), ("crash", json!({ "host": "b" }))]
        {
            let (mut story, asked) = alice_calls_alone(detail, family);
            story.answers(asked, joined(&call(Joined, Notified)));
            ends(&mut story);
            assert_eq!(judged(&story), (Ruling::Holds, 1, vec![]), "{family}");
        }
    }

    #[test]
    fn a_home_that_waits_for_another_cluster_violates() {
        let (mut story, asked) = alice_calls_alone(json!({ "a": ["a"], "b": ["b"] }), "partition");
        story.wait(Duration::from_secs(5)).answers(asked, joined(&call(Joined, Notified)));
        ends(&mut story);
        assert_eq!(judged(&story).2, ["decided-at-home/LOC-005/asks-others"]);
    }

    #[test]
    fn a_home_that_is_slow_for_another_reason_is_not_accused() {
        let (mut story, asked) = alice_calls_alone(json!({ "a": ["a"], "b": ["b"] }), "partition");
        story.fault("disk", "slow_disk", FaultPhase::Began, json!({ "host": "a", "add_ms": 3_000 }));
        story.wait(Duration::from_secs(5)).answers(asked, joined(&call(Joined, Notified)));
        ends(&mut story);
        assert_eq!(judged(&story), (Ruling::Unknown, 0, vec![]));
    }
}
