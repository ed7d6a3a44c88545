//! The schedule-race fuzzer: the same plan on madsim, whose executor picks the next ready task at random,
//! in a build of its own (`--cfg madsim`).
//!
//! Byte-exact by itself: it puts its own clock and randomness under the whole process. One world per
//! thread, so that not even the seed of hash maps is left over from the one before.

mod bare;
mod disk;
mod distance;
mod fault;
mod machine;
mod names;
mod net;
mod plant;
mod stage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fusion_deployment::{Addressing, Federation, Hooks, assemble};
use fusion_runtime::Entropy;
use madsim::runtime::Runtime;

use super::evidence::Evidence;
use super::fabric::Run;
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::play::{PlayError, play};
use crate::scenario::Scenario;
use crate::stage::Stage as _;
use crate::stopwatch::Stopwatch;
use crate::target::target_of;
pub use bare::village;
pub use plant::FORGETFUL_COMMITS;
use stage::MadsimStage;

/// The engine's name in histories and on the command line.
pub const NAME: &str = "madsim";

/// The simulated time after which a run that has not ended is a failure.
const RUN_LIMIT: Duration = Duration::from_secs(24 * 3_600);

/// The fault families that a swarm may draw from here: those that can be expressed wherever they fall.
pub const FAMILIES: [&str; 7] =
    ["crash", "latency", "loss", "partition", "partition_one_way", "pause", "slow_disk"];

/// A scenario whose swarms draw only faults that can be expressed here.
#[must_use]
pub fn expressible(scenario: &Scenario) -> Scenario {
    let mut scenario = scenario.clone();
    scenario.swarm.families.retain(|family| FAMILIES.contains(&family.as_str()));
    scenario
}

/// Why a plan cannot be played here: its first fault that madsim cannot express, by name.
#[must_use]
pub fn refusal(plan: &Plan) -> Option<String> {
    let refused = plan.faults.iter().find(|fault| !fault::can_express(&fault.fault))?;
    let sides = if matches!(refused.fault.family(), "loss" | "latency") { " of some links only" } else { "" };
    Some(format!("madsim cannot express `{}`{sides} (fault {})", refused.fault.family(), refused.id))
}

/// Plays a plan on madsim and judges it. A plan with a [`refusal`] fails when its fault is due.
#[must_use]
pub fn judged(plan: &Plan, hooks: &Hooks) -> Outcome {
    let watch = Stopwatch::start();
    Outcome::of(plan, NAME, run(plan, hooks), watch)
}

fn run(plan: &Plan, hooks: &Hooks) -> Run {
    let entropy = Entropy::from_u64(plan.seed);
    let federation = match assemble(&plan.topology, Addressing::Simulated, &entropy.stream("federation")) {
        Ok(federation) => Arc::new(federation),
        Err(error) => return Run::failed(error.to_string()),
    };
    let evidence = Arc::new(Evidence::new(&federation, false));
    let played = std::thread::scope(|scope| {
        let (evidence, hooks) = (evidence.clone(), hooks.clone());
        scope.spawn(move || world(plan, federation, evidence, hooks, entropy)).join()
    });
    let (simulated, failure) = match played {
        Ok((simulated, played)) => (simulated, evidence.failure(played, 0)),
        // madsim ends the whole world when a task panics; whose it was, it has said.
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
            (Duration::ZERO, Some(format!("a task panicked: {said}")))
        }
    };
    Run {
        history: evidence.recorder().clone().finish(),
        faults: BTreeMap::new(),
        simulated_us: simulated.as_micros() as u64,
        failure,
        unsent: Vec::new(),
    }
}

/// One world from its beginning to its end; says how long it lasted.
fn world(
    plan: &Plan,
    federation: Arc<Federation>,
    evidence: Arc<Evidence>,
    hooks: Hooks,
    entropy: Entropy,
) -> (Duration, Result<(), PlayError>) {
    let mut runtime = Runtime::with_seed_and_config(plan.seed, madsim::Config::default());
    runtime.set_time_limit(RUN_LIMIT);
    runtime.block_on(async {
        let target = Arc::new(target_of(&federation));
        let stage = MadsimStage::start(federation, evidence, hooks, entropy);
        let played = play(plan, &stage, target).await;
        let lasted = stage.clock().now();
        stage.end_all().await;
        (lasted, played)
    })
}
