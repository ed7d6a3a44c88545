//! Expeditions: generated worlds, one after the other.
//!
//! Runs are made in rounds. What a round plays is decided before it begins and what it shows is looked at in
//! the order of its plans when it has ended, so that an expedition is the same on one core and on many.
//!
//! An expedition without a number of runs ends when nothing new is seen any more: every mark is reached, and no
//! fingerprint was new for a long time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fusion_history::Ruling;

use crate::coverage::{Coverage, Reached};
use crate::engines::fabric::{Options, hosts};
use crate::explore::{Summary, Tally};
use crate::generate::Generated;
use crate::outcome::{Outcome, judged};
use crate::plan::{Mode, Plan};
use crate::stopwatch::Stopwatch;
use crate::workers::side_by_side;

/// How many runs a round has.
const ROUND: u64 = 32;
/// How many runs without anything new are a long time, at least.
const FLAT_RUNS_MIN: u64 = 200;
/// And of how many runs in all they are one.
const FLAT_OF: u64 = 5;

/// Where an expedition goes, and how long.
#[derive(Clone, Debug)]
pub struct Expedition {
    /// The first seed.
    pub first: u64,
    /// How many runs; without a number, until nothing new is seen.
    pub runs: Option<u64>,
    /// After how long no further round begins.
    pub within: Duration,
    /// The most clusters that a world has.
    pub clusters_max: u32,
    /// With or without a swarm of faults.
    pub mode: Mode,
    /// How many runs at a time.
    pub jobs: usize,
    /// The bug that is planted.
    pub planted: Option<String>,
    /// Whether it ends with the first run in which something is violated.
    pub first_only: bool,
}

/// What an expedition has found.
#[derive(Debug)]
pub struct Found {
    /// All runs together.
    pub summary: Summary,
    /// What they have reached.
    pub reached: Reached,
    /// How many clusters the smallest and the largest world had.
    pub clusters: (usize, usize),
    /// Why it ended.
    pub end: End,
}

/// Why an expedition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All runs that were asked for were made.
    Done,
    /// Something is violated, and no more was asked for.
    Violated,
    /// Every mark is reached, and nothing new has been seen for a long time.
    Flat,
    /// Its time was over.
    Late,
    /// Somebody stopped it.
    Stopped,
}

impl Expedition {
    /// Goes. `progress` is called after each run, in whatever order they end; `stop` ends it early.
    pub fn go(&self, options: &Options, stop: &AtomicBool, progress: &(dyn Fn(&Outcome) + Sync)) -> Found {
        let watch = Stopwatch::start();
        let (mut tally, mut reached) = (Tally::default(), Reached::default());
        let mut clusters = (usize::MAX, 0);
        let mut made = 0;
        let end = loop {
            if stop.load(Ordering::Relaxed) {
                break End::Stopped;
            } else if self.first_only && tally.violated() > 0 {
                break End::Violated;
            } else if self.runs == Some(made) {
                break End::Done;
            } else if self.runs.is_none() && is_flat(&reached) {
                break End::Flat;
            } else if watch.elapsed() >= self.within {
                break End::Late;
            }
            let until = self.runs.map_or(made + ROUND, |runs| runs.min(made + ROUND));
            let plans: Vec<Plan> = (made..until).map(|n| self.plan(n)).collect();
            for (n, (outcome, coverage)) in self.round(&plans, options, stop, progress) {
                let size = outcome.plan.topology.clusters().count();
                clusters = (clusters.0.min(size), clusters.1.max(size));
                reached.add(coverage);
                tally.add(made + n as u64, outcome);
                if self.first_only && tally.violated() > 0 {
                    break;
                }
            }
            made = until;
        };
        let asked = if end == End::Stopped { self.runs.unwrap_or(made) } else { made };
        let summary = Summary { asked, ..tally.summary("generated", watch.elapsed()) };
        Found { summary, reached, clusters, end }
    }

    /// The plan of run `n`.
    fn plan(&self, n: u64) -> Plan {
        let seed = self.first + n;
        let scenario = Generated { seed, clusters_max: self.clusters_max }.scenario();
        let hosts = hosts(&scenario.topology).unwrap_or_default();
        Plan { planted: self.planted.clone(), ..Plan::new(&scenario, &hosts, seed, self.mode) }
    }

    /// Plays all plans, unless somebody stops it; what became of them comes in their order.
    fn round(
        &self,
        plans: &[Plan],
        options: &Options,
        stop: &AtomicBool,
        progress: &(dyn Fn(&Outcome) + Sync),
    ) -> Vec<(usize, (Outcome, Coverage))> {
        side_by_side(plans, self.jobs, stop, &|plan| {
            let outcome = judged(plan, options);
            progress(&outcome);
            let coverage = Coverage::of(&outcome);
            (outcome, coverage)
        })
    }
}

impl Found {
    /// The ruling of all runs together.
    #[must_use]
    pub fn ruling(&self) -> Ruling {
        self.summary.ruling()
    }
}

/// Whether every mark is reached and nothing new has been seen for a long time.
fn is_flat(reached: &Reached) -> bool {
    let without_new = reached.runs() - reached.last_new();
    without_new >= FLAT_RUNS_MIN.max(reached.runs() / FLAT_OF) && reached.missing().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::marks;

    fn after(runs: u64, names: &[String]) -> Reached {
        let mut reached = Reached::default();
        reached.add(Coverage::naming(names));
        (1..runs).for_each(|_| assert_eq!(reached.add(Coverage::default()), 0));
        reached
    }

    #[test]
    fn it_goes_on_while_something_new_was_seen_lately() {
        let all: Vec<String> = marks().into_iter().map(|mark| mark.name).collect();
        assert!(!is_flat(&after(200, &all)));
        assert!(is_flat(&after(201, &all)));
        let mut late = after(1_000, &all);
        late.add(Coverage::naming(&["something new".to_owned()]));
        (0..200).for_each(|_| assert_eq!(late.add(Coverage::default()), 0));
        assert!(!is_flat(&late), "200 of 1,201 runs are less than a fifth");
        (0..60).for_each(|_| assert_eq!(late.add(Coverage::default()), 0));
        assert!(is_flat(&late));
    }

    #[test]
    fn it_goes_on_while_a_mark_is_not_reached() {
        let expected = marks().into_iter().filter(|mark| mark.exempt.is_none());
        let all: Vec<String> = expected.map(|mark| mark.name).collect();
        assert!(is_flat(&after(500, &all)));
        assert!(!is_flat(&after(500, &all[1..])));
    }
}
