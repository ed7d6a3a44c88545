//! Maps into which judges look for nearly every event: hashed by what is in the key, walked through in the
//! order of insertion.
//!
//! The order is the same in every process: the hash decides only where something is found. Where the order
//! of keys matters, a [`BTreeMap`](std::collections::BTreeMap) says so, or the table is sorted before it is
//! walked through.

use std::hash::{BuildHasherDefault, Hasher};

use indexmap::{IndexMap, IndexSet};

/// A map in the order of insertion.
pub type Table<K, V> = IndexMap<K, V, BuildHasherDefault<Folded>>;

/// A set in the order of insertion.
pub type Set<T> = IndexSet<T, BuildHasherDefault<Folded>>;

/// A hasher without a key of its own: eight bytes at a time, each folded in by a wide multiplication.
/// Whoever chooses the names in a history could make it slow, and nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Folded(u64);

/// An odd number without a pattern: the fractional part of the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Folded {
    fn fold(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word ^ GOLDEN) * u128::from(GOLDEN.rotate_left(23) | 1);
        self.0 = (wide as u64) ^ ((wide >> 64) as u64);
    }
}

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.fold(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.fold(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn write_u8(&mut self, number: u8) {
        self.fold(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.fold(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.fold(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.fold(number as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::hash::Hash as _;

    fn hash(text: &str) -> u64 {
        let mut folded = Folded::default();
        text.hash(&mut folded);
        folded.finish()
    }

    #[test]
    fn texts_that_differ_in_one_place_are_far_from_each_other() {
        let names = (0..20_000).map(|n| format!("https://a-chat.provider.example/conversations/{n:032x}"));
        let hashes: Vec<u64> = names.map(|name| hash(&name)).collect();
        // Where they are found first, and by which tag: both ends of the hash.
        let low: BTreeSet<u64> = hashes.iter().map(|hash| hash & 0x7fff).collect();
        let high: BTreeSet<u64> = hashes.iter().map(|hash| hash >> 49).collect();
        assert_eq!(hashes.iter().collect::<BTreeSet<_>>().len(), 20_000);
        // By chance 32768 (1 - e^(-20000/32768)) = 14970 of the 32768 places are taken.
        assert!((14_600..15_400).contains(&low.len()), "{}", low.len());
        assert!((14_600..15_400).contains(&high.len()), "{}", high.len());
    }

    #[test]
    fn lengths_and_borders_count() {
        assert_ne!(hash(""), hash("\0"));
        assert_ne!(hash("abcdefgh"), hash("abcdefgh\0"));
        let two = |one: &str, other: &str| {
            let mut folded = Folded::default();
            (one, other).hash(&mut folded);
            folded.finish()
        };
        assert_ne!(two("ab", "c"), two("a", "bc"));
    }

    #[test]
    fn a_table_is_walked_through_in_the_order_of_insertion() {
        let table: Table<&str, u32> = ["later", "earlier", "now"].into_iter().zip(0..).collect();
        assert_eq!(table.keys().copied().collect::<Vec<_>>(), ["later", "earlier", "now"]);
    }
}
