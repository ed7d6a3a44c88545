//! The same bare hosts on turmoil's network, whose machines each run on a runtime of their own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fusion_runtime::Host;
use fusion_sim::engines::turmoil::bare_world;
use fusion_sim::village::{Done, House, Work, ip, name, open};

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

/// A village whose machines must come together by themselves: each has a clock of its own.
pub(super) fn village(work: Work) -> Result<Done> {
    match work {
        Work::Busy { hosts, rpcs } => busy(hosts, rpcs),
        Work::Minute { .. } | Work::IdleHour { .. } => bail!("turmoil would step through {work:?} for days"),
    }
}

fn busy(hosts: usize, rpcs: usize) -> Result<Done> {
    let machines: Vec<_> = (0..hosts).map(|number| (name(number), ip(number))).collect();
    let (shared, each) = (Shared::default(), rpcs / hosts);
    let everywhere = shared.clone();
    bare_world(&machines, move |number, host| live(number, host, hosts, each, everywhere.clone()))?;
    let cost = shared.with(|progress| progress.cost).context("the world ended before its machines")?;
    Ok(Done { cost, rpcs: (each * hosts) as u64 })
}

async fn live(number: usize, host: Host, hosts: usize, each: usize, shared: Shared) -> Result<()> {
    open(&host, number).await?;
    shared.all(&host, hosts, |progress| &mut progress.serving).await;
    let house = House::new(host.clone());
    house.ask((number + 1) % hosts).await?;
    shared.all(&host, hosts, |progress| &mut progress.greeted).await;
    shared.with(|progress| {
        progress.meter.get_or_insert_with(Meter::start);
    });
    house.ask_many(number, hosts, each).await?;
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
        let done = village(Work::Busy { hosts: 3, rpcs: 60 }).unwrap();
        assert_eq!(done.rpcs, 60);
        assert!(done.cost.wall_s > 0.0);
    }
}
