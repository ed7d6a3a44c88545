//! LOC-008: a locus only goes forward, for every reader.

use fusion_protocol::Url;

use super::locus_of;
use crate::event::{Answer, Call, EventId};
use crate::facts::{Asked, Back, Facts};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::judges::floor::Floor;
use crate::table::Table;

/// LOC-008: (instance, rev) never goes backwards, whoever reads, and `rev` does not restart with a new
/// call; whoever asks what is new since a revision is told, if there is anything. What is answered at last to
/// a question that had to be asked again and again is of the last time, not of the first (LOC-003).
///
/// A case is an answer about a locus of which an earlier answer is known.
pub(crate) struct RevisionsOnlyRise;

/// For how long a client waits for one answer at most, and a little more: what it is answered was so within
/// this time.
const ANSWER_MAX_US: u64 = 12_000_000;

/// What is known of one locus at least.
#[derive(Default)]
struct Seen {
    rev: Floor,
    instance: Floor,
}

impl Judge for RevisionsOnlyRise {
    fn name(&self) -> &'static str {
        "revisions-only-rise"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["LOC-008"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let mut seen: Table<&Url, Seen> = Table::default();
        for (asked, back) in facts.returned() {
            if let (Call::ReadLocusSince { locus, since }, Some(Answer::LocusUnchanged { rev })) =
                (asked.call, asked.answer())
            {
                let known = seen.get(locus).and_then(|seen| seen.rev.at(asked.id));
                judge_unchanged(asked, locus, (since.0, rev.0), known, case);
            }
            let Some(locus) = locus_of(asked) else { continue };
            let seen = seen.entry(&locus.url).or_default();
            let of = told_of(facts, asked, back);
            if let Some((told, rev)) = seen.rev.at(of) {
                case.reached();
                judge_order(asked, told, (rev, locus.rev.0), "revision", case);
            }
            if let Some((told, instance)) = seen.instance.at(of) {
                judge_order(asked, told, (instance, locus.instance.0), "call", case);
            }
            seen.rev.rise(back.id, locus.rev.0);
            seen.instance.rise(back.id, locus.instance.0);
        }
    }
}

/// From when on an answer tells how it was: not from before the question, nor from before the last time that
/// it was asked. Who stood still may have had the answer for a while.
fn told_of(facts: &Facts<'_>, asked: &Asked<'_>, back: Back<'_>) -> EventId {
    let last_asked_us = back.at_us.saturating_sub(ANSWER_MAX_US);
    if last_asked_us <= asked.at_us {
        return asked.id;
    }
    let faults = facts.faults();
    let stands_still = |family: &str| family == "pause" || family == "slow_cpu";
    if faults.iter().any(|fault| stands_still(fault.family) && faults.strikes(fault, asked.host)) {
        return asked.id;
    }
    let events = facts.history().events();
    let last_asked = events.partition_point(|event| event.at_us < last_asked_us);
    events.get(last_asked).map_or(asked.id, |event| event.id.max(asked.id))
}

fn judge_order(
    asked: &Asked<'_>,
    told: EventId,
    (known, shown): (u64, u64),
    what: &str,
    case: &mut Casebook,
) {
    if let Some(locus) = locus_of(asked).filter(|_| shown < known) {
        let statement = format!("{} had come to {what} {known} and shows {what} {shown}", locus.url);
        case.violated("went-back", statement, asked.events().chain([told]));
    }
}

/// Nothing is new only if nothing was when it was asked, and nothing that the answer itself names.
fn judge_unchanged(
    asked: &Asked<'_>,
    locus: &Url,
    (since, named): (u64, u64),
    known: Option<(EventId, u64)>,
    case: &mut Casebook,
) {
    if known.is_some() {
        case.reached();
    }
    let newest = known.filter(|(_, rev)| *rev > since);
    if newest.is_some() || named > since {
        let rev = newest.map_or(named, |(_, rev)| rev);
        let statement = format!("{locus} had come to revision {rev}, and nothing was new since {since}");
        let excerpt = asked.events().chain(newest.map(|(told, _)| told));
        case.violated("change-withheld", statement, excerpt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FaultPhase;
    use crate::judge::Ruling;
    use crate::testing::{self, Story, conversation_url, locus, locus_read, locus_url};
    use fusion_protocol::Count;
    use fusion_protocol::locus::LocusState;
    use serde_json::json;
    use std::time::Duration;

    /// Somebody reads the locus and finds it in a call, at a revision.
    fn finds(story: &mut Story, who: &str, instance: u64, rev: u64) {
        let mut found = locus(&conversation_url("a", 1), LocusState::Active, instance, &[]);
        found.rev = Count(rev);
        story.does(who, Call::ReadLocus { locus: found.url.clone() }, locus_read(&found));
    }

    fn is_told_nothing_is_new(story: &mut Story, who: &str, since: u64) {
        let locus = locus_url(&conversation_url("a", 1));
        let call = Call::ReadLocusSince { locus, since: Count(since) };
        story.does(who, call, Answer::LocusUnchanged { rev: Count(since) });
    }

    fn judged(story: &Story) -> (Ruling, u64, Vec<String>) {
        let verdict = RevisionsOnlyRise.judge(story.told());
        let kinds = verdict.violations.iter().map(|violation| violation.fingerprint.clone()).collect();
        (verdict.ruling, verdict.reached, kinds)
    }

    #[test]
    fn a_locus_that_goes_forward_holds() {
        let mut story = Story::new();
        finds(&mut story, "alice", 1, 3);
        finds(&mut story, "bob", 1, 3);
        finds(&mut story, "alice", 2, 7);
        is_told_nothing_is_new(&mut story, "bob", 7);
        assert_eq!(judged(&story), (Ruling::Holds, 3, vec![]));
    }

    #[test]
    fn a_revision_that_goes_back_or_restarts_violates() {
        let mut story = Story::new();
        finds(&mut story, "alice", 1, 3);
        finds(&mut story, "bob", 2, 1);
        assert_eq!(judged(&story).2, ["revisions-only-rise/LOC-008/went-back"]);
    }

    #[test]
    fn a_call_that_comes_again_violates() {
        let mut story = Story::new();
        finds(&mut story, "alice", 2, 3);
        finds(&mut story, "bob", 1, 4);
        assert_eq!(judged(&story).0, Ruling::Violated);
    }

    /// Bob asks to join call 1, and is answered after `waiting` that he is in it; Alice has ended it meanwhile.
    fn joins_a_call_that_is_over(waiting: Duration, paused: bool) -> Story {
        let mut story = Story::new();
        finds(&mut story, "alice", 1, 3);
        if paused {
            story.fault("p", "pause", FaultPhase::Began, json!({ "host": "bob1" }));
        }
        let mut joined = locus(&conversation_url("a", 1), LocusState::Active, 1, &[]);
        joined.rev = Count(4);
        let asked = story.asks("bob", testing::join(&joined.url, 0, "bob"));
        finds(&mut story, "alice", 1, 6);
        story.wait(waiting);
        story.answers(asked, testing::joined(&joined));
        story
    }

    #[test]
    fn an_answer_that_was_long_on_its_way_may_be_overtaken() {
        let story = joins_a_call_that_is_over(Duration::from_secs(9), false);
        assert_eq!(judged(&story), (Ruling::Holds, 2, vec![]));
    }

    #[test]
    fn an_answer_from_before_the_question_was_asked_again_violates() {
        let story = joins_a_call_that_is_over(Duration::from_secs(20), false);
        assert_eq!(judged(&story).2, ["revisions-only-rise/LOC-008/went-back"]);
    }

    #[test]
    fn a_device_that_stood_still_may_have_had_the_answer_all_the_time() {
        let story = joins_a_call_that_is_over(Duration::from_secs(20), true);
        assert_eq!(judged(&story), (Ruling::Holds, 2, vec![]));
    }

    #[test]
    fn an_answer_that_names_a_newer_revision_and_says_that_nothing_is_new_deceives() {
        let mut story = Story::new();
        let locus = locus_url(&conversation_url("a", 1));
        let call = Call::ReadLocusSince { locus, since: Count(9) };
        story.does("bob", call, Answer::LocusUnchanged { rev: Count(10) });
        assert_eq!(judged(&story).2, ["revisions-only-rise/LOC-008/change-withheld"]);
    }

    #[test]
    fn whoever_is_behind_and_told_that_nothing_is_new_was_deceived() {
        let mut story = Story::new();
        finds(&mut story, "alice", 1, 3);
        is_told_nothing_is_new(&mut story, "bob", 2);
        assert_eq!(judged(&story).2, ["revisions-only-rise/LOC-008/change-withheld"]);
    }

    #[test]
    fn readings_at_one_time_may_come_in_any_order() {
        let mut story = Story::new();
        let mut older = locus(&conversation_url("a", 1), LocusState::Active, 1, &[]);
        older.rev = Count(1);
        let slow = story.asks("bob", Call::ReadLocus { locus: older.url.clone() });
        finds(&mut story, "alice", 1, 3);
        story.answers(slow, locus_read(&older));
        assert_eq!(judged(&story), (Ruling::Unknown, 0, vec![]));
    }
}
