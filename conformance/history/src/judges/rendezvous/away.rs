//! RDV-006: while a home is away.

use fusion_protocol::{ClusterName, Url};

use crate::event::{Answer, Call, Outcome};
use crate::facts::{Asked, Facts, Fault, Verb};
use crate::judge::{Casebook, Evidence, Judge};

/// RDV-006: with the home down, its conversations are shown and marked as not reachable, writes to them
/// fail fast, and other conversations go on; once it is back it is said to be there.
///
/// The cases are, while a cluster is down and has been for long enough to be missed, each reading of an
/// index with an entry that lives there, and each writing there or elsewhere; and each entry at rest.
pub(crate) struct HomesAway;

/// A cluster that was there when somebody last looked counts as there for 15 s.
const MISSED_US: u64 = 16_000_000;
/// What fast is for a caller whose connection is refused: four tries, about two seconds apart in all.
const FAST_US: u64 = 5_000_000;
/// A fault that has been over for so long leaves no back-off behind.
const CALM_US: u64 = 60_000_000;

impl Judge for HomesAway {
    fn name(&self) -> &'static str {
        "homes-away"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["RDV-006"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        // Who starts machines by hand makes it unknown whether one is down.
        if facts.faults().had("restart") {
            return;
        }
        let served = facts.clusters_of_users();
        let mut away = Vec::new();
        for fault in facts.faults().iter().filter(|fault| fault.takes_down()) {
            let struck = facts.world().into_iter().flat_map(|world| &world.clusters);
            let struck = struck.filter(|cluster| facts.faults().strikes(fault, cluster.name.as_str()));
            away.extend(struck.map(|cluster| (fault, &cluster.name)));
        }
        if away.is_empty() {
            return;
        }
        for asked in facts.calls().iter().filter(|asked| matches!(asked.verb, Verb::ReadIndex | Verb::Post)) {
            let own = served.get(asked.actor).filter(|own| own.len() == 1).and_then(|own| own.first());
            let Some(own) = own else { continue };
            for (fault, home) in away.iter().filter(|(fault, home)| during(asked, fault) && home != own) {
                judge_while_away(facts, asked, fault, home, own, case);
            }
        }
        judge_at_rest(facts, case);
    }
}

/// Whether a call began and ended while its machine was down.
fn during(asked: &Asked<'_>, fault: &Fault<'_>) -> bool {
    let ended = |back: crate::event::EventId| fault.ended.is_none_or(|ended| back < ended);
    fault.began < asked.id && asked.back.is_some_and(|back| ended(back.id))
}

fn judge_while_away(
    facts: &Facts<'_>,
    asked: &Asked<'_>,
    fault: &Fault<'_>,
    home: &ClusterName,
    own: &ClusterName,
    case: &mut Casebook,
) {
    match (asked.call, asked.answer()) {
        (Call::ReadIndex { .. }, Some(Answer::Index { entries, .. }))
            if asked.at_us >= fault.from_us.saturating_add(MISSED_US) =>
        {
            for entry in entries.iter().filter(|entry| entry.home == *home) {
                case.reached();
                if entry.reachable {
                    let (who, url) = (asked.actor.as_str(), &entry.url);
                    let statement =
                        format!("{home} was down, and the index of {who} says that {url} is there");
                    case.violated("said-to-be-there", statement, asked.events().chain([fault.began]));
                }
            }
        }
        (Call::Post { conversation, .. }, _) => {
            let lives = facts.cluster_of(conversation);
            match lives {
                Some(lives) if lives == *home => judge_write(facts, asked, fault, conversation, own, case),
                Some(lives) => judge_other(facts, asked, fault, conversation, [&lives, own], case),
                None => {}
            }
        }
        _ => {}
    }
}

/// A write to a home that is down is refused, and soon.
fn judge_write(
    facts: &Facts<'_>,
    asked: &Asked<'_>,
    fault: &Fault<'_>,
    conversation: &Url,
    own: &ClusterName,
    case: &mut Casebook,
) {
    let Some(back) = asked.back else { return };
    let events = || asked.events().chain([fault.began]);
    let who = asked.actor.as_str();
    if let Outcome::Done { answer: Answer::Accepted { redirected_to: None, .. } } = back.outcome {
        case.reached();
        let statement = format!("the home of {conversation} was down, and it accepted what {who} wrote");
        return case.violated("accepted-without-its-home", statement, events());
    }
    // A connection that nobody refuses is waited for; so is the own cluster when it does not answer.
    let path = [own.as_str(), asked.host];
    if fault.family != "crash"
        || !facts.faults().spare(&path, asked.at_us.saturating_sub(CALM_US), back.at_us)
    {
        return;
    }
    case.reached();
    let took = back.at_us - asked.at_us;
    if took > FAST_US {
        let statement = format!("{who} waited {} ms for a home that was down", took / 1_000);
        case.violated("not-refused-fast", statement, events());
    }
}

/// Where the home is there and nothing else is wrong, writing works.
fn judge_other(
    facts: &Facts<'_>,
    asked: &Asked<'_>,
    fault: &Fault<'_>,
    conversation: &Url,
    path: [&ClusterName; 2],
    case: &mut Casebook,
) {
    let Some(back) = asked.back else { return };
    let machines = [path[0].as_str(), path[1].as_str(), asked.host];
    let since = asked.at_us.saturating_sub(CALM_US);
    let raced = facts.conversations().at(conversation).is_none_or(|known| known.is_superseded());
    if raced || !facts.faults().spare(&machines, since, back.at_us) {
        return;
    }
    case.reached();
    if !matches!(back.outcome, Outcome::Done { .. } | Outcome::Refused { status: 400..=499, .. }) {
        let who = asked.actor.as_str();
        let statement = format!("{who} could not write to {conversation}, whose home was there");
        case.violated("others-held-up", statement, asked.events().chain([fault.began]));
    }
}

/// Once nothing is wrong any more, nobody is said to be away.
fn judge_at_rest(facts: &Facts<'_>, case: &mut Casebook) {
    let Some(rest) = facts.quiescent().and_then(|rest| facts.history().event(rest)) else { return };
    let served = facts.clusters_of_users();
    for (user, index) in &facts.finals().indexes {
        let own = served.get(*user).into_iter().flatten().map(|own| own.as_str());
        let own: Vec<&str> = own.collect();
        for entry in index.entries.values() {
            let machines: Vec<&str> = own.iter().copied().chain([entry.home.as_str()]).collect();
            if !facts.faults().spare(&machines, rest.at_us.saturating_sub(CALM_US), u64::MAX) {
                continue;
            }
            case.reached();
            if !entry.reachable {
                let (who, home) = (user.as_str(), &entry.home);
                let statement = format!("nothing was wrong, and the index of {who} says that {home} is away");
                case.violated("said-to-be-away", statement, index.events.iter().copied());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FaultPhase::{self, Began, Ended};
    use crate::judge::{Ruling, Verdict};
    use crate::testing::{Story, conversation_url, index_entry, message};
    use fusion_protocol::conversation::ConversationState::Bound;
    use fusion_protocol::index::IndexEntry;
    use fusion_protocol::{Code, Count};
    use serde_json::json;
    use std::time::Duration;

    fn crash(story: &mut Story, phase: FaultPhase) {
        story.fault("crash", "crash", phase, json!({ "kind": "crash", "host": "a" }));
    }

    /// Bob has a chat at Alice's cluster and one at his own; then Alice's is down for 20 s.
    fn away() -> (Story, Url, Url) {
        let mut story = Story::new();
        let (there, here) = (conversation_url("a", 1), conversation_url("b", 1));
        story.creates("alice", "bob", &there, Bound);
        story.creates("bob", "carol", &here, Bound);
        crash(&mut story, Began);
        story.wait(Duration::from_secs(20));
        (story, there, here)
    }

    fn reads_index(story: &mut Story, url: &Url, reachable: bool) {
        let entry = IndexEntry { reachable, ..index_entry(url, 1) };
        let answer = Answer::Index { entries: vec![entry], cursor: Count(1) };
        story.does("bob", Call::ReadIndex { after: Count(0) }, answer);
    }

    fn kinds(verdict: &Verdict) -> Vec<&str> {
        verdict.violations.iter().filter_map(|found| found.fingerprint.rsplit('/').next()).collect()
    }

    #[test]
    fn a_home_that_is_down_is_marked_and_refused_fast_and_others_go_on() {
        let (mut story, there, here) = away();
        reads_index(&mut story, &there, false);
        let asked = story.asks("bob", crate::testing::post(&there, "k", "hello?"));
        story.returns(asked, Outcome::Unreachable {});
        story.posts("bob", &here, &message("bob", "hello", 1));
        crash(&mut story, Ended);
        story.wait(Duration::from_secs(90));
        story.comes_to_rest();
        reads_index(&mut story, &there, true);
        let verdict = HomesAway.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 4), "{verdict:?}");
    }

    #[test]
    fn a_home_that_is_down_and_said_to_be_there_violates() {
        let (mut story, there, _) = away();
        reads_index(&mut story, &there, true);
        crash(&mut story, Ended);
        assert_eq!(kinds(&HomesAway.judge(story.told())), ["said-to-be-there"]);
    }

    #[test]
    fn a_write_that_somebody_else_accepts_violates() {
        let (mut story, there, _) = away();
        story.posts("bob", &there, &message("bob", "hello?", 1));
        crash(&mut story, Ended);
        assert_eq!(kinds(&HomesAway.judge(story.told())), ["accepted-without-its-home"]);
    }

    #[test]
    fn a_write_that_hangs_violates() {
        let (mut story, there, _) = away();
        let asked = story.asks("bob", crate::testing::post(&there, "k", "hello?"));
        story.wait(Duration::from_secs(6));
        story.returns(asked, Outcome::Unreachable {});
        crash(&mut story, Ended);
        assert_eq!(kinds(&HomesAway.judge(story.told())), ["not-refused-fast"]);
    }

    #[test]
    fn another_conversation_that_is_held_up_violates() {
        let (mut story, _, here) = away();
        story.is_refused("bob", crate::testing::post(&here, "k", "hello?"), Code::Unavailable);
        crash(&mut story, Ended);
        assert_eq!(kinds(&HomesAway.judge(story.told())), ["others-held-up"]);
    }

    #[test]
    fn a_home_that_is_back_and_said_to_be_away_violates() {
        let (mut story, there, _) = away();
        crash(&mut story, Ended);
        story.wait(Duration::from_secs(90));
        story.comes_to_rest();
        reads_index(&mut story, &there, false);
        assert_eq!(kinds(&HomesAway.judge(story.told())), ["said-to-be-away"]);
    }

    #[test]
    fn a_reading_before_anybody_could_miss_it_proves_nothing() {
        let mut story = Story::new();
        let there = conversation_url("a", 1);
        story.creates("alice", "bob", &there, Bound);
        crash(&mut story, Began);
        reads_index(&mut story, &there, true);
        crash(&mut story, Ended);
        assert!(HomesAway.judge(story.told()).had_no_case());
    }
}
