//! The command line of everything: each command builds and runs the right program.
//!
//! A launcher and no more, so that `cargo xtask --help` never builds the world. What a command does is
//! told by the program it runs: `cargo xtask sim --help`, `cargo xtask conform --help`.

mod cargo;
mod local;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Simulates, checks and serves stack fusion deployments.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plays every scenario in the simulator, with a swarm of faults on 50 seeds each.
    ///
    /// `cargo xtask sim --help` tells what else it can: run one scenario with one seed, sweep over
    /// thousands of seeds, check determinism in two processes. `cargo xtask sim madsim --help` tells
    /// of the same on madsim, whose executor runs tasks in random order: a build of its own.
    #[command(disable_help_flag = true)]
    Sim {
        /// Passed on to the simulator.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Searches small worlds round the protocol machines, in every order of events, losses and crashes.
    ///
    /// `cargo xtask model --help` tells what else it can: one model, two or three clusters, a planted bug
    /// and the shortest story that shows it.
    #[command(disable_help_flag = true)]
    Model {
        /// Passed on to the model checker.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Checks a deployment against the numbered requirements, over real sockets.
    ///
    /// Without `--target` a deployment of separate processes is started for it: provider, two private
    /// clusters, the consumer cluster and their relays, with TLS and durable stores in a temporary
    /// folder. With `--self-test` faulty deployments are checked instead: each must be found out.
    #[command(disable_help_flag = true)]
    Conform {
        /// Passed on to the conformance suite.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Shows for each requirement which judges, checks, scenarios and mutants have looked at it just now.
    #[command(disable_help_flag = true)]
    Requirements {
        /// Passed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measures: scale, load, relay, conform, judges, micro. Targets and conditions: docs/performance.md.
    ///
    /// `cargo xtask bench --help` tells what else it can: machine-readable rows, a quick smoke of each
    /// bench, single figures.
    #[command(disable_help_flag = true)]
    Bench {
        /// Passed on to the benches.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Starts a local deployment of separate processes and leaves it running until Ctrl-C.
    ///
    /// Prints the path of its target file, for `cargo xtask conform --target FILE` beside it.
    Up {
        /// Where its configuration, keys, stores and logs lie.
        #[arg(long, default_value = "target/local")]
        folder: PathBuf,
        /// The port that every cluster listens on, at an address of its own.
        #[arg(long, default_value_t = 8443, value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
    },
    /// Runs all tests: units, properties, snapshots, examples in the documentation.
    Test {
        /// Passed on to the test runner.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs what keeps the code in shape: formatting and lints.
    Lint,
}

fn main() -> ExitCode {
    match run(Line::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            // 4: the tool itself failed (see docs of the exit codes in README).
            ExitCode::from(4)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Sim { arguments } if arguments.first().is_some_and(|first| first == "madsim") => {
            cargo::madsim(&arguments[1..])
        }
        Command::Sim { arguments } if is_detection_on_madsim(&arguments) => cargo::madsim(&arguments),
        Command::Sim { arguments } => cargo::run("fusion-bugs", &arguments),
        Command::Model { arguments } => cargo::run("fusion-model", &arguments),
        Command::Conform { arguments } if arguments.iter().any(|argument| argument == "--self-test") => {
            let rest: Vec<_> = arguments.into_iter().filter(|argument| argument != "--self-test").collect();
            cargo::run("fusion-mutants", &rest)
        }
        Command::Conform { arguments } if needs_no_deployment(&arguments) => {
            cargo::run("fusion-conformance", &arguments)
        }
        Command::Conform { arguments } => local::conform(&arguments),
        Command::Requirements { arguments } => cargo::run("fusion-requirements", &arguments),
        Command::Bench { arguments } => cargo::bench(&arguments),
        Command::Up { folder, port } => local::up(&folder, port),
        Command::Test { arguments } => cargo::test(&arguments),
        Command::Lint => cargo::lint(),
    }
}

/// Of the score's engines, madsim is in a program of its own.
fn is_detection_on_madsim(arguments: &[String]) -> bool {
    let detection = arguments.iter().any(|argument| argument == "detect");
    let apart = arguments.windows(2).any(|pair| pair[0] == "--engine" && pair[1] == "madsim");
    detection && (apart || arguments.iter().any(|argument| argument == "--engine=madsim"))
}

fn needs_no_deployment(arguments: &[String]) -> bool {
    let names = ["--target", "--help", "-h", "--list", "--version", "--explain-target"];
    arguments
        .iter()
        .any(|argument| names.iter().any(|name| argument == name || argument.starts_with("--target=")))
}
