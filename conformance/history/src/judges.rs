//! The judges, one file per area of SPEC.

mod mapping;

use crate::judge::Judge;

/// Every judge, in the order of SPEC's areas.
#[must_use]
pub fn judges() -> Vec<Box<dyn Judge>> {
    vec![Box::new(mapping::SameResolutionEverywhere)]
}
