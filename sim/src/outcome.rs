//! What became of one run: the history judged, and what a line about it says.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use fusion_history::{History, Ruling, Verdict, judge_all, ruling_of};
use serde::Serialize;

use crate::engines::fabric::{self, Options, Run};
use crate::fabric::{FaultCount, SPINS};
use crate::plan::{Mode, Plan};
use crate::show;
use crate::stopwatch::Stopwatch;
use crate::unrest::{self, Unsent};

/// One run, judged.
#[derive(Debug)]
pub struct Outcome {
    /// The scenario.
    pub scenario: String,
    /// The engine.
    pub engine: &'static str,
    /// The seed.
    pub seed: u64,
    /// Whether a swarm of faults was in it.
    pub mode: Mode,
    /// The ruling of all judges together; a play that failed is violated.
    pub ruling: Ruling,
    /// Each judge's verdict.
    pub verdicts: Vec<Verdict>,
    /// Why the play could not be played to its end.
    pub failure: Option<String>,
    /// What waits in outboxes at the end, where the engine can look into them.
    pub unsent: Vec<Unsent>,
    /// How many events were observed.
    pub events: u64,
    /// How long it lasted in the world.
    pub simulated: Duration,
    /// How long it took here, judging included.
    pub wall: Duration,
    /// The hash of the history.
    pub hash: String,
    /// How often each fault family was chosen and made a difference.
    pub faults: BTreeMap<&'static str, FaultCount>,
    /// Everything observed.
    pub history: History,
    /// What was played.
    pub plan: Plan,
}

/// What machines read about a run (one JSON object a line).
#[derive(Clone, Debug, Serialize)]
pub struct Line<'a> {
    scenario: &'a str,
    engine: &'a str,
    seed: u64,
    swarm: bool,
    verdict: String,
    events: u64,
    simulated_s: f64,
    wall_s: f64,
    hash: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    violations: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a str>,
    /// The command that plays it again, where it is not as it must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    reproduce: Option<String>,
}

/// Plays a plan on fabric and judges it.
#[must_use]
pub fn judged(plan: &Plan, options: &Options) -> Outcome {
    Outcome::guarded(plan, "fabric", || fabric::run(plan, options))
}

impl Outcome {
    /// What became of `play`. Whatever panics in one world must not take the others of a batch with it.
    pub(crate) fn guarded(plan: &Plan, engine: &'static str, play: impl FnOnce() -> Run) -> Self {
        let watch = Stopwatch::start();
        let run = catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
            Run::failed(format!("the simulator itself panicked: {said}"))
        });
        Self::of(plan, engine, run, watch)
    }

    /// A run that was not played, and why.
    #[cfg(not(madsim))]
    pub(crate) fn unplayed(plan: &Plan, engine: &'static str, why: String) -> Self {
        Self::guarded(plan, engine, || Run::failed(why))
    }

    pub(crate) fn of(plan: &Plan, engine: &'static str, run: Run, watch: Stopwatch) -> Self {
        let verdicts = judge_all(&run.history);
        let ruling = if run.failure.is_some() { Ruling::Violated } else { ruling_of(&verdicts) };
        let hash = run.history.hash();
        Self {
            scenario: plan.scenario.clone(),
            engine,
            seed: plan.seed,
            mode: plan.mode,
            ruling,
            verdicts,
            failure: run.failure,
            unsent: run.unsent,
            events: run.history.len() as u64,
            simulated: Duration::from_micros(run.simulated_us),
            wall: watch.elapsed(),
            hash,
            faults: run.faults,
            history: run.history,
            plan: plan.clone(),
        }
    }

    /// The run, to look at.
    #[must_use]
    pub fn run(&self) -> show::Run<'_> {
        show::Run {
            scenario: &self.scenario,
            seed: self.seed,
            ruling: self.ruling,
            failure: self.failure.as_deref(),
            history: &self.history,
            verdicts: &self.verdicts,
            said: &[],
        }
    }

    /// What machines read about it.
    #[must_use]
    pub fn line(&self) -> Line<'_> {
        let violations = self.verdicts.iter().flat_map(|verdict| &verdict.violations);
        Line {
            scenario: &self.scenario,
            engine: self.engine,
            seed: self.seed,
            swarm: self.mode == Mode::Swarm,
            verdict: self.ruling.to_string(),
            events: self.events,
            simulated_s: self.simulated.as_secs_f64(),
            wall_s: self.wall.as_secs_f64(),
            hash: &self.hash,
            violations: violations.map(|violation| violation.fingerprint.as_str()).collect(),
            failure: self.failure.as_deref(),
            reproduce: (self.ruling != Ruling::Holds).then(|| self.reproduce()),
        }
    }

    /// The command that plays this run again.
    #[must_use]
    pub fn reproduce(&self) -> String {
        let swarm = if self.mode == Mode::Swarm { " --swarm" } else { "" };
        let plant = self.plan.planted.iter().map(|name| format!(" --plant {name}")).collect::<String>();
        let file = self.plan.file.as_ref().map(|file| quoted(&file.display().to_string()));
        let scenario = file.unwrap_or_else(|| self.scenario.clone());
        let engine = match self.engine {
            "fabric" => String::new(),
            // A program of its own.
            "madsim" => {
                return format!("cargo xtask sim madsim {scenario} --seed {}{swarm}{plant}", self.seed);
            }
            engine => format!(" --engine {engine}"),
        };
        format!("cargo xtask sim run {scenario} --seed {}{swarm}{plant}{engine}", self.seed)
    }

    /// What kind of failure it is: equal for equal bugs whatever the seed, as the fingerprint of a violation.
    #[must_use]
    pub fn failure_kind(&self) -> Option<&'static str> {
        let failure = self.failure.as_deref()?;
        Some(match failure {
            spins if spins.starts_with(SPINS) => "spins",
            panicked if panicked.contains("panicked") => "panics",
            _ => "fails",
        })
    }

    /// Everything that is wrong, for humans.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut text = String::new();
        if let Some(failure) = &self.failure {
            text.push_str(&format!("the run failed: {failure}\n"));
        }
        for violation in self.verdicts.iter().flat_map(|verdict| &verdict.violations) {
            text.push_str(&violation.render(&self.history));
        }
        for verdict in self.verdicts.iter().filter(|verdict| verdict.ruling == Ruling::Unknown) {
            if let (false, Some(why)) = (verdict.had_no_case(), &verdict.why_unknown) {
                text.push_str(&format!("{} is unknown: {why}\n", verdict.requirements.join(", ")));
            }
        }
        if self.ruling != Ruling::Holds {
            text.push_str(&unrest::explain(&self.history, &self.unsent));
        }
        text
    }
}

/// As a shell takes it for one word.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::fabric::hosts;
    use crate::generate::Generated;

    fn reproduced(plan: &Plan) -> String {
        Outcome::guarded(plan, "fabric", || Run::failed("nobody plays it".to_owned())).reproduce()
    }

    #[test]
    fn a_generated_run_is_played_again_by_its_name() {
        let scenario = Generated::new(7).scenario();
        let plan = Plan::new(&scenario, &hosts(&scenario.topology).unwrap(), 7, Mode::Swarm);
        assert_eq!(reproduced(&plan), "cargo xtask sim run generated-7 --seed 7 --swarm");
        let planted = Plan { planted: Some("a-bug".to_owned()), ..plan };
        let line = "cargo xtask sim run generated-7 --seed 7 --swarm --plant a-bug";
        assert_eq!(reproduced(&planted), line);
    }
}
