//! Devices: what an idle one costs the server, and how many can begin a session a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use fusion_conformance::Device;
use fusion_conformance::device::{Heard, Session};
use fusion_protocol::Url;
use fusion_protocol::mercury::ServerFrame;
use futures_util::stream::{StreamExt as _, TryStreamExt as _};

use super::{Cores, block_on, stage};
use crate::How;
use crate::measure::{Rounds, resident_kb};
use crate::people::People;
use crate::processes::{Federation, Security};
use crate::row::{Report, Row, Target};

/// SEC-007: how many devices one user may have.
const DEVICES_OF_ONE: usize = 100;
/// How many sockets are opened at a time.
const AT_ONCE: usize = 64;
/// A listener serves so many connections, WebSockets included; some are for REST.
const SOCKETS_MAX: usize = 16_000;
/// File descriptors that are not for sockets.
const OTHER_FILES: u64 = 500;
/// How long the server may digest what has come before its memory is looked at.
const REST: Duration = Duration::from_secs(3);

pub(super) fn run(how: &How, report: &Report, cores: Cores) -> Result<()> {
    if how.wants("idle_device_kb") {
        idle(how, report, cores)?;
    }
    if how.wants("session_starts_per_s") {
        session_starts(how, report, cores)?;
    }
    Ok(())
}

fn idle(how: &How, report: &Report, cores: Cores) -> Result<()> {
    let few = how.size(1_000, 100);
    let many = how.size(files().saturating_sub(OTHER_FILES) as usize, 600).min(SOCKETS_MAX);
    let many = many / DEVICES_OF_ONE * DEVICES_OF_ONE;
    report.progress(&format!("{many} devices come and keep still"));
    let (federation, people) = stage(how, Security::InClear, cores)?;
    block_on(async {
        let users = people.make("b", "idle", many / DEVICES_OF_ONE).await?;
        let open = Arc::new(AtomicUsize::new(0));
        let places = places(&people, &users, DEVICES_OF_ONE).await?;
        let (first, rest) = places.split_at(few);
        keep_open(first, &open).await?;
        let at_few = settled(&people, &federation).await?;
        keep_open(rest, &open).await?;
        let at_many = settled(&people, &federation).await?;
        if open.load(Ordering::Relaxed) != many {
            bail!("only {} of {many} sockets stayed open", open.load(Ordering::Relaxed));
        }
        let each = (at_many - at_few) / (many - few) as f64;
        let row = Row::new("idle_device_kb", each, "kB", Target::AtMost(10.0));
        report.add(row.under(format!(
            "growth of the server's resident memory from {few} to {many} idle devices, in clear, the \
             allocator as built; {many}, not 20000, because a listener takes 16384 connections and this \
             machine {} files",
            files()
        )));
        Ok(())
    })
}

fn session_starts(how: &How, report: &Report, cores: Cores) -> Result<()> {
    let (users, each) = how.size((200, 10), (10, 5));
    report.progress(&format!("{} devices log in, then begin sessions", users * each));
    let (_federation, people) = stage(how, Security::InClear, cores)?;
    block_on(async {
        let mut rates = Vec::new();
        for round in 0..how.rounds() {
            let users = people.make("b", &format!("round{round}user"), users).await?;
            let mut devices = Vec::new();
            for user in &users {
                devices.extend((0..each).map(|number| people.device(user.user(), &number.to_string())));
            }
            // A token of its own for each: none has been seen before.
            let registered = futures_util::stream::iter(devices).map(|device| async move {
                let at = device.register().await?.web_socket_url;
                anyhow::Ok((device, at))
            });
            let places: Vec<_> = registered.buffer_unordered(AT_ONCE).try_collect().await?;
            let from = people.host.clock.now();
            let count = places.len();
            let opening = futures_util::stream::iter(places)
                .map(|(device, at)| async move { ready(&device, &at).await });
            let sessions: Vec<Session> = opening.buffer_unordered(AT_ONCE).try_collect().await?;
            rates.push(count as f64 / (people.host.clock.now() - from).as_secs_f64());
            drop(sessions);
        }
        let rates = Rounds::of(rates);
        let row = Row::new("session_starts_per_s", rates.median, "1/s", Target::AtLeast(2_000.0));
        report.add(row.under(format!(
            "from a new connection in clear to `ready`: WebSocket, an Ed25519 token that the server has not \
             seen, the device, its epoch made durable; {AT_ONCE} at a time, {}; {}",
            cores.words(),
            rates.range()
        )));
        Ok(())
    })
}

/// Where the sockets of `each` devices of every user are opened. A device that registers twice is one.
async fn places(people: &People, users: &[Device], each: usize) -> Result<Vec<(Device, Url)>> {
    let registering = users
        .iter()
        .flat_map(|user| (0..each).map(move |number| people.device(user.user(), &number.to_string())));
    let places = futures_util::stream::iter(registering).map(|user| async move {
        let at = user.register().await?.web_socket_url;
        anyhow::Ok((user, at))
    });
    places.buffer_unordered(AT_ONCE).try_collect().await
}

/// Opens sockets, and listens on each so that pings are answered.
async fn keep_open(places: &[(Device, Url)], open: &Arc<AtomicUsize>) -> Result<()> {
    let opening = futures_util::stream::iter(places).map(|(device, at)| async move {
        let mut session = ready(device, at).await?;
        let open = open.clone();
        open.fetch_add(1, Ordering::Relaxed);
        device.host().tasks.spawn(async move {
            while session.hear().await != Heard::Ended {}
            open.fetch_sub(1, Ordering::Relaxed);
        });
        anyhow::Ok(())
    });
    opening.buffer_unordered(AT_ONCE).try_collect().await
}

/// A socket that is authenticated and ready.
async fn ready(device: &Device, at: &Url) -> Result<Session> {
    let mut session = device.open_session(at, None).await?;
    loop {
        match session.hear().await {
            Heard::Frame(ServerFrame::Ready { .. }) => return Ok(session),
            Heard::Ping => {}
            other => bail!("instead of ready: {other:?}"),
        }
    }
}

async fn settled(people: &People, federation: &Federation) -> Result<f64> {
    people.host.clock.sleep(REST).await;
    resident_kb(federation.pid("cluster-b")?)
}

/// How many files a process may have open here.
fn files() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}
