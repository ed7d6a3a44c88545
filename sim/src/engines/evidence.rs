//! What is observed of a simulated world, whichever engine it runs on: the history in the making, and
//! what the provider plane was told (PRI-001).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fusion_deployment::Federation;
use fusion_deployment::services::Service;
use fusion_history::canary::Canaries;
use fusion_history::event::Sink;
use fusion_history::{Body, Recorder};
use fusion_protocol::ClusterName;
use fusion_protocol::media::LegCounters;
use fusion_runtime::probe::{Level, StateChange};
use fusion_runtime::{Clock, Probe};
use serde_json::Value;

use crate::capture::Capture;
use crate::play::PlayError;

/// Events that a run may have before it counts as one that spins.
const EVENT_BUDGET: u64 = 2_000_000;
/// Bytes of each place of the provider plane that are kept for the search.
const EVIDENCE_MAX_BYTES: usize = 64 << 20;

/// What is observed of a world: the history, and what the provider plane holds.
pub struct Evidence {
    recorder: Recorder,
    provider: BTreeMap<String, Mutex<Seen>>,
    /// What every other host has logged.
    logs: BTreeMap<String, Mutex<Vec<u8>>>,
    /// Whether packets go into the history, too.
    pub(super) wire: bool,
    /// Every packet, where a capture is asked for.
    pub(super) capture: Option<Mutex<Capture>>,
    /// Whether a host of the provider plane was told more than is kept.
    overflowed: AtomicBool,
}

/// What one host of the provider plane has been told and has said.
#[derive(Clone, Default)]
pub(super) struct Seen {
    pub(super) log: Vec<u8>,
    pub(super) wire: Vec<u8>,
}

impl Evidence {
    /// Evidence of a federation's run; with `wire`, packets go into the history.
    #[must_use]
    pub fn new(federation: &Federation, wire: bool) -> Self {
        let (others, provider): (Vec<_>, Vec<_>) =
            federation.hosts.iter().partition(|host| host.cluster().is_some());
        let (others, provider) = (others.into_iter(), provider.into_iter());
        Self {
            recorder: Recorder::with_budget(EVENT_BUDGET),
            provider: provider.map(|host| (host.name.clone(), Mutex::default())).collect(),
            logs: others.map(|host| (host.name.clone(), Mutex::default())).collect(),
            wire,
            capture: None,
            overflowed: AtomicBool::new(false),
        }
    }

    /// The same, and every packet is kept besides.
    pub(super) fn capturing(self) -> Self {
        Self { capture: Some(Mutex::default()), ..self }
    }

    /// Of machines that nobody observes.
    pub(super) fn of_nobody() -> Self {
        Self {
            recorder: Recorder::with_budget(0),
            provider: BTreeMap::new(),
            logs: BTreeMap::new(),
            wire: false,
            capture: None,
            overflowed: AtomicBool::new(false),
        }
    }

    /// The history in the making.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Whether a host is one of the provider plane.
    pub(super) fn watches(&self, host: &str) -> bool {
        self.provider.contains_key(host)
    }

    /// Payload has reached `host`; kept where it is of the provider plane.
    pub(super) fn arrived(&self, host: &str, bytes: &[u8]) {
        if let Some(seen) = self.provider.get(host) {
            self.keep(&mut lock(seen).wire, bytes);
        }
    }

    /// What a host of the provider plane has been told and has said.
    pub(super) fn of(&self, host: &str) -> Seen {
        self.provider.get(host).map(|seen| lock(seen).clone()).unwrap_or_default()
    }

    /// The logs outside of the provider plane, searched (PRI-005).
    pub(super) fn search_logs(&self, canaries: &Canaries) -> Vec<(String, Sink)> {
        let logs = self.logs.iter();
        logs.map(|(name, log)| (name.clone(), canaries.sink("log", &lock(log)))).collect()
    }

    /// Why a run whose play ended like this says nothing.
    pub(super) fn failure(&self, played: Result<(), PlayError>, panics: u64) -> Option<String> {
        match played {
            Err(error) => Some(error.to_string()),
            Ok(()) if panics > 0 => Some(format!("{panics} tasks of services panicked")),
            Ok(()) if self.overflowed.load(Ordering::Relaxed) => Some(format!(
                "a host was told or has logged more than {EVIDENCE_MAX_BYTES} bytes: it cannot be searched"
            )),
            Ok(()) if self.recorder.over_budget() => {
                Some("more events than the budget: somebody spins".to_owned())
            }
            Ok(()) => None,
        }
    }

    fn keep(&self, kept: &mut Vec<u8>, bytes: &[u8]) {
        if kept.len() + bytes.len() <= EVIDENCE_MAX_BYTES {
            kept.extend_from_slice(bytes);
        } else {
            self.overflowed.store(true, Ordering::Relaxed);
        }
    }
}

/// What a machine of the world reports to.
pub(super) struct MachineProbe {
    name: Arc<str>,
    clock: Clock,
    evidence: Arc<Evidence>,
}

impl MachineProbe {
    /// The probe of the machine `name`, whose reports carry the time of `clock`.
    pub(super) fn new(name: &str, clock: Clock, evidence: Arc<Evidence>) -> Self {
        Self { name: name.into(), clock, evidence }
    }
}

impl Probe for MachineProbe {
    fn watches_state(&self) -> bool {
        true
    }

    fn state(&self, change: StateChange) {
        let StateChange { concept, subject, state, detail } = change;
        let body = Body::State { concept: concept.to_owned(), subject, state, detail };
        self.evidence.recorder.record(self.clock.now(), &self.name, None, body);
    }

    fn log(&self, level: Level, target: &'static str, fields: Value) {
        let line = || format!("{target} {fields}\n");
        if let Some(seen) = self.evidence.provider.get(&*self.name) {
            self.evidence.keep(&mut lock(seen).log, line().as_bytes());
        }
        if let Some(log) = self.evidence.logs.get(&*self.name) {
            self.evidence.keep(&mut lock(log), line().as_bytes());
        }
        if level >= Level::Warn {
            let level = if level == Level::Warn { "warn" } else { "error" };
            let body = Body::Log { level: level.to_owned(), target: target.to_owned(), fields };
            self.evidence.recorder.record(self.clock.now(), &self.name, None, body);
        }
    }
}

/// The probe of a machine that reports to nobody.
pub(super) struct Silent;

impl Probe for Silent {
    fn log(&self, _: Level, _: &'static str, _: Value) {}
}

/// What a relay says of its legs (MED-005); nothing of any other service.
pub(super) fn legs_of(host: &str, service: &Service) -> Vec<(String, LegCounters)> {
    match service {
        Service::Relay(relay) => {
            relay.counters().legs.into_iter().map(|leg| (host.to_owned(), leg)).collect()
        }
        Service::Provider(_) | Service::Cluster(_) => Vec::new(),
    }
}

/// A token signed with the key of `cluster`, if that is the service.
pub(super) fn signed_by(
    service: &Service,
    cluster: &ClusterName,
    typ: &str,
    claims: &Value,
) -> Option<String> {
    match service {
        Service::Cluster(running) if running.name() == cluster => Some(running.signing.sign(typ, claims)),
        Service::Cluster(_) | Service::Provider(_) | Service::Relay(_) => None,
    }
}

/// Everything behind these locks stays usable when a task panics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
