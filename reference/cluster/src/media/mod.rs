//! Media legs from relays (MED): which relay is taken, and what is asked of it.
//!
//! All legs of a call are at one relay, which every device reaches by itself: relays have nothing to tell
//! each other, so there is no partition between two of them to be bridged by a third (MED-004).
//!
//! Not here: which relay carries a call and when it is given up (the locus), and what a relay does with
//! packets.

mod choice;
mod control;

pub(crate) use choice::{Bounds, all, bounds, candidates, first_choice, next_choice};
pub(crate) use control::{Heart, close_instance, close_leg, listen, open_leg};
