//! Generated worlds on the command line: `explore`, and `scenario`, which prints one.

use std::time::Duration;

use anstream::{eprintln, println};
use anyhow::{Result, ensure};
use clap::value_parser;
use fusion_history::Ruling;
use serde_json::json;

use super::desk::Desk;
use crate::coverage::{Mark, Reached, Seen, marks};
use crate::engines::fabric::Options;
use crate::expedition::{End, Expedition, Found};
use crate::generate::{CLUSTERS_MAX, Generated};
use crate::plan::Mode;

/// Explores generated worlds: random federations in which random things are done
///
/// Each seed makes a federation of 1 to 30 clusters (several orgs, hosted clusters, several consumer clusters,
/// relays that lend and borrow), people in it, and what they do at the same time, with a swarm of faults. All
/// judges read every run. A seed's world is a scenario like those in files: `run generated-7`, `sweep
/// generated-7`, `scenario generated-7`.
///
/// Without --seeds it goes on until every mark is reached (each judge had a case, each fault family made a
/// difference, services and devices went through what they should) and no fingerprint was new in the last 200
/// runs, and in the last fifth of all runs.
///
/// Exit codes: 0 all runs hold, 1 one is violated, 2 a wrong argument, 3 one could not be judged, or it was
/// stopped.
#[derive(clap::Args)]
pub(super) struct Args {
    /// How many worlds [default: until nothing new is seen]
    #[arg(long, value_name = "N", value_parser = super::seeds)]
    seeds: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 1, value_name = "N")]
    from: u64,
    /// How long at most, for example 90s or 10m
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    within: Option<Duration>,
    /// The most clusters of a world
    #[arg(long, default_value_t = CLUSTERS_MAX, value_name = "N",
          value_parser = value_parser!(u32).range(1..=i64::from(CLUSTERS_MAX)))]
    clusters_max: u32,
    /// What people do alone, without a swarm of faults
    #[arg(long)]
    no_faults: bool,
    /// Ends with the first run in which something is violated
    #[arg(long)]
    first: bool,
    /// Lists all marks with the number of runs that have reached them
    #[arg(long)]
    marks: bool,
    /// Lists everything that has a fingerprint, the rarest first
    #[arg(long)]
    fingerprints: bool,
    #[command(flatten)]
    planted: super::Planted,
}

/// Prints a scenario as a file: a generated one by its seed, or any by its name
#[derive(clap::Args)]
pub(super) struct Print {
    /// A seed, or the name of any scenario
    scenario: String,
}

impl Print {
    /// The name of the scenario: a seed alone is that of a generated one.
    pub(super) fn name(&self) -> String {
        let seed = self.scenario.parse::<u64>();
        seed.map_or_else(|_| self.scenario.clone(), |seed| Generated::new(seed).to_string())
    }
}

/// Explores, and tells what was found.
pub(super) fn run(desk: &Desk, args: &Args) -> Result<Ruling> {
    let seeds = args.seeds.unwrap_or(0);
    ensure!(args.from.checked_add(seeds).is_some(), "there are no {seeds} seeds from {} on", args.from);
    let expedition = Expedition {
        first: args.from,
        runs: args.seeds,
        within: args.within.unwrap_or(Duration::MAX),
        clusters_max: args.clusters_max,
        mode: if args.no_faults { Mode::Story } else { Mode::Swarm },
        jobs: desk.jobs,
        planted: args.planted.plant.clone(),
        first_only: args.first,
    };
    let options = Options { hooks: desk.hooks(args.planted.plant.as_deref())?, ..Options::default() };
    let bar = args.seeds.map_or_else(|| desk.spinner("explore"), |seeds| desk.bar("explore", seeds));
    let found = expedition.go(&options, &desk.stop, &|outcome| {
        bar.inc(1);
        if outcome.ruling != Ruling::Holds {
            bar.set_message(format!("{} in {}", outcome.ruling, outcome.scenario));
        }
    });
    bar.finish_and_clear();
    desk.summary(&found.summary);
    desk.faults(&found.summary.faults, found.summary.runs);
    if args.marks {
        list_marks(desk, &found.reached);
    }
    if args.fingerprints {
        list_fingerprints(desk, &found.reached);
    }
    tell(desk, &found);
    Ok(found.ruling())
}

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "write a number with its unit, such as 90s or 10m".to_owned())
}

/// How far it went, what it has reached and what not, and why it ended.
fn tell(desk: &Desk, found: &Found) {
    let (runs, (least, most), reached) = (found.summary.runs, found.clusters, &found.reached);
    let (missing, expected) = (reached.missing(), expected().count());
    if desk.json {
        println!(
            "{}",
            json!({
                "worlds": runs, "clusters": [least, most], "end": format!("{:?}", found.end).to_lowercase(),
                "marks": expected, "never_reached": missing, "fingerprints": reached.fingerprints(),
                "last_new": reached.last_new(), "new_per_100": reached.new_per(100),
            })
        );
    } else if runs > 0 {
        println!("{runs} worlds of {least} to {most} clusters");
        println!(
            "marks reached {} of {expected}; fingerprints {}, last new in run {}",
            expected - missing.len(),
            reached.fingerprints(),
            reached.last_new(),
        );
        let new: Vec<String> = reached.new_per(100).iter().map(ToString::to_string).collect();
        println!("new fingerprints in each 100 runs: {}", new.join(" "));
    }
    if !missing.is_empty() && !desk.json {
        println!("never reached: {}", missing.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
    }
    match found.end {
        End::Done | End::Violated => {}
        End::Flat => eprintln!("ended after {runs} worlds: all marks are reached and nothing new is seen"),
        End::Late => eprintln!("ended after {runs} worlds: the time is over"),
        End::Stopped => eprintln!("stopped; the lines above are what was found"),
    }
}

/// Every mark, those never reached first.
fn list_marks(desk: &Desk, reached: &Reached) {
    let mut marks: Vec<(u64, Mark)> =
        marks().into_iter().map(|mark| (reached.count(&mark.name), mark)).collect();
    marks.sort_by(|(one, a), (other, b)| (one, &a.name).cmp(&(other, &b.name)));
    for (runs, Mark { name, exempt }) in marks {
        if desk.json {
            println!("{}", json!({"mark": name, "runs": runs, "exempt": exempt}));
        } else {
            let why = exempt.map(|why| format!("  (not expected: {why})")).unwrap_or_default();
            println!("{runs:>7} runs  {name}{why}");
        }
    }
}

fn list_fingerprints(desk: &Desk, reached: &Reached) {
    let mut traits: Vec<_> = reached.traits().collect();
    traits.sort_by(|one, other| (one.runs, &one.name).cmp(&(other.runs, &other.name)));
    for Seen { name, runs, first } in traits {
        if desk.json {
            println!("{}", json!({"fingerprint": name, "runs": runs, "first": first}));
        } else {
            println!("{runs:>7} runs  first in {first:>6}  {name}");
        }
    }
}

fn expected() -> impl Iterator<Item = Mark> {
    marks().into_iter().filter(|mark| mark.exempt.is_none())
}
