//! The simulator's command line, for programs that plant bugs and for those that have none.

mod aftermath;
mod desk;
mod detect;
mod explore;
mod merge;
mod show;
mod step;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::compare::{self, Comparison, Engine};
use crate::determinism::{self, Fault};
use crate::engines::fabric::hosts;
use crate::explore::Batch;
use crate::library::Library;
use crate::narrate::narrate;
use crate::plan::{Mode, Plan};
use crate::plant::Plants;
use crate::shard::Shard;
use anstream::{eprintln, print, println};
use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Parser, Subcommand, value_parser};
use fusion_history::Ruling;

use desk::Desk;

/// Why a run everywhere is told by its comparison alone.
const ONE_HISTORY: &str = "--tell, --history and --timeline are about one run: name its engine";

/// Plays scenarios in a simulated network and judges them.
///
/// Without a command every scenario is played: once as it is written, and with a
/// swarm of faults on 50 seeds. One line for each tells the verdict. A run is
/// made by its seed: the same seed plays the same run, here and anywhere.
///
/// What holds, and what does not:
///   cargo xtask sim                                       every scenario
///   cargo xtask sim sweep one-to-one-race --seeds 1000    one, with many swarms
///   cargo xtask sim explore --for 10m                     worlds nobody has written
///   cargo xtask sim detect                                how soon bugs are found
///
/// A run that does not hold leaves a bundle. From there to the cause:
///   cargo xtask sim replay BUNDLE                         the same once more
///   cargo xtask sim shrink BUNDLE                         as few faults as it needs
///   cargo xtask sim show BUNDLE --as timeline -o run.html the run to look at
///   cargo xtask sim step BUNDLE                           event by event, and back
///   cargo xtask sim diff BUNDLE ANOTHER                   where two runs part
///
/// To see all of that, plant a bug and sweep for it:
///   cargo xtask sim detect --list
///   cargo xtask sim sweep one-to-one-race --seeds 200 --plant BUG
///
/// Exit codes: 0 all hold, 1 something is violated or engines contradict each
/// other, 2 a scenario or an argument is wrong or an engine cannot express it,
/// 3 something could not be judged or compared.
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
        #[command(flatten)]
        planted: Planted,
        /// Tells the story of the run, event by event
        #[arg(long)]
        tell: bool,
        /// Writes the history to a file, as JSON lines
        #[arg(long, value_name = "FILE")]
        history: Option<PathBuf>,
        /// Writes the run as a page, complete in itself
        #[arg(long, value_name = "FILE")]
        timeline: Option<PathBuf>,
        /// Where it is played. With `all`, on every engine that can express it, and what the judges say of
        /// each run is compared
        #[arg(long, value_enum, default_value_t = Where::Fabric)]
        engine: Where,
    },
    /// Plays scenarios on fabric and on turmoil, and compares what the judges say of each run
    ///
    /// Each scenario is played as it is written and with a swarm of those faults that both engines can
    /// express; a scenario whose own faults they cannot both express is refused by their name. What holds on
    /// one and is violated, or cannot be judged, on the other is a difference; a case that arose on one of
    /// them only is told and is none.
    ///
    /// Exit codes: 0 no difference, 1 engines contradict each other or something is violated, 3 fewer
    /// plans than asked for could be compared.
    Compare {
        /// The scenarios [default: all]
        scenario: Vec<String>,
        /// How many swarm seeds of each scenario, besides its story
        #[arg(long, default_value_t = 1, value_name = "N")]
        seeds: u64,
        /// The first swarm seed
        #[arg(long, default_value_t = 1, value_name = "N")]
        from: u64,
        /// How many plans must have been compared at least
        #[arg(long, default_value_t = 1, value_name = "N")]
        at_least: u64,
        /// How many plans are compared at most: stories first, then seed by seed
        #[arg(long, value_name = "N")]
        at_most: Option<usize>,
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
        #[arg(long, conflicts_with = "common")]
        story: bool,
        #[command(flatten)]
        planted: Planted,
        /// Only the seeds of which this is the remainder by N: one of N parts, 0/N to N-1/N
        #[arg(long, default_value_t = Shard::WHOLE, value_name = "I/N")]
        shard: Shard,
        /// Writes a line about each run to a file, for `merge`
        #[arg(long, value_name = "FILE")]
        results: Option<PathBuf>,
        /// Draws only faults that every simulated engine can express. So it is with turmoil and all
        #[arg(long)]
        common: bool,
        /// Where it is played. With `all`, on fabric and on turmoil, and compared
        #[arg(long, value_enum, default_value_t = Where::Fabric)]
        engine: Where,
    },
    Detect(crate::detect::Args),
    Merge(merge::Args),
    /// Checks a simulated deployment with the conformance suite: the same checks as over sockets
    Conform {
        /// The world's seed
        #[arg(long, default_value_t = 1, value_name = "N")]
        seed: u64,
        /// Only checks whose id begins like this; `*` stands for anything. May be repeated
        #[arg(long, value_name = "PATTERN")]
        only: Vec<String>,
        #[command(flatten)]
        planted: Planted,
    },
    /// Plays the plan of a bundle again: the folder that a failed run leaves
    Replay {
        #[command(flatten)]
        bundle: aftermath::Bundled,
        /// Tells what happens, up to this event
        #[arg(long, value_name = "EVENT")]
        until: Option<u64>,
    },
    /// Makes the plan of a bundle as small as it can be and still show the same violation
    Shrink {
        #[command(flatten)]
        bundle: aftermath::Bundled,
        /// The fingerprint of the violation [default: the first of the bundle]
        #[arg(long, value_name = "FINGERPRINT")]
        violation: Option<String>,
        /// How many smaller plans may be played
        #[arg(long, default_value_t = 400, value_name = "N")]
        replays: u32,
    },
    /// Steps through a run: forwards, backwards, and a look at the state of any host on the way
    ///
    /// Lines are typed, or read from a pipe: `printf 'until violation\nwhy\n' | cargo xtask sim step BUNDLE`.
    /// What is the case at an event is had by playing the plan again up to there, so `back` is as true as
    /// `next`.
    Step(step::Arguments),
    /// Shows a run: as text in columns, as a sequence diagram, as a page, as packets
    ///
    /// Examples:
    ///   show BUNDLE --about LOC-003
    ///   show BUNDLE --from 3s --until #80 --wire
    ///   show --scenario glare --seed 3 --as mermaid
    ///   show BUNDLE --as pcapng -o run.pcapng
    #[command(verbatim_doc_comment)]
    Show(show::Show),
    /// Shows the first event in which two histories differ; exit code 0 when they are equal
    Diff {
        /// A bundle's folder, or a file that `run --history` wrote
        left: PathBuf,
        /// Another
        right: PathBuf,
    },
    Explore(explore::Args),
    /// Prints a scenario as a file: a generated one by its seed, or any by its name
    Scenario(explore::Print),
    /// Prints the plan that a scenario and a seed make, as JSON
    Plan {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        planted: Planted,
    },
    /// Plays seeds twice here and once in a fresh process, and compares the histories
    ///
    /// With --batch each seed is played once here and once in another process, which is one for all seeds of
    /// a scenario: so thousands of seeds can be compared.
    CheckDeterminism {
        /// The scenarios [default: all]
        scenario: Vec<String>,
        /// How many seeds of each
        #[arg(long, default_value_t = 3, value_name = "N", value_parser = value_parser!(u64).range(1..))]
        seeds: u64,
        /// One fresh process for all seeds of a scenario
        #[arg(long)]
        batch: bool,
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
    /// Prints the hashes of many runs: what check-determinism --batch asks of the other process
    #[command(hide = true)]
    Hashes {
        scenario: String,
        #[arg(long)]
        seeds: u64,
        #[arg(long, value_enum)]
        plant: Option<Fault>,
    },
}

#[derive(Args)]
struct Which {
    /// The scenario, by name or file, or a generated one such as generated-7
    scenario: String,
    /// The seed
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// With a swarm of faults drawn from the seed
    #[arg(long)]
    swarm: bool,
    /// Draws only faults that every simulated engine can express. So it is with turmoil and all
    #[arg(long, requires = "swarm")]
    common: bool,
}

#[derive(Args)]
struct Planted {
    /// Plants a bug: plays a deployment that has this one thing wrong. `detect --list` names them
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Where {
    /// The simulated network
    Fabric,
    /// Somebody else's simulated network; slower, and with fewer kinds of faults
    Turmoil,
    /// Real sockets on this machine's loopback, in real time, without faults
    Live,
    /// Each of these that can express the plan
    All,
}

/// What the program does that has this command line and can plant these bugs.
#[must_use]
pub fn main(plants: Plants) -> ExitCode {
    let line = Line::parse();
    match run(&line, plants) {
        Ok(Ruling::Holds) => ExitCode::SUCCESS,
        Ok(Ruling::Violated) => ExitCode::from(1),
        Ok(Ruling::Unknown) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(line: &Line, plants: Plants) -> Result<Ruling> {
    let library = match &line.scenarios {
        Some(folder) => Library::at(folder),
        None => Library::nearest()?,
    };
    let desk = Desk::new(line.json, line.jobs, library.bundles(), plants);
    match &line.command {
        None => desk.everything(&library.all()?, line.seeds),
        Some(Command::List) => {
            desk.list(&library.all()?);
            Ok(Ruling::Holds)
        }
        Some(Command::Run {
            which,
            planted,
            tell: false,
            history: None,
            timeline: None,
            engine: Where::All,
        }) => {
            let plan = planted.into(which.plan(&library, true)?);
            let engines = [Engine::Fabric, Engine::Turmoil, Engine::Live];
            Ok(desk.everywhere(&Comparison::of(&plan, &engines, &plants.hooks(&plan)?)))
        }
        Some(Command::Run { which, planted, tell, history, timeline, engine }) => {
            let Some(engine) = engine.one() else { bail!("{ONE_HISTORY}") };
            let plan = planted.into(which.plan(&library, engine == Engine::Turmoil)?);
            let outcome = engine.judged(&plan, &plants.hooks(&plan)?)?;
            if let Some(file) = history {
                let unwritten = || format!("the history cannot be written to {}", file.display());
                let to = std::fs::File::create(file).with_context(unwritten)?;
                outcome.history.write_lines(std::io::BufWriter::new(to)).with_context(unwritten)?;
            }
            if let Some(file) = timeline {
                std::fs::write(file, crate::timeline::page(outcome.run()))
                    .with_context(|| format!("the timeline cannot be written to {}", file.display()))?;
            }
            if *tell {
                narrate(&outcome.history).for_each(|told| println!("{told}"));
            }
            desk.one(&outcome);
            Ok(outcome.ruling)
        }
        Some(Command::Sweep { scenario, seeds, from, story, planted, shard, results, common, engine }) => {
            let mode = if *story { Mode::Story } else { Mode::Swarm };
            ensure!(from.checked_add(*seeds).is_some(), "there are no {seeds} seeds from {from} on");
            let scenario = library.find(scenario)?;
            let engine = match engine {
                Where::All => {
                    ensure!(!story, "every seed of a story is compared by `compare`");
                    ensure!(planted.plant.is_none(), "a planted bug is swept on one engine: name it");
                    let parts = !shard.is_whole() || results.is_some();
                    ensure!(!parts, "shards and their results are of one engine: name it");
                    let (scenarios, at_most) = (&[scenario], usize::MAX);
                    let plans =
                        compare::Batch { scenarios, seeds: *seeds, first: *from, story: false, at_most };
                    return Ok(desk.compare(&plans, *seeds));
                }
                Where::Live => bail!("real sockets take real time: play one seed with `run`"),
                Where::Fabric => Engine::Fabric,
                Where::Turmoil => Engine::Turmoil,
            };
            let common = *common || engine == Engine::Turmoil;
            let scenario = if common { compare::common(&scenario) } else { scenario };
            let batch = desk.seeds(*from, *seeds, mode, planted.plant.clone());
            desk.sweep(engine, &scenario, &Batch { shard: *shard, ..batch }, results.as_deref())
        }
        Some(Command::Compare { scenario, seeds, from, at_least, at_most }) => {
            ensure!(from.checked_add(*seeds).is_some(), "there are no {seeds} seeds from {from} on");
            let scenarios = match scenario.as_slice() {
                [] => library.all()?,
                names => names.iter().map(|name| Ok(library.find(name)?)).collect::<Result<Vec<_>>>()?,
            };
            let at_most = at_most.unwrap_or(usize::MAX);
            let plans =
                compare::Batch { scenarios: &scenarios, seeds: *seeds, first: *from, story: true, at_most };
            Ok(desk.compare(&plans, *at_least))
        }
        Some(Command::Merge(args)) => merge::run(&desk, args),
        Some(Command::Detect(args)) => detect::run(&desk, args, library.all()?),
        Some(Command::Replay { bundle, until }) => {
            aftermath::replay(bundle, *until, &library, line.json, plants)
        }
        Some(Command::Shrink { bundle, violation, replays }) => {
            let violation = violation.as_deref();
            aftermath::small(bundle, violation, *replays, &library, plants, desk.stop())
        }
        Some(Command::Step(arguments)) => step::step(arguments, &library, line.json, plants),
        Some(Command::Show(asked)) => show::show(asked, line.json, &library, plants),
        Some(Command::Diff { left, right }) => aftermath::diff(left, right, plants),
        Some(Command::Conform { seed, only, planted }) => desk.conform(*seed, only, planted.plant.as_deref()),
        Some(Command::Explore(args)) => explore::run(&desk, args),
        Some(Command::Scenario(print)) => {
            print!("{}", library.find(&print.name())?.to_toml());
            Ok(Ruling::Holds)
        }
        Some(Command::Plan { which, planted }) => {
            let plan = planted.into(which.plan(&library, false)?);
            println!("{}", serde_json::to_string_pretty(&plan)?);
            Ok(Ruling::Holds)
        }
        Some(Command::CheckDeterminism { scenario, seeds, batch, plant }) => {
            let scenarios = match scenario.as_slice() {
                [] => library.all()?.into_iter().map(|scenario| (scenario.name.clone(), scenario)).collect(),
                names => names
                    .iter()
                    .map(|name| Ok((name.clone(), library.find(name)?)))
                    .collect::<Result<Vec<_>>>()?,
            };
            if *batch {
                return desk.batches(&scenarios, *seeds, *plant, &library);
            }
            desk.determinism(&scenarios, *seeds, *plant, &library)
        }
        Some(Command::Hashes { scenario, seeds, plant }) => {
            let hashes =
                determinism::hashes(&library.find(scenario)?, *seeds, *plant, desk.jobs, &desk.stop)?;
            hashes.iter().for_each(|(seed, hash)| println!("{seed} {hash}"));
            Ok(Ruling::Holds)
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

    /// With `common` as if it had been asked for.
    fn plan(&self, library: &Library, common: bool) -> Result<Plan> {
        let scenario = library.find(&self.scenario)?;
        let scenario = if common || self.common { compare::common(&scenario) } else { scenario };
        Ok(Plan::new(&scenario, &hosts(&scenario.topology)?, self.seed, self.mode()))
    }
}

impl Planted {
    fn into(&self, plan: Plan) -> Plan {
        Plan { planted: self.plant.clone(), ..plan }
    }
}

impl Where {
    /// The engine; none when it is several.
    fn one(self) -> Option<Engine> {
        match self {
            Self::Fabric => Some(Engine::Fabric),
            Self::Turmoil => Some(Engine::Turmoil),
            Self::Live => Some(Engine::Live),
            Self::All => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// What is broken where its author has broken it fits into a terminal of 80 columns.
    #[test]
    fn help_that_is_laid_out_by_hand_fits_into_eighty_columns() {
        let line = Line::command();
        let all = std::iter::once(&line).chain(line.get_subcommands());
        let told = all.filter_map(|command| Some(command.get_long_about()?.to_string()));
        for about in told.filter(|about| about.contains("\n  ")) {
            let wide: Vec<&str> = about.lines().filter(|line| line.chars().count() > 80).collect();
            assert!(wide.is_empty(), "{wide:#?}");
        }
    }
}
