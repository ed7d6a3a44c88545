//! Remembers which calls were made, as long as their tokens hold.

use std::collections::{BTreeSet, VecDeque};

use sha2::{Digest as _, Sha256};

use super::tokens::LEEWAY_SECONDS;

/// How many calls are remembered. Beyond it the oldest is forgotten: the receiver's idempotency is what
/// makes a repeated call harmless (SEC-004), this only refuses most of them earlier.
const CALLS_MAX: usize = 1 << 17;

/// Half a SHA-256: nobody finds two calls with the same one.
type Mark = [u8; 16];

/// The calls of the last minute.
#[derive(Default)]
pub(super) struct Replays {
    seen: BTreeSet<Mark>,
    /// In order of arrival, with the second after which the token is refused by its age.
    order: VecDeque<(u64, Mark)>,
}

impl Replays {
    /// Whether `issuer` uses the id `jti` for the first time.
    pub(super) fn first(&mut self, issuer: &str, jti: &str, exp: u64, now: u64) -> bool {
        while self.order.front().is_some_and(|(end, _)| *end < now) || self.order.len() >= CALLS_MAX {
            let Some((_, mark)) = self.order.pop_front() else { break };
            self.seen.remove(&mark);
        }
        let mut mark = Mark::default();
        let digest = Sha256::new().chain_update(issuer).chain_update([0]).chain_update(jti).finalize();
        mark.copy_from_slice(&digest[..16]);
        let fresh = self.seen.insert(mark);
        if fresh {
            self.order.push_back((exp.saturating_add(LEEWAY_SECONDS), mark));
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_new_once_for_each_issuer() {
        let mut replays = Replays::default();
        assert!(replays.first("a", "1", 60, 0));
        assert!(!replays.first("a", "1", 60, 64));
        assert!(replays.first("b", "1", 60, 64));
    }

    #[test]
    fn a_call_is_forgotten_when_its_token_has_ended() {
        let mut replays = Replays::default();
        assert!(replays.first("a", "1", 60, 0));
        assert!(replays.first("a", "2", 160, 100));
        assert_eq!(replays.seen.len(), 1);
    }
}
