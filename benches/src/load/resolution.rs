//! Resolution of an address of another cluster, beside a look-up in the memory of a plain axum app.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use fusion_conformance::Device;
use fusion_protocol::map::UserRecord;
use fusion_protocol::{Count, Incarnation, Service};
use fusion_runtime::net::{LiveConfig, LiveNet};
use fusion_runtime::store::MemoryStore;
use fusion_runtime::{Host, Net as _};
use futures_util::future::try_join_all;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use url::Url;

use super::raw::Repeater;
use super::{Cores, block_on, stage};
use crate::How;
use crate::measure::{Rounds, cpu_s};
use crate::people::People;
use crate::processes::{Security, pinned};
use crate::row::{Report, Row, Target};

/// Connections that ask, one request at a time each.
const CONNECTIONS: usize = 64;
/// MAP-008: nobody may ask without end (5,000 times at once, then 500 a second), so that many ask.
const CALLERS: usize = 300;
/// The same where all is small: enough for a second of the fastest machine.
const CALLERS_QUICK: usize = 40;
/// Addresses that are asked for.
const ADDRESSES: usize = 64;

/// What one round has shown.
#[derive(Clone, Copy)]
struct Shown {
    per_s: f64,
    per_cpu_s: f64,
}

pub(super) fn run(how: &How, report: &Report, cores: Cores) -> Result<()> {
    if !how.wants("resolutions_per_s") && !how.wants("resolution_vs_plain_axum") {
        return Ok(());
    }
    report.progress("people come who resolve addresses");
    let (federation, people) = stage(how, Security::InClear, cores)?;
    let plain = Plain::start(cores)?;
    block_on(async {
        let ours = requests(&people, how.size(CALLERS, CALLERS_QUICK)).await?;
        let theirs = plain.requests()?;
        let (pid, lasts) = (federation.pid("cluster-a")?, Duration::from_secs(how.size(5, 1)));
        let (mut of_ours, mut of_plain) = (Vec::new(), Vec::new());
        for round in 0..how.rounds() {
            report.progress(&format!("resolutions and plain look-ups, round {}", round + 1));
            of_ours.push(repeat(&people.host, &ours, pid, lasts).await?);
            of_plain.push(repeat(&plain.host, &theirs, plain.child.id(), lasts).await?);
        }
        add_rows(report, cores, &of_ours, &of_plain);
        Ok(())
    })
}

fn add_rows(report: &Report, cores: Cores, ours: &[Shown], plain: &[Shown]) {
    let rates = Rounds::of(ours.iter().map(|shown| shown.per_s));
    let cpu = Rounds::of(ours.iter().map(|shown| shown.per_cpu_s));
    let plain_rates = Rounds::of(plain.iter().map(|shown| shown.per_s));
    let plain_cpu = Rounds::of(plain.iter().map(|shown| shown.per_cpu_s));
    let ratio = Rounds::of(ours.iter().zip(plain).map(|(ours, plain)| ours.per_cpu_s / plain.per_cpu_s));
    let conditions = format!("{CONNECTIONS} connections in clear, {}", cores.words());
    let row = Row::new("resolutions_per_s", rates.median, "1/s", Target::Reported);
    report.add(row.under(format!(
        "{conditions}; {}; {:.0} per CPU second of the server; plain axum {:.0}/s, {:.0} per CPU second",
        rates.range(),
        cpu.median,
        plain_rates.median,
        plain_cpu.median
    )));
    let row = Row::new("resolution_vs_plain_axum", ratio.median, "x", Target::AtLeast(0.8));
    report.add(row.under(format!(
        "requests per CPU second of the server, in turns; {}; token checked, quota counted, both only here",
        ratio.range()
    )));
}

/// Requests for addresses at the other cluster, by many callers, which the cluster has resolved before.
async fn requests(people: &People, callers: usize) -> Result<Vec<(Url, Vec<u8>)>> {
    let callers = people.make("a", "caller", callers).await?;
    let sought = people.make("b", "sought", ADDRESSES.min(callers.len())).await?;
    let mut requests = Vec::new();
    for (number, caller) in callers.iter().enumerate() {
        let address = sought[number % sought.len()].user();
        caller.resolve(address).await?;
        requests.push(request_of(caller, address.path_segment().as_ref()).await?);
    }
    Ok(requests)
}

async fn request_of(caller: &Device, address: &str) -> Result<(Url, Vec<u8>)> {
    let home = caller.home().context("not logged in")?;
    let template = &caller.target().template;
    let url = template.url(&home, Service::Users, &format!("/v1/resolve/{address}"));
    let token = caller.token_for(&home).await?;
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let text =
        format!("GET {} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {token}\r\n\r\n", url.path());
    Ok((url, text.into_bytes()))
}

/// Sends the requests over and over, each connection its share of them in turn.
async fn repeat(host: &Host, requests: &[(Url, Vec<u8>)], server: u32, lasts: Duration) -> Result<Shown> {
    let requests = Arc::new(requests.to_vec());
    let (url, _) = requests.first().context("nothing to ask")?;
    let connections = try_join_all((0..CONNECTIONS).map(|_| Repeater::open(host, url))).await?;
    let (cpu, from) = (cpu_s(server)?, host.clock.now());
    let asking = connections.into_iter().enumerate().map(|(number, mut connection)| {
        let (requests, clock) = (requests.clone(), host.clock.clone());
        let task = host.tasks.spawn(async move {
            let mut asked = 0_u64;
            let mut next = number;
            while clock.now() < from + lasts {
                connection.ask(&requests[next % requests.len()].1).await?;
                (asked, next) = (asked + 1, next + CONNECTIONS);
            }
            anyhow::Ok(asked)
        });
        async move { task.join().await.context("a client panicked")? }
    });
    let asked: u64 = try_join_all(asking).await?.into_iter().sum();
    let took = (host.clock.now() - from).as_secs_f64();
    Ok(Shown { per_s: asked as f64 / took, per_cpu_s: asked as f64 / (cpu_s(server)? - cpu) })
}

/// The plain server, as a process on the servers' core.
struct Plain {
    child: Child,
    url: Url,
    host: Host,
}

impl Plain {
    fn start(cores: Cores) -> Result<Self> {
        let mut child = pinned(cores.servers, &std::env::current_exe()?)
            .args(["plain-axum", &ADDRESSES.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let url = Url::parse(line.trim()).context("the plain server did not start")?;
        Ok(Self { child, url, host: in_clear()? })
    }

    fn requests(&self) -> Result<Vec<(Url, Vec<u8>)>> {
        let authority = &self.url[url::Position::BeforeHost..url::Position::AfterPort];
        let request = |number: usize| {
            let address = address(number as u32);
            format!("GET /v1/resolve/{address} HTTP/1.1\r\nhost: {authority}\r\n\r\n").into_bytes()
        };
        Ok((0..ADDRESSES).map(|number| (self.url.clone(), request(number))).collect())
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A machine of this process, without TLS.
fn in_clear() -> Result<Host> {
    let allow = vec!["127.0.0.0/8".parse()?];
    let config = LiveConfig { insecure_loopback: true, allow, ..LiveConfig::default() };
    Ok(Host::live("bench", Arc::new(LiveNet::new(config)?), Arc::new(MemoryStore::new())))
}

fn address(number: u32) -> String {
    format!("sought{number}@globex.example")
}

/// What the plain server answers with: as much as a resolution says.
#[derive(Clone, Serialize)]
struct Known {
    record: UserRecord,
}

/// Serves look-ups in a map, with axum and hyper and nothing else, until it is ended.
pub(crate) fn plain_axum(addresses: u32) -> Result<()> {
    let mut map = BTreeMap::new();
    for number in 0..addresses {
        let record = UserRecord {
            user: address(number).parse()?,
            incarnation: Incarnation(uuid::Uuid::from_u128(u128::from(number))),
            cluster: "b".parse()?,
            version: Count(1),
        };
        map.insert(address(number), Known { record });
    }
    let router = Router::new().route("/v1/resolve/{user}", get(look_up)).with_state(Arc::new(map));
    block_on(async {
        let host = in_clear()?;
        let net = LiveNet::new(LiveConfig { insecure_loopback: true, ..LiveConfig::default() })?;
        let mut listener = net.listen("127.0.0.1:0".parse()?).await?;
        println!("http://{}/", listener.local_addr());
        std::io::stdout().flush()?;
        loop {
            let (stream, _) = listener.accept().await?;
            let service = TowerToHyperService::new(router.clone());
            host.tasks.spawn(async move {
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

async fn look_up(State(map): State<Arc<BTreeMap<String, Known>>>, Path(user): Path<String>) -> Response {
    match map.get(&user) {
        Some(known) => axum::Json(known).into_response(),
        None => http::StatusCode::NOT_FOUND.into_response(),
    }
}
