//! The doing and undoing of faults, and the book of what they did.

use std::collections::BTreeMap;

use super::fault::{Fault, FaultCount, FaultError, FaultId, FaultReport, Place};
use super::host::{HostId, HostSlot, Life};
use super::observe::{FaultEvent, FaultPhase};
use super::world::{State, World};

/// The faults of a world, past and present.
#[derive(Default)]
pub(super) struct Faults {
    /// Goes up whenever the active faults change, so that links notice.
    pub(super) version: u64,
    /// Whether one of them bounds the length of packets, which whoever sends must ask for.
    pub(super) bound_length: bool,
    book: BTreeMap<FaultId, Record>,
    active: Vec<FaultId>,
}

struct Record {
    fault: Fault,
    began_us: u64,
    effects: u64,
    healed: bool,
}

/// An active fault.
#[derive(Clone, Copy)]
pub(super) struct Active<'a> {
    pub(super) id: FaultId,
    pub(super) began_us: u64,
    pub(super) fault: &'a Fault,
}

impl World {
    /// Lets `fault` begin. Machines that crash are down when this returns.
    ///
    /// # Errors
    /// When the fault cannot be: nobody is where it should strike, or its numbers make no sense.
    pub async fn inject(&self, fault: &Fault) -> Result<FaultId, FaultError> {
        let (id, hosts) = {
            let mut state = self.shared.lock();
            fault.check()?;
            let hosts = state.struck(fault)?;
            (state.begin(fault)?, hosts)
        };
        for host in hosts {
            let effects = self.strike(id, fault, host).await;
            self.shared.lock().faults.took_effects(id, effects);
        }
        if fault.is_instant() {
            self.shared.lock().end(id)?;
        }
        Ok(id)
    }

    /// Lets a fault end. Machines that it took down are up and booted when this returns, unless another
    /// active fault keeps them down.
    ///
    /// # Errors
    /// When the fault is not active.
    pub async fn heal(&self, id: FaultId) -> Result<(), FaultError> {
        let (fault, hosts) = {
            let mut state = self.shared.lock();
            let fault = state.end(id)?;
            let hosts = state.struck(&fault)?;
            (fault, hosts)
        };
        for host in hosts {
            self.relieve(&fault, host).await;
        }
        Ok(())
    }

    /// Lets every fault end, the oldest first, sets every clock right and starts every machine that is down.
    pub async fn heal_all(&self) {
        let active = self.shared.lock().faults.active.clone();
        for id in active {
            // It may have ended by itself while an older one was healed.
            let _ = self.heal(id).await;
        }
        let down = {
            let state = self.shared.lock();
            state.every_host().for_each(|host| state.host(host).clock.undo_jumps());
            state.every_host().filter(|host| state.host(*host).life != Life::Up).collect::<Vec<_>>()
        };
        for host in down {
            self.bring_up(host).await;
        }
    }

    /// What became of each fault, in the order of injection.
    #[must_use]
    pub fn faults(&self) -> Vec<FaultReport> {
        let state = self.shared.lock();
        let reports = state.faults.book.iter().map(|(id, record)| FaultReport {
            id: *id,
            fault: record.fault.clone(),
            effects: record.effects,
            healed: record.healed,
        });
        reports.collect()
    }

    /// By family, how many faults were injected and how many of them made a difference.
    #[must_use]
    pub fn fault_counts(&self) -> BTreeMap<&'static str, FaultCount> {
        let mut counts: BTreeMap<_, FaultCount> = BTreeMap::new();
        for report in self.faults() {
            let count = counts.entry(report.fault.family()).or_default();
            count.chosen += 1;
            count.effective += u64::from(report.effects > 0);
        }
        counts
    }

    /// Does `fault` to one machine; says how much difference that made at once.
    async fn strike(&self, id: FaultId, fault: &Fault, host: HostId) -> u64 {
        match *fault {
            Fault::Crash { .. } => self.take_down(host, Life::Crashed).await as u64,
            Fault::PowerOff { .. } => self.take_down(host, Life::Off).await as u64,
            Fault::Restart { .. } => {
                self.bring_up(host).await;
                1
            }
            Fault::LoseRows { ref tables, .. } => self.shared.lock().host_mut(host).disk.lose(tables),
            // Whoever reads the clock does not tell the world; a running machine does read it.
            Fault::Skew { us: by, .. } | Fault::Drift { ppm: by, .. } | Fault::Jump { us: by, .. } => {
                let is_up = self.shared.lock().settle(fault, host) == Life::Up;
                u64::from(by != 0 && is_up)
            }
            Fault::SlowCpu { .. } => {
                let mut state = self.shared.lock();
                state.settle(fault, host);
                state.set_pace(host, &self.shared);
                0
            }
            Fault::Overload { per_s, .. } => {
                self.send_strangers(id, host, per_s);
                0
            }
            _ => {
                self.shared.lock().settle(fault, host);
                0
            }
        }
    }

    /// Undoes `fault`, which is over, on one machine.
    async fn relieve(&self, fault: &Fault, host: HostId) {
        let life = self.shared.lock().settle(fault, host);
        if matches!(fault, Fault::SlowCpu { .. }) {
            self.shared.lock().set_pace(host, &self.shared);
        }
        let took_down = matches!(fault, Fault::Crash { .. } | Fault::PowerOff { .. });
        if took_down && life != Life::Up && !self.shared.lock().is_kept_down(host) {
            self.bring_up(host).await;
        }
    }
}

impl State {
    /// Writes `fault` into the book and lets those of links and names begin.
    fn begin(&mut self, fault: &Fault) -> Result<FaultId, FaultError> {
        let id = FaultId(self.faults.book.len() as u64 + 1);
        self.names.begin(id, fault)?;
        let record = Record { fault: fault.clone(), began_us: self.now_us(), effects: 0, healed: false };
        self.faults.book.insert(id, record);
        self.faults.active.push(id);
        self.faults.changed();
        self.tell(id, FaultPhase::Injected);
        let broken = match fault {
            Fault::ResetConnections { a, b } => self.reset_between(a, b),
            Fault::HalfOpen { a, b } => self.forget_between(a, b),
            _ => 0,
        };
        self.faults.took_effects(id, broken);
        Ok(id)
    }

    /// Closes the fault's record and lets those of links and names end.
    fn end(&mut self, id: FaultId) -> Result<Fault, FaultError> {
        let record = self.faults.book.get_mut(&id).filter(|record| !record.healed);
        let record = record.ok_or(FaultError::NotActive(id))?;
        record.healed = true;
        let fault = record.fault.clone();
        self.faults.active.retain(|active| *active != id);
        self.faults.changed();
        self.names.end(id);
        self.tell(id, FaultPhase::Healed);
        Ok(fault)
    }

    /// Makes a machine as the active faults of the family of `like` want it, the latest first; says
    /// whether it runs.
    fn settle(&mut self, like: &Fault, host: HostId) -> Life {
        let latest = self.faults.latest(like, self.host(host)).map(|(id, fault)| (id, fault.clone()));
        let slot = self.host_mut(host);
        match (like, latest) {
            (Fault::SlowCpu { .. }, Some((id, Fault::SlowCpu { turn_us, .. }))) => {
                slot.slow_cpu = Some((id, turn_us));
            }
            (Fault::SlowCpu { .. }, _) => slot.slow_cpu = None,
            (Fault::CertificateExpired { .. }, latest) => slot.expired = latest.map(|(id, _)| id),
            (Fault::DiskErrors { .. }, Some((id, Fault::DiskErrors { probability, .. }))) => {
                slot.disk.errors = Some((id, probability));
            }
            (Fault::DiskErrors { .. }, _) => slot.disk.errors = None,
            (Fault::Drift { .. }, Some((_, Fault::Drift { ppm, .. }))) => slot.clock.set_drift_ppm(ppm),
            (Fault::Drift { .. }, _) => slot.clock.set_drift_ppm(0),
            (Fault::Jump { us, .. }, _) => slot.clock.jump_us(*us),
            (Fault::Pause { .. }, Some((id, _))) => self.pause(host, Some(id)),
            (Fault::Pause { .. }, None) => self.resume(host),
            (Fault::SlowDisk { .. }, Some((id, Fault::SlowDisk { add_ms, .. }))) => {
                slot.disk.slow = Some((id, add_ms * 1_000));
            }
            (Fault::SlowDisk { .. }, _) => slot.disk.slow = None,
            (Fault::DiskFull { .. }, latest) => slot.disk.full = latest.map(|(id, _)| id),
            (Fault::BacklogFull { .. }, latest) => slot.backlog_full = latest.map(|(id, _)| id),
            (Fault::Skew { .. }, Some((_, Fault::Skew { us, .. }))) => slot.clock.set_skew_us(us),
            (Fault::Skew { .. }, _) => slot.clock.set_skew_us(0),
            _ => {}
        }
        self.host(host).life
    }

    /// Whether a fault wants the machine down.
    fn is_kept_down(&self, host: HostId) -> bool {
        let place = Place::Everywhere;
        let [crash, power_off] = [Fault::Crash { host: place.clone() }, Fault::PowerOff { host: place }];
        let slot = self.host(host);
        self.faults.latest(&crash, slot).or(self.faults.latest(&power_off, slot)).is_some()
    }

    fn tell(&self, id: FaultId, phase: FaultPhase) {
        if let Some(Record { fault, effects, .. }) = self.faults.book.get(&id) {
            let event =
                FaultEvent { at_us: self.now_us(), id, fault: fault.clone(), phase, effects: *effects };
            self.observer.fault(&event);
        }
    }

    /// The machines that `fault` strikes itself. Every place it names must exist.
    fn struck(&self, fault: &Fault) -> Result<Vec<HostId>, FaultError> {
        let (from, to) = fault.sides().unwrap_or_default();
        for place in from.iter().chain(to) {
            self.hosts_at(place)?;
        }
        fault.host().map_or(Ok(Vec::new()), |place| self.hosts_at(place))
    }

    fn hosts_at(&self, place: &Place) -> Result<Vec<HostId>, FaultError> {
        let places = std::slice::from_ref(place);
        let hosts: Vec<_> = self.every_host().filter(|host| self.host(*host).is_at(places)).collect();
        if hosts.is_empty() { Err(FaultError::NobodyThere(place.clone())) } else { Ok(hosts) }
    }

    fn every_host(&self) -> impl Iterator<Item = HostId> + use<> {
        (0..self.hosts.len() as u32).map(HostId)
    }
}

impl Faults {
    /// Notes that a fault made a difference.
    pub(super) fn took_effect(&mut self, id: FaultId) {
        self.took_effects(id, 1);
    }

    fn took_effects(&mut self, id: FaultId, times: u64) {
        if let Some(record) = self.book.get_mut(&id) {
            record.effects += times;
        }
    }

    fn changed(&mut self) {
        self.version += 1;
        let bound_length = self.active_faults().any(|it| matches!(it.fault, Fault::Mtu { .. }));
        self.bound_length = bound_length;
    }

    fn active_faults(&self) -> impl DoubleEndedIterator<Item = Active<'_>> {
        self.active.iter().filter_map(|id| {
            let Record { fault, began_us, .. } = self.book.get(id)?;
            Some(Active { id: *id, began_us: *began_us, fault })
        })
    }

    /// Whether a fault is on.
    pub(super) fn is_active(&self, id: FaultId) -> bool {
        self.active.contains(&id)
    }

    /// The latest active fault of the family of `like` that strikes this machine.
    fn latest(&self, like: &Fault, slot: &HostSlot) -> Option<(FaultId, &Fault)> {
        let strikes =
            |fault: &Fault| fault.host().is_some_and(|place| slot.is_at(std::slice::from_ref(place)));
        let mut latest = self.active_faults().rev().filter(|it| it.fault.family() == like.family());
        latest.find(|it| strikes(it.fault)).map(|it| (it.id, it.fault))
    }

    /// The active faults on the link between `ends`, the oldest first. A machine is never cut off from
    /// itself.
    pub(super) fn active_link_faults(&self, hosts: &[HostSlot], ends: (HostId, HostId)) -> Vec<Active<'_>> {
        let (from, to) = (&hosts[ends.0.0 as usize], &hosts[ends.1.0 as usize]);
        let is_on_link = |fault: &Fault| match fault.sides() {
            _ if ends.0 == ends.1 => false,
            None => false,
            Some((a, b)) => {
                (from.is_at(a) && to.is_at(b)) || (fault.is_mutual() && from.is_at(b) && to.is_at(a))
            }
        };
        self.active_faults().filter(|it| is_on_link(it.fault)).collect()
    }
}
