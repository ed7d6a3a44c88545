//! From the text of a scenario's file to a scenario: tables become steps and faults, and what is wrong is told
//! with its place and what was perhaps meant.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use fusion_conformance::catalogue::catalogue;
use fusion_deployment::HostSpec;
use fusion_deployment::topology::Topology;
use fusion_protocol::Domain;
use fusion_settings::Mistake;
use serde::Deserialize;

use super::{Act, Deed, FAMILIES, PACKETS_MAX, Scenario, ScriptedFault, Start, Step, Swarm, user_named};
use crate::duration;
use crate::engines::fabric::hosts;
use crate::fabric::{Fault, Place};

/// The scenario that a file's text tells.
pub(super) fn scenario(file: &Path, text: &str) -> Result<Scenario, Mistake> {
    let raw: RawScenario = fusion_settings::parse(file, text)?;
    let reader = Reader { file, text, topology: &raw.topology };
    raw.topology.validate().map_err(|error| reader.mistake(&error.to_string(), error.needle()))?;
    let steps = reader.steps(&raw.step)?;
    let faults = reader.faults(&raw.fault, &steps)?;
    reader.families(&raw.swarm)?;
    reader.requirements(&raw.requirements)?;
    let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let families = raw.swarm.families.unwrap_or_else(|| FAMILIES.map(str::to_owned).to_vec());
    Ok(Scenario {
        name,
        file: None,
        title: raw.title,
        requirements: raw.requirements,
        topology: raw.topology,
        steps,
        faults,
        swarm: Swarm { families },
        act: raw.act,
        settle: raw.settle,
    })
}

/// Everything that a step can `do`.
#[cfg(test)]
pub(crate) fn verbs() -> impl Iterator<Item = &'static str> {
    VERBS.into_iter()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    title: String,
    requirements: Vec<String>,
    topology: Topology,
    #[serde(default)]
    step: Vec<RawStep>,
    #[serde(default)]
    fault: Vec<RawFault>,
    #[serde(default)]
    swarm: RawSwarm,
    #[serde(default = "act_default", with = "duration")]
    act: Duration,
    #[serde(default = "settle_default", with = "duration")]
    settle: Duration,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSwarm {
    families: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    id: Option<String>,
    by: String,
    #[serde(default, with = "duration::option")]
    at: Option<Duration>,
    #[serde(default)]
    after: Vec<String>,
    #[serde(default, with = "duration::option")]
    delay: Option<Duration>,
    #[serde(default, with = "duration::option")]
    jitter: Option<Duration>,
    #[serde(rename = "do")]
    verb: String,
    chat: Option<String>,
    with: Option<Vec<String>>,
    text: Option<String>,
    who: Option<String>,
    #[serde(default, with = "duration::option")]
    within: Option<Duration>,
    packets: Option<u64>,
    at_cluster: Option<String>,
    domain: Option<Domain>,
    deed: Option<Deed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFault {
    id: Option<String>,
    #[serde(default, with = "duration::option")]
    at: Option<Duration>,
    #[serde(default)]
    after: Vec<String>,
    #[serde(default, with = "duration::option")]
    delay: Option<Duration>,
    #[serde(rename = "for", with = "duration")]
    lasts: Duration,
    fault: Fault,
}

/// Turns raw tables into steps and faults, and knows where to point when one is wrong.
struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    topology: &'a Topology,
}

const VERBS: [&str; 25] = [
    "create",
    "create_group",
    "find",
    "await_chat",
    "say",
    "add",
    "read",
    "read_index",
    "hide",
    "call",
    "answer",
    "decline",
    "talk",
    "hang_up",
    "look",
    "vanish",
    "disconnect",
    "connect",
    "log_in",
    "resolve",
    "replay_token",
    "provision",
    "move",
    "claim",
    "trespass",
];

impl Reader<'_> {
    fn mistake(&self, what: &str, near: &str) -> Mistake {
        Mistake::new(self.file, what).at_text(self.text, near)
    }

    fn steps(&self, raw: &[RawStep]) -> Result<Vec<Step>, Mistake> {
        let mut steps: Vec<Step> = Vec::with_capacity(raw.len());
        for (n, raw) in raw.iter().enumerate() {
            let id = raw.id.clone().unwrap_or_else(|| format!("step-{}", n + 1));
            if steps.iter().any(|step| step.id == id) {
                return Err(self.mistake(&format!("two steps have the id \"{id}\""), &format!("\"{id}\"")));
            }
            let known: Vec<&str> = steps.iter().map(|step| step.id.as_str()).collect();
            let (user, device) = self.actor(&raw.by)?;
            let start = self.start(raw.at, &raw.after, raw.delay, &known)?;
            let act = self.act(raw)?;
            steps.push(Step { id, user, device, start, jitter: raw.jitter.unwrap_or_default(), act });
        }
        Ok(steps)
    }

    fn faults(&self, raw: &[RawFault], steps: &[Step]) -> Result<Vec<ScriptedFault>, Mistake> {
        let known: Vec<&str> = steps.iter().map(|step| step.id.as_str()).collect();
        let mut ids = BTreeSet::new();
        raw.iter()
            .enumerate()
            .map(|(n, raw)| {
                let id = raw.id.clone().unwrap_or_else(|| format!("fault-{}", n + 1));
                if !ids.insert(id.clone()) {
                    return Err(
                        self.mistake(&format!("two faults have the id \"{id}\""), &format!("\"{id}\""))
                    );
                }
                let start = self.start(raw.at, &raw.after, raw.delay, &known)?;
                self.possible(&raw.fault)?;
                Ok(ScriptedFault { id, start, lasts: raw.lasts, fault: raw.fault.clone() })
            })
            .collect()
    }

    /// A fault with numbers and places that this federation can have.
    fn possible(&self, fault: &Fault) -> Result<(), Mistake> {
        fault.check().map_err(|error| self.mistake(&error.to_string(), fault.family()))?;
        let hosts = hosts(self.topology).map_err(|error| self.mistake(&error.to_string(), error.needle()))?;
        for place in fault.places() {
            let (name, known): (_, Vec<&str>) = match place {
                Place::Host(name) => (name, hosts.iter().map(|host| host.name.as_str()).collect()),
                Place::Group(name) => {
                    (name, hosts.iter().filter_map(|host| Some(host.cluster()?.as_str())).collect())
                }
                Place::Datacenter(name) => {
                    (name, hosts.iter().map(|host| host.data_center.as_str()).collect())
                }
                Place::Everywhere => continue,
            };
            let device = name.strip_prefix("at ").unwrap_or(name).split_once('/');
            if let Some((user, _)) = device {
                self.user(user)?;
            } else if !known.contains(&name.as_str()) {
                let mistake = self.mistake(&format!("no host matches `{place}`"), &format!("\"{place}\""));
                return Err(mistake.suggest_one_of(name, known.into_iter().collect::<BTreeSet<_>>()));
            }
        }
        self.named(fault, &hosts)
    }

    /// A fault of names that this federation has.
    fn named(&self, fault: &Fault, hosts: &[HostSpec]) -> Result<(), Mistake> {
        let template =
            self.topology.url_template().map_err(|error| self.mistake(&error.to_string(), error.needle()))?;
        let known: BTreeSet<String> = hosts.iter().flat_map(|host| host.names(&template)).collect();
        match fault.names().into_iter().find(|name| !known.contains(*name)) {
            None => Ok(()),
            Some(name) => {
                let mistake = self.mistake(&format!("nobody has the name `{name}`"), &format!("\"{name}\""));
                Err(mistake.suggest_one_of(name, known.iter().map(String::as_str)))
            }
        }
    }

    fn families(&self, raw: &RawSwarm) -> Result<(), Mistake> {
        for family in raw.families.iter().flatten() {
            if !FAMILIES.contains(&family.as_str()) {
                let mistake = self
                    .mistake(&format!("no fault family \"{family}\" for swarms"), &format!("\"{family}\""));
                return Err(mistake.suggest_one_of(family, FAMILIES));
            }
        }
        Ok(())
    }

    fn actor(&self, by: &str) -> Result<(String, String), Mistake> {
        let (user, device) = by.split_once('/').unwrap_or((by, "phone"));
        self.user(user)?;
        Ok((user.to_owned(), device.to_owned()))
    }

    fn user(&self, name: &str) -> Result<String, Mistake> {
        if user_named(self.topology, name).is_some() {
            return Ok(name.to_owned());
        }
        let mistake = self.mistake(&format!("the topology has no user \"{name}\""), &format!("\"{name}"));
        Err(mistake.suggest_one_of(name, self.topology.users.iter().map(|user| user.address.local_part())))
    }

    fn start(
        &self,
        at: Option<Duration>,
        after: &[String],
        delay: Option<Duration>,
        known: &[&str],
    ) -> Result<Start, Mistake> {
        for step in after {
            if !known.contains(&step.as_str()) {
                let what = format!("no earlier step has the id \"{step}\"");
                return Err(self
                    .mistake(&what, &format!("\"{step}\""))
                    .suggest_one_of(step, known.iter().copied()));
            }
        }
        match (at, after) {
            (Some(at), []) => Ok(Start::At(at + delay.unwrap_or_default())),
            (None, [_, ..]) => Ok(Start::After { steps: after.to_vec(), delay: delay.unwrap_or_default() }),
            (None, []) => Ok(Start::At(delay.unwrap_or_default())),
            (Some(_), [_, ..]) => {
                Err(self.mistake("a step or fault begins `at` a time or `after` steps, not both", "after"))
            }
        }
    }

    fn act(&self, raw: &RawStep) -> Result<Act, Mistake> {
        let within = raw.within.unwrap_or(Duration::from_secs(30));
        let others = || -> Result<Vec<String>, Mistake> {
            let with = raw.with.as_deref().ok_or_else(|| self.missing(raw, "with"))?;
            with.iter().map(|name| self.user(name)).collect()
        };
        let only = || match others()?.as_slice() {
            [one] => Ok(one.clone()),
            _ => Err(self.mistake(&format!("`{}` is with exactly one user", raw.verb), "with")),
        };
        let chat = || raw.chat.clone().ok_or_else(|| self.missing(raw, "chat"));
        Ok(match raw.verb.as_str() {
            "create" => Act::Create { chat: chat()?, with: vec![only()?], group: false },
            "create_group" => Act::Create { chat: chat()?, with: others()?, group: true },
            "find" => Act::Find { chat: chat()?, with: only()?, within },
            "await_chat" => Act::AwaitChat { chat: chat()?, within },
            "say" => {
                Act::Say { chat: chat()?, text: raw.text.clone().ok_or_else(|| self.missing(raw, "text"))? }
            }
            "add" => Act::Add { chat: chat()?, who: only()? },
            "read" => Act::Read { chat: chat()? },
            "read_index" => Act::ReadIndex {},
            "hide" => Act::Hide { chat: chat()? },
            "call" => Act::Call { chat: chat()? },
            "answer" => Act::Answer { chat: chat()?, within },
            "decline" => Act::Decline { chat: chat()?, within },
            "talk" => Act::Talk { chat: chat()?, packets: self.packets(raw)? },
            "hang_up" => Act::HangUp { chat: chat()? },
            "look" => Act::Look { chat: chat()? },
            "vanish" => Act::Vanish {},
            "disconnect" => Act::Disconnect {},
            "connect" => Act::Connect {},
            "log_in" => Act::LogIn {},
            "resolve" => {
                Act::Resolve { who: self.user(raw.who.as_ref().ok_or_else(|| self.missing(raw, "who"))?)? }
            }
            "replay_token" => Act::ReplayToken { at: self.cluster(raw)? },
            "provision" => Act::Provision { at: self.cluster(raw)? },
            "move" => Act::Move { to: self.cluster(raw)? },
            "claim" => Act::Claim { domain: raw.domain.clone().ok_or_else(|| self.missing(raw, "domain"))? },
            "trespass" => self.trespass(raw)?,
            unknown => {
                let mistake =
                    self.mistake(&format!("nobody can `do = \"{unknown}\"`"), &format!("\"{unknown}\""));
                return Err(mistake.suggest_one_of(unknown, VERBS));
            }
        })
    }

    /// What a deed needs to be known, it must be told.
    fn trespass(&self, raw: &RawStep) -> Result<Act, Mistake> {
        let deed = raw.deed.ok_or_else(|| self.missing(raw, "deed"))?;
        let at = raw.at_cluster.as_ref().map(|name| self.known_cluster(name)).transpose()?;
        let who = raw.who.as_ref().map(|name| self.user(name)).transpose()?;
        let chat = raw.chat.clone();
        let given = [("at_cluster", at.is_some()), ("who", who.is_some()), ("chat", chat.is_some())];
        match deed.needs().iter().find(|need| !given.contains(&(**need, true))) {
            Some(need) => Err(self.missing(raw, need)),
            None => Ok(Act::Trespass { deed, at, who, chat }),
        }
    }

    fn requirements(&self, ids: &[String]) -> Result<(), Mistake> {
        let known = || catalogue().requirements.iter().map(|requirement| requirement.id.as_str());
        match ids.iter().find(|id| !known().any(|known| known == id.as_str())) {
            None => Ok(()),
            Some(id) => {
                let mistake =
                    self.mistake(&format!("there is no requirement \"{id}\""), &format!("\"{id}\""));
                Err(mistake.suggest_one_of(id, known()))
            }
        }
    }

    fn cluster(&self, raw: &RawStep) -> Result<String, Mistake> {
        self.known_cluster(raw.who.as_ref().ok_or_else(|| self.missing(raw, "who"))?)
    }

    fn known_cluster(&self, name: &str) -> Result<String, Mistake> {
        let known = || self.topology.clusters().map(|(_, cluster)| cluster.name.as_str());
        if known().any(|known| known == name) {
            return Ok(name.to_owned());
        }
        let mistake =
            self.mistake(&format!("the topology has no cluster \"{name}\""), &format!("\"{name}\""));
        Err(mistake.suggest_one_of(name, known()))
    }

    fn packets(&self, raw: &RawStep) -> Result<u64, Mistake> {
        let packets = raw.packets.ok_or_else(|| self.missing(raw, "packets"))?;
        if packets > PACKETS_MAX {
            let what = format!("nobody talks for {packets} packets; at most {PACKETS_MAX}, which is an hour");
            return Err(self.mistake(&what, "packets"));
        }
        Ok(packets)
    }

    fn missing(&self, raw: &RawStep, key: &str) -> Mistake {
        self.mistake(
            &format!("a step with do = \"{}\" needs the key `{key}`", raw.verb),
            &format!("\"{}\"", raw.verb),
        )
    }
}

fn act_default() -> Duration {
    Duration::from_secs(20)
}

/// Longer than the longest back-off (30 s), a lease (45 s) and a ring (45 s) together.
fn settle_default() -> Duration {
    Duration::from_secs(150)
}
