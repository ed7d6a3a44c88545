//! The second simulated network: the same plan, services, devices and judges on [`turmoil`], whose TCP is
//! nobody's of this house. What holds on fabric and not here, or here and not there, is a mistake of a
//! network or of ours.
//!
//! Every machine of the federation is a host of turmoil with a runtime of its own. All devices and admins
//! share one more, [`PEOPLE`], where the play is played: turmoil gives a socket to whichever host runs just
//! then, so that a play cannot speak for several. A world moves in steps of one millisecond, and every step
//! looks at every pair of machines: for small federations only.
//!
//! | file | holds |
//! |---|---|
//! | `net` | the seam's network over turmoil's sockets |
//! | `faults` | what can go wrong here, and what is refused by name before anything is played |
//! | `disk` | stores that outlive a crash |
//! | `bare` | machines that hold nothing, for comparing networks |
//!
//! What turmoil is not asked for: names, of which it gives a machine only one, and randomness and time, which
//! are the seam's.

mod bare;
mod disk;
mod faults;
mod net;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use async_trait::async_trait;
use fusion_deployment::{Addressing, Federation, Hooks, HostSpec, Running, assemble, start_host};
use fusion_history::Recorder;
use fusion_history::canary::Canaries;
use fusion_history::event::Sink;
use fusion_protocol::ClusterName;
use fusion_protocol::media::LegCounters;
use fusion_runtime::bus::LocalBus;
use fusion_runtime::probe::Level;
use fusion_runtime::store::MemoryStore;
use fusion_runtime::{Clock, Entropy, Host, Proofs, Tasks, Timestamp};
use serde_json::Value;
use tokio::sync::oneshot;
use turmoil::{Builder, Sim};

use super::evidence::{Evidence, MachineProbe, Silent, legs_of, lock, signed_by};
use super::fabric::Run;
use crate::fabric::{Fault, FaultId, WorldOptions};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::play::play;
use crate::stage::{Stage, rows_as_bytes};
use crate::target::target_of;
use disk::Disk;
use faults::{Change, Faults, Machine};
use net::{MachineNet, Wires};

pub use bare::bare_world;
pub use faults::FAMILIES;

/// The machine of all devices and admins.
pub const PEOPLE: &str = "people";
/// Outside of every block that a federation has.
const PEOPLE_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 0, 1));
/// How much time a step is. What comes in between is rounded to its end.
const TICK: Duration = Duration::from_millis(1);
/// The simulated time after which a run that has not ended is a failure.
const RUN_LIMIT: Duration = Duration::from_secs(3_600);
/// Segments and connections under way at one socket: turmoil panics when too many want to connect.
const TCP_CAPACITY: usize = 1_024;
/// Datagrams that wait at one socket; more are lost.
const UDP_CAPACITY: usize = 1_024;

/// Plays a plan on turmoil and judges it.
///
/// # Errors
/// When turmoil cannot express the plan, by the name of what it cannot; nothing has been played then.
pub fn judged(plan: &Plan, hooks: &Hooks) -> Result<Outcome> {
    let federation =
        assemble(&plan.topology, Addressing::Simulated, &Entropy::from_u64(plan.seed).stream("federation"))?;
    if let Some(why) = faults::refusal(plan, &federation) {
        bail!(why);
    }
    Ok(Outcome::guarded(plan, "turmoil", || run(plan, federation, hooks)))
}

/// Why turmoil cannot play a plan; nothing when it can.
#[must_use]
pub fn refusal(plan: &Plan) -> Option<String> {
    match assemble(&plan.topology, Addressing::Simulated, &Entropy::from_u64(plan.seed)) {
        Ok(federation) => faults::refusal(plan, &federation),
        Err(error) => Some(error.to_string()),
    }
}

fn run(plan: &Plan, federation: Federation, hooks: &Hooks) -> Run {
    let evidence = Arc::new(Evidence::new(&federation, false));
    let outside = Arc::new(Outside::new(plan, federation, evidence.clone(), hooks.clone()));
    let mut sim = world(plan, &outside);
    let played = Rc::new(RefCell::new(None));
    let (said, plan_here, inside) = (played.clone(), plan.clone(), outside.clone());
    sim.client(PEOPLE_IP, async move {
        let stage = TurmoilStage::new(inside);
        let target = Arc::new(target_of(stage.federation()));
        let result = Box::pin(play(&plan_here, &stage, target)).await;
        *said.borrow_mut() = Some(result);
        Ok(())
    });
    outside.place_links(&mut sim);
    let stopped = outside.drive(&mut sim);
    let simulated = sim.elapsed();
    // Sockets end with their machines: nothing may be left of them when the world is gone.
    drop(sim);
    let failure = match (stopped, played.take()) {
        (Err(why), _) => Some(why),
        (Ok(()), None) => Some("the play did not end".to_owned()),
        (Ok(()), Some(played)) => evidence.failure(played, outside.panics()),
    };
    Run {
        history: evidence.recorder().clone().finish(),
        faults: lock(&outside.faults).counts(),
        simulated_us: simulated.as_micros() as u64,
        failure,
        unsent: Vec::new(),
    }
}

/// The world before its first step: every machine with its software.
fn world<'a>(plan: &Plan, outside: &Arc<Outside>) -> Sim<'a> {
    let mut sim = Builder::new()
        .rng_seed(Entropy::from_u64(plan.seed).stream("turmoil").u64())
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_micros(epoch().0))
        .tick_duration(TICK)
        .simulation_duration(RUN_LIMIT)
        .tcp_capacity(TCP_CAPACITY)
        .udp_capacity(UDP_CAPACITY)
        .build();
    for spec in &outside.federation.hosts {
        let (outside, spec) = (outside.clone(), spec.clone());
        sim.host(spec.ip, move || outside.clone().software(spec.clone()));
    }
    sim
}

/// When worlds begin, on every engine.
fn epoch() -> Timestamp {
    Timestamp(WorldOptions::default().epoch_us)
}

/// What only the outside of the world may do, done between two steps.
type Order = Box<dyn FnOnce(&mut Sim<'_>) + Send>;

/// Everything that outlives the machines, and what the inside and the outside of the world share.
struct Outside {
    federation: Federation,
    evidence: Arc<Evidence>,
    hooks: Hooks,
    hesitation: f64,
    entropy: Entropy,
    wires: Arc<Wires>,
    disks: BTreeMap<String, Disk>,
    faults: Mutex<Faults>,
    orders: Mutex<Vec<Order>>,
    /// How long the world has run at the beginning of the present step, microseconds.
    step_us: AtomicU64,
    lives: Mutex<Lives>,
}

/// The lives that machines have had.
#[derive(Default)]
struct Lives {
    /// The tasks of each life, by machine, the present one last.
    tasks: BTreeMap<String, Vec<Tasks>>,
    /// What runs. Only the machine itself owns it: its sockets must end when its life does.
    running: BTreeMap<String, Weak<Running>>,
}

impl Outside {
    fn new(plan: &Plan, federation: Federation, evidence: Arc<Evidence>, hooks: Hooks) -> Self {
        let entropy = Entropy::from_u64(plan.seed).stream("world");
        let machines = federation.hosts.iter().map(Machine::of).chain([Machine::of_people(PEOPLE_IP)]);
        let faults = Faults::new(machines.collect(), entropy.stream("distances"));
        let disks = federation
            .hosts
            .iter()
            .map(|host| (host.name.clone(), Disk::new(entropy.stream(&format!("disk/{}", host.name)))));
        Self {
            disks: disks.collect(),
            wires: Arc::new(Wires::new(&federation, entropy.stream("wires"))),
            faults: Mutex::new(faults),
            federation,
            evidence,
            hooks,
            hesitation: plan.hesitation,
            entropy,
            orders: Mutex::default(),
            step_us: AtomicU64::new(0),
            lives: Mutex::default(),
        }
    }

    /// Steps the world until the play is over.
    fn drive(&self, sim: &mut Sim<'_>) -> Result<(), String> {
        loop {
            self.step_us.store(sim.elapsed().as_micros() as u64, Ordering::Relaxed);
            if sim.step().map_err(|error| error.to_string())? {
                return Ok(());
            }
            lock(&self.faults).watch(sim);
            let orders = std::mem::take(&mut *lock(&self.orders));
            orders.into_iter().for_each(|order| order(sim));
        }
    }

    /// Gives every pair of machines the latency of its distance.
    fn place_links(&self, sim: &mut Sim<'_>) {
        for change in lock(&self.faults).settle() {
            change.make(sim, &self.disks, &self.wires);
        }
    }

    /// What runs on a machine, from its start to its crash.
    async fn software(self: Arc<Self>, spec: HostSpec) -> turmoil::Result {
        let host = self.bear(&spec);
        match start_host(&host, &spec, &self.federation, &self.hooks).await {
            Ok(running) => {
                let running = Arc::new(running);
                lock(&self.lives).running.insert(spec.name.clone(), Arc::downgrade(&running));
                std::future::pending::<()>().await;
                drop(running);
            }
            Err(error) => {
                let fields = serde_json::json!({"error": error.to_string()});
                host.probe.log(Level::Error, "host.start", fields);
                std::future::pending::<()>().await;
            }
        }
        Ok(())
    }

    /// The machine in a new life. On its own runtime, at the beginning of a step.
    fn bear(&self, spec: &HostSpec) -> Host {
        let clock = Clock::joining(epoch(), Duration::from_micros(self.step_us.load(Ordering::Relaxed)));
        let tasks = Tasks::default();
        let number = {
            let mut lives = lock(&self.lives);
            let lives = lives.tasks.entry(spec.name.clone()).or_default();
            lives.push(tasks.clone());
            lives.len() - 1
        };
        let of_this_life = |purpose: &str| self.entropy.stream(&format!("{purpose}/{}/{number}", spec.name));
        if self.hesitation > 0.0 {
            let (entropy, probability) = (of_this_life("hesitate"), self.hesitation);
            tasks.hesitate(Box::new(move || entropy.chance(probability)));
        }
        Host {
            name: spec.name.as_str().into(),
            net: Arc::new(MachineNet::new(&spec.name, spec.ip, self.wires.clone(), self.evidence.clone())),
            store: Arc::new(self.disks[&spec.name].store(clock.clone(), tasks.clone())),
            probe: Arc::new(MachineProbe::new(&spec.name, clock.clone(), self.evidence.clone())),
            bus: Arc::new(LocalBus::default()),
            proofs: Proofs::default(),
            entropy: of_this_life("host"),
            tasks,
            clock,
        }
    }

    fn panics(&self) -> u64 {
        lock(&self.lives).tasks.values().flatten().map(Tasks::panics).sum()
    }

    /// Ends the tasks of machines that are about to crash, in the order in which they were spawned: a
    /// runtime that is dropped ends them in another order in each run, and each closes its sockets.
    fn end_tasks(&self, of: &[Change]) {
        let lives = lock(&self.lives);
        for change in of {
            if let Change::Crash { name, .. } = change
                && let Some(tasks) = lives.tasks.get(name).and_then(|lives| lives.last())
            {
                tasks.abort_all();
            }
        }
    }
}

/// A federation in a world of turmoil, as the play sees it.
struct TurmoilStage {
    outside: Arc<Outside>,
    clock: Clock,
    devices: AtomicU32,
}

impl TurmoilStage {
    /// On the runtime of [`PEOPLE`].
    fn new(outside: Arc<Outside>) -> Self {
        Self { outside, clock: Clock::joining(epoch(), Duration::ZERO), devices: AtomicU32::new(0) }
    }

    /// Has changes made between two steps.
    async fn make(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        self.outside.end_tasks(&changes);
        if changes.iter().any(|change| matches!(change, Change::Crash { .. })) {
            // In the step that begins now, they end.
            self.between_steps(|_| ()).await;
        }
        let outside = self.outside.clone();
        self.between_steps(move |sim| {
            changes.iter().for_each(|change| change.make(sim, &outside.disks, &outside.wires));
        })
        .await;
    }

    async fn between_steps(&self, order: impl FnOnce(&mut Sim<'_>) + Send + 'static) {
        let (done, made) = oneshot::channel();
        let order = move |sim: &mut Sim<'_>| {
            order(sim);
            // Whoever ordered it may be gone.
            let _ = done.send(());
        };
        lock(&self.outside.orders).push(Box::new(order));
        // The world ends with the play that waits here.
        let _ = made.await;
    }

    /// Brings the wires to what the active faults want.
    async fn settle(&self, mut changes: Vec<Change>) {
        {
            let mut faults = lock(&self.outside.faults);
            self.outside.wires.set(faults.losses());
            changes.extend(faults.settle());
        }
        self.make(changes).await;
    }
}

#[async_trait]
impl Stage for TurmoilStage {
    fn engine(&self) -> &'static str {
        "turmoil"
    }

    fn federation(&self) -> &Federation {
        &self.outside.federation
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn recorder(&self) -> &Recorder {
        self.outside.evidence.recorder()
    }

    /// A device of its own on the machine of all devices.
    fn device_host(&self, name: &str) -> Host {
        // Two that were named alike would draw the same randomness.
        let number = self.devices.fetch_add(1, Ordering::Relaxed);
        let Outside { wires, evidence, entropy, .. } = &*self.outside;
        Host {
            name: name.into(),
            net: Arc::new(MachineNet::new(PEOPLE, PEOPLE_IP, wires.clone(), evidence.clone())),
            tasks: Tasks::default(),
            clock: self.clock.of_another_host(),
            entropy: entropy.stream(&format!("device/{name}/{number}")),
            store: Arc::new(MemoryStore::new()),
            bus: Arc::new(LocalBus::default()),
            proofs: Proofs::default(),
            probe: Arc::new(Silent),
        }
    }

    async fn begin(&self, fault: &Fault) -> Result<FaultId, String> {
        let (id, changes) = lock(&self.outside.faults).begin(fault)?;
        self.settle(changes).await;
        Ok(id)
    }

    async fn end(&self, fault: FaultId) {
        let changes = lock(&self.outside.faults).end(fault);
        self.settle(changes).await;
    }

    async fn heal(&self) {
        let changes = lock(&self.outside.faults).end_all();
        self.settle(changes).await;
    }

    /// The wire holds what the provider's services have taken off it.
    fn search(&self, canaries: &Canaries) -> Vec<(String, Sink)> {
        let Outside { federation, evidence, disks, .. } = &*self.outside;
        let provider = federation.hosts.iter().filter(|host| host.cluster().is_none());
        provider
            .flat_map(|host| {
                let (rows, seen) = (disks[&host.name].rows(), evidence.of(&host.name));
                [("store", rows_as_bytes(rows.iter())), ("log", seen.log), ("wire", seen.wire)]
                    .map(|(place, bytes)| (host.name.clone(), canaries.sink(place, &bytes)))
            })
            .collect()
    }

    fn search_logs(&self, canaries: &Canaries) -> Vec<(String, Sink)> {
        self.outside.evidence.search_logs(canaries)
    }

    fn sign(&self, cluster: &ClusterName, typ: &str, claims: &Value) -> Option<String> {
        let lives = lock(&self.outside.lives);
        let mut running = lives.running.values().filter_map(Weak::upgrade);
        running.find_map(|running| signed_by(&running.service, cluster, typ, claims))
    }

    fn relay_accounts(&self) -> Vec<(String, LegCounters)> {
        let lives = lock(&self.outside.lives);
        let running = lives.running.iter().filter_map(|(name, running)| Some((name, running.upgrade()?)));
        running.flat_map(|(name, running)| legs_of(name, &running.service)).collect()
    }
}
