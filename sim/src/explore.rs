//! Many runs: seeds over all cores, and what they show together.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fusion_history::Ruling;
use sha2::{Digest as _, Sha256};

use crate::engines::fabric::{Options, hosts};
use crate::fabric::FaultCount;
use crate::outcome::{Outcome, judged};
use crate::plan::{Mode, Plan};
use crate::scenario::Scenario;
use crate::shard::{Record, Shard};
use crate::stopwatch::Stopwatch;
use crate::workers::each;

/// Which runs to make of a scenario.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The first seed.
    pub first: u64,
    /// How many seeds.
    pub seeds: u64,
    /// Which of them are played here.
    pub shard: Shard,
    /// With or without a swarm.
    pub mode: Mode,
    /// How many runs at a time.
    pub jobs: usize,
    /// The bug that is planted.
    pub planted: Option<String>,
}

/// What a batch of runs of one scenario shows.
#[derive(Debug, Default)]
pub struct Summary {
    /// The scenario.
    pub scenario: String,
    /// The engine.
    pub engine: String,
    /// How many runs were asked for.
    pub asked: u64,
    /// How many runs were made: fewer, when the batch was stopped.
    pub runs: u64,
    /// Runs that are not as they must be, in order of seed, at most [`KEPT_MAX`].
    pub failed: Vec<Outcome>,
    /// The same in short, also where their histories are elsewhere.
    pub notable: Vec<Record>,
    /// How many there are.
    pub violated: u64,
    /// How many could not be judged.
    pub unknown: u64,
    /// Events observed in all.
    pub events: u64,
    /// Simulated time in all.
    pub simulated: Duration,
    /// Wall time from the first to the last.
    pub wall: Duration,
    /// The hash over all hashes in order of seed.
    pub hash: String,
    /// How often each fault family was chosen and made a difference, in runs.
    pub faults: BTreeMap<String, FaultCount>,
    /// The requirements that were judged on at least one case.
    pub reached: BTreeSet<String>,
    /// In how many runs a fault family made a difference while a requirement had a case.
    pub under_fault: BTreeMap<(String, String), u64>,
    /// Different histories among the runs.
    pub distinct: u64,
}

/// How many failed runs a summary keeps with their histories.
pub const KEPT_MAX: usize = 10;

/// Makes the runs of `batch` on fabric. `progress` is called after each; `stop` ends the batch early.
pub fn explore(
    scenario: &Scenario,
    batch: &Batch,
    options: &Options,
    stop: &AtomicBool,
    progress: &(dyn Fn(&Outcome) + Sync),
) -> Summary {
    explore_on(scenario, batch, &|plan| judged(plan, options), stop, progress)
}

/// Makes the runs of `batch` by `judged`, which plays a plan on some engine and judges it.
pub fn explore_on(
    scenario: &Scenario,
    batch: &Batch,
    judged: &(dyn Fn(&Plan) -> Outcome + Sync),
    stop: &AtomicBool,
    progress: &(dyn Fn(&Outcome) + Sync),
) -> Summary {
    let watch = Stopwatch::start();
    let hosts = hosts(&scenario.topology).unwrap_or_default();
    let seeds = batch.shard.of(batch.first, batch.seeds);
    let asked = seeds.len() as u64;
    let tally = Mutex::new(Tally::default());
    each(seeds, batch.jobs, stop, &|seed| {
        let plan = Plan::new(scenario, &hosts, seed, batch.mode);
        let outcome = judged(&Plan { planted: batch.planted.clone(), ..plan });
        progress(&outcome);
        tally.lock().unwrap_or_else(PoisonError::into_inner).add(seed, outcome);
    });
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    Summary { asked, ..tally.summary(&scenario.name, watch.elapsed()) }
}

impl Summary {
    /// The ruling of all runs together; unknown where not all were made.
    #[must_use]
    pub fn ruling(&self) -> Ruling {
        match (self.violated, self.unknown) {
            (0, 0) if self.runs > 0 && self.runs == self.asked => Ruling::Holds,
            (0, _) => Ruling::Unknown,
            _ => Ruling::Violated,
        }
    }

    /// The requirements that the scenario is about and that no run had a case of: an empty victory.
    #[must_use]
    pub fn never_reached<'a>(&self, scenario: &'a Scenario) -> Vec<&'a str> {
        let missed = scenario.requirements.iter().filter(|requirement| !self.reached.contains(*requirement));
        missed.map(String::as_str).collect()
    }
}

/// A summary in the making, in whatever order runs end.
#[derive(Default)]
pub(crate) struct Tally {
    summary: Summary,
    hashes: BTreeMap<u64, String>,
}

impl Tally {
    /// Counts run `n` of the batch, and keeps it when it is not as it must be.
    pub(crate) fn add(&mut self, n: u64, outcome: Outcome) {
        self.count(n, &Record::of(&outcome));
        let summary = &mut self.summary;
        summary.engine = outcome.engine.to_owned();
        if outcome.ruling != Ruling::Holds {
            // The lowest seeds are kept, whichever thread was faster.
            summary.failed.push(outcome);
            summary.failed.sort_by_key(|outcome| (Reverse(outcome.ruling), outcome.seed));
            summary.failed.truncate(KEPT_MAX);
        }
    }

    /// Counts run `n` of the batch, of which no more is known than this.
    pub(crate) fn count(&mut self, n: u64, run: &Record) {
        let summary = &mut self.summary;
        summary.runs += 1;
        summary.events += run.events;
        summary.simulated += Duration::from_micros(run.simulated_us);
        for (family, count) in &run.faults {
            let tally = summary.faults.entry(family.clone()).or_default();
            tally.chosen += u64::from(count.chosen > 0);
            tally.effective += u64::from(count.effective > 0);
        }
        for (family, _) in run.faults.iter().filter(|(_, count)| count.effective > 0) {
            for id in &run.reached {
                *summary.under_fault.entry((id.clone(), family.clone())).or_default() += 1;
            }
        }
        summary.reached.extend(run.reached.iter().cloned());
        self.hashes.insert(n, run.hash.clone());
        match run.verdict {
            Ruling::Holds => return,
            Ruling::Unknown => summary.unknown += 1,
            Ruling::Violated => summary.violated += 1,
        }
        summary.notable.push(run.clone());
        summary.notable.sort_by_key(|run| (Reverse(run.verdict), run.seed));
        summary.notable.truncate(KEPT_MAX);
    }

    /// How many runs are violated so far.
    pub(crate) fn violated(&self) -> u64 {
        self.summary.violated
    }

    /// What the runs show together.
    pub(crate) fn summary(self, scenario: &str, wall: Duration) -> Summary {
        let mut hash = Sha256::new();
        self.hashes.values().for_each(|one| hash.update(one));
        let hash = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let distinct = self.hashes.values().collect::<BTreeSet<_>>().len() as u64;
        Summary { scenario: scenario.to_owned(), wall, hash, distinct, ..self.summary }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_was_stopped_does_not_hold() {
        let summary = |asked, runs| Summary { asked, runs, ..Summary::default() };
        assert_eq!(summary(1000, 1000).ruling(), Ruling::Holds);
        assert_eq!(summary(1000, 5).ruling(), Ruling::Unknown);
        assert_eq!(summary(0, 0).ruling(), Ruling::Unknown);
        assert_eq!(Summary { violated: 1, ..summary(1000, 5) }.ruling(), Ruling::Violated);
    }
}
