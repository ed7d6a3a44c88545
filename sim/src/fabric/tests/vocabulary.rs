//! Every kind of fault makes the trouble that it says: more where there is more of it, none where there is
//! none.
//!
//! Method: two machines run one errand, looked at from outside, without a fault, with little and with much
//! of each kind. `a` sends datagrams, keeps a connection, opens others and asks for names; `b` answers and
//! writes to its disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use fusion_runtime::store::{Batch, Key, StoreError};
use futures_util::future::{join, join_all, join4};
use serde_json::{Value, json};

use super::*;

/// How long the errand is.
const ERRAND: u64 = 2_000;

/// So much of a fault.
struct Dose {
    fault: Value,
    /// How often it begins, 600 ms apart.
    times: u64,
    lasts_ms: u64,
}

/// What the errand met.
#[derive(Default)]
struct Seen {
    /// By number, when each datagram was sent.
    sent: Vec<Duration>,
    /// Which arrived, in order: number, intact, when.
    arrived: Vec<(usize, bool, Duration)>,
    /// How long each exchange on the kept connection took; the error, where it broke.
    pings: Vec<Result<Duration, ErrorKind>>,
    /// How many connections were opened to be kept.
    kept: u64,
    /// The same of new connections.
    connects: Vec<Result<Duration, ErrorKind>>,
    commits: Vec<Result<Duration, StoreError>>,
    /// Rows that were acknowledged and are not there in the end.
    rows_lost: u64,
    /// By how much the clock of `b` was wrong, at most.
    clock_off_us: u64,
    /// How many answers were not the right address.
    names_wrong: u64,
    counts: WireCounts,
}

impl Seen {
    fn missing(&self) -> u64 {
        let arrived: BTreeSet<_> = self.arrived.iter().map(|(number, ..)| number).collect();
        (self.sent.len() - arrived.len()) as u64
    }

    fn row_longest(&self) -> u64 {
        let arrived: BTreeSet<_> = self.arrived.iter().map(|(number, ..)| *number).collect();
        let (mut longest, mut row) = (0, 0);
        for number in 0..self.sent.len() {
            row = if arrived.contains(&number) { 0 } else { row + 1 };
            longest = longest.max(row);
        }
        // One is no row.
        if longest > 1 { longest } else { 0 }
    }

    fn garbled(&self) -> u64 {
        self.arrived.iter().filter(|(_, intact, _)| !intact).count() as u64
    }

    fn doubled(&self) -> u64 {
        let mut times: BTreeMap<usize, u64> = BTreeMap::new();
        self.arrived.iter().for_each(|(number, ..)| *times.entry(*number).or_default() += 1);
        times.values().map(|times| times - 1).sum()
    }

    fn overtaken(&self) -> u64 {
        self.counts.datagrams_reordered
    }

    /// By how much datagrams were later than the link's 1 ms explains, milliseconds in all.
    fn late_ms(&self) -> u64 {
        let late =
            |(number, _, at): &(usize, bool, Duration)| (*at - self.sent[*number]).saturating_sub(ms(3));
        self.arrived.iter().map(late).sum::<Duration>().as_millis() as u64
    }

    fn slow_pings_ms(&self) -> u64 {
        over(&self.pings, 10)
    }

    fn slow_connects_ms(&self) -> u64 {
        over(&self.connects, 10)
    }

    fn slow_commits_ms(&self) -> u64 {
        over(&self.commits, 30)
    }

    fn broken(&self) -> u64 {
        self.pings.iter().filter(|ping| ping.is_err()).count() as u64
    }

    fn connects_failed(&self) -> u64 {
        self.connects.iter().filter(|connect| connect.is_err()).count() as u64
    }

    /// Connections that nobody of the errand opened.
    fn strangers(&self) -> u64 {
        let own = self.connects.iter().filter(|connect| connect.is_ok()).count() as u64 + self.kept;
        self.counts.connections_opened - own
    }

    fn commits_failed(&self) -> u64 {
        self.commits.iter().filter(|commit| matches!(commit, Err(StoreError::Refused(_)))).count() as u64
    }
}

/// What took longer than `usual_ms`, by how much in all.
fn over<E>(took: &[Result<Duration, E>], usual_ms: u64) -> u64 {
    let over = took.iter().flatten().map(|took| took.saturating_sub(ms(usual_ms)));
    over.sum::<Duration>().as_millis() as u64
}

/// What a kind of fault does: little, much, and how the trouble is measured.
type Row = (Dose, Dose, fn(&Seen) -> u64);

fn dose(fault: Value, times: u64, lasts_ms: u64) -> Dose {
    Dose { fault, times, lasts_ms }
}

/// For half a second: little and much.
fn weak_and_strong(weak: Value, strong: Value, harm: fn(&Seen) -> u64) -> Row {
    (dose(weak, 1, 500), dose(strong, 1, 500), harm)
}

/// Little once, and much twice: where each packet counts once, however much happens to it.
fn weak_and_strong_twice(weak: Value, strong: Value, harm: fn(&Seen) -> u64) -> Row {
    (dose(weak, 1, 500), dose(strong, 2, 500), harm)
}

/// Once and twice.
fn once_and_twice(fault: Value, harm: fn(&Seen) -> u64) -> Row {
    (dose(fault.clone(), 1, 400), dose(fault, 2, 400), harm)
}

fn on_links() -> Vec<Row> {
    let kind = |kind: &str, more: Value| {
        let mut fault = json!({"kind": kind, "from": ["a"], "to": ["b"]});
        fault.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fault
    };
    let between = |kind: &str| json!({"kind": kind, "a": ["a"], "b": ["b"]});
    let flapping = |up_share: f64| json!({"kind": "flapping", "a": ["a"], "b": ["b"], "period_ms": 100, "up_share": up_share});
    let probably = |name: &str, harm| {
        weak_and_strong(
            kind(name, json!({"probability": 0.1})),
            kind(name, json!({"probability": 0.6})),
            harm,
        )
    };
    let burst = |p: f64, r: f64| kind("loss_burst", json!({"probability": p, "recovery": r}));
    let reorder = |p: f64| kind("reorder", json!({"probability": p, "hold_ms": 30}));
    let latency =
        |shape: &str, add: u64| kind("latency", json!({"add_ms": add, "jitter_ms": add, "shape": shape}));
    let line = |bytes_per_s: u64| kind("bandwidth", json!({"bytes_per_s": bytes_per_s}));
    let short_queue = |bytes: u64| kind("bandwidth", json!({"bytes_per_s": 30_000, "queue_bytes": bytes}));
    let mtu = |bytes: u64| kind("mtu", json!({"bytes": bytes}));
    vec![
        once_and_twice(between("partition"), Seen::missing),
        once_and_twice(kind("partition_one_way", json!({})), Seen::missing),
        weak_and_strong(flapping(0.8), flapping(0.2), Seen::missing),
        probably("loss", Seen::missing),
        weak_and_strong(burst(0.1, 0.5), burst(0.3, 0.1), Seen::row_longest),
        probably("corruption", Seen::garbled),
        probably("duplicate", Seen::doubled),
        weak_and_strong(reorder(0.1), reorder(0.6), Seen::overtaken),
        weak_and_strong_twice(latency("uniform", 10), latency("uniform", 50), Seen::late_ms),
        weak_and_strong_twice(latency("normal", 10), latency("normal", 50), Seen::slow_pings_ms),
        weak_and_strong_twice(latency("tail", 10), latency("tail", 50), Seen::late_ms),
        weak_and_strong_twice(line(40_000), line(20_000), Seen::late_ms),
        weak_and_strong_twice(short_queue(6_000), short_queue(1_000), Seen::missing),
        weak_and_strong(mtu(1_000), mtu(150), Seen::missing),
        once_and_twice(between("reset_connections"), Seen::broken),
        once_and_twice(between("half_open"), Seen::broken),
    ]
}

fn on_machines() -> Vec<Row> {
    let kind = |kind: &str| json!({"kind": kind, "host": "b"});
    let with = |name: &str, member: &str, value: Value| {
        let mut fault = kind(name);
        fault[member] = value;
        fault
    };
    vec![
        once_and_twice(kind("backlog_full"), Seen::slow_connects_ms),
        once_and_twice(kind("crash"), Seen::connects_failed),
        once_and_twice(kind("power_off"), Seen::missing),
        once_and_twice(kind("restart"), Seen::broken),
        once_and_twice(kind("pause"), Seen::slow_pings_ms),
        weak_and_strong_twice(
            with("slow_disk", "add_ms", json!(40)),
            with("slow_disk", "add_ms", json!(90)),
            Seen::slow_commits_ms,
        ),
        weak_and_strong_twice(
            with("slow_cpu", "turn_us", json!(8_000)),
            with("slow_cpu", "turn_us", json!(16_000)),
            Seen::slow_pings_ms,
        ),
        weak_and_strong(
            with("overload", "per_s", json!(50)),
            with("overload", "per_s", json!(500)),
            Seen::strangers,
        ),
        once_and_twice(kind("certificate_expired"), Seen::connects_failed),
        once_and_twice(kind("disk_full"), Seen::commits_failed),
        weak_and_strong(
            with("disk_errors", "probability", json!(0.1)),
            with("disk_errors", "probability", json!(0.6)),
            Seen::commits_failed,
        ),
        (
            dose(with("drift", "ppm", json!(-1_000)), 1, 400),
            dose(with("drift", "ppm", json!(9_000)), 2, 400),
            |seen| seen.clock_off_us,
        ),
        once_and_twice(with("jump", "us", json!(1_000)), |seen| seen.clock_off_us),
        once_and_twice(with("lose_rows", "tables", json!(["row"])), |seen| seen.rows_lost),
        (
            dose(with("skew", "us", json!(-1_000)), 1, 400),
            dose(with("skew", "us", json!(9_000)), 2, 400),
            |seen| seen.clock_off_us,
        ),
    ]
}

fn on_names() -> Vec<Row> {
    let kind = |kind: &str| json!({"kind": kind, "name": "b.example"});
    vec![
        once_and_twice(kind("dns_missing"), |seen| seen.names_wrong),
        once_and_twice(kind("dns_stale"), |seen| seen.names_wrong),
        once_and_twice(
            json!({"kind": "dns_wrong", "name": "b.example", "as_of": "a.example"}),
            Seen::connects_failed,
        ),
    ]
}

fn rows() -> Vec<Row> {
    [on_links(), on_machines(), on_names()].into_iter().flatten().collect()
}

/// The names of all kinds, as serde knows them.
fn kinds() -> BTreeSet<String> {
    let error = serde_json::from_str::<Fault>(r#"{"kind":"none"}"#).unwrap_err().to_string();
    let (_, expected) = error.split_once("expected one of").unwrap();
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn family_of(dose: &Dose) -> String {
    dose.fault["kind"].as_str().unwrap().to_owned()
}

#[test]
fn the_table_has_every_kind() {
    let in_table: BTreeSet<_> = rows().iter().map(|(weak, ..)| family_of(weak)).collect();
    assert_eq!(in_table, kinds());
}

#[test]
fn trouble_and_counter_rise_with_the_fault_and_stay_at_zero_without_it() {
    let (clean, untouched) = errand(None);
    assert_eq!(untouched, 0);
    let mut wrong = Vec::new();
    for (weak, strong, harm) in rows() {
        let ((little, few), (much, many)) = (errand(Some(&weak)), errand(Some(&strong)));
        let harms = [&clean, &little, &much].map(harm);
        if harms[0] != 0 || !harms.is_sorted_by(|less, more| less < more) || !(0 < few && few < many) {
            wrong.push(format!("{}: trouble {harms:?}, counter {:?}", family_of(&weak), [few, many]));
        }
        if family_of(&strong) != "lose_rows" {
            assert_eq!(much.rows_lost, 0, "{}: what was acknowledged is lost", family_of(&strong));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Runs the errand; says also how often the fault made a difference.
fn errand(dose: Option<&Dose>) -> (Seen, u64) {
    let world = World::new(1);
    let arrived: Arc<Mutex<Vec<_>>> = Arc::default();
    let heard = arrived.clone();
    let boot = move |host: Host| {
        serve_echo(&host, at(2));
        let (machine, heard) = (host.clone(), heard.clone());
        host.tasks.spawn(async move { listen(&machine, &heard).await });
    };
    let a = world.host("a", ip(1), "here").start().unwrap();
    let b = world.host("b", ip(2), "here").boot(boot.clone()).start().unwrap();
    world.publish("a.example", [ip(1)]);
    world.publish("b.example", [ip(1)]);
    world.publish("b.example", [ip(2)]);
    let mut seen = world.run(async {
        boot(b);
        let (seen, ()) = join(play(&world, &a), suffer(&world, dose)).await;
        world.clock().sleep(ms(1_000)).await;
        seen
    });
    let reports = world.faults();
    let families: BTreeSet<_> = reports.iter().map(|report| report.fault.family()).collect();
    assert!(dose.is_none_or(|dose| families.into_iter().eq([family_of(dose).as_str()])));
    seen.arrived = arrived.lock().unwrap().clone();
    seen.counts = world.wire_counts();
    (seen, reports.iter().map(|report| report.effects).sum())
}

/// Lets the fault begin and end, as often as the dose says.
async fn suffer(world: &World, dose: Option<&Dose>) {
    let Some(dose) = dose else { return };
    let fault: Fault = serde_json::from_value(dose.fault.clone()).unwrap();
    let clock = world.clock();
    for time in 0..dose.times {
        clock.sleep_until(ms(510 + 600 * time)).await;
        let id = world.inject(&fault).await.unwrap();
        clock.sleep(ms(dose.lasts_ms)).await;
        // An instant one is over already.
        let _ = world.heal(id).await;
    }
}

async fn play(world: &World, a: &Host) -> Seen {
    let (((pings, kept), connects), sent, (commits, rows_lost), (clock_off_us, names_wrong)) = join4(
        join(ping_on(world, a), connect_often(world, a)),
        send(world, a),
        commit(world),
        look(world, a),
    )
    .await;
    Seen { sent, pings, kept, connects, commits, rows_lost, clock_off_us, names_wrong, ..Seen::default() }
}

/// Notes down the datagrams that arrive.
async fn listen(machine: &Host, heard: &Mutex<Vec<(usize, bool, Duration)>>) {
    let socket = machine.net.udp(at(2)).await.unwrap();
    let mut buffer = [0; 2_000];
    while let Ok((len, _)) = socket.recv_from(&mut buffer).await {
        // The number is said four times, so that flipped bits do not hide it.
        let said: Vec<_> =
            (0..4).map(|copy| u32::from_be_bytes(buffer[copy * 4..][..4].try_into().unwrap())).collect();
        let number = *said.iter().find(|one| said.iter().filter(|other| one == other).count() > 1).unwrap();
        let intact = said.iter().all(|one| *one == number) && buffer[16..len].iter().all(|byte| *byte == 7);
        heard.lock().unwrap().push((number as usize, intact, machine.clock.now()));
    }
}

/// A datagram every 10 ms, every fifth of them long.
async fn send(world: &World, a: &Host) -> Vec<Duration> {
    let socket = a.net.udp(at(1)).await.unwrap();
    let clock = world.clock();
    let mut sent = Vec::new();
    for number in 0..ERRAND / 10 {
        clock.sleep_until(ms(number * 10)).await;
        let mut datagram = vec![7; if number % 5 == 0 { 1_200 } else { 200 }];
        (0..4).for_each(|copy| datagram[copy * 4..][..4].copy_from_slice(&(number as u32).to_be_bytes()));
        socket.send_to(&datagram, at(2)).await.unwrap();
        sent.push(clock.now());
    }
    sent
}

/// An exchange every 20 ms on one connection, which is opened anew when it breaks.
async fn ping_on(world: &World, a: &Host) -> (Vec<Result<Duration, ErrorKind>>, u64) {
    let clock = world.clock();
    let mut stream = None;
    let (mut pings, mut kept) = (Vec::new(), 0);
    for number in 0..ERRAND / 20 {
        clock.sleep_until(ms(number * 20)).await;
        if stream.is_none() {
            stream = a.net.connect(at(2), "b.example").await.ok();
            kept += u64::from(stream.is_some());
        }
        let Some(open) = &mut stream else { continue };
        let before = clock.now();
        let answer = ping(open).await;
        if answer.is_err() {
            stream = None;
        }
        pings.push(answer.map(|()| clock.now() - before).map_err(|error| error.kind()));
    }
    (pings, kept)
}

/// A new connection every 50 ms.
async fn connect_often(world: &World, a: &Host) -> Vec<Result<Duration, ErrorKind>> {
    let clock = &world.clock();
    let attempts = (0..ERRAND / 50).map(async |number| {
        clock.sleep_until(ms(number * 50 + 5)).await;
        let before = clock.now();
        let connected = connect(a).await;
        connected.map(|_| clock.now() - before).map_err(|error| error.kind())
    });
    join_all(attempts).await
}

/// By name, as services do.
async fn connect(a: &Host) -> std::io::Result<Stream> {
    match a.net.resolve("b.example", PORT).await?.first() {
        Some(at) => a.net.connect(*at, "b.example").await,
        None => Err(ErrorKind::NotFound.into()),
    }
}

/// A row every 20 ms; and how many of those acknowledged are not there in the end.
async fn commit(world: &World) -> (Vec<Result<Duration, StoreError>>, u64) {
    let clock = &world.clock();
    let key = |number: u64| Key::of(&[b"row", &number.to_be_bytes()]);
    let commits = (0..ERRAND / 20).map(async |number| {
        clock.sleep_until(ms(number * 20)).await;
        let before = clock.now();
        let b = world.machine("b")?;
        let mut batch = Batch::default();
        batch.put(key(number), "value");
        let done = b.store.commit(batch).await;
        Some((number, done.map(|()| clock.now() - before)))
    });
    let commits: Vec<_> = join_all(commits).await.into_iter().flatten().collect();
    let there: BTreeSet<Key> = world.rows("b").into_iter().map(|(key, _)| key).collect();
    let acknowledged = commits.iter().filter(|(_, done)| done.is_ok());
    let lost = acknowledged.filter(|(number, _)| !there.contains(&key(*number))).count() as u64;
    (commits.into_iter().map(|(_, done)| done).collect(), lost)
}

/// Every 50 ms, a look at the clock of `b` and at its name.
async fn look(world: &World, a: &Host) -> (u64, u64) {
    let clock = world.clock();
    let (mut clock_off_us, mut names_wrong) = (0, 0);
    for number in 0..ERRAND / 50 {
        clock.sleep_until(ms(number * 50)).await;
        if let Some(b) = world.machine("b") {
            clock_off_us = b.clock.wall().0.abs_diff(clock.wall().0).max(clock_off_us);
        }
        let answer = a.net.resolve("b.example", PORT).await;
        names_wrong += u64::from(answer.ok() != Some(vec![at(2)]));
    }
    (clock_off_us, names_wrong)
}
