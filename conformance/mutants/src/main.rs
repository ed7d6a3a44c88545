//! `cargo xtask conform --self-test`: faulty deployments, each of which must be found out.

use std::process::ExitCode;

use anstream::{print, println};
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use fusion_mutants::MUTANTS;
use fusion_mutants::self_test::{Found, Outcome, run};
use fusion_sim::stopwatch::Stopwatch;

/// Checks faulty deployments: each must be found out by the check and with the observation, or by the judge
/// and with the violation, that the catalogue names for it.
///
/// Every deployment runs in a simulated world of its own. First the right one is checked: a check that is
/// not green there, or a scenario that does not hold, catches nothing. Exit codes: 0 every mutant is caught,
/// 1 one is not, 2 the command line is wrong, 4 the self-test itself failed.
#[derive(Parser)]
#[command(name = "cargo xtask conform --self-test", version)]
struct Line {
    /// One JSON object a line, for machines
    #[arg(long)]
    json: bool,
    /// How many worlds at a time [default: one for each core]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Only this mutant, against its own check or judge alone; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

fn main() -> ExitCode {
    fusion_history::output::mind();
    let line = Line::parse();
    if let Some(unknown) = line.only.iter().find(|name| !MUTANTS.iter().any(|mutant| mutant.name == **name)) {
        let what = format!("there is no mutant {unknown:?}; --json lists all that are run\n");
        Line::command().error(ErrorKind::InvalidValue, what).exit();
    }
    let jobs = line.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let watch = Stopwatch::start();
    match run(jobs, &line.only, &|found| tell(found, line.json)) {
        Ok(outcome) => {
            conclude(&outcome, watch, line.json);
            if outcome.holds() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(4)
        }
    }
}

fn tell(found: &Found, json: bool) {
    if json {
        println!("{}", serde_json::to_string(found).unwrap_or_default());
        return;
    }
    let verdict = if found.caught { "caught" } else { "MISSED" };
    println!("{verdict}  {:<26} {} with {}  ({:.2} s)", found.mutant, found.by, found.with, found.wall_s);
    if let Some(instead) = &found.instead {
        println!("        instead: {instead}");
    }
}

fn conclude(outcome: &Outcome, watch: Stopwatch, json: bool) {
    let caught = outcome.mutants.iter().filter(|found| found.caught).count();
    let (wrong, checks) = (outcome.sound.wrong(), outcome.sound.checks());
    let scenarios = outcome.sound.scenarios.len();
    let all = outcome.mutants.len();
    let (twins, apart) = (outcome.twins.len(), outcome.twins.iter().filter(|twin| twin.told_apart).count());
    if json {
        let line = serde_json::json!({"caught": caught, "mutants": all, "twins": twins, "twins_told_apart": apart, "checks": checks, "scenarios": scenarios, "not_green_without": wrong, "wall_s": watch.elapsed().as_secs_f64()});
        let twins = outcome.twins.iter().map(|twin| serde_json::to_string(twin).unwrap_or_default());
        twins.chain([line.to_string()]).for_each(|line| println!("{line}"));
        return;
    }
    if outcome.mutants.len() > 1 {
        print!("\n{}\n", fusion_mutants::matrix::kill_matrix(&outcome.mutants));
    }
    for twin in outcome.twins.iter().filter(|twin| !twin.told_apart) {
        let instead = twin.instead.as_deref().unwrap_or_default();
        println!("refused for another reason, and {} concludes all the same: {instead}", twin.check);
    }
    if !wrong.is_empty() {
        println!("not green on the right deployment: {}", wrong.join(", "));
    }
    println!(
        "{caught} of {all} mutants caught; {apart} of {twins} refusals for another reason told apart; \
         {checks} checks and {scenarios} scenarios on the right deployment; {:.1} s",
        watch.elapsed().as_secs_f64()
    );
}
