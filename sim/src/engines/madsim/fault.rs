//! What madsim can let go wrong, and how all active faults together become the state of its network and
//! machines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use madsim::net::{Config, NetSim};
use madsim::task::NodeId;

use super::machine::{Inhabitants, Machine, Site, State};
use super::names::Names;
use crate::fabric::{Fault, FaultId, Place, Shape};

/// Whether madsim can let it happen.
///
/// It cuts links, kills and holds nodes; loss and latency are those of the whole network. Disks, clocks
/// and names are our own. Its connections know neither resets nor bandwidths, its datagrams come once.
pub(super) fn can_express(fault: &Fault) -> bool {
    match fault {
        Fault::Partition { .. }
        | Fault::PartitionOneWay { .. }
        | Fault::Crash { .. }
        | Fault::Restart { .. }
        | Fault::Pause { .. }
        | Fault::SlowDisk { .. }
        | Fault::DiskFull { .. }
        | Fault::Skew { .. }
        | Fault::DnsMissing { .. } => true,
        Fault::Loss { from, to, .. } | Fault::Latency { from, to, shape: Shape::Uniform, .. } => {
            from.contains(&Place::Everywhere) && to.contains(&Place::Everywhere)
        }
        _ => false,
    }
}

/// The faults that are active.
pub(super) struct Faults {
    next: u64,
    active: BTreeMap<FaultId, Fault>,
    names: Names,
    /// The links that are cut.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// How the network is where nothing is wrong.
    healthy: Config,
}

impl Faults {
    /// None yet, in a world with these names whose network is `healthy`.
    pub(super) fn new(names: Names, healthy: Config) -> Self {
        Self { next: 0, active: BTreeMap::new(), names, cut: BTreeSet::new(), healthy }
    }

    /// Lets `fault` begin.
    pub(super) fn begin(&mut self, fault: &Fault, there: &mut Inhabitants) -> FaultId {
        self.next += 1;
        let id = FaultId(self.next);
        match fault {
            Fault::Restart { host } => there.at(host).for_each(|machine| {
                machine.be(State::Down);
                machine.be(State::Up);
            }),
            Fault::Crash { host } => there.at(host).for_each(|machine| machine.be(State::Down)),
            _ => {}
        }
        if !fault.is_instant() {
            self.active.insert(id, fault.clone());
        }
        self.apply(there);
        id
    }

    /// Lets `fault` end, if it has not; crashed machines start again.
    pub(super) fn end(&mut self, fault: FaultId, there: &mut Inhabitants) {
        if let Some(Fault::Crash { host }) = self.active.remove(&fault) {
            there.at(&host).for_each(|machine| machine.be(State::Up));
        }
        self.apply(there);
    }

    /// Lets every fault end and starts every machine that is down.
    pub(super) fn heal(&mut self, there: &mut Inhabitants) {
        self.active.clear();
        there.machines.iter_mut().for_each(|machine| machine.be(State::Up));
        self.apply(there);
    }

    /// Makes the world what the active faults together say.
    fn apply(&mut self, there: &mut Inhabitants) {
        there.machines.iter_mut().for_each(|machine| self.apply_to(machine));
        there.devices.iter().for_each(|device| device.clock.set_skew_us(self.skew_us(&device.site)));
        self.names.lose(self.active.values().filter_map(|fault| match fault {
            Fault::DnsMissing { name } => Some(name.as_str()),
            _ => None,
        }));
        self.cut_links(there);
        NetSim::current().update_config(|config| *config = self.conditions());
    }

    fn apply_to(&self, machine: &mut Machine) {
        let (mut paused, mut slower_by_ms, mut full) = (false, 0, false);
        for fault in self.active.values() {
            let here = |host: &Place| machine.site.is_at(std::slice::from_ref(host));
            match fault {
                Fault::Pause { host } if here(host) => paused = true,
                Fault::SlowDisk { host, add_ms } if here(host) => slower_by_ms += add_ms,
                Fault::DiskFull { host } if here(host) => full = true,
                _ => {}
            }
        }
        machine.disk.fault(slower_by_ms, full);
        machine.clock.set_skew_us(self.skew_us(&machine.site));
        if machine.state != State::Down {
            machine.be(if paused { State::Paused } else { State::Up });
        }
    }

    /// By how much the clock there is wrong, in microseconds.
    pub(super) fn skew_us(&self, site: &Site) -> i64 {
        let wrong = self.active.values().map(|fault| match fault {
            Fault::Skew { host, us } if site.is_at(std::slice::from_ref(host)) => *us,
            _ => 0,
        });
        wrong.sum()
    }

    fn cut_links(&mut self, there: &Inhabitants) {
        let net = NetSim::current();
        for from in there.sites() {
            for to in there.sites().filter(|to| to.node != from.node) {
                let link = (from.node, to.node);
                let cut = self.active.values().any(|fault| cuts(fault, from, to));
                if cut && self.cut.insert(link) {
                    net.clog_link(link.0, link.1);
                } else if !cut && self.cut.remove(&link) {
                    net.unclog_link(link.0, link.1);
                }
            }
        }
    }

    /// Loss and latency of the whole network.
    fn conditions(&self) -> Config {
        let mut now = self.healthy.clone();
        let mut arrives = 1.0;
        for fault in self.active.values() {
            match fault {
                Fault::Loss { probability, .. } => arrives *= 1.0 - probability,
                Fault::Latency { add_ms, jitter_ms, .. } => {
                    now.send_latency.start += Duration::from_millis(*add_ms);
                    now.send_latency.end += Duration::from_millis(add_ms + jitter_ms);
                }
                _ => {}
            }
        }
        now.packet_loss_rate = 1.0 - arrives;
        now
    }
}

/// Whether no packet passes from `from` to `to`.
fn cuts(fault: &Fault, from: &Site, to: &Site) -> bool {
    match fault {
        Fault::Partition { a, b } => from.is_at(a) && to.is_at(b) || from.is_at(b) && to.is_at(a),
        Fault::PartitionOneWay { from: senders, to: receivers } => from.is_at(senders) && to.is_at(receivers),
        _ => false,
    }
}
