//! Generated scenarios: a seed makes a federation and what its people do.
//!
//! What comes out is a [`Scenario`] like one from a file: plans, engines, judges, bundles and shrinking know no
//! difference, and `sim scenario` prints it as the file that it could be. Each piece draws from a stream of its
//! own and has an id of its own, so that one episode more leaves the others as they were.
//!
//! Not here: faults. A swarm adds them, as to every scenario.

mod calls;
mod chats;
mod dice;
mod errands;
mod people;
mod script;
mod topology;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fusion_runtime::Entropy;
use serde::{Deserialize, Serialize};

use crate::scenario::{FAMILIES, Scenario, Swarm};
use dice::Dice;
use script::Script;

/// The most clusters of a generated federation.
pub const CLUSTERS_MAX: u32 = 30;

/// What the name of every generated scenario begins with.
pub(crate) const PREFIX: &str = "generated-";
/// How many steps a scenario has before no further episode begins.
const STEPS_ENOUGH: usize = 90;
/// How long clusters remember where they have found somebody (MAP-001), and some seconds: after a move or a
/// new account it takes so long until all agree.
const SETTLE_AFTER_MOVES: Duration = Duration::from_secs(330);
/// Longer than the longest back-off, a lease and a ring together.
const SETTLE: Duration = Duration::from_secs(150);

/// A generated scenario's name: `generated-7`, or `generated-7-of-4` with at most four clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generated {
    /// What everything in it is drawn from.
    pub seed: u64,
    /// The most clusters that it may have, 1 to [`CLUSTERS_MAX`].
    pub clusters_max: u32,
}

impl Generated {
    /// The scenario that `seed` makes, with as many clusters as there can be.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, clusters_max: CLUSTERS_MAX }
    }

    /// The scenario.
    #[must_use]
    pub fn scenario(self) -> Scenario {
        let dice = Dice::new(Entropy::from_u64(self.seed).stream("generated"));
        let act = Duration::from_secs(dice.stream("act").between(8, 25));
        let world = topology::draw(&dice.stream("topology"), self.clusters_max.clamp(1, CLUSTERS_MAX));
        let mut script = Script::new(world, act);
        script.episodes(&dice.stream("episodes"));
        let settle = if script.moves_people { SETTLE_AFTER_MOVES } else { SETTLE };
        let (topology, steps) = script.end();
        Scenario {
            name: self.to_string(),
            file: None,
            title: format!(
                "Generated from seed {}: {} clusters, {} people, {} steps",
                self.seed,
                topology.clusters().count(),
                topology.users.len(),
                steps.len(),
            ),
            requirements: Vec::new(),
            topology,
            steps,
            faults: Vec::new(),
            swarm: Swarm { families: FAMILIES.map(str::to_owned).to_vec() },
            act,
            settle,
        }
    }
}

impl fmt::Display for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.clusters_max {
            CLUSTERS_MAX => write!(f, "{PREFIX}{}", self.seed),
            fewer => write!(f, "{PREFIX}{}-of-{fewer}", self.seed),
        }
    }
}

/// A name that is none of a generated scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a generated scenario is called {PREFIX}SEED or {PREFIX}SEED-of-CLUSTERS, with 1 to {CLUSTERS_MAX}")]
pub struct NotGenerated;

impl FromStr for Generated {
    type Err = NotGenerated;

    fn from_str(name: &str) -> Result<Self, NotGenerated> {
        let numbers = name.strip_prefix(PREFIX).ok_or(NotGenerated)?;
        let (seed, clusters) = match numbers.split_once("-of-") {
            Some((seed, clusters)) => (seed, clusters.parse().map_err(|_| NotGenerated)?),
            None => (numbers, CLUSTERS_MAX),
        };
        let seed = seed.parse().map_err(|_| NotGenerated)?;
        match clusters {
            1..=CLUSTERS_MAX => Ok(Self { seed, clusters_max: clusters }),
            _ => Err(NotGenerated),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::engines::fabric::hosts;
    use crate::plan::{Mode, Plan};
    use crate::scenario::Start;

    fn scenarios(count: u64) -> impl Iterator<Item = Scenario> {
        (1..=count).map(|seed| Generated::new(seed).scenario())
    }

    #[test]
    fn a_name_is_read_as_it_was_written() {
        for name in ["generated-7", "generated-7-of-4", "generated-0-of-1"] {
            assert_eq!(name.parse::<Generated>().unwrap().to_string(), name);
        }
        for wrong in ["generated-", "generated-x", "generated-1-of-31", "generated-1-of-0", "one-to-one-race"]
        {
            assert_eq!(wrong.parse::<Generated>(), Err(NotGenerated), "{wrong}");
        }
    }

    #[test]
    fn a_seed_makes_one_scenario_and_another_seed_another() {
        let printed = |seed| Generated::new(seed).scenario().to_toml();
        assert_eq!(printed(3), printed(3));
        assert_ne!(printed(3), printed(4));
    }

    /// A file has to pass more checks than types can make.
    #[test]
    fn what_is_generated_is_what_a_file_could_say() {
        for scenario in scenarios(400) {
            let text = scenario.to_toml();
            let read = Scenario::parse(Path::new(&format!("{}.toml", scenario.name)), &text);
            let read = read.unwrap_or_else(|mistake| panic!("{mistake}\n{text}"));
            let as_json = |scenario: &Scenario| serde_json::to_string_pretty(scenario).unwrap();
            assert_eq!(as_json(&read), as_json(&scenario));
        }
    }

    #[test]
    fn most_worlds_are_small_and_some_are_large() {
        let mut sizes: Vec<usize> = scenarios(400).map(|one| one.topology.clusters().count()).collect();
        sizes.sort_unstable();
        let small = sizes.iter().filter(|size| (2..=5).contains(*size)).count();
        assert!(small > 200, "{small} of 400 have two to five clusters");
        assert!(sizes[0] == 1 && sizes[399] > 20 && sizes[399] <= 30, "{} to {}", sizes[0], sizes[399]);
        let small = (1..=100).map(|seed| Generated { seed, clusters_max: 3 }.scenario());
        assert!(small.into_iter().all(|one| one.topology.clusters().count() <= 3));
    }

    /// The grammar can say everything that a scenario can.
    #[test]
    fn everything_that_people_can_do_is_done() {
        let done: BTreeSet<String> = scenarios(400)
            .flat_map(|scenario| scenario.steps)
            .filter_map(|step| Some(serde_json::to_value(&step.act).ok()?.get("do")?.as_str()?.to_owned()))
            .collect();
        let all = crate::scenario::verbs().filter(|verb| *verb != "create_group");
        assert_eq!(done, all.map(str::to_owned).collect());
    }

    #[test]
    fn nobody_waits_for_a_step_that_comes_later() {
        for scenario in scenarios(200) {
            let mut known = BTreeSet::new();
            for step in &scenario.steps {
                if let Start::After { steps, .. } = &step.start {
                    assert!(!steps.is_empty() && steps.iter().all(|id| known.contains(id)), "{}", step.id);
                }
                assert!(known.insert(step.id.clone()), "{} twice", step.id);
            }
        }
    }

    #[test]
    fn a_swarm_is_drawn_from_the_same_seed() {
        let scenario = Generated::new(5).scenario();
        let plan = || Plan::new(&scenario, &hosts(&scenario.topology).unwrap(), 5, Mode::Swarm);
        let json = |plan: &Plan| serde_json::to_string(plan).unwrap();
        assert_eq!(json(&plan()), json(&plan()));
        assert_eq!(plan().scenario, "generated-5");
    }
}
