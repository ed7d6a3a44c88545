//! `cargo xtask requirements`: the map of what is proved.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anstream::{eprintln, print, println};
use anyhow::Result;
use clap::Parser;
use fusion_conformance::check::Verdict;
use fusion_mutants::fault_table::fault_table;
use fusion_mutants::requirements::{Effort, Row, requirements};
use fusion_sim::library::Library;

/// Plays every scenario, makes every check, catches every mutant, and shows for each requirement who has
/// really looked at it and what was concluded.
///
/// Nothing is taken from yesterday: an empty column means that nothing of this run had a case. Exit codes:
/// 0 nothing fails, 1 something does, 2 a scenario is wrong.
#[derive(Parser)]
#[command(name = "cargo xtask requirements", version)]
struct Line {
    /// One JSON object a line, for machines
    #[arg(long)]
    json: bool,
    /// How many swarm seeds each scenario is played with
    #[arg(long, default_value_t = 10, value_name = "N")]
    seeds: u64,
    /// Without the mutants, which take the most time
    #[arg(long)]
    no_mutants: bool,
    /// Also the table of rules under families of faults
    #[arg(long)]
    faults: bool,
}

fn main() -> ExitCode {
    fusion_history::output::mind();
    let line = Line::parse();
    match run(&line) {
        Ok(rows) => {
            rows.iter().for_each(|row| show(row, line.json));
            if !line.json {
                if line.faults {
                    print!("\n{}\n", fault_table(&rows));
                }
                conclude(&rows);
            }
            let fails = rows.iter().any(|row| row.verdict == Some(Verdict::Fail));
            ExitCode::from(u8::from(fails))
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(line: &Line) -> Result<Vec<Row>> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let effort = Effort { seeds: line.seeds, mutants: !line.no_mutants, jobs };
    let tells = !line.json && std::io::stderr().is_terminal();
    requirements(&Library::nearest()?, effort, &|done| {
        if tells {
            eprintln!("done: {done}");
        }
    })
}

fn show(row: &Row, json: bool) {
    if json {
        println!("{}", serde_json::to_string(row).unwrap_or_default());
        return;
    }
    let verdict = row.verdict.map_or("-", Verdict::as_str);
    println!(
        "{verdict:<14} {:<8} {:<7} judges {:>1}  checks {:>1}  scenarios {:>2}  mutants {:>1}  {}",
        row.id,
        row.level,
        row.judges.len(),
        row.checks.len(),
        row.scenarios.len(),
        row.mutants.len(),
        if row.verdict.is_none() { row.reason.as_deref().unwrap_or_default() } else { "" },
    );
}

fn conclude(rows: &[Row]) {
    let must = rows.iter().filter(|row| row.level == "MUST");
    let (looked_at, open): (Vec<_>, Vec<_>) = must.partition(|row| row.verdict.is_some());
    let proved = looked_at.iter().filter(|row| !row.mutants.is_empty()).count();
    let (looked_at, all) = (looked_at.len(), looked_at.len() + open.len());
    println!(
        "{looked_at} of {all} MUST requirements looked at, {proved} of them with a mutant that was caught"
    );
}
