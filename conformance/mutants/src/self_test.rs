//! The self-test: each mutant must be found out by the check, and with the observation, that the
//! catalogue names; with the mutant switched off, the same check is green.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use fusion_conformance::catalogue::{self, catalogue};
use fusion_conformance::check::Verdict;
use fusion_conformance::report::CheckReport;
use fusion_conformance::{Options, Report};
use fusion_deployment::Hooks;
use fusion_sim::engines::fabric;
use fusion_sim::stopwatch::Stopwatch;
use serde::Serialize;

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
    /// The check that must fail.
    pub check: String,
    /// The observation that it must fail with.
    pub observation: String,
    /// Whether it did.
    pub caught: bool,
    /// What the check saw instead, or that the check is not green without the mutant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
    /// Other checks that failed on the mutant.
    pub also_failed: Vec<String>,
    /// How long it took, in seconds.
    pub wall_s: f64,
}

/// The whole self-test.
#[derive(Debug)]
pub struct Outcome {
    /// The right deployment, checked.
    pub sound: Report,
    /// Each mutant, in the catalogue's order.
    pub mutants: Vec<Found>,
}

/// Runs the self-test, `jobs` worlds at a time; `progress` is told of each mutant. `only` chooses mutants
/// by name, each of which then meets its own check alone; without it, all mutants meet all checks.
///
/// # Errors
/// When the catalogue and the mutants do not name the same, or nobody has a name of `only`.
pub fn run(jobs: usize, only: &[String], progress: &(dyn Fn(&Found) + Sync)) -> Result<Outcome> {
    let entries = chosen(entries()?, only)?;
    let own_check =
        |entry: &catalogue::Mutant| if only.is_empty() { vec![] } else { vec![entry.check.clone()] };
    let checks: Vec<String> = entries.iter().flat_map(|(entry, _)| own_check(entry)).collect();
    let sound = check(&Hooks::default(), checks)?;
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some((entry, mutant)) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let one = test(entry, mutant, own_check(entry), &sound);
                    progress(&one);
                    found.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                }
            });
        }
    });
    let mut mutants = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let place = |found: &Found| entries.iter().position(|(entry, _)| entry.name == found.mutant);
    mutants.sort_by_key(place);
    Ok(Outcome { sound, mutants })
}

impl Outcome {
    /// Whether the right deployment has no failure and every mutant was caught.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.sound.checks.iter().all(|check| check.verdict.is_fine())
            && self.mutants.iter().all(|found| found.caught)
    }
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

fn check(hooks: &Hooks, only: Vec<String>) -> Result<Report> {
    let options = Options { only, engine: "fabric".to_owned(), ..Options::default() };
    Ok(fabric::conform(&fabric::checked(), SEED, hooks.clone(), &options)?)
}

fn test(entry: &catalogue::Mutant, mutant: &Mutant, checks: Vec<String>, sound: &Report) -> Found {
    let watch = Stopwatch::start();
    let named = |report: &Report| report.checks.iter().find(|check| check.id == entry.check).cloned();
    let (caught, instead, also_failed) = match check(&(mutant.hooks)(), checks) {
        Ok(report) => {
            let faulty = named(&report);
            let green = named(sound).is_some_and(|check| check.verdict.is_fine());
            let caught = green && faulty.as_ref().is_some_and(|check| fails_with(check, &entry.observation));
            let instead = (!caught)
                .then(|| if green { seen(faulty.as_ref()) } else { "not green without it".to_owned() });
            let others = report
                .checks
                .iter()
                .filter(|check| check.verdict == Verdict::Fail && check.id != entry.check);
            (caught, instead, others.map(|check| check.id.clone()).collect())
        }
        Err(error) => (false, Some(error.to_string()), Vec::new()),
    };
    Found {
        mutant: entry.name.clone(),
        requirement: entry.requirement.clone(),
        check: entry.check.clone(),
        observation: entry.observation.clone(),
        caught,
        instead,
        also_failed,
        wall_s: watch.elapsed().as_secs_f64(),
    }
}

fn fails_with(check: &CheckReport, observation: &str) -> bool {
    let failed = |seen: &fusion_conformance::check::Observation| {
        seen.verdict == Verdict::Fail && seen.code == observation
    };
    check.verdict == Verdict::Fail && check.observations.iter().any(failed)
}

fn seen(check: Option<&CheckReport>) -> String {
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
            let proved = catalogue().mutants.iter().any(|mutant| mutant.check == check.id);
            assert!(proved, "{}", check.id);
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
        let (entry, mutant) =
            chosen(entries().unwrap(), &["errors-quote-the-request".to_owned()]).unwrap()[0];
        let checks = vec![entry.check.clone()];
        let sound = check(&Hooks::default(), checks.clone()).unwrap();
        assert!(test(entry, &mutant, checks.clone(), &sound).caught);

        let other = catalogue::Mutant { observation: "no-refusal".to_owned(), ..entry.clone() };
        let missed = test(&other, &mutant, checks, &sound);
        assert!(!missed.caught);
        assert_eq!(missed.instead.unwrap().split_once(' ').unwrap().0, "fail");
    }
}
