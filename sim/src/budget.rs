//! How much a run may take before it is ended as one in which somebody spins.
//!
//! The defaults are some hundred times what any scenario of the library takes with any swarm: at most about
//! 500 events, 3,000 packets and 6,000 polls of tasks, of which fewer than 500 at one moment.

use serde::{Deserialize, Serialize};

use crate::fabric::Limits;
use crate::plan::Plan;
use crate::scenario::Act;

/// How often a packet of media is sent on, at most: to every other device of a large call, by two relays.
const PACKETS_PER_MEDIA_PACKET: u64 = 50;

/// How much a run may take. A plan says it only where it is another than the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Events of the history.
    pub events: u64,
    /// Packets sent, besides those that are talked.
    pub packets: u64,
    /// Polls of tasks in all.
    pub polls: u64,
    /// Polls of tasks while no simulated time passes.
    pub polls_at_once: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { events: 100_000, packets: 500_000, polls: 2_000_000, polls_at_once: 100_000 }
    }
}

impl Budget {
    /// The most that any of its numbers can be.
    pub const MAX: u64 = 1_000_000_000;

    /// Whether it is the default.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What the world of `plan` may do within it.
    #[must_use]
    pub fn limits(&self, plan: &Plan) -> Limits {
        let talked = plan.steps.iter().map(|step| match step.act {
            Act::Talk { packets, .. } => packets.saturating_mul(PACKETS_PER_MEDIA_PACKET),
            _ => 0,
        });
        let talked = talked.fold(0, u64::saturating_add);
        Limits {
            polls_at_once_max: Some(self.polls_at_once),
            polls_max: Some(self.polls.saturating_add(talked)),
            packets_max: Some(self.packets.saturating_add(talked)),
        }
    }
}
