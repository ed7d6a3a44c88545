//! The deterministic simulator: plans, networks, exploration.

pub mod fabric;
