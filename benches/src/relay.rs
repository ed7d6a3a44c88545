//! `bench relay`: a call of two legs through a relay process, with as many packets as it takes.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fusion_conformance::device::{KeepAlive, expect};
use fusion_protocol::media::{self, DATAGRAM_MAX, Datagram, Leg};
use fusion_sim::stopwatch::Stopwatch;
use hdrhistogram::Histogram;

use crate::How;
use crate::load::Cores;
use crate::measure::{Rounds, cpu_s, pin};
use crate::people::People;
use crate::processes::{Federation, Security};
use crate::row::{Report, Row, Target};

const TOPOLOGY: &str = r#"
[[orgs]]
name = "acme"
domains = ["acme.example"]
clusters = [{ name = "a", relays = 1 }]

[[orgs]]
name = "public"
role = "consumer"
domains = ["mail.example"]
clusters = [{ name = "c", relays = 0 }]
"#;

/// Octets of a packet with 20 ms of G.711.
const PACKET: usize = 172;
/// Octets before the payload (RFC 3550).
const HEADER: usize = 12;
/// Packets under way at a time when the relay's core is to be filled: fewer than a socket's buffer holds.
const WINDOW: u64 = 128;
/// What has not come after this is lost.
const LOST_AFTER: Duration = Duration::from_millis(500);
/// The rate of the second figure, packets a second.
const RATE: u64 = 40_000;

/// Measures what is wanted.
pub(crate) fn run(how: &How, report: &Report) -> Result<()> {
    let cores = Cores::of_this_machine();
    pin(cores.client)?;
    report.progress("two people call each other");
    let federation = Federation::start(how, Some(TOPOLOGY), Security::Tls, Some(cores.servers))?;
    let people = People { host: federation.host()?, target: federation.target.clone() };
    // A thread of its own renews the leases while this one sends.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (mut call, _leases) = runtime.block_on(Call::between_two(&people))?;
    let pid = federation.pid("relay-a-1")?;
    if how.wants("relay_packets_per_s") {
        throughput(how, report, cores, &mut call, pid)?;
    }
    if how.wants("relay_p99_ms_at_40000") {
        latency(how, report, cores, &mut call)?;
    }
    runtime.shutdown_background();
    Ok(())
}

fn throughput(how: &How, report: &Report, cores: Cores, call: &mut Call, pid: u32) -> Result<()> {
    let lasts = Duration::from_secs(how.size(5, 1));
    let (mut per_cpu_s, mut per_s, mut lost) = (Vec::new(), Vec::new(), 0);
    for round in 0..how.rounds() {
        report.progress(&format!("as many packets as go through, round {}", round + 1));
        let (cpu, watch) = (cpu_s(pid)?, Stopwatch::start());
        let went = call.fill(lasts)?;
        per_s.push(went.received as f64 / watch.elapsed().as_secs_f64());
        per_cpu_s.push(went.received as f64 / (cpu_s(pid)? - cpu));
        lost += went.lost;
    }
    let (per_cpu_s, per_s) = (Rounds::of(per_cpu_s), Rounds::of(per_s));
    let row = Row::new("relay_packets_per_s", per_cpu_s.median, "1/s", Target::AtLeast(120_000.0));
    report.add(row.under(format!(
        "{PACKET}-byte RTP forwarded per CPU second of the relay, 2 legs, {WINDOW} under way, {lost} lost; {:.0}/s on \
         the clock, {}; {}",
        per_s.median,
        cores.words().replace("clusters", "relay"),
        per_cpu_s.range()
    )));
    Ok(())
}

fn latency(how: &How, report: &Report, cores: Cores, call: &mut Call) -> Result<()> {
    let lasts = Duration::from_secs(how.size(5, 1));
    let (mut p99s, mut p50s, mut lost) = (Vec::new(), Vec::new(), 0);
    for round in 0..how.rounds() {
        report.progress(&format!("{RATE} packets a second, round {}", round + 1));
        let (went, latency_ns) = call.at_rate(RATE, lasts)?;
        p99s.push(latency_ns.value_at_quantile(0.99) as f64 / 1e6);
        p50s.push(latency_ns.value_at_quantile(0.5) as f64 / 1e6);
        lost += went.lost;
    }
    let (p99s, p50s) = (Rounds::of(p99s), Rounds::of(p50s));
    let row = Row::new("relay_p99_ms_at_40000", p99s.median, "ms", Target::AtMost(1.0));
    report.add(row.under(format!(
        "{RATE}/s in open loop from the intended moment, 2 legs, {lost} lost, p50 {:.3} ms, {}; {}",
        p50s.median,
        cores.words().replace("clusters", "relay"),
        p99s.range()
    )));
    Ok(())
}

/// Two bound legs of one call.
struct Call {
    ends: [End; 2],
}

struct End {
    socket: UdpSocket,
    packet: Vec<u8>,
}

/// What became of packets.
#[derive(Default)]
struct Went {
    received: u64,
    lost: u64,
}

impl Call {
    async fn between_two(people: &People) -> Result<(Self, [KeepAlive; 2])> {
        let callers = people.make("a", "caller", 2).await?;
        let [alice, bob] = &callers[..] else { bail!("not two callers") };
        let conversation = alice.one_to_one(bob.user()).await?.into_it();
        let mut ends = Vec::new();
        let mut leases = Vec::new();
        for device in [alice, bob] {
            device.connect().await?;
            let locus = device.read_locus(&conversation.locus_url).await?;
            let joined = device.join(&conversation.locus_url, expect(&locus)).await?;
            ends.push(End::bind(joined.leg.as_ref().context("a join without a leg")?)?);
            leases.push(device.keep_alive(&joined));
        }
        let ends = ends.try_into().ok().context("not two legs")?;
        Ok((Self { ends }, leases.try_into().ok().context("not two leases")?))
    }

    /// Keeps [`WINDOW`] packets under way.
    fn fill(&mut self, lasts: Duration) -> Result<Went> {
        let (watch, mut went, mut under_way) = (Stopwatch::start(), Went::default(), 0);
        let mut heard_at = Duration::ZERO;
        loop {
            let now = watch.elapsed();
            while under_way < WINDOW && now < lasts {
                under_way += u64::from(self.ends[(under_way % 2) as usize].send(now)?);
            }
            let received = self.receive(|_| {})?;
            if received > 0 {
                heard_at = now;
            }
            went.received += received;
            under_way = under_way.saturating_sub(received);
            if now > heard_at + LOST_AFTER {
                went.lost += under_way;
                under_way = 0;
                heard_at = now;
            }
            if now >= lasts && under_way == 0 {
                return Ok(went);
            }
        }
    }

    /// Sends each packet at its moment, whatever became of the others. Watches the clock without pause.
    fn at_rate(&mut self, rate: u64, lasts: Duration) -> Result<(Went, Histogram<u64>)> {
        let mut latency_ns = Histogram::new_with_bounds(1, LOST_AFTER.as_nanos() as u64, 3)?;
        let (watch, count) = (Stopwatch::start(), rate * lasts.as_secs());
        let (mut sent, mut received) = (0, 0);
        while received < count && watch.elapsed() < lasts + LOST_AFTER {
            let due = |number: u64| Duration::from_nanos(number * 1_000_000_000 / rate);
            while sent < count && due(sent) <= watch.elapsed() {
                // One that the own system refuses is lost, too.
                self.ends[(sent % 2) as usize].send(due(sent))?;
                sent += 1;
            }
            received += self.receive(|intended| {
                let late = watch.elapsed().saturating_sub(intended);
                latency_ns.saturating_record(late.as_nanos() as u64);
            })?;
        }
        Ok((Went { received, lost: count - received }, latency_ns))
    }

    /// Everything that has come; tells when each should have been sent.
    fn receive(&self, mut each: impl FnMut(Duration)) -> Result<u64> {
        let mut received = 0;
        let mut buffer = [0; DATAGRAM_MAX];
        for end in &self.ends {
            while let Some(length) = end.receive(&mut buffer)? {
                if let (PACKET, Some(nanos)) = (length, buffer[HEADER..].first_chunk::<8>()) {
                    each(Duration::from_nanos(u64::from_be_bytes(*nanos)));
                    received += 1;
                }
            }
        }
        Ok(received)
    }
}

impl End {
    fn bind(leg: &Leg) -> Result<Self> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(leg.udp_address)?;
        socket.set_read_timeout(Some(LOST_AFTER))?;
        socket.send(&media::binding_request([7; 12], &leg.token))?;
        let mut buffer = [0; DATAGRAM_MAX];
        let length = socket.recv(&mut buffer).context("the relay does not answer")?;
        if !matches!(media::parse(&buffer[..length]), Datagram::Bound { .. }) {
            bail!("the relay does not bind the leg at {}", leg.udp_address as SocketAddr);
        }
        socket.set_nonblocking(true)?;
        Ok(Self { socket, packet: media::rtp(leg.ssrc, 0, 0, &[0xff; PACKET - HEADER]) })
    }

    /// Sends a packet that says when it should have been sent; whether the system took it.
    fn send(&mut self, intended: Duration) -> Result<bool> {
        let nanos = (intended.as_nanos() as u64).to_be_bytes();
        self.packet[HEADER..HEADER + nanos.len()].copy_from_slice(&nanos);
        match self.socket.send(&self.packet) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        match self.socket.recv(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
