//! What a run found, and how it is told.

pub mod html;
pub mod json;
pub mod junit;
pub mod text;

use std::collections::BTreeMap;
use std::io;

use fusion_history::{Ruling, Verdict as Ruled};
use serde::{Deserialize, Serialize};

use crate::catalogue::{Level, catalogue};
use crate::check::{Observation, Verdict};
use crate::transcript::Exchange;

/// Everything that a run found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The target's name.
    pub target: String,
    /// The mark of the run in all names that it gave.
    pub run: String,
    /// The version of the suite.
    pub suite: String,
    /// When it began; for display.
    pub started: String,
    /// How long it took, in microseconds of the host's clock.
    pub took_us: u64,
    /// Whether anybody answered, by cluster.
    pub clusters: Vec<ClusterHealth>,
    /// What became of each check, in the catalogue's order.
    pub checks: Vec<CheckReport>,
    /// What the judges of the history say: further evidence.
    pub judges: Vec<Ruled>,
    /// What is concluded of each requirement, in SPEC's order.
    pub requirements: Vec<RequirementReport>,
    /// What the run made and could not take away again.
    pub left_behind: Vec<String>,
    /// Whether the run was interrupted.
    pub interrupted: bool,
    /// The conclusion of it all.
    pub conclusion: Conclusion,
}

/// Whether a cluster answered before the checks began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterHealth {
    /// The cluster.
    pub cluster: String,
    /// Why its authorisation server is none, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What became of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// Its id.
    pub id: String,
    /// What is seen when it passes.
    pub title: String,
    /// The requirements it covers.
    pub requirements: Vec<String>,
    /// How much it binds.
    pub level: Level,
    /// The verdict.
    pub verdict: Verdict,
    /// What it saw, in order.
    pub observations: Vec<Observation>,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// What was said; only of a check that did not pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exchanges: Vec<Exchange>,
}

/// What is concluded of a requirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequirementReport {
    /// Its id.
    pub id: String,
    /// How much it binds.
    pub level: Level,
    /// What it asks for.
    pub title: String,
    /// The checks of this run that cover it.
    pub checks: Vec<String>,
    /// The judges that had a case.
    pub judges: Vec<String>,
    /// The mutants that prove its checks.
    pub mutants: Vec<String>,
    /// The verdict; `None` when nothing of this run looked at it.
    pub verdict: Option<Verdict>,
    /// Why nothing looked at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked: Option<String>,
}

/// The conclusion of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// Everything that must hold and was looked at holds.
    Conformant,
    /// Something that must hold does not.
    NotConformant,
    /// Something that must hold could not be looked at to the end.
    Incomplete,
    /// The suite itself went wrong.
    HarnessError,
    /// Nobody answers who speaks the protocol.
    Unreachable,
}

impl Report {
    /// The exit code of a run: 0 conformant, 1 not, 3 incomplete, 4 harness error, 5 unreachable. (2 is a
    /// mistake in the target file or the arguments, of which there is no report.)
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.conclusion.exit_code()
    }

    /// How many checks have each verdict.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Verdict, usize> {
        let mut counts = BTreeMap::new();
        for check in &self.checks {
            *counts.entry(check.verdict).or_insert(0) += 1;
        }
        counts
    }

    /// The checks that did not pass, the worst first.
    #[must_use]
    pub fn troubles(&self) -> Vec<&CheckReport> {
        let mut troubles: Vec<_> = self.checks.iter().filter(|check| !check.verdict.is_fine()).collect();
        troubles.sort_by_key(|check| std::cmp::Reverse(check.verdict));
        troubles
    }

    /// Draws the conclusions: of each requirement, and of it all.
    pub(crate) fn conclude(&mut self) {
        self.requirements = requirements(&self.checks, &self.judges);
        self.conclusion = self.concluded();
    }

    fn concluded(&self) -> Conclusion {
        let binding = || self.requirements.iter().filter(|requirement| requirement.level == Level::Must);
        let of_checks = self.checks.iter().filter(|check| check.level == Level::Must);
        let verdicts: Vec<Verdict> =
            of_checks.map(|check| check.verdict).chain(binding().filter_map(|it| it.verdict)).collect();
        let nobody = !self.clusters.is_empty() && self.clusters.iter().all(|it| it.trouble.is_some());
        let any = |verdict| verdicts.contains(&verdict);
        if nobody {
            Conclusion::Unreachable
        } else if any(Verdict::Fail) {
            Conclusion::NotConformant
        } else if self.checks.iter().any(|check| check.verdict == Verdict::Error) {
            Conclusion::HarnessError
        } else if self.interrupted
            || any(Verdict::Inconclusive)
            || any(Verdict::Blocked)
            || !verdicts.iter().any(|verdict| verdict.is_fine() && *verdict != Verdict::NotApplicable)
        {
            Conclusion::Incomplete
        } else {
            Conclusion::Conformant
        }
    }
}

impl RequirementReport {
    /// Whether anything of this run looked at it.
    #[must_use]
    pub fn was_looked_at(&self) -> bool {
        !matches!(self.verdict, None | Some(Verdict::Blocked | Verdict::NotApplicable))
    }
}

impl Conclusion {
    /// The exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Conformant => 0,
            Self::NotConformant => 1,
            Self::Incomplete => 3,
            Self::HarnessError => 4,
            Self::Unreachable => 5,
        }
    }

    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conformant => "conformant",
            Self::NotConformant => "not conformant",
            Self::Incomplete => "incomplete",
            Self::HarnessError => "the suite itself went wrong",
            Self::Unreachable => "unreachable",
        }
    }
}

impl Verdict {
    /// Whether nothing is wrong: passed, slowly or with a warning at the most, or not applicable.
    #[must_use]
    pub fn is_fine(self) -> bool {
        matches!(self, Self::Pass | Self::Warn | Self::Slow | Self::NotApplicable)
    }
}

fn requirements(checks: &[CheckReport], judges: &[Ruled]) -> Vec<RequirementReport> {
    let of = |requirement: &crate::catalogue::Requirement| {
        let id = &requirement.id;
        let covering: Vec<_> = checks.iter().filter(|check| check.requirements.contains(id)).collect();
        let ruling: Vec<_> =
            judges.iter().filter(|it| it.requirements.contains(id) && !it.had_no_case()).collect();
        let judged = ruling.iter().filter_map(|it| match it.ruling {
            Ruling::Violated => Some(Verdict::Fail),
            Ruling::Holds => Some(Verdict::Pass),
            // A judge that is in doubt spoils nothing that a check has seen.
            Ruling::Unknown => None,
        });
        RequirementReport {
            id: id.clone(),
            level: requirement.level,
            title: requirement.title.clone(),
            checks: covering.iter().map(|check| check.id.clone()).collect(),
            judges: ruling.iter().map(|it| it.judge.clone()).collect(),
            mutants: catalogue().mutants_of(id).map(|mutant| mutant.name.clone()).collect(),
            verdict: Verdict::heaviest(covering.iter().map(|check| check.verdict).chain(judged)),
            unchecked: requirement.unchecked.clone(),
        }
    };
    catalogue().requirements.iter().map(of).collect()
}

/// What came of telling somebody. Whoever reads only the beginning has what was wanted: that is no error.
///
/// # Errors
/// As they came, but for a pipe that was closed.
pub fn unless_nobody_listens(told: io::Result<()>) -> io::Result<()> {
    match told {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        told => told,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report of a few checks with these verdicts.
    pub(crate) fn report(verdicts: &[(&str, Verdict)]) -> Report {
        let check = |&(id, verdict): &(&str, Verdict)| {
            let entry = catalogue().check(id).unwrap();
            let fine = verdict.is_fine();
            CheckReport {
                id: id.to_owned(),
                title: entry.title.clone(),
                requirements: entry.requirements.clone(),
                level: catalogue().level_of(entry),
                verdict,
                observations: vec![Observation {
                    code: "some-code".to_owned(),
                    verdict,
                    text: "what was seen <&>".to_owned(),
                    at_us: 1_500,
                    refused_with: None,
                }],
                took_us: 12_345,
                exchanges: if fine { Vec::new() } else { vec![exchange()] },
            }
        };
        let mut report = Report {
            target: "test".to_owned(),
            run: "abc234".to_owned(),
            suite: "0.1.0".to_owned(),
            started: "2026-01-01T00:00:00.000Z".to_owned(),
            took_us: 2_345_678,
            clusters: vec![ClusterHealth { cluster: "a".to_owned(), trouble: None }],
            checks: verdicts.iter().map(check).collect(),
            judges: Vec::new(),
            requirements: Vec::new(),
            left_behind: Vec::new(),
            interrupted: false,
            conclusion: Conclusion::Incomplete,
        };
        report.conclude();
        report
    }

    fn exchange() -> Exchange {
        Exchange {
            at_us: 1_000,
            client: "CNV-002.create-twice/alice/phone".to_owned(),
            method: "POST".to_owned(),
            url: "https://a-conv.provider.example/v1/conversations".to_owned(),
            request: "{\"kind\":\"oneToOne\"}".to_owned(),
            answer: "201".to_owned(),
            response: "{\"url\":\"<&>\"}".to_owned(),
            took_us: 900,
        }
    }

    /// One check of each verdict.
    pub(crate) fn mixed() -> Report {
        report(&[
            ("SEC-002.own-server", Verdict::Pass),
            ("CNV-002.create-twice", Verdict::Fail),
            ("RDV-002.index-before-notification", Verdict::Slow),
            ("MED-001.media-flows", Verdict::NotApplicable),
            ("LOC-003.glare", Verdict::Inconclusive),
        ])
    }

    #[test]
    fn exit_codes_tell_the_conclusions_apart() {
        let code = |verdicts: &[(&str, Verdict)]| report(verdicts).exit_code();
        let good = ("SEC-002.own-server", Verdict::Pass);
        assert_eq!(code(&[good]), 0);
        assert_eq!(code(&[good, ("LOC-003.glare", Verdict::Slow)]), 0);
        assert_eq!(code(&[good, ("LOC-003.glare", Verdict::NotApplicable)]), 0);
        assert_eq!(code(&[good, ("LOC-003.glare", Verdict::Fail)]), 1);
        assert_eq!(code(&[("SEC-002.own-server", Verdict::Error), ("LOC-003.glare", Verdict::Fail)]), 1);
        assert_eq!(code(&[good, ("LOC-003.glare", Verdict::Inconclusive)]), 3);
        assert_eq!(code(&[good, ("LOC-003.glare", Verdict::Blocked)]), 3);
        assert_eq!(code(&[good, ("LOC-003.glare", Verdict::Error)]), 4);
    }

    #[test]
    fn nothing_checked_is_nothing_proved() {
        assert_eq!(report(&[]).exit_code(), 3);
        assert_eq!(report(&[("LOC-003.glare", Verdict::NotApplicable)]).exit_code(), 3);
    }

    #[test]
    fn a_target_that_nobody_answers_for_is_unreachable_whatever_else() {
        let mut report = mixed();
        report.clusters[0].trouble = Some("connection refused".to_owned());
        report.conclude();
        assert_eq!(report.exit_code(), 5);
    }

    #[test]
    fn an_interrupted_run_is_incomplete() {
        let mut report = report(&[("SEC-002.own-server", Verdict::Pass)]);
        report.interrupted = true;
        report.conclude();
        assert_eq!(report.exit_code(), 3);
    }

    #[test]
    fn a_requirement_is_as_bad_as_its_worst_check() {
        let report =
            report(&[("CNV-002.create-twice", Verdict::Pass), ("CNV-002.fixed-members", Verdict::Fail)]);
        let verdict = |id: &str| report.requirements.iter().find(|it| it.id == id).unwrap().verdict;
        assert_eq!(verdict("CNV-002"), Some(Verdict::Fail));
        assert_eq!(verdict("CNV-001"), None);
    }
}
