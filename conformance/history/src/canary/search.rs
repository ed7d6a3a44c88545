//! Looks for many texts at once, whatever the case of their ASCII letters.
//!
//! After Wu and Manber: a window of [`WINDOW`] bytes moves over the text, and its last [`BLOCK`] say how far it
//! may move at once. Cheap to make, because each run makes one of its own. Not here: which texts.

use super::CANARY_MIN_BYTES;

/// How much of each text is looked at first: the shortest is as long.
const WINDOW: usize = CANARY_MIN_BYTES;
/// How many bytes decide how far the window moves.
const BLOCK: usize = 3;
/// Slots of the table of moves. Blocks that share one move as far as the most cautious of them.
const SLOTS: usize = 1 << 14;

/// Texts to look for.
#[derive(Debug)]
pub(super) struct Search {
    texts: Vec<Vec<u8>>,
    /// How far the window may move when its last bytes are these; 0 where a text may begin.
    moves: Vec<u8>,
    /// Each text's number, by its first bytes.
    begins: Vec<(u64, usize)>,
}

/// A text that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    /// Where it ends.
    pub(super) end: usize,
    /// Where it starts.
    pub(super) start: usize,
    /// Which text, by its number.
    pub(super) text: usize,
}

impl Search {
    /// Looks for `texts`, each of at least [`CANARY_MIN_BYTES`]; a shorter one is never found.
    pub(super) fn new(texts: Vec<Vec<u8>>) -> Self {
        let mut moves = vec![(WINDOW - BLOCK + 1) as u8; SLOTS];
        let mut begins = Vec::with_capacity(texts.len());
        for (number, text) in texts.iter().enumerate() {
            let Some(window) = text.first_chunk::<WINDOW>() else { continue };
            for (at, block) in window.windows(BLOCK).enumerate() {
                let slot = &mut moves[slot(block)];
                *slot = (*slot).min((WINDOW - BLOCK - at) as u8);
            }
            begins.push((key(window), number));
        }
        begins.sort_unstable();
        Self { texts, moves, begins }
    }

    /// The texts, by their numbers.
    pub(super) fn texts(&self) -> &[Vec<u8>] {
        &self.texts
    }

    /// Every place where a text is, by its end, then by its start.
    pub(super) fn find(&self, bytes: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        let mut start = 0;
        while let Some(window) = bytes.get(start..).and_then(|rest| rest.first_chunk::<WINDOW>()) {
            let further = self.moves[slot(&window[WINDOW - BLOCK..])];
            if further == 0 {
                found.extend(self.texts_at(bytes, start, key(window)));
            }
            start += usize::from(further).max(1);
        }
        found.sort_unstable();
        found
    }

    /// The texts that stand at `start`, of those that begin with `key`.
    fn texts_at(&self, bytes: &[u8], start: usize, key: u64) -> impl Iterator<Item = Found> {
        let first = self.begins.partition_point(|(begin, _)| *begin < key);
        let candidates = self.begins[first..].iter().take_while(move |(begin, _)| *begin == key);
        candidates.filter_map(move |&(_, text)| {
            let end = start + self.texts[text].len();
            let here = bytes.get(start..end)?.eq_ignore_ascii_case(&self.texts[text]);
            here.then_some(Found { end, start, text })
        })
    }
}

/// The first bytes of a text, their case forgotten.
fn key(window: &[u8; WINDOW]) -> u64 {
    window.iter().fold(0, |key, byte| key << 8 | u64::from(byte.to_ascii_lowercase()))
}

/// Where the table says how far to move behind `block`.
fn slot(block: &[u8]) -> usize {
    let number = block.iter().fold(0_u32, |number, byte| number << 8 | u32::from(byte.to_ascii_lowercase()));
    // Fibonacci hashing: the high bits of the product are well mixed.
    (number.wrapping_mul(0x9e37_79b1) >> (u32::BITS - SLOTS.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Every text at every place, one after the other.
    fn found_slowly(texts: &[Vec<u8>], bytes: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        for start in 0..bytes.len() {
            for (text, sought) in texts.iter().enumerate() {
                let end = start + sought.len();
                if bytes.get(start..end).is_some_and(|here| here.eq_ignore_ascii_case(sought)) {
                    found.push(Found { end, start, text });
                }
            }
        }
        found.sort_unstable();
        found
    }

    #[test]
    fn texts_that_overlap_contain_each_other_or_are_the_same_are_all_found() {
        let texts = ["abcabcabc", "ABCABC", "bcabca", "abcabc"].map(|text| text.as_bytes().to_vec());
        let found = Search::new(texts.to_vec()).find(b"xabcabcABCx");
        assert_eq!(found, found_slowly(&texts, b"xabcabcABCx"));
        assert_eq!(found.len(), 6);
    }

    proptest! {
        #[test]
        fn it_finds_what_looking_everywhere_finds(
            texts in vec("[abAB]{6,12}", 0..40),
            bytes in "[abABc]{0,400}",
        ) {
            let texts: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
            let search = Search::new(texts.clone());
            prop_assert_eq!(search.find(bytes.as_bytes()), found_slowly(&texts, bytes.as_bytes()));
        }

        #[test]
        fn it_finds_a_text_amid_any_bytes(
            text in vec(any::<u8>(), 6..40),
            before in vec(any::<u8>(), 0..40),
            after in vec(any::<u8>(), 0..40),
        ) {
            let bytes = [before.as_slice(), text.as_slice(), after.as_slice()].concat();
            let found = Search::new(vec![text.clone()]).find(&bytes);
            prop_assert_eq!(found, found_slowly(&[text], &bytes));
        }
    }
}
