//! The shards of a sweep, put together.

use std::path::PathBuf;

use anstream::eprintln;
use anyhow::Result;
use fusion_history::Ruling;

use super::desk::Desk;
use crate::shard::{Merged, Shard, merge};

/// How many missing seeds of a shard are told.
const SEEDS_TOLD_MAX: usize = 8;

/// Puts the results of a sweep's shards together, and tells what one sweep over
/// all seeds would have told
///
/// Each shard is one `sweep SCENARIO --shard I/N --results FILE`, by the same
/// program with the same scenario, seeds and mode, on any machine. The hash is
/// the one that the sweep without shards prints. Wall time is the sum over all
/// runs.
///
/// Exit codes: 0 all hold, 1 something is violated, 2 a file is corrupt or of
/// another sweep, or a shard is there twice, 3 a shard or some of its seeds are
/// missing, or something could not be judged.
///
/// Example:
///   cargo xtask sim sweep glare --seeds 1000 --shard 0/2 --results 0.jsonl
///   cargo xtask sim sweep glare --seeds 1000 --shard 1/2 --results 1.jsonl
///   cargo xtask sim merge 0.jsonl 1.jsonl
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// The files that `sweep --results` wrote
    #[arg(required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
}

pub(super) fn run(desk: &Desk, args: &Args) -> Result<Ruling> {
    let merged = merge(&args.file)?;
    desk.summary(&merged.summary);
    desk.faults(&merged.summary.faults, merged.summary.runs);
    for run in &merged.summary.notable {
        let why = run.failure.iter().chain(&run.violations).map(String::as_str).collect::<Vec<_>>();
        eprintln!("  {} on seed {}: {}", run.verdict, run.seed, merged.reproduce(run.seed));
        why.iter().for_each(|why| eprintln!("    {why}"));
    }
    merged.missing.iter().for_each(|(shard, seeds)| missing(*shard, seeds));
    Ok(merged.summary.ruling().max(never_reached(&merged)))
}

fn missing(shard: Shard, seeds: &[u64]) {
    let told: Vec<String> = seeds.iter().take(SEEDS_TOLD_MAX).map(u64::to_string).collect();
    let more = if seeds.len() > told.len() { ", ..." } else { "" };
    eprintln!("shard {shard}: {} of its seeds are missing: {}{more}", seeds.len(), told.join(", "));
}

/// Unknown, when a requirement that the scenario is about never had a case in a sweep that is whole.
fn never_reached(merged: &Merged) -> Ruling {
    let reached = &merged.summary.reached;
    let never: Vec<&str> =
        merged.requirements().iter().filter(|id| !reached.contains(*id)).map(String::as_str).collect();
    if never.is_empty() || !merged.missing.is_empty() {
        return Ruling::Holds;
    }
    eprintln!("{}: no run had a case of {}", merged.summary.scenario, never.join(", "));
    Ruling::Unknown
}
