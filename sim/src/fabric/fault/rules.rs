//! What holds of each kind of fault: its name, where it strikes, which numbers it takes.

use super::{Fault, FaultId, Place};

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
    /// A number that no world could honour.
    #[error("`{kind}` takes a `{member}` {range}, not {got}")]
    Range {
        /// The family.
        kind: &'static str,
        /// Which number.
        member: &'static str,
        /// What it may be.
        range: &'static str,
        /// What it is.
        got: String,
    },
    /// A burst that never ends is a partition.
    #[error(
        "`loss_burst` needs a `recovery` or `packets_max` above 0; for a link that stays bad, use `loss`"
    )]
    EndlessBurst,
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

impl Fault {
    /// The family's name, as in TOML.
    #[must_use]
    pub fn family(&self) -> &'static str {
        match self {
            Self::Partition { .. } => "partition",
            Self::PartitionOneWay { .. } => "partition_one_way",
            Self::Loss { .. } => "loss",
            Self::LossBurst { .. } => "loss_burst",
            Self::Corruption { .. } => "corruption",
            Self::Duplicate { .. } => "duplicate",
            Self::Reorder { .. } => "reorder",
            Self::Latency { .. } => "latency",
            Self::Bandwidth { .. } => "bandwidth",
            Self::Mtu { .. } => "mtu",
            Self::Flapping { .. } => "flapping",
            Self::ResetConnections { .. } => "reset_connections",
            Self::HalfOpen { .. } => "half_open",
            Self::BacklogFull { .. } => "backlog_full",
            Self::Crash { .. } => "crash",
            Self::PowerOff { .. } => "power_off",
            Self::Restart { .. } => "restart",
            Self::Pause { .. } => "pause",
            Self::SlowCpu { .. } => "slow_cpu",
            Self::Overload { .. } => "overload",
            Self::CertificateExpired { .. } => "certificate_expired",
            Self::SlowDisk { .. } => "slow_disk",
            Self::DiskFull { .. } => "disk_full",
            Self::DiskErrors { .. } => "disk_errors",
            Self::LoseRows { .. } => "lose_rows",
            Self::Skew { .. } => "skew",
            Self::Drift { .. } => "drift",
            Self::Jump { .. } => "jump",
            Self::DnsMissing { .. } => "dns_missing",
            Self::DnsStale { .. } => "dns_stale",
            Self::DnsWrong { .. } => "dns_wrong",
        }
    }

    /// Whether the fault is over as soon as it has happened.
    #[must_use]
    pub fn is_instant(&self) -> bool {
        matches!(
            self,
            Self::ResetConnections { .. }
                | Self::HalfOpen { .. }
                | Self::Restart { .. }
                | Self::LoseRows { .. }
                | Self::Jump { .. }
        )
    }

    /// Whether it is between its two sides both ways.
    pub(crate) fn is_mutual(&self) -> bool {
        matches!(self, Self::Partition { .. } | Self::Flapping { .. })
    }

    /// Numbers and sides that no world could honour.
    pub(crate) fn check(&self) -> Result<(), FaultError> {
        if let Some(wrong) = self.probabilities().into_iter().find(|it| !(0.0..=1.0).contains(it)) {
            return Err(FaultError::Probability(wrong));
        }
        match self {
            Self::LossBurst { recovery: 0.0, packets_max: 0, .. } => Err(FaultError::EndlessBurst),
            Self::Bandwidth { bytes_per_s: 0, .. } => Err(FaultError::NoBandwidth),
            Self::Mtu { bytes, .. } if !(68..=65_535).contains(bytes) => {
                Err(self.range("bytes", "of 68 to 65535", bytes))
            }
            Self::Flapping { period_ms, .. } if *period_ms == 0 => {
                Err(self.range("period_ms", "of at least 1", period_ms))
            }
            Self::SlowCpu { turn_us, .. } if !(1..=1_000_000).contains(turn_us) => {
                Err(self.range("turn_us", "of 1 to 1000000", turn_us))
            }
            Self::Overload { per_s, .. } if !(1..=10_000).contains(per_s) => {
                Err(self.range("per_s", "of 1 to 10000", per_s))
            }
            Self::Drift { ppm, .. } if !(-900_000..=900_000).contains(ppm) => {
                Err(self.range("ppm", "of -900000 to 900000", ppm))
            }
            Self::DnsWrong { name, as_of } if name == as_of => {
                Err(self.range("as_of", "that is another name", as_of))
            }
            Self::LoseRows { tables, .. } if tables.is_empty() => Err(FaultError::NoTable),
            _ if self.sides().is_some_and(|(from, to)| from.is_empty() || to.is_empty()) => {
                Err(FaultError::NoPlace(self.family()))
            }
            _ => Ok(()),
        }
    }

    fn range(&self, member: &'static str, range: &'static str, got: impl ToString) -> FaultError {
        FaultError::Range { kind: self.family(), member, range, got: got.to_string() }
    }

    fn probabilities(&self) -> Vec<f64> {
        match *self {
            Self::Loss { probability, .. }
            | Self::Corruption { probability, .. }
            | Self::Duplicate { probability, .. }
            | Self::Reorder { probability, .. }
            | Self::DiskErrors { probability, .. } => vec![probability],
            Self::LossBurst { probability, recovery, loss_good, loss_bad, .. } => {
                vec![probability, recovery, loss_good, loss_bad]
            }
            Self::Flapping { up_share, .. } => vec![up_share],
            _ => Vec::new(),
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
            Self::Partition { a, b }
            | Self::Flapping { a, b, .. }
            | Self::ResetConnections { a, b }
            | Self::HalfOpen { a, b } => Some((a, b)),
            Self::PartitionOneWay { from, to }
            | Self::Loss { from, to, .. }
            | Self::LossBurst { from, to, .. }
            | Self::Duplicate { from, to, .. }
            | Self::Reorder { from, to, .. }
            | Self::Corruption { from, to, .. }
            | Self::Latency { from, to, .. }
            | Self::Mtu { from, to, .. }
            | Self::Bandwidth { from, to, .. } => Some((from, to)),
            _ => None,
        }
    }

    /// The names of a fault of names.
    pub(crate) fn names(&self) -> Vec<&str> {
        match self {
            Self::DnsMissing { name } | Self::DnsStale { name } => vec![name],
            Self::DnsWrong { name, as_of } => vec![name, as_of],
            _ => Vec::new(),
        }
    }

    /// The machines of a fault of machines.
    pub(crate) fn host(&self) -> Option<&Place> {
        match self {
            Self::BacklogFull { host }
            | Self::Crash { host }
            | Self::PowerOff { host }
            | Self::Restart { host }
            | Self::Pause { host }
            | Self::SlowCpu { host, .. }
            | Self::Overload { host, .. }
            | Self::CertificateExpired { host }
            | Self::SlowDisk { host, .. }
            | Self::DiskFull { host }
            | Self::DiskErrors { host, .. }
            | Self::Drift { host, .. }
            | Self::Jump { host, .. }
            | Self::LoseRows { host, .. }
            | Self::Skew { host, .. } => Some(host),
            _ => None,
        }
    }
}
