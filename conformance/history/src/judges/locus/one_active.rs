//! LOC-004: one call at a time.

use std::collections::BTreeMap;

use fusion_protocol::locus::{LEASE_SECONDS, Locus, LocusState, ParticipantState};
use fusion_protocol::{Address, Url};

use super::locus_of;
use crate::event::{Answer, Call, EventId};
use crate::facts::{Asked, Facts, Pair, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::judges::floor::Floor;
use crate::table::Table;

/// LOC-004: at most one active instance per locus, one active locus per pair at quiescence, and whoever
/// was in a call of a lost conversation ends connected.
///
/// A case is a pair that called, and whose loci were read when nothing moved any more.
pub(crate) struct OneActiveCall;

/// What is left of a pair's calls.
#[derive(Default)]
struct Calls<'f, 'h> {
    /// The last sign of life of each member's device in a call: a join or a renewed lease.
    alive: BTreeMap<&'h Address, &'f Asked<'h>>,
    /// Leavings and refusals, answered or not.
    gone: BTreeMap<&'h Address, EventId>,
    /// The last readings at rest, by locus.
    loci: BTreeMap<&'h Url, (Asked<'h>, &'h Locus)>,
    /// Active loci, as somebody's list has it at rest.
    listed: BTreeMap<&'h Url, EventId>,
}

impl Judge for OneActiveCall {
    fn name(&self) -> &'static str {
        "one-active-call"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["LOC-004"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        judge_instances(facts, case);
        for (pair, calls) in calls(facts) {
            if calls.alive.is_empty() {
                continue;
            }
            if calls.loci.is_empty() && calls.listed.is_empty() {
                case.not_observed("nobody read a pair's loci once nothing moved any more");
                continue;
            }
            case.reached();
            judge_active(pair, &calls, case);
            judge_connected(pair, &calls, case);
        }
    }
}

/// Once call n+1 of a locus was seen, nobody sees call n any more.
fn judge_instances(facts: &Facts<'_>, case: &mut Casebook) {
    let mut seen: Table<&Url, Floor> = Table::default();
    for (asked, back, locus) in facts.loci() {
        let floor = seen.entry(&locus.url).or_default();
        if let Some((since, instance)) = floor.at(asked.id)
            && locus.instance.0 < instance
        {
            let (url, older) = (&locus.url, locus.instance);
            let statement = format!("{url} had come to call {instance} and shows call {older}");
            case.violated("instance-went-back", statement, asked.events().chain([since]));
        }
        floor.rise(back.id, locus.instance.0);
    }
}

fn calls<'f, 'h>(facts: &'f Facts<'h>) -> Table<Pair<'h>, Calls<'f, 'h>> {
    let pair_of = |conversation: &Url| facts.conversations().at(conversation).and_then(|known| known.pair);
    let mut conversation_of: Table<&Url, &Url> = Table::default();
    for (.., locus) in facts.loci() {
        conversation_of.insert(&locus.url, &locus.conversation_url);
    }
    let pair_of_locus = |locus: &Url| conversation_of.get(locus).and_then(|url| pair_of(url));
    let mut calls: Table<Pair<'_>, Calls<'_, '_>> = Table::default();
    let in_calls = |asked: &&Asked<'_>| matches!(asked.verb, Verb::Join | Verb::Renew | Verb::SetState);
    for asked in facts.calls().iter().filter(in_calls) {
        match asked.call {
            Call::Join { .. } => {
                if let Some(pair) = locus_of(asked).and_then(|locus| pair_of(&locus.conversation_url)) {
                    calls.entry(pair).or_default().alive.insert(asked.actor, asked);
                }
            }
            Call::Renew { locus, .. } if asked.answer().is_some() => {
                if let Some(pair) = pair_of_locus(locus) {
                    calls.entry(pair).or_default().alive.insert(asked.actor, asked);
                }
            }
            Call::SetState { locus, .. } => {
                if let Some(pair) = pair_of_locus(locus) {
                    calls.entry(pair).or_default().gone.insert(asked.actor, asked.id);
                }
            }
            _ => {}
        }
    }
    for asked in facts.finals().loci.values() {
        let Some(locus) = locus_of(asked) else { continue };
        if let Some(pair) = pair_of(&locus.conversation_url) {
            calls.entry(pair).or_default().loci.insert(&locus.url, (asked.clone(), locus));
        }
    }
    for asked in facts.finals().active.values() {
        let Some(Answer::Loci { loci }) = asked.answer() else { continue };
        for active in loci.iter().filter(|active| active.state != LocusState::Inactive) {
            if let Some(pair) = pair_of(&active.conversation_url) {
                calls.entry(pair).or_default().listed.insert(&active.locus_url, asked.id);
            }
        }
    }
    calls.sort_unstable_keys();
    calls
}

/// A locus that was read is believed over any list, which is only a hint.
fn judge_active(pair: Pair<'_>, calls: &Calls<'_, '_>, case: &mut Casebook) {
    let read = calls.loci.iter().filter(|(_, (_, locus))| locus.state != LocusState::Inactive);
    let mut active: BTreeMap<&Url, EventId> = read.map(|(url, (asked, _))| (*url, asked.id)).collect();
    let unread = calls.listed.iter().filter(|(url, _)| !calls.loci.contains_key(*url));
    active.extend(unread.map(|(url, event)| (*url, *event)));
    if active.len() > 1 {
        let urls: Vec<&str> = active.keys().map(|url| url.as_str()).collect();
        let (one, other) = (pair.0.as_str(), pair.1.as_str());
        let statement = format!("{one} and {other} have {} active loci: {}", active.len(), urls.join(", "));
        case.violated("two-active-loci", statement, active.values().copied());
    }
}

/// Two whose devices were alive in the pair's calls until now, and of whom none has left, are in one call.
fn judge_connected(pair: Pair<'_>, calls: &Calls<'_, '_>, case: &mut Casebook) {
    let Some((read, _)) = calls.loci.values().max_by_key(|(asked, _)| asked.id) else { return };
    let stays = |user: &Address| {
        let alive = calls.alive.get(user)?;
        let since_us = read.at_us.saturating_sub(alive.back?.at_us);
        let left = calls.gone.get(user).is_some_and(|gone| *gone > alive.id);
        (since_us < LEASE_SECONDS * 1_000_000 && !left).then_some(*alive)
    };
    let (Some(one), Some(other)) = (stays(pair.0), stays(pair.1)) else { return };
    // Somebody who left before ended an earlier call; whether the last joins met is then not known.
    if calls.gone.values().any(|gone| *gone > one.id.min(other.id)) {
        return;
    }
    let is_in = |locus: &Locus, user: &Address| {
        locus
            .participants
            .iter()
            .any(|member| member.user == *user && member.state == ParticipantState::Joined)
    };
    if !calls.loci.values().any(|(_, locus)| is_in(locus, pair.0) && is_in(locus, pair.1)) {
        let (left, right) = (pair.0.as_str(), pair.1.as_str());
        let statement = format!("{left} and {right} are both in a call of theirs, and not in the same");
        case.violated("not-connected", statement, read.events().chain(one.events()).chain(other.events()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Ruling, WhyUnknown};
    use crate::testing::{Story, active, conversation_url, locus, locus_read};
    use fusion_protocol::conversation::ConversationState::Provisional;
    use fusion_protocol::locus::ParticipantState::{Joined, Left, Notified};
    use std::time::Duration;

    fn call(
        cluster: &str,
        instance: u64,
        state: LocusState,
        alice: ParticipantState,
        bob: ParticipantState,
    ) -> Locus {
        locus(&conversation_url(cluster, 1), state, instance, &[("alice", alice), ("bob", bob)])
    }

    fn kinds(story: &Story) -> Vec<String> {
        let verdict = OneActiveCall.judge(story.told());
        let kind = |print: &str| print.rsplit('/').next().unwrap_or_default().to_owned();
        verdict.violations.iter().map(|violation| kind(&violation.fingerprint)).collect()
    }

    fn reads(story: &mut Story, who: &str, locus: &Locus) {
        story.does(who, Call::ReadLocus { locus: locus.url.clone() }, locus_read(locus));
    }

    /// Both create at once, and each calls the other at the own conversation.
    fn race() -> Story {
        let mut story = Story::new();
        story.creates("alice", "bob", &conversation_url("a", 1), Provisional);
        story.creates("bob", "alice", &conversation_url("b", 1), Provisional);
        story.joins("alice", 0, &call("a", 1, LocusState::Initializing, Joined, Notified));
        story.joins("bob", 0, &call("b", 1, LocusState::Initializing, Notified, Joined));
        story
    }

    #[test]
    fn after_a_race_the_calls_go_on_as_one() {
        let mut story = race();
        story.comes_to_rest();
        reads(&mut story, "alice", &call("a", 1, LocusState::Active, Joined, Joined));
        reads(&mut story, "bob", &call("a", 1, LocusState::Active, Joined, Joined));
        let verdict = OneActiveCall.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn two_active_loci_of_one_pair_violate() {
        let mut story = race();
        story.comes_to_rest();
        reads(&mut story, "alice", &call("a", 1, LocusState::Initializing, Joined, Notified));
        reads(&mut story, "bob", &call("b", 1, LocusState::Initializing, Notified, Joined));
        assert_eq!(kinds(&story), ["two-active-loci", "not-connected"]);
    }

    #[test]
    fn somebody_who_is_dropped_by_the_merge_violates() {
        let mut story = race();
        story.comes_to_rest();
        reads(&mut story, "alice", &call("a", 1, LocusState::Initializing, Joined, Notified));
        assert_eq!(kinds(&story), ["not-connected"]);
    }

    #[test]
    fn whoever_left_or_whose_lease_ran_out_need_not_be_connected() {
        let mut story = race();
        let ended = call("a", 1, LocusState::Inactive, Left, Left);
        let (locus, instance) = (ended.url.clone(), ended.instance);
        let leave = Call::SetState { locus, state: Left, instance };
        story.does("alice", leave, locus_read(&ended));
        story.comes_to_rest();
        reads(&mut story, "alice", &ended);
        assert_eq!(OneActiveCall.judge(story.told()).ruling, Ruling::Holds);

        let mut story = race();
        story.wait(Duration::from_secs(60)).comes_to_rest();
        reads(&mut story, "alice", &ended);
        assert_eq!(OneActiveCall.judge(story.told()).ruling, Ruling::Holds);
    }

    #[test]
    fn a_list_is_only_a_hint_where_the_locus_was_read() {
        let mut story = race();
        story.wait(Duration::from_secs(60)).comes_to_rest();
        let loci = vec![active(&call("b", 1, LocusState::Active, Joined, Joined), Joined)];
        story.does("bob", Call::ListLoci {}, Answer::Loci { loci });
        reads(&mut story, "bob", &call("b", 1, LocusState::Inactive, Left, Left));
        reads(&mut story, "alice", &call("a", 1, LocusState::Active, Joined, Joined));
        assert!(kinds(&story).is_empty());
    }

    #[test]
    fn a_locus_that_goes_back_to_an_earlier_call_violates() {
        let mut story = Story::new();
        reads(&mut story, "alice", &call("a", 2, LocusState::Active, Joined, Joined));
        reads(&mut story, "bob", &call("a", 1, LocusState::Active, Joined, Joined));
        assert_eq!(kinds(&story), ["instance-went-back"]);
    }

    #[test]
    fn without_readings_at_rest_nothing_is_known() {
        let verdict = OneActiveCall.judge(race().told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Unknown, 0));
        assert!(matches!(verdict.why_unknown, Some(WhyUnknown::NotObserved { .. })));
    }
}
