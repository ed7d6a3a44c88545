//! Security: what must be refused, and who must not be seen (SEC).

mod known_peers;
mod lasting;
mod log_ins;
mod renewed;
#[cfg(test)]
mod testing;

pub(super) use known_peers::KnownPeersAreBelieved;
pub(super) use lasting::TokensOutliveRestarts;
pub(super) use log_ins::LogInsStayHome;
pub(super) use renewed::GoesOnWithNewTokens;

use crate::event::{Call, Outcome};
use crate::facts::{Asked, Facts, Verb};
use crate::judge::{Casebook, Evidence, Judge};
use crate::text::word;

/// Everything that was tried against one requirement must be refused, for the reason that was expected.
///
/// A case is a trespass that was tried and answered.
pub(super) struct MustBeRefused {
    name: &'static str,
    requirements: &'static [&'static str],
}

/// SEC-003: a token is good for one cluster only, and a foreign issuer's is never exchanged.
pub(super) const TOKEN_FOR_ONE_CLUSTER: MustBeRefused =
    MustBeRefused { name: "token-for-one-cluster", requirements: &["SEC-003"] };

/// SEC-004: a cluster's call is good for its method, URL and body, at the cluster it was made to, for a
/// minute.
pub(super) const CALLS_ARE_BOUND: MustBeRefused =
    MustBeRefused { name: "calls-are-bound", requirements: &["SEC-004"] };

/// SEC-005: a cluster writes and notifies about its own objects only.
pub(super) const OWN_OBJECTS_ONLY: MustBeRefused =
    MustBeRefused { name: "own-objects-only", requirements: &["SEC-005"] };

/// SEC-006: a pointer to an object gives no right to it.
pub(super) const PARTICIPANTS_ONLY: MustBeRefused =
    MustBeRefused { name: "participants-only", requirements: &["SEC-006"] };

/// SEC-009: an issuer speaks only for those whom the receiver's own resolution finds there.
pub(super) const ISSUER_SPEAKS_FOR_ITS_OWN: MustBeRefused =
    MustBeRefused { name: "issuer-speaks-for-its-own", requirements: &["SEC-009"] };

impl Judge for MustBeRefused {
    fn name(&self) -> &'static str {
        self.name
    }

    fn requirements(&self) -> &'static [&'static str] {
        self.requirements
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        self.requirements.iter().for_each(|requirement| trespasses(facts, requirement, case));
    }
}

/// Each trespass against a requirement must be refused, by the code that was expected.
pub(super) fn trespasses(facts: &Facts<'_>, requirement: &str, case: &mut Casebook) {
    for asked in facts.asked_to(Verb::Trespass) {
        if let Call::Trespass { requirement: against, .. } = asked.call
            && against == requirement
        {
            judge_trespass(asked, case);
        }
    }
}

/// A refusal by another code is no proof: the door may have been shut for another reason.
fn judge_trespass(asked: &Asked<'_>, case: &mut Casebook) {
    let Call::Trespass { what, expect, .. } = asked.call else { return };
    match asked.back.map(|back| back.outcome) {
        Some(Outcome::Refused { code: Some(code), .. }) if code == expect => case.reached(),
        Some(Outcome::Done { .. }) => {
            case.reached();
            let statement = format!("{what} was done; it must be refused with {}", word(expect));
            case.violated(&format!("done-{}", slug(what)), statement, asked.events());
        }
        // Somebody who cannot answer just now has not decided anything.
        Some(Outcome::Refused { status: 503, .. }) => case.not_observed("a trespass that met no decision"),
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
        let verdict = TOKEN_FOR_ONE_CLUSTER.judge(story.told());
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
        let verdict = TOKEN_FOR_ONE_CLUSTER.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn a_refusal_for_another_reason_proves_nothing() {
        let mut story = Story::new();
        story.is_refused("alice", trespass(), Code::WrongAudience);
        story.is_refused("alice", trespass(), Code::NotFound);
        let verdict = TOKEN_FOR_ONE_CLUSTER.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Unknown, 1));
    }

    #[test]
    fn other_requirements_are_no_case() {
        let mut story = Story::new();
        let (what, requirement) = ("somebody's index".to_owned(), "SEC-010".to_owned());
        let call = Call::Trespass { what, requirement, expect: Code::Forbidden };
        story.does("alice", call, Answer::Nothing {});
        let verdict = TOKEN_FOR_ONE_CLUSTER.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached, verdict.had_no_case()), (Ruling::Unknown, 0, true));
    }
}
