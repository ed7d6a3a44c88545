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

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use fusion_sim::engines::fabric::{Options, hosts};
use fusion_sim::library::Library;
use fusion_sim::outcome::judged;
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::village::{Done, Work};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::How;
use crate::measure::{Cost, Meter, Rounds, available_kb, exponent, resident_kb};
use crate::row::{Report, Row, Target};

/// The scenario with everything in it: strangers, a race, calls, rings, media, the end.
const CALL: &str = "both-call-at-once-fails";

/// The minute that madsim plays, too.
const MADSIM_MINUTE: &str = "hosts_1000_wall_s";
/// Why a row of madsim's is empty.
const NO_MADSIM: &str = "madsim needs a build of its own (--madsim FILE)";

/// One measurement, made in a process of its own.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Sample {
    /// The work of bare hosts.
    Village { engine: Engine, work: Work },
    /// Bare hosts, each with an open keep-alive, looked at while they live.
    Memory { hosts: usize },
    /// A scenario on so many seeds, judged.
    Calls { seeds: u64 },
    /// Clusters with connected devices for a while.
    Clusters { federation: Federation, devices: usize, seconds: u64 },
}

/// So many clusters, each of an org of its own, of which so many have a domain: each cluster knows all domains.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Federation {
    clusters: usize,
    domains: usize,
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
    /// Madsim's network and executor with the reference's client: a program of its own.
    Madsim,
}

/// What a sample has shown.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) cost: Cost,
    /// Resident memory while the world lived.
    pub(crate) resident_kb: f64,
    /// RPCs made, seeds played, devices connected.
    pub(crate) work: u64,
    /// Polls of tasks and packets, where they are counted.
    pub(crate) events: u64,
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
    Ok(())
}

/// Makes one sample and prints it.
pub(crate) fn sample(what: &str) -> Result<()> {
    let shown = match serde_json::from_str(what)? {
        Sample::Village { engine, work } => Shown::of(match engine {
            Engine::Fabric => bare::village(work)?,
            Engine::Pooled => bare::pooled_village(work)?,
            Engine::Floor => floor::village(work)?,
            Engine::Turmoil => foreign::village(work)?,
            Engine::Madsim => bail!("madsim has a program of its own"),
        }),
        Sample::Memory { hosts } => bare::memory(hosts)?,
        Sample::Calls { seeds } => play_calls(seeds)?,
        Sample::Clusters { federation, devices, seconds } => clusters::live(federation, devices, seconds)?,
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
        let mut engines = vec![Engine::Fabric, Engine::Floor];
        // The larger village has nothing to be compared with.
        if name == MADSIM_MINUTE {
            engines.push(Engine::Madsim);
        }
        let shown = in_turns(how, report, &name, &engines, Work::Minute { hosts, rpcs })?;
        let conditions = format!(
            "{hosts} bare hosts, 60 simulated s, {rpcs} RPCs, a keep-alive each, no network events recorded"
        );
        wall_rows(report, &name, target, &conditions, &shown);
    }
    Ok(())
}

fn idle(how: &How, report: &Report) -> Result<()> {
    let name = "idle_hour_1000_hosts_wall_s";
    if !how.wants(name) {
        return Ok(());
    }
    let hosts = how.size(1_000, 20);
    let shown = in_turns(how, report, name, &[Engine::Fabric, Engine::Madsim], Work::IdleHour { hosts })?;
    wall_rows(report, name, 0.1, &format!("{hosts} bare hosts for 3600 simulated s"), &shown);
    Ok(())
}

/// Wall time: a row for ours, which has the target, and one for each other engine.
fn wall_rows(report: &Report, name: &str, target: f64, conditions: &str, shown: &[(Engine, Vec<Shown>)]) {
    for (engine, shown) in shown {
        let (name, target) = match engine {
            Engine::Fabric => (name.to_owned(), Target::AtMost(target)),
            other => (format!("{name}_{}", other.suffix()), Target::Reported),
        };
        let conditions = format!("{conditions}{}; {}", engine.conditions(), costs(shown));
        report.add(match shown.as_slice() {
            [] => Row::not_measured(&name, "s", NO_MADSIM),
            shown => Row::new(&name, walls(shown).median, "s", target).under(conditions),
        });
    }
}

fn busy(how: &How, report: &Report) -> Result<()> {
    let name = "busy_rpc_per_s";
    if !how.wants(name) {
        return Ok(());
    }
    let (hosts, rpcs) = (10, how.size(20_000, 1_000));
    let engines = [Engine::Fabric, Engine::Pooled, Engine::Floor, Engine::Turmoil, Engine::Madsim];
    let shown = in_turns(how, report, name, &engines, Work::Busy { hosts, rpcs })?;
    let conditions = format!("{hosts} bare hosts, {rpcs} RPCs back to back, one at a time from each");
    let rate = |shown: &Shown| shown.work as f64 / shown.cost.wall_s;
    for (engine, shown) in &shown {
        let name = match engine {
            Engine::Fabric => name.to_owned(),
            other => format!("{name}_{}", other.suffix()),
        };
        let rates = Rounds::of(shown.iter().map(rate));
        let conditions = format!("{conditions}{}; {}; {}", engine.conditions(), rates.range(), costs(shown));
        report.add(match shown.as_slice() {
            [] => Row::not_measured(&name, "1/s", NO_MADSIM),
            _ => Row::new(&name, rates.median, "1/s", Target::Reported).under(conditions),
        });
    }
    let Some(((_, ours), others)) = shown.split_first() else { return Ok(()) };
    for (engine, theirs) in others {
        let (target, beside) = match engine {
            Engine::Pooled => (Target::AtLeast(1.8), "same engine"),
            Engine::Floor => (Target::Reported, "no network at all"),
            Engine::Madsim => (Target::AtLeast(2.0), "same hosts, app and client on madsim"),
            _ => (Target::Reported, "same hosts, app and client on turmoil's network"),
        };
        let name = format!("{name}_vs_{}", engine.suffix());
        let ratio = Rounds::of(ours.iter().zip(theirs).map(|(ours, theirs)| rate(ours) / rate(theirs)));
        let conditions = format!("{beside}{}, same run, in turns; {}", engine.conditions(), ratio.range());
        report.add(match theirs.as_slice() {
            [] => Row::not_measured(&name, "x", NO_MADSIM),
            _ => Row::new(&name, ratio.median, "x", target).under(conditions),
        });
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
        let federation = Federation { clusters, domains: clusters };
        shown.push(in_own_process(Sample::Clusters { federation, devices, seconds })?);
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

/// How time and memory grow with clusters: with those that have nothing to tell, and, as far as that goes in
/// a bench's time, with those of which each has to be known by all others.
fn growth(how: &How, report: &Report) -> Result<()> {
    let few_domains: &[usize] = how.size(&[10, 100, 1_000, 3_000, 10_000], &[2, 20]);
    grown(how, report, ("growth_exponent", Target::AtMost(1.1)), few_domains, 10)?;
    let all_domains: &[usize] = how.size(&[10, 100, 1_000], &[2, 20]);
    grown(how, report, ("growth_exponent_all_domains", Target::Reported), all_domains, usize::MAX)
}

fn grown(
    how: &How,
    report: &Report,
    (name, target): (&str, Target),
    sizes: &[usize],
    domains_max: usize,
) -> Result<()> {
    if !how.wants(name) {
        return Ok(());
    }
    let (mut walls, mut kilobytes, mut events, mut words) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for &clusters in sizes {
        if let Some(why) = too_large(clusters, kilobytes.last().copied(), available_kb()?) {
            words.push(format!("{clusters}: {why}"));
            break;
        }
        report.progress(&format!("{name}: {clusters} clusters"));
        let federation = Federation { clusters, domains: clusters.min(domains_max) };
        let shown = in_own_process(Sample::Clusters { federation, devices: 0, seconds: 600 })?;
        let wall_s = shown.cost.wall_s + shown.before_s;
        walls.push((clusters as f64, wall_s));
        events.push((shown.events as f64, wall_s));
        kilobytes.push((clusters as f64, shown.resident_kb));
        let (millions, megabytes) = (shown.events as f64 / 1e6, shown.resident_kb / 1e3);
        words.push(format!("{clusters}: {wall_s:.2} s, {millions:.2} M events, {megabytes:.0} MB"));
    }
    // The first size is mostly the start of the process.
    let later = |points: &[(f64, f64)]| exponent(&points[1.min(points.len() - 2)..]);
    let row = Row::new(name, later(&walls), "", target);
    report.add(row.under(format!(
        "of wall time over clusters that start, fetch the domain map and live 600 simulated s, {} ({}); over events \
         {:.2}, memory over clusters {:.2}",
        if domains_max == usize::MAX { "each with a domain".to_owned() } else { format!("{domains_max} domains") },
        words.join("; "),
        later(&events),
        later(&kilobytes)
    )));
    Ok(())
}

/// Why so many clusters are not tried after `last`, a number of clusters and what it took in kilobytes: each
/// cluster has a copy of the whole domain map, so that memory grows with the square.
fn too_large(clusters: usize, last: Option<(f64, f64)>, available_kb: f64) -> Option<String> {
    let (before, took_kb) = last?;
    let would_take_kb = took_kb * (clusters as f64 / before).powi(2);
    (would_take_kb > available_kb * 0.8).then(|| {
        let (take, have) = (would_take_kb / 1e6, available_kb / 1e6);
        format!("not tried, would take up to {take:.0} GB and {have:.0} GB are free")
    })
}

/// Every engine once a round, in turns; the samples of each, none where the engine is not there.
fn in_turns(
    how: &How,
    report: &Report,
    name: &str,
    engines: &[Engine],
    work: Work,
) -> Result<Vec<(Engine, Vec<Shown>)>> {
    let mut shown: Vec<(Engine, Vec<Shown>)> = engines.iter().map(|engine| (*engine, Vec::new())).collect();
    for round in 0..how.rounds() {
        report.progress(&format!("{name}, round {}", round + 1));
        for (engine, shown) in &mut shown {
            match (*engine, &how.madsim) {
                (Engine::Madsim, None) => {}
                (Engine::Madsim, Some(program)) => shown.push(Shown::of(on_madsim(program, work)?)),
                (engine, _) => shown.push(in_own_process(Sample::Village { engine, work })?),
            }
        }
    }
    Ok(shown)
}

fn on_madsim(program: &Path, work: Work) -> Result<Done> {
    said(Command::new(program).arg("sample").arg(serde_json::to_string(&work)?))
}

fn in_own_process(sample: Sample) -> Result<Shown> {
    let own = std::env::current_exe()?;
    said(Command::new(own).arg("sample").arg(serde_json::to_string(&sample)?))
}

/// What a process says of its sample.
fn said<T: DeserializeOwned>(command: &mut Command) -> Result<T> {
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", output.status);
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?} said nothing"))
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

impl Engine {
    /// How figures on it end.
    fn suffix(self) -> &'static str {
        match self {
            Self::Fabric => "fabric",
            Self::Pooled => "hyper_util",
            Self::Floor => "floor",
            Self::Turmoil => "turmoil",
            Self::Madsim => "madsim",
        }
    }

    /// What is different on it.
    fn conditions(self) -> &'static str {
        match self {
            Self::Fabric | Self::Pooled | Self::Floor => "",
            Self::Turmoil => ", its links with zero latency",
            Self::Madsim => ", a program of its own, its latency 1 to 10 ms",
        }
    }
}

impl Shown {
    fn of(done: Done) -> Self {
        Self { cost: done.cost, work: done.rpcs, ..Self::default() }
    }

    /// With the memory of this process now.
    fn here() -> Result<Self> {
        Ok(Self { resident_kb: resident_kb(std::process::id())?, ..Self::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_memory_cannot_hold_is_not_tried() {
        assert_eq!(too_large(10, None, 1.0), None);
        assert_eq!(too_large(3_000, Some((1_000.0, 300_000.0)), 20e6), None);
        let why = too_large(10_000, Some((3_000.0, 2_700_000.0)), 20e6).unwrap();
        assert_eq!(why, "not tried, would take up to 30 GB and 20 GB are free");
    }
}
