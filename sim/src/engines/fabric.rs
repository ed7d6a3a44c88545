//! The default engine: a federation on our own simulated network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fusion_conformance::target::Seen as SeenPlace;
use fusion_deployment::{
    Addressing, Federation, Hooks, HostSpec, Running, Topology, TopologyError, assemble, start_host,
};
use fusion_history::canary::Canaries;
use fusion_history::event::Sink;
use fusion_history::{Body, EventId, History, Recorder};
use fusion_protocol::ClusterName;
use fusion_protocol::media::LegCounters;
use fusion_runtime::probe::Level;
use fusion_runtime::{Clock, Entropy, Host};
use futures_util::future::abortable;
use serde_json::Value;

use super::evidence::{Evidence, MachineProbe, legs_of, lock, signed_by};
use crate::capture::Capture;
use crate::fabric::{
    Fault, FaultCount, FaultId, Frame, Inspection, LinkProfile, Observer, Overrun, Place, Protocol,
    WireEvent, WireKind, World, WorldOptions,
};
use crate::plan::Plan;
use crate::play::{PlayError, play};
use crate::stage::{Stage, rows_as_bytes};
use crate::target::target_of;
use crate::unrest::{Unsent, unsent};

/// After how long a supervisor starts a machine again whose services could not start: its disk is full, say.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// How long a deployment is left alone before it is checked.
const WARM_UP: Duration = Duration::from_secs(5);

/// What a run on fabric leaves.
#[derive(Debug)]
pub struct Run {
    /// Everything observed.
    pub history: History,
    /// How often each fault family was chosen and made a difference.
    pub faults: BTreeMap<&'static str, FaultCount>,
    /// How long it lasted in the world, microseconds.
    pub simulated_us: u64,
    /// Why the play could not be played.
    pub failure: Option<String>,
    /// What waits in outboxes at the end, where the engine can look into them.
    pub unsent: Vec<Unsent>,
}

/// How a run on fabric is set up.
#[derive(Clone, Default)]
pub struct Options {
    /// What a faulty deployment does differently.
    pub hooks: Hooks,
    /// Whether packets are written into the history, too.
    pub wire: bool,
}

/// A run that was stopped just after one of its events.
#[derive(Debug)]
pub struct Stopped {
    /// Everything observed up to the event.
    pub history: History,
    /// What was the case then.
    pub world: Inspection,
    /// What each relay said of its legs then, by host.
    pub legs: Vec<(String, LegCounters)>,
}

/// Plays `plan` in a world of its own.
#[must_use]
pub fn run(plan: &Plan, options: &Options) -> Run {
    observed(plan, options, |evidence| evidence).0
}

/// Plays `plan` as [`run`] does, and keeps every packet.
#[must_use]
pub fn captured(plan: &Plan, options: &Options) -> (Run, Capture) {
    let (run, evidence) = observed(plan, options, Evidence::capturing);
    let kept = evidence.as_ref().and_then(|evidence| evidence.capture.as_ref());
    (run, kept.map(|kept| std::mem::take(&mut *lock(kept))).unwrap_or_default())
}

fn observed(
    plan: &Plan,
    options: &Options,
    prepared: fn(Evidence) -> Evidence,
) -> (Run, Option<Arc<Evidence>>) {
    let stage = match stage_of(plan, options, prepared) {
        Ok(stage) => stage,
        Err(error) => return (Run::failed(error.to_string()), None),
    };
    let (world, evidence) = (&stage.world, &stage.evidence);
    let (effort, budget) = (world.effort(), plan.budget.events);
    stage.recorder().watch(move |id, host| {
        effort.observed(host);
        if id.0 + 1 == budget {
            effort.pass(Overrun::Observations { observations: budget });
        }
    });
    let failure = match world.run_bounded(stage.perform(plan)) {
        Ok(played) => evidence.failure(played, world.panics()),
        Err(spin) => Some(spin.to_string()),
    };
    let run = Run {
        history: evidence.recorder().clone().finish(),
        faults: world.fault_counts(),
        simulated_us: world.now_us(),
        failure,
        unsent: stage.unsent(),
    };
    (run, Some(evidence.clone()))
}

/// Plays `plan` until just after `event`, in a world of its own, and looks into it there. What happens up
/// to then is what happens in a whole run: looking changes nothing. Packets are not in the history.
///
/// # Errors
/// When such a federation cannot exist, or the run ends before the event.
pub fn stopped_at(plan: &Plan, hooks: &Hooks, event: EventId) -> Result<Stopped, String> {
    let options = Options { hooks: hooks.clone(), wire: false };
    let stage = Arc::new(stage_of(plan, &options, |evidence| evidence).map_err(|error| error.to_string())?);
    let (playing, halt) = abortable(stage.perform(plan));
    let (found, looking) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Some(stage.clone()))));
    let (find, look) = (found.clone(), looking.clone());
    stage.recorder().watch(move |id, _| {
        if id == event
            && let Some(stage) = lock(&look).take()
        {
            *lock(&find) = Some(stage.stopped());
            halt.abort();
        }
    });
    // Whoever spins later has nothing to do with this moment.
    let _ = stage.world.run_bounded(playing);
    // A run without the event must not keep itself alive.
    drop(lock(&looking).take());
    let stopped = lock(&found).take();
    stopped.ok_or_else(|| format!("the run ends after {} events", stage.recorder().count()))
}

/// The stage of a plan, in a world of its own.
fn stage_of(
    plan: &Plan,
    options: &Options,
    prepared: fn(Evidence) -> Evidence,
) -> Result<FabricStage, TopologyError> {
    let entropy = Entropy::from_u64(plan.seed).stream("federation");
    let federation = assemble(&plan.topology, Addressing::Simulated, &entropy)?;
    let evidence = Arc::new(prepared(Evidence::new(&federation, options.wire)));
    let limits = plan.budget.limits(plan);
    let world_options = WorldOptions { explore_order: plan.hesitation, limits, ..WorldOptions::default() };
    let world = World::with(plan.seed, world_options, evidence.clone());
    Ok(FabricStage::new(world, federation, evidence, options.hooks.clone()))
}

/// The deployment that [`conform`] checks: two private clusters of two orgs, and the consumer cluster.
///
/// # Panics
/// Never: a test reads it.
#[must_use]
pub fn checked() -> Topology {
    const TOPOLOGY: &str = include_str!("checked.toml");
    fusion_settings::parse("checked.toml".as_ref(), TOPOLOGY).expect("a constant file")
}

/// Checks a deployment in a world of its own with the conformance suite.
///
/// # Errors
/// When such a federation cannot exist.
pub fn conform(
    topology: &Topology,
    seed: u64,
    hooks: Hooks,
    suite: &fusion_conformance::Options,
) -> Result<fusion_conformance::Report, TopologyError> {
    conform_observed(topology, seed, hooks, suite).map(|(report, _)| report)
}

/// As [`conform`], with everything observed.
///
/// # Errors
/// As [`conform`].
pub fn conform_observed(
    topology: &Topology,
    seed: u64,
    hooks: Hooks,
    suite: &fusion_conformance::Options,
) -> Result<(fusion_conformance::Report, History), TopologyError> {
    let entropy = Entropy::from_u64(seed).stream("federation");
    let federation = assemble(topology, Addressing::Simulated, &entropy)?;
    let evidence = Arc::new(Evidence::new(&federation, false));
    let world = World::with(seed, WorldOptions::default(), evidence.clone());
    let stage = FabricStage::new(world.clone(), federation, evidence.clone(), hooks);
    let mut target = target_of(&stage.federation);
    target.evidence.seen = stage.seen();
    let recorder = evidence.recorder().clone();
    let report = world.run(async {
        stage.start();
        // Clusters fetch the domain map before anybody comes.
        stage.clock.sleep(WARM_UP).await;
        let host = stage.device_host("suite");
        // Closer to every cluster than they are to each other, so that races between them are reached.
        let (here, everywhere) = (vec![Place::Host("suite".to_owned())], vec![Place::Everywhere]);
        world.set_link(here.clone(), everywhere.clone(), LinkProfile::near());
        world.set_link(everywhere, here, LinkProfile::near());
        fusion_conformance::run_recorded(&host, Arc::new(target), suite, &recorder, |_| {}).await
    });
    Ok((report, recorder.finish()))
}

/// The hosts that a topology will have on fabric, for whoever draws faults.
///
/// # Errors
/// When such a federation cannot exist.
pub fn hosts(topology: &Topology) -> Result<Vec<HostSpec>, TopologyError> {
    assemble(topology, Addressing::Simulated, &Entropy::from_u64(0)).map(|federation| federation.hosts)
}

impl Run {
    pub(crate) fn failed(why: String) -> Self {
        Self {
            history: History::new(),
            faults: BTreeMap::new(),
            simulated_us: 0,
            failure: Some(why),
            unsent: Vec::new(),
        }
    }
}

/// A federation in a simulated world.
pub struct FabricStage {
    world: World,
    federation: Arc<Federation>,
    evidence: Arc<Evidence>,
    clock: Clock,
    hooks: Hooks,
    running: Arc<Mutex<BTreeMap<String, Running>>>,
    devices: AtomicU32,
}

impl FabricStage {
    /// Prepares the machines and names of `federation`; [`FabricStage::start`] starts them.
    #[must_use]
    pub fn new(world: World, federation: Federation, evidence: Arc<Evidence>, hooks: Hooks) -> Self {
        for (name, addresses) in &federation.resolve {
            world.publish(name, addresses.iter().copied());
        }
        let clock = world.clock();
        Self {
            world,
            federation: Arc::new(federation),
            evidence,
            clock,
            hooks,
            running: Arc::default(),
            devices: AtomicU32::new(0),
        }
    }

    /// Starts every machine and plays `plan`.
    async fn perform(&self, plan: &Plan) -> Result<(), PlayError> {
        self.start();
        play(plan, self, Arc::new(target_of(&self.federation))).await
    }

    /// What is the case now.
    fn stopped(&self) -> Stopped {
        Stopped {
            history: self.recorder().snapshot(),
            world: self.world.inspect(),
            legs: self.relay_accounts(),
        }
    }

    /// Starts every machine. Inside the world's run.
    pub fn start(&self) {
        for spec in &self.federation.hosts {
            let boot = self.boot(spec.clone());
            let probe = MachineProbe::new(&spec.name, self.clock.clone(), self.evidence.clone());
            let mut machine = self.world.host(&spec.name, spec.ip, &spec.data_center).probe(Arc::new(probe));
            if let Some(cluster) = spec.cluster() {
                machine = machine.group(cluster.as_str());
            }
            let host =
                machine.boot(boot.clone()).start().expect("a federation's names and addresses are its own");
            boot(host);
        }
    }

    /// What clusters have not made known to others.
    fn unsent(&self) -> Vec<Unsent> {
        let clusters = self.federation.hosts.iter().filter(|host| host.cluster().is_some());
        clusters.flat_map(|host| unsent(&host.name, &self.world.rows(&host.name))).collect()
    }

    /// The places of the provider plane, for the suite to look into.
    fn seen(&self) -> Vec<SeenPlace> {
        let provider = self.federation.hosts.iter().filter(|host| host.cluster().is_none());
        provider
            .flat_map(|host| {
                ["store", "log", "wire"].map(|place| {
                    let (world, evidence, name) =
                        (self.world.clone(), self.evidence.clone(), host.name.clone());
                    let bytes = Arc::new(move || held(&world, &evidence, &name, place));
                    SeenPlace { place, name: format!("{} of {}", place, host.name), bytes }
                })
            })
            .collect()
    }

    fn boot(&self, spec: HostSpec) -> impl Fn(Host) + Clone + Send + Sync + 'static {
        let (federation, hooks, running, world) =
            (self.federation.clone(), self.hooks.clone(), self.running.clone(), self.world.clone());
        move |host: Host| {
            let (spec, federation, hooks, running, world) =
                (spec.clone(), federation.clone(), hooks.clone(), running.clone(), world.clone());
            let machine = host.clone();
            host.tasks.spawn(async move {
                match start_host(&machine, &spec, &federation, &hooks).await {
                    Ok(started) => drop(lock(&running).insert(spec.name, started)),
                    Err(error) => {
                        let fields = serde_json::json!({"error": error.to_string()});
                        machine.probe.log(Level::Error, "host.start", fields);
                        world.restart_in(&spec.name, RESTART_AFTER);
                    }
                }
            });
        }
    }
}

#[async_trait]
impl Stage for FabricStage {
    fn engine(&self) -> &'static str {
        "fabric"
    }

    fn federation(&self) -> &Federation {
        &self.federation
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn recorder(&self) -> &Recorder {
        self.evidence.recorder()
    }

    /// Each device in a place of its own, in the 172.16/12 block.
    fn device_host(&self, name: &str) -> Host {
        let n = self.devices.fetch_add(1, Ordering::Relaxed) + 1;
        let ip = IpAddr::from(Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 0)) + n));
        let host = self.world.host(name, ip, &format!("at {name}")).start();
        host.expect("a device's name and address are its own")
    }

    async fn begin(&self, fault: &Fault) -> Result<FaultId, String> {
        self.world.inject(fault).await.map_err(|error| error.to_string())
    }

    async fn end(&self, fault: FaultId) {
        // It may have ended by itself, or by another one that started the machine again.
        let _ = self.world.heal(fault).await;
    }

    async fn heal(&self) {
        self.world.heal_all().await;
    }

    fn search(&self, canaries: &Canaries) -> Vec<(String, Sink)> {
        let places = self.seen().into_iter();
        let provider = self.federation.hosts.iter().find(|host| host.cluster().is_none());
        let name = provider.map(|host| host.name.clone()).unwrap_or_default();
        places.map(|seen| (name.clone(), canaries.sink(seen.place, &(seen.bytes)()))).collect()
    }

    fn search_logs(&self, canaries: &Canaries) -> Vec<(String, Sink)> {
        self.evidence.search_logs(canaries)
    }

    fn sign(&self, cluster: &ClusterName, typ: &str, claims: &Value) -> Option<String> {
        let running = lock(&self.running);
        running.values().find_map(|running| signed_by(&running.service, cluster, typ, claims))
    }

    fn relay_accounts(&self) -> Vec<(String, LegCounters)> {
        let running = lock(&self.running);
        running.iter().flat_map(|(name, running)| legs_of(name, &running.service)).collect()
    }
}

/// What a host of the provider plane holds at one of its places.
fn held(world: &World, evidence: &Evidence, host: &str, place: &str) -> Vec<u8> {
    match place {
        "store" => rows_as_bytes(world.rows(host).iter().map(|(key, row)| (key, row))),
        "log" => evidence.of(host).log,
        _ => evidence.of(host).wire,
    }
}

impl Observer for Evidence {
    fn watches_wire(&self) -> bool {
        self.wire
    }

    fn wire(&self, event: &WireEvent) {
        let what = match &event.kind {
            WireKind::Sent => return,
            kind => serde_json::to_value(kind).unwrap_or_default(),
        };
        let what = what.as_str().map_or_else(|| what.to_string(), str::to_owned);
        let body = Body::Wire {
            from: event.from.host.to_string(),
            to: event.to.host.to_string(),
            protocol: if event.protocol == Protocol::Tcp { "tcp" } else { "udp" }.to_owned(),
            what,
            bytes: event.len as u64,
        };
        self.recorder().record(Duration::from_micros(event.at_us), "network", None, body);
    }

    fn watches_frames(&self) -> bool {
        self.capture.is_some()
    }

    fn frame(&self, frame: &Frame<'_>) {
        if let Some(capture) = &self.capture {
            lock(capture).take(frame);
        }
    }

    fn frame_lost(&self, frame: &Frame<'_>) {
        if let Some(capture) = &self.capture {
            lock(capture).mark_lost(frame);
        }
    }

    fn watches_bytes(&self, host: &str) -> bool {
        self.watches(host)
    }

    fn bytes(&self, arrival: &WireEvent, bytes: &[u8]) {
        self.arrived(&arrival.to.host, bytes);
    }
}
