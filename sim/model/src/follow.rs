//! Follows a history from a file, and tells how far.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;

use anstream::println;
use anyhow::{Context as _, Result, bail};
use fusion_history::History;
use fusion_model::path::{Projection, project};
use serde_json::json;

/// Follows each pair of the history in `path`.
///
/// # Errors
/// When the file cannot be read, is no history, or has no pair that the model can follow.
pub(crate) fn follow(path: &Path, json: bool) -> Result<ExitCode> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let history = History::read_lines(BufReader::new(file))
        .with_context(|| format!("{} is no history that `--history` wrote", path.display()))?;
    let pairs = project(history.events()).with_context(|| format!("{}", path.display()))?;
    let (mut followed, mut refused) = (0, 0);
    for pair in &pairs {
        match pair {
            Ok(projection) if tell(projection, json) => followed += 1,
            Ok(_) => refused += 1,
            Err(unfit) if json => println!("{}", json!({ "verdict": "unfit", "why": unfit.why })),
            Err(unfit) => println!("unfit     a pair: {unfit}"),
        }
    }
    if followed + refused == 0 {
        bail!(
            "{} has no pair to follow: the race of a 1:1 between two clusters, as in one-to-one-race",
            path.display()
        );
    }
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Tells whether and how a pair was followed.
fn tell(projection: &Projection, json: bool) -> bool {
    let (title, observed) = (&projection.title, projection.observed.len());
    let followed = projection.follow();
    match &followed {
        Ok(path) if json => {
            let steps = path.steps.iter();
            let steps =
                steps.map(|(step, at)| json!({ "step": step.to_string(), "event": at.map(|at| at.0) }));
            let steps: Vec<_> = steps.collect();
            println!("{}", json!({ "verdict": "holds", "pair": title, "observed": observed, "path": steps }));
        }
        Ok(path) => {
            println!("holds     {title}");
            println!("          {observed} observations, a path of {} steps in the model", path.steps.len());
            for (place, (step, at)) in path.steps.iter().enumerate() {
                let at = at.map_or_else(|| "hidden".to_owned(), |at| format!("event {}", at.0));
                println!("    {:>3}.  {at:<12} {step}", place + 1);
            }
        }
        Err(refused) if json => println!(
            "{}",
            json!({
                "verdict": "violated", "pair": title, "event": refused.at.0, "atUs": refused.at_us,
                "followed": refused.followed, "observed": refused.observed, "possible": refused.possible,
            })
        ),
        Err(refused) => {
            println!("violated  {title}");
            println!("          no path of the model: {refused}");
        }
    }
    followed.is_ok()
}
