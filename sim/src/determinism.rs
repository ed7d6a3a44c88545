//! The proof that a run is a function of its plan: the same plan again, here and in another process.
//!
//! Two processes differ in what must not matter: the addresses of things, the order of hash maps, the
//! wall clock, the operating system's randomness. If any of it leaks into a run, the hashes differ, and
//! the first event that differs is shown with both sides.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use fusion_deployment::{Hooks, Role};
use fusion_history::{Difference, History, first_difference};
use fusion_runtime::Host;
use sha2::{Digest as _, Sha256};

use crate::engines::fabric::{Options, hosts};
use crate::outcome::judged;
use crate::plan::{Mode, Plan};
use crate::scenario::Scenario;
use crate::workers::side_by_side;

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

/// What the comparison of many seeds in two processes shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// How many have the same history in both.
    pub same: u64,
    /// The hash over theirs, in order of seed.
    pub hash: String,
    /// The others.
    pub differing: Vec<u64>,
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

/// With or without a swarm: both are checked, in turns.
#[must_use]
pub fn mode_of(seed: u64) -> Mode {
    if seed.is_multiple_of(2) { Mode::Story } else { Mode::Swarm }
}

/// Plays the seeds from 1 to `seeds` of `scenario` once here and once in one fresh process for all of them,
/// half of `jobs` in each: the seeds that do not have the same history in both. Fewer are compared when
/// `stop` is set.
///
/// # Errors
/// When the other process fails, or a run cannot be played.
pub fn check_batch(
    (argument, scenario): (&str, &Scenario),
    seeds: u64,
    (plant, folder): (Option<Fault>, &Path),
    jobs: usize,
    stop: &AtomicBool,
) -> Result<Compared> {
    let (here, there) = (jobs.div_ceil(2), (jobs / 2).max(1));
    let mut command = other_process(folder)?;
    command.args(["hashes", argument, "--seeds", &seeds.to_string(), "--jobs", &there.to_string()]);
    command.args(plant.iter().flat_map(|fault| ["--plant", fault.name()]));
    let other = command.stdout(Stdio::piped()).spawn().context("the other process")?;
    let here = hashes(scenario, seeds, plant, here, stop)?;
    let other = other.wait_with_output().context("the other process")?;
    if !other.status.success() && !stop.load(Ordering::Relaxed) {
        bail!("the other process failed: {}", other.status);
    }
    let there = read_hashes(&String::from_utf8_lossy(&other.stdout))?;
    let both = here.iter().filter_map(|(seed, hash)| Some((seed, hash, there.get(seed)?)));
    let (same, differing): (Vec<_>, Vec<_>) = both.partition(|(_, here, there)| here == there);
    let mut hash = Sha256::new();
    same.iter().for_each(|(_, here, _)| hash.update(here));
    Ok(Compared {
        same: same.len() as u64,
        hash: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
        differing: differing.into_iter().map(|(seed, ..)| *seed).collect(),
    })
}

/// The hashes of the histories of the seeds from 1 to `seeds`, by seed.
///
/// # Errors
/// When one of them cannot be played.
pub fn hashes(
    scenario: &Scenario,
    seeds: u64,
    plant: Option<Fault>,
    jobs: usize,
    stop: &AtomicBool,
) -> Result<BTreeMap<u64, String>> {
    let seeds: Vec<u64> = (1..=seeds).collect();
    let played = side_by_side(&seeds, jobs, stop, &|seed| {
        Ok((*seed, play(scenario, *seed, mode_of(*seed), plant)?.hash()))
    });
    played.into_iter().map(|(_, hash)| hash).collect()
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
    let mut command = other_process(folder)?;
    command.args(["history", argument, "--seed", &seed.to_string()]);
    command.args(plant.iter().flat_map(|fault| ["--plant", fault.name()]));
    if mode == Mode::Swarm {
        command.arg("--swarm");
    }
    let output = command.output().context("the other process")?;
    if !output.status.success() {
        bail!("the other process failed: {}", output.status);
    }
    Ok(History::read_lines(output.stdout.as_slice())?)
}

/// This very program, started anew.
fn other_process(folder: &Path) -> Result<Command> {
    let program = std::env::current_exe().context("this program does not know where it is")?;
    let mut command = Command::new(program);
    command.arg("--scenarios").arg(folder).stdin(Stdio::null()).stderr(Stdio::inherit());
    Ok(command)
}

/// Lines of a seed and a hash.
fn read_hashes(text: &str) -> Result<BTreeMap<u64, String>> {
    let line = |line: &str| {
        let (seed, hash) = line.split_once(' ')?;
        Some((seed.parse().ok()?, hash.to_owned()))
    };
    let read =
        text.lines().map(|said| line(said).with_context(|| format!("the other process said {said:?}")));
    read.collect()
}
