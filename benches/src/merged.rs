//! One long history of many runs, as if they had happened side by side in one world.
//!
//! Every run has people of its own, so that no two stories are about the same; the clusters are the same.
//! Phases are those of all runs together: everybody reads everything when all have come to rest. Nothing
//! goes wrong in these stories: what strikes a cluster in one of them would have struck it in all.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fusion_history::{Body, Event, EventId, History};
use fusion_sim::engines::fabric::{Options, hosts, run};
use fusion_sim::library::Library;
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::scenario::Scenario;

/// Stories of one and the same deployment, played as often as needed.
pub(crate) struct Stories {
    scenarios: Vec<Scenario>,
    runs: Vec<History>,
    events: usize,
}

impl Stories {
    /// The scenarios without faults that share the deployment that most of them have.
    pub(crate) fn read() -> Result<Self> {
        let mut by_deployment: BTreeMap<String, Vec<Scenario>> = BTreeMap::new();
        for scenario in Library::nearest()?.all()?.into_iter().filter(|scenario| scenario.faults.is_empty()) {
            let deployment = serde_json::to_string(&scenario.topology.orgs)?;
            by_deployment.entry(deployment).or_default().push(scenario);
        }
        let most = by_deployment.into_values().max_by_key(Vec::len).context("no scenario")?;
        Ok(Self { scenarios: most, runs: Vec::new(), events: 0 })
    }

    /// How many runs there are so far.
    pub(crate) fn played(&self) -> usize {
        self.runs.len()
    }

    /// A history of about so many events.
    pub(crate) fn merged(&mut self, events: usize) -> Result<History> {
        while self.events < events {
            let history = self.play(self.runs.len())?;
            self.events += history.len();
            self.runs.push(history);
        }
        Ok(merge(&self.runs))
    }

    fn play(&self, number: usize) -> Result<History> {
        let scenario = &self.scenarios[number % self.scenarios.len()];
        let plan = Plan::new(scenario, &hosts(&scenario.topology)?, number as u64, Mode::Story);
        let run = run(&renamed(&plan, number)?, &Options::default());
        ensure!(run.failure.is_none(), "{}, seed {number}: {:?}", scenario.name, run.failure);
        Ok(run.history)
    }
}

/// The same plan with people whose names have a number.
fn renamed(plan: &Plan, number: usize) -> Result<Plan> {
    let mut text = serde_json::to_string(plan)?;
    for user in &plan.topology.users {
        let (name, _) = user.address.as_str().split_once('@').context("an address without @")?;
        for end in ["@", "\"", "/"] {
            text = text.replace(&format!("\"{name}{end}"), &format!("\"{name}-{number}{end}"));
        }
    }
    Ok(serde_json::from_str(&text)?)
}

/// All runs phase by phase, within a phase in order of time.
fn merge(runs: &[History]) -> History {
    let mut entries: Vec<(usize, u64, usize, &Event)> = Vec::new();
    for (run, history) in runs.iter().enumerate() {
        let (mut phase, mut since_us) = (0, 0);
        for event in history.events() {
            if matches!(event.body, Body::Phase { .. }) {
                (phase, since_us) = (phase + 1, event.at_us);
            }
            entries.push((phase, event.at_us.saturating_sub(since_us), run, event));
        }
    }
    // Events of one run are in order of time, and the sort is stable.
    entries.sort_by_key(|&(phase, after_us, run, _)| (phase, after_us, run));
    let mut merged = Merged::default();
    entries.into_iter().for_each(|(phase, after_us, run, event)| merged.add(phase, after_us, run, event));
    merged.history
}

#[derive(Default)]
struct Merged {
    history: History,
    places: BTreeMap<(usize, EventId), EventId>,
    /// The phase under way, and when it began.
    phase: (usize, u64),
    now_us: u64,
    knows_world: bool,
}

impl Merged {
    fn add(&mut self, phase: usize, after_us: u64, run: usize, event: &Event) {
        let is_repeated = match event.body {
            Body::World(_) => std::mem::replace(&mut self.knows_world, true),
            Body::Phase { .. } => phase == self.phase.0,
            _ => false,
        };
        if phase != self.phase.0 {
            self.phase = (phase, self.now_us);
        }
        if is_repeated {
            return;
        }
        self.now_us = self.phase.1 + after_us;
        let cause = event.cause.and_then(|cause| self.places.get(&(run, cause)).copied());
        let at = Duration::from_micros(self.now_us);
        let place = self.history.append(at, &event.host, cause, event.body.clone());
        self.places.insert((run, event.id), place);
    }
}

#[cfg(test)]
mod tests {
    use fusion_history::{Phase, Ruling, judge_all, judge_in_parts, ruling_of};

    use super::*;

    #[test]
    fn stories_side_by_side_hold_together_as_each_does_alone() {
        let mut stories = Stories::read().unwrap();
        let history = stories.merged(2_500).unwrap();
        assert!(stories.played() > 3 && history.len() > 2_000, "{} runs", stories.played());
        assert_eq!(ruling_of(&judge_all(&history)), Ruling::Holds);
        assert_eq!(ruling_of(&judge_in_parts(&history, 1)), Ruling::Holds);
        let quiescent = |event: &&Event| matches!(event.body, Body::Phase { phase: Phase::Quiescent });
        assert_eq!(history.events().iter().filter(quiescent).count(), 1);
        assert!(history.events().is_sorted_by_key(|event| event.at_us));
        let at_its_place = |(place, event): (usize, &Event)| event.id.0 == place as u64;
        assert!(history.events().iter().enumerate().all(at_its_place));
    }
}
