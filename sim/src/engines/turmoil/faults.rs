//! What can go wrong on turmoil, and what is refused by name.
//!
//! A partition holds segments and loses datagrams until it heals: turmoil's own partition would lose segments
//! for ever, for its TCP sends nothing again. One-way it has no hold, so that there segments *are* lost for
//! ever, and connections hang until somebody's patience ends. Loss, for the same reason, is of datagrams only.
//! Latency is of both ways of a pair of machines. A crash closes connections and refuses new ones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use fusion_deployment::{Federation, HostSpec};
use fusion_runtime::Entropy;
use turmoil::Sim;

use super::disk::Disk;
use super::net::{Losses, Wires};
use crate::fabric::{Fault, FaultCount, FaultId, Place, Shape};
use crate::plan::Plan;

/// What turmoil can express.
pub const FAMILIES: [&str; 6] = ["crash", "latency", "loss", "partition", "partition_one_way", "restart"];

/// Every step looks at every pair of machines for every machine: more would take for ever.
const MACHINES_MAX: usize = 30;

/// Why turmoil cannot play `plan`; nothing when it can.
pub(super) fn refusal(plan: &Plan, federation: &Federation) -> Option<String> {
    let machines = federation.hosts.len() + 1;
    if machines > MACHINES_MAX {
        return Some(format!("turmoil cannot express {machines} machines; it is for at most {MACHINES_MAX}"));
    }
    plan.faults.iter().find_map(|planned| {
        let what = inexpressible(&planned.fault, federation)?;
        Some(format!("turmoil cannot express {what} (fault {})", planned.id))
    })
}

fn inexpressible(fault: &Fault, federation: &Federation) -> Option<String> {
    let family = fault.family();
    if !FAMILIES.contains(&family) {
        return Some(format!("`{family}`"));
    }
    if let Fault::Latency { shape: Shape::Normal | Shape::Tail, .. } = fault {
        return Some(format!("`{family}` with a `shape` of its own"));
    }
    if fault.host() == Some(&Place::Everywhere) {
        return Some(format!("`{family}` of `*`, for all devices share one machine that must stay"));
    }
    let known = |place: &&Place| {
        **place == Place::Everywhere || federation.hosts.iter().any(|host| is_at(host, place))
    };
    let unknown = fault.places().find(|place| !known(place))?;
    Some(format!("`{family}` of `{unknown}`, for all devices share one machine"))
}

/// A machine as faults name it.
pub(super) struct Machine {
    /// Nothing for the machine of all devices.
    spec: Option<HostSpec>,
    ip: IpAddr,
    data_center: String,
}

/// Something to be made between two steps.
pub(super) enum Change {
    Crash { name: String, ip: IpAddr },
    Start { ip: IpAddr },
    Link { ends: (IpAddr, IpAddr), before: Option<Link>, now: Link },
}

/// How two machines are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    way: Way,
    latency_ms: (u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Segments wait, both ways.
    Held,
    /// Segments are lost, there or back.
    Cut {
        there: bool,
        back: bool,
    },
}

/// The faults of a world, past and present, and what they have made of it.
pub(super) struct Faults {
    machines: Vec<Machine>,
    /// How long a packet takes between two data centres when nothing is wrong, milliseconds.
    distances: Entropy,
    book: BTreeMap<FaultId, Record>,
    active: Vec<FaultId>,
    links: BTreeMap<(usize, usize), Link>,
    down: BTreeSet<usize>,
}

struct Record {
    fault: Fault,
    effective: bool,
}

impl Machine {
    pub(super) fn of(spec: &HostSpec) -> Self {
        Self { ip: spec.ip, data_center: spec.data_center.clone(), spec: Some(spec.clone()) }
    }

    /// The machine of all devices, far from everything.
    pub(super) fn of_people(ip: IpAddr) -> Self {
        Self { spec: None, ip, data_center: String::new() }
    }

    fn is_at(&self, places: &[Place]) -> bool {
        places.iter().any(|place| match &self.spec {
            Some(spec) => is_at(spec, place),
            None => *place == Place::Everywhere,
        })
    }
}

impl Faults {
    /// Nothing is wrong yet.
    pub(super) fn new(machines: Vec<Machine>, distances: Entropy) -> Self {
        Self {
            machines,
            distances,
            book: BTreeMap::new(),
            active: Vec::new(),
            links: BTreeMap::new(),
            down: BTreeSet::new(),
        }
    }

    /// Writes `fault` into the book; says which machines it changes.
    pub(super) fn begin(&mut self, fault: &Fault) -> Result<(FaultId, Vec<Change>), String> {
        fault.check().map_err(|error| error.to_string())?;
        if !FAMILIES.contains(&fault.family()) {
            return Err(format!("turmoil cannot express `{}`", fault.family()));
        }
        let id = FaultId(self.book.len() as u64 + 1);
        let struck = self.struck(fault);
        let mut changes = Vec::new();
        if !struck.is_empty() {
            changes.extend(struck.iter().filter_map(|machine| self.take_down(*machine)));
        }
        let effective = !changes.is_empty() || fault.is_instant();
        if fault.is_instant() {
            changes.extend(struck.iter().filter_map(|machine| self.bring_up(*machine)));
        } else {
            self.active.push(id);
        }
        self.book.insert(id, Record { fault: fault.clone(), effective });
        Ok((id, changes))
    }

    /// A fault is over, if it is not already; says which machines that changes.
    pub(super) fn end(&mut self, id: FaultId) -> Vec<Change> {
        let before = self.active.len();
        self.active.retain(|active| *active != id);
        if self.active.len() == before {
            return Vec::new();
        }
        let kept_down: BTreeSet<_> = self.active_faults().flat_map(|fault| self.struck(fault)).collect();
        let struck = self.struck(&self.book[&id].fault);
        struck.difference(&kept_down).filter_map(|machine| self.bring_up(*machine)).collect()
    }

    /// Every fault is over, and every machine comes up.
    pub(super) fn end_all(&mut self) -> Vec<Change> {
        self.active.clear();
        let down = self.down.clone();
        down.into_iter().filter_map(|machine| self.bring_up(machine)).collect()
    }

    /// What must change for links to be as the active faults want them.
    pub(super) fn settle(&mut self) -> Vec<Change> {
        let count = self.machines.len();
        let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
        let mut changes = Vec::new();
        for pair in pairs.collect::<Vec<_>>() {
            let now = self.link(pair);
            let before = self.links.insert(pair, now);
            if before != Some(now) {
                let ends = (self.machines[pair.0].ip, self.machines[pair.1].ip);
                changes.push(Change::Link { ends, before, now });
            }
        }
        changes
    }

    /// Which datagrams are lost as long as the active faults last.
    pub(super) fn losses(&self) -> Losses {
        let mut losses = Losses::new();
        for (from, sender) in self.machines.iter().enumerate() {
            for (to, receiver) in self.machines.iter().enumerate().filter(|(to, _)| *to != from) {
                let kept: f64 = self.active_on((from, to)).map(|fault| 1.0 - loss(fault)).product();
                if kept < 1.0 {
                    losses.insert((sender.ip, receiver.ip), 1.0 - kept);
                }
            }
        }
        losses
    }

    /// Notes which active faults are on links that carry something just now.
    pub(super) fn watch(&mut self, sim: &Sim<'_>) {
        if !self.active_faults().any(|fault| fault.sides().is_some()) {
            return;
        }
        let mut busy = BTreeSet::new();
        sim.links(|links| busy.extend(links.filter_map(|mut link| link.next().map(|sent| sent.pair()))));
        let at = |ip: IpAddr| self.machines.iter().position(|machine| machine.ip == ip);
        let pairs: Vec<_> = busy.iter().filter_map(|(a, b)| Some((at(a.ip())?, at(b.ip())?))).collect();
        for id in &self.active {
            let on = |(a, b): &(usize, usize)| {
                let fault = &self.book[id].fault;
                self.is_on(fault, (*a, *b)) || self.is_on(fault, (*b, *a))
            };
            if pairs.iter().any(on) {
                self.book.get_mut(id).expect("an active fault is in the book").effective = true;
            }
        }
    }

    /// By family, how many faults there were and how many of them had something to strike.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, FaultCount> {
        let mut counts: BTreeMap<_, FaultCount> = BTreeMap::new();
        for record in self.book.values() {
            let count = counts.entry(record.fault.family()).or_default();
            count.chosen += 1;
            count.effective += u64::from(record.effective);
        }
        counts
    }

    fn active_faults(&self) -> impl Iterator<Item = &Fault> {
        self.active.iter().map(|id| &self.book[id].fault)
    }

    fn active_on(&self, way: (usize, usize)) -> impl Iterator<Item = &Fault> {
        self.active_faults().filter(move |fault| self.is_on(fault, way))
    }

    /// Whether a fault of links is on the way from one machine to another.
    fn is_on(&self, fault: &Fault, (from, to): (usize, usize)) -> bool {
        let (from, to) = (&self.machines[from], &self.machines[to]);
        let both_ways = matches!(fault, Fault::Partition { .. });
        fault.sides().is_some_and(|(a, b)| {
            (from.is_at(a) && to.is_at(b)) || (both_ways && from.is_at(b) && to.is_at(a))
        })
    }

    /// The machines that a fault of machines strikes.
    fn struck(&self, fault: &Fault) -> BTreeSet<usize> {
        let Some(place) = fault.host() else { return BTreeSet::new() };
        let place = std::slice::from_ref(place);
        (0..self.machines.len()).filter(|machine| self.machines[*machine].is_at(place)).collect()
    }

    fn take_down(&mut self, machine: usize) -> Option<Change> {
        let spec = self.machines[machine].spec.as_ref()?;
        self.down.insert(machine).then(|| Change::Crash { name: spec.name.clone(), ip: spec.ip })
    }

    fn bring_up(&mut self, machine: usize) -> Option<Change> {
        self.down.remove(&machine).then(|| Change::Start { ip: self.machines[machine].ip })
    }

    fn link(&self, (a, b): (usize, usize)) -> Link {
        let (there, back): (Vec<_>, Vec<_>) =
            (self.active_on((a, b)).collect(), self.active_on((b, a)).collect());
        let cut =
            |faults: &[&Fault]| faults.iter().any(|fault| matches!(fault, Fault::PartitionOneWay { .. }));
        let way = if there.iter().any(|fault| matches!(fault, Fault::Partition { .. })) {
            Way::Held
        } else if cut(&there) || cut(&back) {
            Way::Cut { there: cut(&there), back: cut(&back) }
        } else {
            Way::Open
        };
        let (mut least, mut most) = self.distance_ms(a, b);
        let mut counted = BTreeSet::new();
        for (id, fault) in self.active.iter().map(|id| (id, &self.book[id].fault)) {
            if let Fault::Latency { add_ms, jitter_ms, .. } = fault
                && (self.is_on(fault, (a, b)) || self.is_on(fault, (b, a)))
                && counted.insert(id)
            {
                least += add_ms;
                most += add_ms + jitter_ms;
            }
        }
        Link { way, latency_ms: (least, most) }
    }

    /// The least and the most, as on fabric: up to 1 ms within a data centre, 10 to 60 ms between two.
    fn distance_ms(&self, a: usize, b: usize) -> (u64, u64) {
        let mut ends = [&self.machines[a].data_center, &self.machines[b].data_center];
        ends.sort();
        if ends[0] == ends[1] {
            return (0, 1);
        }
        let least = 10 + self.distances.stream(&format!("{}/{}", ends[0], ends[1])).below(41);
        (least, least + 10)
    }
}

impl Change {
    /// Makes it.
    pub(super) fn make(&self, sim: &mut Sim<'_>, disks: &BTreeMap<String, Disk>, wires: &Wires) {
        match self {
            Self::Crash { name, ip } => {
                sim.crash(*ip);
                disks[name].cut();
                wires.take_down(*ip);
            }
            Self::Start { ip } => {
                sim.bounce(*ip);
                wires.bring_up(*ip);
            }
            Self::Link { ends: (a, b), before, now } => {
                let (a, b) = (*a, *b);
                if before.map_or(Way::Open, |before| before.way) != now.way {
                    now.way.make(sim, a, b);
                }
                if before.is_none_or(|before| before.latency_ms != now.latency_ms) {
                    let (least, most) = now.latency_ms;
                    sim.set_link_latency(a, b, Duration::from_millis(least));
                    sim.set_link_max_message_latency(a, b, Duration::from_millis(most));
                }
            }
        }
    }
}

impl Way {
    /// From whatever it was: a release opens a link from every state.
    fn make(self, sim: &Sim<'_>, a: IpAddr, b: IpAddr) {
        sim.release(a, b);
        match self {
            Self::Open => {}
            Self::Held => sim.hold(a, b),
            Self::Cut { there, back } => {
                if there {
                    sim.partition_oneway(a, b);
                }
                if back {
                    sim.partition_oneway(b, a);
                }
            }
        }
    }
}

/// The probability with which a fault loses a datagram.
fn loss(fault: &Fault) -> f64 {
    match fault {
        Fault::Partition { .. } | Fault::PartitionOneWay { .. } => 1.0,
        Fault::Loss { probability, .. } => *probability,
        _ => 0.0,
    }
}

fn is_at(host: &HostSpec, place: &Place) -> bool {
    match place {
        Place::Host(name) => host.name == *name,
        Place::Datacenter(name) => host.data_center == *name,
        Place::Group(name) => host.cluster().is_some_and(|cluster| cluster.as_str() == name),
        Place::Everywhere => true,
    }
}
