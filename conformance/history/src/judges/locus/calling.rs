//! LOC-002: whoever is called learns of it.

use fusion_protocol::locus::LocusState;
use fusion_protocol::{Address, Url};

use super::locus_of;
use crate::event::{Answer, Call};
use crate::facts::{Asked, Facts, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::judges::rendezvous::count;
use crate::table::{Set, Table};

/// LOC-002: calling is joining: the others are asked to join, and find the call by the notification or
/// in their list of active loci.
///
/// The cases are each called participant of each call who found it or must have, and each list of active
/// loci read at rest while a call goes on.
pub(crate) struct CallingIsJoining;

/// The latest call of a locus that a user is known to have found.
type Found<'h> = Table<(&'h Address, &'h str), u64>;

impl Judge for CallingIsJoining {
    fn name(&self) -> &'static str {
        "calling-is-joining"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["LOC-002"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let found = found(facts);
        let standing = facts.standing();
        let deleted = facts.deprovisioned();
        let mut begun: Set<(&Url, u64)> = Set::default();
        for asked in facts.asked_to(Verb::Join) {
            let (Call::Join { .. }, Some(locus)) = (asked.call, locus_of(asked)) else { continue };
            let is_known = facts.conversations().at(&locus.conversation_url).is_some();
            if is_known && !standing.contains(locus.conversation_url.as_str()) {
                continue;
            }
            if !begun.insert((&locus.url, locus.instance.0)) {
                continue;
            }
            for called in locus.participants.iter().map(|participant| &participant.user) {
                if called != asked.actor && !deleted.contains(called) {
                    judge_called(facts, asked, called, &found, case);
                }
            }
        }
        judge_lists(facts, case);
    }
}

fn judge_called(
    facts: &Facts<'_>,
    asked: &Asked<'_>,
    called: &Address,
    found: &Found<'_>,
    case: &mut Casebook,
) {
    let Some(locus) = locus_of(asked) else { return };
    let (url, instance) = (locus.url.as_str(), locus.instance.0);
    let by_asking = found.get(&(called, url)).is_some_and(|known| *known >= instance);
    let mut told = facts.devices().told(called, url);
    let is_of_call = |data: &serde_json::Value| {
        data.get("instance").and_then(count).is_some_and(|known| known >= instance)
    };
    if by_asking || told.any(|told| told.id > asked.id && is_of_call(told.data)) {
        return case.reached();
    }
    let mut listening = facts.devices().listening(called, asked.id).peekable();
    if listening.peek().is_none() {
        return case.not_observed("whether somebody who was called, and had no device connected, could know");
    }
    case.reached();
    if !listening.any(|device| device.resynced_after(asked.id)) {
        let statement = format!("{} was called on {url} and no device of theirs rang", called.as_str());
        case.violated("never-rang", statement, asked.events());
    }
}

/// What users found by their own asking: the list of active loci, a join, a refusal to join.
fn found<'h>(facts: &Facts<'h>) -> Found<'h> {
    let mut found = Found::default();
    let mut note = |user: &'h Address, locus: &'h Url, instance: u64| {
        let known = found.entry((user, locus.as_str())).or_insert(instance);
        *known = instance.max(*known);
    };
    let finds = |asked: &&Asked<'_>| matches!(asked.verb, Verb::ListLoci | Verb::Join | Verb::SetState);
    for asked in facts.calls().iter().filter(finds) {
        match (asked.call, asked.answer()) {
            (_, Some(Answer::Loci { loci })) => {
                for locus in loci {
                    note(asked.actor, &locus.locus_url, locus.instance.0);
                }
            }
            (Call::Join { .. } | Call::SetState { .. }, Some(_)) => {
                if let Some(locus) = locus_of(asked) {
                    note(asked.actor, &locus.url, locus.instance.0);
                }
            }
            _ => {}
        }
    }
    found
}

/// A call that goes on at rest stands in the list of everybody in it.
fn judge_lists(facts: &Facts<'_>, case: &mut Casebook) {
    let finals = facts.finals();
    let mut seen: Set<(&Address, &Url)> = Set::default();
    for read in finals.loci.values() {
        let Some(locus) = locus_of(read) else { continue };
        if !matches!(locus.state, LocusState::Initializing | LocusState::Active) {
            continue;
        }
        for member in locus.participants.iter().map(|participant| &participant.user) {
            let list = finals.active.get(member);
            let Some((list, Answer::Loci { loci })) = list.and_then(|list| Some((list, list.answer()?)))
            else {
                continue;
            };
            if !seen.insert((member, &locus.url)) {
                continue;
            }
            case.reached();
            let listed = |active: &&fusion_protocol::locus::ActiveLocus| active.locus_url == locus.url;
            if !loci.iter().any(|active| listed(&active) && active.instance >= locus.instance) {
                let statement =
                    format!("{} goes on and {} has it not in the list", locus.url, member.as_str());
                case.violated("not-listed", statement, read.events().chain(list.events()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Ruling;
    use crate::testing::{Story, active, conversation_url, locus, locus_read};
    use fusion_protocol::conversation::ConversationState::Bound;
    use fusion_protocol::locus::ParticipantState::{Joined, Notified};
    use fusion_protocol::locus::{Locus, LocusState};
    use fusion_protocol::mercury::EventType;
    use serde_json::json;

    fn ringing() -> Locus {
        let members = [("alice", Joined), ("bob", Notified)];
        locus(&conversation_url("a", 1), LocusState::Initializing, 1, &members)
    }

    /// Bob is online and Alice calls him.
    fn alice_calls_bob() -> Story {
        let mut story = Story::new();
        story.is_online("bob");
        story.creates("alice", "bob", &conversation_url("a", 1), Bound);
        story.joins("alice", 0, &ringing());
        story
    }

    #[test]
    fn bobs_phone_rings() {
        let mut story = alice_calls_bob();
        story.is_told("bob", EventType::LocusRinging, &ringing().url, json!({ "instance": "1" }));
        let verdict = CallingIsJoining.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn bob_finds_the_call_in_his_list() {
        let mut story = alice_calls_bob();
        let loci = vec![active(&ringing(), Notified)];
        story.does("bob", Call::ListLoci {}, Answer::Loci { loci });
        assert_eq!(CallingIsJoining.judge(story.told()).ruling, Ruling::Holds);
    }

    #[test]
    fn a_phone_that_never_rings_violates() {
        let mut story = alice_calls_bob();
        story.comes_to_rest();
        let verdict = CallingIsJoining.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Violated, 1));
        assert_eq!(verdict.violations[0].fingerprint, "calling-is-joining/LOC-002/never-rang");
    }

    #[test]
    fn a_call_that_is_not_listed_violates() {
        let mut story = alice_calls_bob();
        story.is_told("bob", EventType::LocusRinging, &ringing().url, json!({ "instance": "1" }));
        story.comes_to_rest();
        story.does("alice", Call::ReadLocus { locus: ringing().url }, locus_read(&ringing()));
        story.does("bob", Call::ListLoci {}, Answer::Loci { loci: vec![] });
        let verdict = CallingIsJoining.judge(story.told());
        assert_eq!(verdict.violations[0].fingerprint, "calling-is-joining/LOC-002/not-listed");
    }

    #[test]
    fn whoever_has_no_device_cannot_be_rung() {
        let mut story = Story::new();
        story.creates("alice", "bob", &conversation_url("a", 1), Bound);
        story.joins("alice", 0, &ringing());
        story.comes_to_rest();
        let verdict = CallingIsJoining.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached, verdict.unjudged), (Ruling::Unknown, 0, 1));
    }
}
