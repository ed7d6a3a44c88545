//! Where plans are played. Each engine is a [`crate::stage::Stage`] of another kind.

pub mod evidence;
pub mod fabric;
pub mod live;
#[cfg(not(madsim))]
pub mod turmoil;
