//! The proof that a run is a function of its plan: the same plan again, here and in another process.
//!
//! Two processes differ in what must not matter: the addresses of things, the order of hash maps, the
//! wall clock, the operating system's randomness. If any of it leaks into a run, the hashes differ, and
//! the first event that differs is shown with both sides.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use fusion_history::{Difference, History, first_difference};

use crate::engines::fabric::{Options, hosts};
use crate::outcome::judged;
use crate::plan::{Mode, Plan};
use crate::scenario::Scenario;

/// Plants a fault that the check must find: set by tests and by `--plant`, never otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// Something iterates over a hash map with a random order.
    HashOrder,
    /// Something reads the wall clock.
    WallClock,
}

/// What the check of one seed found.
#[derive(Debug)]
pub enum Found {
    /// The same history, with this hash, every time.
    Same(String),
    /// Two runs in this process differ.
    DiffersHere(Box<Difference>),
    /// A run in another process differs.
    DiffersThere(Box<Difference>),
}

/// Plays a seed twice in this process and once in a fresh one.
///
/// # Errors
/// When the other process fails.
pub fn check(
    scenario: &Scenario,
    seed: u64,
    mode: Mode,
    plant: Option<Fault>,
    folder: &Path,
) -> Result<Found> {
    let first = play(scenario, seed, mode, plant)?;
    let second = play(scenario, seed, mode, plant)?;
    if let Some(difference) = first_difference(&first, &second) {
        return Ok(Found::DiffersHere(Box::new(difference)));
    }
    let there = elsewhere(scenario, seed, mode, plant, folder)?;
    Ok(match first_difference(&first, &there) {
        None => Found::Same(first.hash()),
        Some(difference) => Found::DiffersThere(Box::new(difference)),
    })
}

/// The history of one run.
///
/// # Errors
/// When the scenario's federation cannot exist.
pub fn play(scenario: &Scenario, seed: u64, mode: Mode, plant: Option<Fault>) -> Result<History> {
    let hosts = hosts(&scenario.topology)?;
    let mut plan = Plan::new(scenario, &hosts, seed, mode);
    if let Some(fault) = plant {
        fault.plant(&mut plan);
    }
    Ok(judged(&plan, &Options { wire: true, ..Options::default() }).history)
}

impl Fault {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HashOrder => "hash-order",
            Self::WallClock => "wall-clock",
        }
    }

    /// Makes the order or the time of the plan's steps depend on what must not matter.
    fn plant(self, plan: &mut Plan) {
        use crate::scenario::Start;
        let later = |start: &mut Start, us: u64| {
            let by = std::time::Duration::from_micros(us);
            match start {
                Start::At(at) => *at += by,
                Start::After { delay, .. } => *delay += by,
            }
        };
        match self {
            Self::HashOrder => {
                #[expect(clippy::disallowed_types, reason = "the planted fault itself")]
                let order: std::collections::HashSet<usize> = (0..plan.steps.len().max(8)).collect();
                for (place, n) in order.into_iter().enumerate() {
                    if let Some(step) = plan.steps.get_mut(n) {
                        later(&mut step.start, place as u64 * 1_000);
                    }
                }
            }
            Self::WallClock => {
                #[expect(clippy::disallowed_methods, reason = "the planted fault itself")]
                let now =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                for step in &mut plan.steps {
                    later(&mut step.start, u64::from(now.subsec_micros()) % 997_000 + 1_000);
                }
            }
        }
    }
}

/// The same run by a fresh process of this very program.
fn elsewhere(
    scenario: &Scenario,
    seed: u64,
    mode: Mode,
    plant: Option<Fault>,
    folder: &Path,
) -> Result<History> {
    let program = std::env::current_exe().context("this program does not know where it is")?;
    let mut command = Command::new(program);
    command.arg("--scenarios").arg(folder).args(["history", &scenario.name, "--seed", &seed.to_string()]);
    if mode == Mode::Swarm {
        command.arg("--swarm");
    }
    if let Some(fault) = plant {
        command.args(["--plant", fault.name()]);
    }
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("the other process")?;
    if !output.status.success() {
        bail!("the other process failed: {}", output.status);
    }
    Ok(History::read_lines(output.stdout.as_slice())?)
}
