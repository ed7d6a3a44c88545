//! What is done with a run that failed: played again, made small, compared with another.

use std::path::{Path, PathBuf};

use super::desk::Desk;
use crate::bundle::{self, About, Bundle};
use crate::engines::fabric::{Options, hosts};
use crate::library::Library;
use crate::outcome::{Outcome, judged, quoted};
use crate::plan::{Mode, Plan};
use crate::plant::Plants;
use crate::shrink::{Shrunk, Size, shrink};
use crate::step::{Session, changes};
use anstream::{eprintln, print, println};
use anyhow::{Context as _, Result, ensure};
use fusion_history::{Difference, EventId, History, Ruling, first_difference};
use serde_json::json;

/// How many differences between two states are told.
const DIFFERENCES_TOLD: usize = 10;

/// Which bundle, and which plan of it.
#[derive(clap::Args)]
struct Bundled {
    /// The bundle's folder
    bundle: PathBuf,
    /// Makes the plan anew from the bundle's scenario and seed, as this build does; for a bundle of another
    /// build, or a damaged one
    #[arg(long)]
    anew: bool,
}

/// Which run is looked at: that of a bundle, or of a scenario.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("run").args(["bundle", "scenario"]).required(true))]
pub(super) struct Chosen {
    /// The folder that a failed run left
    pub(super) bundle: Option<PathBuf>,
    /// Makes the bundle's plan anew from its scenario and seed
    #[arg(long, requires = "bundle")]
    pub(super) anew: bool,
    /// Plays this scenario instead, by name or file
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// The scenario's seed
    #[arg(long, default_value_t = 1, value_name = "N", requires = "scenario")]
    seed: u64,
    /// With a swarm of faults drawn from the seed
    #[arg(long, requires = "scenario")]
    swarm: bool,
    /// Plants a bug in the scenario: `detect --list` names them
    #[arg(long, value_name = "BUG", requires = "scenario")]
    plant: Option<String>,
}

/// Plays the plan of a bundle again: the folder that a failed run leaves
#[derive(clap::Args)]
pub(super) struct Replay {
    #[command(flatten)]
    bundle: Bundled,
    /// Tells what happens, up to this event
    #[arg(long, value_name = "EVENT")]
    until: Option<u64>,
}

/// Makes the plan of a bundle as small as it can be and still show the same violation
///
/// What is left is played twice more and becomes a bundle beside the other. Ctrl-C
/// keeps the smallest so far.
///
/// Exit codes: 1 the violation is shown by what is left, 2 a wrong argument, or the
/// plan does not show it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Shrink {
    #[command(flatten)]
    bundle: Bundled,
    /// The fingerprint of the violation [default: the first of the bundle]
    #[arg(long, value_name = "FINGERPRINT")]
    violation: Option<String>,
    /// How many smaller plans may be played
    #[arg(long, default_value_t = 400, value_name = "N")]
    replays: u32,
}

/// Shows the first event in which two histories differ; exit code 0 when they are equal
#[derive(clap::Args)]
pub(super) struct Diff {
    /// A bundle's folder, or a file that `run --history` wrote
    left: PathBuf,
    /// Another
    right: PathBuf,
}

pub(super) fn replay(desk: &Desk, args: &Replay, library: &Library) -> Result<Ruling> {
    let bundle = args.bundle.open(library)?;
    let outcome = judged(&bundle.plan, &options(&bundle.plan, desk.plants)?);
    if desk.json {
        println!("{}", serde_json::to_string(&outcome.line())?);
        return Ok(outcome.ruling);
    }
    if let Some(until) = args.until {
        ensure!(
            outcome.history.event(EventId(until)).is_some(),
            "there is no event {until}: the run has {} events, from 0",
            outcome.history.len()
        );
        let told = outcome.history.events().iter().take_while(|event| event.id.0 <= until);
        told.for_each(|event| println!("{event}"));
    }
    let before = bundle.history.as_ref().map(|history| first_difference(history, &outcome.history));
    match before {
        None => println!("made anew from scenario and seed: {}", outcome.hash),
        Some(None) => println!("the same history, event by event: {}", outcome.hash),
        Some(Some(difference)) => {
            println!("another history than the bundle's:");
            tell(&difference, "the bundle", "played now");
        }
    }
    println!("{}; anew from scenario and seed: {}", outcome.ruling, bundle.about.reproduce);
    print!("{}", outcome.explain());
    Ok(outcome.ruling)
}

/// Makes the plan of a bundle small, and writes a bundle of what is left beside it.
pub(super) fn small(desk: &Desk, args: &Shrink, library: &Library) -> Result<Ruling> {
    let folder = &args.bundle.bundle;
    let bundle = args.bundle.open(library)?;
    let shown = bundle.about.violations.first();
    let fingerprint = args.violation.as_ref().or(shown);
    let fingerprint = fingerprint.with_context(|| format!("{} shows no violation", folder.display()))?;
    let options = options(&bundle.plan, desk.plants)?;
    let bar = desk.spinner(fingerprint);
    let progress = |replays, size: Size| {
        bar.set_position(replays);
        bar.set_message(size.to_string());
    };
    let shrunk = shrink(&bundle.plan, fingerprint, args.replays, &options, &desk.stop, &progress);
    bar.finish_and_clear();
    let shrunk = shrunk?;
    let beside = folder.parent().unwrap_or(Path::new("."));
    let written = bundle::write(&shrunk.outcome, beside, "-small")?;
    tell_small(desk, fingerprint, &shrunk, &written)?;
    Ok(shrunk.outcome.ruling)
}

fn tell_small(desk: &Desk, fingerprint: &str, shrunk: &Shrunk, written: &Path) -> Result<()> {
    let Shrunk { outcome, before, after, replays, cut_short, .. } = shrunk;
    if desk.json {
        let line = json!({
            "violation": fingerprint, "before": before, "after": after, "replays": replays,
            "cut_short": cut_short, "bundle": written, "run": outcome.line(),
        });
        println!("{line}");
        return Ok(());
    }
    println!("{before} -> {after}, in {replays} replays");
    match (cut_short, desk.stopped()) {
        (true, true) => println!("stopped: this is the smallest so far"),
        (true, false) => println!("the search ended with its replays: --replays gives it more"),
        (false, _) => {}
    }
    print!("{}", outcome.explain());
    println!("played twice, the same: cargo xtask sim replay {}", quoted(&written.display().to_string()));
    Ok(())
}

/// Shows where two histories part.
pub(super) fn diff(desk: &Desk, args: &Diff) -> Result<Ruling> {
    let Diff { left, right } = args;
    let (one, other) = (history(left)?, history(right)?);
    let difference = first_difference(&one, &other);
    if desk.json {
        let parted = difference.as_ref().map(|parted| {
            json!({"event": parted.index, "left": parted.left.first(), "right": parted.right.first()})
        });
        println!("{}", json!({"equal": parted.is_none(), "hash": one.hash(), "first_difference": parted}));
        return Ok(if parted.is_none() { Ruling::Holds } else { Ruling::Violated });
    }
    let Some(difference) = difference else {
        println!("equal, event by event: {}", one.hash());
        return Ok(Ruling::Holds);
    };
    let names = [left, right].map(|path| path.display().to_string());
    tell(&difference, &names[0], &names[1]);
    causes(&one, &difference.left, &names[0]);
    causes(&other, &difference.right, &names[1]);
    states(left, right, difference.index, desk.plants);
    Ok(Ruling::Violated)
}

/// Writes the bundles of failed runs, and says where.
pub(super) fn keep<'o>(failed: impl IntoIterator<Item = &'o Outcome>, folder: &Path) -> Vec<PathBuf> {
    let mut kept = Vec::new();
    for outcome in failed {
        match bundle::write(outcome, folder, "") {
            Ok(path) => kept.push(path),
            Err(error) => eprintln!("no bundle of seed {}: {error:#}", outcome.seed),
        }
    }
    kept
}

/// How the plan of a bundle is played: with the bug that was planted.
fn options(plan: &Plan, plants: Plants) -> Result<Options> {
    Ok(Options { hooks: plants.hooks(plan)?, ..Options::default() })
}

/// A bundle as far as it is used.
struct Opened {
    about: About,
    plan: Plan,
    /// None: the plan was made anew.
    history: Option<History>,
}

impl Chosen {
    pub(super) fn plan(&self, library: &Library) -> Result<Plan> {
        let Some(scenario) = &self.scenario else {
            let bundle = self.bundle.clone().unwrap_or_default();
            return Ok(Bundled { bundle, anew: self.anew }.open(library)?.plan);
        };
        let scenario = library.find(scenario)?;
        let mode = if self.swarm { Mode::Swarm } else { Mode::Story };
        let plan = Plan::new(&scenario, &hosts(&scenario.topology)?, self.seed, mode);
        Ok(Plan { planted: self.plant.clone(), ..plan })
    }
}

impl Bundled {
    fn open(&self, library: &Library) -> Result<Opened> {
        let opened = match self.anew {
            true => {
                let about = About::read(&self.bundle)?;
                Opened { plan: made_anew(&about, library)?, about, history: None }
            }
            false => {
                let Bundle { about, plan, history } = opened(&self.bundle)?;
                Opened { about, plan, history: Some(history) }
            }
        };
        let About { engine, reproduce, .. } = &opened.about;
        ensure!(engine == "fabric", "the bundle was made on {engine}; it is played there by: {reproduce}");
        Ok(opened)
    }
}

/// A bundle as it is; says so when another build made it.
pub(super) fn opened(folder: &Path) -> Result<Bundle> {
    let bundle = Bundle::read(folder)?;
    if let Some(other) = bundle.about.other_build() {
        eprintln!("another build: {other}");
        eprintln!("its plan is taken as it is; `replay --anew` makes it anew from scenario and seed");
    }
    Ok(bundle)
}

/// What scenario and seed make of the plan with this build.
fn made_anew(about: &About, library: &Library) -> Result<Plan> {
    let named = about.file.as_ref().map_or_else(|| about.scenario.clone(), |file| file.display().to_string());
    let scenario = library.find(&named)?;
    let mode = if about.swarm { Mode::Swarm } else { Mode::Story };
    let plan = Plan::new(&scenario, &hosts(&scenario.topology)?, about.seed, mode);
    Ok(Plan { planted: about.planted.clone(), ..plan })
}

/// What is the case on one side and not on the other where two runs part, if both can be played again here.
fn states(left: &Path, right: &Path, place: u64, plants: Plants) {
    let moment = |folder: &Path| {
        let bundle = Bundle::read(folder).ok().filter(|bundle| bundle.about.engine == "fabric")?;
        let mut session = Session::new(&bundle.plan, plants.hooks(&bundle.plan).ok()?).ok()?;
        (session.outcome().hash == bundle.about.hash).then(|| session.moment(place).ok())?
    };
    let (Some(one), Some(other)) = (moment(left), moment(right)) else { return };
    let found = changes(&one, &other, None);
    println!("  what is the case at #{place} on the right and not on the left: {} differences", found.len());
    found.iter().take(DIFFERENCES_TOLD).for_each(|change| println!("         {change}"));
}

/// Of a bundle's folder, or of a file.
fn history(path: &Path) -> Result<History> {
    let file = if path.is_dir() { path.join("history.jsonl") } else { path.to_owned() };
    bundle::history(&file)
}

fn tell(difference: &Difference, left: &str, right: &str) {
    println!("the first difference is event {}", difference.index);
    difference.before.iter().for_each(|event| println!("  both   {event}"));
    for (name, events) in [(left, &difference.left), (right, &difference.right)] {
        println!("  {name}:");
        match events.as_slice() {
            [] => println!("         ends here"),
            events => events.iter().for_each(|event| println!("         {event}")),
        }
    }
}

/// What led to the first event of a side.
fn causes(history: &History, side: &[fusion_history::Event], name: &str) {
    let mut cause = side.first().and_then(|event| event.cause);
    if cause.is_some() {
        println!("  what led to it in {name}:");
    }
    while let Some(event) = cause.and_then(|id| history.event(id)) {
        println!("         {event}");
        cause = event.cause;
    }
}
