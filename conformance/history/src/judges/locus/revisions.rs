//! LOC-008: a locus only goes forward, for every reader.

use fusion_protocol::Url;

use super::locus_of;
use crate::event::{Answer, Call, EventId};
use crate::facts::{Asked, Facts};
use crate::judge::{Casebook, Evidence, Judge};
use crate::judges::floor::Floor;
use crate::table::Table;

/// LOC-008: (instance, rev) never goes backwards, whoever reads, and `rev` does not restart with a new
/// call; whoever asks what is new since a revision is told, if there is anything.
///
/// A case is an answer about a locus of which an earlier answer is known.
pub(crate) struct RevisionsOnlyRise;

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

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let mut seen: Table<&Url, Seen> = Table::default();
        for (asked, back) in facts.returned() {
            if let (Call::ReadLocusSince { locus, since }, Some(Answer::LocusUnchanged { .. })) =
                (asked.call, asked.answer())
                && let Some(seen) = seen.get(locus)
            {
                judge_unchanged(asked, locus, since.0, seen, case);
            }
            let Some(locus) = locus_of(asked) else { continue };
            let seen = seen.entry(&locus.url).or_default();
            if let Some((told, rev)) = seen.rev.at(asked.id) {
                case.reached();
                judge_order(asked, told, (rev, locus.rev.0), "revision", case);
            }
            if let Some((told, instance)) = seen.instance.at(asked.id) {
                judge_order(asked, told, (instance, locus.instance.0), "call", case);
            }
            seen.rev.rise(back.id, locus.rev.0);
            seen.instance.rise(back.id, locus.instance.0);
        }
    }
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

/// Nothing is new only if nothing was when it was asked.
fn judge_unchanged(asked: &Asked<'_>, locus: &Url, since: u64, seen: &Seen, case: &mut Casebook) {
    let Some((told, rev)) = seen.rev.at(asked.id) else { return };
    case.reached();
    if rev > since {
        let statement = format!("{locus} had come to revision {rev}, and nothing was new since {since}");
        case.violated("change-withheld", statement, asked.events().chain([told]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Ruling;
    use crate::testing::{Story, conversation_url, locus, locus_read, locus_url};
    use fusion_protocol::Count;
    use fusion_protocol::locus::LocusState;

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
