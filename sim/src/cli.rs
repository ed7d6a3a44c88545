//! The simulator's command line, for programs that plant bugs and for those that have none.

mod aftermath;
mod compare;
mod conform;
mod desk;
mod detect;
mod determinism;
mod explore;
mod merge;
mod run;
mod show;
mod step;
mod sweep;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::compare::common;
use crate::engines::fabric::hosts;
use crate::library::Library;
use crate::plan::{Mode, Plan};
use crate::plant::Plants;
use anstream::{eprintln, print, println};
use anyhow::Result;
use clap::{Parser, Subcommand};
use fusion_history::Ruling;

use desk::Desk;

/// Plays scenarios in a simulated network and judges them.
///
/// Without a command every scenario is played: once as it is written, and with a
/// swarm of faults on 50 seeds. One line for each tells the verdict. A run is
/// made by its seed: the same seed plays the same run, here and anywhere.
///
/// What holds, and what does not:
///   cargo xtask sim                                     every scenario
///   cargo xtask sim sweep one-to-one-race --seeds 1000  one, with many swarms
///   cargo xtask sim explore --for 10m                   worlds nobody has written
///   cargo xtask sim detect                              how soon bugs are found
///
/// A run that does not hold leaves a bundle. From there to the cause:
///   cargo xtask sim replay BUNDLE                       the same once more
///   cargo xtask sim shrink BUNDLE                       as few faults as it needs
///   cargo xtask sim show BUNDLE --as timeline -o FILE   a page to look at
///   cargo xtask sim step BUNDLE                         event by event, and back
///   cargo xtask sim diff BUNDLE ANOTHER                 where two runs part
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
    #[arg(long, global = true, value_name = "N", value_parser = jobs)]
    jobs: Option<NonZeroUsize>,
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
    Run(run::Args),
    Sweep(sweep::Args),
    Merge(merge::Args),
    Explore(explore::Args),
    Compare(compare::Args),
    CheckDeterminism(determinism::Args),
    Detect(crate::detect::Args),
    Conform(conform::Args),
    Replay(aftermath::Replay),
    Shrink(aftermath::Shrink),
    Step(step::Step),
    Show(show::Show),
    Diff(aftermath::Diff),
    Scenario(explore::Print),
    /// Prints the plan that a scenario and a seed make, as JSON
    Plan {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        planted: Planted,
    },
    #[command(hide = true)]
    History(determinism::History),
    #[command(hide = true)]
    Hashes(determinism::Hashes),
}

#[derive(clap::Args)]
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

#[derive(clap::Args)]
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

/// A number of seeds, as an argument.
fn seeds(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) => Err("there must be one at least".to_owned()),
        Ok(seeds) => Ok(seeds),
        Err(_) => Err("write a whole number, such as 100".to_owned()),
    }
}

/// A number of runs at a time, as an argument.
fn jobs(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "write a whole number, one at least".to_owned())
}

/// What the program does that has this command line and can plant these bugs.
#[must_use]
pub fn main(plants: Plants) -> ExitCode {
    fusion_history::output::mind();
    let line = Line::parse();
    match obey(&line, plants) {
        Ok(Ruling::Holds) => ExitCode::SUCCESS,
        Ok(Ruling::Violated) => ExitCode::from(1),
        Ok(Ruling::Unknown) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn obey(line: &Line, plants: Plants) -> Result<Ruling> {
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
        Some(Command::Run(args)) => run::run(&desk, args, &library),
        Some(Command::Sweep(args)) => sweep::run(&desk, args, &library),
        Some(Command::Merge(args)) => merge::run(&desk, args),
        Some(Command::Explore(args)) => explore::run(&desk, args),
        Some(Command::Compare(args)) => compare::run(&desk, args, &library),
        Some(Command::CheckDeterminism(args)) => determinism::run(&desk, args, &library),
        Some(Command::Detect(args)) => detect::run(&desk, args, library.all()?),
        Some(Command::Conform(args)) => conform::run(&desk, args),
        Some(Command::Replay(args)) => aftermath::replay(&desk, args, &library),
        Some(Command::Shrink(args)) => aftermath::small(&desk, args, &library),
        Some(Command::Step(args)) => step::step(args, &library, line.json, plants),
        Some(Command::Show(args)) => show::show(args, line.json, &library, plants),
        Some(Command::Diff(args)) => aftermath::diff(&desk, args),
        Some(Command::Scenario(print)) => {
            print!("{}", library.find(&print.name())?.to_toml());
            Ok(Ruling::Holds)
        }
        Some(Command::Plan { which, planted }) => {
            let plan = planted.in_plan(which.plan(&library, false)?);
            println!("{}", serde_json::to_string_pretty(&plan)?);
            Ok(Ruling::Holds)
        }
        Some(Command::History(asked)) => determinism::history(asked, &library),
        Some(Command::Hashes(asked)) => determinism::hashes(&desk, asked, &library),
    }
}

impl Which {
    fn mode(&self) -> Mode {
        if self.swarm { Mode::Swarm } else { Mode::Story }
    }

    /// With `is_common` as if --common had been asked for.
    fn plan(&self, library: &Library, is_common: bool) -> Result<Plan> {
        let scenario = library.find(&self.scenario)?;
        let scenario = if is_common || self.common { common(&scenario) } else { scenario };
        Ok(Plan::new(&scenario, &hosts(&scenario.topology)?, self.seed, self.mode()))
    }
}

impl Planted {
    /// The plan with the bug in its deployment.
    fn in_plan(&self, plan: Plan) -> Plan {
        Plan { planted: self.plant.clone(), ..plan }
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
        let told: Vec<String> =
            all.filter_map(|command| Some(command.get_long_about()?.to_string())).collect();
        let by_hand = told.iter().filter(|about| about.contains("\n  "));
        let wide: Vec<&str> =
            by_hand.flat_map(|about| about.lines()).filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{wide:#?}");
    }
}
