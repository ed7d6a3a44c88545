//! The simulator's command line, with bugs to plant.

use std::process::ExitCode;

use fusion_sim::cli;
use fusion_sim::plant::Plants;

fn main() -> ExitCode {
    cli::main(Plants(fusion_bugs::BUGS))
}
