//! The self-test: each mutant must be found out by the check and with the observation, or in the scenario
//! by the judge and with the kind of violation, that the catalogue names; with the mutant switched off, the
//! same check is green and the same scenario holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use fusion_conformance::catalogue::{self, Proof, catalogue};
use fusion_conformance::check::Verdict;
use fusion_conformance::report::CheckReport;
use fusion_conformance::{Options, Report};
use fusion_deployment::{Hooks, HostSpec};
use fusion_history::Ruling;
use fusion_sim::engines::fabric;
use fusion_sim::library::Library;
use fusion_sim::outcome::{Outcome as Played, judged};
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::scenario::Scenario;
use fusion_sim::stopwatch::Stopwatch;
use serde::Serialize;

use crate::twins::{self, Twin};
use crate::{MUTANTS, Mutant};

/// The seed of every world of the self-test.
const SEED: u64 = 1;

/// What became of one mutant.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// The mutant.
    pub mutant: String,
    /// The requirement that it breaks.
    pub requirement: String,
    /// The check that must fail, or the judge that must see a violation and the scenario.
    pub by: String,
    /// The observation or the kind of violation that it must be.
    pub with: String,
    /// Whether it was.
    pub caught: bool,
    /// What was seen instead, or that it is not green without the mutant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
    /// Other checks that failed on the mutant, or judges that saw a violation.
    pub also: Vec<String>,
    /// How long it took, in seconds.
    pub wall_s: f64,
}

/// The whole self-test.
#[derive(Debug)]
pub struct Outcome {
    /// The right deployment, checked.
    pub sound: Sound,
    /// Each mutant, in the catalogue's order.
    pub mutants: Vec<Found>,
    /// The twin of each check that tries what must be refused; none where mutants were chosen by name.
    pub twins: Vec<Twin>,
}

/// What the right deployment shows where mutants are looked for: without it nothing is caught.
#[derive(Debug, Default)]
pub struct Sound {
    /// Its report; `None` when no mutant of this self-test is looked for by a check.
    pub report: Option<Report>,
    /// Whether each scenario holds on every seed that is tried, by name.
    pub scenarios: BTreeMap<String, bool>,
}

/// Runs the self-test, `jobs` worlds at a time; `progress` is told of each mutant. `only` chooses mutants
/// by name, each of which then meets its own check alone; without it, all mutants meet all checks.
///
/// # Errors
/// When the catalogue and the mutants do not name the same, nobody has a name of `only`, or a scenario is
/// not there.
pub fn run(jobs: usize, only: &[String], progress: &(dyn Fn(&Found) + Sync)) -> Result<Outcome> {
    let entries = chosen(entries()?, only)?;
    let stories = Stories::of(&entries)?;
    let sound = Sound {
        report: sound_report(&entries, only.is_empty())?,
        scenarios: inspect(jobs, &stories.seeds(&entries), |(name, seeds)| {
            Ok(((*name).to_owned(), stories.holds(name, *seeds)))
        })?
        .into_iter()
        .collect(),
    };
    let mutants = inspect(jobs, &entries, |(entry, mutant)| {
        let found = test(entry, mutant, only.is_empty(), &sound, &stories);
        progress(&found);
        Ok(found)
    })?;
    let negative = sound.report.as_ref().filter(|_| only.is_empty()).map(twins::negative).unwrap_or_default();
    let twins = inspect(jobs, &negative, |(negative, reasons)| twins::test(&negative.id, reasons, check))?;
    Ok(Outcome { twins, mutants, sound })
}

impl Outcome {
    /// Whether the right deployment has no failure and every mutant was caught.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.sound.wrong().is_empty()
            && self.mutants.iter().all(|found| found.caught)
            && self.twins.iter().all(|twin| twin.told_apart)
    }
}

impl Sound {
    /// How many checks were made.
    #[must_use]
    pub fn checks(&self) -> usize {
        self.report.as_ref().map_or(0, |report| report.checks.len())
    }

    /// The checks and scenarios that are not green on the right deployment.
    #[must_use]
    pub fn wrong(&self) -> Vec<String> {
        let checks = self.report.iter().flat_map(|report| &report.checks);
        let checks = checks.filter(|check| !check.verdict.is_fine());
        let scenarios = self.scenarios.iter().filter(|(_, holds)| !**holds);
        checks
            .map(|check| format!("{} {}", check.id, check.verdict.as_str()))
            .chain(scenarios.map(|(name, _)| format!("the scenario {name}")))
            .collect()
    }

    fn is_green(&self, proof: &Proof) -> bool {
        match proof {
            Proof::Check { check, .. } => {
                let named = self.report.iter().flat_map(|report| &report.checks).find(|it| it.id == *check);
                named.is_some_and(|check| check.verdict.is_fine())
            }
            Proof::Judge { scenario, .. } => self.scenarios.get(scenario) == Some(&true),
        }
    }
}

/// The scenarios in which judges look for mutants.
struct Stories(BTreeMap<String, (Scenario, Vec<HostSpec>)>);

impl Stories {
    fn of(entries: &[(&'static catalogue::Mutant, Mutant)]) -> Result<Self> {
        let mut stories = BTreeMap::new();
        for name in entries.iter().filter_map(|(entry, _)| scenario_of(&entry.proof)) {
            if !stories.contains_key(name) {
                let scenario = Library::nearest()?.find(name)?;
                let hosts = fabric::hosts(&scenario.topology)?;
                stories.insert(name.to_owned(), (scenario, hosts));
            }
        }
        Ok(Self(stories))
    }

    /// How many swarm seeds each scenario is tried with at most.
    fn seeds<'e>(&self, entries: &'e [(&'static catalogue::Mutant, Mutant)]) -> Vec<(&'e str, u64)> {
        let mut most: BTreeMap<&str, u64> = BTreeMap::new();
        for (entry, _) in entries {
            if let Proof::Judge { scenario, seeds, .. } = &entry.proof {
                let known = most.entry(scenario).or_default();
                *known = (*known).max(*seeds);
            }
        }
        most.into_iter().collect()
    }

    /// The story, then the swarm seeds from 1 on.
    fn runs<'a>(&'a self, name: &str, seeds: u64, hooks: &'a Hooks) -> impl Iterator<Item = Played> + 'a {
        let plans = std::iter::once((SEED, Mode::Story)).chain((1..=seeds).map(|seed| (seed, Mode::Swarm)));
        let options = fabric::Options { hooks: hooks.clone(), wire: false };
        self.0.get(name).into_iter().flat_map(move |(scenario, hosts)| {
            let options = options.clone();
            plans.clone().map(move |(seed, mode)| judged(&Plan::new(scenario, hosts, seed, mode), &options))
        })
    }

    fn holds(&self, name: &str, seeds: u64) -> bool {
        self.runs(name, seeds, &Hooks::default()).all(|outcome| outcome.ruling == Ruling::Holds)
    }
}

fn scenario_of(proof: &Proof) -> Option<&str> {
    match proof {
        Proof::Judge { scenario, .. } => Some(scenario),
        Proof::Check { .. } => None,
    }
}

/// What `look` makes of each, in their order, `jobs` at a time.
fn inspect<T: Sync, R: Send>(
    jobs: usize,
    all: &[T],
    look: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let seen = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = all.get(n) else { break };
                    let one = look(one);
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push((n, one));
                }
            });
        }
    });
    let mut seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    seen.sort_by_key(|(n, _)| *n);
    seen.into_iter().map(|(_, one)| one).collect()
}

/// The catalogue's mutants with their making.
fn entries() -> Result<Vec<(&'static catalogue::Mutant, Mutant)>> {
    for mutant in MUTANTS {
        let known = catalogue().mutants.iter().any(|entry| entry.name == mutant.name);
        anyhow::ensure!(known, "the catalogue does not name the mutant {:?}", mutant.name);
    }
    let entries = catalogue().mutants.iter().map(|entry| {
        let mutant = MUTANTS.iter().find(|mutant| mutant.name == entry.name).copied();
        Ok((entry, mutant.with_context(|| format!("nobody makes the mutant {:?}", entry.name))?))
    });
    entries.collect()
}

/// Those that `only` names; all, if it names none.
fn chosen(
    mut entries: Vec<(&'static catalogue::Mutant, Mutant)>,
    only: &[String],
) -> Result<Vec<(&'static catalogue::Mutant, Mutant)>> {
    for name in only {
        let known = entries.iter().any(|(entry, _)| entry.name == *name);
        anyhow::ensure!(known, "there is no mutant {name:?}");
    }
    entries.retain(|(entry, _)| only.is_empty() || only.contains(&entry.name));
    Ok(entries)
}

/// The right deployment before all checks, or before those alone that must catch something.
fn sound_report(entries: &[(&'static catalogue::Mutant, Mutant)], all: bool) -> Result<Option<Report>> {
    let checks = entries.iter().filter_map(|(entry, _)| entry.proof.check().map(str::to_owned));
    let checks: Vec<String> = checks.collect();
    if checks.is_empty() {
        return Ok(None);
    }
    check(&Hooks::default(), if all { Vec::new() } else { checks }).map(Some)
}

fn check(hooks: &Hooks, only: Vec<String>) -> Result<Report> {
    let options = Options { only, engine: "fabric".to_owned(), ..Options::default() };
    Ok(fabric::conform(&fabric::checked(), SEED, hooks.clone(), &options)?)
}

fn test(entry: &catalogue::Mutant, mutant: &Mutant, all: bool, sound: &Sound, stories: &Stories) -> Found {
    let watch = Stopwatch::start();
    let hooks = (mutant.hooks)();
    let sighting = match &entry.proof {
        Proof::Check { check: id, observation } => {
            let only = if all { Vec::new() } else { vec![id.clone()] };
            check(&hooks, only).map(|report| Sighting::of_report(&report, id, observation))
        }
        Proof::Judge { judge, scenario, violation, seeds } => {
            let fingerprint = format!("{judge}/{}/{violation}", entry.requirement);
            let runs = stories.runs(scenario, *seeds, &hooks);
            Ok(Sighting::of_runs(runs, judge, &fingerprint))
        }
    };
    let sighting =
        sighting.unwrap_or_else(|error| Sighting { seen: error.to_string(), ..Sighting::default() });
    let green = sound.is_green(&entry.proof);
    let caught = green && sighting.expected;
    let instead = if green { sighting.seen } else { "not green without it".to_owned() };
    Found {
        mutant: entry.name.clone(),
        requirement: entry.requirement.clone(),
        by: entry.proof.by(),
        with: entry.proof.with().to_owned(),
        caught,
        instead: (!caught).then_some(instead),
        also: sighting.also,
        wall_s: watch.elapsed().as_secs_f64(),
    }
}

/// What was seen of a mutant.
#[derive(Default)]
struct Sighting {
    /// Whether it was found out as the catalogue says.
    expected: bool,
    /// What the check or the judge saw.
    seen: String,
    /// Who else saw something wrong.
    also: Vec<String>,
}

impl Sighting {
    fn of_report(report: &Report, id: &str, observation: &str) -> Self {
        let named = report.checks.iter().find(|check| check.id == id);
        let others = report.checks.iter().filter(|check| check.verdict == Verdict::Fail && check.id != id);
        Self {
            expected: named.is_some_and(|check| fails_with(check, observation)),
            seen: seen(named),
            also: others.map(|check| check.id.clone()).collect(),
        }
    }

    /// Of the runs up to the first in which it is found out.
    fn of_runs(runs: impl Iterator<Item = Played>, judge: &str, fingerprint: &str) -> Self {
        let mut violations = BTreeSet::new();
        let mut failures = BTreeSet::new();
        let mut unexplained = BTreeSet::new();
        for outcome in runs {
            let seen = outcome.verdicts.iter().flat_map(|verdict| &verdict.violations);
            for violation in seen {
                violations.insert(violation.fingerprint.clone());
                if !violation.explains_itself(&outcome.history) {
                    unexplained.insert(format!("{} explains nothing", violation.fingerprint));
                }
            }
            failures.extend(outcome.failure);
            if violations.contains(fingerprint) {
                break;
            }
        }
        let own = format!("{judge}/");
        let others = violations.iter().filter(|violation| !violation.starts_with(&own));
        let also: BTreeSet<String> =
            others.map(|violation| violation.split('/').next().unwrap_or_default().to_owned()).collect();
        Self {
            expected: violations.contains(fingerprint) && unexplained.is_empty(),
            seen: match violations.is_empty() && failures.is_empty() {
                true => "no violation".to_owned(),
                false => violations
                    .iter()
                    .chain(&failures)
                    .chain(&unexplained)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", "),
            },
            also: also.into_iter().collect(),
        }
    }
}

fn fails_with(check: &CheckReport, observation: &str) -> bool {
    let failed = |seen: &fusion_conformance::check::Observation| {
        seen.verdict == Verdict::Fail && seen.code == observation
    };
    check.verdict == Verdict::Fail && check.observations.iter().any(failed)
}

pub(crate) fn seen(check: Option<&CheckReport>) -> String {
    let Some(check) = check else { return "the check was not made".to_owned() };
    let codes: Vec<&str> = check.observations.iter().map(|seen| seen.code.as_str()).collect();
    format!("{} {}", check.verdict.as_str(), codes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_and_this_crate_name_the_same_mutants_in_the_same_order() {
        let listed: Vec<&str> = catalogue().mutants.iter().map(|entry| entry.name.as_str()).collect();
        let made: Vec<&str> = MUTANTS.iter().map(|mutant| mutant.name).collect();
        assert_eq!(made, listed);
    }

    #[test]
    fn every_check_has_a_mutant_that_proves_that_it_can_fail() {
        for check in &catalogue().checks {
            let proved =
                catalogue().mutants.iter().any(|mutant| mutant.proof.check() == Some(check.id.as_str()));
            assert!(proved, "{}", check.id);
        }
    }

    /// Judges that accuse no faulty deployment in a scenario yet, and why.
    const WITHOUT_A_MUTANT: &[(&str, &str)] = &[(
        "gapless-delivery",
        "no fault in the store made a gap in a story yet; MER-002.gapless-and-resumed finds number-skipped out",
    )];

    #[test]
    fn every_judge_has_a_mutant_that_proves_that_it_can_accuse() {
        let proofs = catalogue().mutants.iter().map(|mutant| &mutant.proof);
        let judge = |proof: &'static Proof| match proof {
            Proof::Judge { judge, .. } => Some(judge.as_str()),
            Proof::Check { .. } => None,
        };
        let named: BTreeSet<&str> = proofs.filter_map(judge).collect();
        for judge in fusion_history::judges() {
            let name = judge.name();
            let excused = WITHOUT_A_MUTANT.iter().any(|(judge, _)| *judge == name);
            assert_ne!(named.contains(name), excused, "the mutants of {name}");
        }
    }

    #[test]
    fn a_name_that_no_mutant_has_is_refused() {
        let entries = entries().unwrap();
        assert!(chosen(entries.clone(), &["nobody".to_owned()]).is_err());
        assert_eq!(chosen(entries, &[MUTANTS[0].name.to_owned()]).unwrap().len(), 1);
    }

    #[test]
    fn a_failure_with_another_observation_counts_as_missed() {
        let chosen = chosen(entries().unwrap(), &["errors-quote-the-request".to_owned()]).unwrap();
        let (entry, mutant) = chosen[0];
        let stories = Stories::of(&chosen).unwrap();
        let sound = Sound { report: sound_report(&chosen, false).unwrap(), ..Sound::default() };
        assert!(test(entry, &mutant, false, &sound, &stories).caught);

        let check = entry.proof.check().unwrap().to_owned();
        let proof = Proof::Check { check, observation: "no-refusal".to_owned() };
        let missed = test(&catalogue::Mutant { proof, ..entry.clone() }, &mutant, false, &sound, &stories);
        assert!(!missed.caught);
        assert_eq!(missed.instead.unwrap().split_once(' ').unwrap().0, "fail");
    }

    /// What becomes of a mutant that a judge must find out in `one-to-one-race`.
    fn found_by_a_judge(violation: &str, hooks: fn() -> Hooks) -> Found {
        let proof = Proof::Judge {
            judge: "convergence".to_owned(),
            scenario: "one-to-one-race".to_owned(),
            violation: violation.to_owned(),
            seeds: 10,
        };
        let (name, story) = ("planted".to_owned(), "What the loser held is dropped.".to_owned());
        let entry = catalogue::Mutant { name, story, requirement: "CNV-004".to_owned(), proof };
        let entries = [(&*Box::leak(Box::new(entry)), Mutant { name: "planted", hooks })];
        let stories = Stories::of(&entries).unwrap();
        let scenarios =
            BTreeMap::from([("one-to-one-race".to_owned(), stories.holds("one-to-one-race", 10))]);
        let sound = Sound { scenarios, ..Sound::default() };
        test(entries[0].0, &entries[0].1, false, &sound, &stories)
    }

    #[test]
    fn a_judge_finds_a_mutant_out_by_the_kind_of_violation_alone() {
        let dropped = crate::conversation::LOSER_DROPPED.hooks;
        let found = found_by_a_judge("lost", dropped);
        assert!(found.caught, "{found:?}");
        let other = found_by_a_judge("twice", dropped);
        assert!(!other.caught && other.instead.unwrap().contains("convergence/CNV-004/lost"));
        assert!(!found_by_a_judge("lost", Hooks::default).caught);
    }
}
