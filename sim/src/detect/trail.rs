//! In which order plans are played in search of a bug. It is the same for every bug of a requirement: an
//! order made for one bug would measure nothing.

use fusion_deployment::HostSpec;

use crate::engines::fabric::hosts;
use crate::plan::{Mode, Plan};
use crate::scenario::Scenario;

/// A scenario, with what its plans are made of.
#[derive(Debug)]
pub struct Ground {
    scenario: Scenario,
    hosts: Vec<HostSpec>,
    /// What a plan of it is taken to cost, in events.
    pub(super) cost: u64,
}

impl Ground {
    pub(super) fn new(scenario: Scenario) -> Self {
        let hosts = hosts(&scenario.topology).unwrap_or_default();
        Self { scenario, hosts, cost: 0 }
    }

    /// The story, and from 1 on swarms.
    pub(super) fn plan(&self, seed: u64) -> Plan {
        let mode = if seed == 0 { Mode::Story } else { Mode::Swarm };
        Plan::new(&self.scenario, &self.hosts, seed, mode)
    }

    fn names(&self, requirement: &str) -> bool {
        self.scenario.requirements.iter().any(|id| id == requirement)
    }
}

/// Without end, where there is a scenario: the stories of the scenarios that name `requirement`, then in turn
/// one more plan of theirs (their next swarm seed) and one of the other scenarios (stories, then swarms).
/// Among each, the scenario whose story has the fewest events comes first.
pub(super) fn plans<'g>(
    grounds: &'g [Ground],
    requirement: Option<&str>,
) -> impl Iterator<Item = Plan> + use<'g> {
    let mut sorted: Vec<&Ground> = grounds.iter().collect();
    sorted.sort_by_key(|ground| ground.cost);
    let (near, far): (Vec<_>, Vec<_>) =
        sorted.into_iter().partition(|ground| requirement.is_some_and(|id| ground.names(id)));
    let mut first = near.len();
    let (mut near, mut far) = (rounds(near), rounds(far));
    let mut nears_turn = false;
    std::iter::from_fn(move || {
        if first > 0 {
            first -= 1;
            return near.next();
        }
        nears_turn = !nears_turn;
        if nears_turn { near.next().or_else(|| far.next()) } else { far.next().or_else(|| near.next()) }
    })
}

/// The story of each, then the first swarm of each, and so on.
fn rounds(grounds: Vec<&Ground>) -> impl Iterator<Item = Plan> + use<'_> {
    let seeds = if grounds.is_empty() { 0 } else { u64::MAX };
    (0..seeds).flat_map(move |seed| {
        grounds.clone().into_iter().map(move |ground| ground.plan(seed)).collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn ground(name: &str, requirement: &str, cost: u64) -> Ground {
        let text = format!(
            "title = \"t\"\nrequirements = [\"{requirement}\"]\n[[topology.orgs]]\nname = \"acme\"\n\
             domains = [\"acme.example\"]\nclusters = [{{ name = \"a\" }}]\n"
        );
        let scenario = Scenario::parse(Path::new(&format!("{name}.toml")), &text).expect("a constant");
        Ground { cost, ..Ground::new(scenario) }
    }

    fn first(n: usize, grounds: &[Ground], requirement: Option<&str>) -> Vec<String> {
        let told = |plan: Plan| match plan.mode {
            Mode::Story => plan.scenario,
            Mode::Swarm => format!("{} {}", plan.scenario, plan.seed),
        };
        plans(grounds, requirement).take(n).map(told).collect()
    }

    #[test]
    fn scenarios_that_name_the_requirement_come_first_then_each_second_plan_is_theirs() {
        let grounds =
            [ground("far", "CNV-001", 1), ground("dear", "LOC-003", 9), ground("cheap", "LOC-003", 3)];
        assert_eq!(
            first(8, &grounds, Some("LOC-003")),
            ["cheap", "dear", "cheap 1", "far", "dear 1", "far 1", "cheap 2", "far 2"]
        );
    }

    #[test]
    fn without_a_requirement_all_take_turns_the_cheapest_first() {
        let grounds = [ground("dear", "LOC-003", 9), ground("cheap", "CNV-001", 1)];
        for requirement in [None, Some("MED-001")] {
            assert_eq!(first(4, &grounds, requirement), ["cheap", "dear", "cheap 1", "dear 1"]);
        }
        assert_eq!(first(4, &[], None), [""; 0]);
    }
}
