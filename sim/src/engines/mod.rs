//! Where plans are played. Each engine is a [`crate::stage::Stage`] of another kind.

pub mod evidence;
pub mod fabric;
#[cfg(not(madsim))]
pub mod live;
#[cfg(madsim)]
pub mod madsim;
#[cfg(not(madsim))]
pub mod turmoil;
