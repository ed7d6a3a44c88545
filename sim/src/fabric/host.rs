//! Machines, and what the world keeps of them. `lives` starts and ends them, `processor` makes them slow,
//! `net` is the network as they see it.
//!
//! Every life of a machine is an *incarnation* with tasks, randomness and network of its own; the
//! disk, the clock and the address stay. What is left of an ended incarnation is fenced off: its calls
//! fail and change nothing.

mod lives;
mod net;
mod processor;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fusion_runtime::bus::LocalBus;
use fusion_runtime::{Bus, Clock, Host, Probe, Tasks};

pub(super) use self::lives::{end, yield_until};
use self::net::{HostNet, Silent};
use super::disk::{Disk, DiskStore};
use super::fault::{FaultId, Place};
use super::world::{Shared, State, World, WorldError};

/// The first port handed out when none is asked for (RFC 6335, dynamic ports).
const FIRST_FREE_PORT: u16 = 49_152;

/// The index of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostId(pub(super) u32);

/// One life of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Incarnation {
    pub(super) host: HostId,
    pub(super) number: u32,
}

/// Whether a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It runs.
    Up,
    /// Its processes are dead; its kernel answers.
    Crashed,
    /// It has no power.
    Off,
}

/// What the world keeps of a machine.
pub(super) struct HostSlot {
    pub(super) name: Arc<str>,
    pub(super) ip: IpAddr,
    pub(super) datacenter: Arc<str>,
    pub(super) group: Option<Arc<str>>,
    pub(super) life: Life,
    incarnation: u32,
    /// Whether its processes stand still, and by which fault.
    pub(super) paused: Option<Option<FaultId>>,
    /// How much time each turn of a task takes, microseconds, and by which fault.
    pub(super) slow_cpu: Option<(FaultId, u64)>,
    cpu_free_us: u64,
    /// The fault by which its certificate has run out.
    pub(super) expired: Option<FaultId>,
    /// The fault that fills the backlogs of its listeners.
    pub(super) backlog_full: Option<FaultId>,
    pub(super) tapped: bool,
    next_port: u16,
    pub(super) disk: Disk,
    pub(super) clock: Clock,
    tasks: Tasks,
    /// Of the incarnations before this one.
    panics: u64,
    machine: Option<Host>,
    bus: Option<Arc<dyn Bus>>,
    probe: Arc<dyn Probe>,
    boot: Option<Boot>,
}

type Boot = Arc<dyn Fn(Host) + Send + Sync>;

/// A machine about to be added to the world.
#[must_use = "a machine exists from `start` on"]
pub struct HostBuilder {
    world: World,
    name: Arc<str>,
    ip: IpAddr,
    datacenter: Arc<str>,
    group: Option<Arc<str>>,
    bus: Option<Arc<dyn Bus>>,
    probe: Arc<dyn Probe>,
    boot: Option<Boot>,
}

impl HostBuilder {
    pub(super) fn new(world: World, name: &str, ip: IpAddr, datacenter: &str) -> Self {
        let (name, datacenter) = (name.into(), datacenter.into());
        Self { world, name, ip, datacenter, group: None, bus: None, probe: Arc::new(Silent), boot: None }
    }

    /// Makes it one of a group that faults can name, for example the hosts of one cluster.
    pub fn group(mut self, group: &str) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Gives it a bus to share with others. Without, each incarnation has one of its own.
    pub fn bus(mut self, bus: Arc<dyn Bus>) -> Self {
        self.bus = Some(bus);
        self
    }

    /// Where it reports to. Without, nowhere.
    pub fn probe(mut self, probe: Arc<dyn Probe>) -> Self {
        self.probe = probe;
        self
    }

    /// What runs on it after a restart: called inside the run with the new incarnation, to spawn on
    /// `host.tasks` whatever it served before. Not called by [`HostBuilder::start`].
    pub fn boot(mut self, boot: impl Fn(Host) + Send + Sync + 'static) -> Self {
        self.boot = Some(Arc::new(boot));
        self
    }

    /// Adds the machine to the world, running and with an empty disk.
    ///
    /// # Errors
    /// When another machine has its name or its address.
    pub fn start(self) -> Result<Host, WorldError> {
        let world = self.world.clone();
        let mut state = world.shared.lock();
        if state.host_by_name.contains_key(&self.name) {
            return Err(WorldError::NameTaken(self.name.to_string()));
        }
        if state.host_by_ip.contains_key(&self.ip) {
            return Err(WorldError::AddressTaken(self.ip));
        }
        let id = HostId(state.hosts.len() as u32);
        let disk =
            Disk::new(state.options.disk.clone(), state.entropy.stream(&format!("disk/{}", self.name)));
        state.host_by_name.insert(self.name.clone(), id);
        state.host_by_ip.insert(self.ip, id);
        let slot = HostSlot {
            life: Life::Up,
            incarnation: 0,
            paused: None,
            slow_cpu: None,
            cpu_free_us: 0,
            expired: None,
            backlog_full: None,
            tapped: state.observer.watches_bytes(&self.name),
            next_port: FIRST_FREE_PORT,
            disk,
            clock: state.clock.of_another_host(),
            tasks: Tasks::default(),
            panics: 0,
            machine: None,
            name: self.name,
            ip: self.ip,
            datacenter: self.datacenter,
            group: self.group,
            bus: self.bus,
            probe: self.probe,
            boot: self.boot,
        };
        state.hosts.push(slot);
        Ok(state.bear(id, &world.shared))
    }
}

impl World {
    /// A machine to be added: its name, its address, and its data centre, which decides over its
    /// distance to others.
    pub fn host(&self, name: &str, ip: IpAddr, datacenter: &str) -> HostBuilder {
        HostBuilder::new(self.clone(), name, ip, datacenter)
    }

    /// The present incarnation of a machine; `None` when it is down or unknown.
    #[must_use]
    pub fn machine(&self, name: &str) -> Option<Host> {
        let state = self.shared.lock();
        let id = state.host_by_name.get(name)?;
        state.host(*id).machine.clone()
    }

    /// The names of all machines, in the order in which they were started.
    #[must_use]
    pub fn machines(&self) -> Vec<Arc<str>> {
        self.shared.lock().hosts.iter().map(|slot| slot.name.clone()).collect()
    }
}

impl State {
    pub(super) fn host(&self, id: HostId) -> &HostSlot {
        &self.hosts[id.0 as usize]
    }

    pub(super) fn host_mut(&mut self, id: HostId) -> &mut HostSlot {
        &mut self.hosts[id.0 as usize]
    }

    /// Whether `machine` is the present life of its host.
    pub(super) fn is_alive(&self, machine: Incarnation) -> bool {
        let slot = self.host(machine.host);
        slot.life == Life::Up && slot.incarnation == machine.number
    }

    /// Refuses the calls of zombies.
    pub(super) fn admit(&self, machine: Incarnation) -> io::Result<()> {
        if self.is_alive(machine) {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::NotConnected, "the machine is down"))
        }
    }

    /// The address a socket of `machine` gets: its own, and a free port when none is asked for.
    pub(super) fn bind(&mut self, machine: Incarnation, at: SocketAddr) -> io::Result<SocketAddr> {
        self.admit(machine)?;
        let own = self.host(machine.host).ip;
        if at.ip() != own && !at.ip().is_unspecified() && !at.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("{at} is not this machine's"),
            ));
        }
        let port = if at.port() == 0 { self.free_port(machine.host)? } else { at.port() };
        Ok(SocketAddr::new(own, port))
    }

    /// The machine at `to`, which a loopback address makes the caller's own.
    pub(super) fn destination(&self, from: HostId, to: SocketAddr) -> Option<(HostId, SocketAddr)> {
        if to.ip().is_loopback() && !self.host_by_ip.contains_key(&to.ip()) {
            return Some((from, SocketAddr::new(self.host(from).ip, to.port())));
        }
        self.host_by_ip.get(&to.ip()).map(|host| (*host, to))
    }

    /// A port of `host` on which nobody listens.
    pub(super) fn free_port(&mut self, host: HostId) -> io::Result<u16> {
        for _ in FIRST_FREE_PORT..=u16::MAX {
            let slot = self.host_mut(host);
            let port = slot.next_port;
            slot.next_port = port.checked_add(1).unwrap_or(FIRST_FREE_PORT);
            let address = SocketAddr::new(slot.ip, port);
            if !self.listeners.contains_key(&address) && !self.sockets.contains_key(&address) {
                return Ok(port);
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free"))
    }

    /// Notes that something reached a machine that stands still.
    pub(super) fn reached(&mut self, host: HostId) {
        if let Some(Some(fault)) = self.host(host).paused {
            self.faults.took_effect(fault);
        }
    }

    pub(super) fn pause(&mut self, id: HostId, by: Option<FaultId>) {
        let slot = self.host_mut(id);
        if slot.life == Life::Up {
            slot.paused = Some(by);
            slot.tasks.pause();
        }
    }

    pub(super) fn resume(&mut self, id: HostId) {
        let slot = self.host_mut(id);
        slot.paused = None;
        slot.tasks.resume();
    }

    /// How many tasks have ended by a panic.
    pub(super) fn panics(&self) -> u64 {
        self.hosts.iter().map(|slot| slot.panics + slot.tasks.panics()).sum()
    }

    /// The tasks of every machine's present incarnation.
    pub(super) fn tasks(&self) -> Vec<Tasks> {
        self.hosts.iter().map(|slot| slot.tasks.clone()).collect()
    }

    /// Makes the [`Host`] of the machine's present incarnation.
    fn bear(&mut self, id: HostId, shared: &Arc<Shared>) -> Host {
        let slot = self.host(id);
        let machine = Incarnation { host: id, number: slot.incarnation };
        let of_this_life =
            |purpose: &str| self.entropy.stream(&format!("{purpose}/{}/{}", slot.name, machine.number));
        let probability = self.options.explore_order;
        let hesitation = (probability > 0.0).then(|| of_this_life("hesitate"));
        let (effort, name) = (self.effort.clone(), slot.name.clone());
        slot.tasks.hesitate(Box::new(move || {
            effort.polled(&name);
            hesitation.as_ref().is_some_and(|entropy| entropy.chance(probability))
        }));
        self.set_pace(id, shared);
        let slot = self.host(id);
        let host = Host {
            name: slot.name.clone(),
            net: Arc::new(HostNet { shared: shared.clone(), machine }),
            tasks: slot.tasks.clone(),
            clock: slot.clock.clone(),
            entropy: of_this_life("host"),
            store: Arc::new(DiskStore { shared: shared.clone(), machine }),
            bus: slot.bus.clone().unwrap_or_else(|| Arc::new(LocalBus::default())),
            probe: slot.probe.clone(),
            proofs: self.proofs.clone(),
        };
        self.host_mut(id).machine = Some(host.clone());
        host
    }
}

impl HostSlot {
    /// Lets go of everything that refers back to the world.
    pub(super) fn forget(&mut self) {
        self.machine = None;
        self.boot = None;
        self.bus = None;
    }

    /// How often it has been started again.
    pub(super) fn restarts(&self) -> u32 {
        self.incarnation
    }

    /// How many tasks of the present incarnation have not ended.
    pub(super) fn tasks_alive(&self) -> usize {
        self.tasks.alive()
    }

    /// Whether the machine is at one of `places`.
    pub(super) fn is_at(&self, places: &[Place]) -> bool {
        places.iter().any(|place| match place {
            Place::Host(name) => *self.name == **name,
            Place::Datacenter(name) => *self.datacenter == **name,
            Place::Group(name) => self.group.as_deref() == Some(name),
            Place::Everywhere => true,
        })
    }
}
