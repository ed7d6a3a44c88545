//! A village on madsim's network: for comparing engines, not for scenarios.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use fusion_runtime::bus::LocalBus;
use fusion_runtime::store::MemoryStore;
use fusion_runtime::{Clock, Entropy, Host, Proofs, Tasks, Timestamp};
use madsim::runtime::{Handle, Runtime};

use super::RUN_LIMIT;
use super::distance::Distances;
use super::names::Names;
use super::net::MachineNet;
use crate::engines::evidence::{Evidence, Silent};
use crate::fabric::WorldOptions;
use crate::village::{Done, House, Village, Work, ip, name, open};

/// Does `work` in a world of madsim's own making: its latencies are the same between all machines.
///
/// # Errors
/// When an RPC fails.
pub fn village(work: Work) -> Result<Done> {
    work.in_world(|| world(work))
}

fn world(work: Work) -> Result<Done> {
    let mut runtime = Runtime::with_seed_and_config(1, madsim::Config::default());
    runtime.set_time_limit(RUN_LIMIT);
    runtime.block_on(async {
        let clock = Clock::starting_at(Timestamp(WorldOptions::default().epoch_us));
        let lot = Lot::of(work.hosts(), clock.clone());
        let mut houses = Vec::new();
        for number in 0..work.hosts() {
            houses.push(lot.build(number).await?);
        }
        Village::of(houses, clock).work(work).await
    })
}

/// What all machines share.
struct Lot {
    names: Names,
    evidence: Arc<Evidence>,
    clock: Clock,
    entropy: Entropy,
}

impl Lot {
    fn of(hosts: usize, clock: Clock) -> Self {
        let names = (0..hosts).map(|number| (name(number), vec![ip(number)])).collect();
        Self {
            names: Names::of(&names),
            evidence: Arc::new(Evidence::of_nobody()),
            clock,
            entropy: Entropy::from_u64(1),
        }
    }

    /// A machine that serves, on a node of its own.
    async fn build(&self, number: usize) -> Result<House> {
        let (name, ip) = (name(number), ip(number));
        let node = Handle::current().create_node().name(name.as_str()).ip(ip).build();
        let net = MachineNet {
            name: name.as_str().into(),
            node: node.id(),
            ip,
            distances: Distances::none(),
            names: self.names.clone(),
            evidence: self.evidence.clone(),
        };
        let host = Host {
            net: Arc::new(net),
            tasks: Tasks::default(),
            clock: self.clock.of_another_host(),
            entropy: self.entropy.stream(&name),
            store: Arc::new(MemoryStore::new()),
            bus: Arc::new(LocalBus::default()),
            proofs: Proofs::default(),
            probe: Arc::new(Silent),
            name: name.as_str().into(),
        };
        let machine = host.clone();
        let opened = node.spawn(async move { open(&machine, number).await });
        opened.await.context("a machine ended by itself")??;
        Ok(House::new(host))
    }
}
