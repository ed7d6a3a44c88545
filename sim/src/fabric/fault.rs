//! Faults as data: what can go wrong, where, and how often it did.
//!
//! Not here: the doing and undoing (`inject`), and when (a plan's business).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Something that goes wrong, until it is healed.
///
/// In TOML: `{ kind = "partition", a = ["a"], b = ["datacenter:west"] }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// No packet passes between `a` and `b`, either way.
    Partition {
        /// One side.
        a: Vec<Place>,
        /// The other side.
        b: Vec<Place>,
    },
    /// No packet passes from `from` to `to`; the way back is open.
    PartitionOneWay {
        /// The senders.
        from: Vec<Place>,
        /// The receivers.
        to: Vec<Place>,
    },
    /// Packets from `from` to `to` are lost, each by itself. TCP retransmits; datagrams are gone.
    Loss {
        /// The senders.
        #[serde(default = "everywhere")]
        from: Vec<Place>,
        /// The receivers.
        #[serde(default = "everywhere")]
        to: Vec<Place>,
        /// Of each packet, 0 to 1.
        probability: f64,
    },
    /// Packets from `from` to `to` are lost several in a row.
    LossBurst {
        /// The senders.
        #[serde(default = "everywhere")]
        from: Vec<Place>,
        /// The receivers.
        #[serde(default = "everywhere")]
        to: Vec<Place>,
        /// That a row begins with a packet, 0 to 1.
        probability: f64,
        /// How many packets a row has at most; at least 1.
        packets_max: u64,
    },
    /// Datagrams from `from` to `to` arrive twice.
    Duplicate {
        /// The senders.
        #[serde(default = "everywhere")]
        from: Vec<Place>,
        /// The receivers.
        #[serde(default = "everywhere")]
        to: Vec<Place>,
        /// Of each datagram, 0 to 1.
        probability: f64,
    },
    /// Datagrams from `from` to `to` are held back, so that later ones overtake them.
    Reorder {
        /// The senders.
        #[serde(default = "everywhere")]
        from: Vec<Place>,
        /// The receivers.
        #[serde(default = "everywhere")]
        to: Vec<Place>,
        /// Of each datagram, 0 to 1.
        probability: f64,
        /// For how long at most, milliseconds.
        hold_ms: u64,
    },
    /// Packets from `from` to `to` take longer.
    Latency {
        /// The senders.
        #[serde(default = "everywhere")]
        from: Vec<Place>,
        /// The receivers.
        #[serde(default = "everywhere")]
        to: Vec<Place>,
        /// By this much, milliseconds.
        add_ms: u64,
        /// And up to this much more, milliseconds.
        #[serde(default)]
        jitter_ms: u64,
    },
    /// Packets from `from` to `to` share a narrow line.
    Bandwidth {
        /// The senders.
        #[serde(default = "everywhere")]
        from: Vec<Place>,
        /// The receivers.
        #[serde(default = "everywhere")]
        to: Vec<Place>,
        /// Of each link, headers included; at least 1.
        bytes_per_s: u64,
    },
    /// Every connection between `a` and `b` is reset, once.
    ResetConnections {
        /// One side.
        a: Vec<Place>,
        /// The other side.
        b: Vec<Place>,
    },
    /// The processes die; the machine's kernel resets their connections. Healing starts them again.
    Crash {
        /// The machines.
        host: Place,
    },
    /// The machine loses power: peers learn nothing until they send. Healing starts it again.
    PowerOff {
        /// The machines.
        host: Place,
    },
    /// A machine that is down comes up; one that is up is crashed and comes up. Nothing to heal.
    Restart {
        /// The machines.
        host: Place,
    },
    /// The processes stop as by SIGSTOP; the kernel goes on receiving.
    Pause {
        /// The machines.
        host: Place,
    },
    /// Commits take longer.
    SlowDisk {
        /// The machines.
        host: Place,
        /// By this much, milliseconds.
        add_ms: u64,
    },
    /// The disk refuses every commit.
    DiskFull {
        /// The machines.
        host: Place,
    },
    /// Tables of the store are gone, once and for good: a botched restore, a broken page.
    LoseRows {
        /// The machines.
        host: Place,
        /// The tables: the first parts of the keys of their rows.
        tables: Vec<String>,
    },
    /// The wall clock is wrong by `us` microseconds (negative: behind).
    Skew {
        /// The machines.
        host: Place,
        /// By how much.
        us: i64,
    },
    /// A name does not exist.
    DnsMissing {
        /// The name.
        name: String,
    },
    /// A name is answered as it was before its last change.
    DnsStale {
        /// The name.
        name: String,
    },
}

/// Which hosts: `a` (by name), `datacenter:west`, `group:a`, or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// One host.
    Host(String),
    /// The hosts of a data centre.
    Datacenter(String),
    /// The hosts of a group, for example those of one cluster.
    Group(String),
    /// All hosts.
    Everywhere,
}

/// One injected fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[must_use = "a fault lasts until it is healed"]
pub struct FaultId(pub u64);

/// What became of one injected fault.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaultReport {
    /// Which.
    pub id: FaultId,
    /// What.
    pub fault: Fault,
    /// How often it made a difference: packets it touched, tasks it ended, commits it refused, ...
    pub effects: u64,
    /// Whether it is over.
    pub healed: bool,
}

/// The faults of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FaultCount {
    /// How many were injected.
    pub chosen: u64,
    /// How many of them made a difference.
    pub effective: u64,
}

/// A fault that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FaultError {
    /// No host is there.
    #[error("no host matches `{0}`")]
    NobodyThere(Place),
    /// One side of a link fault is empty.
    #[error("`{0}` needs at least one place on each side")]
    NoPlace(&'static str),
    /// A probability outside 0 to 1.
    #[error("a probability is between 0 and 1, not {0}")]
    Probability(f64),
    /// A line that carries nothing is a partition.
    #[error("a bandwidth is at least 1 byte per second; for none, use a partition")]
    NoBandwidth,
    /// Whoever loses rows loses those of some table.
    #[error("`lose_rows` needs at least one table")]
    NoTable,
    /// The name was never in the table.
    #[error("no such name: `{0}`")]
    NoSuchName(String),
    /// A fault cannot be healed twice, nor one that never was.
    #[error("fault {0:?} is not active")]
    NotActive(FaultId),
}

fn everywhere() -> Vec<Place> {
    vec![Place::Everywhere]
}

impl Fault {
    /// The family's name, as in TOML.
    #[must_use]
    pub fn family(&self) -> &'static str {
        match self {
            Self::Partition { .. } => "partition",
            Self::PartitionOneWay { .. } => "partition_one_way",
            Self::Loss { .. } => "loss",
            Self::LossBurst { .. } => "loss_burst",
            Self::Duplicate { .. } => "duplicate",
            Self::Reorder { .. } => "reorder",
            Self::Latency { .. } => "latency",
            Self::Bandwidth { .. } => "bandwidth",
            Self::ResetConnections { .. } => "reset_connections",
            Self::Crash { .. } => "crash",
            Self::PowerOff { .. } => "power_off",
            Self::Restart { .. } => "restart",
            Self::Pause { .. } => "pause",
            Self::SlowDisk { .. } => "slow_disk",
            Self::DiskFull { .. } => "disk_full",
            Self::LoseRows { .. } => "lose_rows",
            Self::Skew { .. } => "skew",
            Self::DnsMissing { .. } => "dns_missing",
            Self::DnsStale { .. } => "dns_stale",
        }
    }

    /// Whether the fault is over as soon as it has happened.
    #[must_use]
    pub fn is_instant(&self) -> bool {
        matches!(self, Self::ResetConnections { .. } | Self::Restart { .. } | Self::LoseRows { .. })
    }

    /// Numbers and sides that no world could honour.
    pub(crate) fn check(&self) -> Result<(), FaultError> {
        match self {
            Self::Loss { probability, .. }
            | Self::LossBurst { probability, .. }
            | Self::Duplicate { probability, .. }
            | Self::Reorder { probability, .. }
                if !(0.0..=1.0).contains(probability) =>
            {
                Err(FaultError::Probability(*probability))
            }
            Self::Bandwidth { bytes_per_s: 0, .. } => Err(FaultError::NoBandwidth),
            Self::LoseRows { tables, .. } if tables.is_empty() => Err(FaultError::NoTable),
            _ if self.sides().is_some_and(|(from, to)| from.is_empty() || to.is_empty()) => {
                Err(FaultError::NoPlace(self.family()))
            }
            _ => Ok(()),
        }
    }

    /// Every place that it names.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Place> {
        let sides = self.sides().map(|(from, to)| from.iter().chain(to));
        sides.into_iter().flatten().chain(self.host())
    }

    /// The two sides of a fault of links.
    pub(crate) fn sides(&self) -> Option<(&[Place], &[Place])> {
        match self {
            Self::Partition { a, b } | Self::ResetConnections { a, b } => Some((a, b)),
            Self::PartitionOneWay { from, to }
            | Self::Loss { from, to, .. }
            | Self::LossBurst { from, to, .. }
            | Self::Duplicate { from, to, .. }
            | Self::Reorder { from, to, .. }
            | Self::Latency { from, to, .. }
            | Self::Bandwidth { from, to, .. } => Some((from, to)),
            _ => None,
        }
    }

    /// The machines of a fault of machines.
    pub(crate) fn host(&self) -> Option<&Place> {
        match self {
            Self::Crash { host }
            | Self::PowerOff { host }
            | Self::Restart { host }
            | Self::Pause { host }
            | Self::SlowDisk { host, .. }
            | Self::DiskFull { host }
            | Self::LoseRows { host, .. }
            | Self::Skew { host, .. } => Some(host),
            _ => None,
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            _ if text == "*" => Ok(Self::Everywhere),
            Some(("datacenter", name)) if !name.is_empty() => Ok(Self::Datacenter(name.to_owned())),
            Some(("group", name)) if !name.is_empty() => Ok(Self::Group(name.to_owned())),
            None if !text.is_empty() => Ok(Self::Host(text.to_owned())),
            _ => Err(format!("`{text}` is no place: write `name`, `datacenter:name`, `group:name` or `*`")),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => write!(f, "{name}"),
            Self::Datacenter(name) => write!(f, "datacenter:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Everywhere => write!(f, "*"),
        }
    }
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_as_it_is_written_in_a_scenario() {
        let text = r#"{"kind":"partition","a":["a","group:b"],"b":["datacenter:west","*"]}"#;
        let fault: Fault = serde_json::from_str(text).unwrap();
        let (a, b) = fault.sides().unwrap();
        assert_eq!(a, [Place::Host("a".into()), Place::Group("b".into())]);
        assert_eq!(b, [Place::Datacenter("west".into()), Place::Everywhere]);
        assert_eq!(serde_json::to_string(&fault).unwrap(), text);
        assert_eq!(fault.family(), "partition");
    }

    #[test]
    fn the_family_is_the_tag() {
        let fault = Fault::Loss { from: everywhere(), to: everywhere(), probability: 0.5 };
        assert_eq!(serde_json::to_value(&fault).unwrap()["kind"], fault.family());
    }

    #[test]
    fn a_misspelt_field_is_an_error_that_names_it() {
        let error = serde_json::from_str::<Fault>(r#"{"kind":"loss","probabilty":0.5}"#).unwrap_err();
        assert!(error.to_string().contains("probabilty"), "{error}");
    }

    #[test]
    fn a_place_that_cannot_be_is_an_error() {
        for text in ["", "group:", "cluster:a", ":"] {
            assert!(text.parse::<Place>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_probability_is_between_zero_and_one() {
        let fault = Fault::Loss { from: everywhere(), to: everywhere(), probability: 1.5 };
        assert_eq!(fault.check(), Err(FaultError::Probability(1.5)));
    }
}
