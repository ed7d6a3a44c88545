//! Whether a plan can be played: what was read from a file may say anything.

use std::collections::BTreeSet;

use fusion_deployment::{HostSpec, Topology};
use serde_json::Value;

use super::Plan;
use crate::budget::Budget;
use crate::engines::fabric::hosts;
use crate::fabric::{Fault, Place};
use crate::scenario::{Act, PACKETS_MAX, Start, Step, user_named};

/// The most clusters and users of a plan.
const CLUSTERS_MAX: usize = 200;
const USERS_MAX: usize = 10_000;
/// The most steps of a plan, and the most faults.
const STEPS_MAX: usize = 20_000;
const FAULTS_MAX: usize = 20_000;
/// The longest name, bytes.
const NAME_BYTES_MAX: usize = 200;
/// The longest message, bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// The largest number in a fault: eleven days in microseconds, a terabyte.
const NUMBER_MAX: f64 = 1e12;

/// Why a plan cannot be played.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Flaw {
    /// What is wrong, and where in the plan.
    pub what: String,
    /// The word beside which it stands in the plan's text.
    pub needle: String,
}

impl Plan {
    /// Checks that the plan can be played: that whoever and whatever it names is there, and that its numbers
    /// are within bounds. Plans made from a scenario can.
    ///
    /// # Errors
    /// The first flaw.
    pub fn check(&self) -> Result<(), Flaw> {
        if !is_file_name(&self.scenario) {
            return flaw(&self.scenario, format!("\"{}\" is no name of a scenario", self.scenario));
        }
        if !(0.0..=1.0).contains(&self.hesitation) {
            return flaw("hesitation", format!("`hesitation` is between 0 and 1, not {}", self.hesitation));
        }
        self.budget()?;
        self.sizes()?;
        self.topology
            .validate()
            .map_err(|error| Flaw { what: error.to_string(), needle: error.needle().to_owned() })?;
        let hosts = hosts(&self.topology)
            .map_err(|error| Flaw { what: error.to_string(), needle: error.needle().to_owned() })?;
        self.steps()?;
        self.faults(&hosts)
    }

    fn budget(&self) -> Result<(), Flaw> {
        let Budget { events, packets, polls, polls_at_once } = self.budget;
        for (name, number) in
            [("events", events), ("packets", packets), ("polls", polls), ("polls_at_once", polls_at_once)]
        {
            if !(1..=Budget::MAX).contains(&number) {
                let what = format!("a budget of {number} {name}: it is between 1 and {}", Budget::MAX);
                return flaw(name, what);
            }
        }
        Ok(())
    }

    fn sizes(&self) -> Result<(), Flaw> {
        for (name, size, most) in [
            ("clusters", self.topology.clusters().count(), CLUSTERS_MAX),
            ("users", self.topology.users.len(), USERS_MAX),
            ("steps", self.steps.len(), STEPS_MAX),
            ("faults", self.faults.len(), FAULTS_MAX),
        ] {
            if size > most {
                return flaw(name, format!("{size} {name}: at most {most} are played"));
            }
        }
        Ok(())
    }

    fn steps(&self) -> Result<(), Flaw> {
        let mut known = BTreeSet::new();
        for step in &self.steps {
            let wrong = |what: String, near: &str| -> Result<(), Flaw> {
                let needle = if near.is_empty() { step.id.clone() } else { near.to_owned() };
                Err(Flaw { what: format!("step \"{}\": {what}", step.id), needle })
            };
            if !is_name(&step.id) || !is_name(&step.device) {
                return wrong("its id and its device have 1 to 200 characters".to_owned(), "");
            }
            if user_named(&self.topology, &step.user).is_none() {
                return wrong(format!("the topology has no user \"{}\"", step.user), &step.user);
            }
            if let Some(missing) = waits_for(&step.start).iter().find(|id| !known.contains(*id)) {
                return wrong(format!("no earlier step has the id \"{missing}\""), missing);
            }
            if !known.insert(&step.id) {
                return wrong("another step has the same id".to_owned(), "");
            }
            if let Some((what, near)) = self.wrong_act(step) {
                return wrong(what, &near);
            }
        }
        Ok(())
    }

    /// What is wrong with what is to be done, and the word beside which it stands.
    fn wrong_act(&self, step: &Step) -> Option<(String, String)> {
        let (users, clusters, words) = named(&step.act);
        if let Some(user) = users.into_iter().find(|user| user_named(&self.topology, user).is_none()) {
            return Some((format!("the topology has no user \"{user}\""), user.clone()));
        }
        let is_there =
            |name: &&String| self.topology.clusters().any(|(_, known)| known.name.as_str() == name.as_str());
        if let Some(cluster) = clusters.into_iter().find(|name| !is_there(name)) {
            return Some((format!("the topology has no cluster \"{cluster}\""), cluster.clone()));
        }
        if words.into_iter().any(|word| !is_name(word)) {
            return Some(("a chat has a name of 1 to 200 characters".to_owned(), String::new()));
        }
        match &step.act {
            Act::Talk { packets, .. } if *packets > PACKETS_MAX => {
                Some((format!("nobody talks for {packets} packets; at most {PACKETS_MAX}"), String::new()))
            }
            Act::Say { text, .. } if text.len() > TEXT_BYTES_MAX => {
                Some((format!("nobody says {} bytes; at most {TEXT_BYTES_MAX}", text.len()), String::new()))
            }
            _ => None,
        }
    }

    fn faults(&self, hosts: &[HostSpec]) -> Result<(), Flaw> {
        let steps: BTreeSet<&String> = self.steps.iter().map(|step| &step.id).collect();
        let mut known = BTreeSet::new();
        for planned in &self.faults {
            let wrong = |what: String, near: &str| -> Result<(), Flaw> {
                Err(Flaw { what: format!("fault \"{}\": {what}", planned.id), needle: near.to_owned() })
            };
            if !is_name(&planned.id) || !known.insert(&planned.id) {
                return wrong("its id has 1 to 200 characters and is its own".to_owned(), &planned.id);
            }
            if let Some(missing) = waits_for(&planned.start).iter().find(|id| !steps.contains(id)) {
                return wrong(format!("no step has the id \"{missing}\""), missing);
            }
            if let Err(error) = planned.fault.check() {
                return wrong(error.to_string(), &planned.id);
            }
            if let Some(number) = enormous(&planned.fault) {
                return wrong(format!("{number} is more than any world lasts or holds"), &planned.id);
            }
            let missing = planned.fault.places().find(|place| !is_there(place, &self.topology, hosts));
            if let Some(place) = missing {
                return wrong(format!("no host matches `{place}`"), &place.to_string());
            }
        }
        Ok(())
    }
}

fn flaw(needle: &str, what: String) -> Result<(), Flaw> {
    Err(Flaw { what, needle: needle.to_owned() })
}

/// Names are shown to people, and the scenario's becomes a folder's.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

fn is_file_name(name: &str) -> bool {
    is_name(name) && !name.starts_with('.') && !name.contains(['/', '\\'])
}

fn waits_for(start: &Start) -> &[String] {
    match start {
        Start::At(_) => &[],
        Start::After { steps, .. } => steps,
    }
}

/// The users, the clusters and the chats that an act names.
fn named(act: &Act) -> (Vec<&String>, Vec<&String>, Vec<&String>) {
    match act {
        Act::Create { chat, with, .. } => (with.iter().collect(), vec![], vec![chat]),
        Act::Find { chat, with, .. } => (vec![with], vec![], vec![chat]),
        Act::Add { chat, who } => (vec![who], vec![], vec![chat]),
        Act::Resolve { who } => (vec![who], vec![], vec![]),
        Act::ReplayToken { at } | Act::Provision { at } | Act::Move { to: at } => (vec![], vec![at], vec![]),
        Act::Trespass { at, who, chat, .. } => {
            (who.iter().collect(), at.iter().collect(), chat.iter().collect())
        }
        Act::AwaitChat { chat, .. }
        | Act::Say { chat, .. }
        | Act::Read { chat }
        | Act::Hide { chat }
        | Act::Call { chat }
        | Act::Answer { chat, .. }
        | Act::Decline { chat, .. }
        | Act::Talk { chat, .. }
        | Act::HangUp { chat }
        | Act::Look { chat } => (vec![], vec![], vec![chat]),
        _ => (vec![], vec![], vec![]),
    }
}

/// Devices come into being with their users; everybody else is of the federation.
fn is_there(place: &Place, topology: &Topology, hosts: &[HostSpec]) -> bool {
    let is_device = |name: &str| {
        let device = name.strip_prefix("at ").unwrap_or(name).split_once('/');
        device.is_some_and(|(user, _)| user_named(topology, user).is_some())
    };
    match place {
        Place::Everywhere => true,
        Place::Host(name) => is_device(name) || hosts.iter().any(|host| host.name == *name),
        Place::Datacenter(name) => is_device(name) || hosts.iter().any(|host| host.data_center == *name),
        Place::Group(name) => {
            hosts.iter().any(|host| host.cluster().is_some_and(|cluster| cluster.as_str() == name))
        }
    }
}

/// The first number of a fault that is out of all proportion.
fn enormous(fault: &Fault) -> Option<f64> {
    let mut left = vec![serde_json::to_value(fault).unwrap_or_default()];
    while let Some(value) = left.pop() {
        match value {
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or(f64::INFINITY);
                if number.abs() > NUMBER_MAX {
                    return Some(number);
                }
            }
            Value::Array(values) => left.extend(values),
            Value::Object(members) => left.extend(members.into_iter().map(|(_, value)| value)),
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
    }
    None
}
