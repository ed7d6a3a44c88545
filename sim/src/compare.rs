//! The same plan on several engines: what the judges say of each run, and where they differ.
//!
//! Runs on two engines are not the same run: packets take other times, so that a case may arise on one and not
//! on the other. That is told and is no difference. A difference is a requirement that is violated, or cannot
//! be judged, on one engine only: a bug of the one network, of the other, or of ours.
//!
//! What is compared is [`Said`], which any program can write and read: an engine need not be in this one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use fusion_deployment::Hooks;
use fusion_history::{Ruling, Verdict};
use serde::{Deserialize, Serialize};

use crate::engines::fabric::{Options, hosts};
use crate::engines::{live, turmoil};
use crate::outcome::{self, Outcome};
use crate::plan::{Mode, Plan};
use crate::scenario::Scenario;
use crate::workers::side_by_side;

/// An engine of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    /// Our simulated network.
    Fabric,
    /// Somebody else's simulated network.
    Turmoil,
    /// Real sockets.
    Live,
}

/// What the judges say of a run on one engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The engine.
    pub engine: String,
    /// Why the play could not be played to its end.
    pub failure: Option<String>,
    /// By judge.
    pub rulings: BTreeMap<String, Ruled>,
}

/// What one judge says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruled {
    /// What it judges by.
    pub requirements: Vec<String>,
    /// Its ruling.
    pub ruling: Ruling,
    /// How many cases it had.
    pub reached: u64,
    /// Whether nothing happened that it judges.
    pub no_case: bool,
    /// The first violation, or why it is unknown.
    pub why: Option<String>,
}

/// How two runs of one plan differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The judge; none when one of the plays could not be played to its end.
    pub judge: Option<String>,
    /// The requirements that it judges by.
    pub requirements: Vec<String>,
    /// What each engine says, the first one first.
    pub said: [(String, String); 2],
    /// Whether one of them had no case, and the other holds: chance, not a contradiction.
    pub one_sided: bool,
}

/// What playing one plan on several engines shows.
#[derive(Debug)]
pub struct Comparison {
    /// The plan's scenario.
    pub scenario: String,
    /// The plan's seed.
    pub seed: u64,
    /// Whether a swarm of faults was in it.
    pub mode: Mode,
    /// The runs, in the order of the engines.
    pub outcomes: Vec<Outcome>,
    /// What an engine cannot express, by engine.
    pub refused: Vec<(Engine, String)>,
    /// Each later run against the first.
    pub differences: Vec<Difference>,
}

/// Which plans are compared: each scenario as it is written, then each with a swarm of common faults.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The scenarios.
    pub scenarios: &'a [Scenario],
    /// How many swarm seeds of each, from `first` on.
    pub seeds: u64,
    /// The first of them.
    pub first: u64,
    /// Whether the story is played, too.
    pub story: bool,
    /// How many plans at most, of those that both engines can express.
    pub at_most: usize,
}

/// What comparing a batch shows.
#[derive(Debug, Default)]
pub struct Compared {
    /// The plans that both engines played, in order.
    pub pairs: Vec<Comparison>,
    /// What turmoil cannot express, by scenario.
    pub refused: BTreeMap<String, String>,
}

/// A scenario whose swarms draw only faults that every simulated engine can express.
#[must_use]
pub fn common(scenario: &Scenario) -> Scenario {
    let mut scenario = scenario.clone();
    scenario.swarm.families.retain(|family| turmoil::FAMILIES.contains(&family.as_str()));
    scenario
}

impl Engine {
    /// Its name in histories and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fabric => "fabric",
            Self::Turmoil => "turmoil",
            Self::Live => "live",
        }
    }

    /// Why the engine cannot play `plan`; nothing when it can.
    #[must_use]
    pub fn refusal(self, plan: &Plan) -> Option<String> {
        match self {
            Self::Fabric => None,
            Self::Turmoil => turmoil::refusal(plan),
            Self::Live => live::refusal(plan),
        }
    }

    /// As [`Engine::judged`]; a run that cannot be is one that failed.
    #[must_use]
    pub fn judged_or_failed(self, plan: &Plan, hooks: &Hooks) -> Outcome {
        let judged = self.judged(plan, hooks);
        judged.unwrap_or_else(|why| Outcome::unplayed(plan, self.name(), why.to_string()))
    }

    /// Plays `plan` here and judges it. `hooks` are what a faulty deployment does differently; over real
    /// sockets there are none.
    ///
    /// # Errors
    /// When the engine cannot express the plan, by the name of what it cannot.
    pub fn judged(self, plan: &Plan, hooks: &Hooks) -> Result<Outcome> {
        match self {
            Self::Fabric => Ok(outcome::judged(plan, &Options { hooks: hooks.clone(), wire: false })),
            Self::Turmoil => turmoil::judged(plan, hooks),
            Self::Live => live::judged(plan),
        }
    }
}

impl Said {
    /// What the judges said of a run.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        let rulings = outcome.verdicts.iter().map(|verdict| (verdict.judge.clone(), Ruled::of(verdict)));
        Self {
            engine: outcome.engine.to_owned(),
            failure: outcome.failure.clone(),
            rulings: rulings.collect(),
        }
    }

    /// Where this run and `other`, of the same plan, differ.
    #[must_use]
    pub fn against(&self, other: &Self) -> Vec<Difference> {
        let said = |here: String, there: String| [(self.engine.clone(), here), (other.engine.clone(), there)];
        if self.failure.is_some() || other.failure.is_some() {
            if self.failure.is_some() && other.failure.is_some() {
                return Vec::new();
            }
            let played = |failure: &Option<String>| match failure {
                Some(why) => format!("the run failed: {why}"),
                None => "played to its end".to_owned(),
            };
            let said = said(played(&self.failure), played(&other.failure));
            return vec![Difference { judge: None, requirements: Vec::new(), said, one_sided: false }];
        }
        let pairs =
            self.rulings.iter().filter_map(|(judge, here)| Some((judge, here, other.rulings.get(judge)?)));
        let differing = pairs.filter(|(_, here, there)| here.kind() != there.kind());
        let difference = |(judge, here, there): (&String, &Ruled, &Ruled)| Difference {
            judge: Some(judge.clone()),
            requirements: here.requirements.clone(),
            said: said(here.to_string(), there.to_string()),
            one_sided: here.only_lacks_a_case(there) || there.only_lacks_a_case(here),
        };
        differing.map(difference).collect()
    }
}

impl Ruled {
    fn of(verdict: &Verdict) -> Self {
        let violation = verdict.violations.first().map(|violation| violation.statement.clone());
        Self {
            requirements: verdict.requirements.clone(),
            ruling: verdict.ruling,
            reached: verdict.reached,
            no_case: verdict.had_no_case(),
            why: violation.or_else(|| verdict.why_unknown.as_ref().map(ToString::to_string)),
        }
    }

    fn kind(&self) -> (Ruling, bool) {
        (self.ruling, self.no_case)
    }

    fn only_lacks_a_case(&self, other: &Self) -> bool {
        self.no_case && other.ruling == Ruling::Holds
    }
}

impl fmt::Display for Ruled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.why, self.ruling) {
            (_, Ruling::Holds) | (None, _) => write!(f, "{} in {} cases", self.ruling, self.reached),
            (Some(why), _) => write!(f, "{} in {} cases: {why}", self.ruling, self.reached),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.judge {
            Some(judge) => writeln!(f, "{judge} ({})", self.requirements.join(", "))?,
            None => writeln!(f, "the play itself")?,
        }
        let [(here, this), (there, that)] = &self.said;
        writeln!(f, "  on {here}: {this}")?;
        writeln!(f, "  on {there}: {that}")
    }
}

impl Comparison {
    /// Plays `plan` on each of `engines` that can express it.
    #[must_use]
    pub fn of(plan: &Plan, engines: &[Engine], hooks: &Hooks) -> Self {
        let (mut outcomes, mut refused) = (Vec::new(), Vec::new());
        for engine in engines {
            match engine.judged(plan, hooks) {
                Ok(outcome) => outcomes.push(outcome),
                Err(why) => refused.push((*engine, why.to_string())),
            }
        }
        let said: Vec<Said> = outcomes.iter().map(Said::of).collect();
        let differences = said.split_first().map_or(Vec::new(), |(first, later)| {
            later.iter().flat_map(|other| first.against(other)).collect()
        });
        let Plan { scenario, seed, mode, .. } = plan;
        Self { scenario: scenario.clone(), seed: *seed, mode: *mode, outcomes, refused, differences }
    }

    /// Whether at least two engines played the plan, so that there is something to compare.
    #[must_use]
    pub fn is_compared(&self) -> bool {
        self.outcomes.len() > 1
    }

    /// The differences that are a bug of somebody's.
    pub fn contradictions(&self) -> impl Iterator<Item = &Difference> {
        self.differences.iter().filter(|difference| !difference.one_sided)
    }

    /// The requirements that had a case on one engine only.
    #[must_use]
    pub fn one_sided(&self) -> Vec<&str> {
        let differences = self.differences.iter().filter(|difference| difference.one_sided);
        let mut requirements: Vec<_> =
            differences.flat_map(|difference| &difference.requirements).map(String::as_str).collect();
        requirements.sort_unstable();
        requirements.dedup();
        requirements
    }

    /// Violated where engines contradict each other or a run is violated; unknown where there was nothing to
    /// compare.
    #[must_use]
    pub fn ruling(&self) -> Ruling {
        let worst = self.outcomes.iter().map(|outcome| outcome.ruling).max().unwrap_or(Ruling::Unknown);
        match (self.contradictions().next(), self.is_compared()) {
            (Some(_), _) => Ruling::Violated,
            (None, true) => worst,
            (None, false) => worst.max(Ruling::Unknown),
        }
    }

    /// What machines read about it.
    #[must_use]
    pub fn line(&self) -> serde_json::Value {
        let engines = self.outcomes.iter().map(|outcome| outcome.engine);
        let verdicts = self.outcomes.iter().map(|outcome| outcome.ruling.to_string());
        serde_json::json!({
            "scenario": self.scenario, "seed": self.seed, "swarm": self.mode == Mode::Swarm,
            "engines": engines.collect::<Vec<_>>(), "verdicts": verdicts.collect::<Vec<_>>(),
            "equal": self.is_compared() && self.contradictions().next().is_none(),
            "cases_on_one_only": self.one_sided(),
            "differences": self.contradictions().map(ToString::to_string).collect::<Vec<_>>(),
            "refused": self.refused.iter().map(|(_, why)| why).collect::<Vec<_>>(),
        })
    }

    /// The command that plays it again.
    #[must_use]
    pub fn reproduce(&self) -> String {
        let swarm = if self.mode == Mode::Swarm { " --swarm" } else { "" };
        format!("cargo xtask sim run {} --seed {}{swarm} --engine all", self.scenario, self.seed)
    }
}

impl fmt::Display for Comparison {
    /// In one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (self.is_compared(), self.contradictions().next()) {
            (false, _) => "alone",
            (true, None) => "equal",
            (true, Some(_)) => "differs",
        };
        let plan = match self.mode {
            Mode::Story => "the story".to_owned(),
            Mode::Swarm => format!("seed {}", self.seed),
        };
        write!(f, "{word:<8} {:<32} {plan:<10}", self.scenario)?;
        for outcome in &self.outcomes {
            write!(f, " {} {},", outcome.engine, outcome.ruling)?;
        }
        let one_sided = self.one_sided();
        match one_sided.is_empty() {
            true => write!(f, " the same cases"),
            false => write!(f, " cases on one only: {}", one_sided.join(", ")),
        }
    }
}

/// Plays the plans of `batch` on fabric and on turmoil, `jobs` at a time. `progress` is called after each, in
/// whatever order they end; `stop` ends the batch early.
pub fn compare(
    batch: &Batch<'_>,
    jobs: usize,
    hooks: &Hooks,
    stop: &AtomicBool,
    progress: &(dyn Fn(&Comparison) + Sync),
) -> Compared {
    let (plans, refused) = batch.plans();
    let pairs = side_by_side(&plans, jobs, stop, &|plan| {
        let pair = Comparison::of(plan, &[Engine::Fabric, Engine::Turmoil], hooks);
        progress(&pair);
        pair
    });
    Compared { pairs: pairs.into_iter().map(|(_, pair)| pair).collect(), refused }
}

impl Compared {
    /// How many pairs are equal.
    #[must_use]
    pub fn equal(&self) -> usize {
        self.pairs.iter().filter(|pair| pair.contradictions().next().is_none()).count()
    }

    /// How many pairs had cases on one engine only.
    #[must_use]
    pub fn one_sided(&self) -> usize {
        self.pairs.iter().filter(|pair| !pair.one_sided().is_empty()).count()
    }

    /// The worst of all pairs; unknown when there is none.
    #[must_use]
    pub fn ruling(&self) -> Ruling {
        self.pairs.iter().map(Comparison::ruling).max().unwrap_or(Ruling::Unknown)
    }
}

impl Batch<'_> {
    /// How many plans there are, of which some may be refused.
    #[must_use]
    pub fn asked(&self) -> u64 {
        let seeds = self.seeds + u64::from(self.story);
        (self.scenarios.len() as u64 * seeds).min(self.at_most as u64)
    }

    /// The story of each scenario first, then each with the first swarm seed, and so on; and what is refused.
    fn plans(&self) -> (Vec<Plan>, BTreeMap<String, String>) {
        let mut refused = BTreeMap::new();
        let mut scenarios = Vec::new();
        for scenario in self.scenarios.iter().map(common) {
            let hosts = hosts(&scenario.topology).unwrap_or_default();
            // A swarm draws nothing that could be refused besides.
            match turmoil::refusal(&Plan::new(&scenario, &hosts, 1, Mode::Story)) {
                Some(why) => drop(refused.insert(scenario.name.clone(), why)),
                None => scenarios.push((scenario, hosts)),
            }
        }
        let story = self.story.then_some((1, Mode::Story));
        let swarm = (self.first..self.first.saturating_add(self.seeds)).map(|seed| (seed, Mode::Swarm));
        let plans = story.into_iter().chain(swarm).flat_map(|(seed, mode)| {
            scenarios.iter().map(move |(scenario, hosts)| Plan::new(scenario, hosts, seed, mode))
        });
        (plans.take(self.at_most).collect(), refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(engine: &str, ruling: Ruling, no_case: bool) -> Said {
        let ruled = Ruled {
            requirements: vec!["RDV-001".to_owned()],
            ruling,
            reached: u64::from(!no_case),
            no_case,
            why: Some("why".to_owned()),
        };
        Said { engine: engine.to_owned(), failure: None, rulings: [("pairs".to_owned(), ruled)].into() }
    }

    fn between(here: (Ruling, bool), there: (Ruling, bool)) -> Vec<bool> {
        let differences = said("fabric", here.0, here.1).against(&said("turmoil", there.0, there.1));
        differences.iter().map(|difference| difference.one_sided).collect()
    }

    #[test]
    fn engines_that_say_the_same_do_not_differ() {
        for said in [(Ruling::Holds, false), (Ruling::Violated, false), (Ruling::Unknown, true)] {
            assert!(between(said, said).is_empty(), "{said:?}");
        }
    }

    #[test]
    fn a_case_on_one_engine_only_is_chance_and_told() {
        assert_eq!(between((Ruling::Holds, false), (Ruling::Unknown, true)), [true]);
    }

    #[test]
    fn a_violation_on_one_engine_only_is_a_contradiction_whatever_the_other_says() {
        for other in [(Ruling::Holds, false), (Ruling::Unknown, true), (Ruling::Unknown, false)] {
            assert_eq!(between(other, (Ruling::Violated, false)), [false], "{other:?}");
        }
        assert_eq!(between((Ruling::Holds, false), (Ruling::Unknown, false)), [false]);
    }

    #[test]
    fn a_difference_names_judge_engines_and_the_first_violation() {
        let differences =
            said("fabric", Ruling::Holds, false).against(&said("turmoil", Ruling::Violated, false));
        let told = differences[0].to_string();
        assert_eq!(
            told,
            "pairs (RDV-001)\n  on fabric: holds in 1 cases\n  on turmoil: violated in 1 cases: why\n"
        );
    }

    #[test]
    fn a_play_that_fails_on_one_engine_is_a_contradiction() {
        let (good, mut bad) = (said("fabric", Ruling::Holds, false), said("turmoil", Ruling::Holds, false));
        bad.failure = Some("it panicked".to_owned());
        let differences = good.against(&bad);
        assert_eq!((differences.len(), differences[0].one_sided), (1, false));
        assert!(differences[0].to_string().contains("on turmoil: the run failed: it panicked"));
    }
}
