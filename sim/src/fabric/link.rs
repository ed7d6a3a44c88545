//! One direction between two hosts: what happens to one packet.
//!
//! Links come into being with their first packet. `profile` says how they are when nothing is wrong, `faults`
//! what chance and faults do. Not here: what a protocol makes of a loss.

mod faults;
mod profile;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use fusion_runtime::Entropy;

use self::faults::{Bad, LinkFaults};
pub use self::profile::{Jitter, LinkProfile};
use super::fault::{FaultId, Place};
use super::host::HostId;
use super::observe::{Cargo, Endpoint, Fate, Frame, Protocol, Reason, WireEvent, WireKind};
use super::world::State;

/// What a header adds to a payload on the line, bytes: IP and TCP without options.
const HEADER_BYTES: u64 = 40;

/// Every direction in use, by its sender: a machine sends to few, and finds them at once however many
/// machines there are.
#[derive(Default)]
pub(super) struct Links(Vec<BTreeMap<HostId, Box<Link>>>);

/// The state of one direction.
pub(super) struct Link {
    entropy: Entropy,
    profile: LinkProfile,
    base_us: u64,
    faults: LinkFaults,
    /// For which set of rules `faults` was worked out.
    rules_version: u64,
    /// Whether a burst of losses is on.
    bad: Option<Bad>,
    line_free_us: u64,
    last_datagram_us: u64,
    datagrams_sent: u64,
    newest_delivered: u64,
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
        /// Bits are flipped: a number to draw them from.
        flipped: Option<u64>,
    },
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
        self.refresh(ends);
        let Some(link) = self.links.get_mut(ends) else { unreachable!("it was just put there") };
        link.pass(packet, now_us, |fault| self.faults.took_effect(fault))
    }

    /// The longest payload of a segment between these ends, when a fault bounds it, and which fault.
    pub(super) fn segment_max(&mut self, ends: (HostId, HostId)) -> Option<(FaultId, usize)> {
        if !self.faults.bound_length {
            return None;
        }
        self.refresh(ends);
        self.links.get_mut(ends).and_then(|link| link.faults.segment_max())
    }

    /// Makes the link if it is new, and lets it know the active faults if they have changed.
    fn refresh(&mut self, ends: (HostId, HostId)) {
        match self.links.get_mut(ends) {
            Some(link) if link.rules_version == self.faults.version => return,
            Some(_) => {}
            None => self.links.put(ends, self.new_link(ends)),
        }
        if let Some(link) = self.links.get_mut(ends) {
            link.rules_version = self.faults.version;
            link.faults = LinkFaults::of(&self.faults.active_link_faults(&self.hosts, ends));
        }
    }

    /// Notes that a datagram was delivered, and whether a later one had come before it.
    pub(super) fn note_turn(&mut self, ends: (HostId, HostId), turn: Turn) {
        let Some(link) = self.links.get_mut(ends) else { return };
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
        if matches!(kind, WireKind::Sent | WireKind::Retransmitted) {
            self.effort.sent(&self.host(packet.from.0).name);
        }
        if self.watches_wire {
            let event = self.wire_event(packet, kind);
            self.observer.wire(&event);
        }
    }

    /// Hands payload that reached a watched host to the observer, and any to the account of a world that spins.
    pub(super) fn tap(&self, packet: &Packet, bytes: &[u8]) {
        self.effort.carried(&self.host(packet.from.0).name, &self.host(packet.to.0).name, bytes);
        if self.host(packet.to.0).tapped && !bytes.is_empty() {
            self.observer.bytes(&self.wire_event(packet, WireKind::Delivered), bytes);
        }
    }

    /// Shows the observer a packet as it leaves its machine. Only when somebody looks.
    pub(super) fn frame(&self, packet: &Packet, cargo: Cargo<'_>, transit: &Transit) {
        self.observer.frame(&self.as_frame(packet, cargo, transit));
    }

    /// Shows the observer that a frame shown before was lost at its destination. Only when somebody looks.
    pub(super) fn frame_lost(&self, packet: &Packet, cargo: Cargo<'_>, transit: &Transit) {
        self.observer.frame_lost(&self.as_frame(packet, cargo, transit));
    }

    fn as_frame<'a>(&self, packet: &Packet, cargo: Cargo<'a>, transit: &Transit) -> Frame<'a> {
        let fate = match *transit {
            Transit::Dropped(reason) => Fate::Lost(reason),
            Transit::Arrives { at_us, again_at_us, flipped, .. } => {
                Fate::Arrives { at_us, twice: again_at_us.is_some(), corrupted: flipped.is_some() }
            }
        };
        let (at_us, connection) = (self.now_us(), packet.connection);
        Frame {
            at_us,
            from: self.endpoint(packet.from),
            to: self.endpoint(packet.to),
            connection,
            cargo,
            fate,
        }
    }

    fn endpoint(&self, (host, address): (HostId, SocketAddr)) -> Endpoint {
        Endpoint { host: self.host(host).name.clone(), address }
    }

    fn wire_event(&self, packet: &Packet, kind: WireKind) -> WireEvent {
        WireEvent {
            at_us: self.now_us(),
            kind,
            protocol: packet.protocol,
            from: self.endpoint(packet.from),
            to: self.endpoint(packet.to),
            connection: packet.connection,
            len: packet.len,
        }
    }

    /// Sets how links from `from` to `to` behave, those in use included.
    pub(super) fn set_link(&mut self, from: Vec<Place>, to: Vec<Place>, profile: LinkProfile) {
        self.profiles.push((from, to, profile));
        for ends in self.links.in_use() {
            let Link { profile, base_us, .. } = self.new_link(ends);
            if let Some(link) = self.links.get_mut(ends) {
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
            bad: None,
            line_free_us: 0,
            last_datagram_us: 0,
            datagrams_sent: 0,
            newest_delivered: 0,
        }
    }
}

impl Links {
    fn get_mut(&mut self, (from, to): (HostId, HostId)) -> Option<&mut Link> {
        self.0.get_mut(from.0 as usize)?.get_mut(&to).map(|link| &mut **link)
    }

    fn put(&mut self, (from, to): (HostId, HostId), link: Link) {
        let from = from.0 as usize;
        if self.0.len() <= from {
            self.0.resize_with(from + 1, BTreeMap::new);
        }
        self.0[from].insert(to, Box::new(link));
    }

    fn in_use(&self) -> Vec<(HostId, HostId)> {
        let of = |(from, to): (usize, &BTreeMap<HostId, _>)| {
            to.keys().map(|to| (HostId(from as u32), *to)).collect::<Vec<_>>()
        };
        self.0.iter().enumerate().flat_map(of).collect()
    }
}

impl Link {
    /// What becomes of `packet`; `blame` is told of each fault that makes a difference.
    fn pass(&mut self, packet: &Packet, now_us: u64, mut blame: impl FnMut(FaultId)) -> Transit {
        if let Some(fault) = self.cut_by(now_us) {
            blame(fault);
            return Transit::Dropped(Reason::Partition);
        }
        if let Some(fault) = self.too_long_for(packet) {
            blame(fault);
            return Transit::Dropped(Reason::TooLong);
        }
        if self.is_lost(&mut blame) || self.is_lost_in_burst(&mut blame) {
            return Transit::Dropped(Reason::Loss);
        }
        let mut queued_us = 0;
        if self.is_narrow() {
            let Some(us) = self.queue(packet.len, now_us, &mut blame) else {
                return Transit::Dropped(Reason::Queue);
            };
            queued_us = us;
        }
        let mut at_us = now_us + queued_us + self.base_us + self.profile.jitter.draw_us(&self.entropy);
        for &(fault, add_us, jitter) in &self.faults.latencies {
            blame(fault);
            at_us += add_us + jitter.draw_us(&self.entropy);
        }
        let flipped = self.corrupted(&mut blame);
        match packet.protocol {
            Protocol::Tcp if flipped.is_some() => Transit::Dropped(Reason::Checksum),
            Protocol::Tcp => Transit::Arrives { at_us, again_at_us: None, turn: Turn::default(), flipped },
            Protocol::Udp => self.pass_datagram(at_us, flipped, blame),
        }
    }

    /// Datagrams keep their order unless one is held back.
    fn pass_datagram(&mut self, at_us: u64, flipped: Option<u64>, blame: impl FnMut(FaultId)) -> Transit {
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
        let turn = Turn { number: self.datagrams_sent, held_by };
        Transit::Arrives { at_us, again_at_us, turn, flipped }
    }
}
