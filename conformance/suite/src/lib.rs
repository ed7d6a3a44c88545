//! Checks any deployment against the numbered requirements.
//!
//! A [`Target`] says which deployment and as whom; [`Device`] and [`Admin`] are clients that resolve and
//! speak by themselves.
//!
//! **Invariant:** this crate knows the wire (`fusion-protocol`), the seam (`fusion-runtime`) and the
//! history. It never names a machine, a service, a deployment or an engine: what it says of one
//! implementation it can say of any.

pub mod admin;
pub mod catalogue;
pub mod check;
pub mod checks;
mod crew;
pub mod device;
pub mod jws;
#[cfg(not(madsim))]
pub mod live;
pub mod report;
pub mod run;
mod stage;
pub mod target;
#[cfg(test)]
pub(crate) mod testing;
pub mod transcript;

pub use admin::Admin;
pub use device::{Device, Failure, Patience, Refused};
pub use report::Report;
pub use run::{Options, Progress, run, run_recorded};
pub use target::Target;
