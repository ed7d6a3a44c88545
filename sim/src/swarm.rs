//! Swarms: each seed leaves out random fault families and draws faults from the others, and leaves out
//! random kinds of steps.
//!
//! Every fault drawn is bounded in strength and time, so that a run stays recoverable: what a judge
//! finds after healing is then the system's own doing.

mod steps;

use std::time::Duration;

use fusion_deployment::HostSpec;
use fusion_runtime::Entropy;

pub(crate) use steps::keep;

use crate::fabric::{Fault, Place, Shape};
use crate::plan::PlannedFault;
use crate::scenario::{Scenario, Start};

/// How many faults a chosen family contributes, at most.
const FAULTS_PER_FAMILY_MAX: u64 = 3;
/// Families that are chosen by every other seed: what networks and machines do every day.
const COMMON: [&str; 11] = [
    "bandwidth",
    "crash",
    "duplicate",
    "latency",
    "loss",
    "partition",
    "partition_one_way",
    "pause",
    "reorder",
    "reset_connections",
    "slow_disk",
];
/// How often each of the others is: rarer, for they are many, and a run in which everything goes wrong shows
/// little.
const RARE: f64 = 0.2;

/// The faults that the seed behind `entropy` adds to a scenario, in order of family.
#[must_use]
pub(crate) fn draw(scenario: &Scenario, hosts: &[HostSpec], entropy: &Entropy) -> Vec<PlannedFault> {
    let mut drawn = Vec::new();
    for family in &scenario.swarm.families {
        let chance = entropy.stream(family);
        let left_out = if COMMON.contains(&family.as_str()) { 0.5 } else { 1.0 - RARE };
        if chance.chance(left_out) {
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
        let found = self.of_connections(family).or_else(|| self.of_packets(family));
        let found = found.or_else(|| self.of_machines(family)).or_else(|| self.of_names(family));
        found.unwrap_or_else(|| unreachable!("scenarios are checked: no swarm family {family}"))
    }

    /// Between two sides.
    fn of_connections(&self, family: &str) -> Option<Fault> {
        let sides = || self.two_sides();
        Some(match family {
            "partition" => {
                let (a, b) = sides();
                Fault::Partition { a, b }
            }
            "partition_one_way" => {
                let (from, to) = sides();
                Fault::PartitionOneWay { from, to }
            }
            "flapping" => {
                let (a, b) = sides();
                let (period_ms, up_share) = (self.between(200, 2_000), self.percent(20, 80));
                Fault::Flapping { a, b, period_ms, up_share }
            }
            "reset_connections" => {
                let (a, b) = sides();
                Fault::ResetConnections { a, b }
            }
            "half_open" => {
                let (one, other) = sides();
                // Either may be the one that forgets.
                let (a, b) = if self.chance.chance(0.5) { (one, other) } else { (other, one) };
                Fault::HalfOpen { a, b }
            }
            _ => return None,
        })
    }

    /// Of all packets.
    fn of_packets(&self, family: &str) -> Option<Fault> {
        let (from, to) = (vec![Place::Everywhere], vec![Place::Everywhere]);
        Some(match family {
            "loss" => Fault::Loss { from, to, probability: self.percent(2, 25) },
            "loss_burst" => Fault::LossBurst {
                from,
                to,
                probability: self.percent(1, 4),
                recovery: self.percent(20, 60),
                packets_max: 50,
                loss_good: 0.0,
                loss_bad: self.percent(60, 100),
            },
            "corruption" => Fault::Corruption { from, to, probability: self.percent(1, 10) },
            "duplicate" => Fault::Duplicate { from, to, probability: self.percent(5, 50) },
            "reorder" => {
                let (probability, hold_ms) = (self.percent(5, 50), self.between(20, 200));
                Fault::Reorder { from, to, probability, hold_ms }
            }
            "latency" => {
                let (add_ms, jitter_ms) = (self.between(20, 400), self.between(1, 300));
                // The one shape that every engine has.
                Fault::Latency { from, to, add_ms, jitter_ms, shape: Shape::Uniform }
            }
            "bandwidth" => {
                let bytes_per_s = self.between(20_000, 200_000);
                Fault::Bandwidth { from, to, bytes_per_s, queue_bytes: None }
            }
            "mtu" => Fault::Mtu { from, to, bytes: self.between(576, 1_400) },
            _ => return None,
        })
    }

    fn of_machines(&self, family: &str) -> Option<Fault> {
        let host = self.host();
        Some(match family {
            "crash" => Fault::Crash { host },
            "power_off" => Fault::PowerOff { host },
            "pause" => Fault::Pause { host },
            "slow_cpu" => Fault::SlowCpu { host, turn_us: self.between(100, 3_000) },
            "backlog_full" => Fault::BacklogFull { host },
            "overload" => Fault::Overload { host, per_s: self.between(10, 60) },
            "certificate_expired" => Fault::CertificateExpired { host },
            "slow_disk" => Fault::SlowDisk { host, add_ms: self.between(5, 300) },
            "disk_full" => Fault::DiskFull { host },
            "disk_errors" => Fault::DiskErrors { host, probability: self.percent(5, 40) },
            // All errors of two clocks together stay below what tokens forgive, 5 s.
            "skew" => Fault::Skew { host, us: self.either_way(800_000) },
            "drift" => Fault::Drift { host, ppm: self.either_way(20_000) },
            "jump" => Fault::Jump { host, us: self.either_way(400_000) },
            _ => return None,
        })
    }

    fn of_names(&self, family: &str) -> Option<Fault> {
        if !family.starts_with("dns_") {
            return None;
        }
        let name = self.name();
        Some(match family {
            "dns_missing" => Fault::DnsMissing { name },
            "dns_stale" => Fault::DnsStale { name },
            "dns_wrong" => {
                let others: Vec<String> = self.names().into_iter().filter(|other| *other != name).collect();
                let as_of = others[self.chance.below(others.len() as u64) as usize].clone();
                Fault::DnsWrong { name, as_of }
            }
            _ => return None,
        })
    }

    /// A name of some machine's.
    fn name(&self) -> String {
        let names = self.names();
        names[self.chance.below(names.len() as u64) as usize].clone()
    }

    /// Every name there is; the provider alone has several.
    fn names(&self) -> Vec<String> {
        let template = self.scenario.topology.url_template().expect("scenarios are checked");
        let mut names: Vec<String> = self.hosts.iter().flat_map(|host| host.names(&template)).collect();
        names.dedup();
        names
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

    /// Up to `most`, or as much less than nothing.
    fn either_way(&self, most: u64) -> i64 {
        let drawn = self.between(1, most) as i64;
        if self.chance.chance(0.5) { drawn } else { -drawn }
    }

    fn percent(&self, least: u64, most: u64) -> f64 {
        self.between(least, most) as f64 / 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::fabric;
    use crate::library::Library;
    use crate::scenario::FAMILIES;

    /// What 300 seeds draw from these families, by seed.
    fn drawn(families: &[&str]) -> Vec<Vec<PlannedFault>> {
        let mut scenario = Library::nearest().unwrap().find("race-under-partition").unwrap();
        scenario.swarm.families = families.iter().map(|family| (*family).to_owned()).collect();
        let hosts = fabric::hosts(&scenario.topology).unwrap();
        (0..300).map(|seed| draw(&scenario, &hosts, &Entropy::from_u64(seed))).collect()
    }

    #[test]
    fn every_family_is_drawn_by_some_seeds_and_left_out_by_others() {
        let runs = drawn(&FAMILIES);
        for family in FAMILIES {
            let with = runs.iter().filter(|run| run.iter().any(|it| it.fault.family() == family)).count();
            let share = if COMMON.contains(&family) { 120..180 } else { 35..90 };
            assert!(share.contains(&with), "{family} is in {with} of 300 runs");
        }
    }

    #[test]
    fn what_is_drawn_can_be_and_is_over_soon() {
        for planned in drawn(&FAMILIES).into_iter().flatten() {
            assert_eq!(planned.fault.check(), Ok(()), "{planned:?}");
            assert!(planned.lasts <= Duration::from_secs(6), "{planned:?}");
        }
    }

    #[test]
    fn a_family_more_or_less_leaves_what_the_others_draw_as_it_is() {
        let all = drawn(&FAMILIES);
        for left_out in FAMILIES {
            let rest: Vec<&str> = FAMILIES.into_iter().filter(|family| *family != left_out).collect();
            for (run, all) in drawn(&rest).iter().zip(&all) {
                let others = all.iter().filter(|planned| planned.fault.family() != left_out);
                assert!(run.iter().eq(others), "without {left_out}");
            }
        }
    }
}
