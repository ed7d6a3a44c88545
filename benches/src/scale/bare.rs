//! Bare hosts on the simulated network: an axum app that answers a GET, and a client.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use fusion_runtime::http::{Client, serve};
use fusion_runtime::{Clock, Entropy, Host};
use fusion_sim::fabric::World;
use futures_util::future::try_join_all;
use http::Request;

use super::pooled::Pooled;
use super::{Engine, Shown};
use crate::measure::{Meter, resident_kb};

/// How long RPCs are spread over.
pub(super) const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
/// While keep-alives are open: less than a client keeps them.
const WHILE_OPEN: Duration = Duration::from_secs(5);

/// What every host serves.
pub(super) fn router() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

pub(super) fn minute(engine: Engine, hosts: usize, rpcs: usize) -> Result<Shown> {
    let meter = Meter::start();
    let work = in_world(engine, hosts, async |village: Village| {
        village.greet_neighbours().await?;
        let chance = Entropy::from_u64(1);
        let mut asked = Vec::new();
        for _ in 0..rpcs {
            village.clock.sleep(MINUTE / rpcs as u32).await;
            let (from, to) = pair(&chance, village.houses.len());
            asked.push(village.houses[from].ask_soon(to));
        }
        for task in asked {
            task.join().await.context("a request ended by itself")??;
        }
        Ok(rpcs as u64)
    })?;
    Ok(Shown { cost: meter.elapsed(), work, ..Shown::here()? })
}

pub(super) fn idle_hour(engine: Engine, hosts: usize) -> Result<Shown> {
    let meter = Meter::start();
    in_world(engine, hosts, async |village: Village| {
        village.greet_neighbours().await?;
        village.clock.sleep(HOUR).await;
        Ok(())
    })?;
    Ok(Shown { cost: meter.elapsed(), ..Shown::here()? })
}

pub(super) fn busy(engine: Engine, hosts: usize, rpcs: usize) -> Result<Shown> {
    in_world(engine, hosts, async |village: Village| {
        village.greet_neighbours().await?;
        let meter = Meter::start();
        let each = rpcs / hosts;
        let asking = village.houses.iter().enumerate().map(|(number, house)| {
            let (house, chance) = (house.clone(), Entropy::from_u64(number as u64));
            let task = house.host.clone().tasks.spawn(async move {
                for _ in 0..each {
                    house.ask(chance.below(hosts as u64) as usize).await?;
                }
                anyhow::Ok(())
            });
            async move { task.join().await.context("a host ended by itself")? }
        });
        try_join_all(asking).await?;
        Ok(Shown { cost: meter.elapsed(), work: (each * hosts) as u64, ..Shown::here()? })
    })
}

pub(super) fn memory(hosts: usize) -> Result<Shown> {
    in_world(Engine::Fabric, hosts, async |village: Village| {
        village.greet_neighbours().await?;
        village.clock.sleep(WHILE_OPEN).await;
        Ok(Shown { resident_kb: resident_kb(std::process::id())?, ..Shown::default() })
    })
}

/// Two hosts by chance; they may be the same.
pub(super) fn pair(chance: &Entropy, hosts: usize) -> (usize, usize) {
    let one = || chance.below(hosts as u64) as usize;
    (one(), one())
}

/// Hosts that serve.
struct Village {
    clock: Clock,
    houses: Vec<House>,
}

/// One host with its client.
#[derive(Clone)]
pub(super) struct House {
    host: Host,
    client: AnyClient,
}

#[derive(Clone)]
enum AnyClient {
    Own(Client),
    Pooled(Box<Pooled>),
}

fn in_world<T>(engine: Engine, hosts: usize, play: impl AsyncFnOnce(Village) -> Result<T>) -> Result<T> {
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
            serve(host, SocketAddr::new(ip(number), 443), router()).await?;
        }
        let house = |host: Host| {
            let client = match engine {
                Engine::Pooled => AnyClient::Pooled(Box::new(Pooled::new(&host))),
                Engine::Fabric => return Ok(House::new(host)),
                Engine::Floor | Engine::Turmoil => bail!("{engine:?} has no hosts of fabric's"),
            };
            Ok(House { host, client })
        };
        let houses = machines.into_iter().map(house).collect::<Result<_>>()?;
        play(Village { clock: world.clock(), houses }).await
    })
}

impl Village {
    /// One keep-alive for each host.
    async fn greet_neighbours(&self) -> Result<()> {
        let count = self.houses.len();
        let greetings = self.houses.iter().enumerate().map(|(n, house)| house.ask((n + 1) % count));
        try_join_all(greetings).await.map(drop)
    }
}

impl House {
    /// A host with the reference's client.
    pub(super) fn new(host: Host) -> Self {
        Self { client: AnyClient::Own(Client::new(&host)), host }
    }

    /// One RPC.
    pub(super) async fn ask(&self, whom: usize) -> Result<()> {
        let request = Request::get(format!("https://{}/", name(whom))).body(Bytes::new())?;
        let answer = match &self.client {
            AnyClient::Own(client) => client.send(request).await?.into_body(),
            AnyClient::Pooled(client) => client.send(request).await?,
        };
        anyhow::ensure!(&answer[..] == b"hello", "not what the host serves");
        Ok(())
    }

    fn ask_soon(&self, whom: usize) -> fusion_runtime::tasks::Task<Result<()>> {
        let house = self.clone();
        self.host.tasks.spawn(async move { house.ask(whom).await })
    }
}

pub(super) fn name(number: usize) -> String {
    format!("h{number}.example")
}

pub(super) fn ip(number: usize) -> IpAddr {
    IpAddr::from(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + number as u32))
}
