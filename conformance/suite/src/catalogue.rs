//! The catalogue: every requirement, the checks that look at it, the mutants that prove them.
//!
//! It is data (`catalogue.toml`, embedded): what a check does is in [`crate::checks`].

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// The whole catalogue.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// Every requirement, in SPEC's order.
    #[serde(rename = "requirement")]
    pub requirements: Vec<Requirement>,
    /// Every check, in the order in which reports show them.
    #[serde(rename = "check")]
    pub checks: Vec<CheckEntry>,
    /// Every mutant.
    #[serde(rename = "mutant")]
    pub mutants: Vec<Mutant>,
}

/// A requirement of SPEC.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// `AREA-nnn`; never reused.
    pub id: String,
    /// How much it binds.
    pub level: Level,
    /// What it asks for, in one sentence of our own.
    pub title: String,
    /// Why no check of this suite looks at it, and who does.
    pub unchecked: Option<String>,
}

/// How much a requirement binds (RFC 2119).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// A deployment without it does not conform.
    Must,
    /// A deployment without it is warned about.
    Should,
    /// A deployment may have it.
    May,
}

/// What a check is for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckEntry {
    /// `{requirement}.{name}`.
    pub id: String,
    /// What is seen when it passes.
    pub title: String,
    /// The requirements it covers.
    pub requirements: Vec<String>,
}

/// A faulty deployment, and how it must be found out.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "MutantEntry")]
pub struct Mutant {
    /// Its name.
    pub name: String,
    /// What it does wrong.
    pub story: String,
    /// The requirement it breaks.
    pub requirement: String,
    /// Who must find it out, and by what; any other finding does not count.
    pub proof: Proof,
}

/// How a faulty deployment must be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A check must fail.
    Check {
        /// The check.
        check: String,
        /// The code of the observation with which it must fail.
        observation: String,
    },
    /// A judge must see a violation in a scenario.
    Judge {
        /// The judge.
        judge: String,
        /// The scenario.
        scenario: String,
        /// The kind of violation: the last part of its fingerprint.
        violation: String,
        /// How many swarm seeds are tried after the story, from 1 on.
        seeds: u64,
    },
}

/// A mutant as it is written: by a check, or by a judge.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MutantEntry {
    name: String,
    story: String,
    requirement: String,
    check: Option<String>,
    observation: Option<String>,
    judge: Option<String>,
    scenario: Option<String>,
    violation: Option<String>,
    seeds: Option<u64>,
}

/// The catalogue of this version.
///
/// # Panics
/// Never: the embedded file is parsed by a test.
#[must_use]
pub fn catalogue() -> &'static Catalogue {
    static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
        let text = include_str!("catalogue.toml");
        fusion_settings::parse(Path::new("catalogue.toml"), text).expect("a test parses the catalogue")
    });
    &CATALOGUE
}

impl Catalogue {
    /// A requirement by its id.
    #[must_use]
    pub fn requirement(&self, id: &str) -> Option<&Requirement> {
        self.requirements.iter().find(|requirement| requirement.id == id)
    }

    /// A check by its id.
    #[must_use]
    pub fn check(&self, id: &str) -> Option<&CheckEntry> {
        self.checks.iter().find(|check| check.id == id)
    }

    /// The checks that cover a requirement.
    pub fn checks_of(&self, requirement: &str) -> impl Iterator<Item = &CheckEntry> {
        self.checks.iter().filter(move |check| check.requirements.iter().any(|id| id == requirement))
    }

    /// The mutants that break a requirement.
    pub fn mutants_of(&self, requirement: &str) -> impl Iterator<Item = &Mutant> {
        self.mutants.iter().filter(move |mutant| mutant.requirement == requirement)
    }

    /// How much a check binds: as its strictest requirement does.
    #[must_use]
    pub fn level_of(&self, check: &CheckEntry) -> Level {
        let levels = check.requirements.iter().filter_map(|id| self.requirement(id));
        levels.map(|requirement| requirement.level).min().unwrap_or(Level::May)
    }

    /// The areas, in SPEC's order.
    #[must_use]
    pub fn areas(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        self.requirements.iter().map(Requirement::area).filter(|area| seen.insert(*area)).collect()
    }
}

impl Proof {
    /// Who must find it out: the check, or the judge with the scenario.
    #[must_use]
    pub fn by(&self) -> String {
        match self {
            Self::Check { check, .. } => check.clone(),
            Self::Judge { judge, scenario, .. } => format!("{judge} in {scenario}"),
        }
    }

    /// By what it must be found out: the code of the observation, or the kind of violation.
    #[must_use]
    pub fn with(&self) -> &str {
        match self {
            Self::Check { observation, .. } => observation,
            Self::Judge { violation, .. } => violation,
        }
    }

    /// The check, where one must find it out.
    #[must_use]
    pub fn check(&self) -> Option<&str> {
        match self {
            Self::Check { check, .. } => Some(check),
            Self::Judge { .. } => None,
        }
    }
}

impl TryFrom<MutantEntry> for Mutant {
    type Error = String;

    fn try_from(entry: MutantEntry) -> Result<Self, Self::Error> {
        let MutantEntry { name, story, requirement, seeds, .. } = entry;
        let by_check = entry.check.zip(entry.observation);
        let by_judge = entry.judge.zip(entry.scenario).zip(entry.violation);
        let proof = match (by_check, by_judge, seeds) {
            (Some((check, observation)), None, None) => Proof::Check { check, observation },
            (None, Some(((judge, scenario), violation)), seeds) => {
                Proof::Judge { judge, scenario, violation, seeds: seeds.unwrap_or(0) }
            }
            _ => {
                return Err(format!(
                    "the mutant {name:?} needs check and observation, or judge, scenario and violation"
                ));
            }
        };
        Ok(Self { name, story, requirement, proof })
    }
}

impl Requirement {
    /// The area of its id.
    #[must_use]
    pub fn area(&self) -> &str {
        self.id.split_once('-').map_or(self.id.as_str(), |(area, _)| area)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::May => "MAY",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many requirements SPEC has in each area, so that none is forgotten.
    const SPEC: [(&str, usize); 11] = [
        ("NAM", 5),
        ("MAP", 12),
        ("PRO", 7),
        ("SEC", 10),
        ("MER", 6),
        ("RDV", 7),
        ("CNV", 8),
        ("LOC", 9),
        ("MED", 6),
        ("PRI", 7),
        ("OPS", 10),
    ];

    #[test]
    fn every_requirement_of_spec_is_there_once() {
        let ids: Vec<&str> = catalogue().requirements.iter().map(|it| it.id.as_str()).collect();
        let numbered = |(area, count)| (1..=count).map(move |n| format!("{area}-{n:03}"));
        let expected: Vec<String> = SPEC.into_iter().flat_map(numbered).collect();
        assert_eq!(ids, expected);
        assert_eq!(catalogue().areas(), SPEC.map(|(area, _)| area));
    }

    #[test]
    fn the_written_requirements_have_the_same_ids_and_levels() {
        let written = include_str!("../../../docs/spec.md");
        let rules = written.lines().filter_map(|line| line.strip_prefix("- **")?.split_once("** ("));
        let rules: Vec<(&str, &str)> =
            rules.map(|(id, rest)| (id, rest.split(')').next().unwrap_or_default())).collect();
        let known = catalogue().requirements.iter().map(|it| (it.id.clone(), it.level.to_string()));
        let known: Vec<(String, String)> = known.collect();
        assert_eq!(rules, known.iter().map(|(id, level)| (&**id, &**level)).collect::<Vec<_>>());
    }

    #[test]
    fn a_title_is_one_sentence() {
        let catalogue = catalogue();
        let titles = catalogue.requirements.iter().map(|it| &it.title);
        for title in titles.chain(catalogue.checks.iter().map(|it| &it.title)) {
            assert!(title.ends_with('.') && title.starts_with(char::is_uppercase), "{title}");
        }
    }

    #[test]
    fn a_requirement_is_looked_at_by_a_check_or_says_why_not() {
        for requirement in &catalogue().requirements {
            let checked = catalogue().checks_of(&requirement.id).count() > 0;
            assert_ne!(checked, requirement.unchecked.is_some(), "{}", requirement.id);
        }
    }

    #[test]
    fn a_check_is_named_after_a_requirement_that_it_covers() {
        let mut seen = BTreeSet::new();
        for check in &catalogue().checks {
            assert!(seen.insert(&check.id), "{} is there twice", check.id);
            let (requirement, name) = check.id.split_once('.').unwrap();
            assert!(check.requirements.iter().any(|id| id == requirement), "{}", check.id);
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", check.id);
            for id in &check.requirements {
                assert!(catalogue().requirement(id).is_some(), "{} covers {id}, which is none", check.id);
            }
        }
    }

    #[test]
    fn a_mutant_breaks_a_requirement_that_its_check_or_judge_covers() {
        let mut seen = BTreeSet::new();
        for mutant in &catalogue().mutants {
            assert!(seen.insert(&mutant.name), "{} is there twice", mutant.name);
            let covered: Vec<String> = match &mutant.proof {
                Proof::Check { check, .. } => catalogue().check(check).unwrap().requirements.clone(),
                Proof::Judge { judge, .. } => {
                    let judges = fusion_history::judges();
                    let judge = judges.iter().find(|known| known.name() == judge).unwrap();
                    judge.requirements().iter().map(|&id| id.to_owned()).collect()
                }
            };
            assert!(covered.contains(&mutant.requirement), "{}", mutant.name);
        }
    }
}
