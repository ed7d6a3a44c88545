//! One scenario with many seeds.

use std::path::PathBuf;

use anstream::eprintln;
use anyhow::{Result, bail, ensure};
use fusion_history::Ruling;

use super::desk::Desk;
use super::{Planted, Where, compare};
use crate::compare::{Batch as Plans, Engine, common};
use crate::engines::fabric::hosts;
use crate::explore::Batch;
use crate::library::Library;
use crate::plan::{Mode, Plan};
use crate::scenario::Scenario;
use crate::shard::{Results, Shard, Sweep};

/// Plays one scenario with many seeds and a swarm of faults
///
/// Each seed draws other faults, delays and optional steps, each fault bounded so
/// that everything can come to rest in the end. A run that does not hold leaves a
/// bundle, and the line that plays it again.
///
/// Examples:
///   cargo xtask sim sweep one-to-one-race --seeds 1000
///   cargo xtask sim sweep glare --seeds 200 --plant left-and-still-in
///   cargo xtask sim sweep glare --shard 0/4 --results 0.jsonl
///
/// Exit codes: 0 all hold, 1 something is violated, 2 a wrong argument, or the
/// engine cannot express the scenario, 3 something could not be judged, or it was
/// stopped.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// The scenario
    scenario: String,
    /// How many seeds
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = super::seeds)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1, value_name = "N")]
    from: u64,
    /// The story alone, without a swarm of faults
    #[arg(long, conflicts_with = "common")]
    story: bool,
    /// With a swarm of faults drawn from each seed, which is so unless the story alone is wanted: as for `run`
    #[arg(long = "swarm", conflicts_with = "story")]
    _swarm: bool,
    #[command(flatten)]
    planted: Planted,
    /// Only the seeds of which this is the remainder by N: one of N parts, 0/N to N-1/N
    #[arg(long, default_value_t = Shard::WHOLE, value_name = "I/N")]
    shard: Shard,
    /// Writes a line about each run to a file, for `merge`
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Draws only faults that every simulated engine can express. So it is with turmoil and all
    #[arg(long)]
    common: bool,
    /// Where it is played. With `all`, on fabric and on turmoil, and compared
    #[arg(long, value_enum, default_value_t = Where::Fabric)]
    engine: Where,
}

pub(super) fn run(desk: &Desk, args: &Args, library: &Library) -> Result<Ruling> {
    let Args { seeds, from, .. } = args;
    ensure!(from.checked_add(*seeds).is_some(), "there are no {seeds} seeds from {from} on");
    let scenario = library.find(&args.scenario)?;
    match args.engine {
        Where::Fabric if args.common => args.on(Engine::Fabric, desk, &common(&scenario)),
        Where::Fabric => args.on(Engine::Fabric, desk, &scenario),
        Where::Turmoil => args.on(Engine::Turmoil, desk, &common(&scenario)),
        Where::Live => bail!("real sockets take real time: play one seed with `run`"),
        Where::All => args.compared(desk, scenario),
    }
}

impl Args {
    /// Nothing is played when the engine cannot express what the scenario itself is about.
    fn on(&self, engine: Engine, desk: &Desk, scenario: &Scenario) -> Result<Ruling> {
        let mode = if self.story { Mode::Story } else { Mode::Swarm };
        let batch = desk.seeds(self.from, self.seeds, mode, self.planted.plant.clone());
        let batch = Batch { shard: self.shard, ..batch };
        let story = Plan::new(scenario, &hosts(&scenario.topology)?, batch.first, Mode::Story);
        if let Some(why) = engine.refusal(&story) {
            bail!(why);
        }
        let hooks = desk.hooks(batch.planted.as_deref())?;
        let sweep = Sweep::of(scenario, &batch, engine.name());
        let results = self.results.as_deref().map(|file| Results::begin(file, sweep, batch.shard));
        let results = results.transpose()?;
        let summary = desk.batch_on(engine, scenario, &batch, &hooks, &|outcome| {
            results.iter().for_each(|results| results.add(outcome));
        });
        desk.summary(&summary);
        desk.faults(&summary.faults, summary.runs);
        if desk.stopped() {
            eprintln!("stopped after {} of {} seeds", summary.runs, summary.asked);
        }
        results.map_or(Ok(()), Results::end)?;
        // What a part never reaches, another may.
        let is_empty = batch.shard.is_whole().then(|| desk.empty_victory(&summary, scenario));
        Ok(summary.ruling().max(is_empty.unwrap_or(Ruling::Holds)))
    }

    fn compared(&self, desk: &Desk, scenario: Scenario) -> Result<Ruling> {
        ensure!(!self.story, "every seed of a story is compared by `compare`");
        ensure!(self.planted.plant.is_none(), "a planted bug is swept on one engine: name it");
        let in_parts = !self.shard.is_whole() || self.results.is_some();
        ensure!(!in_parts, "shards and their results are of one engine: name it");
        let (scenarios, at_most) = (&[scenario], usize::MAX);
        let plans = Plans { scenarios, seeds: self.seeds, first: self.from, story: false, at_most };
        Ok(compare::all(desk, &plans, self.seeds))
    }
}
