//! Races decided by the letter of the source (CNV-005).

use fusion_cluster::{ClusterConfig, PairRule};
use fusion_deployment::Hooks;
use std::sync::Arc;

use crate::Mutant;

/// How often the one cluster draws that wants to win.
const DRAWS: u16 = 64;

/// The lower timestamp wins, whosever clock made it, and unseats whatever was there.
pub(crate) const LOWER_TIMESTAMP: Mutant =
    Mutant { name: "rule-lower-timestamp", hooks: || everywhere(|_| PairRule::LowerTimestamp) };

/// The lower identifier wins, and one cluster draws until it has a low one.
pub(crate) const LOWER_ID: Mutant = Mutant {
    name: "rule-random-id",
    hooks: || {
        everywhere(|config| PairRule::LowerId { draws: if config.name.as_str() == "b" { DRAWS } else { 1 } })
    },
};

/// Whoever hides a conversation frees the pair.
pub(crate) const EMPTIED: Mutant =
    Mutant { name: "slots-can-be-emptied", hooks: || everywhere(|_| PairRule::EmptiedSlots) };

fn everywhere(rule: fn(&ClusterConfig) -> PairRule) -> Hooks {
    let configure = move |config: ClusterConfig| ClusterConfig { pair_rule: rule(&config), ..config };
    Hooks { configure: Some(Arc::new(configure)), ..Hooks::default() }
}
