//! Bare hosts on the simulated network: a village of them, with whichever client.

use std::time::Duration;

use anyhow::Result;
use fusion_runtime::{Clock, Host};
use fusion_sim::fabric::World;
use fusion_sim::village::{Caller, Done, House, Village, Work, ip, name, open};

use super::Shown;
use super::pooled::Pooled;

/// While keep-alives are open: less than a client keeps them.
const WHILE_OPEN: Duration = Duration::from_secs(5);

/// With the reference's client.
pub(super) fn village(work: Work) -> Result<Done> {
    work.in_world(|| in_world(work.hosts(), House::new, async |village, _| village.work(work).await))
}

/// With hyper-util's pooled client.
pub(super) fn pooled_village(work: Work) -> Result<Done> {
    let house = |host: Host| House::with(Pooled::new(&host), host);
    work.in_world(|| in_world(work.hosts(), house, async |village, _| village.work(work).await))
}

pub(super) fn memory(hosts: usize) -> Result<Shown> {
    in_world(hosts, House::new, async |village, clock| {
        village.greet_neighbours().await?;
        clock.sleep(WHILE_OPEN).await;
        Shown::here()
    })
}

fn in_world<C: Caller, T>(
    hosts: usize,
    house: impl Fn(Host) -> House<C>,
    play: impl AsyncFnOnce(Village<C>, Clock) -> Result<T>,
) -> Result<T> {
    let world = World::new(1);
    let machines: Vec<Host> = (0..hosts)
        .map(|number| {
            let machine = world.host(&format!("h{number}"), ip(number), "here");
            Ok(machine.start()?)
        })
        .collect::<Result<_>>()?;
    for number in 0..hosts {
        world.publish(&name(number), [ip(number)]);
    }
    world.run(async {
        for (number, host) in machines.iter().enumerate() {
            open(host, number).await?;
        }
        let houses = machines.into_iter().map(house).collect();
        play(Village::of(houses, world.clock()), world.clock()).await
    })
}
