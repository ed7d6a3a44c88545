//! The seam: everything a service may ask of the world.
//!
//! A service receives a [`Host`] and nothing else: network, tasks, time, entropy, store, bus,
//! probe and proofs. It cannot know whether the world behind it is real or simulated.
//!
//! **Invariant:** nobody outside this crate names `tokio::net`, `tokio::spawn`, `tokio::time`, a wall
//! clock or an ambient generator. Lints enforce it.
//!
//! Not here: what services decide (`fusion-machines`), what is said (`fusion-protocol`), and anything
//! about simulated networks or histories.

pub mod bus;
pub mod clock;
pub mod entropy;
mod executor;
pub mod host;
pub mod http;
mod latch;
pub mod net;
pub mod probe;
pub mod proofs;
pub mod store;
pub mod tasks;
#[cfg(not(madsim))]
pub mod tls;
pub mod ws;

pub use bus::Bus;
pub use clock::{Clock, Timestamp};
pub use entropy::Entropy;
pub use host::Host;
pub use latch::Latch;
pub use net::Net;
pub use probe::Probe;
pub use proofs::Proofs;
pub use store::Store;
pub use tasks::Tasks;
