//! The command line of the models.

mod desk;
mod follow;

use std::path::PathBuf;
use std::process::ExitCode;

use anstream::eprintln;
use clap::{Parser, value_parser};
use fusion_model::{ALL, Named, Unknown};

use desk::Desk;
use follow::follow;

/// Searches small worlds round the protocol machines, in every order of events.
///
/// A model is two or three clusters that decide by the very state machines that
/// the services call, while messages are lost, doubled and reordered and clusters
/// crash. Every world that can come of it is visited, breadth first. What must
/// hold is checked in each: `always` in every world, `eventually` from every
/// world once the network loses nothing any more, `sometimes` in one world at
/// least, or the model proves nothing. The bounds of each search are told with
/// it.
///
/// With `--path`, the history of a simulated run is followed in the model of the
/// pair instead: every state of a pair's slots and conversations that its
/// services reported must be one to which the machines lead from the one before.
/// The first that is not is shown, with what could have been there.
///
/// A violated property is shown by one of its shortest stories. To see one, plant
/// a bug: `--list` tells which there are. None of them is in what ships.
///
/// Exit codes: 0 all hold, 1 something is violated, 2 an argument is wrong, 3 a
/// search ended before it had seen everything.
///
/// Examples:
///   cargo xtask model
///   cargo xtask model pair --clusters 3
///   cargo xtask model --list
///   cargo xtask model --plant rank-backwards
///   cargo xtask sim run one-to-one-race --seed 7 --swarm --history race.jsonl
///   cargo xtask model --path race.jsonl
#[derive(Parser)]
#[command(name = "cargo xtask model", bin_name = "cargo xtask model", version, verbatim_doc_comment)]
struct Line {
    /// The models [default: all]
    model: Vec<String>,
    /// In how many clusters [default: 2, then 3]
    #[arg(long, value_name = "N", value_parser = value_parser!(u8).range(2..=3))]
    clusters: Option<u8>,
    /// Gives a search up after so many steps
    #[arg(long, value_name = "N", default_value_t = 20_000_000, value_parser = value_parser!(u64).range(1..))]
    max_states: u64,
    /// Plants a bug, which the search must find
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
    /// Follows a history, as `cargo xtask sim run --history FILE` writes it, in the model of the pair
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "clusters", "plant", "list"])]
    path: Option<PathBuf>,
    /// Lists the models, with the bugs that can be planted in them
    #[arg(long)]
    list: bool,
    /// One JSON object a line, for machines
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    fusion_history::output::mind();
    let line = Line::parse();
    if let Some(path) = &line.path {
        return follow(path, line.json).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        });
    }
    match line.models() {
        Ok(models) => run(&line, &models),
        Err(unknown) => {
            eprintln!("error: {unknown}");
            ExitCode::from(2)
        }
    }
}

fn run(line: &Line, models: &[Named]) -> ExitCode {
    let mut desk = Desk::new(line.json, usize::try_from(line.max_states).unwrap_or(usize::MAX));
    if line.list {
        models.iter().for_each(|model| desk.list(*model));
        return ExitCode::SUCCESS;
    }
    for model in models {
        for clusters in [2, 3].into_iter().filter(|count| line.clusters.is_none_or(|only| only == *count)) {
            if let Err(unknown) = desk.search(*model, usize::from(clusters), line.plant.as_deref()) {
                eprintln!("error: {unknown}");
                return ExitCode::from(2);
            }
        }
    }
    desk.close()
}

impl Line {
    fn models(&self) -> Result<Vec<Named>, Unknown> {
        match &self.plant {
            _ if !self.model.is_empty() => self.model.iter().map(|name| Named::find(name)).collect(),
            Some(plant) => Named::with_plant(plant).map(|model| vec![model]),
            None => Ok(ALL.to_vec()),
        }
    }
}
