//! What was wrong, where and when: what is late because of a fault accuses nobody.

use std::collections::BTreeMap;

use fusion_protocol::ClusterName;
use serde_json::Value;

use super::{Facts, Sight};
use crate::event::{Body, EventId, FaultPhase, World};

/// Families that stop a whole machine.
const STOPS: [&str; 3] = ["crash", "pause", "power_off"];
/// Families that make a clock wrong.
const CLOCKS: [&str; 3] = ["skew", "drift", "jump"];
/// Clocks that are apart by less hinder nobody. A call between clusters is good for a minute (SEC-004), and
/// RFC 7519 allows some leeway for clocks; machines that ask any time server are closer to each other.
const APART_MAX_US: u64 = 4_500_000;
/// The members of a fault that name places.
const SIDES: [&str; 5] = ["host", "a", "b", "from", "to"];

/// Every fault of a run.
#[derive(Debug, Default)]
pub struct Faults<'h> {
    world: Option<&'h World>,
    spans: Vec<Fault<'h>>,
    /// When each began, its place, and when the last of those had ended that had begun by then.
    by_beginning: Vec<(u64, usize, u64)>,
}

/// One fault, from its beginning to its end.
#[derive(Debug)]
pub struct Fault<'h> {
    /// Its family, for example `partition`.
    pub family: &'h str,
    /// Its beginning.
    pub began: EventId,
    /// Its end; `None`: not within the history.
    pub ended: Option<EventId>,
    /// When it began, in microseconds since the run began.
    pub from_us: u64,
    /// When it ended.
    pub until_us: u64,
    /// The places of each side that it has; none: it could be anywhere.
    sides: Vec<Vec<&'h str>>,
    detail: &'h Value,
}

impl<'h> Faults<'h> {
    /// Whether something that these hosts do with each other, or each by itself, could have been hindered
    /// between `from_us` and `until_us`.
    #[must_use]
    pub fn hinder(&self, hosts: &[&str], from_us: u64, until_us: u64) -> bool {
        self.between(from_us, until_us).any(|span| self.touches(span, hosts))
    }

    /// Whether a fault that names `host` lasted all the time from `from_us` to `until_us`.
    #[must_use]
    pub fn stall(&self, host: &str, from_us: u64, until_us: u64) -> bool {
        self.throughout(from_us, until_us).any(|span| span.sides.iter().any(|side| side.contains(&host)))
    }

    /// Whether all the time from `from_us` to `until_us` nothing could pass between the two hosts: cut off
    /// from each other, or `other` not running.
    #[must_use]
    pub fn part(&self, host: &str, other: &str, from_us: u64, until_us: u64) -> bool {
        self.throughout(from_us, until_us).any(|span| {
            let [one, two] = span.sides.as_slice() else {
                return STOPS.contains(&span.family) && self.touches(span, &[other]);
            };
            let is_in = |side: &[&str], host: &str| side.iter().any(|place| self.covers(place, host));
            let across = is_in(one, host) && is_in(two, other) || is_in(one, other) && is_in(two, host);
            span.family == "partition" && across
        })
    }

    /// When the last fault that touched these hosts had ended, as known at `at_us`; `None`: one lasts
    /// still. 0: none ever did.
    #[must_use]
    pub fn calm_since(&self, hosts: &[&str], at_us: u64) -> Option<u64> {
        let touching = self.spans.iter().filter(|span| span.from_us <= at_us && self.touches(span, hosts));
        let last = touching.map(|span| span.until_us).max().unwrap_or(0);
        (last <= at_us).then_some(last)
    }

    /// When the last fault that touched the hosts of a cluster had ended, as [`Faults::calm_since`] says.
    #[must_use]
    pub fn calm_at(&self, cluster: &ClusterName, at_us: u64) -> Option<u64> {
        if self.spans.is_empty() { Some(0) } else { self.calm_since(&self.hosts_of(cluster), at_us) }
    }

    /// All of them, in the order in which they ended.
    pub fn iter(&self) -> impl Iterator<Item = &Fault<'h>> {
        self.spans.iter()
    }

    /// Whether nothing was wrong from `from_us` until `until_us` with any of these machines, nor on a line
    /// between two of them.
    #[must_use]
    pub fn spare(&self, machines: &[&str], from_us: u64, until_us: u64) -> bool {
        self.spare_but(machines, from_us, until_us, |_| false)
    }

    /// As [`Faults::spare`], where some faults are none for what is looked at.
    #[must_use]
    pub fn spare_but(
        &self,
        machines: &[&str],
        from_us: u64,
        until_us: u64,
        is_none: impl Fn(&Fault<'h>) -> bool,
    ) -> bool {
        let mut between = self.between(from_us, until_us);
        !between.any(|fault| self.concerns(fault, machines) && !is_none(fault))
    }

    /// Whether a fault is about one of these machines, or about a line between two of them: nobody is ever
    /// cut off from himself. A fault that names no place could be anywhere.
    #[must_use]
    pub fn concerns(&self, fault: &Fault<'h>, machines: &[&str]) -> bool {
        let at = |side: &[&str], machine: &str| side.iter().any(|place| self.covers(place, machine));
        match fault.sides.as_slice() {
            [host] => machines.iter().any(|machine| at(host, machine)),
            [from, to] => machines
                .iter()
                .any(|one| at(from, one) && machines.iter().any(|other| one != other && at(to, other))),
            _ => true,
        }
    }

    /// Whether a fault strikes this machine itself: a crash, a slow disk.
    #[must_use]
    pub fn strikes(&self, fault: &Fault<'h>, machine: &str) -> bool {
        matches!(fault.sides.as_slice(), [host] if host.iter().any(|place| self.covers(place, machine)))
    }

    /// Whether a fault of this family was there at all.
    #[must_use]
    pub fn had(&self, family: &str) -> bool {
        self.spans.iter().any(|span| span.family == family)
    }

    /// The hosts of a cluster.
    #[must_use]
    pub fn hosts_of(&self, cluster: &ClusterName) -> Vec<&'h str> {
        let clusters = self.world.map(|world| world.clusters.as_slice()).unwrap_or_default();
        let found = clusters.iter().find(|known| known.name == *cluster);
        found.into_iter().flat_map(|cluster| cluster.hosts.iter().map(String::as_str)).collect()
    }

    pub(super) fn of(facts: &Facts<'h>) -> Self {
        let mut open: BTreeMap<&str, Fault<'h>> = BTreeMap::new();
        let mut spans = Vec::new();
        for event in facts.seen(Sight::Fault) {
            let Body::Fault { fault, family, phase, detail } = &event.body else { continue };
            match phase {
                FaultPhase::Began => {
                    let sides = SIDES.iter().filter_map(|side| detail.get(side)).map(places).collect();
                    let (began, from_us) = (event.id, event.at_us);
                    let (ended, until_us) = (None, u64::MAX);
                    open.insert(fault, Fault { family, began, ended, from_us, until_us, sides, detail });
                }
                FaultPhase::Ended => {
                    let (ended, until_us) = (Some(event.id), event.at_us);
                    let over = open.remove(fault.as_str());
                    spans.extend(over.map(|span| Fault { ended, until_us, ..span }));
                }
            }
        }
        spans.extend(open.into_values());
        let last_us = facts.history().events().last().map_or(0, |last| last.at_us);
        let wrong_by_us =
            spans.iter().fold(0_u64, |sum, span| sum.saturating_add(span.clock_wrong_by_us(last_us)));
        if wrong_by_us <= APART_MAX_US {
            spans.retain(|span| !CLOCKS.contains(&span.family));
        }
        let mut by_beginning: Vec<(u64, usize, u64)> =
            spans.iter().enumerate().map(|(at, span)| (span.from_us, at, span.until_us)).collect();
        by_beginning.sort_unstable();
        let mut last = 0;
        for (.., until_us) in &mut by_beginning {
            last = last.max(*until_us);
            *until_us = last;
        }
        Self { world: facts.world(), spans, by_beginning }
    }

    fn between(&self, from_us: u64, until_us: u64) -> impl Iterator<Item = &Fault<'h>> {
        let begun = self.by_beginning.partition_point(|(from, ..)| *from <= until_us);
        let over = self.by_beginning.partition_point(|(.., until)| *until < from_us).min(begun);
        let spans = self.by_beginning[over..begun].iter().map(|(_, at, _)| &self.spans[*at]);
        spans.filter(move |span| span.until_us >= from_us)
    }

    fn throughout(&self, from_us: u64, until_us: u64) -> impl Iterator<Item = &Fault<'h>> {
        self.between(from_us, from_us).filter(move |span| span.until_us >= until_us)
    }

    /// Whether each side that the fault names has one of `hosts`.
    fn touches(&self, span: &Fault<'h>, hosts: &[&str]) -> bool {
        let names =
            |side: &Vec<&str>| side.iter().any(|place| hosts.iter().any(|host| self.covers(place, host)));
        span.sides.iter().all(names)
    }

    fn covers(&self, place: &str, host: &str) -> bool {
        let mut clusters = self.world.map(|world| world.clusters.as_slice()).unwrap_or_default().iter();
        if let Some(center) = place.strip_prefix("datacenter:") {
            return center.strip_prefix("at ") == Some(host)
                || clusters
                    .any(|known| known.data_center == center && known.hosts.iter().any(|it| it == host));
        }
        if let Some(group) = place.strip_prefix("group:") {
            return clusters
                .any(|known| known.name.as_str() == group && known.hosts.iter().any(|it| it == host));
        }
        place == "*" || place == host
    }
}

impl Fault<'_> {
    /// Whether its machine is down as long as it lasts.
    #[must_use]
    pub fn takes_down(&self) -> bool {
        matches!(self.family, "crash" | "power_off")
    }

    /// By how much it makes a clock wrong in the end.
    fn clock_wrong_by_us(&self, last_us: u64) -> u64 {
        let number = |member| self.detail.get(member).and_then(Value::as_i64).map(i64::unsigned_abs);
        let lasted_us = self.until_us.min(last_us).saturating_sub(self.from_us);
        match self.family {
            "skew" | "jump" => number("us").unwrap_or(u64::MAX),
            "drift" => number("ppm").map_or(u64::MAX, |ppm| ppm.saturating_mul(lasted_us) / 1_000_000),
            _ => 0,
        }
    }

    /// A member of what it was told to do.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.detail.get(name)
    }
}

fn places(side: &Value) -> Vec<&str> {
    match side {
        Value::Array(places) => places.iter().map(|place| place.as_str().unwrap_or("*")).collect(),
        place => vec![place.as_str().unwrap_or("*")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Story;
    use serde_json::json;
    use std::time::Duration;

    /// A fault that lasts from 10 s to 20 s, about.
    fn story(family: &str, detail: Value) -> Story {
        let mut story = Story::new();
        story.wait(Duration::from_secs(10)).fault("f", family, FaultPhase::Began, detail.clone());
        story.wait(Duration::from_secs(10)).fault("f", family, FaultPhase::Ended, detail);
        story
    }

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_partition_hinders_those_on_both_sides_of_it() {
        let story = story("partition", json!({ "a": ["group:a"], "b": ["b", "datacenter:c-dc"] }));
        let facts = Facts::of(story.told());
        let faults = facts.faults();
        assert!(faults.hinder(&["a", "c"], 15 * SECOND, 16 * SECOND));
        assert!(!faults.hinder(&["a", "a-relay"], 15 * SECOND, 16 * SECOND));
        assert!(!faults.hinder(&["a", "c"], 0, 5 * SECOND));
        assert!(faults.part("a", "b", 12 * SECOND, 18 * SECOND));
        assert!(!faults.part("b", "c", 12 * SECOND, 18 * SECOND));
        assert!(!faults.part("a", "b", 12 * SECOND, 30 * SECOND), "not all the time");
    }

    #[test]
    fn a_machine_that_is_down_is_parted_from_everybody() {
        let story = story("crash", json!({ "host": "b" }));
        let facts = Facts::of(story.told());
        assert!(facts.faults().part("a", "b", 12 * SECOND, 18 * SECOND));
        assert!(!facts.faults().part("b", "a", 12 * SECOND, 18 * SECOND));
        assert!(facts.faults().stall("b", 12 * SECOND, 18 * SECOND));
        assert_eq!(facts.faults().calm_since(&["b"], 15 * SECOND), None);
        assert_eq!(facts.faults().calm_since(&["a"], 15 * SECOND), Some(0));
        assert!(facts.faults().calm_since(&["b"], 25 * SECOND).is_some_and(|since| since > 20 * SECOND));
    }

    #[test]
    fn a_line_is_between_two_machines() {
        let detail = json!({ "from": ["a", "c"], "to": ["a", "c"], "probability": 0.5 });
        let story = story("loss", detail);
        let facts = Facts::of(story.told());
        let spare = |machines: &[&str]| facts.faults().spare(machines, 15 * SECOND, 16 * SECOND);
        assert!(!spare(&["a", "c"]) && spare(&["a", "b"]) && spare(&["a"]));
    }

    #[test]
    fn clocks_that_are_a_little_apart_hinder_nobody() {
        let hinders = |family: &str, detail: Value| {
            let story = story(family, detail);
            let facts = Facts::of(story.told());
            facts.faults().hinder(&["a"], 15 * SECOND, 16 * SECOND)
        };
        assert!(!hinders("skew", json!({ "host": "a", "us": -4_000_000 })));
        assert!(!hinders("drift", json!({ "host": "a", "ppm": 400_000 })));
        assert!(hinders("skew", json!({ "host": "a", "us": -6_000_000 })));
        assert!(hinders("drift", json!({ "host": "a", "ppm": 900_000 })));
        assert!(hinders("jump", json!({ "host": "a", "us": 90_000_000_000_i64 })));
    }

    #[test]
    fn the_errors_of_two_clocks_add_up() {
        let mut story = story("skew", json!({ "host": "a", "us": 3_000_000 }));
        story.fault("g", "skew", FaultPhase::Began, json!({ "host": "b", "us": -3_000_000 }));
        let facts = Facts::of(story.told());
        assert!(facts.faults().hinder(&["a"], 15 * SECOND, 16 * SECOND));
    }

    #[test]
    fn a_fault_without_a_place_could_be_anywhere() {
        let story = story("dns_missing", json!({ "name": "a-conv.provider.example" }));
        let facts = Facts::of(story.told());
        assert!(facts.faults().hinder(&["alice1"], 15 * SECOND, 16 * SECOND));
        assert!(facts.faults().had("dns_missing") && !facts.faults().had("crash"));
    }
}
