//! Plans: what is run, replayed and compared. A scenario and a seed make a plan; the plan alone decides.

mod check;

use std::path::PathBuf;
use std::time::Duration;

use fusion_deployment::{HostSpec, Topology};
use fusion_runtime::Entropy;
use serde::{Deserialize, Serialize};

use crate::budget::Budget;
use crate::duration;
use crate::fabric::Fault;
use crate::scenario::{Scenario, Start, Step};
use crate::swarm;

pub use check::Flaw;

/// A materialised run: topology, steps and faults with stable ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The scenario it was made from.
    pub scenario: String,
    /// The scenario's file, where it is not found by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The seed it was made with; seeds the streams of chance of the run, too.
    pub seed: u64,
    /// Whether a swarm of faults was added to the story.
    pub mode: Mode,
    /// Who is there.
    pub topology: Topology,
    /// What people do.
    pub steps: Vec<Step>,
    /// The kinds of the scenario's steps that the swarm leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// What goes wrong.
    pub faults: Vec<PlannedFault>,
    /// The bug that is planted ([`crate::plant`]): what a run with it shows is no fault of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planted: Option<String>,
    /// How often a ready task steps back to let others go first, 0 to 1.
    pub hesitation: f64,
    /// How much the run may take before somebody counts as spinning.
    #[serde(default, skip_serializing_if = "Budget::is_default")]
    pub budget: Budget,
    /// How long the act lasts at least.
    #[serde(with = "duration")]
    pub act: Duration,
    /// How long everything has to come to rest after it is healed.
    #[serde(with = "duration")]
    pub settle: Duration,
}

/// Whether a run is the story alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The scenario's own steps and faults.
    Story,
    /// With faults drawn from the seed besides.
    Swarm,
}

/// A fault with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedFault {
    /// Stable, so that a plan can be shrunk.
    pub id: String,
    /// When it begins.
    pub start: Start,
    /// How long it lasts.
    #[serde(with = "duration")]
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
}

impl Plan {
    /// What `scenario` becomes with `seed`. `hosts` are those that the topology will have.
    #[must_use]
    pub fn new(scenario: &Scenario, hosts: &[HostSpec], seed: u64, mode: Mode) -> Self {
        let entropy = Entropy::from_u64(seed).stream("plan").stream(&scenario.name);
        let mut faults: Vec<_> = scenario.faults.iter().map(scripted).collect();
        let (mut steps, mut left_out) = (scenario.steps.clone(), Vec::new());
        let mut hesitation = 0.0;
        if mode == Mode::Swarm {
            faults.extend(swarm::draw(scenario, hosts, &entropy.stream("swarm")));
            (steps, left_out) = swarm::keep(scenario, &entropy.stream("steps"));
            hesitation = [0.0, 0.05, 0.2][entropy.stream("hesitation").below(3) as usize];
        }
        Self {
            scenario: scenario.name.clone(),
            file: scenario.file.clone(),
            seed,
            mode,
            topology: scenario.topology.clone(),
            steps: steps.iter().map(|step| jittered(step, &entropy)).collect(),
            left_out,
            faults,
            planted: None,
            hesitation,
            budget: Budget::default(),
            act: scenario.act,
            settle: scenario.settle,
        }
    }
}

fn scripted(fault: &crate::scenario::ScriptedFault) -> PlannedFault {
    let fault = fault.clone();
    PlannedFault { id: fault.id, start: fault.start, lasts: fault.lasts, fault: fault.fault }
}

/// Each step has its own stream, so that a step more or less leaves the others where they were.
fn jittered(step: &Step, entropy: &Entropy) -> Step {
    let drawn = entropy.stream(&format!("step/{}", step.id)).below(step.jitter.as_micros() as u64 + 1);
    let by = Duration::from_micros(drawn);
    let start = match &step.start {
        Start::At(at) => Start::At(*at + by),
        Start::After { steps, delay } => Start::After { steps: steps.clone(), delay: *delay + by },
    };
    Step { start, jitter: Duration::ZERO, ..step.clone() }
}
