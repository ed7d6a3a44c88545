//! Outages that do not end when they are over.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use fusion_deployment::{Hooks, Role};
use fusion_mutants::wrap::{is_cluster, is_of};
use fusion_runtime::Net;
use fusion_runtime::net::{Listener, Stream, Udp};
use fusion_runtime::store::{Key, Row};
use fusion_sim::plant::Plant;

use crate::disk::{Clerk, Range, Rows, kept_by};
use crate::lock;

/// How many failed connections open the circuit.
const FAILURES_MAX: u32 = 3;

pub(crate) const CIRCUIT_NEVER_CLOSES: Plant = Plant {
    name: "circuit-never-closes",
    requirement: "OPS-002",
    wrong: "who could not be connected to three times in a row is not tried again before the next restart",
    held_out: false,
    hooks: || {
        let wrap = |role: &Role, net: Arc<dyn Net>| match is_cluster(role) {
            true => Arc::new(Breaker { net, failures: Mutex::default() }) as Arc<dyn Net>,
            false => net,
        };
        Hooks { wrap_net: Some(Arc::new(wrap)), ..Hooks::default() }
    },
};

pub(crate) const WAITS_FOR_THE_PROVIDER: Plant = Plant {
    name: "waits-for-the-provider-at-start",
    requirement: "OPS-001",
    wrong: "a cluster does not read the domain map that it has kept: one that restarts while the provider \
            is away knows nobody",
    held_out: true,
    hooks: || kept_by(Blank::default),
};

/// Connects to nobody who has failed too often.
struct Breaker {
    net: Arc<dyn Net>,
    failures: Mutex<BTreeMap<SocketAddr, u32>>,
}

#[async_trait]
impl Net for Breaker {
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.net.resolve(name, port).await
    }

    async fn connect(&self, to: SocketAddr, name: &str) -> io::Result<Stream> {
        if lock(&self.failures).get(&to).is_some_and(|failures| *failures >= FAILURES_MAX) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let connected = self.net.connect(to, name).await;
        let mut failures = lock(&self.failures);
        match &connected {
            Ok(_) => drop(failures.remove(&to)),
            Err(_) => *failures.entry(to).or_default() += 1,
        }
        connected
    }

    async fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        self.net.listen(at).await
    }

    async fn udp(&self, at: SocketAddr) -> io::Result<Arc<dyn Udp>> {
        self.net.udp(at).await
    }
}

/// Finds no map at the first look, and what there is from then on.
#[derive(Default)]
struct Blank {
    looked: AtomicBool,
    read: AtomicBool,
}

impl Clerk for Blank {
    fn got(&self, keys: &[Key], found: Vec<Option<Row>>) -> Vec<Option<Row>> {
        let map = keys.iter().any(|key| is_of(key, &["domain-map"]));
        let first = map && !self.looked.swap(true, Ordering::Relaxed);
        if first { vec![None; keys.len()] } else { found }
    }

    fn scanned(&self, asked: &Range<'_>, found: Rows) -> Rows {
        let first = is_of(asked.from, &["domain"]) && !self.read.swap(true, Ordering::Relaxed);
        if first { Rows::new() } else { found }
    }
}
