//! The detection score: how soon each planted bug is told from the system without it.
//!
//! A bug is hunted with plans of the library's scenarios, one after the other, until a judge finds something
//! violated that is not violated in the same plan without the bug. Everything that is meant to make the
//! simulator better at finding bugs is measured by this.

mod line;
mod trail;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fusion_deployment::Hooks;
use fusion_history::{Ruling, Verdict};

pub use line::{Args, On, run};
pub use trail::Ground;

use crate::outcome::Outcome;
use crate::plan::{Mode, Plan};
use crate::plant::Plant;
use crate::scenario::Scenario;
use crate::stopwatch::Stopwatch;
use crate::workers::side_by_side;

/// Who is named as finder where no judge was needed: the run with the bug could not be played to its end.
const PLAY: &str = "play";

/// An engine, as far as a hunt needs one.
#[derive(Clone, Copy)]
pub struct Arena<'a> {
    /// Its name.
    pub engine: &'static str,
    /// Why it cannot play a plan; nothing when it can.
    pub refusal: &'a (dyn Fn(&Plan) -> Option<String> + Sync),
    /// Plays a plan with a deployment, and judges it.
    pub judged: &'a (dyn Fn(&Plan, &Hooks) -> Outcome + Sync),
}

/// How much is done for one bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// How many plans are played with it at most.
    pub seeds: u64,
    /// After how long no further plan is begun.
    pub within: Duration,
}

/// A hunt for bugs: the plans are the same for all bugs of one requirement.
pub struct Hunt<'a> {
    arena: Arena<'a>,
    grounds: Vec<Ground>,
    budget: Budget,
    /// Whether the order of plans does not look at what a bug breaks.
    blind: bool,
}

/// What became of the hunt for one bug.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The bug.
    pub bug: &'static Plant,
    /// Where it was hunted.
    pub engine: &'static str,
    /// How many plans were played with the bug, the last one included.
    pub seeds: u64,
    /// How many of them were violated, and not held without the bug either: they tell nothing of it.
    pub discarded: u64,
    /// How long it took here, plays without the bug included.
    pub wall: Duration,
    /// How it was found.
    pub sighting: Option<Sighting>,
    /// Whether it was ended before the budget was used up.
    pub stopped: bool,
}

/// A violation that the bug makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The judge, one of the bug's own requirement where there is one; [`PLAY`] when the run failed instead.
    pub judge: String,
    /// Whether the judge judges the requirement that the bug breaks.
    pub own: bool,
    /// Of the first violation that the judge found; of a failed run, why.
    pub fingerprint: String,
    /// The scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Whether a swarm of faults was in it.
    pub mode: Mode,
    /// The command that shows it again.
    pub reproduce: String,
}

impl<'a> Hunt<'a> {
    /// Plays the story of each scenario that the engine can express, without a bug: how many events it has
    /// is what its plans are taken to cost. `played` is told of each.
    #[must_use]
    pub fn prepare(
        scenarios: Vec<Scenario>,
        arena: Arena<'a>,
        budget: Budget,
        jobs: usize,
        stop: &AtomicBool,
        played: &(dyn Fn() + Sync),
    ) -> Self {
        let mut grounds: Vec<Ground> = scenarios.into_iter().map(Ground::new).collect();
        grounds.retain(|ground| (arena.refusal)(&ground.plan(0)).is_none());
        let events = side_by_side(&grounds, jobs, stop, &|ground| {
            let events = (arena.judged)(&ground.plan(0), &Hooks::default()).events;
            played();
            events
        });
        events.into_iter().for_each(|(n, events)| grounds[n].cost = events);
        Self { arena, grounds, budget, blind: false }
    }

    /// The same, in an order of plans that does not look at the requirement that a bug breaks.
    #[must_use]
    pub fn blind(self) -> Self {
        Self { blind: true, ..self }
    }

    /// How many scenarios there are to hunt in.
    #[must_use]
    pub fn grounds(&self) -> usize {
        self.grounds.len()
    }

    /// Hunts for each of `bugs`, `jobs` at a time. `done` is told of each when it ends; those that had not
    /// begun when it was stopped are missing from the result, which is in the order of `bugs`.
    #[must_use]
    pub fn all(
        &self,
        bugs: &[&'static Plant],
        jobs: usize,
        stop: &AtomicBool,
        done: &(dyn Fn(&Finding) + Sync),
    ) -> Vec<Finding> {
        let found = side_by_side(bugs, jobs, stop, &|bug| {
            let finding = self.one(bug, stop);
            done(&finding);
            finding
        });
        found.into_iter().map(|(_, finding)| finding).collect()
    }

    /// Hunts for one bug.
    #[must_use]
    pub fn one(&self, bug: &'static Plant, stop: &AtomicBool) -> Finding {
        let watch = Stopwatch::start();
        let (mut seeds, mut discarded, mut sighting, mut stopped) = (0, 0, None, false);
        let requirement = (!self.blind).then_some(bug.requirement);
        for plan in trail::plans(&self.grounds, requirement).take(self.budget.seeds as usize) {
            stopped = stop.load(Ordering::Relaxed);
            if stopped || watch.elapsed() >= self.budget.within {
                break;
            }
            let planted = Plan { planted: Some(bug.name.to_owned()), ..plan.clone() };
            let outcome = (self.arena.judged)(&planted, &(bug.hooks)());
            seeds += 1;
            if outcome.ruling == Ruling::Violated {
                if (self.arena.judged)(&plan, &Hooks::default()).ruling == Ruling::Holds {
                    sighting = Some(Sighting::of(bug, &outcome));
                    break;
                }
                discarded += 1;
            }
        }
        let (engine, wall) = (self.arena.engine, watch.elapsed());
        Finding { bug, engine, seeds, discarded, wall, sighting, stopped }
    }
}

impl Sighting {
    fn of(bug: &Plant, outcome: &Outcome) -> Self {
        let own = |verdict: &&Verdict| verdict.requirements.iter().any(|id| id == bug.requirement);
        let violated = || outcome.verdicts.iter().filter(|verdict| verdict.ruling == Ruling::Violated);
        let judge = violated().find(own).or_else(|| violated().next());
        let first = judge.and_then(|verdict| verdict.violations.first());
        Self {
            judge: judge.map_or_else(|| PLAY.to_owned(), |verdict| verdict.judge.clone()),
            own: judge.as_ref().is_some_and(own),
            fingerprint: match first {
                Some(violation) => violation.fingerprint.clone(),
                None => outcome.failure.clone().unwrap_or_default(),
            },
            scenario: outcome.scenario.clone(),
            seed: outcome.seed,
            mode: outcome.mode,
            reproduce: outcome.reproduce(),
        }
    }
}
