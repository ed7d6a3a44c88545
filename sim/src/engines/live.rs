//! The live engine: the same plan, played by the same devices, over real sockets on loopback, with TLS,
//! in real time. It expresses no faults: a plan that has some is refused by name.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use fusion_deployment::{Addressing, Federation, Hooks, Role, assemble, start_host};
use fusion_history::Recorder;
use fusion_history::canary::Canaries;
use fusion_history::event::Sink;
use fusion_protocol::media::LegCounters;
use fusion_runtime::net::live::{LiveConfig, LiveNet};
use fusion_runtime::net::{IpRange, ResolveTable};
use fusion_runtime::probe::Level;
use fusion_runtime::store::MemoryStore;
use fusion_runtime::tls::TestCa;
use fusion_runtime::{Clock, Entropy, Host, Net, Probe, Tasks};
use serde_json::Value;

use super::fabric::Run;
use crate::fabric::{Fault, FaultId};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::play::play;
use crate::stage::{Stage, rows_as_bytes};
use crate::stopwatch::Stopwatch;
use crate::target::target_of;

/// How long everything may take to come to rest where nothing goes wrong.
const SETTLE: Duration = Duration::from_secs(2);

/// Plays a plan over real sockets and judges it.
///
/// # Errors
/// When the plan has faults, or this machine cannot serve the federation.
pub fn judged(plan: &Plan) -> Result<Outcome> {
    if let Some(why) = refusal(plan) {
        bail!(why);
    }
    let watch = Stopwatch::start();
    let mut plan = plan.clone();
    plan.settle = SETTLE.min(plan.settle);
    plan.topology.template = with_port(&plan.topology.template, free_port()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let run = runtime.block_on(run(&plan))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(Outcome::of(&plan, "live", run, watch))
}

/// Why real sockets cannot play a plan; nothing when they can.
#[must_use]
pub fn refusal(plan: &Plan) -> Option<String> {
    let fault = plan.faults.first()?;
    Some(format!("the live engine cannot express `{}` (fault {})", fault.fault.family(), fault.id))
}

async fn run(plan: &Plan) -> Result<Run> {
    let federation = assemble(&plan.topology, Addressing::Loopback, &Entropy::from_system())?;
    let stage = LiveStage::start(federation).await?;
    let target = Arc::new(target_of(&stage.federation));
    let failure = play(plan, &stage, target).await.err().map(|error| error.to_string());
    let simulated_us = stage.clock.now().as_micros() as u64;
    stage.tasks.abort_all();
    Ok(Run {
        history: stage.recorder.clone().finish(),
        faults: BTreeMap::new(),
        simulated_us,
        failure,
        unsent: Vec::new(),
    })
}

struct LiveStage {
    federation: Federation,
    net: Arc<dyn Net>,
    tasks: Tasks,
    clock: Clock,
    recorder: Recorder,
    stores: BTreeMap<String, MemoryStore>,
    provider_log: Arc<Mutex<Vec<u8>>>,
}

impl LiveStage {
    async fn start(federation: Federation) -> Result<Self> {
        let net: Arc<dyn Net> = Arc::new(network(&federation)?);
        let mut stage = Self {
            net,
            tasks: Tasks::default(),
            clock: Clock::real(),
            recorder: Recorder::new(),
            stores: BTreeMap::new(),
            provider_log: Arc::default(),
            federation,
        };
        for spec in stage.federation.hosts.clone() {
            let store = MemoryStore::new();
            stage.stores.insert(spec.name.clone(), store.clone());
            let probe = ProviderLog((spec.role == Role::Provider).then(|| stage.provider_log.clone()));
            let host = Host { store: Arc::new(store), probe: Arc::new(probe), ..stage.host(&spec.name) };
            let started = start_host(&host, &spec, &stage.federation, &Hooks::default()).await;
            started.with_context(|| format!("cannot start {}", spec.name))?;
        }
        Ok(stage)
    }

    fn host(&self, name: &str) -> Host {
        Host {
            tasks: self.tasks.clone(),
            clock: self.clock.clone(),
            probe: Arc::new(ProviderLog(None)),
            ..Host::live(name, self.net.clone(), Arc::new(MemoryStore::new()))
        }
    }
}

#[async_trait]
impl Stage for LiveStage {
    fn engine(&self) -> &'static str {
        "live"
    }

    fn federation(&self) -> &Federation {
        &self.federation
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    fn device_host(&self, name: &str) -> Host {
        self.host(name)
    }

    async fn begin(&self, fault: &Fault) -> Result<FaultId, String> {
        Err(format!("the live engine cannot express {}", fault.family()))
    }

    async fn end(&self, _: FaultId) {}

    async fn heal(&self) {}

    fn search(&self, canaries: &Canaries) -> Vec<(String, Sink)> {
        let provider = self.federation.hosts.iter().filter(|host| host.role == Role::Provider);
        let log = self.provider_log.lock().unwrap_or_else(PoisonError::into_inner).clone();
        provider
            .flat_map(|host| {
                let rows = self.stores.get(&host.name).map(MemoryStore::snapshot).unwrap_or_default();
                let stored = rows_as_bytes(rows.iter());
                [("store", stored), ("log", log.clone())]
                    .map(|(place, bytes)| (host.name.clone(), canaries.sink(place, &bytes)))
            })
            .collect()
    }

    fn relay_accounts(&self) -> Vec<(String, LegCounters)> {
        Vec::new()
    }
}

fn network(federation: &Federation) -> Result<LiveNet> {
    let ca = TestCa::generate()?;
    let wildcard = format!("*.{}", federation.template.provider());
    let mut resolve = ResolveTable::default();
    for (name, addresses) in &federation.resolve {
        if let Some(address) = addresses.first() {
            resolve.insert(name, &address.to_string())?;
        }
    }
    let loopback: IpRange = "127.0.0.0/8".parse()?;
    Ok(LiveNet::new(LiveConfig {
        identities: vec![ca.issue(&[&wildcard])?],
        trust_pem: ca.ca_pem().to_owned(),
        resolve,
        allow: vec![loopback],
        insecure_loopback: false,
    })?)
}

fn with_port(template: &str, port: u16) -> String {
    template.replacen("{provider}", &format!("{{provider}}:{port}"), 1)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Keeps the log lines of the provider's host for the search.
struct ProviderLog(Option<Arc<Mutex<Vec<u8>>>>);

impl Probe for ProviderLog {
    fn log(&self, _: Level, target: &'static str, fields: Value) {
        if let Some(log) = &self.0 {
            let line = format!("{target} {fields}\n");
            log.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(line.as_bytes());
        }
    }
}
