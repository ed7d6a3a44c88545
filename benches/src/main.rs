//! `fusion-benches`: measures the simulator, the reference, the judges and the suite.
//!
//! Every figure stands beside its target (`docs/performance.md`), with the conditions that it was
//! measured under. Comparisons are made in one run, in turns. Nothing here is a timed test.

mod conform;
mod judges;
mod load;
mod measure;
mod merged;
mod people;
mod processes;
mod relay;
mod row;
mod scale;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::row::Report;

/// Measures, and prints one row for each figure.
///
/// Exit codes: 0 measured, whether targets are met or not; 1 a figure is short of its target and
/// `--strict` was given; 2 the command line is wrong; 4 it could not be measured.
#[derive(Parser)]
#[command(name = "cargo xtask bench", version, max_term_width = 100)]
struct Line {
    #[command(subcommand)]
    bench: Bench,
    #[command(flatten)]
    how: How,
}

/// How everything is measured.
#[derive(Args, Clone)]
pub(crate) struct How {
    /// One JSON object a line, for machines
    #[arg(long, global = true)]
    json: bool,
    /// Small sizes and one round: shows that the bench runs, not how fast anything is
    #[arg(long, global = true)]
    quick: bool,
    /// How many rounds; the median counts
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Only figures whose name begins like this; may be repeated
    #[arg(long, global = true, value_name = "NAME")]
    only: Vec<String>,
    /// Exit with 1 when a target is not met
    #[arg(long, global = true)]
    strict: bool,
    /// Where stores lie while servers are measured: a disk, not memory [default: the system's]
    #[arg(long, global = true, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Where the other programs of the workspace lie [default: beside this one]
    #[arg(long, global = true, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// The simulator built for madsim, to be compared with [default: it is not]
    #[arg(long, global = true, value_name = "FILE")]
    madsim: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Bench {
    /// The simulator: many hosts, idle hosts, busy hosts, whole calls, growth
    Scale,
    /// Two clusters as processes: messages across, latency, resolutions, sockets, restart
    Load,
    /// The conformance suite: simulated, over sockets, its self-test
    Conform,
    /// The judges on a million events
    Judges,
    /// A media relay as a process: packets a second, latency
    Relay,
    /// One sample in a process of its own.
    #[command(hide = true)]
    Sample {
        /// Which, as JSON.
        what: String,
    },
    /// The plain axum server that resolution is compared with.
    #[command(hide = true)]
    PlainAxum {
        /// How many addresses it knows.
        addresses: u32,
    },
}

fn main() -> ExitCode {
    fusion_history::output::mind();
    let Line { bench, how } = Line::parse();
    match run(&bench, &how) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(u8::from(how.strict)),
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            ExitCode::from(4)
        }
    }
}

fn run(bench: &Bench, how: &How) -> Result<bool> {
    let report = Report::new(how.json, how.quick);
    match bench {
        Bench::Scale => scale::run(how, &report)?,
        Bench::Load => load::run(how, &report)?,
        Bench::Conform => conform::run(how, &report)?,
        Bench::Judges => judges::run(how, &report)?,
        Bench::Relay => relay::run(how, &report)?,
        Bench::Sample { what } => return scale::sample(what).map(|()| true),
        Bench::PlainAxum { addresses } => return load::plain_axum(*addresses).map(|()| true),
    }
    Ok(report.end())
}

impl How {
    /// Whether a figure is wanted.
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.starts_with(only.as_str()))
    }

    fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds }
    }

    /// `large`, or `small` when it is only to be shown that the bench runs.
    fn size<T>(&self, large: T, small: T) -> T {
        if self.quick { small } else { large }
    }

    /// A program of the workspace.
    fn program(&self, name: &str) -> Result<PathBuf> {
        let own = std::env::current_exe()?;
        let beside = own.parent().map(PathBuf::from).unwrap_or_default();
        let path = self.programs.clone().unwrap_or(beside).join(name);
        if !path.exists() {
            anyhow::bail!("{} is not there: build it, or name its folder by --programs", path.display());
        }
        Ok(path)
    }
}
