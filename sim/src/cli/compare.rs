//! What the judges say of the same plan on several engines.

use anstream::{eprint, eprintln, println};
use anyhow::{Result, ensure};
use fusion_deployment::Hooks;
use fusion_history::Ruling;
use serde_json::json;

use super::desk::{Desk, indented};
use crate::compare::{Batch, Compared, Comparison, compare};
use crate::library::Library;

/// Plays scenarios on fabric and on turmoil, and compares what the judges say of each run
///
/// Each scenario is played as it is written and with a swarm of those faults that both engines can
/// express; a scenario whose own faults they cannot both express is refused by their name. What holds on
/// one and is violated, or cannot be judged, on the other is a difference; a case that arose on one of
/// them only is told and is none.
///
/// Exit codes: 0 no difference, 1 engines contradict each other or something is violated, 3 fewer
/// plans than asked for could be compared.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The scenarios [default: all]
    scenario: Vec<String>,
    /// How many swarm seeds of each scenario, besides its story
    #[arg(long, default_value_t = 1, value_name = "N")]
    seeds: u64,
    /// The first swarm seed
    #[arg(long, default_value_t = 1, value_name = "N")]
    from: u64,
    /// How many plans must have been compared at least
    #[arg(long, default_value_t = 1, value_name = "N")]
    at_least: u64,
    /// How many plans are compared at most: stories first, then seed by seed
    #[arg(long, value_name = "N")]
    at_most: Option<usize>,
}

pub(super) fn run(desk: &Desk, args: &Args, library: &Library) -> Result<Ruling> {
    let Args { scenario, seeds, from, at_least, at_most } = args;
    ensure!(from.checked_add(*seeds).is_some(), "there are no {seeds} seeds from {from} on");
    let scenarios: Vec<_> = library.named(scenario)?.into_iter().map(|(_, scenario)| scenario).collect();
    let at_most = at_most.unwrap_or(usize::MAX);
    let plans = Batch { scenarios: &scenarios, seeds: *seeds, first: *from, story: true, at_most };
    Ok(all(desk, &plans, *at_least))
}

/// Plans on fabric and turmoil: a line for each, then how many are equal and what was refused.
pub(super) fn all(desk: &Desk, plans: &Batch<'_>, at_least: u64) -> Ruling {
    let bar = desk.bar("compare", plans.asked());
    let compared = compare(plans, desk.jobs, &Hooks::default(), &desk.stop, &|_| bar.inc(1));
    bar.finish_and_clear();
    compared.pairs.iter().for_each(|pair| tell(desk, pair));
    agreement(desk, &compared);
    let count = compared.pairs.len() as u64;
    if desk.ends_early() {
        return compared.ruling().max(Ruling::Unknown);
    }
    if count < at_least {
        eprintln!("{count} pairs were compared; at least {at_least} are wanted");
        return compared.ruling().max(Ruling::Unknown);
    }
    compared.ruling()
}

/// One plan on several engines: a line for each run, then what they differ in.
pub(super) fn everywhere(desk: &Desk, comparison: &Comparison) -> Ruling {
    comparison.outcomes.iter().for_each(|outcome| desk.one(outcome));
    if !desk.json {
        let refused = comparison.refused.iter();
        refused.for_each(|(_, why)| println!("refused  {:<32} {why}", comparison.scenario));
    }
    tell(desk, comparison);
    comparison.ruling()
}

/// What the engines say of one plan.
fn tell(desk: &Desk, comparison: &Comparison) {
    if desk.json {
        return println!("{}", serde_json::to_string(&comparison.line()).unwrap_or_default());
    }
    println!("{comparison}");
    if comparison.contradictions().next().is_some() {
        eprintln!("  {}", comparison.reproduce());
        comparison.contradictions().for_each(|difference| eprint!("{}", indented(&difference.to_string())));
    }
}

/// How many plans were compared, and what could not be.
fn agreement(desk: &Desk, compared: &Compared) {
    let (count, equal, one_sided) = (compared.pairs.len(), compared.equal(), compared.one_sided());
    if desk.json {
        let line = json!({
            "compared": count, "engines": ["fabric", "turmoil"], "equal": equal,
            "with_cases_on_one_only": one_sided, "refused": compared.refused,
        });
        return println!("{line}");
    }
    let verdict = match count - equal {
        0 => "equal".to_owned(),
        different => format!("{equal} equal, {different} different"),
    };
    compared.refused.iter().for_each(|(scenario, why)| println!("refused  {scenario:<32} {why}"));
    println!(
        "{count} pairs compared on fabric and turmoil: {verdict}; {one_sided} of them had cases on one only; \
         refused: {}",
        compared.refused.len()
    );
}
