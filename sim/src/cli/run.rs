//! One run.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

use anstream::println;
use anyhow::{Context as _, Result, ensure};
use fusion_history::Ruling;

use super::desk::Desk;
use super::{Planted, Where, Which, compare};
use crate::compare::{Comparison, Engine};
use crate::library::Library;
use crate::narrate::narrate;
use crate::timeline;

/// Plays one scenario with one seed
///
/// Examples:
///   cargo xtask sim run one-to-one-race --seed 7 --tell
///   cargo xtask sim run glare --seed 3 --swarm --timeline glare.html
///   cargo xtask sim run race-under-partition --engine all
///
/// Exit codes: 0 all holds, 1 something is violated, 2 a wrong argument, or the
/// engine cannot express the plan, 3 something could not be judged.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    planted: Planted,
    /// Tells the story of the run, event by event
    #[arg(long)]
    tell: bool,
    /// Writes the history to a file, as JSON lines
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Writes the run as a page, complete in itself
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
    /// Where it is played. With `all`, on every engine that can express it, and what the judges say of
    /// each run is compared
    #[arg(long, value_enum, default_value_t = Where::Fabric)]
    engine: Where,
}

pub(super) fn run(desk: &Desk, args: &Args, library: &Library) -> Result<Ruling> {
    match args.engine {
        Where::Fabric => args.on(Engine::Fabric, desk, library),
        Where::Turmoil => args.on(Engine::Turmoil, desk, library),
        Where::Live => args.on(Engine::Live, desk, library),
        Where::All => args.everywhere(desk, library),
    }
}

impl Args {
    fn on(&self, engine: Engine, desk: &Desk, library: &Library) -> Result<Ruling> {
        let plan = self.planted.in_plan(self.which.plan(library, engine == Engine::Turmoil)?);
        let outcome = engine.judged(&plan, &desk.plants.hooks(&plan)?)?;
        if let Some(file) = &self.history {
            let unwritten = || format!("the history cannot be written to {}", file.display());
            let to = BufWriter::new(File::create(file).with_context(unwritten)?);
            outcome.history.write_lines(to).with_context(unwritten)?;
        }
        if let Some(file) = &self.timeline {
            std::fs::write(file, timeline::page(outcome.run()))
                .with_context(|| format!("the timeline cannot be written to {}", file.display()))?;
        }
        if self.tell {
            narrate(&outcome.history).for_each(|told| println!("{told}"));
        }
        desk.one(&outcome);
        Ok(outcome.ruling)
    }

    fn everywhere(&self, desk: &Desk, library: &Library) -> Result<Ruling> {
        let of_one = self.tell || self.history.is_some() || self.timeline.is_some();
        ensure!(!of_one, "--tell, --history and --timeline are about one run: name its engine");
        let plan = self.planted.in_plan(self.which.plan(library, true)?);
        let engines = [Engine::Fabric, Engine::Turmoil, Engine::Live];
        let comparison = Comparison::of(&plan, &engines, &desk.plants.hooks(&plan)?);
        Ok(compare::everywhere(desk, &comparison))
    }
}
