//! Shrinking: from a plan that shows a violation to a small one that shows the same.
//!
//! Delta debugging (Zeller and Hildebrandt, 2002) over what a plan is made of, coarsest first: faults,
//! steps, people and clusters, then how long things last. Each candidate is played and judged; it is kept
//! when a violation with the same fingerprint is seen. The result is played twice more: what cannot be
//! shown again is not handed out.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::engines::fabric::Options;
use crate::outcome::{Outcome, judged};
use crate::plan::Plan;
use crate::scenario::{Start, Step};

/// The shortest time that a fault or an act is shrunk to.
const SHORTEST: Duration = Duration::from_millis(50);

/// A small plan that shows the same violation.
#[derive(Debug)]
pub struct Shrunk {
    /// The plan.
    pub plan: Plan,
    /// Its run.
    pub outcome: Outcome,
    /// How large the plan was.
    pub before: Size,
    /// How large it is now.
    pub after: Size,
    /// How many plans were played.
    pub replays: u32,
    /// Whether the search ended because `replays` ran out or it was stopped: smaller ones may exist.
    pub cut_short: bool,
}

/// How large a plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Faults, scripted and drawn.
    pub faults: usize,
    /// Steps.
    pub operations: usize,
    /// People who are provisioned.
    pub people: usize,
    /// Clusters.
    pub clusters: usize,
}

/// Why nothing was shrunk.
#[derive(Debug, thiserror::Error)]
pub enum ShrinkError {
    /// The plan as it is does not show it.
    #[error("this plan does not show {fingerprint}; it shows {instead}")]
    NotShown {
        /// What was looked for.
        fingerprint: String,
        /// What was seen instead.
        instead: String,
    },
    /// A smaller plan showed it once and not again: something is not deterministic.
    #[error("the shrunk plan showed {fingerprint} once and not again: `sim check-determinism` tells why")]
    NotAgain {
        /// What was looked for.
        fingerprint: String,
    },
}

/// Shrinks `plan` as long as a violation of `fingerprint` is seen, with `replays_max` plays at most
/// besides the first and the two last. `stop` ends the search with what it has; `progress` is told after each
/// of them how many were played and how large the smallest plan is.
///
/// # Errors
/// When the plan does not show the violation, or the result shows it only once.
pub fn shrink(
    plan: &Plan,
    fingerprint: &str,
    replays_max: u32,
    options: &Options,
    stop: &AtomicBool,
    progress: &dyn Fn(u64, Size),
) -> Result<Shrunk, ShrinkError> {
    let first = judged(plan, options);
    if !shows(&first, fingerprint) {
        let seen = fingerprints(&first);
        let instead = if seen.is_empty() { first.ruling.to_string() } else { seen.join(", ") };
        return Err(ShrinkError::NotShown { fingerprint: fingerprint.to_owned(), instead });
    }
    let mut search =
        Search { plan: plan.clone(), fingerprint, options, stop, left: replays_max, replays: 1, progress };
    search.faults();
    search.steps();
    search.people();
    search.clusters();
    search.durations();
    let (again, once_more) = (judged(&search.plan, options), judged(&search.plan, options));
    if !shows(&again, fingerprint) || again.hash != once_more.hash {
        return Err(ShrinkError::NotAgain { fingerprint: fingerprint.to_owned() });
    }
    let cut_short = search.is_over();
    Ok(Shrunk {
        before: Size::of(plan),
        after: Size::of(&search.plan),
        plan: search.plan,
        outcome: again,
        replays: search.replays + 2,
        cut_short,
    })
}

/// The fingerprints of everything that is wrong in a run, the first of each kind; of a run that failed, the
/// kind of failure.
#[must_use]
pub fn fingerprints(outcome: &Outcome) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let violations = outcome.verdicts.iter().flat_map(|verdict| &verdict.violations);
    let fingerprints = violations.map(|violation| violation.fingerprint.clone());
    let fingerprints = fingerprints.chain(outcome.failure_kind().map(str::to_owned));
    fingerprints.filter(|fingerprint| seen.insert(fingerprint.clone())).collect()
}

impl Size {
    /// How large `plan` is.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self {
            faults: plan.faults.len(),
            operations: plan.steps.len(),
            people: plan.topology.users.len(),
            clusters: plan.topology.clusters().count(),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { faults, operations, people, clusters } = self;
        write!(f, "{faults} faults, {operations} operations, {people} people, {clusters} clusters")
    }
}

fn shows(outcome: &Outcome, fingerprint: &str) -> bool {
    let mut violations = outcome.verdicts.iter().flat_map(|verdict| &verdict.violations);
    violations.any(|violation| violation.fingerprint == fingerprint)
        || outcome.failure_kind() == Some(fingerprint)
}

struct Search<'a> {
    plan: Plan,
    fingerprint: &'a str,
    options: &'a Options,
    stop: &'a AtomicBool,
    left: u32,
    replays: u32,
    progress: &'a dyn Fn(u64, Size),
}

impl Search<'_> {
    fn faults(&mut self) {
        let ids = self.plan.faults.iter().map(|fault| fault.id.clone()).collect();
        self.minimise(ids, |plan, kept| plan.faults.retain(|fault| kept.contains(&fault.id)));
    }

    fn steps(&mut self) {
        let ids = self.plan.steps.iter().map(|step| step.id.clone()).collect();
        self.minimise(ids, keep_steps);
    }

    fn people(&mut self) {
        let needed = spoken_of(&self.plan);
        let all = self.plan.topology.users.iter().map(|user| user.address.local_part().to_owned());
        let idle = all.filter(|name| !needed.contains(name)).collect();
        self.minimise(idle, |plan, kept| {
            let stays = |name: &str| kept.contains(name) || needed.contains(name);
            plan.topology.users.retain(|user| stays(user.address.local_part()));
        });
    }

    fn clusters(&mut self) {
        let mut needed = spoken_of(&self.plan);
        needed.extend(self.plan.topology.users.iter().map(|user| user.cluster.as_str().to_owned()));
        let all = self.plan.topology.clusters().map(|(_, cluster)| cluster.name.as_str().to_owned());
        let empty = all.filter(|name| !needed.contains(name)).collect();
        self.minimise(empty, |plan, kept| {
            let stays = |name: &str| kept.contains(name) || needed.contains(name);
            for org in &mut plan.topology.orgs {
                org.clusters.retain(|cluster| stays(cluster.name.as_str()));
                // Who is left out lends no relays any more, or it could never be left out.
                org.clusters
                    .iter_mut()
                    .for_each(|kept| kept.overflow.retain(|lender| stays(lender.as_str())));
            }
            plan.topology.orgs.retain(|org| !org.clusters.is_empty());
        });
    }

    /// Halves what lasts, as long as the violation is seen; steps back to the first order of tasks.
    fn durations(&mut self) {
        self.attempt(|plan| plan.hesitation = 0.0);
        for n in 0..self.plan.faults.len() {
            while self.plan.faults[n].lasts > SHORTEST && self.attempt(|plan| plan.faults[n].lasts /= 2) {}
        }
        while self.plan.act > SHORTEST && self.attempt(|plan| plan.act /= 2) {}
    }

    /// Finds a small set of `ids` with which the violation is still seen: no smaller part of it can be
    /// left out.
    fn minimise(&mut self, ids: Vec<String>, keep: impl Fn(&mut Plan, &BTreeSet<String>)) {
        let mut kept = ids;
        if kept.is_empty() || self.attempt(|plan| keep(plan, &BTreeSet::new())) {
            return;
        }
        let mut parts = 2;
        while kept.len() > 1 && !self.is_over() {
            let size = kept.len().div_ceil(parts);
            let smaller = (0..kept.len().div_ceil(size)).find_map(|part| {
                let without = part * size..((part + 1) * size).min(kept.len());
                let rest: Vec<String> = [&kept[..without.start], &kept[without.end..]].concat();
                let chosen = rest.iter().cloned().collect();
                self.attempt(|plan| keep(plan, &chosen)).then_some(rest)
            });
            match smaller {
                Some(rest) => {
                    kept = rest;
                    parts = (parts - 1).max(2);
                }
                None if size == 1 => break,
                None => parts = (parts * 2).min(kept.len()),
            }
        }
    }

    /// Whether no more plans are to be played.
    fn is_over(&self) -> bool {
        self.left == 0 || self.stop.load(Ordering::Relaxed)
    }

    /// Plays the plan with a change; keeps the change when the violation is still seen.
    fn attempt(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        if self.is_over() {
            return false;
        }
        let mut plan = self.plan.clone();
        change(&mut plan);
        self.left -= 1;
        self.replays += 1;
        let shown = shows(&judged(&plan, self.options), self.fingerprint);
        if shown {
            self.plan = plan;
        }
        (self.progress)(self.replays.into(), Size::of(&self.plan));
        shown
    }
}

/// Leaves out all other steps. What began after one of them begins when that one would have.
fn keep_steps(plan: &mut Plan, kept: &BTreeSet<String>) {
    let all = plan.steps.clone();
    plan.steps.retain(|step| kept.contains(&step.id));
    for step in &mut plan.steps {
        step.start = anchored(&step.start, &all, kept);
    }
    for fault in &mut plan.faults {
        fault.start = anchored(&fault.start, &all, kept);
    }
}

/// The same start told by steps that are kept: each one left out is replaced by what it waited for.
fn anchored(start: &Start, all: &[Step], kept: &BTreeSet<String>) -> Start {
    let Start::After { steps, delay } = start else { return start.clone() };
    let mut waits: Vec<String> = Vec::new();
    let mut at = *delay;
    for id in steps {
        if kept.contains(id) {
            waits.push(id.clone());
            continue;
        }
        let Some(left_out) = all.iter().find(|step| step.id == *id) else { continue };
        match anchored(&left_out.start, all, kept) {
            Start::At(earlier) => at = at.max(earlier + *delay),
            Start::After { steps, delay: earlier } => {
                waits.extend(steps);
                at = at.max(earlier + *delay);
            }
        }
    }
    waits.sort();
    waits.dedup();
    if waits.is_empty() { Start::At(at) } else { Start::After { steps: waits, delay: at } }
}

/// Every name in the steps of a plan: people, clusters, chats, whatever an act speaks of.
fn spoken_of(plan: &Plan) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut left: Vec<Value> = plan.steps.iter().filter_map(|step| serde_json::to_value(step).ok()).collect();
    while let Some(value) = left.pop() {
        match value {
            Value::String(name) => drop(names.insert(name)),
            Value::Array(values) => left.extend(values),
            Value::Object(members) => left.extend(members.into_iter().map(|(_, value)| value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use std::path::Path;

    fn plan() -> Plan {
        let text = r#"
            title = "Two people"
            requirements = ["RDV-001"]
            [[topology.orgs]]
            name = "acme"
            domains = ["acme.example"]
            clusters = [{ name = "a" }]
            [[topology.users]]
            address = "alice@acme.example"
            cluster = "a"
            [[step]]
            id = "one"
            by = "alice"
            at = "1s"
            do = "read_index"
            [[step]]
            id = "two"
            by = "alice"
            after = ["one"]
            delay = "2s"
            do = "read_index"
            [[step]]
            id = "three"
            by = "alice"
            after = ["two"]
            delay = "3s"
            do = "read_index"
        "#;
        let scenario = Scenario::parse(Path::new("one.toml"), text).unwrap();
        Plan::new(&scenario, &[], 1, crate::plan::Mode::Story)
    }

    fn kept(ids: &[&str]) -> Plan {
        let mut plan = plan();
        keep_steps(&mut plan, &ids.iter().map(|&id| id.to_owned()).collect());
        plan
    }

    #[test]
    fn a_step_whose_forerunner_is_left_out_begins_when_that_would_have() {
        assert_eq!(kept(&["three"]).steps[0].start, Start::At(Duration::from_secs(6)));
        let delay = Duration::from_secs(5);
        let after_one = Start::After { steps: vec!["one".to_owned()], delay };
        assert_eq!(kept(&["one", "three"]).steps[1].start, after_one);
        assert_eq!(kept(&["one", "two", "three"]).steps, plan().steps);
    }

    #[test]
    fn whoever_a_step_names_is_needed() {
        assert!(spoken_of(&plan()).contains("alice"));
        assert!(!spoken_of(&plan()).contains("bob"));
    }
}
