//! The services of a cluster, one module each, every one an axum router round a pure machine.
//!
//! A [`Cluster`] is what all of them share: its host, its configuration, its keys and its caches. State
//! is only in the store and the bus (OPS-003): any instance can be killed at any time.
//!
//! **Invariant:** a service never knows which engine it runs on, and nothing of histories or checks.

pub mod auth;
pub mod config;
pub mod context;
mod conversation;
mod index;
mod locks;
mod locus;
mod media;
mod mercury;
mod moves;
mod outbox;
pub mod peers;
mod provisioning;
pub mod reply;
pub mod router;
mod rows;
#[cfg(test)]
#[allow(dead_code, reason = "each concept's tests use what they need of it")]
mod testing;
mod users;

pub use config::{BorrowedRelay, ClusterConfig, IdentityProvider, Lender, OrgRole, PairRule};
pub use context::{Cluster, StartError};
