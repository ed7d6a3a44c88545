//! Calls as devices and clusters see them, over HTTP on a network in memory, on paused time.

mod active;
mod calls;
mod media;
mod race;
