//! `check-determinism`, and what it asks of the other process.

use anstream::println;
use anyhow::Result;
use fusion_conformance::report::unless_nobody_listens;
use fusion_history::Ruling;
use serde_json::json;

use super::desk::{Desk, indented};
use crate::determinism::{self, Compared, Fault, Found, check, check_batch, mode_of};
use crate::library::Library;
use crate::scenario::Scenario;
use crate::stopwatch::Stopwatch;

/// How many seeds that differ between two processes are looked at one by one.
const LOOKED_AT_MAX: usize = 3;

/// Plays seeds twice here and once in a fresh process, and compares the histories
///
/// With --batch each seed is played once here and once in another process, which is one for all seeds of
/// a scenario: so thousands of seeds can be compared.
///
/// Exit codes: 0 all histories are the same, 1 some differ, 2 a wrong argument, 3 it was stopped.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The scenarios [default: all]
    scenario: Vec<String>,
    /// How many seeds of each
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = super::seeds)]
    seeds: u64,
    /// One fresh process for all seeds of a scenario
    #[arg(long)]
    batch: bool,
    /// Plants a fault that the check must find; then 0 is the exit code when it does
    #[arg(long, value_enum)]
    plant: Option<Fault>,
}

/// Prints the history of a run: what check-determinism asks of the other process
#[derive(clap::Args)]
pub(super) struct History {
    #[command(flatten)]
    which: super::Which,
    #[arg(long, value_enum)]
    plant: Option<Fault>,
}

/// Prints the hashes of many runs: what check-determinism --batch asks of the other process
#[derive(clap::Args)]
pub(super) struct Hashes {
    scenario: String,
    #[arg(long)]
    seeds: u64,
    #[arg(long, value_enum)]
    plant: Option<Fault>,
}

pub(super) fn run(desk: &Desk, args: &Args, library: &Library) -> Result<Ruling> {
    let scenarios = library.named(&args.scenario)?;
    let checks = Checks { desk, library, seeds: args.seeds, plant: args.plant };
    let mut differing = 0;
    for (argument, scenario) in &scenarios {
        let named = (argument.as_str(), scenario);
        differing += if args.batch { checks.at_once(named)? } else { checks.one_by_one(named)? };
        if desk.ends_early() {
            return Ok(Ruling::Unknown);
        }
    }
    let wanted = if args.plant.is_some() { scenarios.len() as u64 * args.seeds } else { 0 };
    Ok(if differing == wanted { Ruling::Holds } else { Ruling::Violated })
}

pub(super) fn history(asked: &History, library: &Library) -> Result<Ruling> {
    let History { which, plant } = asked;
    let history = determinism::play(&library.find(&which.scenario)?, which.seed, which.mode(), *plant)?;
    unless_nobody_listens(history.write_lines(std::io::stdout().lock()))?;
    Ok(Ruling::Holds)
}

pub(super) fn hashes(desk: &Desk, asked: &Hashes, library: &Library) -> Result<Ruling> {
    let scenario = library.find(&asked.scenario)?;
    let hashes = determinism::hashes(&scenario, asked.seeds, asked.plant, desk.jobs, &desk.stop)?;
    hashes.iter().for_each(|(seed, hash)| println!("{seed} {hash}"));
    Ok(Ruling::Holds)
}

/// Seeds of scenarios, each of which has the argument that names it to the other process.
struct Checks<'c> {
    desk: &'c Desk,
    library: &'c Library,
    seeds: u64,
    plant: Option<Fault>,
}

impl Checks<'_> {
    /// Each seed with a process of its own: how many differ.
    fn one_by_one(&self, named: (&str, &Scenario)) -> Result<u64> {
        let mut differing = 0;
        for seed in (1..=self.seeds).take_while(|_| !self.desk.stopped()) {
            differing += u64::from(!matches!(self.check(named, seed)?, Found::Same(_)));
        }
        Ok(differing)
    }

    /// All seeds with one other process: how many differ, of which the first are looked at one by one.
    fn at_once(&self, named: (&str, &Scenario)) -> Result<u64> {
        let watch = Stopwatch::start();
        let with = (self.plant, self.library.folder());
        let compared = check_batch(named, self.seeds, with, self.desk.jobs, &self.desk.stop)?;
        self.tell_all(&named.1.name, &compared, watch);
        for seed in compared.differing.iter().take(LOOKED_AT_MAX) {
            self.check(named, *seed)?;
        }
        Ok(compared.differing.len() as u64)
    }

    fn check(&self, named: (&str, &Scenario), seed: u64) -> Result<Found> {
        let found = check(named, seed, mode_of(seed), self.plant, self.library.folder())?;
        self.tell(&named.1.name, seed, &found);
        Ok(found)
    }

    fn tell(&self, scenario: &str, seed: u64, found: &Found) {
        let json = self.desk.json;
        let (processes, difference) = match found {
            Found::Same(hash) if json => {
                return println!(
                    "{}",
                    json!({"scenario": scenario, "seed": seed, "same": true, "hash": hash})
                );
            }
            Found::Same(hash) => return println!("same    {scenario:<26} seed {seed:<6} {}", &hash[..16]),
            Found::DiffersHere(difference) => ("one process", difference.to_string()),
            Found::DiffersThere(difference) => ("two processes", difference.to_string()),
        };
        if json {
            let line = json!({
                "scenario": scenario, "seed": seed, "same": false, "in": processes, "difference": difference,
            });
            return println!("{line}");
        }
        println!("differs {scenario:<26} seed {seed:<6} in {processes}\n{}", indented(&difference));
    }

    fn tell_all(&self, scenario: &str, compared: &Compared, watch: Stopwatch) {
        let Compared { same, differing, hash } = compared;
        let (wall, seeds) = (watch.elapsed().as_secs_f64(), same + differing.len() as u64);
        if self.desk.json {
            let line = json!({
                "scenario": scenario, "seeds": seeds, "processes": 2, "differing": differing.len(),
                "same": differing.is_empty(), "hash": hash, "wall_s": wall,
            });
            return println!("{line}");
        }
        let verdict = if differing.is_empty() { "same" } else { "differs" };
        println!(
            "{verdict:<8}{scenario:<26} {seeds:>6} seeds in two processes, {} differ, {wall:>7.2} s wall  {}",
            differing.len(),
            &hash[..16]
        );
    }
}
