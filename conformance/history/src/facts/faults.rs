//! What went wrong when, and whom that could concern.

use std::collections::BTreeMap;

use fusion_protocol::ClusterName;
use serde_json::Value;

use super::Facts;
use crate::event::{Body, EventId, FaultPhase, World};

/// Every fault of a run, in the order in which they began.
#[derive(Debug, Default)]
pub struct Faults<'h> {
    all: Vec<Fault<'h>>,
    places: BTreeMap<&'h str, Machine<'h>>,
}

/// A fault, from its beginning to its end.
#[derive(Clone, Copy, Debug)]
pub struct Fault<'h> {
    /// Its family, for example `partition`.
    pub family: &'h str,
    /// When it began.
    pub began: EventId,
    /// The same in microseconds since the run began.
    pub from_us: u64,
    /// When it ended; `None`: not within the history.
    pub ended: Option<EventId>,
    /// The same in microseconds since the run began.
    pub until_us: u64,
    detail: &'h Value,
}

/// Which groups a machine is in, for places that name a group.
#[derive(Clone, Copy, Debug)]
struct Machine<'h> {
    cluster: &'h ClusterName,
    data_center: &'h str,
}

impl<'h> Faults<'h> {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Fault<'h>> {
        self.all.iter()
    }

    /// Whether nothing was wrong from `from_us` until `until_us` with any of these machines, nor between
    /// two of them.
    #[must_use]
    pub fn spare(&self, machines: &[&str], from_us: u64, until_us: u64) -> bool {
        let during = |fault: &&Fault<'h>| fault.from_us <= until_us && from_us <= fault.until_us;
        !self.all.iter().filter(during).any(|fault| self.concerns(fault, machines))
    }

    /// Whether a fault is about one of these machines, or about a line between two of them. A fault that
    /// names no place could be anywhere.
    #[must_use]
    pub fn concerns(&self, fault: &Fault<'h>, machines: &[&str]) -> bool {
        if let Some(host) = fault.detail.get("host") {
            return machines.iter().any(|machine| self.is_at(machine, host));
        }
        let side = |one: &str, other: &str| fault.detail.get(one).or_else(|| fault.detail.get(other));
        let (Some(from), Some(to)) = (side("a", "from"), side("b", "to")) else { return true };
        let ends = |at: &Value| -> Vec<usize> {
            (0..machines.len()).filter(|n| self.is_at(machines[*n], at)).collect()
        };
        // Nobody is ever cut off from himself.
        let (from, to) = (ends(from), ends(to));
        from.iter().any(|one| to.iter().any(|other| one != other))
    }

    /// Whether a fault strikes this machine itself: a crash, a slow disk.
    #[must_use]
    pub fn strikes(&self, fault: &Fault<'h>, machine: &str) -> bool {
        fault.detail.get("host").is_some_and(|host| self.is_at(machine, host))
    }

    pub(super) fn of(facts: &Facts<'h>) -> Self {
        let mut open: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut all: Vec<Fault<'h>> = Vec::new();
        for event in facts.seen() {
            let Body::Fault { fault, family, phase, detail } = &event.body else { continue };
            match phase {
                FaultPhase::Began => {
                    open.entry(fault).or_default().push(all.len());
                    let (began, from_us) = (event.id, event.at_us);
                    all.push(Fault { family, began, from_us, ended: None, until_us: u64::MAX, detail });
                }
                FaultPhase::Ended => {
                    if let Some(at) = open.get_mut(fault.as_str()).and_then(Vec::pop) {
                        (all[at].ended, all[at].until_us) = (Some(event.id), event.at_us);
                    }
                }
            }
        }
        Self { all, places: facts.world().map(places).unwrap_or_default() }
    }

    fn is_at(&self, machine: &str, place: &Value) -> bool {
        match place {
            Value::Array(places) => places.iter().any(|place| self.is_at(machine, place)),
            Value::String(place) => self.is_in(machine, place),
            _ => true,
        }
    }

    fn is_in(&self, machine: &str, place: &str) -> bool {
        let known = self.places.get(machine);
        match place.split_once(':') {
            None => place == "*" || place == machine,
            Some(("group", name)) => known.is_some_and(|known| known.cluster.as_str() == name),
            // Where a device stands nobody wrote down.
            Some(("datacenter", name)) => known.is_none_or(|known| known.data_center == name),
            Some(_) => true,
        }
    }
}

impl Fault<'_> {
    /// Whether its machine is down as long as it lasts.
    #[must_use]
    pub fn takes_down(&self) -> bool {
        matches!(self.family, "crash" | "power_off")
    }

    /// A member of what it was told to do.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.detail.get(name)
    }

    /// Whether it lasted all the time from `from` until `until`, and `us` before.
    #[must_use]
    pub fn spans(&self, from: EventId, until: EventId) -> bool {
        self.began < from && self.ended.is_none_or(|ended| until < ended)
    }
}

fn places(world: &World) -> BTreeMap<&str, Machine<'_>> {
    let machines = world.clusters.iter().flat_map(|cluster| {
        let machine = Machine { cluster: &cluster.name, data_center: &cluster.data_center };
        cluster.hosts.iter().map(move |host| (host.as_str(), machine))
    });
    machines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Story;
    use serde_json::json;

    fn faulty(detail: Value) -> Story {
        let mut story = Story::new();
        story.fails("f", FaultPhase::Began, detail.clone());
        story.fails("f", FaultPhase::Ended, detail);
        story
    }

    fn concerns(detail: Value, machines: &[&str]) -> bool {
        let story = faulty(detail);
        let facts = Facts::of(story.told());
        let faults = facts.faults();
        faults.iter().any(|fault| faults.concerns(fault, machines))
    }

    #[test]
    fn a_fault_concerns_whoever_it_names_and_lines_between_them() {
        let crash = || json!({ "kind": "crash", "host": "a" });
        assert!(concerns(crash(), &["a", "b"]) && !concerns(crash(), &["b", "c"]));
        let cut = || json!({ "kind": "partition", "a": ["a"], "b": ["group:c"] });
        assert!(concerns(cut(), &["a", "c"]) && !concerns(cut(), &["a", "b"]));
        let loss = || json!({ "kind": "loss", "from": ["a", "c"], "to": ["a", "c"], "probability": 0.5 });
        assert!(concerns(loss(), &["a", "c"]) && !concerns(loss(), &["a", "b"]));
        let anywhere = || json!({ "kind": "latency", "from": ["*"], "to": ["*"] });
        assert!(concerns(anywhere(), &["a", "b"]) && !concerns(anywhere(), &["a"]));
        let west = || json!({ "kind": "pause", "host": "datacenter:b-dc" });
        assert!(concerns(west(), &["b"]) && !concerns(west(), &["a"]));
    }

    #[test]
    fn a_fault_lasts_from_its_beginning_to_its_end() {
        let story = faulty(json!({ "kind": "crash", "host": "a" }));
        let facts = Facts::of(story.told());
        let fault = facts.faults().iter().next().copied().expect("a fault");
        assert!(fault.takes_down() && fault.ended.is_some() && fault.until_us > fault.from_us);
        assert!(!facts.faults().spare(&["a"], fault.until_us, u64::MAX));
        assert!(facts.faults().spare(&["a"], fault.until_us + 1, u64::MAX));
        assert!(facts.faults().strikes(&fault, "a") && !facts.faults().strikes(&fault, "b"));
    }
}
