//! How results are put before people and machines, and what counts as a good one.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::aftermath;
use crate::bundle::Checked;
use crate::compare::{self, Compared, Comparison, Engine};
use crate::determinism::{self, Fault, Found};
use crate::engines::fabric::{checked, conform_observed, hosts};
use crate::explore::{Batch, Summary, explore_on};
use crate::fabric::FaultCount;
use crate::library::Library;
use crate::outcome::Outcome;
use crate::plan::{Mode, Plan};
use crate::plant::Plants;
use crate::progress;
use crate::scenario::{FAMILIES, Scenario};
use crate::shard::{Results, Shard, Sweep};
use crate::stopwatch::Stopwatch;
use anstream::{eprint, eprintln, print, println};
use anyhow::{Result, bail};
use fusion_conformance::report::{Conclusion, json, text};
use fusion_deployment::Hooks;
use fusion_history::Ruling;
use indicatif::{ProgressBar, ProgressStyle};

/// In how many seeds of the whole batch each fault family must have made a difference.
const EFFECTIVE_SEEDS_MIN: u64 = 5;

/// How many seeds that differ between two processes are looked at one by one.
const LOOKED_AT_MAX: usize = 3;

/// Where results are put before people or machines.
pub(crate) struct Desk {
    pub(super) json: bool,
    pub(super) jobs: usize,
    pub(super) stop: Arc<AtomicBool>,
    /// Where bundles of failed runs go.
    bundles: PathBuf,
    pub(super) plants: Plants,
}

impl Desk {
    /// The desk of a command line; Ctrl-C is handled from here on.
    pub(crate) fn new(json: bool, jobs: Option<usize>, bundles: PathBuf, plants: Plants) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        // The first Ctrl-C ends the batch and keeps what was found, the second ends the program.
        let _ = ctrlc::set_handler(move || {
            if asked.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        });
        Self { json, jobs: jobs.unwrap_or(cores), stop, bundles, plants }
    }

    pub(crate) fn list(&self, scenarios: &[Scenario]) {
        for scenario in scenarios {
            if self.json {
                println!(
                    "{}",
                    serde_json::json!({"scenario": scenario.name, "title": scenario.title, "requirements": scenario.requirements})
                );
            } else {
                println!("{:<32} {}", scenario.name, scenario.title);
            }
        }
    }

    /// Every scenario as written and with a swarm. Judges without a case and faults without effect are
    /// failures, too: they would be an empty victory.
    pub(crate) fn everything(&self, scenarios: &[Scenario], seeds: u64) -> Result<Ruling> {
        let mut ruling = Ruling::Holds;
        let mut faults: BTreeMap<String, FaultCount> = BTreeMap::new();
        let mut runs = 0;
        for scenario in scenarios {
            let story = self.batch(scenario, 0, 1, Mode::Story);
            let mut swarm = self.batch(scenario, 1, seeds, Mode::Swarm);
            if story.ruling() != Ruling::Holds {
                self.explain(&story);
                ruling = ruling.max(story.ruling());
            }
            swarm.reached.extend(story.reached.iter().cloned());
            self.summary(&swarm);
            ruling = ruling.max(if seeds > 0 { swarm.ruling() } else { story.ruling() });
            for (family, count) in &swarm.faults {
                let total = faults.entry(family.clone()).or_default();
                total.chosen += count.chosen;
                total.effective += count.effective;
            }
            runs += swarm.runs;
            ruling = ruling.max(self.empty_victory(&swarm, scenario));
            if self.stopped() {
                eprintln!("stopped; the lines above are what was found");
                return Ok(ruling.max(Ruling::Unknown));
            }
        }
        self.faults(&faults, runs);
        let wanted = EFFECTIVE_SEEDS_MIN.min(seeds);
        for family in FAMILIES {
            let effective = faults.get(family).map_or(0, |count| count.effective);
            if effective < wanted {
                eprintln!(
                    "fault family {family} made a difference in {effective} runs only; at least {wanted} are wanted"
                );
                ruling = ruling.max(Ruling::Unknown);
            }
        }
        Ok(ruling)
    }

    /// One scenario with many seeds, each of which is written to the file of `results`, too.
    ///
    /// # Errors
    /// When the engine cannot express what the scenario itself is about: nothing is played then. When the
    /// results cannot be written.
    pub(crate) fn sweep(
        &self,
        engine: Engine,
        scenario: &Scenario,
        batch: &Batch,
        results: Option<&Path>,
    ) -> Result<Ruling> {
        let story = Plan::new(scenario, &hosts(&scenario.topology)?, batch.first, Mode::Story);
        if let Some(why) = engine.refusal(&story) {
            bail!(why);
        }
        let hooks = self.plants.hooks(&Plan { planted: batch.planted.clone(), ..story })?;
        let sweep = Sweep::of(scenario, batch, engine.name());
        let results = results.map(|file| Results::begin(file, sweep, batch.shard)).transpose()?;
        let summary = self.batch_on(engine, scenario, batch, &hooks, &|outcome| {
            results.iter().for_each(|results| results.add(outcome));
        });
        self.summary(&summary);
        self.faults(&summary.faults, summary.runs);
        if self.stopped() {
            eprintln!("stopped after {} of {} seeds", summary.runs, summary.asked);
        }
        results.map_or(Ok(()), Results::end)?;
        // What a part never reaches, another may.
        let empty =
            if batch.shard.is_whole() { self.empty_victory(&summary, scenario) } else { Ruling::Holds };
        Ok(summary.ruling().max(empty))
    }

    /// Unknown, when a requirement that the scenario is about never had a case.
    fn empty_victory(&self, summary: &Summary, scenario: &Scenario) -> Ruling {
        let never = summary.never_reached(scenario);
        if never.is_empty() || self.stopped() {
            return Ruling::Holds;
        }
        eprintln!("{}: no run had a case of {}", scenario.name, never.join(", "));
        Ruling::Unknown
    }

    /// The suite, in a world of its own.
    pub(crate) fn conform(&self, seed: u64, only: &[String], plant: Option<&str>) -> Result<Ruling> {
        let options = fusion_conformance::Options {
            only: only.to_vec(),
            engine: "fabric".to_owned(),
            ..fusion_conformance::Options::default()
        };
        let watch = Stopwatch::start();
        let hooks = plant
            .map_or_else(|| Ok(Hooks::default()), |bug| self.plants.find(bug).map(|bug| (bug.hooks)()))?;
        let (report, history) = conform_observed(&checked(), seed, hooks, &options)?;
        let mut out = anstream::stdout().lock();
        if self.json {
            json::write(&report, &mut out)?;
        } else {
            report.checks.iter().try_for_each(|check| text::write_line(check, &mut out))?;
            text::write_end(&report, &mut out)?;
            writeln!(out, "in a simulated world, {:.2} s of wall time", watch.elapsed().as_secs_f64())?;
        }
        drop(out);
        if report.conclusion != Conclusion::Conformant {
            let checked = Checked { report: &report, history: &history, seed, only, plant };
            eprintln!("  again: {}", checked.reproduce());
            eprintln!("  bundle {}", checked.write(&self.bundles)?.display());
        }
        Ok(match report.conclusion {
            Conclusion::Conformant => Ruling::Holds,
            Conclusion::NotConformant => Ruling::Violated,
            Conclusion::Incomplete | Conclusion::HarnessError | Conclusion::Unreachable => Ruling::Unknown,
        })
    }

    pub(crate) fn batch(&self, scenario: &Scenario, first: u64, seeds: u64, mode: Mode) -> Summary {
        let batch = self.seeds(first, seeds, mode, None);
        self.batch_on(Engine::Fabric, scenario, &batch, &Hooks::default(), &|_| {})
    }

    /// Seeds from `first` on, as many runs at a time as were asked for.
    pub(crate) fn seeds(&self, first: u64, seeds: u64, mode: Mode, planted: Option<String>) -> Batch {
        Batch { first, seeds, shard: Shard::WHOLE, mode, jobs: self.jobs, planted }
    }

    fn batch_on(
        &self,
        engine: Engine,
        scenario: &Scenario,
        batch: &Batch,
        hooks: &Hooks,
        seen: &(dyn Fn(&Outcome) + Sync),
    ) -> Summary {
        let asked = batch.shard.of(batch.first, batch.seeds).len() as u64;
        let bar = self.bar(&scenario.name, asked);
        let play = |plan: &Plan| engine.judged_or_failed(plan, hooks);
        let summary = explore_on(scenario, batch, &play, &self.stop, &|outcome| {
            bar.inc(1);
            seen(outcome);
            if outcome.ruling != Ruling::Holds {
                bar.set_message(format!("{} on seed {}", outcome.ruling, outcome.seed));
            }
        });
        bar.finish_and_clear();
        summary
    }

    /// What a deployment does differently in which a bug is planted.
    pub(super) fn hooks(&self, planted: Option<&str>) -> Result<Hooks> {
        planted.map_or_else(|| Ok(Hooks::default()), |name| Ok((self.plants.find(name)?.hooks)()))
    }

    pub(super) fn bar(&self, name: &str, length: u64) -> ProgressBar {
        progress::bar(name, length, self.json)
    }

    /// For work of which nobody knows how long it is; on a terminal only.
    pub(super) fn spinner(&self, name: &str) -> ProgressBar {
        let bar = self.bar(name, u64::MAX);
        if let Ok(style) = ProgressStyle::with_template("{prefix:<32} {spinner} {pos} runs {elapsed} {msg}") {
            bar.set_style(style);
        }
        bar
    }

    pub(crate) fn one(&self, outcome: &Outcome) {
        if self.json {
            println!("{}", serde_json::to_string(&outcome.line()).unwrap_or_default());
            if outcome.ruling != Ruling::Holds {
                self.keep(outcome);
            }
            return;
        }
        println!(
            "{} {:<32} seed {:<6} {:>8.1} s simulated {:>7.3} s wall {:>7} events  {}",
            verdict(outcome.ruling),
            outcome.scenario,
            outcome.seed,
            outcome.simulated.as_secs_f64(),
            outcome.wall.as_secs_f64(),
            outcome.events,
            &outcome.hash[..16.min(outcome.hash.len())],
        );
        if outcome.ruling != Ruling::Holds {
            print!("{}", indented(&outcome.explain()));
            eprintln!("  again: {}", outcome.reproduce());
            self.keep(outcome);
        }
    }

    pub(crate) fn summary(&self, summary: &Summary) {
        if self.json {
            let line = serde_json::json!({
                "scenario": summary.scenario, "engine": summary.engine, "seeds": summary.runs,
                "verdict": summary.ruling().to_string(), "violated": summary.violated, "unknown": summary.unknown,
                "events": summary.events, "simulated_s": summary.simulated.as_secs_f64(),
                "wall_s": summary.wall.as_secs_f64(), "hash": summary.hash, "distinct": summary.distinct,
                "failed_seeds": summary.notable.iter().map(|run| run.seed).collect::<Vec<_>>(),
            });
            println!("{line}");
        } else {
            println!(
                "{} {:<32} {:>5} seeds {:>10.0} s simulated {:>7.2} s wall {:>9} events  {}",
                verdict(summary.ruling()),
                summary.scenario,
                summary.runs,
                summary.simulated.as_secs_f64(),
                summary.wall.as_secs_f64(),
                summary.events,
                &summary.hash[..16],
            );
        }
        self.explain(summary);
    }

    fn explain(&self, summary: &Summary) {
        for outcome in &summary.failed {
            eprintln!("  {} on seed {}: {}", outcome.ruling, outcome.seed, outcome.reproduce());
            self.keep(outcome);
            eprint!("{}", indented(&outcome.explain()));
        }
        let told = summary.notable.len() as u64;
        let all = summary.violated + summary.unknown;
        if all > told {
            eprintln!("  and {} more", all - told);
        }
    }

    /// Writes the bundle of a failed run, and says where.
    fn keep(&self, outcome: &Outcome) {
        for kept in aftermath::keep([outcome], &self.bundles) {
            eprintln!("  bundle {}", kept.display());
        }
    }

    pub(crate) fn faults(&self, faults: &BTreeMap<String, FaultCount>, runs: u64) {
        if self.json {
            let families: BTreeMap<_, _> = faults
                .iter()
                .map(|(family, count)| {
                    (family, serde_json::json!({"chosen": count.chosen, "effective": count.effective}))
                })
                .collect();
            println!("{}", serde_json::json!({"faults": families, "runs": runs}));
            return;
        }
        println!("faults: in how many of {runs} runs each family was chosen and made a difference");
        for (family, count) in faults {
            println!("  {family:<20} chosen {:>5}  effective {:>5}", count.chosen, count.effective);
        }
    }

    /// One plan on several engines: a line for each run, then what they differ in.
    pub(crate) fn everywhere(&self, comparison: &Comparison) -> Ruling {
        comparison.outcomes.iter().for_each(|outcome| self.one(outcome));
        if !self.json {
            comparison
                .refused
                .iter()
                .for_each(|(_, why)| println!("refused  {:<32} {why}", comparison.scenario));
        }
        self.pair(comparison);
        comparison.ruling()
    }

    /// Plans on fabric and turmoil: a line for each, then how many are equal and what was refused.
    pub(crate) fn compare(&self, plans: &compare::Batch<'_>, at_least: u64) -> Ruling {
        let bar = self.bar("compare", plans.asked());
        let compared = compare::compare(plans, self.jobs, &Hooks::default(), &self.stop, &|_| bar.inc(1));
        bar.finish_and_clear();
        compared.pairs.iter().for_each(|pair| self.pair(pair));
        self.agreement(&compared);
        let count = compared.pairs.len() as u64;
        if self.stopped() {
            eprintln!("stopped; the lines above are what was found");
        } else if count < at_least {
            eprintln!("{count} pairs were compared; at least {at_least} are wanted");
        }
        let too_few = if count < at_least || self.stopped() { Ruling::Unknown } else { Ruling::Holds };
        compared.ruling().max(too_few)
    }

    /// What the engines say of one plan.
    fn pair(&self, comparison: &Comparison) {
        if self.json {
            return println!("{}", serde_json::to_string(&comparison.line()).unwrap_or_default());
        }
        println!("{comparison}");
        if comparison.contradictions().next().is_some() {
            eprintln!("  {}", comparison.reproduce());
            comparison
                .contradictions()
                .for_each(|difference| eprint!("{}", indented(&difference.to_string())));
        }
    }

    /// How many plans were compared, and what could not be.
    fn agreement(&self, compared: &Compared) {
        let (count, equal, one_sided) = (compared.pairs.len(), compared.equal(), compared.one_sided());
        if self.json {
            let line = serde_json::json!({
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

    /// Each scenario with the argument that names it, for the other process.
    pub(crate) fn determinism(
        &self,
        scenarios: &[(String, Scenario)],
        seeds: u64,
        plant: Option<Fault>,
        library: &Library,
    ) -> Result<Ruling> {
        let mut differing = 0;
        for (argument, scenario) in scenarios {
            for seed in 1..=seeds {
                let mode = determinism::mode_of(seed);
                let found = determinism::check((argument, scenario), seed, mode, plant, library.folder())?;
                differing += u64::from(!matches!(found, Found::Same(_)));
                self.compared(&scenario.name, seed, &found);
                if self.stopped() {
                    eprintln!("stopped; the lines above are what was found");
                    return Ok(Ruling::Unknown);
                }
            }
        }
        let wanted = if plant.is_some() { scenarios.len() as u64 * seeds } else { 0 };
        Ok(if differing == wanted { Ruling::Holds } else { Ruling::Violated })
    }

    /// As [`Desk::determinism`], with one other process for all seeds of a scenario. Of those that differ, the
    /// first are looked at one by one.
    pub(crate) fn batches(
        &self,
        scenarios: &[(String, Scenario)],
        seeds: u64,
        plant: Option<Fault>,
        library: &Library,
    ) -> Result<Ruling> {
        let mut differing = 0;
        for (argument, scenario) in scenarios {
            let (named, watch) = ((argument.as_str(), scenario), Stopwatch::start());
            let found =
                determinism::check_batch(named, seeds, (plant, library.folder()), self.jobs, &self.stop)?;
            differing += found.differing.len() as u64;
            self.batch_compared(&scenario.name, &found, watch);
            for seed in found.differing.iter().take(LOOKED_AT_MAX) {
                let mode = determinism::mode_of(*seed);
                let looked = determinism::check(named, *seed, mode, plant, library.folder())?;
                self.compared(&scenario.name, *seed, &looked);
            }
            if self.stopped() {
                eprintln!("stopped; the lines above are what was found");
                return Ok(Ruling::Unknown);
            }
        }
        let wanted = if plant.is_some() { scenarios.len() as u64 * seeds } else { 0 };
        Ok(if differing == wanted { Ruling::Holds } else { Ruling::Violated })
    }

    fn batch_compared(&self, scenario: &str, found: &determinism::Compared, watch: Stopwatch) {
        let (wall, seeds) = (watch.elapsed().as_secs_f64(), found.same + found.differing.len() as u64);
        if self.json {
            let line = serde_json::json!({
                "scenario": scenario, "seeds": seeds, "processes": 2, "differing": found.differing.len(),
                "same": found.differing.is_empty(), "hash": found.hash, "wall_s": wall,
            });
            return println!("{line}");
        }
        let verdict = if found.differing.is_empty() { "same" } else { "differs" };
        println!(
            "{verdict:<8}{scenario:<26} {seeds:>6} seeds in two processes, {} differ, {wall:>7.2} s wall  {}",
            found.differing.len(),
            &found.hash[..16]
        );
    }

    fn compared(&self, scenario: &str, seed: u64, found: &Found) {
        let (processes, difference) = match found {
            Found::Same(hash) if self.json => {
                let line =
                    serde_json::json!({"scenario": scenario, "seed": seed, "same": true, "hash": hash});
                return println!("{line}");
            }
            Found::Same(hash) => return println!("same    {scenario:<26} seed {seed:<6} {}", &hash[..16]),
            Found::DiffersHere(difference) => ("one process", difference),
            Found::DiffersThere(difference) => ("two processes", difference),
        };
        let difference = difference.to_string();
        if self.json {
            let line = serde_json::json!({"scenario": scenario, "seed": seed, "same": false, "in": processes, "difference": difference});
            return println!("{line}");
        }
        println!("differs {scenario:<26} seed {seed:<6} in {processes}\n{}", indented(&difference));
    }

    /// Whether Ctrl-C was pressed, for whoever looks now and then.
    pub(crate) fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The verdict first, in colour where there is one (`anstream` drops it elsewhere).
fn verdict(ruling: Ruling) -> String {
    use anstyle::{AnsiColor, Style};
    let colour = match ruling {
        Ruling::Holds => AnsiColor::Green,
        Ruling::Unknown => AnsiColor::Yellow,
        Ruling::Violated => AnsiColor::Red,
    };
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{ruling:<8}{style:#}")
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
