//! `bench scale`: how much world a second buys.
//!
//! Each sample runs in a process of its own, so that no allocator remembers the one before; engines are
//! compared in turns. *Bare* hosts answer a GET with axum; *clusters* are the reference with all its
//! services.

mod bare;
mod clusters;
mod floor;
mod foreign;
mod pooled;

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use fusion_sim::engines::fabric::{Options, hosts};
use fusion_sim::library::Library;
use fusion_sim::outcome::judged;
use fusion_sim::plan::{Mode, Plan};
use serde::{Deserialize, Serialize};

use crate::How;
use crate::measure::{Cost, Meter, Rounds, exponent, resident_kb};
use crate::row::{Report, Row, Target};

/// The scenario with everything in it: strangers, a race, calls, rings, media, the end.
const CALL: &str = "both-call-at-once-fails";

/// One measurement, made in a process of its own.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Sample {
    /// Bare hosts, each with a keep-alive, and RPCs between random pairs over a minute.
    Minute { engine: Engine, hosts: usize, rpcs: usize },
    /// Bare hosts that do nothing for an hour, each with a keep-alive at its beginning.
    IdleHour { engine: Engine, hosts: usize },
    /// Bare hosts that call each other without a pause.
    Busy { engine: Engine, hosts: usize, rpcs: usize },
    /// Bare hosts, each with an open keep-alive, looked at while they live.
    Memory { hosts: usize },
    /// A scenario on so many seeds, judged.
    Calls { seeds: u64 },
    /// Clusters with connected devices for a while.
    Clusters { clusters: usize, devices: usize, seconds: u64 },
}

/// What carries requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Engine {
    /// The simulated network with the reference's client.
    Fabric,
    /// The simulated network with hyper-util's pooled client.
    Pooled,
    /// No network: the router is called.
    Floor,
    /// Turmoil's network with the reference's client.
    Turmoil,
}

/// What a sample has shown.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) cost: Cost,
    /// Resident memory while the world lived.
    pub(crate) resident_kb: f64,
    /// RPCs made, seeds played, devices connected.
    pub(crate) work: u64,
    /// What it took to come so far, where that is not part of the figure.
    pub(crate) before_s: f64,
}

/// Measures what is wanted.
pub(crate) fn run(how: &How, report: &Report) -> Result<()> {
    minutes(how, report)?;
    idle(how, report)?;
    busy(how, report)?;
    memory(how, report)?;
    calls(how, report)?;
    cluster_hour(how, report)?;
    growth(how, report)?;
    elsewhere(how, report);
    Ok(())
}

/// Makes one sample and prints it.
pub(crate) fn sample(what: &str) -> Result<()> {
    let shown = match serde_json::from_str(what)? {
        Sample::Minute { engine: Engine::Floor, rpcs, .. } => floor::minute(rpcs)?,
        Sample::Minute { engine, hosts, rpcs } => bare::minute(engine, hosts, rpcs)?,
        Sample::IdleHour { engine, hosts } => bare::idle_hour(engine, hosts)?,
        Sample::Busy { engine: Engine::Floor, hosts, rpcs } => floor::busy(hosts, rpcs)?,
        Sample::Busy { engine: Engine::Turmoil, hosts, rpcs } => foreign::busy(hosts, rpcs)?,
        Sample::Busy { engine, hosts, rpcs } => bare::busy(engine, hosts, rpcs)?,
        Sample::Memory { hosts } => bare::memory(hosts)?,
        Sample::Calls { seeds } => play_calls(seeds)?,
        Sample::Clusters { clusters, devices, seconds } => clusters::live(clusters, devices, seconds)?,
    };
    println!("{}", serde_json::to_string(&shown)?);
    Ok(())
}

fn minutes(how: &How, report: &Report) -> Result<()> {
    for (hosts, target) in [(1_000, 0.2), (3_000, 0.35)] {
        let name = format!("hosts_{hosts}_wall_s");
        if !how.wants(&name) {
            continue;
        }
        let (hosts, rpcs) = how.size((hosts, 2_000), (hosts / 50, 200));
        let engines = [Engine::Fabric, Engine::Floor];
        let shown = in_turns(how, report, &name, engines, |engine| Sample::Minute { engine, hosts, rpcs })?;
        let conditions = format!(
            "{hosts} bare hosts, 60 simulated s, {rpcs} RPCs, a keep-alive each, no network events recorded"
        );
        for (engine, shown) in engines.into_iter().zip(shown) {
            let wall = walls(&shown);
            let (name, target) = match engine {
                Engine::Floor => (format!("{name}_floor"), Target::Reported),
                _ => (name.clone(), Target::AtMost(target)),
            };
            report.add(
                Row::new(&name, wall.median, "s", target).under(format!("{conditions}; {}", costs(&shown))),
            );
        }
    }
    Ok(())
}

fn idle(how: &How, report: &Report) -> Result<()> {
    let name = "idle_hour_1000_hosts_wall_s";
    if !how.wants(name) {
        return Ok(());
    }
    let hosts = how.size(1_000, 20);
    let shown = in_turns(how, report, name, [Engine::Fabric], |engine| Sample::IdleHour { engine, hosts })?;
    let row = Row::new(name, walls(&shown[0]).median, "s", Target::AtMost(0.1));
    report.add(row.under(format!("{hosts} bare hosts for 3600 simulated s; {}", costs(&shown[0]))));
    Ok(())
}

fn busy(how: &How, report: &Report) -> Result<()> {
    let name = "busy_rpc_per_s";
    if !how.wants(name) {
        return Ok(());
    }
    let (hosts, rpcs) = (10, how.size(20_000, 1_000));
    let engines = [Engine::Fabric, Engine::Pooled, Engine::Floor, Engine::Turmoil];
    let shown = in_turns(how, report, name, engines, |engine| Sample::Busy { engine, hosts, rpcs })?;
    let conditions = format!("{hosts} bare hosts, {rpcs} RPCs back to back, one at a time from each");
    let rate = |shown: &Shown| shown.work as f64 / shown.cost.wall_s;
    for (suffix, shown) in ["", "_hyper_util", "_floor", "_turmoil"].into_iter().zip(&shown) {
        let rates = Rounds::of(shown.iter().map(rate));
        let row = Row::new(&format!("{name}{suffix}"), rates.median, "1/s", Target::Reported);
        report.add(row.under(format!("{conditions}; {}; {}", rates.range(), costs(shown))));
    }
    let [ours, theirs, floor, turmoil] = &shown;
    let ratio = |others: &[Shown]| Rounds::of(ours.iter().zip(others).map(|(a, b)| rate(a) / rate(b)));
    for (suffix, others, target, beside) in [
        ("hyper_util", theirs, Target::AtLeast(1.8), "same engine"),
        ("floor", floor, Target::Reported, "no network at all"),
        ("turmoil", turmoil, Target::Reported, "same hosts, app and client on turmoil's network"),
    ] {
        let ratio = ratio(others);
        let row = Row::new(&format!("{name}_vs_{suffix}"), ratio.median, "x", target);
        report.add(row.under(format!("{beside}, same run, in turns; {}", ratio.range())));
    }
    Ok(())
}

fn memory(how: &How, report: &Report) -> Result<()> {
    let name = "memory_per_host_kb";
    if !how.wants(name) {
        return Ok(());
    }
    let (few, many) = how.size((1_000, 3_000), (50, 150));
    let mut each = Vec::new();
    for round in 0..how.rounds() {
        report.progress(&format!("{name}, round {}", round + 1));
        let (few_kb, many_kb) = (
            in_own_process(Sample::Memory { hosts: few })?.resident_kb,
            in_own_process(Sample::Memory { hosts: many })?.resident_kb,
        );
        each.push((many_kb - few_kb) / (many - few) as f64);
    }
    let each = Rounds::of(each);
    let row = Row::new(name, each.median, "kB", Target::AtMost(38.0));
    report.add(row.under(format!(
        "(resident at {many} - at {few}) / {}, each host with one open keep-alive, default allocator; {}",
        many - few,
        each.range()
    )));
    Ok(())
}

fn calls(how: &How, report: &Report) -> Result<()> {
    let name = "call_seeds_per_s";
    if !how.wants(name) {
        return Ok(());
    }
    let seeds = how.size(200, 10);
    let mut rates = Vec::new();
    for round in 0..how.rounds() {
        report.progress(&format!("{name}, round {}", round + 1));
        let shown = in_own_process(Sample::Calls { seeds })?;
        rates.push(shown.work as f64 / shown.cost.cpu_s);
    }
    let rates = Rounds::of(rates);
    let row = Row::new(name, rates.median, "1/s", Target::AtLeast(200.0));
    report.add(row.under(format!(
        "{seeds} seeds of `{CALL}` on one core, history and judges included, per CPU second; {}",
        rates.range()
    )));
    Ok(())
}

fn cluster_hour(how: &How, report: &Report) -> Result<()> {
    let name = "cluster_hour_100_wall_s";
    if !how.wants(name) {
        return Ok(());
    }
    let (clusters, devices, seconds) = how.size((100, 10, 3_600), (5, 2, 600));
    let mut shown = Vec::new();
    for round in 0..how.rounds() {
        report.progress(&format!("{name}, round {}", round + 1));
        shown.push(in_own_process(Sample::Clusters { clusters, devices, seconds })?);
    }
    let row = Row::new(name, walls(&shown).median, "s", Target::AtMost(10.0));
    report.add(row.under(format!(
        "{clusters} clusters with {devices} connected devices each for {seconds} simulated s, everybody still \
         connected at the end; before it {:.1} s to start, provision and connect; {}",
        Rounds::of(shown.iter().map(|shown| shown.before_s)).median,
        costs(&shown)
    )));
    Ok(())
}

/// How wall time and memory grow with the number of idle clusters.
fn growth(how: &How, report: &Report) -> Result<()> {
    let name = "growth_exponent";
    if !how.wants(name) {
        return Ok(());
    }
    let sizes: &[usize] = how.size(&[10, 100, 1_000, 10_000], &[2, 20]);
    let (mut walls, mut kilobytes, mut words) = (Vec::new(), Vec::new(), Vec::new());
    for &clusters in sizes {
        report.progress(&format!("{name}: {clusters} clusters"));
        let shown = in_own_process(Sample::Clusters { clusters, devices: 0, seconds: 600 })?;
        let wall_s = shown.cost.wall_s + shown.before_s;
        walls.push((clusters as f64, wall_s));
        kilobytes.push((clusters as f64, shown.resident_kb));
        words.push(format!("{clusters}: {wall_s:.2} s, {:.0} MB", shown.resident_kb / 1e3));
    }
    // The first size is mostly the start of the process.
    let row = Row::new(name, exponent(&walls[1.min(walls.len() - 2)..]), "", Target::AtMost(1.1));
    report.add(row.under(format!(
        "of wall time over clusters that start, fetch the domain map and live 600 simulated s ({}); memory {:.2}",
        words.join("; "),
        exponent(&kilobytes[1.min(kilobytes.len() - 2)..])
    )));
    Ok(())
}

/// The engine that is not in this build.
fn elsewhere(how: &How, report: &Report) {
    let name = "busy_rpc_per_s_madsim";
    if how.wants(name) {
        report.add(Row::not_measured(name, "1/s", "madsim needs a build of its own (--cfg madsim)"));
    }
}

/// Every engine once a round, in turns; the samples of each.
fn in_turns<const N: usize>(
    how: &How,
    report: &Report,
    name: &str,
    engines: [Engine; N],
    sample: impl Fn(Engine) -> Sample,
) -> Result<[Vec<Shown>; N]> {
    let mut shown = engines.map(|_| Vec::new());
    for round in 0..how.rounds() {
        report.progress(&format!("{name}, round {}", round + 1));
        for (engine, shown) in engines.into_iter().zip(&mut shown) {
            shown.push(in_own_process(sample(engine))?);
        }
    }
    Ok(shown)
}

fn in_own_process(sample: Sample) -> Result<Shown> {
    let output = Command::new(std::env::current_exe()?)
        .arg("sample")
        .arg(serde_json::to_string(&sample)?)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        bail!("{sample:?} failed: {}", output.status);
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("{sample:?} said nothing"))
}

/// Plays and judges `seeds` seeds of the call, one after the other.
fn play_calls(seeds: u64) -> Result<Shown> {
    let scenario = Library::nearest()?.find(CALL)?;
    let hosts = hosts(&scenario.topology)?;
    let meter = Meter::start();
    for seed in 1..=seeds {
        let outcome = judged(&Plan::new(&scenario, &hosts, seed, Mode::Story), &Options::default());
        if outcome.ruling != fusion_history::Ruling::Holds {
            bail!("seed {seed} of {CALL} does not hold:\n{}", outcome.explain());
        }
    }
    Ok(Shown { cost: meter.elapsed(), work: seeds, ..Shown::here()? })
}

fn walls(shown: &[Shown]) -> Rounds {
    Rounds::of(shown.iter().map(|shown| shown.cost.wall_s))
}

fn costs(shown: &[Shown]) -> String {
    let cpu = Rounds::of(shown.iter().map(|shown| shown.cost.cpu_s));
    format!("wall {}, CPU {:.3} s", walls(shown).range(), cpu.median)
}

impl Shown {
    /// With the memory of this process now.
    fn here() -> Result<Self> {
        Ok(Self { resident_kb: resident_kb(std::process::id())?, ..Self::default() })
    }
}
