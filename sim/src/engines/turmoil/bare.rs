//! Machines that hold nothing but what their guest brings: for comparing networks, not for scenarios.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use fusion_runtime::bus::LocalBus;
use fusion_runtime::store::MemoryStore;
use fusion_runtime::{Clock, Entropy, Host, Proofs, Tasks};
use turmoil::Builder;

use super::net::{MachineNet, Wires};
use super::{RUN_LIMIT, TCP_CAPACITY, TICK, epoch};
use crate::engines::evidence::{Evidence, Silent};

/// A world of machines, each with one name, on each of which `life` goes on until it ends; the world ends
/// with the last. Links are as fast as turmoil's are: what is sent arrives in the next step.
///
/// # Errors
/// What a life ends with, and lives that last longer than a simulated hour.
pub fn bare_world<F, L>(machines: &[(String, IpAddr)], life: F) -> Result<()>
where
    F: Fn(usize, Host) -> L + Clone + 'static,
    L: Future<Output = Result<()>> + 'static,
{
    let names: BTreeMap<_, _> = machines.iter().map(|(name, ip)| (name.clone(), vec![*ip])).collect();
    let entropy = Entropy::from_u64(1);
    let wires = Arc::new(Wires::named(&names, entropy.stream("wires")));
    let evidence = Arc::new(Evidence::of_nobody());
    let mut sim = Builder::new()
        .rng_seed(entropy.stream("turmoil").u64())
        .tick_duration(TICK)
        .simulation_duration(RUN_LIMIT)
        .min_message_latency(Duration::ZERO)
        .max_message_latency(Duration::ZERO)
        .tcp_capacity(TCP_CAPACITY)
        .build();
    for (number, (name, ip)) in machines.iter().enumerate() {
        let (name, ip, wires, evidence) = (name.clone(), *ip, wires.clone(), evidence.clone());
        let entropy = entropy.stream(&name);
        let host = move || Host {
            net: Arc::new(MachineNet::new(&name, ip, wires, evidence)),
            tasks: Tasks::default(),
            clock: Clock::joining(epoch(), Duration::ZERO),
            entropy,
            store: Arc::new(MemoryStore::new()),
            bus: Arc::new(LocalBus::default()),
            proofs: Proofs::default(),
            probe: Arc::new(Silent),
            name: name.as_str().into(),
        };
        // A clock belongs to the runtime that it is made on: the machine's own.
        let life = life.clone();
        sim.client(ip, async move { Ok(life(number, host()).await?) });
    }
    sim.run().map_err(|error| anyhow!("turmoil: {error}"))
}
