//! The detection score on the engines of this program.

use anyhow::{Result, bail};
use fusion_history::Ruling;

use super::desk::Desk;
use crate::compare::{Engine, common};
use crate::detect::{self, Arena, Args, On};
use crate::scenario::Scenario;

/// Hunts in `scenarios`; on turmoil, with no other faults than it can express.
pub(super) fn run(desk: &Desk, args: &Args, scenarios: Vec<Scenario>) -> Result<Ruling> {
    let (engine, scenarios) = match args.engine {
        None | Some(On::Fabric) => (Engine::Fabric, scenarios),
        Some(On::Turmoil) => (Engine::Turmoil, scenarios.iter().map(common).collect()),
        Some(On::Madsim) => bail!("madsim is in a program of its own: `cargo xtask sim` starts that one"),
    };
    let arena = Arena {
        engine: engine.name(),
        refusal: &|plan| engine.refusal(plan),
        judged: &|plan, hooks| engine.judged_or_failed(plan, hooks),
    };
    detect::run(args, (desk.plants, scenarios), arena, (desk.json, desk.jobs), &desk.stop)
}
