//! Who wins the race of two 1:1 conversations (CNV-003), computed by the judges themselves.
//!
//! The services have their own computation; that both agree is part of what is judged.

use fusion_protocol::conversation::{PairKey, RULE};
use fusion_protocol::{ClusterName, UserRef};
use sha2::{Digest as _, Sha256};

/// The rank of a conversation among those of its pair: a big-endian number, the lower one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(pub [u8; 32]);

/// The key of a pair of people: SHA-256(a, 00, b), a < b by octets, each `address#incarnation`.
#[must_use]
pub fn pair_key(one: &UserRef, other: &UserRef) -> PairKey {
    let (one, other) = (one.octets(), other.octets());
    let (low, high) = if one < other { (one, other) } else { (other, one) };
    let mut hasher = Sha256::new();
    hasher.update(low);
    hasher.update([0]);
    hasher.update(high);
    PairKey(hasher.finalize().into())
}

/// The rank of the pair's conversation that lives in `home`: SHA-256(rule, 00, pair key, home's label).
#[must_use]
pub fn rank(pair: &PairKey, home: &ClusterName) -> Rank {
    let mut hasher = Sha256::new();
    hasher.update(RULE);
    hasher.update([0]);
    hasher.update(pair.0);
    hasher.update(home.as_str());
    Rank(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fusion_protocol::{Incarnation, Uuid};

    fn person(address: &str, incarnation: u128) -> UserRef {
        let user = address.parse().expect("an address");
        UserRef { user, incarnation: Incarnation(Uuid::from_u128(incarnation)) }
    }

    #[test]
    fn a_pair_has_no_order() {
        let (alice, bob) = (person("alice@acme.example", 1), person("bob@bravo.example", 2));
        assert_eq!(pair_key(&alice, &bob), pair_key(&bob, &alice));
        assert_ne!(pair_key(&alice, &bob), pair_key(&alice, &person("bob@bravo.example", 3)));
    }

    /// Computed apart from this code, by another program.
    #[test]
    fn key_and_rank_are_those_of_the_rule() {
        let pair = pair_key(&person("alice@acme.example", 1), &person("bob@bravo.example", 2));
        assert_eq!(pair.to_string(), "86d7d1212eb6661f5609a6350f2cca85fd5231699a23e4fff0ab7cf1513e4dba");
        let rank = rank(&pair, &"a".parse().expect("a name"));
        assert_eq!(
            PairKey(rank.0).to_string(),
            "b5dd4c8b16dfdb1a93c83c5ceba0b81e73e1d5bba8a4d30fd3861e6ac85e8761"
        );
    }
}
