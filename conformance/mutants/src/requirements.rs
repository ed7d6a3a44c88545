//! The map of what is proved: each requirement with the judges, checks, scenarios and mutants that have
//! really looked at it in this run, and what they concluded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use fusion_conformance::Options;
use fusion_conformance::catalogue::{Requirement, catalogue};
use fusion_conformance::check::Verdict;
use fusion_deployment::Hooks;
use fusion_history::Ruling;
use fusion_sim::engines::fabric::{self, checked, conform};
use fusion_sim::explore::{Batch, Summary, explore};
use fusion_sim::library::Library;
use fusion_sim::plan::Mode;
use fusion_sim::shard::Shard;
use serde::Serialize;

use crate::self_test;

/// What this run says of one requirement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// How much it binds.
    pub level: String,
    /// The judges that had a case of it.
    pub judges: Vec<String>,
    /// The checks that were made of it.
    pub checks: Vec<String>,
    /// The scenarios in which a judge had a case of it.
    pub scenarios: Vec<String>,
    /// The mutants of it that were caught.
    pub mutants: Vec<String>,
    /// What each fault family did in the runs in which a judge had a case of it.
    pub faults: BTreeMap<String, Cell>,
    /// What was concluded; `None`: nothing has looked at it.
    pub verdict: Option<Verdict>,
    /// Why nothing looks at it, where the catalogue says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A rule under a family of faults, over all runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "saw")]
pub enum Cell {
    /// The family made a difference in runs in which the rule was judged.
    Judged {
        /// In so many.
        runs: u64,
    },
    /// The family was drawn in the rule's scenarios, and never made a difference where the rule was judged.
    NoEffect {
        /// In so many runs.
        drawn: u64,
    },
    /// No scenario in which the rule is judged draws the family.
    NotDrawn,
}

/// What there is to play.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How many swarm seeds each scenario is played with, besides its story.
    pub seeds: u64,
    /// Whether the mutants are made and checked, too.
    pub mutants: bool,
    /// How many worlds at a time.
    pub jobs: usize,
}

/// What the runs have shown, by requirement.
#[derive(Default)]
struct Seen {
    judges: BTreeMap<String, BTreeSet<String>>,
    checks: BTreeMap<String, BTreeSet<String>>,
    scenarios: BTreeMap<String, BTreeSet<String>>,
    mutants: BTreeMap<String, BTreeSet<String>>,
    verdicts: BTreeMap<String, Vec<Verdict>>,
    /// Every family that was drawn at all.
    families: BTreeSet<String>,
    /// In how many runs of a scenario of the rule each family was drawn, and made a difference to it.
    under_fault: BTreeMap<(String, String), Tally>,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    drawn: u64,
    judged: u64,
}

/// Plays, checks and judges everything, and maps it. `progress` is told what has been done.
///
/// # Errors
/// When a scenario is wrong, or the catalogue and the mutants do not name the same.
pub fn requirements(library: &Library, effort: Effort, progress: &(dyn Fn(&str) + Sync)) -> Result<Vec<Row>> {
    let mut seen = Seen::default();
    for scenario in library.all()? {
        for (seeds, mode) in [(1, Mode::Story), (effort.seeds, Mode::Swarm)] {
            let batch =
                Batch { first: 1, seeds, shard: Shard::WHOLE, mode, jobs: effort.jobs, planted: None };
            let stop = AtomicBool::new(false);
            seen.play(&explore(&scenario, &batch, &fabric::Options::default(), &stop, &|_| {}));
        }
        progress(&scenario.name);
    }
    seen.check()?;
    progress("the suite");
    if effort.mutants {
        for found in self_test::run(effort.jobs, &[], &|found| progress(&found.mutant))?.mutants {
            if found.caught {
                seen.mutants.entry(found.requirement).or_default().insert(found.mutant);
            }
        }
    }
    Ok(catalogue().requirements.iter().map(|requirement| seen.row(requirement)).collect())
}

impl Seen {
    fn play(&mut self, summary: &Summary) {
        let known = fusion_history::judges();
        for id in &summary.reached {
            self.scenarios.entry(id.clone()).or_default().insert(summary.scenario.clone());
            self.verdicts.entry(id.clone()).or_default().push(Verdict::Pass);
            for judge in known.iter().filter(|judge| judge.requirements().contains(&id.as_str())) {
                self.judges.entry(id.clone()).or_default().insert(judge.name().to_owned());
            }
        }
        self.families.extend(summary.faults.keys().cloned());
        for id in &summary.reached {
            for (family, count) in &summary.faults {
                let both = (id.clone(), family.clone());
                let judged = summary.under_fault.get(&both).copied().unwrap_or_default();
                let tally = self.under_fault.entry(both).or_default();
                tally.drawn += count.chosen;
                tally.judged += judged;
            }
        }
        for verdict in summary.failed.iter().flat_map(|outcome| &outcome.verdicts) {
            let concluded = match verdict.ruling {
                Ruling::Holds => continue,
                Ruling::Unknown if verdict.had_no_case() => continue,
                Ruling::Unknown => Verdict::Inconclusive,
                Ruling::Violated => Verdict::Fail,
            };
            for id in &verdict.requirements {
                self.verdicts.entry(id.clone()).or_default().push(concluded);
            }
        }
    }

    fn check(&mut self) -> Result<()> {
        let options = Options { engine: "fabric".to_owned(), ..Options::default() };
        let report = conform(&checked(), 1, Hooks::default(), &options)?;
        for check in &report.checks {
            for id in &check.requirements {
                self.checks.entry(id.clone()).or_default().insert(check.id.clone());
                self.verdicts.entry(id.clone()).or_default().push(check.verdict);
            }
        }
        Ok(())
    }

    fn row(&self, requirement: &Requirement) -> Row {
        let of = |map: &BTreeMap<String, BTreeSet<String>>| {
            map.get(&requirement.id).map(|set| set.iter().cloned().collect()).unwrap_or_default()
        };
        let verdicts = self.verdicts.get(&requirement.id).cloned().unwrap_or_default();
        Row {
            id: requirement.id.clone(),
            level: requirement.level.to_string(),
            judges: of(&self.judges),
            checks: of(&self.checks),
            scenarios: of(&self.scenarios),
            mutants: of(&self.mutants),
            faults: self.cells(&requirement.id),
            verdict: Verdict::heaviest(verdicts),
            reason: requirement.unchecked.clone(),
        }
    }

    /// Empty for a rule that no judge had a case of.
    fn cells(&self, id: &str) -> BTreeMap<String, Cell> {
        let judged = self.judges.contains_key(id);
        let families = self.families.iter().filter(|_| judged);
        families
            .map(|family| {
                let cell = match self.under_fault.get(&(id.to_owned(), family.clone())) {
                    None | Some(Tally { drawn: 0, .. }) => Cell::NotDrawn,
                    Some(Tally { drawn, judged: 0 }) => Cell::NoEffect { drawn: *drawn },
                    Some(Tally { judged, .. }) => Cell::Judged { runs: *judged },
                };
                (family.clone(), cell)
            })
            .collect()
    }
}
