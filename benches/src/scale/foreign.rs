//! The same bare hosts on turmoil's network, whose machines each run on a runtime of their own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fusion_runtime::http::serve;
use fusion_runtime::{Entropy, Host};
use fusion_sim::engines::turmoil::bare_world;

use super::Shown;
use super::bare::{House, ip, name, router};
use crate::measure::{Cost, Meter};

/// How often a machine looks whether all others have come as far: a step of turmoil.
const STEP: Duration = Duration::from_millis(1);

/// How far the machines have come together.
#[derive(Default)]
struct Progress {
    serving: usize,
    greeted: usize,
    done: usize,
    /// Since everybody has greeted.
    meter: Option<Meter>,
    /// Until everybody was done.
    cost: Option<Cost>,
}

/// What all machines share.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Progress>>);

/// As [`super::bare::busy`].
pub(super) fn busy(hosts: usize, rpcs: usize) -> Result<Shown> {
    let machines: Vec<_> = (0..hosts).map(|number| (name(number), ip(number))).collect();
    let (shared, each) = (Shared::default(), rpcs / hosts);
    let everywhere = shared.clone();
    bare_world(&machines, move |number, host| live(number, host, hosts, each, everywhere.clone()))?;
    let cost = shared.with(|progress| progress.cost).context("the world ended before its machines")?;
    Ok(Shown { cost, work: (each * hosts) as u64, ..Shown::here()? })
}

async fn live(number: usize, host: Host, hosts: usize, each: usize, shared: Shared) -> Result<()> {
    serve(&host, SocketAddr::new(ip(number), 443), router()).await?;
    shared.all(&host, hosts, |progress| &mut progress.serving).await;
    let house = House::new(host.clone());
    house.ask((number + 1) % hosts).await?;
    shared.all(&host, hosts, |progress| &mut progress.greeted).await;
    shared.with(|progress| {
        progress.meter.get_or_insert_with(Meter::start);
    });
    let chance = Entropy::from_u64(number as u64);
    for _ in 0..each {
        house.ask(chance.below(hosts as u64) as usize).await?;
    }
    shared.with(|progress| {
        // The last one stops the watch.
        progress.cost = progress.meter.as_ref().map(Meter::elapsed);
    });
    shared.all(&host, hosts, |progress| &mut progress.done).await;
    Ok(())
}

impl Shared {
    /// This machine has come so far; waits until all have.
    async fn all(&self, host: &Host, hosts: usize, count: fn(&mut Progress) -> &mut usize) {
        self.with(|progress| *count(progress) += 1);
        while self.with(|progress| *count(progress)) < hosts {
            host.clock.sleep(STEP).await;
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Progress) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_makes_its_rpcs_and_the_watch_runs_meanwhile() {
        let shown = busy(3, 60).unwrap();
        assert_eq!(shown.work, 60);
        assert!(shown.cost.wall_s > 0.0);
    }
}
