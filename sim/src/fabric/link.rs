//! One direction between two hosts: what happens to one packet.
//!
//! Links come into being with their first packet. Not here: what a protocol makes of a loss.

use std::net::SocketAddr;

use fusion_runtime::Entropy;
use serde::{Deserialize, Serialize};

use super::fault::{Fault, FaultId, Place};
use super::host::HostId;
use super::observe::{Endpoint, Protocol, Reason, WireEvent, WireKind};
use super::world::State;

/// What a header adds to a payload on the line, bytes: IP and TCP without options.
const HEADER_BYTES: u64 = 40;

/// How one direction of a link behaves when nothing is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkProfile {
    /// The least time a packet takes, microseconds.
    pub latency_us_min: u64,
    /// Up to this much more for the distance, microseconds: drawn once per pair of data centres.
    pub distance_us_max: u64,
    /// And this for each packet.
    pub jitter: Jitter,
    /// The probability that a packet is lost, 0 to 1.
    pub loss: f64,
    /// The probability that a datagram arrives twice, 0 to 1.
    pub duplicate: f64,
    /// The probability that a datagram is held back, 0 to 1.
    pub reorder: f64,
    /// For how long at most it is held back, microseconds.
    pub hold_us_max: u64,
    /// What the line carries, headers included; unlimited when absent.
    pub bytes_per_s: Option<u64>,
    /// How long a packet waits for a busy line before it is dropped, microseconds.
    pub queue_us_max: u64,
}

/// The random part of a packet's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Jitter {
    /// Evenly between nothing and `us_max`.
    Uniform {
        /// Microseconds.
        us_max: u64,
    },
    /// Mostly little, seldom much: halves with every `us_half`, at most 16 times that.
    Tail {
        /// Microseconds.
        us_half: u64,
    },
}

/// The state of one direction.
pub(super) struct Link {
    entropy: Entropy,
    profile: LinkProfile,
    base_us: u64,
    faults: LinkFaults,
    /// For which set of rules `faults` was worked out.
    rules_version: u64,
    /// How many more packets a burst takes, and whose burst it is.
    burst: Option<(FaultId, u64)>,
    line_free_us: u64,
    last_datagram_us: u64,
    datagrams_sent: u64,
    newest_delivered: u64,
}

/// The active faults of one direction.
#[derive(Default)]
struct LinkFaults {
    cut: Option<FaultId>,
    losses: Vec<(FaultId, f64)>,
    bursts: Vec<(FaultId, f64, u64)>,
    duplicates: Vec<(FaultId, f64)>,
    reorders: Vec<(FaultId, f64, u64)>,
    latencies: Vec<(FaultId, u64, u64)>,
    bandwidths: Vec<(FaultId, u64)>,
}

/// A packet's envelope.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) protocol: Protocol,
    pub(super) from: (HostId, SocketAddr),
    pub(super) to: (HostId, SocketAddr),
    pub(super) connection: u64,
    pub(super) len: usize,
}

/// A datagram's place in the order of sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    number: u64,
    /// The fault that holds it back.
    held_by: Option<FaultId>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transit {
    Dropped(Reason),
    Arrives {
        at_us: u64,
        /// When the duplicate arrives.
        again_at_us: Option<u64>,
        turn: Turn,
    },
}

impl LinkProfile {
    /// Inside a machine: at once.
    #[must_use]
    pub fn loopback() -> Self {
        Self { latency_us_min: 20, jitter: Jitter::Uniform { us_max: 0 }, ..Self::near() }
    }

    /// Inside a data centre: 0.2 to 1 ms.
    #[must_use]
    pub fn near() -> Self {
        Self {
            latency_us_min: 200,
            distance_us_max: 0,
            jitter: Jitter::Uniform { us_max: 800 },
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            hold_us_max: 0,
            bytes_per_s: None,
            queue_us_max: 200_000,
        }
    }

    /// Between data centres: 10 to 60 ms, of which up to 10 ms jitter.
    #[must_use]
    pub fn far() -> Self {
        Self {
            latency_us_min: 10_000,
            distance_us_max: 40_000,
            jitter: Jitter::Uniform { us_max: 10_000 },
            ..Self::near()
        }
    }
}

impl Default for LinkProfile {
    fn default() -> Self {
        Self::near()
    }
}

impl Jitter {
    fn draw_us(self, entropy: &Entropy) -> u64 {
        match self {
            Self::Uniform { us_max: 0 } | Self::Tail { us_half: 0 } => 0,
            Self::Uniform { us_max } => entropy.below(us_max + 1),
            Self::Tail { us_half } => {
                // Whole halvings from the low bits, the rest of the way evenly: integers only, so that
                // every machine draws the same.
                let draw = entropy.u64();
                let halvings = u64::from((draw & 0x7fff).trailing_ones());
                halvings * us_half + ((((draw >> 16) & 0xffff) * us_half) >> 16)
            }
        }
    }
}

impl State {
    /// Sends `packet` on its way: tells the observer, and says what becomes of it.
    pub(super) fn launch(&mut self, packet: &Packet, kind: WireKind) -> Transit {
        self.observe(packet, kind);
        let transit = self.transit(packet);
        if let Transit::Dropped(reason) = transit {
            self.observe(packet, WireKind::Dropped(reason));
        }
        transit
    }

    /// What becomes of `packet`, by the link's profile and the faults on it.
    pub(super) fn transit(&mut self, packet: &Packet) -> Transit {
        let now_us = self.now_us();
        let ends = (packet.from.0, packet.to.0);
        if !self.links.contains_key(&ends) {
            let link = self.new_link(ends);
            self.links.insert(ends, link);
        }
        let Some(link) = self.links.get_mut(&ends) else { unreachable!("it was just put there") };
        if link.rules_version != self.faults.version {
            link.rules_version = self.faults.version;
            link.faults = LinkFaults::of(&self.faults.active_link_faults(&self.hosts, ends));
        }
        link.pass(packet, now_us, |fault| self.faults.took_effect(fault))
    }

    /// Notes that a datagram was delivered, and whether a later one had come before it.
    pub(super) fn note_turn(&mut self, ends: (HostId, HostId), turn: Turn) {
        let Some(link) = self.links.get_mut(&ends) else { return };
        if turn.number > link.newest_delivered {
            link.newest_delivered = turn.number;
            return;
        }
        self.counts.datagrams_reordered += 1;
        if let Some(fault) = turn.held_by {
            self.faults.took_effect(fault);
        }
    }

    /// Tells the observer what happened to `packet`, and counts it.
    pub(super) fn observe(&mut self, packet: &Packet, kind: WireKind) {
        self.counts.add(packet.protocol, kind);
        if self.watches_wire {
            let event = self.wire_event(packet, kind);
            self.observer.wire(&event);
        }
    }

    /// Hands payload that reached a watched host to the observer.
    pub(super) fn tap(&self, packet: &Packet, bytes: &[u8]) {
        if self.host(packet.to.0).tapped && !bytes.is_empty() {
            self.observer.bytes(&self.wire_event(packet, WireKind::Delivered), bytes);
        }
    }

    fn wire_event(&self, packet: &Packet, kind: WireKind) -> WireEvent {
        let endpoint = |(host, address)| Endpoint { host: self.host(host).name.clone(), address };
        WireEvent {
            at_us: self.now_us(),
            kind,
            protocol: packet.protocol,
            from: endpoint(packet.from),
            to: endpoint(packet.to),
            connection: packet.connection,
            len: packet.len,
        }
    }

    /// Sets how links from `from` to `to` behave, those in use included.
    pub(super) fn set_link(&mut self, from: Vec<Place>, to: Vec<Place>, profile: LinkProfile) {
        self.profiles.push((from, to, profile));
        let in_use: Vec<_> = self.links.keys().copied().collect();
        for ends in in_use {
            let Link { profile, base_us, .. } = self.new_link(ends);
            if let Some(link) = self.links.get_mut(&ends) {
                (link.profile, link.base_us) = (profile, base_us);
            }
        }
    }

    fn new_link(&self, ends: (HostId, HostId)) -> Link {
        let (from, to) = (self.host(ends.0), self.host(ends.1));
        let set = self.profiles.iter().rev().find(|(a, b, _)| from.is_at(a) && to.is_at(b));
        let profile = match set {
            _ if ends.0 == ends.1 => &self.options.loopback,
            Some((_, _, profile)) => profile,
            None if from.datacenter == to.datacenter => &self.options.near,
            None => &self.options.far,
        };
        let (near, far) = if from.datacenter <= to.datacenter { (from, to) } else { (to, from) };
        let distance = self.entropy.stream(&format!("distance/{}/{}", near.datacenter, far.datacenter));
        Link {
            entropy: self.entropy.stream(&format!("link/{}/{}", from.name, to.name)),
            base_us: profile.latency_us_min + distance.below(profile.distance_us_max + 1),
            profile: profile.clone(),
            faults: LinkFaults::default(),
            rules_version: 0,
            burst: None,
            line_free_us: 0,
            last_datagram_us: 0,
            datagrams_sent: 0,
            newest_delivered: 0,
        }
    }
}

impl Link {
    /// What becomes of `packet`; `blame` is told of each fault that makes a difference.
    fn pass(&mut self, packet: &Packet, now_us: u64, mut blame: impl FnMut(FaultId)) -> Transit {
        if let Some(fault) = self.faults.cut {
            blame(fault);
            return Transit::Dropped(Reason::Partition);
        }
        if self.is_lost(&mut blame) || self.is_lost_in_burst(&mut blame) {
            return Transit::Dropped(Reason::Loss);
        }
        let Some(queued_us) = self.queue(packet.len, now_us, &mut blame) else {
            return Transit::Dropped(Reason::Queue);
        };
        let mut at_us = now_us + queued_us + self.base_us + self.profile.jitter.draw_us(&self.entropy);
        for &(fault, add_us, jitter_us) in &self.faults.latencies {
            blame(fault);
            at_us += add_us + Jitter::Uniform { us_max: jitter_us }.draw_us(&self.entropy);
        }
        if packet.protocol == Protocol::Tcp {
            return Transit::Arrives { at_us, again_at_us: None, turn: Turn::default() };
        }
        self.pass_datagram(at_us, blame)
    }

    /// Datagrams keep their order unless one is held back.
    fn pass_datagram(&mut self, at_us: u64, blame: impl FnMut(FaultId)) -> Transit {
        self.datagrams_sent += 1;
        let in_order_us = at_us.max(self.last_datagram_us);
        let (at_us, held_by) = match self.hold() {
            Some((hold_us, fault)) => (in_order_us + hold_us, fault),
            None => {
                self.last_datagram_us = in_order_us;
                (in_order_us, None)
            }
        };
        let again_at_us =
            self.is_doubled(blame).then(|| at_us + 1 + self.profile.jitter.draw_us(&self.entropy));
        Transit::Arrives { at_us, again_at_us, turn: Turn { number: self.datagrams_sent, held_by } }
    }

    fn is_lost(&self, mut blame: impl FnMut(FaultId)) -> bool {
        if happens(self.profile.loss, &self.entropy) {
            return true;
        }
        let culprit = self.faults.losses.iter().find(|(_, probability)| happens(*probability, &self.entropy));
        culprit.inspect(|(fault, _)| blame(*fault)).is_some()
    }

    fn is_lost_in_burst(&mut self, mut blame: impl FnMut(FaultId)) -> bool {
        if self.burst.is_none() {
            let mut faults = self.faults.bursts.iter();
            let begun = faults.find(|(_, probability, _)| happens(*probability, &self.entropy));
            self.burst = begun.map(|(fault, _, packets_max)| (*fault, 1 + self.entropy.below(*packets_max)));
        }
        // A burst ends with its fault.
        let ongoing = self.burst.filter(|(by, _)| self.faults.bursts.iter().any(|(fault, ..)| fault == by));
        self.burst = ongoing.map(|(fault, left)| (fault, left - 1)).filter(|(_, left)| *left > 0);
        ongoing.inspect(|(fault, _)| blame(*fault)).is_some()
    }

    fn is_doubled(&self, mut blame: impl FnMut(FaultId)) -> bool {
        if happens(self.profile.duplicate, &self.entropy) {
            return true;
        }
        let culprit =
            self.faults.duplicates.iter().find(|(_, probability)| happens(*probability, &self.entropy));
        culprit.inspect(|(fault, _)| blame(*fault)).is_some()
    }

    /// For how long a datagram is held back, and by which fault.
    fn hold(&self) -> Option<(u64, Option<FaultId>)> {
        if happens(self.profile.reorder, &self.entropy) {
            return Some((1 + self.entropy.below(self.profile.hold_us_max), None));
        }
        let mut faults = self.faults.reorders.iter();
        let (fault, _, hold_us) = faults.find(|(_, probability, _)| happens(*probability, &self.entropy))?;
        Some((1 + self.entropy.below(*hold_us), Some(*fault)))
    }

    /// How long the packet waits for and spends on the narrowest line; `None` when its queue is full.
    fn queue(&mut self, len: usize, now_us: u64, mut blame: impl FnMut(FaultId)) -> Option<u64> {
        let narrowest = self.faults.bandwidths.iter().min_by_key(|(_, bytes_per_s)| *bytes_per_s);
        let fault = narrowest.filter(|(_, rate)| self.profile.bytes_per_s.is_none_or(|own| rate < &own));
        let Some(bytes_per_s) = fault.map(|(_, rate)| *rate).or(self.profile.bytes_per_s) else {
            return Some(0);
        };
        if let Some((fault, _)) = fault {
            blame(*fault);
        }
        let starts_us = self.line_free_us.max(now_us);
        if starts_us - now_us > self.profile.queue_us_max {
            return None;
        }
        self.line_free_us = starts_us + (len as u64 + HEADER_BYTES) * 1_000_000 / bytes_per_s.max(1);
        Some(self.line_free_us - now_us)
    }
}

impl LinkFaults {
    fn of(active: &[(FaultId, &Fault)]) -> Self {
        let mut faults = Self::default();
        for &(id, fault) in active {
            match *fault {
                Fault::Partition { .. } | Fault::PartitionOneWay { .. } => {
                    faults.cut = faults.cut.or(Some(id));
                }
                Fault::Loss { probability, .. } => faults.losses.push((id, probability)),
                Fault::LossBurst { probability, packets_max, .. } => {
                    faults.bursts.push((id, probability, packets_max));
                }
                Fault::Duplicate { probability, .. } => faults.duplicates.push((id, probability)),
                Fault::Reorder { probability, hold_ms, .. } => {
                    faults.reorders.push((id, probability, hold_ms * 1_000));
                }
                Fault::Latency { add_ms, jitter_ms, .. } => {
                    faults.latencies.push((id, add_ms * 1_000, jitter_ms * 1_000));
                }
                Fault::Bandwidth { bytes_per_s, .. } => faults.bandwidths.push((id, bytes_per_s)),
                _ => {}
            }
        }
        faults
    }
}

/// Draws only when there is something to decide, so that a link without faults draws nothing for them.
fn happens(probability: f64, entropy: &Entropy) -> bool {
    probability > 0.0 && entropy.chance(probability)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_jitter_is_mostly_little_and_seldom_much() {
        let entropy = Entropy::from_u64(1);
        let draws: Vec<_> = (0..10_000).map(|_| Jitter::Tail { us_half: 1_000 }.draw_us(&entropy)).collect();
        let below_half = draws.iter().filter(|us| **us < 1_000).count();
        assert!((4_500..5_500).contains(&below_half), "{below_half}");
        assert!(draws.iter().any(|us| *us > 5_000));
        assert!(draws.iter().all(|us| *us < 16_000));
    }

    #[test]
    fn uniform_jitter_stays_below_its_limit_and_reaches_it() {
        let entropy = Entropy::from_u64(1);
        let draws: Vec<_> = (0..1_000).map(|_| Jitter::Uniform { us_max: 3 }.draw_us(&entropy)).collect();
        assert_eq!((draws.iter().min(), draws.iter().max()), (Some(&0), Some(&3)));
    }

    #[test]
    fn a_profile_with_a_misspelt_field_is_refused() {
        assert!(serde_json::from_str::<LinkProfile>(r#"{"latency_ms":3}"#).is_err());
    }
}
