//! Security: what must be refused (SEC).

use crate::event::{Call, Outcome};
use crate::facts::{Asked, Facts};
use crate::judge::{Casebook, Evidence, Judge};
use crate::text::word;

/// SEC-003: a token is good for one cluster only, and a foreign issuer's is never exchanged.
///
/// A case is a trespass that was tried and answered.
pub(super) struct TokenForOneCluster;

impl Judge for TokenForOneCluster {
    fn name(&self) -> &'static str {
        "token-for-one-cluster"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["SEC-003"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        trespasses(facts, "SEC-003", case);
    }
}

/// Each trespass against a requirement must be refused, by the code that was expected. Another code is
/// no proof: the door may have been shut for another reason.
pub(super) fn trespasses(facts: &Facts<'_>, requirement: &str, case: &mut Casebook) {
    for asked in facts.calls() {
        if let Call::Trespass { requirement: against, .. } = asked.call
            && against == requirement
        {
            judge_trespass(asked, case);
        }
    }
}

fn judge_trespass(asked: &Asked<'_>, case: &mut Casebook) {
    let Call::Trespass { what, expect, .. } = asked.call else { return };
    match asked.back.map(|back| back.outcome) {
        Some(Outcome::Refused { code: Some(code), .. }) if code == expect => case.reached(),
        Some(Outcome::Done { .. }) => {
            case.reached();
            let statement = format!("{what} was done; it must be refused with {}", word(expect));
            case.violated(&format!("done-{}", slug(what)), statement, asked.events());
        }
        Some(Outcome::Refused { status, code }) => {
            let code = code.map_or_else(|| "no code".to_owned(), |code| word(&code));
            case.inconclusive(&format!("{what} was refused with {status} {code}, not {}", word(expect)));
        }
        _ => case.not_observed("a trespass that got no answer"),
    }
}

/// The words of `what` that are the same for every seed: no numbers, no addresses, no URLs.
fn slug(what: &str) -> String {
    let plain = |word: &&str| word.chars().all(|c| c.is_ascii_alphabetic() || "-'".contains(c));
    what.split_whitespace().filter(plain).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Answer;
    use crate::judge::Ruling;
    use crate::testing::Story;
    use fusion_protocol::Code;

    fn trespass() -> Call {
        let (what, requirement) = ("a token for a used at b".to_owned(), "SEC-003".to_owned());
        Call::Trespass { what, requirement, expect: Code::WrongAudience }
    }

    #[test]
    fn a_foreign_token_that_is_accepted_violates() {
        let mut story = Story::new();
        story.is_refused("alice", trespass(), Code::WrongAudience);
        story.does("alice", trespass(), Answer::Nothing {});
        let verdict = TokenForOneCluster.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached, verdict.violated), (Ruling::Violated, 2, 1));
        assert_eq!(
            verdict.violations[0].fingerprint,
            "token-for-one-cluster/SEC-003/done-a-token-for-a-used-at-b"
        );
    }

    #[test]
    fn a_refusal_by_the_right_code_holds() {
        let mut story = Story::new();
        story.is_refused("alice", trespass(), Code::WrongAudience);
        let verdict = TokenForOneCluster.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn a_refusal_for_another_reason_proves_nothing() {
        let mut story = Story::new();
        story.is_refused("alice", trespass(), Code::WrongAudience);
        story.is_refused("alice", trespass(), Code::NotFound);
        let verdict = TokenForOneCluster.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Unknown, 1));
    }

    #[test]
    fn other_requirements_are_no_case() {
        let mut story = Story::new();
        let (what, requirement) = ("somebody's index".to_owned(), "SEC-010".to_owned());
        let call = Call::Trespass { what, requirement, expect: Code::Forbidden };
        story.does("alice", call, Answer::Nothing {});
        let verdict = TokenForOneCluster.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached, verdict.had_no_case()), (Ruling::Unknown, 0, true));
    }
}
