//! Faults as data: what can go wrong, where, and how often it did.
//!
//! `place` says where, `rules` what holds of each kind. Not here: the doing and undoing (`inject`), and when
//! (a plan's business).

mod place;
mod rules;

use serde::{Deserialize, Serialize};

pub use place::Place;
pub use rules::FaultError;

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
    /// Packets from `from` to `to` are lost in bursts (Gilbert-Elliott): a link is good or bad, and may
    /// change with each packet.
    LossBurst {
        /// The senders.
        #[serde(default = "everywhere")]
        from: Vec<Place>,
        /// The receivers.
        #[serde(default = "everywhere")]
        to: Vec<Place>,
        /// That a good link turns bad with a packet, 0 to 1.
        probability: f64,
        /// That a bad link turns good after a packet, 0 to 1.
        #[serde(default, skip_serializing_if = "is_zero")]
        recovery: f64,
        /// After how many packets at most a bad link is good again, drawn evenly; 0: by `recovery` alone.
        #[serde(default, skip_serializing_if = "is_none")]
        packets_max: u64,
        /// That a packet is lost while the link is good, 0 to 1.
        #[serde(default, skip_serializing_if = "is_zero")]
        loss_good: f64,
        /// That a packet is lost while the link is bad, 0 to 1.
        #[serde(default = "certain", skip_serializing_if = "is_certain")]
        loss_bad: f64,
    },
    /// Bits of packets from `from` to `to` are flipped. Datagrams arrive so, as those do that the UDP
    /// checksum lets pass; TCP's finds it out: the segment is dropped, and sent again.
    Corruption {
        /// The senders.
        #[serde(default = "everywhere")]
        from: Vec<Place>,
        /// The receivers.
        #[serde(default = "everywhere")]
        to: Vec<Place>,
        /// Of each packet, 0 to 1.
        probability: f64,
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
        /// And about this much more, milliseconds, as `shape` says.
        #[serde(default)]
        jitter_ms: u64,
        /// How the rest is distributed.
        #[serde(default, skip_serializing_if = "Shape::is_uniform")]
        shape: Shape,
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
        /// How many bytes wait for the line; a packet that finds more is dropped. Without, those of 200 ms.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queue_bytes: Option<u64>,
    },
    /// Packets from `from` to `to` have at most this length. Longer datagrams are dropped, and nobody is
    /// told; a connection sends more and shorter segments.
    Mtu {
        /// The senders.
        #[serde(default = "everywhere")]
        from: Vec<Place>,
        /// The receivers.
        #[serde(default = "everywhere")]
        to: Vec<Place>,
        /// Headers included; 68 (RFC 791) to 65,535.
        bytes: u64,
    },
    /// A partition that comes and goes: in each period it is there first, then for a share the links are up.
    Flapping {
        /// One side.
        a: Vec<Place>,
        /// The other side.
        b: Vec<Place>,
        /// How long a period is, milliseconds; at least 1.
        period_ms: u64,
        /// For which share of it the links are up, 0 to 1.
        up_share: f64,
    },
    /// Every connection between `a` and `b` is reset, once.
    ResetConnections {
        /// One side.
        a: Vec<Place>,
        /// The other side.
        b: Vec<Place>,
    },
    /// The hosts of `a` forget every connection to `b`, once, and the reset that says so is lost: `b` learns
    /// of it when it sends (RFC 9293, half-open connections).
    HalfOpen {
        /// Who forgets.
        a: Vec<Place>,
        /// Who does not know.
        b: Vec<Place>,
    },
    /// Every listener's backlog is full: a request to connect is dropped, as on Linux, and its sender tries
    /// again until it gives up. Open connections go on.
    BacklogFull {
        /// The machines.
        host: Place,
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
    /// The machine's only processor is slow: each turn of a task takes so much of its time, and the tasks
    /// wait for each other.
    SlowCpu {
        /// The machines.
        host: Place,
        /// For each turn, microseconds; 1 to 1,000,000.
        turn_us: u64,
    },
    /// Strangers come: each connects to a listener of the machine, asks for something over HTTP/1.1, and
    /// waits for the answer.
    Overload {
        /// The machines.
        host: Place,
        /// How many begin in each second; 1 to 10,000.
        per_s: u64,
    },
    /// The machine's certificate has run out: whoever connects to it breaks off the handshake, as with TLS.
    /// Open connections go on, and so do datagrams.
    CertificateExpired {
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
    /// Commits are refused now and then, by an error of the disk; nothing of them is written.
    DiskErrors {
        /// The machines.
        host: Place,
        /// Of each commit, 0 to 1.
        probability: f64,
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
    /// The wall clock goes wrong by `ppm` microseconds in each second (negative: it is slow). Healed, it is
    /// right. Waiting is not affected.
    Drift {
        /// The machines.
        host: Place,
        /// By how much; at most 900,000 either way.
        ppm: i64,
    },
    /// The wall clock is set forward by `us` microseconds, once (negative: back), and stays so until
    /// everything is healed.
    Jump {
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
    /// A name is answered with the addresses of another one. Whoever connects there finds a certificate of
    /// somebody else, as with TLS, and breaks off.
    DnsWrong {
        /// The name.
        name: String,
        /// Whose addresses it is answered with.
        as_of: String,
    },
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultCount {
    /// How many were injected.
    pub chosen: u64,
    /// How many of them made a difference.
    pub effective: u64,
}

/// How the random part of a packet's time is distributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Evenly between nothing and `jitter_ms`.
    #[default]
    Uniform,
    /// A bell between nothing and `jitter_ms`: mostly about half of it.
    Normal,
    /// Mostly little, seldom much: half of all packets are below `jitter_ms`, half of the rest below twice
    /// that, and so on up to 16 times.
    Tail,
}

impl Shape {
    /// Whether it need not be said.
    pub(crate) fn is_uniform(&self) -> bool {
        *self == Self::Uniform
    }
}

fn everywhere() -> Vec<Place> {
    vec![Place::Everywhere]
}

fn certain() -> f64 {
    1.0
}

// What serde passes by reference.
fn is_certain(probability: &f64) -> bool {
    *probability >= 1.0
}

fn is_zero(probability: &f64) -> bool {
    *probability == 0.0
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests;
