//! `sim detect`: its arguments, and how its table is put before people and machines.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anstream::{eprintln, println};
use anyhow::{Result, bail, ensure};
use clap::value_parser;
use fusion_history::Ruling;
use serde_json::json;

use super::{Arena, Budget, Finding, Hunt, Sighting};
use crate::plan::Mode;
use crate::plant::{Plant, Plants};
use crate::progress;
use crate::scenario::Scenario;
use crate::stopwatch::Stopwatch;

/// Hunts planted bugs and tells how soon each is found
///
/// Each bug is one thing that is wrong with the deployment. It is hunted with the
/// scenarios' own plans: first the stories of the scenarios that name the
/// requirement it breaks, then in turn one swarm seed of theirs and one plan of
/// all others (stories, then swarms), scenarios with few events first. The order
/// is the same for every bug of a requirement.
///
/// A bug is found when a judge finds a violation and the same plan holds without
/// the bug. `play` is named as the judge when the run with the bug could not be
/// played to its end, and the one without it could.
///
/// Exit codes: 0 all are found (or as many as --at-least asks for), 1 some are
/// not, 2 a wrong argument, 3 it was stopped.
///
/// Examples:
///   cargo xtask sim detect --list
///   cargo xtask sim detect left-and-still-in --seeds 1000
///   cargo xtask sim detect --held-out --at-least 80
///   cargo xtask sim detect --engine madsim
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The bugs, by name [default: all]
    bug: Vec<String>,
    /// Tells which bugs there are, and what each does
    #[arg(long)]
    list: bool,
    /// Only bugs that judges may be tuned by
    #[arg(long, conflicts_with = "held_out")]
    tuned: bool,
    /// Only bugs that are set aside while judges are tuned
    #[arg(long)]
    held_out: bool,
    /// How many plans are played with each bug at most
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    seeds: u64,
    /// After how many seconds no further plan is begun for a bug
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..=86_400))]
    within: u64,
    /// Plays the plans in an order that does not look at the requirement that a bug breaks
    #[arg(long)]
    blind: bool,
    /// How many of a hundred must be found for exit code 0
    #[arg(long, default_value_t = 100, value_name = "PERCENT", value_parser = value_parser!(u64).range(0..=100))]
    at_least: u64,
    /// Where they are hunted [default: fabric; in the program for madsim, madsim]
    #[arg(long, value_enum)]
    pub engine: Option<On>,
}

/// Where bugs can be hunted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum On {
    /// The simulated network
    Fabric,
    /// Somebody else's; only scenarios and faults that it can express
    Turmoil,
    /// Somebody else's, with tasks in random order: a program of its own
    Madsim,
}

/// Hunts as `args` say. What is found is told as soon as it is; when `stop` is set, the rest is left.
///
/// # Errors
/// When a bug is not known, or the engine can express none of `scenarios`.
pub fn run(
    args: &Args,
    (plants, scenarios): (Plants, Vec<Scenario>),
    arena: Arena<'_>,
    (json, jobs): (bool, usize),
    stop: &AtomicBool,
) -> Result<Ruling> {
    let bugs = args.bugs(plants)?;
    if args.list {
        bugs.iter().for_each(|bug| list(bug, json));
        return Ok(Ruling::Holds);
    }
    let watch = Stopwatch::start();
    let budget = Budget { seeds: args.seeds, within: Duration::from_secs(args.within) };
    let bar = progress::bar("stories without a bug", scenarios.len() as u64, json);
    let hunt = Hunt::prepare(scenarios, arena, budget, jobs, stop, &|| bar.inc(1));
    bar.finish_and_clear();
    let hunt = if args.blind { hunt.blind() } else { hunt };
    ensure!(hunt.grounds() > 0, "{} can express none of the scenarios", arena.engine);
    let bar = progress::bar("bugs", bugs.len() as u64, json);
    let findings = hunt.all(&bugs, jobs, stop, &|finding| {
        bar.inc(1);
        bar.suspend(|| row(finding, json));
    });
    bar.finish_and_clear();
    let score = Score { findings: &findings, asked: bugs.len(), scenarios: hunt.grounds() };
    score.tell(arena.engine, watch.elapsed(), json);
    if stop.load(Ordering::Relaxed) {
        eprintln!("stopped; the lines above are what was found");
        return Ok(Ruling::Unknown);
    }
    Ok(score.ruling(args.at_least))
}

impl Args {
    fn bugs(&self, plants: Plants) -> Result<Vec<&'static Plant>> {
        if plants.0.is_empty() {
            bail!("this program has no bugs to plant: `cargo xtask sim detect` runs the one that has");
        }
        let named: Vec<&Plant> = match self.bug.as_slice() {
            [] => plants.0.iter().collect(),
            names => names.iter().map(|name| plants.find(name)).collect::<Result<_, _>>()?,
        };
        let wanted = |bug: &&Plant| !(self.tuned && bug.held_out || self.held_out && !bug.held_out);
        let bugs: Vec<_> = named.into_iter().filter(wanted).collect();
        let which = if self.tuned { "to tune judges by" } else { "held out" };
        ensure!(!bugs.is_empty(), "none of these bugs is {which}");
        Ok(bugs)
    }
}

/// What the findings show together.
struct Score<'a> {
    findings: &'a [Finding],
    asked: usize,
    scenarios: usize,
}

impl Score<'_> {
    /// As soon as `percent` of a hundred are found.
    fn ruling(&self, percent: u64) -> Ruling {
        let (found, asked) = (self.found().count() as u64, self.asked as u64);
        if found * 100 >= percent * asked { Ruling::Holds } else { Ruling::Violated }
    }

    fn found(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.sighting.is_some())
    }

    fn missed(&self) -> Vec<&'static str> {
        let missed = self.findings.iter().filter(|finding| finding.sighting.is_none() && !finding.stopped);
        missed.map(|finding| finding.bug.name).collect()
    }

    /// How many of a kind were found, of how many that were hunted.
    fn of(&self, held_out: bool) -> (usize, usize) {
        let kind = |finding: &&Finding| finding.bug.held_out == held_out;
        (self.found().filter(kind).count(), self.findings.iter().filter(kind).count())
    }

    fn tell(&self, engine: &str, wall: Duration, json: bool) {
        let (tuned, held_out) = (self.of(false), self.of(true));
        let found = self.found().count();
        let by_own = self.found().filter(|finding| finding.sighting.as_ref().is_some_and(|s| s.own)).count();
        let seeds = median(self.found().map(|finding| finding.seeds));
        let seconds = median(self.found().map(|finding| finding.wall));
        let wall_s = wall.as_secs_f64();
        if json {
            let line = json!({
                "detected": found, "of": self.asked, "by_own_requirement": by_own,
                "tuned": {"detected": tuned.0, "of": tuned.1},
                "held_out": {"detected": held_out.0, "of": held_out.1}, "missed": self.missed(),
                "median_seeds": seeds, "median_wall_s": seconds.map(|wall| wall.as_secs_f64()),
                "engine": engine, "scenarios": self.scenarios, "wall_s": wall_s,
            });
            return println!("{line}");
        }
        println!(
            "found {found} of {} on {engine}: {} of {} tuned, {} of {} held out; {by_own} by a judge of the \
             requirement it breaks",
            self.asked, tuned.0, tuned.1, held_out.0, held_out.1
        );
        if let (Some(seeds), Some(seconds)) = (seeds, seconds) {
            println!("median of those found: {seeds} seeds, {:.2} s", seconds.as_secs_f64());
        }
        println!("{} scenarios, {wall_s:.1} s of wall time in all", self.scenarios);
        if !self.missed().is_empty() {
            println!("not found: {}", self.missed().join(", "));
        }
        self.by_judge();
    }

    /// Which judges found how many.
    fn by_judge(&self) {
        let mut judges: BTreeMap<&str, u64> = BTreeMap::new();
        for sighting in self.findings.iter().filter_map(|finding| finding.sighting.as_ref()) {
            *judges.entry(&sighting.judge).or_default() += 1;
        }
        let told: Vec<_> = judges.iter().map(|(judge, count)| format!("{judge} {count}")).collect();
        if !told.is_empty() {
            println!("by judge: {}", told.join(", "));
        }
    }
}

fn row(finding: &Finding, json: bool) {
    if json {
        return println!("{}", machine_row(finding));
    }
    let Finding { bug, seeds, wall, sighting, .. } = finding;
    let verdict = match (sighting, finding.stopped) {
        (Some(_), _) => "found",
        (None, false) => "MISSED",
        (None, true) => "stopped",
    };
    let how = match sighting {
        Some(sighting) => format!("{}  in {}", sighting.fingerprint, place(sighting)),
        None => bug.wrong.to_owned(),
    };
    println!(
        "{verdict:<8} {:<32} {} {:<8} {seeds:>4} seeds {:>6.2} s  {how}",
        bug.name,
        bug.requirement,
        kind(bug),
        wall.as_secs_f64(),
    );
    if finding.discarded > 0 {
        println!("         {} plans do not hold without it either: they were not counted", finding.discarded);
    }
}

fn machine_row(finding: &Finding) -> serde_json::Value {
    let Finding { bug, sighting, .. } = finding;
    let mut line = json!({
        "bug": bug.name, "requirement": bug.requirement, "held_out": bug.held_out,
        "found": sighting.is_some(), "seeds": finding.seeds, "wall_s": finding.wall.as_secs_f64(),
        "judge": sighting.as_ref().map(|sighting| &sighting.judge), "engine": finding.engine,
        "discarded": finding.discarded, "stopped": finding.stopped,
    });
    if let (Some(sighting), Some(line)) = (sighting, line.as_object_mut()) {
        let how = [
            ("by_own_requirement", json!(sighting.own)),
            ("fingerprint", json!(sighting.fingerprint)),
            ("scenario", json!(sighting.scenario)),
            ("seed", json!(sighting.seed)),
            ("swarm", json!(sighting.mode == Mode::Swarm)),
            ("reproduce", json!(sighting.reproduce)),
        ];
        line.extend(how.map(|(key, value)| (key.to_owned(), value)));
    }
    line
}

fn place(sighting: &Sighting) -> String {
    match sighting.mode {
        Mode::Story => format!("{} (story)", sighting.scenario),
        Mode::Swarm => format!("{} (seed {})", sighting.scenario, sighting.seed),
    }
}

fn kind(bug: &Plant) -> &'static str {
    if bug.held_out { "held out" } else { "tuned" }
}

fn list(bug: &Plant, json: bool) {
    let Plant { name, requirement, wrong, held_out, .. } = bug;
    if json {
        let line = json!({"bug": name, "requirement": requirement, "held_out": held_out, "wrong": wrong});
        return println!("{line}");
    }
    println!("{name:<32} {requirement} {:<8} {wrong}", kind(bug));
}

/// The middle one; of an even number, the lower of the two in the middle.
fn median<T: Ord>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort();
    let middle = values.len().checked_sub(1)? / 2;
    Some(values.swap_remove(middle))
}

#[cfg(test)]
mod tests {
    use fusion_deployment::Hooks;

    use super::*;

    static TUNED: Plant =
        Plant { name: "one", requirement: "LOC-003", wrong: "-", held_out: false, hooks: Hooks::default };
    static HELD_OUT: Plant = Plant { name: "two", held_out: true, ..TUNED };

    fn finding(bug: &'static Plant, seeds: u64, found: bool) -> Finding {
        let sighting = found.then(|| Sighting {
            judge: "glare".to_owned(),
            own: true,
            fingerprint: "glare/LOC-003/two-calls".to_owned(),
            scenario: "glare".to_owned(),
            seed: 4,
            mode: Mode::Swarm,
            reproduce: "cargo xtask sim run glare --seed 4 --swarm --plant one".to_owned(),
        });
        let wall = Duration::from_millis(1_500);
        Finding { bug, engine: "fabric", seeds, discarded: 0, wall, sighting, stopped: false }
    }

    #[test]
    fn the_score_counts_tuned_and_held_out_apart_and_names_what_was_not_found() {
        let findings = [finding(&TUNED, 3, true), finding(&HELD_OUT, 200, false)];
        let score = Score { findings: &findings, asked: 2, scenarios: 1 };
        assert_eq!((score.of(false), score.of(true)), ((1, 1), (0, 1)));
        assert_eq!(score.missed(), ["two"]);
        let rulings = [0, 50, 51, 100].map(|percent| score.ruling(percent));
        assert_eq!(rulings, [Ruling::Holds, Ruling::Holds, Ruling::Violated, Ruling::Violated]);
    }

    #[test]
    fn a_bug_that_nobody_came_to_counts_as_not_found_in_the_score() {
        let findings = [finding(&TUNED, 3, true)];
        let score = Score { findings: &findings, asked: 2, scenarios: 1 };
        assert_eq!((score.ruling(50), score.ruling(100)), (Ruling::Holds, Ruling::Violated));
    }

    #[test]
    fn machines_read_the_same_first_keys_whether_a_bug_is_found_or_not() {
        for found in [true, false] {
            let line = machine_row(&finding(&TUNED, 3, found));
            assert_eq!(
                (&line["bug"], &line["found"], &line["seeds"]),
                (&json!("one"), &json!(found), &json!(3))
            );
            assert_eq!((&line["wall_s"], &line["engine"]), (&json!(1.5), &json!("fabric")));
            assert_eq!(line["judge"], if found { json!("glare") } else { json!(null) });
            assert_eq!(line.get("reproduce").is_some(), found);
        }
    }

    #[test]
    fn the_median_is_one_that_was_measured() {
        assert_eq!([median([3, 1, 2].into_iter()), median([4, 1, 2, 3].into_iter())], [Some(2), Some(2)]);
        assert_eq!(median(std::iter::empty::<u64>()), None);
    }
}
