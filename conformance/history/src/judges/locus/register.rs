//! LOC-003: the calls of a locus come one after the other, for everybody.

use fusion_protocol::Url;

use super::locus_of;
use crate::event::{Call, Outcome};
use crate::facts::{Asked, Facts, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::judges::linear::{Impossible, Register, Span, What};
use crate::judges::rendezvous::undisputed;
use crate::table::Table;

/// LOC-003: which call of a locus is the current one is one register, and only joins write it: call n+1
/// begins by a join that expected n, and is never followed by an earlier one.
///
/// A case is a locus of which something was asked after another question about it had been answered. Where
/// two conversations raced, the winner's locus goes on with the loser's call, which nobody joined there.
pub(crate) struct CallsInOneOrder;

impl Judge for CallsInOneOrder {
    fn name(&self) -> &'static str {
        "calls-in-one-order"
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
        // Rows that a fault destroys are lost by the fault.
        if facts.faults().had("lose_rows") {
            return;
        }
        let undisputed = undisputed(facts);
        let mut loci: Table<&Url, Register<u64>> = Table::default();
        for (asked, back, locus) in facts.loci() {
            if undisputed.contains(locus.conversation_url.as_str()) {
                let (current, span) = (locus.instance.0, Span { asked: asked.id, back: Some(back.id) });
                let register = loci.entry(&locus.url).or_default();
                match (asked.verb, current) {
                    (_, 0) => register.read(None, span),
                    (Verb::Join, _) => register.wrote(current, span),
                    _ => register.read(Some(current), span),
                }
            }
        }
        for asked in facts.asked_to(Verb::Join).filter(|asked| may_have_joined(asked)) {
            if let Call::Join { locus, expect, .. } = asked.call
                && let Some(register) = loci.get_mut(locus)
            {
                register.wrote(expect.0.saturating_add(1), Span { asked: asked.id, back: None });
            }
        }
        loci.sort_unstable_keys();
        for (locus, register) in loci.iter().filter(|(_, register)| register.is_ordered()) {
            case.reached();
            if let Err(impossible) = register.judge() {
                accuse(locus, &impossible, case);
            }
        }
    }
}

/// Whether nobody knows what became of a join.
fn may_have_joined(asked: &Asked<'_>) -> bool {
    let decided = matches!(
        asked.back.map(|back| back.outcome),
        Some(Outcome::Refused { status: ..500, .. } | Outcome::Unreachable {})
    );
    !decided && locus_of(asked).is_none()
}

fn accuse(locus: &Url, impossible: &Impossible<u64>, case: &mut Casebook) {
    let (kind, statement) = match impossible.what {
        What::FromNowhere(call) => {
            ("call-from-nowhere", format!("{locus} is in call {call}, which nobody had asked to join"))
        }
        What::Again(one, other) => {
            let (one, other) = (one.unwrap_or(0), other.unwrap_or(0));
            ("earlier-call-again", format!("{locus} was in call {one}, then {other}, then {one} again"))
        }
    };
    case.violated(kind, statement, impossible.spans.iter().flat_map(|span| span.events()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Ruling, Verdict};
    use crate::testing::{Story, conversation_url, join, joined, locus, locus_read};
    use fusion_protocol::conversation::ConversationState::Bound;
    use fusion_protocol::locus::LocusState;
    use fusion_protocol::locus::ParticipantState::Joined;

    /// Alice's conversation with Bob, in which nobody has called.
    fn story() -> (Story, Url) {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.creates("alice", "bob", &url, Bound);
        (story, url)
    }

    fn call(url: &Url, instance: u64) -> fusion_protocol::locus::Locus {
        locus(url, LocusState::Active, instance, &[("alice", Joined)])
    }

    fn looks(story: &mut Story, who: &str, url: &Url, instance: u64) {
        let seen = call(url, instance);
        story.does(who, Call::ReadLocus { locus: seen.url.clone() }, locus_read(&seen));
    }

    fn joins(story: &mut Story, who: &str, url: &Url, instance: u64) {
        let seen = call(url, instance);
        story.does(who, join(&seen.url, instance - 1, who), joined(&seen));
    }

    fn judged(story: &Story) -> Verdict {
        CallsInOneOrder.judge(story.told())
    }

    #[test]
    fn calls_that_follow_each_other_hold() {
        let (mut story, url) = story();
        looks(&mut story, "bob", &url, 0);
        joins(&mut story, "alice", &url, 1);
        looks(&mut story, "bob", &url, 1);
        joins(&mut story, "bob", &url, 2);
        looks(&mut story, "alice", &url, 2);
        let verdict = judged(&story);
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn a_call_that_nobody_joined_violates() {
        let (mut story, url) = story();
        joins(&mut story, "alice", &url, 1);
        looks(&mut story, "bob", &url, 2);
        let violation = &judged(&story).violations[0];
        assert_eq!(violation.fingerprint, "calls-in-one-order/LOC-003/call-from-nowhere");
        assert_eq!(violation.excerpt.len(), 2);
    }

    #[test]
    fn an_earlier_call_that_is_there_again_violates() {
        let (mut story, url) = story();
        joins(&mut story, "alice", &url, 1);
        joins(&mut story, "alice", &url, 2);
        looks(&mut story, "bob", &url, 1);
        let violation = &judged(&story).violations[0];
        assert_eq!(violation.fingerprint, "calls-in-one-order/LOC-003/earlier-call-again");
        assert_eq!(violation.excerpt.len(), 6);
    }

    #[test]
    fn a_join_whose_answer_is_lost_may_have_begun_the_call() {
        let (mut story, url) = story();
        let asked = story.asks("alice", join(&call(&url, 1).url, 0, "alice"));
        story.returns(asked, Outcome::Unknown {});
        looks(&mut story, "bob", &url, 0);
        looks(&mut story, "bob", &url, 1);
        assert_eq!(judged(&story).ruling, Ruling::Holds);
    }

    #[test]
    fn one_look_is_no_case() {
        let (mut story, url) = story();
        looks(&mut story, "bob", &url, 1);
        assert!(judged(&story).had_no_case());
    }
}
