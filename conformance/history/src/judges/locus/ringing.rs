//! LOC-006: no call rings for ever, and one device speaks for its user.

use fusion_protocol::conversation::Kind;
use fusion_protocol::locus::{Locus, LocusParticipant, ParticipantState, RING_SECONDS, Reason};
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, Url};
use serde_json::Value;

use super::locus_of;
use crate::event::{Call, EventId};
use crate::facts::{Asked, Back, Facts, Moment, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::judges::rendezvous::count;
use crate::table::{Set, Table};

/// How long a call may ring while its home serves, in microseconds; some more for a busy home.
const RINGS_MAX_US: u64 = (RING_SECONDS + 10) * 1_000_000;

/// LOC-006: a call that nobody takes is missed after the ring time-out; who declines on one device has
/// declined; a user's other devices are told when one has answered.
///
/// The cases are users who were rung and were seen to have missed or declined the call, or whose ring
/// should have been over, and devices that rang while another one of their user's answered.
pub(crate) struct RingingEnds;

/// Somebody's part in one call.
type Part<'h> = (&'h Url, u64, &'h Address);

#[derive(Default)]
struct Heard<'h> {
    /// When each call was first seen.
    begun: Table<(&'h Url, u64), u64>,
    /// Who has declined which call, and when that was known.
    declined: Table<Part<'h>, EventId>,
    /// When each user last tried to join a call of a locus.
    joins: Table<(&'h Url, &'h Address), EventId>,
    /// Who has ever asked a locus for anything but to be read, by the locus that answered, too: whoever
    /// asks the locus of a lost conversation is led to the winner's.
    acted: Set<(&'h Url, &'h Address)>,
    /// Who has asked to join somewhere and does not know where that led.
    lost_joins: Set<&'h Address>,
    /// Who has joined anything at all: the call of a pair may go on at another locus (LOC-004).
    callers: Set<&'h Address>,
    judged: Set<Part<'h>>,
}

impl Judge for RingingEnds {
    fn name(&self) -> &'static str {
        "ringing-ends"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["LOC-006"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let mut heard = Heard::default();
        for moment in facts.moments() {
            match moment {
                Moment::Asked(asked) if matches!(asked.verb, Verb::Join | Verb::SetState) => {
                    heard.asked(asked);
                }
                Moment::Returned(asked, back) => heard.returned(facts, asked, back, case),
                Moment::Asked(_) | Moment::Seen(_) => {}
            }
        }
        case.reached_many(heard.judged.len() as u64);
        judge_devices(facts, case);
    }
}

impl<'h> Heard<'h> {
    fn asked(&mut self, asked: &Asked<'h>) {
        match asked.call {
            Call::Join { locus, .. } => {
                let led_to = locus_of(asked).map(|answer| &answer.url);
                for locus in [Some(locus), led_to].into_iter().flatten() {
                    self.joins.insert((locus, asked.actor), asked.id);
                    self.callers.insert(asked.actor);
                    self.acted.insert((locus, asked.actor));
                }
                if asked.answer().is_none() {
                    self.lost_joins.insert(asked.actor);
                }
            }
            Call::SetState { locus, .. } => drop(self.acted.insert((locus, asked.actor))),
            _ => {}
        }
    }

    fn returned(&mut self, facts: &Facts<'_>, asked: &Asked<'h>, back: Back<'h>, case: &mut Casebook) {
        let Some(locus) = locus_of(asked) else { return };
        let call = (&locus.url, locus.instance.0);
        let begun = *self.begun.entry(call).or_insert(back.at_us);
        if let Call::SetState { state: ParticipantState::Declined, instance, .. } = asked.call
            && *instance == locus.instance
        {
            self.declined.entry((call.0, call.1, asked.actor)).or_insert(back.id);
        }
        let known = facts.conversations().at(&locus.conversation_url);
        if known.is_some_and(|known| known.is_superseded()) {
            return;
        }
        let is_group = known.is_some_and(|known| known.kind == Some(Kind::Group));
        let limit = deadline(facts, asked, locus, begun);
        for part in &locus.participants {
            self.judge_part(asked, locus, part, limit, case);
            self.judge_missed(asked, locus, part, is_group, case);
        }
    }

    fn judge_part(
        &mut self,
        asked: &Asked<'h>,
        locus: &'h Locus,
        part: &'h LocusParticipant,
        limit: Option<u64>,
        case: &mut Casebook,
    ) {
        let key = (&locus.url, locus.instance.0, &part.user);
        let (url, instance, who) = (&locus.url, locus.instance, part.user.as_str());
        let rings = part.state == ParticipantState::Notified;
        if rings && limit.is_some_and(|limit| asked.at_us > limit) {
            self.judged.insert(key);
            let statement =
                format!("call {instance} of {url} rings for {who} long after it should be missed");
            case.violated("rings-for-ever", statement, asked.events());
        }
        if let Some(declined) = self.declined.get(&key)
            && self.joins.get(&(url, &part.user)).is_none_or(|joined| joined < declined)
        {
            self.judged.insert(key);
            let answer = asked.back.is_some_and(|back| back.id == *declined);
            if rings && (asked.id > *declined || answer) {
                let statement = format!("{who} declined call {instance} of {url}, and it rings");
                case.violated("declined-and-rings", statement, asked.events().chain([*declined]));
            }
        }
    }

    /// Whoever was rung and never did anything has missed the call.
    fn judge_missed(
        &mut self,
        asked: &Asked<'_>,
        locus: &'h Locus,
        part: &'h LocusParticipant,
        is_group: bool,
        case: &mut Casebook,
    ) {
        let (url, instance, who) = (&locus.url, locus.instance, &part.user);
        let Some(reason) = part.reason.filter(|_| part.state == ParticipantState::Left) else { return };
        if self.acted.contains(&(url, who)) || (!is_group && self.callers.contains(who)) {
            return;
        }
        match reason {
            Reason::Missed => drop(self.judged.insert((url, instance.0, who))),
            Reason::Hangup | Reason::Lease | Reason::Alone => {
                self.judged.insert((url, instance.0, who));
                let who = who.as_str();
                let statement = format!("{who} never took call {instance} of {url}, and did not miss it");
                case.violated("not-missed", statement, asked.events());
            }
            Reason::Removed => {}
        }
    }
}

/// When the call must have stopped ringing, as far as is known when it is read; `None`: not yet.
fn deadline(facts: &Facts<'_>, asked: &Asked<'_>, locus: &Locus, begun: u64) -> Option<u64> {
    let home = facts.cluster_of(&locus.url)?;
    let calm = facts.faults().calm_at(&home, asked.at_us)?;
    Some(begun.max(calm).saturating_add(RINGS_MAX_US))
}

/// A device that rang is told when another one of its user's has answered.
fn judge_devices(facts: &Facts<'_>, case: &mut Casebook) {
    let mut answered: Set<Part<'_>> = Set::default();
    for asked in facts.asked_to(Verb::Join) {
        let (Call::Join { .. }, Some(locus)) = (asked.call, locus_of(asked)) else { continue };
        if !answered.insert((&locus.url, locus.instance.0, asked.actor)) || !locus.replaces.is_empty() {
            continue;
        }
        let resource = locus.url.as_str();
        for device in facts.devices().listening(asked.actor, asked.id) {
            let of_call = |data: &Value| data.get("instance").and_then(count) == Some(locus.instance.0);
            let told = device.told.get(resource).map(Vec::as_slice).unwrap_or_default();
            let rang = told.iter().find(|told| {
                told.event_type == EventType::LocusRinging && told.id < asked.id && of_call(told.data)
            });
            let Some(rang) = rang.filter(|_| device.host != asked.host) else { continue };
            let silenced = |told: &&crate::facts::Told<'_>| {
                of_call(told.data)
                    && (told.event_type == EventType::LocusAnsweredElsewhere
                        || told.data.get("participantState").and_then(Value::as_str) == Some("JOINED"))
            };
            case.reached();
            if device.told_after(resource, rang.id).find(silenced).is_none()
                && !device.resynced_after(rang.id)
            {
                let (host, who) = (device.host, asked.host);
                let statement =
                    format!("{resource} was answered on {who}, and {host} was not told to be quiet");
                case.violated("not-silenced", statement, asked.events().chain([rang.id]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FaultPhase;
    use crate::judge::Ruling;
    use crate::testing::{Story, conversation_url, join, joined, locus, locus_read, user};
    use fusion_protocol::locus::LocusState;
    use fusion_protocol::locus::ParticipantState::{Declined, Joined, Left, Notified};
    use serde_json::json;
    use std::time::Duration;

    fn call(state: LocusState, alice: ParticipantState, bob: ParticipantState) -> Locus {
        locus(&conversation_url("a", 1), state, 1, &[("alice", alice), ("bob", bob)])
    }

    fn ringing() -> Locus {
        call(LocusState::Initializing, Joined, Notified)
    }

    fn alice_calls_bob() -> Story {
        let mut story = Story::new();
        story.joins("alice", 0, &ringing());
        story
    }

    fn reads(story: &mut Story, who: &str, locus: &Locus) {
        story.does(who, Call::ReadLocus { locus: locus.url.clone() }, locus_read(locus));
    }

    fn declines(story: &mut Story, who: &str, after: &Locus) {
        let (locus, instance) = (after.url.clone(), after.instance);
        story.does(who, Call::SetState { locus, state: Declined, instance }, locus_read(after));
    }

    fn judged(story: &Story) -> (Ruling, u64, Vec<String>) {
        let verdict = RingingEnds.judge(story.told());
        let kind = |print: &str| print.rsplit('/').next().unwrap_or_default().to_owned();
        (verdict.ruling, verdict.reached, verdict.violations.iter().map(|it| kind(&it.fingerprint)).collect())
    }

    fn left(reason: Reason) -> Locus {
        let mut over = call(LocusState::Inactive, Left, Left);
        over.participants[1].reason = Some(reason);
        over
    }

    #[test]
    fn a_call_that_nobody_takes_is_missed() {
        let mut story = alice_calls_bob();
        reads(story.wait(Duration::from_secs(46)), "bob", &left(Reason::Missed));
        assert_eq!(judged(&story), (Ruling::Holds, 1, vec![]));
    }

    #[test]
    fn a_call_that_rings_for_ever_violates() {
        let mut story = alice_calls_bob();
        reads(story.wait(Duration::from_secs(40)), "bob", &ringing());
        assert_eq!(judged(&story), (Ruling::Unknown, 0, vec![]));
        reads(story.wait(Duration::from_secs(60)), "bob", &ringing());
        assert_eq!(judged(&story).2, ["rings-for-ever"]);
    }

    #[test]
    fn a_home_that_was_away_may_ring_as_long_again() {
        let mut story = alice_calls_bob();
        let crash = || json!({ "host": "a" });
        story.wait(Duration::from_secs(40)).fault("f", "crash", FaultPhase::Began, crash());
        story.wait(Duration::from_secs(4)).fault("f", "crash", FaultPhase::Ended, crash());
        reads(story.wait(Duration::from_secs(40)), "bob", &ringing());
        assert_eq!(judged(&story).0, Ruling::Unknown);
    }

    #[test]
    fn whoever_came_by_the_lost_locus_has_taken_the_call() {
        let mut story = alice_calls_bob();
        let lost = locus(&conversation_url("b", 2), LocusState::Inactive, 0, &[]);
        let taken = call(LocusState::Active, Joined, Joined);
        story.does("bob", join(&lost.url, 0, "bob"), joined(&taken));
        reads(&mut story, "alice", &left(Reason::Hangup));
        assert_eq!(judged(&story), (Ruling::Unknown, 0, vec![]));
    }

    #[test]
    fn whoever_never_took_the_call_has_missed_it_and_nothing_else() {
        let mut story = alice_calls_bob();
        reads(&mut story, "bob", &left(Reason::Hangup));
        assert_eq!(judged(&story).2, ["not-missed"]);
    }

    #[test]
    fn a_call_that_went_on_elsewhere_was_not_missed_there() {
        let mut story = alice_calls_bob();
        let elsewhere = locus(&conversation_url("b", 1), LocusState::Initializing, 1, &[("bob", Joined)]);
        story.joins("bob", 0, &elsewhere);
        reads(&mut story, "alice", &left(Reason::Hangup));
        assert_eq!(judged(&story).2, [""; 0]);
    }

    #[test]
    fn a_declined_call_that_rings_on_violates() {
        let mut story = alice_calls_bob();
        declines(&mut story, "bob", &call(LocusState::Inactive, Left, Declined));
        assert_eq!(judged(&story), (Ruling::Holds, 1, vec![]));
        reads(&mut story, "alice", &ringing());
        assert_eq!(judged(&story).2, ["declined-and-rings"]);
    }

    /// Bob's tablet rings; he answers on another device.
    fn bob_answers_on_his_phone(silenced: bool) -> Story {
        let mut story = Story::new();
        story.is_online("bob");
        story.joins("alice", 0, &ringing());
        let data = json!({ "instance": "1", "rev": "1" });
        story.is_told("bob", EventType::LocusRinging, &ringing().url, data.clone());
        let join = join(&ringing().url, 0, "bob");
        let body = crate::event::Body::Invoke { operation: "op".to_owned(), actor: user("bob"), call: join };
        let asked = story.happens("bob/phone", None, body);
        let both = call(LocusState::Active, Joined, Joined);
        story.answers(asked, joined(&both));
        if silenced {
            story.is_told("bob", EventType::LocusAnsweredElsewhere, &both.url, data);
        }
        story.comes_to_rest();
        story
    }

    #[test]
    fn the_other_devices_are_told_to_be_quiet() {
        assert_eq!(judged(&bob_answers_on_his_phone(true)), (Ruling::Holds, 1, vec![]));
    }

    #[test]
    fn a_device_that_rings_on_violates() {
        assert_eq!(judged(&bob_answers_on_his_phone(false)).2, ["not-silenced"]);
    }
}
