//! The simulator without bugs to plant; `fusion-bugs` has the same command line with them.

use std::process::ExitCode;

use fusion_sim::cli;
use fusion_sim::plant::Plants;

fn main() -> ExitCode {
    cli::main(Plants::default())
}
