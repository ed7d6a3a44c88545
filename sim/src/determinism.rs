//! The proof that a run is a function of its plan: the same plan again, here and in another process.
//!
//! Two processes differ in what must not matter: the addresses of things, the order of hash maps, the
//! wall clock, the operating system's randomness. If any of it leaks into a run, the hashes differ, and
//! the first event that differs is shown with both sides.

use std::path::Path;
use std::process::{Command, Stdio};

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use fusion_deployment::{Hooks, Role};
use fusion_history::{Difference, History, first_difference};

use fusion_runtime::Host;

use crate::engines::fabric::{Options, hosts};
use crate::outcome::judged;
use crate::plan::{Mode, Plan};
use crate::scenario::Scenario;

/// Plants a fault that the check must find: set by tests and by `--plant`, never otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// Something iterates over a hash map whose order each process draws anew.
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

/// Plays a seed of `scenario` twice in this process and once in a fresh one, which finds it by
/// `argument`: a name below `folder`, or a file.
///
/// # Errors
/// When the other process fails.
pub fn check(
    (argument, scenario): (&str, &Scenario),
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
    let there = elsewhere(argument, seed, mode, plant, folder)?;
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
    let plan = Plan::new(scenario, &hosts, seed, mode);
    let hooks = plant.map(Fault::hooks).unwrap_or_default();
    let outcome = judged(&plan, &Options { wire: true, hooks });
    if let Some(failure) = outcome.failure {
        bail!("{} with seed {seed} cannot be played: {failure}", scenario.name);
    }
    Ok(outcome.history)
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

    /// A deployment whose every service does the forbidden thing before it answers.
    fn hooks(self) -> Hooks {
        let wrap = move |_: &Role, host: &Host, router: Router| {
            let clock = host.clock.clone();
            router.layer(middleware::from_fn(move |request: Request, next: Next| {
                let clock = clock.clone();
                async move {
                    clock.sleep(self.delay(request.uri().path().len())).await;
                    next.run(request).await
                }
            }))
        };
        Hooks { wrap_router: Some(Arc::new(wrap)), ..Hooks::default() }
    }

    /// Up to 63 ms, by what must not matter; hash maps order what is asked for differently.
    #[expect(clippy::disallowed_types, reason = "the planted fault itself")]
    fn delay(self, asked: usize) -> Duration {
        match self {
            Self::HashOrder => {
                // One for the process: two runs in it agree, so that the other process must find this.
                static KEYS: LazyLock<std::collections::HashSet<u64>> = LazyLock::new(|| (0..64).collect());
                Duration::from_millis(KEYS.iter().nth(asked % 64).copied().unwrap_or_default())
            }
            Self::WallClock => {
                #[expect(clippy::disallowed_methods, reason = "the planted fault itself")]
                let now =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                Duration::from_millis(u64::from(now.subsec_micros()) % 64)
            }
        }
    }
}

/// The same run by a fresh process of this very program.
fn elsewhere(argument: &str, seed: u64, mode: Mode, plant: Option<Fault>, folder: &Path) -> Result<History> {
    let program = std::env::current_exe().context("this program does not know where it is")?;
    let mut command = Command::new(program);
    command.arg("--scenarios").arg(folder).args(["history", argument, "--seed", &seed.to_string()]);
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
