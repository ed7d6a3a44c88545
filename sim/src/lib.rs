//! The deterministic simulator: scenarios, plans, engines, exploration.
//!
//! A scenario and a seed make a [`plan::Plan`]; an engine is a [`stage::Stage`] on which the plan is
//! played; everything observed becomes one history, which the judges of `fusion-history` read.

pub mod budget;
pub mod bundle;
pub mod capture;
#[cfg(not(madsim))]
pub mod cli;
#[cfg(not(madsim))]
pub mod compare;
pub mod coverage;
pub mod detect;
pub mod determinism;
mod duration;
pub mod engines;
pub mod expedition;
pub mod explore;
pub mod fabric;
#[cfg(madsim)]
pub mod fuzz;
pub mod generate;
pub mod library;
pub mod meter;
pub mod narrate;
pub mod outcome;
pub mod plan;
pub mod plant;
pub mod play;
mod progress;
pub mod scenario;
pub mod shard;
pub mod show;
pub mod shrink;
pub mod stage;
#[cfg(not(madsim))]
pub mod step;
pub mod stopwatch;
mod swarm;
mod target;
pub mod timeline;
pub mod unrest;
pub mod village;
mod workers;

pub use target::target_of;
