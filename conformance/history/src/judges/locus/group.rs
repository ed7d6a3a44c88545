//! LOC-009: a group's call follows the rules of every call, among more people.

use std::collections::BTreeSet;

use fusion_protocol::conversation::Kind;
use fusion_protocol::locus::{LEASE_SECONDS, Locus, LocusState, ParticipantState};
use fusion_protocol::{Address, Url};

use super::locus_of;
use crate::event::{Call, EventId};
use crate::facts::{Asked, Back, Facts, Moment, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::table::Table;

const LEASE_US: u64 = LEASE_SECONDS * 1_000_000;

/// LOC-009: a group has one call at a time, and whoever has joined it is in it until they leave: it goes on
/// for the last of them, too, for somebody may come back.
///
/// The cases are, in each call of a group that more than two have joined, those who joined and were looked
/// for later.
pub(crate) struct GroupCallsHold;

/// Somebody in a group's call.
struct Joined {
    instance: u64,
    at: EventId,
    /// When the device last asked for something that was done: its lease lasts from then on, at least.
    alive_us: u64,
}

#[derive(Default)]
struct Heard<'h> {
    joined: Table<(&'h Url, &'h Address), Joined>,
    /// Until when somebody's leaving was under way, the last time they asked for it.
    leaving: Table<(&'h Url, &'h Address), EventId>,
    /// Everybody who has joined a call.
    in_call: Table<(&'h Url, u64), BTreeSet<&'h Address>>,
    judged: Table<(&'h Url, u64), BTreeSet<&'h Address>>,
}

impl Judge for GroupCallsHold {
    fn name(&self) -> &'static str {
        "group-calls-hold"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["LOC-009"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let deleted = facts.deprovisioned();
        let shrunk = shrunk(facts);
        let mut heard = Heard::default();
        for moment in facts.moments() {
            match moment {
                Moment::Asked(asked) if asked.verb == Verb::SetState => heard.asked(asked),
                Moment::Returned(asked, back) => {
                    heard.acted(asked, back);
                    let Some(locus) = locus_of(asked) else { continue };
                    let known = facts.conversations().at(&locus.conversation_url);
                    let is_group = known.is_some_and(|known| known.kind == Some(Kind::Group));
                    if is_group && !shrunk.contains(&locus.conversation_url) && !deleted.contains(asked.actor)
                    {
                        heard.judge(asked, back, locus, case);
                    }
                }
                Moment::Asked(_) | Moment::Seen(_) => {}
            }
        }
        let full = heard.judged.iter().filter(|(call, _)| heard.in_call[*call].len() > 2);
        case.reached_many(full.map(|(_, judged)| judged.len() as u64).sum());
    }
}

/// The groups that somebody left or was taken out of: whoever did is out of the call, too (SEC-006).
fn shrunk<'h>(facts: &Facts<'h>) -> BTreeSet<&'h Url> {
    let calls = facts.asked_to(Verb::Post);
    calls
        .filter_map(|asked| match asked.call {
            Call::Post { conversation, verb, .. } if verb == "remove" || verb == "leave" => {
                Some(conversation)
            }
            _ => None,
        })
        .collect()
}

impl<'h> Heard<'h> {
    /// Who asks to leave may be gone from now on.
    fn asked(&mut self, asked: &Asked<'h>) {
        if let Call::SetState { locus, .. } = asked.call {
            self.joined.swap_remove(&(locus, asked.actor));
            let until = asked.back.map_or(EventId(u64::MAX), |back| back.id);
            let leaving = self.leaving.entry((locus, asked.actor)).or_insert(until);
            *leaving = (*leaving).max(until);
        }
    }

    fn acted(&mut self, asked: &Asked<'h>, back: Back<'h>) {
        match asked.call {
            Call::Join { .. } => {
                let Some(locus) = locus_of(asked) else { return };
                let instance = locus.instance.0;
                let (place, alive_us) = ((&locus.url, asked.actor), asked.at_us);
                // Of a join and a leave that were under way at once, either may have come last.
                if self.leaving.get(&place).is_none_or(|leaving| *leaving < asked.id) {
                    self.joined.insert(place, Joined { instance, at: back.id, alive_us });
                }
                self.in_call.entry((&locus.url, instance)).or_default().insert(asked.actor);
            }
            Call::Renew { locus, instance, .. } if asked.answer().is_some() => {
                if let Some(joined) = self.joined.get_mut(&(locus, asked.actor))
                    && joined.instance == instance.0
                {
                    joined.alive_us = joined.alive_us.max(asked.at_us);
                }
            }
            _ => {}
        }
    }

    /// Everybody who is in the call for sure is shown in it.
    fn judge(&mut self, asked: &Asked<'h>, back: Back<'h>, locus: &'h Locus, case: &mut Casebook) {
        let instance = locus.instance.0;
        for part in &locus.participants {
            let Some(joined) = self.joined.get(&(&locus.url, &part.user)) else { continue };
            let lasts = joined.alive_us.saturating_add(LEASE_US) > back.at_us;
            if joined.at >= asked.id || !lasts || joined.instance > instance {
                continue;
            }
            let (who, url, of_theirs) = (part.user.as_str(), &locus.url, joined.instance);
            self.judged.entry((url, of_theirs)).or_default().insert(&part.user);
            let events = || asked.events().chain([joined.at]);
            if joined.instance < instance {
                let statement =
                    format!("{who} is in call {of_theirs} of {url}, and call {instance} has begun");
                case.violated("call-beside-call", statement, events());
            } else if locus.state == LocusState::Inactive {
                let statement = format!("call {instance} of {url} is over, and {who} is in it");
                case.violated("ended-under-somebody", statement, events());
            } else if part.state != ParticipantState::Joined {
                let statement = format!("{who} is in call {instance} of {url}, which does not know of it");
                case.violated("dropped", statement, events());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Ruling;
    use crate::testing::{Story, conversation, conversation_url, created, locus, locus_read, user};
    use fusion_protocol::conversation::ConversationState::Bound;
    use fusion_protocol::locus::ParticipantState::{Joined, Left, Notified};
    use std::time::Duration;

    const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];

    fn call(instance: u64, state: LocusState, parts: [ParticipantState; 3]) -> Locus {
        let members: Vec<_> = PEOPLE.into_iter().zip(parts).collect();
        locus(&conversation_url("a", 1), state, instance, &members)
    }

    fn reads(story: &mut Story, who: &str, locus: &Locus) {
        story.does(who, Call::ReadLocus { locus: locus.url.clone() }, locus_read(locus));
    }

    /// All three are in a call of their group.
    fn all_in() -> Story {
        let url = conversation_url("a", 1);
        let mut story = Story::new();
        let create = Call::Create {
            kind: Kind::Group,
            others: vec![user("bob"), user("carol")],
            at: crate::testing::cluster("a"),
            key: String::new(),
        };
        story.does("alice", create, created(true, conversation(&url, &PEOPLE, Bound)));
        story.joins("alice", 0, &call(1, LocusState::Initializing, [Joined, Notified, Notified]));
        story.joins("bob", 0, &call(1, LocusState::Active, [Joined, Joined, Notified]));
        story.joins("carol", 0, &call(1, LocusState::Active, [Joined; 3]));
        story
    }

    fn leaves(story: &mut Story, who: &str, after: &Locus) {
        let (locus, instance) = (after.url.clone(), after.instance);
        story.does(who, Call::SetState { locus, state: Left, instance }, locus_read(after));
    }

    fn judged(story: &Story) -> (Ruling, u64, Vec<String>) {
        let verdict = GroupCallsHold.judge(story.told());
        let kind = |print: &str| print.rsplit('/').next().unwrap_or_default().to_owned();
        (verdict.ruling, verdict.reached, verdict.violations.iter().map(|it| kind(&it.fingerprint)).collect())
    }

    #[test]
    fn the_call_goes_on_for_the_last_one() {
        let mut story = all_in();
        leaves(&mut story, "alice", &call(1, LocusState::Active, [Left, Joined, Joined]));
        leaves(&mut story, "bob", &call(1, LocusState::Active, [Left, Left, Joined]));
        reads(&mut story, "carol", &call(1, LocusState::Active, [Left, Left, Joined]));
        leaves(&mut story, "carol", &call(1, LocusState::Inactive, [Left; 3]));
        assert_eq!(judged(&story), (Ruling::Holds, 3, vec![]));
    }

    #[test]
    fn a_call_that_ends_under_the_last_one_violates() {
        let mut story = all_in();
        leaves(&mut story, "alice", &call(1, LocusState::Active, [Left, Joined, Joined]));
        leaves(&mut story, "bob", &call(1, LocusState::Inactive, [Left; 3]));
        assert_eq!(judged(&story).2, ["ended-under-somebody"]);
    }

    #[test]
    fn somebody_who_is_forgotten_violates() {
        let mut story = all_in();
        reads(&mut story, "carol", &call(1, LocusState::Active, [Joined, Left, Joined]));
        assert_eq!(judged(&story).2, ["dropped"]);
    }

    /// A device joins once more when the relay changes, and its person hangs up before the answer is there.
    #[test]
    fn of_a_join_and_a_leave_at_once_either_may_come_last() {
        let mut story = all_in();
        let all = call(1, LocusState::Active, [Joined; 3]);
        let leave = Call::SetState { locus: all.url.clone(), state: Left, instance: all.instance };
        let again = story.asks("carol", crate::testing::join(&all.url, 0, "carol"));
        let leaving = story.asks("carol", leave);
        story.answers(again, crate::testing::joined(&all));
        let left = call(1, LocusState::Active, [Joined, Joined, Left]);
        reads(&mut story, "alice", &left);
        story.answers(leaving, locus_read(&left));
        reads(&mut story, "alice", &left);
        assert_eq!(judged(&story).2, [""; 0]);
        // Who joins when that is over is in the call again.
        story.joins("carol", 0, &all);
        reads(&mut story, "alice", &left);
        assert_eq!(judged(&story).2, ["dropped"]);
    }

    #[test]
    fn a_call_beside_the_call_violates() {
        let mut story = all_in();
        leaves(&mut story, "alice", &call(1, LocusState::Active, [Left, Joined, Joined]));
        story.joins("alice", 1, &call(2, LocusState::Initializing, [Joined, Notified, Notified]));
        assert_eq!(judged(&story).2, ["call-beside-call", "call-beside-call"]);
    }

    #[test]
    fn whoever_is_silent_for_a_lease_may_be_gone() {
        let mut story = all_in();
        reads(story.wait(Duration::from_secs(45)), "alice", &call(1, LocusState::Inactive, [Left; 3]));
        let verdict = GroupCallsHold.judge(story.told());
        assert!(verdict.violations.is_empty());
    }
}
