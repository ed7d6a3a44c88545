//! How results are put before people and machines, and what counts as a good one.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::aftermath;
use crate::compare::Engine;

use crate::explore::{Batch, Summary, explore_on};
use crate::fabric::FaultCount;
use crate::outcome::Outcome;
use crate::plan::{Mode, Plan};
use crate::plant::Plants;
use crate::progress;
use crate::scenario::{FAMILIES, Scenario};
use crate::shard::Shard;
use crate::workers::stopped_by_ctrl_c;
use anstream::{eprint, eprintln, print, println};
use anyhow::Result;
use fusion_deployment::Hooks;
use fusion_history::Ruling;
use indicatif::{ProgressBar, ProgressStyle};

/// In how many seeds of the whole batch each fault family must have made a difference.
const EFFECTIVE_SEEDS_MIN: u64 = 5;

/// Where results are put before people or machines.
pub(crate) struct Desk {
    pub(super) json: bool,
    pub(super) jobs: usize,
    pub(super) stop: Arc<AtomicBool>,
    /// Where bundles of failed runs go.
    pub(super) bundles: PathBuf,
    pub(super) plants: Plants,
}

impl Desk {
    /// The desk of a command line; Ctrl-C is handled from here on.
    pub(crate) fn new(json: bool, jobs: Option<NonZeroUsize>, bundles: PathBuf, plants: Plants) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (stop, jobs) = (stopped_by_ctrl_c(), jobs.map_or(cores, NonZeroUsize::get));
        Self { json, jobs, stop, bundles, plants }
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
            if self.ends_early() {
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

    /// Unknown, when a requirement that the scenario is about never had a case.
    pub(super) fn empty_victory(&self, summary: &Summary, scenario: &Scenario) -> Ruling {
        let never = summary.never_reached(scenario);
        if never.is_empty() || self.stopped() {
            return Ruling::Holds;
        }
        eprintln!("{}: no run had a case of {}", scenario.name, never.join(", "));
        Ruling::Unknown
    }

    pub(crate) fn batch(&self, scenario: &Scenario, first: u64, seeds: u64, mode: Mode) -> Summary {
        let batch = self.seeds(first, seeds, mode, None);
        self.batch_on(Engine::Fabric, scenario, &batch, &Hooks::default(), &|_| {})
    }

    /// Seeds from `first` on, as many runs at a time as were asked for.
    pub(crate) fn seeds(&self, first: u64, seeds: u64, mode: Mode, planted: Option<String>) -> Batch {
        Batch { first, seeds, shard: Shard::WHOLE, mode, jobs: self.jobs, planted }
    }

    pub(super) fn batch_on(
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

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether Ctrl-C was pressed; then it is said that what was told before counts.
    pub(super) fn ends_early(&self) -> bool {
        if self.stopped() {
            eprintln!("stopped; the lines above are what was found");
        }
        self.stopped()
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

pub(super) fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
