//! Faulty deployments: wrappers round the reference's services, never shipped with them.
//!
//! Each mutant is a deployment with one thing wrong. The catalogue of the suite names, for each, the check
//! that must fail and the code of the observation; any other failure counts as missed. With the mutant
//! switched off the same check is green.
//!
//! **Invariant:** no product binary depends on this crate.

mod conversation;
mod index;
mod privacy;
mod security;
pub mod self_test;
mod wrap;

use fusion_deployment::Hooks;

/// A faulty deployment.
#[derive(Clone, Copy)]
pub struct Mutant {
    /// Its name in the catalogue.
    pub name: &'static str,
    /// Makes it.
    pub hooks: fn() -> Hooks,
}

/// Every mutant, in the order of the catalogue.
pub const MUTANTS: [Mutant; 5] = [
    conversation::SECOND_ONE_TO_ONE,
    conversation::LOSER_DROPPED,
    privacy::ADDRESS_IN_PROVIDER_LOG,
    security::FOREIGN_TOKEN,
    index::NOT_WRITTEN,
];
