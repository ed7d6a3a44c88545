//! Swarms: each seed leaves out random fault families and draws faults from the others.
//!
//! Every fault drawn is bounded in strength and time, so that a run stays recoverable: what a judge
//! finds after healing is then the system's own doing.

use std::time::Duration;

use fusion_deployment::HostSpec;
use fusion_runtime::Entropy;

use crate::fabric::{Fault, Place, Shape};
use crate::plan::PlannedFault;
use crate::scenario::{Scenario, Start};

/// How many faults a chosen family contributes, at most.
const FAULTS_PER_FAMILY_MAX: u64 = 3;

/// The faults that the seed behind `entropy` adds to a scenario, in order of family.
#[must_use]
pub(crate) fn draw(scenario: &Scenario, hosts: &[HostSpec], entropy: &Entropy) -> Vec<PlannedFault> {
    let mut drawn = Vec::new();
    for family in &scenario.swarm.families {
        let chance = entropy.stream(family);
        if chance.chance(0.5) {
            continue;
        }
        for n in 0..=chance.below(FAULTS_PER_FAMILY_MAX) {
            let draw = Draw { chance: chance.stream(&n.to_string()), scenario, hosts };
            drawn.push(draw.fault(family, n));
        }
    }
    drawn
}

struct Draw<'a> {
    chance: Entropy,
    scenario: &'a Scenario,
    hosts: &'a [HostSpec],
}

impl Draw<'_> {
    fn fault(&self, family: &str, n: u64) -> PlannedFault {
        let begins = self.between(0, self.scenario.act.as_millis() as u64 * 4 / 5);
        PlannedFault {
            id: format!("{family}-{n}"),
            start: Start::At(Duration::from_millis(begins)),
            lasts: Duration::from_millis(self.between(300, 6_000)),
            fault: self.of(family),
        }
    }

    fn of(&self, family: &str) -> Fault {
        let everywhere = || vec![Place::Everywhere];
        match family {
            "partition" => {
                let (a, b) = self.two_sides();
                Fault::Partition { a, b }
            }
            "partition_one_way" => {
                let (from, to) = self.two_sides();
                Fault::PartitionOneWay { from, to }
            }
            "reset_connections" => {
                let (a, b) = self.two_sides();
                Fault::ResetConnections { a, b }
            }
            "loss" => Fault::Loss { from: everywhere(), to: everywhere(), probability: self.percent(2, 25) },
            "duplicate" => {
                Fault::Duplicate { from: everywhere(), to: everywhere(), probability: self.percent(5, 50) }
            }
            "reorder" => Fault::Reorder {
                from: everywhere(),
                to: everywhere(),
                probability: self.percent(5, 50),
                hold_ms: self.between(20, 200),
            },
            "latency" => Fault::Latency {
                from: everywhere(),
                to: everywhere(),
                add_ms: self.between(20, 400),
                jitter_ms: self.between(1, 300),
                shape: Shape::Uniform,
            },
            "bandwidth" => Fault::Bandwidth {
                from: everywhere(),
                to: everywhere(),
                bytes_per_s: self.between(20_000, 200_000),
                queue_bytes: None,
            },
            "crash" => Fault::Crash { host: self.host() },
            "pause" => Fault::Pause { host: self.host() },
            "slow_disk" => Fault::SlowDisk { host: self.host(), add_ms: self.between(5, 300) },
            other => unreachable!("scenarios are checked: no swarm family {other}"),
        }
    }

    fn host(&self) -> Place {
        let chosen = self.chance.below(self.hosts.len() as u64) as usize;
        Place::Host(self.hosts[chosen].name.clone())
    }

    /// One host against everybody else, or against one other.
    fn two_sides(&self) -> (Vec<Place>, Vec<Place>) {
        let one = self.host();
        let others: Vec<Place> = self
            .hosts
            .iter()
            .map(|host| Place::Host(host.name.clone()))
            .filter(|other| *other != one)
            .collect();
        if others.is_empty() || self.chance.chance(0.5) {
            return (vec![one], vec![Place::Everywhere]);
        }
        let other = others[self.chance.below(others.len() as u64) as usize].clone();
        (vec![one], vec![other])
    }

    fn between(&self, least: u64, most: u64) -> u64 {
        least + self.chance.below(most - least + 1)
    }

    fn percent(&self, least: u64, most: u64) -> f64 {
        self.between(least, most) as f64 / 100.0
    }
}
