//! Signatures that need no proof, because whoever made them lives in the same process.
//!
//! In a simulated world, what one machine signs another checks a moment later; that the signature holds
//! is known before it is computed. Computing it all the same was a seventh of what a simulated call costs.
//! The answer is the same: what nobody here has signed is unknown, and has to be proved.
//! Real machines share no memory: theirs knows nothing.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

/// How many signatures are remembered: each is looked for soon, or never.
const KEPT_MAX: usize = 4 << 10;

/// What is known of signatures. Clones know the same; the default never knows anything.
#[derive(Clone, Default)]
pub struct Proofs(Option<Arc<Mutex<Made>>>);

#[derive(Default)]
struct Made {
    marks: BTreeSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

impl Proofs {
    /// What machines of one process know together.
    #[must_use]
    pub fn of_one_process() -> Self {
        Self(Some(Arc::default()))
    }

    /// Notes that the key whose public half is `key` has made `signed`: a text with its signature.
    pub fn made(&self, key: &[u8], signed: &str) {
        let Some(made) = &self.0 else { return };
        let mark = mark(key, signed);
        let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.order.len() >= KEPT_MAX
            && let Some(oldest) = made.order.pop_front()
        {
            made.marks.remove(&oldest);
        }
        if made.marks.insert(mark) {
            made.order.push_back(mark);
        }
    }

    /// Whether `signed` is known to be of that key. False says nothing: then it has to be proved.
    #[must_use]
    pub fn knows(&self, key: &[u8], signed: &str) -> bool {
        let Some(made) = &self.0 else { return false };
        made.lock().unwrap_or_else(PoisonError::into_inner).marks.contains(&mark(key, signed))
    }
}

/// Key and text, so that no other pair has the same mark.
fn mark(key: &[u8], signed: &str) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update((key.len() as u64).to_le_bytes());
    digest.update(key);
    digest.update(signed);
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_known_with_its_key_and_its_text_only() {
        let proofs = Proofs::of_one_process();
        let of_another_machine = proofs.clone();
        proofs.made(b"key", "text.signature");
        assert!(of_another_machine.knows(b"key", "text.signature"));
        for (key, signed) in [("yek", "text.signature"), ("key", "text.signatura"), ("keyt", "ext.signature")]
        {
            assert!(!proofs.knows(key.as_bytes(), signed), "{key} {signed}");
        }
    }

    #[test]
    fn a_real_machine_knows_nothing() {
        let proofs = Proofs::default();
        proofs.made(b"key", "text.signature");
        assert!(!proofs.knows(b"key", "text.signature"));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let proofs = Proofs::of_one_process();
        for number in 0..=KEPT_MAX {
            proofs.made(b"key", &number.to_string());
        }
        let known = |number: usize| proofs.knows(b"key", &number.to_string());
        assert_eq!([0, 1, KEPT_MAX].map(known), [false, true, true]);
    }
}
