//! One machine as its services see it.

use std::sync::Arc;

use crate::bus::LocalBus;
use crate::probe::LogProbe;
use crate::{Bus, Clock, Entropy, Net, Probe, Proofs, Store, Tasks};

/// The world of one machine. Cheap to clone; all clones are the same machine.
#[derive(Clone)]
pub struct Host {
    /// Its name in logs and histories, for example `a` or `provider`.
    pub name: Arc<str>,
    /// Connections and datagrams.
    pub net: Arc<dyn Net>,
    /// The only way to start concurrent work.
    pub tasks: Tasks,
    /// Monotonic and wall time, and waiting.
    pub clock: Clock,
    /// Named streams of randomness.
    pub entropy: Entropy,
    /// Durable state.
    pub store: Arc<dyn Store>,
    /// Publish and subscribe between the instances of one cluster.
    pub bus: Arc<dyn Bus>,
    /// Where state changes and log lines are reported.
    pub probe: Arc<dyn Probe>,
    /// Which signatures need no proof.
    pub proofs: Proofs,
}

impl Host {
    /// A machine of the real world: real time, the system's randomness, its log, and a bus of its own.
    #[must_use]
    pub fn live(name: &str, net: Arc<dyn Net>, store: Arc<dyn Store>) -> Self {
        Self {
            name: name.into(),
            net,
            tasks: Tasks::default(),
            clock: Clock::real(),
            entropy: Entropy::from_system(),
            store,
            bus: Arc::new(LocalBus::default()),
            probe: Arc::new(LogProbe),
            proofs: Proofs::default(),
        }
    }

    /// The same machine with another store: how a role keeps its rows apart, and how a faulty
    /// deployment wraps the store of a service.
    #[must_use]
    pub fn with_store(&self, store: Arc<dyn Store>) -> Self {
        Self { store, ..self.clone() }
    }
}
