//! The conformance suite in a simulated world.

use std::io::Write as _;

use anstream::eprintln;
use anyhow::{Result, ensure};
use fusion_conformance::report::{Conclusion, json, text, unless_nobody_listens};
use fusion_conformance::run::chosen;
use fusion_history::Ruling;

use super::Planted;
use super::desk::Desk;
use crate::bundle::Checked;
use crate::engines::fabric::{checked, conform_observed};
use crate::stopwatch::Stopwatch;

/// Checks a simulated deployment with the conformance suite: the same checks as over sockets
#[derive(clap::Args)]
pub(super) struct Args {
    /// The world's seed
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Only checks whose id begins like this; `*` stands for anything. May be repeated
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    #[command(flatten)]
    planted: Planted,
}

pub(super) fn run(desk: &Desk, args: &Args) -> Result<Ruling> {
    let Args { seed, only, planted: Planted { plant } } = args;
    let patterns = only.join(" or ");
    ensure!(
        !chosen(only).is_empty(),
        "no check is called like {patterns}; `conform` alone runs and names all"
    );
    let options = fusion_conformance::Options {
        only: only.clone(),
        engine: "fabric".to_owned(),
        ..fusion_conformance::Options::default()
    };
    let watch = Stopwatch::start();
    let hooks = desk.hooks(plant.as_deref())?;
    let (report, history) = conform_observed(&checked(), *seed, hooks, &options)?;
    let mut told = Vec::new();
    if desk.json {
        json::write(&report, &mut told)?;
    } else {
        report.checks.iter().try_for_each(|check| text::write_line(check, &mut told))?;
        text::write_end(&report, &mut told)?;
        writeln!(told, "in a simulated world, {:.2} s of wall time", watch.elapsed().as_secs_f64())?;
    }
    unless_nobody_listens(anstream::stdout().lock().write_all(&told))?;
    if report.conclusion != Conclusion::Conformant {
        let checked =
            Checked { report: &report, history: &history, seed: *seed, only, plant: plant.as_deref() };
        eprintln!("  again: {}", checked.reproduce());
        eprintln!("  bundle {}", checked.write(&desk.bundles)?.display());
    }
    Ok(match report.conclusion {
        Conclusion::Conformant => Ruling::Holds,
        Conclusion::NotConformant => Ruling::Violated,
        Conclusion::Incomplete | Conclusion::HarnessError | Conclusion::Unreachable => Ruling::Unknown,
    })
}
