//! Messages from Alice at one cluster to Bob at another: how many, how dear, how late.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use fusion_conformance::Device;
use fusion_protocol::conversation::{Act, PostActivity};
use fusion_protocol::mercury::ClientFrame;
use fusion_protocol::{Count, Url, headers};
use fusion_runtime::Host;
use fusion_runtime::ws::{self, Socket};
use futures_util::FutureExt as _;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use http::{Request, header};
use http_body_util::Full;
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc};

use super::raw::Connection;
use super::{Cores, block_on, stage};
use crate::How;
use crate::measure::Rounds;
use crate::people::People;
use crate::processes::{Federation, Security};
use crate::row::{Report, Row, Target};

const PAIRS: usize = 50;
const IN_FLIGHT: usize = 10;
/// Octets of each message.
const BODY: usize = 100;
/// How long stragglers are waited for.
const GRACE: Duration = Duration::from_secs(10);
/// A rate is kept up when this much of it has arrived at its end.
const KEPT_UP: f64 = 0.99;
/// Longest latency that is told apart, in microseconds: a minute.
const LATENCY_MAX_US: u64 = 60_000_000;

pub(super) fn run(how: &How, report: &Report, cores: Cores) -> Result<()> {
    let wants = |names: &[&str]| names.iter().any(|name| how.wants(name));
    let throughput_wanted = wants(&["cross_cluster_messages_per_s", "server_cpu_per_message_ms"]);
    let latency_wanted = wants(&["latency_p50_ms_at_100", "latency_p99_ms_at_100"]);
    let rates = how.size([500, 2_000].as_slice(), &[200]);
    let rates: Vec<u32> =
        rates.iter().copied().filter(|rate| wants(&[&format!("keeps_up_at_{rate}")])).collect();
    if !throughput_wanted && !latency_wanted && rates.is_empty() {
        return Ok(());
    }
    report.progress("two clusters start, and 100 people come");
    let (federation, people) = stage(how, Security::Tls, cores)?;
    block_on(async {
        let traffic = Traffic::between(&people, how.size(PAIRS, 10)).await?;
        if throughput_wanted {
            throughput(how, report, cores, &federation, &traffic).await?;
        }
        if latency_wanted {
            latency(how, report, cores, &traffic).await?;
        }
        for rate in rates {
            keeps_up(how, report, cores, &traffic, rate).await?;
        }
        Ok(())
    })
}

async fn throughput(
    how: &How,
    report: &Report,
    cores: Cores,
    federation: &Federation,
    traffic: &Traffic,
) -> Result<()> {
    let (warm_up, lasts) = how.size((3, 10), (1, 1));
    let (mut rates, mut cpus) = (Vec::new(), Vec::new());
    for round in 0..how.rounds() {
        report.progress(&format!(
            "{} pairs with {IN_FLIGHT} in flight, round {}",
            traffic.lines.len(),
            round + 1
        ));
        let stop = Arc::new(AtomicBool::new(false));
        let posting = traffic.keep_in_flight(&stop);
        let clock = &traffic.host.clock;
        clock.sleep(Duration::from_secs(warm_up)).await;
        let (before, cpu, from) = (traffic.arrived(), federation.clusters_cpu_s()?, clock.now());
        clock.sleep(Duration::from_secs(lasts)).await;
        let (arrived, took) = (traffic.arrived() - before, clock.now() - from);
        rates.push(arrived as f64 / took.as_secs_f64());
        cpus.push((federation.clusters_cpu_s()? - cpu) * 1e3 / arrived.max(1) as f64);
        stop.store(true, Ordering::Relaxed);
        traffic.open_gates();
        try_join_all(posting).await?;
        traffic.wait_for_stragglers().await;
    }
    let (rates, cpus) = (Rounds::of(rates), Rounds::of(cpus));
    let conditions = format!(
        "{} pairs x {IN_FLIGHT} in flight, {BODY}-byte bodies, TLS, durable at both ends, {}",
        traffic.lines.len(),
        cores.words()
    );
    let row = Row::new("cross_cluster_messages_per_s", rates.median, "1/s", Target::AtLeast(6_000.0));
    report.add(row.under(format!("{conditions}; {}", rates.range())));
    let row = Row::new("server_cpu_per_message_ms", cpus.median, "ms", Target::AtMost(0.15));
    report.add(row.under(format!("{conditions}, both ends together; {}", cpus.range())));
    Ok(())
}

async fn latency(how: &How, report: &Report, cores: Cores, traffic: &Traffic) -> Result<()> {
    let mut quantiles: Vec<(f64, f64)> = Vec::new();
    for round in 0..how.rounds() {
        report.progress(&format!("100 messages a second, round {}", round + 1));
        let heard = traffic.at_rate(100, how.size(15, 1)).await?;
        quantiles.push((heard.quantile_ms(0.5), heard.quantile_ms(0.99)));
    }
    let conditions = format!("100/s in open loop from the intended moment, TLS, durable, {}", cores.words());
    let p50 = Rounds::of(quantiles.iter().map(|both| both.0));
    let p99 = Rounds::of(quantiles.iter().map(|both| both.1));
    let row = Row::new("latency_p50_ms_at_100", p50.median, "ms", Target::AtMost(1.0));
    report.add(row.under(format!("{conditions}; {}", p50.range())));
    let row = Row::new("latency_p99_ms_at_100", p99.median, "ms", Target::AtMost(4.0));
    report.add(row.under(format!("{conditions}; {}", p99.range())));
    Ok(())
}

async fn keeps_up(how: &How, report: &Report, cores: Cores, traffic: &Traffic, rate: u32) -> Result<()> {
    report.progress(&format!("{rate} messages a second"));
    let heard = traffic.at_rate(rate, how.size(15, 1)).await?;
    let kept = heard.in_time as f64 / heard.sent.max(1) as f64;
    let row = Row::new(
        &format!("keeps_up_at_{rate}"),
        kept * f64::from(rate),
        "1/s",
        Target::AtLeast(f64::from(rate) * KEPT_UP),
    );
    report.add(row.under(format!(
        "arrived within the time of sending, of {} sent; p50 {:.1} ms, p99 {:.1} ms, {} never; TLS, durable, {}",
        heard.sent,
        heard.quantile_ms(0.5),
        heard.quantile_ms(0.99),
        heard.lost,
        cores.words()
    )));
    Ok(())
}

/// Pairs of people who are ready to write to each other.
struct Traffic {
    host: Host,
    lines: Vec<Arc<Line>>,
    tally: Arc<Tally>,
}

/// From one Alice to one Bob.
struct Line {
    host: Host,
    conversation: Url,
    token: String,
    idle: Mutex<VecDeque<Connection>>,
    /// Room for messages that have not arrived yet.
    gate: Semaphore,
}

/// What has arrived.
struct Tally {
    arrived: AtomicU64,
    latency_us: Mutex<Histogram<u64>>,
}

/// What became of messages sent at a rate.
struct Heard {
    sent: u64,
    /// Arrived before the last was due, and a moment.
    in_time: u64,
    lost: u64,
    latency_us: Histogram<u64>,
}

/// As much of an event as tells which message it brings.
#[derive(Deserialize)]
struct Told {
    seq: Option<Count>,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    activity: Option<Said>,
}

#[derive(Deserialize)]
struct Said {
    text: Option<String>,
}

impl Traffic {
    /// `count` Alices at cluster a and Bobs at cluster b, each pair with its conversation at a, each Bob
    /// with an open socket.
    async fn between(people: &People, count: usize) -> Result<Self> {
        let alices = people.make("a", "alice", count).await?;
        let bobs = people.make("b", "bob", count).await?;
        let tally = Arc::new(Tally { arrived: AtomicU64::new(0), latency_us: Mutex::new(histogram()?) });
        let lines = alices.iter().zip(&bobs).map(|(alice, bob)| Line::between(alice, bob, &tally));
        let lines = try_join_all(lines).await?;
        Ok(Self { host: people.host.clone(), lines, tally })
    }

    fn arrived(&self) -> u64 {
        self.tally.arrived.load(Ordering::Relaxed)
    }

    /// Sends the next message of a pair whenever one has arrived, until told to stop.
    fn keep_in_flight(&self, stop: &Arc<AtomicBool>) -> Vec<impl Future<Output = Result<()>> + use<>> {
        let mut posting = Vec::new();
        for line in &self.lines {
            line.gate.forget_permits(Semaphore::MAX_PERMITS);
            line.gate.add_permits(IN_FLIGHT);
            for _ in 0..IN_FLIGHT {
                let (line, stop) = (line.clone(), stop.clone());
                let task = self.host.tasks.spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        line.gate.acquire().await?.forget();
                        line.post(line.host.clock.now()).await?;
                    }
                    anyhow::Ok(())
                });
                posting.push(async move { task.join().await.context("a sender panicked")? });
            }
        }
        posting
    }

    fn open_gates(&self) {
        self.lines.iter().for_each(|line| line.gate.add_permits(IN_FLIGHT));
    }

    async fn wait_for_stragglers(&self) {
        let clock = &self.host.clock;
        let until = clock.now() + GRACE;
        let mut before = self.arrived();
        while clock.now() < until {
            clock.sleep(Duration::from_millis(300)).await;
            if self.arrived() == before {
                return;
            }
            before = self.arrived();
        }
    }

    /// Sends `rate` messages a second for `seconds`, each at its moment whatever became of the others.
    async fn at_rate(&self, rate: u32, seconds: u32) -> Result<Heard> {
        let count = u64::from(rate) * u64::from(seconds);
        *lock(&self.tally.latency_us) = histogram()?;
        let (before, start) = (self.arrived(), self.host.clock.now() + Duration::from_millis(50));
        let mut due = pace(&self.host, start, rate, count)?;
        let mut posting = Vec::with_capacity(count as usize);
        while let Some((number, intended)) = due.recv().await {
            let line = self.lines[number as usize % self.lines.len()].clone();
            posting.push(self.host.tasks.spawn(async move { line.post(intended).await }));
        }
        let in_time = async {
            self.host.clock.sleep(Duration::from_millis(100)).await;
            self.arrived() - before
        };
        let in_time = in_time.await;
        for task in posting {
            task.join().await.context("a sender panicked")??;
        }
        let until = self.host.clock.now() + GRACE;
        while self.arrived() - before < count && self.host.clock.now() < until {
            self.host.clock.sleep(Duration::from_millis(20)).await;
        }
        let lost = count - (self.arrived() - before).min(count);
        Ok(Heard { sent: count, in_time, lost, latency_us: lock(&self.tally.latency_us).clone() })
    }
}

impl Line {
    async fn between(alice: &Device, bob: &Device, tally: &Arc<Tally>) -> Result<Arc<Self>> {
        let conversation = alice.one_to_one(bob.user()).await?.into_it().url;
        let home = alice.home().context("not logged in")?;
        let registration = bob.register().await?;
        let token = bob.token_for(&bob.home().context("not logged in")?).await?;
        let mut socket = ws::connect(bob.host(), &registration.web_socket_url).await?;
        socket.send(&serde_json::to_string(&ClientFrame::Authenticate { token, resume: None })?).await?;
        let line = Arc::new(Self {
            host: alice.host().clone(),
            token: alice.token_for(&home).await?,
            conversation,
            idle: Mutex::default(),
            gate: Semaphore::new(0),
        });
        let (listening, tally) = (line.clone(), tally.clone());
        alice.host().tasks.spawn(async move { listening.listen(socket, &tally).await });
        for _ in 0..IN_FLIGHT {
            let connection = Connection::open(&line.host, &line.conversation).await?;
            lock(&line.idle).push_back(connection);
        }
        // The first one also tells that Bob hears.
        let before = line.gate.available_permits();
        line.post(line.host.clock.now()).await?;
        let until = line.host.clock.now() + GRACE;
        while line.gate.available_permits() == before {
            if line.host.clock.now() > until {
                bail!("Bob hears nothing");
            }
            line.host.clock.sleep(Duration::from_millis(5)).await;
        }
        Ok(line)
    }

    /// Posts one message that says when it should have been sent.
    async fn post(&self, intended: Duration) -> Result<()> {
        let idle = lock(&self.idle).pop_front();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(&self.host, &self.conversation).await?,
        };
        let response = connection.send(self.request(intended)?).await?;
        if response.status() != 201 {
            bail!("a message was answered with {}", response.status());
        }
        lock(&self.idle).push_back(connection);
        Ok(())
    }

    fn request(&self, intended: Duration) -> Result<Request<Full<Bytes>>> {
        let text = format!("{:<BODY$}", intended.as_micros());
        let body = serde_json::to_vec(&PostActivity { act: Act::Message { text: text.as_str().into() } })?;
        let request = Request::post(format!("{}/activities", self.conversation.path()))
            .header(header::HOST, &self.conversation[url::Position::BeforeHost..url::Position::AfterPort])
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .header(headers::IDEMPOTENCY_KEY, self.host.entropy.uuid().to_string());
        Ok(request.body(Full::new(body.into()))?)
    }

    /// Bob's device: hears, counts, and acknowledges what is there.
    async fn listen(&self, mut socket: Socket, tally: &Tally) -> Result<()> {
        while let Some(text) = socket.recv_text().await {
            let mut last = self.hear(&text?, tally)?;
            while let Some(Some(more)) = socket.recv_text().now_or_never() {
                last = self.hear(&more?, tally)?.or(last);
            }
            if let Some(seq) = last {
                socket.send(&serde_json::to_string(&ClientFrame::Ack { seq })?).await?;
            }
        }
        Ok(())
    }

    fn hear(&self, text: &str, tally: &Tally) -> Result<Option<Count>> {
        let told: Told = serde_json::from_str(text)?;
        let said = told.data.and_then(|data| data.activity?.text);
        if let Some(said) = said {
            let late = self.host.clock.now().saturating_sub(Duration::from_micros(said.trim().parse()?));
            lock(&tally.latency_us).saturating_record(late.as_micros() as u64);
            tally.arrived.fetch_add(1, Ordering::Relaxed);
            self.gate.add_permits(1);
        }
        Ok(told.seq)
    }
}

impl Heard {
    fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// Says when each message is due, more precisely than the runtime's timers could.
#[expect(clippy::disallowed_methods, reason = "a thread that sleeps, outside of every world")]
fn pace(host: &Host, start: Duration, rate: u32, count: u64) -> Result<mpsc::Receiver<(u64, Duration)>> {
    let (sender, due) = mpsc::channel(1 << 16);
    let clock = host.clock.clone();
    std::thread::Builder::new().name("pace".to_owned()).spawn(move || {
        for number in 0..count {
            let intended = start + Duration::from_secs_f64(number as f64 / f64::from(rate));
            std::thread::sleep(intended.saturating_sub(clock.now()));
            if sender.blocking_send((number, intended)).is_err() {
                return;
            }
        }
    })?;
    Ok(due)
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)?)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_event_brings_is_read_and_the_rest_is_passed_over() {
        let event = r#"{"type":"event","id":"x","seq":"7","eventType":"conversation.activity","resource":"y",
            "data":{"indexCursor":"3","seq":"2","activity":{"id":"z","verb":"message","text":"12   "}}}"#;
        let told: Told = serde_json::from_str(event).unwrap();
        assert_eq!(told.seq, Some(Count(7)));
        assert_eq!(told.data.unwrap().activity.unwrap().text.as_deref(), Some("12   "));
        let ready: Told = serde_json::from_str(r#"{"type":"ready","session":"1","base":"0"}"#).unwrap();
        assert!(ready.seq.is_none() && ready.data.is_none());
    }
}
