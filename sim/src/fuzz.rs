//! The command line of the schedule-race fuzzer.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anstream::{eprintln, println};
use anyhow::{Result, bail, ensure};
use clap::{Parser, Subcommand, value_parser};
use fusion_deployment::Hooks;
use fusion_history::{Ruling, first_difference};

use crate::bundle;
use crate::detect::{self, Arena, On};
use crate::engines::fabric::hosts;
use crate::engines::madsim::{FORGETFUL_COMMITS, NAME, expressible, judged, refusal, village};
use crate::explore::{Batch, Summary, explore_on};
use crate::library::Library;
use crate::narrate::narrate;
use crate::outcome::Outcome;
use crate::plan::{Mode, Plan};
use crate::plant::{Plant, Plants};
use crate::progress;
use crate::scenario::Scenario;
use crate::shard::Shard;
use crate::workers::stopped_by_ctrl_c;

/// Plays scenarios on madsim, which picks the next ready task at random, and
/// judges them.
///
/// The simulator's second opinion and its schedule-race fuzzer: the same
/// scenarios, services, devices and judges on another network and another
/// executor. A seed decides who acts when and in which order tasks run; faults
/// are those of the scenario and, with --swarm, such drawn from the seed as
/// madsim can express. What it cannot express (losses on some links only, resets,
/// bandwidths) is refused by name before anything is played; without names, those
/// scenarios are passed over.
///
/// One line for each scenario tells the verdict; a run that does not hold leaves
/// a bundle. Exit codes: 0 all hold, 1 something is violated or is not the same
/// twice, 2 a scenario or an argument is wrong or refused, 3 something could not
/// be judged.
///
/// Examples:
///   cargo xtask sim madsim
///   cargo xtask sim madsim one-to-one-race --seed 7 --tell
///   cargo xtask sim madsim one-to-one-race race-under-partition glare --seeds 200 --swarm
///   cargo xtask sim madsim alice-chats-bob alice-calls-bob --seeds 3 --twice
///   cargo xtask sim madsim one-to-one-race --seeds 300 --plant forgetful-commits
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
    /// With a swarm of faults drawn from each seed
    #[arg(long)]
    swarm: bool,
    /// Plays every seed twice and compares the histories
    #[arg(long)]
    twice: bool,
    /// Plants a bug that some seed of every scenario must show; then 0 is the exit code when they do.
    /// `cargo xtask sim detect --list` names them, and there is `forgetful-commits`
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
    /// Tells the story of each run, event by event
    #[arg(long, conflicts_with = "json")]
    tell: bool,
    /// How many runs at a time [default: one for each core]
    #[arg(long, global = true, value_name = "N")]
    jobs: Option<usize>,
    /// The folder of scenarios [default: the nearest folder `scenarios`]
    #[arg(long, global = true, value_name = "FOLDER")]
    scenarios: Option<PathBuf>,
    /// One JSON object a line, for machines
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    Detect(detect::Args),
    /// One sample of the benches, as a line of JSON.
    #[command(hide = true)]
    Sample {
        /// The work of a village, as JSON.
        work: String,
    },
}

/// What the program does that can plant these bugs.
#[must_use]
pub fn main(plants: Plants) -> ExitCode {
    let line = Line::parse();
    match line.run(plants) {
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
    fn run(&self, plants: Plants) -> Result<Ruling> {
        if let Some(Command::Sample { work }) = &self.command {
            println!("{}", serde_json::to_string(&village(serde_json::from_str(work)?)?)?);
            return Ok(Ruling::Holds);
        }
        let library = match &self.scenarios {
            Some(folder) => Library::at(folder),
            None => Library::nearest()?,
        };
        let stop = stopped_by_ctrl_c();
        if let Some(Command::Detect(args)) = &self.command {
            return self.detect(args, plants, &library, &stop);
        }
        let (from, seeds) = (self.seed, self.seeds);
        ensure!(from.checked_add(seeds).is_some(), "there are no {seeds} seeds from {from} on");
        let plant = self.plant(plants)?;
        let mut ruling = Ruling::Holds;
        for scenario in self.expressible(&library)? {
            ruling = ruling.max(self.play(&scenario, plant, &library.bundles(), &stop));
            if stop.load(Ordering::Relaxed) {
                eprintln!("stopped; the lines above are what was found");
                return Ok(ruling.max(Ruling::Unknown));
            }
        }
        Ok(ruling)
    }

    fn detect(
        &self,
        args: &detect::Args,
        plants: Plants,
        library: &Library,
        stop: &AtomicBool,
    ) -> Result<Ruling> {
        ensure!(
            args.engine.is_none_or(|on| on == On::Madsim),
            "this program has no other engine than {NAME}"
        );
        let scenarios = library.all()?.iter().map(expressible).collect();
        let arena = Arena { engine: NAME, refusal: &refusal, judged: &judged };
        detect::run(args, (plants, scenarios), arena, (self.json, self.jobs()), stop)
    }

    fn plant(&self, plants: Plants) -> Result<Option<Plant>> {
        let found = self.plant.as_deref().map(|name| match name {
            name if name == FORGETFUL_COMMITS.name => Ok(FORGETFUL_COMMITS),
            name => plants.find(name).copied(),
        });
        Ok(found.transpose()?)
    }

    fn jobs(&self) -> usize {
        self.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }

    fn mode(&self) -> Mode {
        if self.swarm { Mode::Swarm } else { Mode::Story }
    }

    /// The scenarios asked for. One that is named and cannot be expressed is a mistake.
    fn expressible(&self, library: &Library) -> Result<Vec<Scenario>> {
        let scenarios = match self.scenario.as_slice() {
            [] => library.all()?,
            names => names.iter().map(|name| library.find(name)).collect::<Result<_, _>>()?,
        };
        let mut expressed = Vec::new();
        for scenario in scenarios {
            // Which faults a story has does not depend on the seed, and swarms draw none that are refused.
            let plan = Plan::new(&scenario, &hosts(&scenario.topology)?, self.seed, Mode::Story);
            match refusal(&plan) {
                None => expressed.push(expressible(&scenario)),
                Some(why) if !self.scenario.is_empty() => bail!("{}: {why}", scenario.name),
                Some(why) if self.json => {
                    let line = serde_json::json!({"scenario": scenario.name, "engine": NAME, "refused": why});
                    println!("{line}");
                }
                Some(why) => println!("refused  {:<32} {why}", scenario.name),
            }
        }
        Ok(expressed)
    }

    /// All seeds of one scenario; with a planted bug, until one shows it.
    fn play(&self, scenario: &Scenario, plant: Option<Plant>, bundles: &Path, stop: &AtomicBool) -> Ruling {
        let batch = Batch {
            first: self.seed,
            seeds: self.seeds,
            shard: Shard::WHOLE,
            mode: self.mode(),
            jobs: self.jobs(),
            planted: plant.map(|plant| plant.name.to_owned()),
        };
        let hooks = plant.map_or_else(Hooks::default, |plant| (plant.hooks)());
        let differing = Mutex::new(Vec::new());
        let shown = AtomicBool::new(false);
        let over = AtomicBool::new(false);
        let bar = progress::bar(&scenario.name, self.seeds, self.json);
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
            bar.inc(1);
            // By a judge: a play that could not be played proves nothing.
            let judged = outcome.verdicts.iter().any(|verdict| verdict.violated > 0);
            shown.fetch_or(plant.is_some() && judged, Ordering::Relaxed);
            over.fetch_or(shown.load(Ordering::Relaxed) || stop.load(Ordering::Relaxed), Ordering::Relaxed);
            if self.tell {
                let told: Vec<String> = narrate(&outcome.history).collect();
                println!("seed {}\n{}", outcome.seed, told.join("\n"));
            }
        };
        let summary = explore_on(scenario, &batch, &play, &over, &played);
        bar.finish_and_clear();
        let differing = differing.into_inner().unwrap_or_else(PoisonError::into_inner);
        let ruling = match (plant, shown.into_inner()) {
            (None, _) => ruling(&summary, scenario, &differing),
            (Some(_), true) => Ruling::Holds,
            (Some(_), false) => Ruling::Violated,
        };
        self.tell(&summary, ruling, &differing, bundles);
        ruling
    }

    fn tell(&self, summary: &Summary, ruling: Ruling, differing: &[String], bundles: &Path) {
        let wall = summary.wall.as_secs_f64();
        if self.json {
            let line = serde_json::json!({
                "scenario": summary.scenario, "engine": NAME, "seeds": summary.runs, "swarm": self.swarm,
                "verdict": ruling.to_string(), "violated": summary.violated, "unknown": summary.unknown,
                "planted": self.plant, "twice": self.twice, "differing": differing.len(),
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
            match bundle::write(outcome, bundles, "-madsim") {
                Ok(kept) => eprintln!("  bundle {}", kept.display()),
                Err(error) => eprintln!("  no bundle: {error:#}"),
            }
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
