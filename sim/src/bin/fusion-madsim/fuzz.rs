//! The command line of the schedule-race fuzzer.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anstream::{eprintln, println};
use anyhow::{Result, bail, ensure};
use clap::{Parser, Subcommand, value_parser};
use fusion_history::{Ruling, first_difference};
use fusion_sim::engines::fabric::hosts;
use fusion_sim::engines::madsim::{NAME, Plant, judged, refusal, village};
use fusion_sim::explore::{Batch, Summary, explore_on};
use fusion_sim::library::Library;
use fusion_sim::narrate::narrate;
use fusion_sim::outcome::Outcome;
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::scenario::Scenario;

/// Plays scenarios on madsim, which picks the next ready task at random, and judges them.
///
/// The simulator's second opinion and its schedule-race fuzzer: the same scenarios, services, devices
/// and judges on another network and another executor. A seed decides who acts when and in which order
/// tasks run; faults are those of the scenario. What madsim cannot express (losses on some links only,
/// resets, bandwidths) is refused by name before anything is played; without names, those scenarios are
/// passed over.
///
/// One line for each scenario tells the verdict. Exit codes: 0 all hold, 1 something is violated or is
/// not the same twice, 2 a scenario or an argument is wrong or refused, 3 something could not be judged.
///
/// Examples:
///   cargo xtask sim madsim
///   cargo xtask sim madsim one-to-one-race --seed 7 --tell
///   cargo xtask sim madsim one-to-one-race --seeds 200
///   cargo xtask sim madsim alice-chats-bob alice-calls-bob --seeds 3 --twice
///   cargo xtask sim madsim one-to-one-race --seeds 50 --plant forgetful-commits
#[derive(Parser)]
#[command(
    name = "cargo xtask sim madsim",
    bin_name = "cargo xtask sim madsim",
    version,
    verbatim_doc_comment,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct Line {
    #[command(subcommand)]
    command: Option<Command>,
    /// The scenarios, by name or file [default: all that madsim can express]
    scenario: Vec<String>,
    /// The first seed
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// How many seeds of each scenario
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    seeds: u64,
    /// Plays every seed twice and compares the histories
    #[arg(long)]
    twice: bool,
    /// Plants a fault that some seed of every scenario must show; then 0 is the exit code when they do
    #[arg(long, value_enum)]
    plant: Option<Plant>,
    /// Tells the story of each run, event by event
    #[arg(long, conflicts_with = "json")]
    tell: bool,
    /// How many runs at a time [default: one for each core]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// The folder of scenarios [default: the nearest folder `scenarios`]
    #[arg(long, value_name = "FOLDER")]
    scenarios: Option<PathBuf>,
    /// One JSON object a line, for machines
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// One sample of the benches, as a line of JSON.
    #[command(hide = true)]
    Sample {
        /// The work of a village, as JSON.
        work: String,
    },
}

pub(crate) fn main() -> ExitCode {
    let line = Line::parse();
    match line.run() {
        Ok(Ruling::Holds) => ExitCode::SUCCESS,
        Ok(Ruling::Violated) => ExitCode::from(1),
        Ok(Ruling::Unknown) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

impl Line {
    fn run(&self) -> Result<Ruling> {
        if let Some(Command::Sample { work }) = &self.command {
            println!("{}", serde_json::to_string(&village(serde_json::from_str(work)?)?)?);
            return Ok(Ruling::Holds);
        }
        let library = match &self.scenarios {
            Some(folder) => Library::at(folder),
            None => Library::nearest()?,
        };
        let (from, seeds) = (self.seed, self.seeds);
        ensure!(from.checked_add(seeds).is_some(), "there are no {seeds} seeds from {from} on");
        let mut ruling = Ruling::Holds;
        for scenario in self.expressible(&library)? {
            ruling = ruling.max(self.play(&scenario));
        }
        Ok(ruling)
    }

    /// The scenarios asked for. One that is named and cannot be expressed is a mistake.
    fn expressible(&self, library: &Library) -> Result<Vec<Scenario>> {
        let scenarios = match self.scenario.as_slice() {
            [] => library.all()?,
            names => names.iter().map(|name| library.find(name)).collect::<Result<_, _>>()?,
        };
        let mut expressible = Vec::new();
        for scenario in scenarios {
            // Which faults there are does not depend on the seed.
            let plan = Plan::new(&scenario, &hosts(&scenario.topology)?, self.seed, Mode::Story);
            match refusal(&plan) {
                None => expressible.push(scenario),
                Some(why) if !self.scenario.is_empty() => bail!("{}: {why}", scenario.name),
                Some(why) if self.json => {
                    let line = serde_json::json!({"scenario": scenario.name, "engine": NAME, "refused": why});
                    println!("{line}");
                }
                Some(why) => println!("refused  {:<32} {why}", scenario.name),
            }
        }
        Ok(expressible)
    }

    /// All seeds of one scenario.
    fn play(&self, scenario: &Scenario) -> Ruling {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let batch = Batch {
            first: self.seed,
            seeds: self.seeds,
            mode: Mode::Story,
            jobs: self.jobs.unwrap_or(cores),
            planted: None,
        };
        let hooks = self.plant.map(Plant::hooks).unwrap_or_default();
        let differing = Mutex::new(Vec::new());
        let enough = AtomicBool::new(false);
        let play = |plan: &Plan| {
            let outcome = judged(plan, &hooks);
            if self.twice {
                let again = judged(plan, &hooks);
                if let Some(difference) = first_difference(&outcome.history, &again.history) {
                    let told = format!("seed {} is not the same twice:\n{difference}", plan.seed);
                    differing.lock().unwrap_or_else(PoisonError::into_inner).push(told);
                }
            }
            outcome
        };
        let played = |outcome: &Outcome| {
            // By a judge: a play that could not be played proves nothing.
            let judged = outcome.verdicts.iter().any(|verdict| verdict.violated > 0);
            enough.fetch_or(self.plant.is_some() && judged, Ordering::Relaxed);
            if self.tell {
                let told: Vec<String> = narrate(&outcome.history).collect();
                println!("seed {}\n{}", outcome.seed, told.join("\n"));
            }
        };
        let summary = explore_on(scenario, &batch, &play, &enough, &played);
        let differing = differing.into_inner().unwrap_or_else(PoisonError::into_inner);
        let ruling = match self.plant {
            None => ruling(&summary, scenario, &differing),
            Some(_) if enough.into_inner() => Ruling::Holds,
            Some(_) => Ruling::Violated,
        };
        self.tell(&summary, ruling, &differing);
        ruling
    }

    fn tell(&self, summary: &Summary, ruling: Ruling, differing: &[String]) {
        let wall = summary.wall.as_secs_f64();
        if self.json {
            let line = serde_json::json!({
                "scenario": summary.scenario, "engine": NAME, "seeds": summary.runs,
                "verdict": ruling.to_string(), "violated": summary.violated, "unknown": summary.unknown,
                "planted": self.plant.is_some(), "twice": self.twice, "differing": differing.len(),
                "events": summary.events, "simulated_s": summary.simulated.as_secs_f64(),
                "wall_s": wall, "hash": summary.hash, "distinct": summary.distinct,
                "failed_seeds": summary.failed.iter().map(|outcome| outcome.seed).collect::<Vec<_>>(),
            });
            println!("{line}");
        } else {
            println!(
                "{ruling:<8} {:<32} {:>5} seeds {:>8.0} s simulated {wall:>7.2} s wall {:>6.1} seeds/s {:>8} events  {}",
                summary.scenario,
                summary.runs,
                summary.simulated.as_secs_f64(),
                summary.runs as f64 / wall,
                summary.events,
                &summary.hash[..16],
            );
        }
        differing.iter().for_each(|told| eprintln!("  {told}"));
        for outcome in &summary.failed {
            let planted = if self.plant.is_some() { "as planted, " } else { "" };
            eprintln!("  {planted}{} on seed {}: {}", outcome.ruling, outcome.seed, outcome.reproduce());
            outcome.explain().lines().for_each(|told| eprintln!("    {told}"));
        }
    }
}

/// Of a deployment without a planted fault. Stories alone need not reach every requirement that the
/// scenario is about, as swarms do on fabric; when they reach none, it is an empty victory.
fn ruling(summary: &Summary, scenario: &Scenario, differing: &[String]) -> Ruling {
    let never = summary.never_reached(scenario);
    if !never.is_empty() {
        eprintln!("{}: no run had a case of {}", scenario.name, never.join(", "));
    }
    if !differing.is_empty() {
        Ruling::Violated
    } else if !never.is_empty() && never.len() == scenario.requirements.len() {
        summary.ruling().max(Ruling::Unknown)
    } else {
        summary.ruling()
    }
}
