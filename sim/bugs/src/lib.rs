//! Planted bugs: deployments with one known thing wrong, by which the simulator is measured.
//!
//! Each is written from the specification alone, before reading the judge that should catch it. Half of
//! them are held out: nobody looks at them while judges are tuned.
//!
//! **Invariant:** no product binary depends on this crate.

use fusion_sim::plant::Plant;

/// Every bug.
pub const BUGS: &[Plant] = &[];
