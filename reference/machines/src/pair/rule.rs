//! By which rule the race of a pair is decided (CNV-003), and the literal alternatives to it (CNV-005).
//!
//! One rule ships. The others are what the source says word for word, or allows; they exist so that it can
//! be shown how they fail, and no program can be configured to use them: only a faulty deployment does.

use std::fmt;

use fusion_protocol::conversation::{PairKey, RULE};
use fusion_protocol::{ClusterName, Count, Url};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Contender;

/// How a race is decided, and what the decision is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// CNV-003, which ships: the rank of the home, bound for ever, slots never emptied.
    #[default]
    HomeRank,
    /// "The one that is lower": by the home's wall clock when it was made. Nothing is ever settled: a
    /// conversation with a lower stamp unseats any other, and a clock that is behind always wins.
    LowerTimestamp,
    /// "The one that is lower": by identifier. Nothing is ever settled, and whoever draws more often wins.
    LowerId {
        /// How many identifiers a home draws for one conversation; it takes the lowest.
        draws: u16,
    },
    /// As shipped, but whoever hides a conversation frees the pair for another one.
    EmptiedSlots,
}

/// How a conversation ranks in the race: lower wins. Depends on the pair and on the home cluster only, so
/// neither a clock nor a lucky identifier can win it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank([u8; 32]);

/// CNV-003: how a conversation of `pair` that lives in `home` ranks.
#[must_use]
pub fn rank(pair: &PairKey, home: &ClusterName) -> Rank {
    let digest = Sha256::new()
        .chain_update(RULE)
        .chain_update([0])
        .chain_update(pair.0)
        .chain_update(home.as_str())
        .finalize();
    Rank(digest.into())
}

impl Rule {
    /// Its name in a claim: two clusters that name different rules never seal.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HomeRank => RULE,
            Self::LowerTimestamp => "literal-timestamp",
            Self::LowerId { .. } => "literal-id",
            Self::EmptiedSlots => "literal-emptied",
        }
    }

    /// Whether it is the one that ships.
    #[must_use]
    pub fn is_shipped(&self) -> bool {
        *self == Self::HomeRank
    }

    /// Whether a bound conversation stays so.
    #[must_use]
    pub fn settles(self) -> bool {
        !matches!(self, Self::LowerTimestamp | Self::LowerId { .. })
    }

    /// Whether hiding a conversation frees its pair.
    #[must_use]
    pub fn empties(self) -> bool {
        self == Self::EmptiedSlots
    }

    /// How many identifiers are drawn for a new conversation.
    #[must_use]
    pub fn draws(self) -> u16 {
        match self {
            Self::LowerId { draws } => draws.max(1),
            Self::HomeRank | Self::LowerTimestamp | Self::EmptiedSlots => 1,
        }
    }

    /// What a conversation made now is stamped with, if anybody looks at it.
    #[must_use]
    pub fn stamp(self, wall_us: u64) -> Option<Count> {
        (self == Self::LowerTimestamp).then_some(Count(wall_us))
    }

    /// Whether `one` wins over `other`.
    #[must_use]
    pub fn prefers(self, pair: &PairKey, one: &Contender, other: &Contender) -> bool {
        match self {
            Self::HomeRank | Self::EmptiedSlots => rank(pair, &one.home) < rank(pair, &other.home),
            Self::LowerTimestamp => stamped(one) < stamped(other),
            Self::LowerId { .. } => identifier(&one.url) < identifier(&other.url),
        }
    }

    /// Whether an import may come from `loser`: by rank that is known of the home alone, and the literal
    /// rules do not ask.
    #[must_use]
    pub(super) fn beats_home(self, pair: &PairKey, own: &Contender, loser: &ClusterName) -> bool {
        !self.settles() || rank(pair, &own.home) < rank(pair, loser)
    }
}

/// A conversation without a stamp comes last.
fn stamped(contender: &Contender) -> (u64, &str) {
    (contender.made.map_or(u64::MAX, |made| made.0), contender.url.as_str())
}

fn identifier(url: &Url) -> &str {
    url.path().rsplit('/').next().unwrap_or_default()
}

impl fmt::Debug for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
pub(super) fn in_hex(pair: &PairKey, home: &ClusterName) -> String {
    PairKey(rank(pair, home).0).to_string()
}
