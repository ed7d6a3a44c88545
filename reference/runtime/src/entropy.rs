//! Randomness in named streams, so that one more draw somewhere does not reshuffle the world.

use std::sync::{Arc, Mutex, PoisonError};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A stream of randomness. Clones draw from the same stream; [`Entropy::stream`] makes an independent one.
#[derive(Clone)]
pub struct Entropy {
    seed: [u8; 32],
    generator: Arc<Mutex<ChaCha20Rng>>,
}

impl Entropy {
    /// The stream that `seed` determines.
    #[must_use]
    pub fn seeded(seed: [u8; 32]) -> Self {
        Self { seed, generator: Arc::new(Mutex::new(ChaCha20Rng::from_seed(seed))) }
    }

    /// The stream that a short seed determines: what a scenario's seed becomes.
    #[must_use]
    pub fn from_u64(seed: u64) -> Self {
        Self::seeded(Sha256::digest(seed.to_be_bytes()).into())
    }

    /// A stream seeded by the operating system.
    ///
    /// # Panics
    /// When the operating system has no randomness to give: no key may be made then.
    #[must_use]
    pub fn from_system() -> Self {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).expect("the operating system provides randomness");
        Self::seeded(seed)
    }

    /// The stream named `label` below this one. Depends on this stream's seed and on the label, not on
    /// what has been drawn.
    #[must_use]
    pub fn stream(&self, label: &str) -> Self {
        Self::seeded(Sha256::new().chain_update(self.seed).chain_update(label).finalize().into())
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.generator.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }

    /// A number, all 64 bits of it.
    #[must_use]
    pub fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    /// A number below `limit`; 0 when `limit` is 0.
    #[must_use]
    pub fn below(&self, limit: u64) -> u64 {
        // Multiply-shift: the bias is below 2^-64 times the limit, far under what a simulation can see.
        ((u128::from(self.u64()) * u128::from(limit)) >> 64) as u64
    }

    /// True with probability `p` (0 to 1).
    #[must_use]
    pub fn chance(&self, p: f64) -> bool {
        (self.u64() >> 11) as f64 / ((1_u64 << 53) as f64) < p
    }

    /// A version 4 UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn draw(entropy: &Entropy) -> Vec<u64> {
        (0..8).map(|_| entropy.u64()).collect()
    }

    #[test]
    fn a_seed_determines_its_stream() {
        assert_eq!(draw(&Entropy::from_u64(7)), draw(&Entropy::from_u64(7)));
        assert_ne!(draw(&Entropy::from_u64(7)), draw(&Entropy::from_u64(8)));
        assert_ne!(draw(&Entropy::from_system()), draw(&Entropy::from_system()));
    }

    #[test]
    fn one_more_draw_changes_no_other_stream() {
        let (quiet, busy) = (Entropy::from_u64(7), Entropy::from_u64(7));
        draw(&busy);
        draw(&busy.stream("link"));
        assert_eq!(draw(&quiet.stream("host")), draw(&busy.stream("host")));
    }

    #[test]
    fn streams_of_different_names_and_places_differ() {
        let root = Entropy::from_u64(7);
        let streams = [
            root.clone(),
            root.stream("a"),
            root.stream("b"),
            root.stream("a").stream("b"),
            root.stream("ab"),
        ];
        let first: BTreeSet<_> = streams.iter().map(draw).collect();
        assert_eq!(first.len(), streams.len());
    }

    #[test]
    fn clones_draw_from_one_stream() {
        let entropy = Entropy::from_u64(7);
        let together: Vec<_> = [entropy.clone(), entropy].iter().flat_map(draw).collect();
        let alone = Entropy::from_u64(7);
        assert_eq!(together, [draw(&alone), draw(&alone)].concat());
    }

    #[test]
    fn numbers_stay_below_their_limit_and_reach_it_evenly() {
        let entropy = Entropy::from_u64(7);
        let mut seen = [0; 6];
        (0..6_000).for_each(|_| seen[entropy.below(6) as usize] += 1);
        assert!(seen.iter().all(|times| (800..1_200).contains(times)), "{seen:?}");
        assert_eq!((entropy.below(0), entropy.below(1)), (0, 0));
        assert!((0..100).all(|_| !entropy.chance(0.0) && entropy.chance(1.0)));
    }

    #[test]
    fn a_uuid_says_that_it_is_random() {
        assert_eq!(Entropy::from_u64(7).uuid().get_version_num(), 4);
    }
}
