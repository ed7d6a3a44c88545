//! What is done with a run that failed: played again, made small, compared with another.

use std::path::{Path, PathBuf};

use crate::bundle::{self, Bundle};
use crate::engines::fabric::Options;
use crate::outcome::{Outcome, judged};
use crate::plan::Plan;
use crate::plant::Plants;
use crate::shrink::{Shrunk, Size, shrink};
use anstream::{eprintln, print, println};
use anyhow::{Context as _, Result, bail, ensure};
use fusion_history::{Difference, EventId, History, Ruling, first_difference};
use indicatif::ProgressBar;

/// Plays the plan of a bundle again; with `until`, tells what happens up to that event.
pub(crate) fn replay(folder: &Path, until: Option<u64>, json: bool, plants: Plants) -> Result<Ruling> {
    let bundle = opened(folder)?;
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
    match first_difference(&bundle.history, &outcome.history) {
        None => println!("the same history, event by event: {}", outcome.hash),
        Some(difference) => {
            println!("another history than the bundle's:");
            tell(&difference, "the bundle", "played now");
        }
    }
    println!("{}: {}", outcome.ruling, bundle.about.reproduce);
    print!("{}", outcome.explain());
    Ok(outcome.ruling)
}

/// Makes the plan of a bundle small, and writes a bundle of what is left beside it.
pub(crate) fn small(folder: &Path, violation: Option<&str>, replays: u32, plants: Plants) -> Result<Ruling> {
    let bundle = opened(folder)?;
    let shown = &bundle.about.violations;
    let fingerprint = match violation {
        Some(named) => named,
        None => shown.first().with_context(|| format!("{} shows no violation", folder.display()))?,
    };
    let bar = ProgressBar::new_spinner().with_prefix(fingerprint.to_owned());
    let progress = |size: Size| bar.set_message(size.to_string());
    let shrunk = shrink(&bundle.plan, fingerprint, replays, &options(&bundle.plan, plants)?, &progress);
    bar.finish_and_clear();
    let Shrunk { outcome, before, after, replays, cut_short, .. } = shrunk?;
    let beside = folder.parent().unwrap_or(Path::new("."));
    let written = bundle::write(&outcome, beside, "-small")?;
    println!("{before}\n  -> {after}, in {replays} replays");
    if cut_short {
        println!("the search ended with its replays: --replays gives it more");
    }
    print!("{}", outcome.explain());
    println!("bundle {}", written.display());
    Ok(outcome.ruling)
}

/// Shows where two histories part.
pub(crate) fn diff(left: &Path, right: &Path) -> Result<Ruling> {
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

pub(super) fn opened(folder: &Path) -> Result<Bundle> {
    let bundle = Bundle::read(folder)?;
    if let Some(other) = bundle.about.other_build() {
        eprintln!("another build: {other}");
        eprintln!("its plan is played as it is; to make it anew: {}", bundle.about.reproduce);
    }
    if bundle.about.engine != "fabric" {
        bail!(
            "the bundle was made on {}; it is played there by: {}",
            bundle.about.engine,
            bundle.about.reproduce
        );
    }
    Ok(bundle)
}

/// Of a bundle's folder, or of a file.
fn history(path: &Path) -> Result<History> {
    let file = if path.is_dir() { path.join("history.jsonl") } else { path.to_owned() };
    let opened = std::fs::File::open(&file).with_context(|| format!("cannot read {}", file.display()))?;
    History::read_lines(std::io::BufReader::new(opened)).with_context(|| file.display().to_string())
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
