//! Scenarios: who is there, what people do, what goes wrong, what it is about.
//!
//! A scenario is data, one TOML file with its story in comments (`docs/scenarios.md` lists every key).
//! With a seed it becomes a [`crate::plan::Plan`]; nothing here runs anything.

mod deed;
mod print;
mod read;

use std::path::{Path, PathBuf};
use std::time::Duration;

use fusion_deployment::topology::{Topology, UserSpec};
use fusion_protocol::Domain;
use fusion_settings::Mistake;
use serde::{Deserialize, Serialize};

pub use deed::Deed;
#[cfg(test)]
pub(crate) use read::verbs;

use crate::duration;
use crate::fabric::Fault;

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
    /// Reads the conversation's locus, and what is new since; a device that has looked before asks only for
    /// what is new since then (LOC-008).
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
        read::scenario(file, text)
    }
}

/// The user that a scenario calls `name`: the local part of the address.
#[must_use]
pub fn user_named<'a>(topology: &'a Topology, name: &str) -> Option<&'a UserSpec> {
    topology.users.iter().find(|user| user.address.local_part() == name)
}
