//! What is done with a run that failed: played again, made small, compared with another.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

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
use indicatif::ProgressBar;

/// How many differences between two states are told.
const DIFFERENCES_TOLD: usize = 10;

/// Which bundle, and which plan of it.
#[derive(clap::Args)]
pub(crate) struct Bundled {
    /// The bundle's folder
    pub(super) bundle: PathBuf,
    /// Makes the plan anew from the bundle's scenario and seed, as this build does; for a bundle of another
    /// build, or a damaged one
    #[arg(long)]
    pub(super) anew: bool,
}

/// Plays the plan of a bundle again; with `until`, tells what happens up to that event.
pub(crate) fn replay(
    bundled: &Bundled,
    until: Option<u64>,
    library: &Library,
    json: bool,
    plants: Plants,
) -> Result<Ruling> {
    let bundle = bundled.open(library)?;
    let outcome = judged(&bundle.plan, &options(&bundle.plan, plants)?);
    if json {
        println!("{}", serde_json::to_string(&outcome.line())?);
        return Ok(outcome.ruling);
    }
    if let Some(until) = until {
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
    println!("{}: {}", outcome.ruling, bundle.about.reproduce);
    print!("{}", outcome.explain());
    Ok(outcome.ruling)
}

/// Makes the plan of a bundle small, and writes a bundle of what is left beside it.
pub(crate) fn small(
    bundled: &Bundled,
    violation: Option<&str>,
    replays: u32,
    library: &Library,
    plants: Plants,
    stop: &AtomicBool,
) -> Result<Ruling> {
    let folder = &bundled.bundle;
    let bundle = bundled.open(library)?;
    let shown = &bundle.about.violations;
    let fingerprint = match violation {
        Some(named) => named,
        None => shown.first().with_context(|| format!("{} shows no violation", folder.display()))?,
    };
    let bar = ProgressBar::new_spinner().with_prefix(fingerprint.to_owned());
    let progress = |size: Size| bar.set_message(size.to_string());
    let options = options(&bundle.plan, plants)?;
    let shrunk = shrink(&bundle.plan, fingerprint, replays, &options, stop, &progress);
    bar.finish_and_clear();
    let Shrunk { outcome, before, after, replays, cut_short, .. } = shrunk?;
    let beside = folder.parent().unwrap_or(Path::new("."));
    let written = bundle::write(&outcome, beside, "-small")?;
    println!("{before} -> {after}, in {replays} replays");
    match (cut_short, stop.load(Ordering::Relaxed)) {
        (true, true) => println!("stopped: this is the smallest so far"),
        (true, false) => println!("the search ended with its replays: --replays gives it more"),
        (false, _) => {}
    }
    print!("{}", outcome.explain());
    println!("played twice, the same: cargo xtask sim replay {}", quoted(&written.display().to_string()));
    Ok(outcome.ruling)
}

/// Shows where two histories part.
pub(crate) fn diff(left: &Path, right: &Path, plants: Plants) -> Result<Ruling> {
    let (one, other) = (history(left)?, history(right)?);
    match first_difference(&one, &other) {
        None => {
            println!("equal, event by event: {}", one.hash());
            Ok(Ruling::Holds)
        }
        Some(difference) => {
            tell(&difference, &left.display().to_string(), &right.display().to_string());
            causes(&one, &difference.left, &left.display().to_string());
            causes(&other, &difference.right, &right.display().to_string());
            states(left, right, difference.index, plants);
            Ok(Ruling::Violated)
        }
    }
}

/// Writes the bundles of failed runs, and says where.
pub(crate) fn keep<'o>(failed: impl IntoIterator<Item = &'o Outcome>, folder: &Path) -> Vec<PathBuf> {
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
pub(super) struct Opened {
    pub(super) about: About,
    pub(super) plan: Plan,
    /// None: the plan was made anew.
    history: Option<History>,
}

impl Bundled {
    pub(super) fn open(&self, library: &Library) -> Result<Opened> {
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
