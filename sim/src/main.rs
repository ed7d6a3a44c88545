//! The simulator's command line.

mod desk;

use std::path::PathBuf;
use std::process::ExitCode;

use anstream::{eprintln, println};
use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand, value_parser};
use fusion_history::Ruling;
use fusion_sim::determinism::{self, Fault};
use fusion_sim::engines::fabric::{Options, hosts};
use fusion_sim::library::Library;
use fusion_sim::narrate::narrate;
use fusion_sim::outcome::judged;
use fusion_sim::plan::{Mode, Plan};

use desk::Desk;

/// Plays scenarios in a simulated network and judges them.
///
/// Without a command every scenario is played: once as it is written, and with a swarm of faults on 50
/// seeds. One line for each tells the verdict. Exit codes: 0 all hold, 1 something is violated, 2 a
/// scenario or an argument is wrong, 3 something could not be judged.
///
/// Examples:
///   cargo xtask sim
///   cargo xtask sim run one-to-one-race --seed 7 --tell
///   cargo xtask sim sweep one-to-one-race --seeds 1000
///   cargo xtask sim check-determinism --seeds 5
#[derive(Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim", version, verbatim_doc_comment)]
struct Line {
    /// The folder of scenarios [default: the nearest folder `scenarios`]
    #[arg(long, global = true, value_name = "FOLDER")]
    scenarios: Option<PathBuf>,
    /// One JSON object a line, for machines
    #[arg(long, global = true)]
    json: bool,
    /// How many runs at a time [default: one for each core]
    #[arg(long, global = true, value_name = "N")]
    jobs: Option<usize>,
    /// How many swarm seeds each scenario is played with, without a command; 0 for the stories alone
    #[arg(long, default_value_t = 50, value_name = "N")]
    seeds: u64,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the scenarios
    List,
    /// Plays one scenario with one seed
    Run {
        #[command(flatten)]
        which: Which,
        /// Tells the story of the run, event by event
        #[arg(long)]
        tell: bool,
        /// Writes the history to a file, as JSON lines
        #[arg(long, value_name = "FILE")]
        history: Option<PathBuf>,
        /// Where it is played
        #[arg(long, value_enum, default_value_t = Engine::Fabric)]
        engine: Engine,
    },
    /// Plays one scenario with many seeds and a swarm of faults
    Sweep {
        /// The scenario
        scenario: String,
        /// How many seeds
        #[arg(long, default_value_t = 1000, value_name = "N", value_parser = value_parser!(u64).range(1..))]
        seeds: u64,
        /// The first seed
        #[arg(long, default_value_t = 1, value_name = "N")]
        from: u64,
        /// The story alone, without a swarm of faults
        #[arg(long)]
        story: bool,
    },
    /// Checks a simulated deployment with the conformance suite: the same checks as over sockets
    Conform {
        /// The world's seed
        #[arg(long, default_value_t = 1, value_name = "N")]
        seed: u64,
        /// Only checks whose id begins like this; `*` stands for anything. May be repeated
        #[arg(long, value_name = "PATTERN")]
        only: Vec<String>,
    },
    /// Prints the plan that a scenario and a seed make, as JSON
    Plan {
        #[command(flatten)]
        which: Which,
    },
    /// Plays seeds twice here and once in a fresh process, and compares the histories
    CheckDeterminism {
        /// The scenarios [default: all]
        scenario: Vec<String>,
        /// How many seeds of each
        #[arg(long, default_value_t = 3, value_name = "N", value_parser = value_parser!(u64).range(1..))]
        seeds: u64,
        /// Plants a fault that the check must find; then 0 is the exit code when it does
        #[arg(long, value_enum)]
        plant: Option<Fault>,
    },
    /// Prints the history of a run: what check-determinism asks of the other process
    #[command(hide = true)]
    History {
        #[command(flatten)]
        which: Which,
        #[arg(long, value_enum)]
        plant: Option<Fault>,
    },
}

#[derive(Args)]
struct Which {
    /// The scenario, by name or file
    scenario: String,
    /// The seed
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// With a swarm of faults drawn from the seed
    #[arg(long)]
    swarm: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Engine {
    /// The simulated network
    Fabric,
    /// Real sockets on this machine's loopback, in real time
    Live,
}

fn main() -> ExitCode {
    let line = Line::parse();
    match run(&line) {
        Ok(Ruling::Holds) => ExitCode::SUCCESS,
        Ok(Ruling::Violated) => ExitCode::from(1),
        Ok(Ruling::Unknown) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(line: &Line) -> Result<Ruling> {
    let library = match &line.scenarios {
        Some(folder) => Library::at(folder),
        None => Library::nearest()?,
    };
    let desk = Desk::new(line.json, line.jobs);
    match &line.command {
        None => desk.everything(&library.all()?, line.seeds),
        Some(Command::List) => {
            desk.list(&library.all()?);
            Ok(Ruling::Holds)
        }
        Some(Command::Run { which, tell, history, engine }) => {
            let outcome = match engine {
                Engine::Fabric => judged(&which.plan(&library)?, &Options::default()),
                Engine::Live => fusion_sim::engines::live::judged(&which.plan(&library)?)?,
            };
            if let Some(file) = history {
                let file = std::fs::File::create(file)?;
                outcome.history.write_lines(std::io::BufWriter::new(file))?;
            }
            if *tell {
                narrate(&outcome.history).for_each(|told| println!("{told}"));
            }
            desk.one(&outcome);
            Ok(outcome.ruling)
        }
        Some(Command::Sweep { scenario, seeds, from, story }) => {
            let mode = if *story { Mode::Story } else { Mode::Swarm };
            ensure!(from.checked_add(*seeds).is_some(), "there are no {seeds} seeds from {from} on");
            Ok(desk.sweep(&library.find(scenario)?, *from, *seeds, mode))
        }
        Some(Command::Conform { seed, only }) => desk.conform(*seed, only),
        Some(Command::Plan { which }) => {
            println!("{}", serde_json::to_string_pretty(&which.plan(&library)?)?);
            Ok(Ruling::Holds)
        }
        Some(Command::CheckDeterminism { scenario, seeds, plant }) => {
            let scenarios = match scenario.as_slice() {
                [] => library.all()?.into_iter().map(|scenario| (scenario.name.clone(), scenario)).collect(),
                names => names
                    .iter()
                    .map(|name| Ok((name.clone(), library.find(name)?)))
                    .collect::<Result<Vec<_>>>()?,
            };
            desk.determinism(&scenarios, *seeds, *plant, &library)
        }
        Some(Command::History { which, plant }) => {
            let history =
                determinism::play(&library.find(&which.scenario)?, which.seed, which.mode(), *plant)?;
            history.write_lines(std::io::stdout().lock())?;
            Ok(Ruling::Holds)
        }
    }
}

impl Which {
    fn mode(&self) -> Mode {
        if self.swarm { Mode::Swarm } else { Mode::Story }
    }

    fn plan(&self, library: &Library) -> Result<Plan> {
        let scenario = library.find(&self.scenario)?;
        Ok(Plan::new(&scenario, &hosts(&scenario.topology)?, self.seed, self.mode()))
    }
}
