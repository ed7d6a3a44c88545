//! A village: bare hosts, each an axum app that answers a GET and a client, and the work that engines are
//! compared by. Whatever network it stands on, it is built and worked through the seam alone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use fusion_runtime::http::{Client, serve};
use fusion_runtime::tasks::Task;
use fusion_runtime::{Clock, Entropy, Host};
use futures_util::future::try_join_all;
use http::Request;
use serde::{Deserialize, Serialize};

use crate::meter::{Cost, Meter};

/// How long the RPCs of [`Work::Minute`] are spread over.
pub const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const PORT: u16 = 443;

/// What a village does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Each host with a keep-alive, and RPCs between random pairs over a minute. Its world counts.
    Minute {
        /// How many hosts.
        hosts: usize,
        /// RPCs, of all hosts together.
        rpcs: usize,
    },
    /// Nothing for an hour, but for a keep-alive of each host at its beginning. Its world counts.
    IdleHour {
        /// How many hosts.
        hosts: usize,
    },
    /// All hosts call each other without a pause, one RPC at a time from each. Only that counts.
    Busy {
        /// How many hosts.
        hosts: usize,
        /// RPCs, of all hosts together.
        rpcs: usize,
    },
}

/// Work that has been done.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// What it took.
    pub cost: Cost,
    /// How many RPCs were made, the keep-alives' first ones apart.
    pub rpcs: u64,
}

/// What a house calls others with.
pub trait Caller: Clone + Send + Sync + 'static {
    /// The body of the answer.
    fn call(&self, request: Request<Bytes>) -> impl Future<Output = Result<Bytes>> + Send;
}

/// Hosts that serve, in a world that runs.
pub struct Village<C = Client> {
    clock: Clock,
    houses: Vec<House<C>>,
}

/// One host with its client: the reference's, unless said otherwise.
#[derive(Clone)]
pub struct House<C = Client> {
    host: Host,
    caller: C,
}

impl Work {
    /// How many hosts it is the work of.
    #[must_use]
    pub fn hosts(self) -> usize {
        match self {
            Self::Minute { hosts, .. } | Self::IdleHour { hosts } | Self::Busy { hosts, .. } => hosts,
        }
    }

    /// The work done in a world that `world` makes and ends, which counts where the work says so.
    ///
    /// # Errors
    /// Those of `world`.
    pub fn in_world(self, world: impl FnOnce() -> Result<Done>) -> Result<Done> {
        let meter = Meter::start();
        let done = world()?;
        Ok(match self {
            Self::Busy { .. } => done,
            Self::Minute { .. } | Self::IdleHour { .. } => Done { cost: meter.elapsed(), ..done },
        })
    }
}

impl<C: Caller> Village<C> {
    /// Of houses that serve already.
    #[must_use]
    pub fn of(houses: Vec<House<C>>, clock: Clock) -> Self {
        Self { clock, houses }
    }

    /// Does `work` once every host has its keep-alive; what it costs counts from then on.
    ///
    /// # Errors
    /// The first RPC that fails.
    pub async fn work(&self, work: Work) -> Result<Done> {
        self.greet_neighbours().await?;
        let meter = Meter::start();
        let rpcs = match work {
            Work::Minute { rpcs, .. } => self.call_now_and_then(rpcs).await?,
            Work::IdleHour { .. } => {
                self.clock.sleep(HOUR).await;
                0
            }
            Work::Busy { rpcs, hosts } => self.call_without_pause(rpcs / hosts).await?,
        };
        Ok(Done { cost: meter.elapsed(), rpcs: rpcs as u64 })
    }

    /// One keep-alive for each host.
    ///
    /// # Errors
    /// The first RPC that fails.
    pub async fn greet_neighbours(&self) -> Result<()> {
        let count = self.houses.len();
        let greetings = self.houses.iter().enumerate().map(|(n, house)| house.ask((n + 1) % count));
        try_join_all(greetings).await.map(drop)
    }

    async fn call_now_and_then(&self, rpcs: usize) -> Result<usize> {
        let chance = Entropy::from_u64(1);
        let one = || chance.below(self.houses.len() as u64) as usize;
        let mut asked = Vec::new();
        for _ in 0..rpcs {
            self.clock.sleep(MINUTE / rpcs as u32).await;
            // They may be the same.
            let (from, to) = (one(), one());
            asked.push(self.houses[from].on_it(move |house| async move { house.ask(to).await }));
        }
        for task in asked {
            task.join().await.context("a request ended by itself")??;
        }
        Ok(rpcs)
    }

    async fn call_without_pause(&self, each: usize) -> Result<usize> {
        let hosts = self.houses.len();
        let asking = self.houses.iter().enumerate().map(|(number, house)| {
            let task = house.on_it(move |house| async move { house.ask_many(number, hosts, each).await });
            async move { task.join().await.context("a host ended by itself")? }
        });
        try_join_all(asking).await?;
        Ok(each * hosts)
    }
}

impl House {
    /// A host with the reference's client.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self::with(Client::new(&host), host)
    }
}

impl<C: Caller> House<C> {
    /// A host with a client of its own.
    #[must_use]
    pub fn with(caller: C, host: Host) -> Self {
        Self { host, caller }
    }

    /// One RPC.
    ///
    /// # Errors
    /// When it gets no answer, or another one.
    pub async fn ask(&self, whom: usize) -> Result<()> {
        let request = Request::get(format!("https://{}/", name(whom))).body(Bytes::new())?;
        let answer = self.caller.call(request).await?;
        ensure!(&answer[..] == b"hello", "not what the host serves");
        Ok(())
    }

    /// As house `number` of `hosts`: so many RPCs, one after the other, to whom chance will have it.
    ///
    /// # Errors
    /// The first RPC that fails.
    pub async fn ask_many(&self, number: usize, hosts: usize, rpcs: usize) -> Result<()> {
        let chance = Entropy::from_u64(number as u64);
        for _ in 0..rpcs {
            self.ask(chance.below(hosts as u64) as usize).await?;
        }
        Ok(())
    }

    fn on_it<F>(&self, what: impl FnOnce(Self) -> F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.host.tasks.spawn(what(self.clone()))
    }
}

impl Caller for Client {
    async fn call(&self, request: Request<Bytes>) -> Result<Bytes> {
        Ok(self.send(request).await?.into_body())
    }
}

/// Lets a host serve what every host of a village serves.
///
/// # Errors
/// When its address cannot be had.
pub async fn open(host: &Host, number: usize) -> Result<()> {
    serve(host, SocketAddr::new(ip(number), PORT), router()).await?;
    Ok(())
}

/// What every host serves.
pub fn router() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

/// The name that a host is called by.
#[must_use]
pub fn name(number: usize) -> String {
    format!("h{number}.example")
}

/// The address of a host.
#[must_use]
pub fn ip(number: usize) -> IpAddr {
    IpAddr::from(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + number as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::World;

    fn on_fabric(work: Work) -> Done {
        let world = World::new(1);
        let hosts: Vec<Host> = (0..work.hosts())
            .map(|number| {
                world.publish(&name(number), [ip(number)]);
                world.host(&name(number), ip(number), "here").start().unwrap()
            })
            .collect();
        world.run(async {
            for (number, host) in hosts.iter().enumerate() {
                open(host, number).await.unwrap();
            }
            let village = Village::of(hosts.into_iter().map(House::new).collect(), world.clock());
            village.work(work).await.unwrap()
        })
    }

    #[test]
    fn every_rpc_is_made() {
        assert_eq!(on_fabric(Work::Busy { hosts: 3, rpcs: 60 }).rpcs, 60);
        assert_eq!(on_fabric(Work::Minute { hosts: 5, rpcs: 20 }).rpcs, 20);
    }
}
