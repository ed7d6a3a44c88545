//! Scenarios: who is there, what people do, what goes wrong, what it is about.
//!
//! A scenario is data, one TOML file with its story in comments (`docs/scenarios.md` lists every key).
//! With a seed it becomes a [`crate::plan::Plan`]; nothing here runs anything.

mod deed;
mod print;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fusion_conformance::catalogue::catalogue;
use fusion_deployment::HostSpec;
use fusion_deployment::topology::{Topology, UserSpec};
use fusion_protocol::Domain;
use fusion_settings::Mistake;
use serde::{Deserialize, Serialize};

pub use deed::Deed;

use crate::duration;
use crate::engines::fabric::hosts;
use crate::fabric::{Fault, Place};

/// Fault families that a swarm draws from unless a scenario says otherwise. Each leaves a run
/// recoverable.
pub const FAMILIES: [&str; 29] = [
    "backlog_full",
    "bandwidth",
    "certificate_expired",
    "corruption",
    "crash",
    "disk_errors",
    "disk_full",
    "dns_missing",
    "dns_stale",
    "dns_wrong",
    "drift",
    "duplicate",
    "flapping",
    "half_open",
    "jump",
    "latency",
    "loss",
    "loss_burst",
    "mtu",
    "overload",
    "partition",
    "partition_one_way",
    "pause",
    "power_off",
    "reorder",
    "reset_connections",
    "skew",
    "slow_cpu",
    "slow_disk",
];

/// The most packets of one talk: an hour of 50 a second.
pub const PACKETS_MAX: u64 = 180_000;

/// A scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Scenario {
    /// Its file's name without folder and ending.
    pub name: String,
    /// Its file, where it is not found by its name in the nearest folder of scenarios.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// Its story in one sentence.
    pub title: String,
    /// The requirements that it is about.
    pub requirements: Vec<String>,
    /// Who is there.
    pub topology: Topology,
    /// What people do.
    pub steps: Vec<Step>,
    /// What goes wrong, for certain.
    pub faults: Vec<ScriptedFault>,
    /// What may go wrong besides.
    pub swarm: Swarm,
    /// How long the act lasts at least; a swarm's faults fall into it.
    #[serde(with = "duration")]
    pub act: Duration,
    /// How long after the last fault is healed everything must have come to rest.
    #[serde(with = "duration")]
    pub settle: Duration,
}

/// Something that somebody does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its name in the file, or `step-{n}`.
    pub id: String,
    /// The user, by the local part of the address.
    pub user: String,
    /// The user's device.
    pub device: String,
    /// When.
    pub start: Start,
    /// By how much each seed moves it, at most.
    #[serde(with = "duration")]
    pub jitter: Duration,
    /// What.
    pub act: Act,
}

/// When a step or a fault begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// So long after the act begins.
    At(#[serde(with = "duration")] Duration),
    /// So long after these steps have ended.
    After {
        /// Their ids.
        steps: Vec<String>,
        /// How long.
        #[serde(with = "duration")]
        delay: Duration,
    },
}

/// What a device is made to do. A `chat` is the scenario's name for a conversation, `with` and `who` are
/// users by the local part of their address, `within` is how long it is tried.
#[expect(missing_docs, reason = "the fields are explained above, the same in every variant")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Act {
    /// Creates a 1:1 conversation with one, or a group with several.
    Create { chat: String, with: Vec<String>, group: bool },
    /// Finds the 1:1 conversation with somebody, trying again for a while.
    Find {
        chat: String,
        with: String,
        #[serde(with = "duration")]
        within: Duration,
    },
    /// Waits for the notification of a new conversation, then reads the index.
    AwaitChat {
        chat: String,
        #[serde(with = "duration")]
        within: Duration,
    },
    /// Posts a message.
    Say { chat: String, text: String },
    /// Brings somebody into a group (CNV-006).
    Add { chat: String, who: String },
    /// Reads a conversation to its end.
    Read { chat: String },
    /// Reads the own index to its end.
    ReadIndex {},
    /// Hides a conversation from the own list (CNV-002).
    Hide { chat: String },
    /// Joins the conversation's locus and rings the others.
    Call { chat: String },
    /// Waits until it rings, then joins.
    Answer {
        chat: String,
        #[serde(with = "duration")]
        within: Duration,
    },
    /// Waits until it rings, then declines.
    Decline {
        chat: String,
        #[serde(with = "duration")]
        within: Duration,
    },
    /// Sends media on the joined leg, 50 packets a second, and counts what comes.
    Talk { chat: String, packets: u64 },
    /// Leaves the call.
    HangUp { chat: String },
    /// Reads the conversation's locus, and once more what is new since (LOC-008).
    Look { chat: String },
    /// Is gone without a word: no socket, no lease, no media. `connect` brings it back.
    Vanish {},
    /// Closes the device's socket.
    Disconnect {},
    /// Opens the device's socket again.
    Connect {},
    /// Logs in anew, as somebody who comes back (SEC-002).
    LogIn {},
    /// Resolves an address through the own cluster.
    Resolve { who: String },
    /// Sends the own cluster's token to another cluster, which must refuse it (SEC-003).
    ReplayToken { at: String },
    /// The admin of a cluster gives the user's address an account there, and the device logs in anew.
    Provision { at: String },
    /// The admin of the user's cluster moves the user to another cluster of the org (MAP-007).
    Move { to: String },
    /// The admin of the user's org claims a domain for all clusters of the org (MAP-002).
    Claim { domain: Domain },
    /// The own cluster does what must be refused; see [`Deed`].
    Trespass { deed: Deed, at: Option<String>, who: Option<String>, chat: Option<String> },
}

/// A fault that is part of the story.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScriptedFault {
    /// Its name in the file, or `fault-{n}`.
    pub id: String,
    /// When it begins.
    pub start: Start,
    /// How long it lasts.
    #[serde(with = "duration")]
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
}

/// What a swarm of seeds may add to the story.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swarm {
    /// The families to draw from.
    pub families: Vec<String>,
}

impl Scenario {
    /// Reads a scenario's file.
    ///
    /// # Errors
    /// A [`Mistake`] with file, line, expectation and suggestion.
    pub fn read(file: &Path) -> Result<Self, Mistake> {
        Self::parse(file, &fusion_settings::text(file)?)
    }

    /// Parses the text of a scenario's file.
    ///
    /// # Errors
    /// As [`Scenario::read`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, Mistake> {
        let raw: RawScenario = fusion_settings::parse(file, text)?;
        let reader = Reader { file, text, topology: &raw.topology };
        raw.topology.validate().map_err(|error| reader.mistake(&error.to_string(), error.needle()))?;
        let steps = reader.steps(&raw.step)?;
        let faults = reader.faults(&raw.fault, &steps)?;
        reader.families(&raw.swarm)?;
        reader.requirements(&raw.requirements)?;
        let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let families = raw.swarm.families.unwrap_or_else(|| FAMILIES.map(str::to_owned).to_vec());
        Ok(Self {
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
}

/// Everything that a step can `do`.
#[cfg(test)]
pub(crate) fn verbs() -> impl Iterator<Item = &'static str> {
    VERBS.into_iter()
}

/// The user that a scenario calls `name`: the local part of the address.
#[must_use]
pub fn user_named<'a>(topology: &'a Topology, name: &str) -> Option<&'a UserSpec> {
    topology.users.iter().find(|user| user.address.local_part() == name)
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
