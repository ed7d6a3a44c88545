//! A federation on madsim's network.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fusion_deployment::{Federation, Hooks};
use fusion_history::Recorder;
use fusion_history::canary::Canaries;
use fusion_history::event::Sink;
use fusion_protocol::ClusterName;
use fusion_protocol::media::LegCounters;
use fusion_runtime::{Clock, Entropy, Host, Tasks, Timestamp};
use madsim::net::Config;
use madsim::runtime::Handle;
use serde_json::Value;

use super::disk::Disk;
use super::distance::Distances;
use super::fault::{Faults, can_express};
use super::machine::{Common, Device, Inhabitants, Machine, Site};
use super::names::Names;
use crate::engines::evidence::{Evidence, legs_of, lock, signed_by};
use crate::fabric::{Fault, FaultId, WorldOptions};
use crate::stage::{Stage, rows_as_bytes};

/// How long tasks have to notice that their world is over.
const LAST_MOMENT: Duration = Duration::from_millis(10);

pub(super) struct MadsimStage {
    common: Common,
    world: Mutex<World>,
}

/// What is there, and what is wrong with it.
struct World {
    there: Inhabitants,
    /// Of the devices: the play acts for them, so that their tasks do not end with their nodes.
    tasks: Vec<Tasks>,
    faults: Faults,
}

impl MadsimStage {
    /// Starts every machine of `federation`. Inside the run.
    pub(super) fn start(
        federation: Arc<Federation>,
        evidence: Arc<Evidence>,
        hooks: Hooks,
        entropy: Entropy,
    ) -> Self {
        let common = Common {
            names: Names::of(&federation.resolve),
            distances: Distances::of(&federation),
            federation,
            hooks,
            evidence,
            clock: Clock::starting_at(Timestamp(WorldOptions::default().epoch_us)),
            entropy,
            running: Arc::default(),
        };
        let machines = common.federation.hosts.iter().map(|spec| Machine::start(spec, &common)).collect();
        let world = World {
            there: Inhabitants { machines, devices: Vec::new() },
            tasks: Vec::new(),
            faults: Faults::new(common.names.clone(), Config::default()),
        };
        Self { common, world: Mutex::new(world) }
    }

    /// Ends every task, so that nothing of this world outlives it.
    pub(super) async fn end_all(&self) {
        {
            let world = lock(&self.world);
            world.tasks.iter().for_each(Tasks::abort_all);
            world.there.sites().for_each(|site| Handle::current().kill(site.node));
        }
        self.common.clock.sleep(LAST_MOMENT).await;
        lock(&self.common.running).clear();
    }
}

#[async_trait]
impl Stage for MadsimStage {
    fn engine(&self) -> &'static str {
        super::NAME
    }

    fn federation(&self) -> &Federation {
        &self.common.federation
    }

    fn clock(&self) -> &Clock {
        &self.common.clock
    }

    fn recorder(&self) -> &Recorder {
        self.common.evidence.recorder()
    }

    /// Each device in a place of its own, in the 172.16/12 block.
    fn device_host(&self, name: &str) -> Host {
        let mut world = lock(&self.world);
        let n = world.there.devices.len() as u32 + 1;
        let ip = IpAddr::from(Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 0)) + n));
        let node = Handle::current().create_node().name(name).ip(ip).build().id();
        let (site, clock) = (Site::of_device(name, node), self.common.clock.of_another_host());
        clock.set_skew_us(world.faults.skew_us(&site));
        world.there.devices.push(Device { site, clock: clock.clone() });
        let host = self.common.host(name, (node, ip), Disk::new(clock.clone()), clock, 0);
        world.tasks.push(host.tasks.clone());
        host
    }

    async fn begin(&self, fault: &Fault) -> Result<FaultId, String> {
        if !can_express(fault) {
            return Err(format!("madsim cannot express `{}`", fault.family()));
        }
        let World { there, faults, .. } = &mut *lock(&self.world);
        Ok(faults.begin(fault, there))
    }

    async fn end(&self, fault: FaultId) {
        let World { there, faults, .. } = &mut *lock(&self.world);
        faults.end(fault, there);
    }

    async fn heal(&self) {
        let World { there, faults, .. } = &mut *lock(&self.world);
        faults.heal(there);
    }

    fn search(&self, canaries: &Canaries) -> Vec<(String, Sink)> {
        let world = lock(&self.world);
        let watched = |machine: &&Machine| self.common.evidence.watches(&machine.site.name);
        let provider = world.there.machines.iter().filter(watched);
        provider
            .flat_map(|machine| {
                let name = &machine.site.name;
                let stored = rows_as_bytes(machine.disk.rows().snapshot().iter());
                let seen = self.common.evidence.of(name);
                [("store", stored), ("log", seen.log), ("wire", seen.wire)]
                    .map(|(place, bytes)| (name.clone(), canaries.sink(place, &bytes)))
            })
            .collect()
    }

    fn search_logs(&self, canaries: &Canaries) -> Vec<(String, Sink)> {
        self.common.evidence.search_logs(canaries)
    }

    fn sign(&self, cluster: &ClusterName, typ: &str, claims: &Value) -> Option<String> {
        let running = lock(&self.common.running);
        running.values().find_map(|running| signed_by(&running.service, cluster, typ, claims))
    }

    fn relay_accounts(&self) -> Vec<(String, LegCounters)> {
        let running = lock(&self.common.running);
        running.iter().flat_map(|(name, running)| legs_of(name, &running.service)).collect()
    }
}
