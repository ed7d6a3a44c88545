//! The deterministic simulator: plans, networks, exploration.
