//! A machine of the federation: its node, what outlives its crashes, and its boot.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use fusion_deployment::{Federation, Hooks, HostSpec, Running, start_host};
use fusion_runtime::bus::LocalBus;
use fusion_runtime::probe::Level;
use fusion_runtime::{Clock, Entropy, Host, Proofs, Tasks};
use madsim::runtime::Handle;
use madsim::task::NodeId;

use super::disk::Disk;
use super::distance::Distances;
use super::names::Names;
use super::net::MachineNet;
use crate::engines::evidence::{Evidence, MachineProbe, lock};
use crate::fabric::Place;

/// A machine of the federation.
pub(super) struct Machine {
    pub(super) site: Site,
    pub(super) disk: Disk,
    pub(super) clock: Clock,
    pub(super) state: State,
}

/// Where something with an address stands, for faults that name places.
pub(super) struct Site {
    pub(super) name: String,
    pub(super) node: NodeId,
    data_center: String,
    group: Option<String>,
}

/// Whether a machine runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Up,
    Paused,
    Down,
}

/// What every machine of a run shares.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) federation: Arc<Federation>,
    pub(super) hooks: Hooks,
    pub(super) evidence: Arc<Evidence>,
    /// The run's clock, never skewed.
    pub(super) clock: Clock,
    pub(super) entropy: Entropy,
    pub(super) names: Names,
    pub(super) distances: Distances,
    pub(super) running: Arc<Mutex<BTreeMap<String, Running>>>,
}

impl Machine {
    /// Starts the machine; it boots in its first moment, and again whenever it is restarted.
    pub(super) fn start(spec: &HostSpec, common: &Common) -> Self {
        let clock = common.clock.of_another_host();
        let disk = Disk::new(clock.clone());
        let lives = Arc::new(AtomicU64::new(0));
        let boot = {
            let (spec, common, disk, clock) = (spec.clone(), common.clone(), disk.clone(), clock.clone());
            move || {
                let life = lives.fetch_add(1, Ordering::Relaxed);
                boot(spec.clone(), common.clone(), disk.clone(), clock.clone(), life)
            }
        };
        let node = Handle::current().create_node().name(spec.name.as_str()).ip(spec.ip).init(boot).build();
        let site = Site {
            name: spec.name.clone(),
            node: node.id(),
            data_center: spec.data_center.clone(),
            group: spec.cluster().map(|cluster| cluster.as_str().to_owned()),
        };
        Self { site, disk, clock, state: State::Up }
    }

    /// Lets it be in `state` from now on; one that was down starts on its old disk.
    pub(super) fn be(&mut self, state: State) {
        let (world, node) = (Handle::current(), self.site.node);
        match (self.state, state) {
            (State::Up, State::Paused) => world.pause(node),
            (State::Paused, State::Up) => world.resume(node),
            (State::Up | State::Paused, State::Down) => world.kill(node),
            (State::Down, State::Up) => world.restart(node),
            (State::Down, State::Paused) => {
                world.restart(node);
                world.pause(node);
            }
            _ => {}
        }
        self.state = state;
    }
}

/// Everything with an address.
#[derive(Default)]
pub(super) struct Inhabitants {
    pub(super) machines: Vec<Machine>,
    pub(super) devices: Vec<Device>,
}

/// Where a device is, and what it takes for the time.
pub(super) struct Device {
    pub(super) site: Site,
    pub(super) clock: Clock,
}

impl Inhabitants {
    /// The machines at `place`.
    pub(super) fn at(&mut self, place: &Place) -> impl Iterator<Item = &mut Machine> {
        self.machines.iter_mut().filter(move |machine| machine.site.is_at(std::slice::from_ref(place)))
    }

    /// Where everything stands.
    pub(super) fn sites(&self) -> impl Iterator<Item = &Site> {
        let devices = self.devices.iter().map(|device| &device.site);
        self.machines.iter().map(|machine| &machine.site).chain(devices)
    }
}

impl Site {
    /// A device's, in a place of its own.
    pub(super) fn of_device(name: &str, node: NodeId) -> Self {
        Self { name: name.to_owned(), node, data_center: format!("at {name}"), group: None }
    }

    /// Whether it is at one of `places`.
    pub(super) fn is_at(&self, places: &[Place]) -> bool {
        places.iter().any(|place| match place {
            Place::Host(name) => self.name == *name,
            Place::Datacenter(name) => self.data_center == *name,
            Place::Group(name) => self.group.as_ref() == Some(name),
            Place::Everywhere => true,
        })
    }
}

impl Common {
    /// What the machine `name` is to its services in one of its lives.
    pub(super) fn host(
        &self,
        name: &str,
        (node, ip): (NodeId, IpAddr),
        disk: Disk,
        clock: Clock,
        life: u64,
    ) -> Host {
        let net = MachineNet {
            name: name.into(),
            node,
            ip,
            distances: self.distances.clone(),
            names: self.names.clone(),
            evidence: self.evidence.clone(),
        };
        Host {
            name: name.into(),
            net: Arc::new(net),
            tasks: Tasks::default(),
            clock,
            entropy: self.entropy.stream(&format!("host/{name}/{life}")),
            store: Arc::new(disk),
            bus: Arc::new(LocalBus::default()),
            proofs: Proofs::default(),
            probe: Arc::new(MachineProbe::new(name, self.clock.clone(), self.evidence.clone())),
        }
    }
}

/// One life of a machine, until it is killed: a node whose first task ends is taken down by madsim.
async fn boot(spec: HostSpec, common: Common, disk: Disk, clock: Clock, life: u64) {
    let host = common.host(&spec.name, (madsim::plugin::node(), spec.ip), disk, clock, life);
    match start_host(&host, &spec, &common.federation, &common.hooks).await {
        Ok(started) => drop(lock(&common.running).insert(spec.name, started)),
        Err(error) => {
            host.probe.log(Level::Error, "host.start", serde_json::json!({"error": error.to_string()}));
        }
    }
    pending().await
}
