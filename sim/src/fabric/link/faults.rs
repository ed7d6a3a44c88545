//! What the profile and the active faults of one direction make of a packet.

use fusion_runtime::Entropy;

use super::{HEADER_BYTES, Jitter, Link, Packet};
use crate::fabric::fault::{Fault, FaultId, Shape};
use crate::fabric::inject::Active;
use crate::fabric::observe::Protocol;

/// What IP and UDP add to a datagram, bytes.
const DATAGRAM_HEADER_BYTES: usize = 28;

/// The active faults of one direction.
#[derive(Default)]
pub(super) struct LinkFaults {
    cut: Option<FaultId>,
    flaps: Vec<Flap>,
    losses: Vec<(FaultId, f64)>,
    bursts: Vec<Burst>,
    corruptions: Vec<(FaultId, f64)>,
    duplicates: Vec<(FaultId, f64)>,
    reorders: Vec<(FaultId, f64, u64)>,
    pub(super) latencies: Vec<(FaultId, u64, Jitter)>,
    bandwidths: Vec<Line>,
    mtu: Option<(FaultId, usize)>,
}

/// A partition that comes and goes.
struct Flap {
    fault: FaultId,
    began_us: u64,
    period_us: u64,
    /// For how long of each period nothing passes.
    down_us: u64,
}

/// The two states of a Gilbert-Elliott link.
struct Burst {
    fault: FaultId,
    worsens: f64,
    recovers: f64,
    packets_max: u64,
    loss_good: f64,
    loss_bad: f64,
}

/// A narrow line.
struct Line {
    fault: FaultId,
    bytes_per_s: u64,
    queue_bytes: Option<u64>,
}

/// A link that has turned bad.
pub(super) struct Bad {
    by: FaultId,
    /// How many packets it stays so, when that is bounded.
    left: Option<u64>,
}

impl LinkFaults {
    pub(super) fn of(active: &[Active<'_>]) -> Self {
        let mut faults = Self::default();
        for &Active { id, began_us, fault } in active {
            faults.add(id, began_us, fault);
        }
        faults
    }

    fn add(&mut self, id: FaultId, began_us: u64, fault: &Fault) {
        match *fault {
            Fault::Partition { .. } | Fault::PartitionOneWay { .. } => self.cut = self.cut.or(Some(id)),
            Fault::Flapping { period_ms, up_share, .. } => {
                let period_us = period_ms * 1_000;
                let down_us = period_us - (period_us as f64 * up_share) as u64;
                self.flaps.push(Flap { fault: id, began_us, period_us, down_us });
            }
            Fault::Loss { probability, .. } => self.losses.push((id, probability)),
            Fault::LossBurst { probability, recovery, packets_max, loss_good, loss_bad, .. } => {
                let (worsens, recovers) = (probability, recovery);
                let burst = Burst { fault: id, worsens, recovers, packets_max, loss_good, loss_bad };
                self.bursts.push(burst);
            }
            Fault::Corruption { probability, .. } => self.corruptions.push((id, probability)),
            Fault::Duplicate { probability, .. } => self.duplicates.push((id, probability)),
            Fault::Reorder { probability, hold_ms, .. } => {
                self.reorders.push((id, probability, hold_ms * 1_000));
            }
            Fault::Latency { add_ms, jitter_ms, shape, .. } => {
                let jitter = Jitter::shaped(shape, jitter_ms * 1_000);
                self.latencies.push((id, add_ms * 1_000, jitter));
            }
            Fault::Bandwidth { bytes_per_s, queue_bytes, .. } => {
                self.bandwidths.push(Line { fault: id, bytes_per_s, queue_bytes });
            }
            Fault::Mtu { bytes, .. } => {
                let bytes = bytes as usize;
                self.mtu = self.mtu.filter(|(_, least)| *least <= bytes).or(Some((id, bytes)));
            }
            _ => {}
        }
    }

    /// The longest payload of a segment, and the fault that makes it so.
    pub(super) fn segment_max(&self) -> Option<(FaultId, usize)> {
        self.mtu.map(|(fault, bytes)| (fault, bytes - HEADER_BYTES as usize))
    }
}

impl Link {
    /// The fault that lets nothing pass just now.
    pub(super) fn cut_by(&self, now_us: u64) -> Option<FaultId> {
        let is_down = |flap: &&Flap| (now_us - flap.began_us) % flap.period_us < flap.down_us;
        self.faults.cut.or_else(|| self.faults.flaps.iter().find(is_down).map(|flap| flap.fault))
    }

    /// The fault for which a packet is too long.
    pub(super) fn too_long_for(&self, packet: &Packet) -> Option<FaultId> {
        let (fault, bytes) = self.faults.mtu?;
        let is_datagram = packet.protocol == Protocol::Udp;
        (is_datagram && packet.len + DATAGRAM_HEADER_BYTES > bytes).then_some(fault)
    }

    pub(super) fn is_lost(&self, mut blame: impl FnMut(FaultId)) -> bool {
        if happens(self.profile.loss, &self.entropy) {
            return true;
        }
        let culprit = self.faults.losses.iter().find(|(_, probability)| happens(*probability, &self.entropy));
        culprit.inspect(|(fault, _)| blame(*fault)).is_some()
    }

    /// Moves between good and bad, and says whether the packet is lost for it. A burst ends with its fault.
    pub(super) fn is_lost_in_burst(&mut self, mut blame: impl FnMut(FaultId)) -> bool {
        if self.faults.bursts.is_empty() {
            return false;
        }
        self.bad.take_if(|bad| !self.faults.bursts.iter().any(|burst| burst.fault == bad.by));
        let Some((burst, left)) = self.bad_state() else {
            let mut bursts = self.faults.bursts.iter();
            let culprit = bursts.find(|burst| happens(burst.loss_good, &self.entropy));
            return culprit.inspect(|burst| blame(burst.fault)).is_some();
        };
        let lost = burst.loss_bad >= 1.0 || happens(burst.loss_bad, &self.entropy);
        if lost {
            blame(burst.fault);
        }
        let is_over = left == Some(1) || happens(burst.recovers, &self.entropy);
        let left = left.map(|left| left - 1);
        self.bad = (!is_over).then_some(Bad { by: burst.fault, left });
        lost
    }

    /// The burst that the link is in with this packet, and for how many packets more.
    fn bad_state(&self) -> Option<(&Burst, Option<u64>)> {
        let mut bursts = self.faults.bursts.iter();
        if let Some(bad) = &self.bad {
            return bursts.find(|burst| burst.fault == bad.by).map(|burst| (burst, bad.left));
        }
        let begun = bursts.find(|burst| happens(burst.worsens, &self.entropy))?;
        let left = (begun.packets_max > 0).then(|| 1 + self.entropy.below(begun.packets_max));
        Some((begun, left))
    }

    /// Which bits of a packet are flipped: a number to draw them from.
    pub(super) fn corrupted(&self, mut blame: impl FnMut(FaultId)) -> Option<u64> {
        let mut corruptions = self.faults.corruptions.iter();
        let (fault, _) = corruptions.find(|(_, probability)| happens(*probability, &self.entropy))?;
        blame(*fault);
        Some(self.entropy.u64())
    }

    pub(super) fn is_doubled(&self, mut blame: impl FnMut(FaultId)) -> bool {
        if happens(self.profile.duplicate, &self.entropy) {
            return true;
        }
        let culprit =
            self.faults.duplicates.iter().find(|(_, probability)| happens(*probability, &self.entropy));
        culprit.inspect(|(fault, _)| blame(*fault)).is_some()
    }

    /// For how long a datagram is held back, and by which fault.
    pub(super) fn hold(&self) -> Option<(u64, Option<FaultId>)> {
        if happens(self.profile.reorder, &self.entropy) {
            return Some((1 + self.entropy.below(self.profile.hold_us_max), None));
        }
        let mut faults = self.faults.reorders.iter();
        let (fault, _, hold_us) = faults.find(|(_, probability, _)| happens(*probability, &self.entropy))?;
        Some((1 + self.entropy.below(*hold_us), Some(*fault)))
    }

    /// How long the packet waits for and spends on the narrowest line; `None` when its queue is full.
    pub(super) fn queue(&mut self, len: usize, now_us: u64, mut blame: impl FnMut(FaultId)) -> Option<u64> {
        let narrowest = self.faults.bandwidths.iter().min_by_key(|line| line.bytes_per_s);
        let fault =
            narrowest.filter(|line| self.profile.bytes_per_s.is_none_or(|own| line.bytes_per_s < own));
        let bytes_per_s = fault.map(|line| line.bytes_per_s).or(self.profile.bytes_per_s)?.max(1);
        if let Some(line) = fault {
            blame(line.fault);
        }
        let starts_us = self.line_free_us.max(now_us);
        let queue_us_max = match fault.and_then(|line| line.queue_bytes) {
            Some(queue_bytes) => queue_bytes.saturating_mul(1_000_000) / bytes_per_s,
            None => self.profile.queue_us_max,
        };
        if starts_us - now_us > queue_us_max {
            return None;
        }
        self.line_free_us = starts_us + (len as u64 + HEADER_BYTES) * 1_000_000 / bytes_per_s;
        Some(self.line_free_us - now_us)
    }

    /// Whether packets wait for a line at all.
    pub(super) fn is_narrow(&self) -> bool {
        !self.faults.bandwidths.is_empty() || self.profile.bytes_per_s.is_some()
    }
}

/// Draws only when there is something to decide, so that a link without faults draws nothing for them.
fn happens(probability: f64, entropy: &Entropy) -> bool {
    probability > 0.0 && entropy.chance(probability)
}

impl Jitter {
    /// About `us`, in this shape.
    fn shaped(shape: Shape, us: u64) -> Self {
        match shape {
            Shape::Uniform => Self::Uniform { us_max: us },
            Shape::Normal => Self::Normal { us_max: us },
            Shape::Tail => Self::Tail { us_half: us },
        }
    }
}
