//! LOC-003: who joins what, and two who call each other at once.

use fusion_protocol::locus::{LEASE_SECONDS, Locus, LocusState, ParticipantState};
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, Code, Url};

use super::locus_of;
use crate::event::{Body, Call, EventId};
use crate::facts::{Asked, Facts, Moment, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::judges::floor::Floor;
use crate::judges::rendezvous::count;
use crate::table::Table;

/// LOC-003: two who call each other at once are in one call, instance n+1, both joined, nobody left
/// ringing; a join of a call that is over is refused and rings nobody.
///
/// The cases are the joins that two participants made at once, and those of a call that was over.
pub(crate) struct GlareIsOneCall;

/// By locus, call and user: when the user was first known to have joined it.
type Joined<'h> = Table<(&'h Url, u64, &'h Address), EventId>;

impl Judge for GlareIsOneCall {
    fn name(&self) -> &'static str {
        "glare-is-one-call"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["LOC-003"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let mut over: Table<&Url, Floor> = Table::default();
        let mut joined: Joined<'_> = Joined::default();
        for moment in facts.moments() {
            match moment {
                Moment::Returned(asked, back) => {
                    if let Call::Join { locus, expect, .. } = asked.call {
                        let over = over.get(locus).and_then(|floor| floor.at(asked.id));
                        judge_join(asked, locus, expect.0, over, case);
                    }
                    let Some(locus) = locus_of(asked) else { continue };
                    judge_ringing(asked, locus, &joined, case);
                    over.entry(&locus.url).or_default().rise(back.id, over_by(locus));
                    if matches!(asked.call, Call::Join { .. }) {
                        joined.entry((&locus.url, locus.instance.0, asked.actor)).or_insert(back.id);
                    }
                }
                Moment::Seen(event) => {
                    if let Body::Deliver { event_type: EventType::LocusEnded, resource, data, .. } =
                        &event.body
                        && let Some(instance) = data.get("instance").and_then(count)
                    {
                        over.entry(resource).or_default().rise(event.id, instance);
                    }
                }
                Moment::Asked(_) => {}
            }
        }
        judge_glare(facts, case);
    }
}

/// The last call of a locus that is over for sure.
fn over_by(locus: &Locus) -> u64 {
    let is_over = locus.state == LocusState::Inactive;
    if is_over { locus.instance.0 } else { locus.instance.0.saturating_sub(1) }
}

fn judge_join(
    asked: &Asked<'_>,
    asked_for: &Url,
    expect: u64,
    over: Option<(EventId, u64)>,
    case: &mut Casebook,
) {
    let wanted = expect.saturating_add(1);
    if let Some((since, over)) = over
        && over >= wanted
    {
        if asked.answer().is_some() {
            case.reached();
            let statement = format!("call {wanted} of {asked_for} was over, and a join of it was accepted");
            case.violated("joined-what-is-over", statement, asked.events().chain([since]));
        } else if asked.refusal() == Some((409, Some(Code::CallOver))) {
            case.reached();
        }
        return;
    }
    // A join that was led to the winner of a race counts the calls of another locus.
    let Some(locus) = locus_of(asked).filter(|locus| locus.url == *asked_for) else { return };
    if locus.instance.0 != wanted {
        let (url, instance) = (&locus.url, locus.instance);
        let statement = format!("a join of {url} that expected {expect} is in call {instance}");
        case.violated("wrong-instance", statement, asked.events());
    }
    if state_of(locus, asked.actor) != Some(ParticipantState::Joined) {
        let statement = format!("{} joined {} and is not joined", asked.actor.as_str(), locus.url);
        case.violated("not-joined", statement, asked.events());
    }
}

/// Whoever has joined a call rings no more in it.
fn judge_ringing(asked: &Asked<'_>, locus: &Locus, joined: &Joined<'_>, case: &mut Casebook) {
    for participant in &locus.participants {
        if !matches!(participant.state, ParticipantState::Notified | ParticipantState::Idle) {
            continue;
        }
        let since = joined.get(&(&locus.url, locus.instance.0, &participant.user));
        if let Some(since) = since.filter(|since| **since < asked.id) {
            let who = participant.user.as_str();
            let statement = format!("{who} had joined call {} of {} and rings", locus.instance, locus.url);
            case.violated("left-ringing", statement, asked.events().chain([*since]));
        }
    }
}

/// Joins of one locus by two participants, with the same expectation, at the same time.
fn judge_glare(facts: &Facts<'_>, case: &mut Casebook) {
    let mut joins: Table<(&Url, u64), Vec<&Asked<'_>>> = Table::default();
    let mut endings: Table<&Url, Vec<EventId>> = Table::default();
    for asked in facts.calls().iter().filter(|asked| matches!(asked.verb, Verb::Join | Verb::SetState)) {
        match asked.call {
            Call::Join { locus, expect, .. } => joins.entry((locus, expect.0)).or_default().push(asked),
            Call::SetState { locus, .. } => endings.entry(locus).or_default().push(asked.id),
            _ => {}
        }
    }
    joins.sort_unstable_keys();
    for ((locus, expect), joins) in &joins {
        let endings = endings.get(locus).map(Vec::as_slice).unwrap_or_default();
        for (at, one) in joins.iter().enumerate() {
            let overlapping = joins[at + 1..].iter().take_while(|other| one.overlaps(other));
            for other in overlapping.filter(|other| other.actor != one.actor) {
                judge_two(one, other, locus, *expect, endings, case);
            }
        }
    }
}

fn judge_two(
    one: &Asked<'_>,
    other: &Asked<'_>,
    url: &Url,
    expect: u64,
    endings: &[EventId],
    case: &mut Casebook,
) {
    let events = || one.events().chain(other.events());
    match (locus_of(one), locus_of(other)) {
        (Some(left), Some(right)) => {
            case.reached();
            if left.url == right.url && left.instance != right.instance {
                let statement = format!("two joins of {url} at once ended in two calls");
                case.violated("two-calls", statement, events());
            }
        }
        (Some(joined), None) | (None, Some(joined)) if joined.url == *url => {
            let refused = if locus_of(one).is_none() { one } else { other };
            let is_over = refused.refusal() == Some((409, Some(Code::CallOver)));
            if is_over && could_not_be_over(one, other, endings) {
                case.reached();
                let wanted = expect.saturating_add(1);
                let statement =
                    format!("of two joins of {url} at once one was told that call {wanted} is over");
                case.violated("glare-refused", statement, events());
            }
        }
        _ => {}
    }
}

/// Nobody had left or declined by then, and no lease can have run out.
fn could_not_be_over(one: &Asked<'_>, other: &Asked<'_>, endings: &[EventId]) -> bool {
    let ends = [one.back, other.back].into_iter().flatten();
    let last = ends.clone().map(|back| back.id).max();
    let last_us = ends.map(|back| back.at_us).max().unwrap_or(0);
    let in_time = last_us.saturating_sub(one.at_us.min(other.at_us)) < LEASE_SECONDS * 1_000_000;
    in_time && endings.iter().all(|ending| last.is_some_and(|last| *ending > last))
}

fn state_of(locus: &Locus, user: &Address) -> Option<ParticipantState> {
    locus.participants.iter().find(|participant| participant.user == *user).map(|found| found.state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Answer;
    use crate::judge::Ruling;
    use crate::testing::{Story, conversation_url, join, joined, locus, locus_read};
    use fusion_protocol::locus::ParticipantState::{Joined, Left, Notified};

    fn call(instance: u64, state: LocusState, alice: ParticipantState, bob: ParticipantState) -> Locus {
        locus(&conversation_url("a", 1), state, instance, &[("alice", alice), ("bob", bob)])
    }

    fn kinds(story: &Story) -> Vec<String> {
        let verdict = GlareIsOneCall.judge(story.told());
        let kind = |print: &str| print.rsplit('/').next().unwrap_or_default().to_owned();
        verdict.violations.iter().map(|violation| kind(&violation.fingerprint)).collect()
    }

    /// Both join at once; Alice is answered first.
    fn glare(story: &mut Story, first: &Locus, second: &Locus) {
        let url = first.url.clone();
        let (alice, bob) =
            (story.asks("alice", join(&url, 0, "alice")), story.asks("bob", join(&url, 0, "bob")));
        story.answers(alice, joined(first));
        story.answers(bob, joined(second));
    }

    fn reads(story: &mut Story, who: &str, locus: &Locus) {
        let answer: Answer = locus_read(locus);
        story.does(who, Call::ReadLocus { locus: locus.url.clone() }, answer);
    }

    #[test]
    fn calling_each_other_at_once_ends_in_one_call() {
        let mut story = Story::new();
        let both = call(1, LocusState::Active, Joined, Joined);
        glare(&mut story, &call(1, LocusState::Initializing, Joined, Notified), &both);
        reads(&mut story, "alice", &both);
        let verdict = GlareIsOneCall.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn two_calls_out_of_glare_violate() {
        let mut story = Story::new();
        let second = call(2, LocusState::Initializing, Notified, Joined);
        glare(&mut story, &call(1, LocusState::Initializing, Joined, Notified), &second);
        assert_eq!(kinds(&story), ["wrong-instance", "two-calls"]);
    }

    #[test]
    fn somebody_left_ringing_violates() {
        let mut story = Story::new();
        let both = call(1, LocusState::Active, Joined, Joined);
        glare(&mut story, &call(1, LocusState::Initializing, Joined, Notified), &both);
        reads(&mut story, "alice", &call(1, LocusState::Initializing, Joined, Notified));
        assert_eq!(kinds(&story), ["left-ringing"]);
    }

    #[test]
    fn a_join_that_does_not_join_violates() {
        let mut story = Story::new();
        story.joins("alice", 0, &call(1, LocusState::Initializing, Notified, Notified));
        assert_eq!(kinds(&story), ["not-joined"]);
    }

    #[test]
    fn of_two_at_once_none_is_told_that_the_call_is_over() {
        let mut story = Story::new();
        let ringing = call(1, LocusState::Initializing, Joined, Notified);
        let url = ringing.url.clone();
        let (alice, bob) =
            (story.asks("alice", join(&url, 0, "alice")), story.asks("bob", join(&url, 0, "bob")));
        story.answers(alice, joined(&ringing));
        story.refuses(bob, Code::CallOver);
        assert_eq!(kinds(&story), ["glare-refused"]);
    }

    #[test]
    fn a_retried_join_of_a_call_that_is_over_is_refused() {
        let mut story = Story::new();
        let over = call(1, LocusState::Inactive, Left, Left);
        story.joins("alice", 0, &call(1, LocusState::Initializing, Joined, Notified));
        reads(&mut story, "alice", &over);
        story.is_refused("alice", join(&over.url, 0, "alice"), Code::CallOver);
        let verdict = GlareIsOneCall.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn a_retried_join_that_rings_again_violates() {
        let mut story = Story::new();
        let over = call(1, LocusState::Inactive, Left, Left);
        reads(&mut story, "alice", &over);
        story.joins("alice", 0, &call(2, LocusState::Initializing, Joined, Notified));
        assert_eq!(kinds(&story), ["joined-what-is-over"]);
    }

    #[test]
    fn a_call_after_a_call_is_the_next_one() {
        let mut story = Story::new();
        reads(&mut story, "alice", &call(1, LocusState::Inactive, Left, Left));
        story.joins("alice", 1, &call(2, LocusState::Initializing, Joined, Notified));
        let verdict = GlareIsOneCall.judge(story.told());
        assert_eq!((verdict.ruling, verdict.violated), (Ruling::Unknown, 0));
    }
}
