//! Looks for private bytes where none may be (PRI-001), in whatever encoding they come.
//!
//! Each private text (a *canary*) is written in many encodings; one automaton looks for all of them at
//! once. Not found, and not claimed to be: text that is compressed, encrypted, cut into halves or
//! encoded in yet another way. Not responsible for which places are searched.

mod encodings;

use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use crate::event::{Sink, SinkHit};

/// A shorter text is no canary: it would be found by chance.
pub const CANARY_MIN_BYTES: usize = 6;
/// How many hits one search spells out.
pub const HITS_MAX: usize = 1_000;
/// How much of its surroundings a hit shows on each side.
const CONTEXT_BYTES: usize = 24;

/// Private texts to look for. Clones share the automaton.
#[derive(Clone, Debug)]
pub struct Canaries {
    inner: Arc<Inner>,
}

/// Looks for canaries in bytes that come in pieces.
#[derive(Debug)]
pub struct Scanner {
    canaries: Canaries,
    /// The end of what was fed, which the next piece may complete to a match.
    tail: Vec<u8>,
    searched_bytes: u64,
    hits: Vec<SinkHit>,
}

#[derive(Debug)]
struct Inner {
    labels: Vec<String>,
    too_short: Vec<String>,
    patterns: Vec<Pattern>,
    automaton: AhoCorasick,
    longest: usize,
}

/// A canary in one encoding.
#[derive(Debug)]
struct Pattern {
    label: usize,
    encoding: &'static str,
    bytes: Vec<u8>,
    /// Whether the case of letters matters, as in base64. The automaton ignores case.
    exact: bool,
}

impl Canaries {
    /// Canaries from labels and private texts: addresses, names, titles, messages. Of an address the
    /// local part alone is one too when it is long and nobody's role (`postmaster`). Texts shorter than
    /// [`CANARY_MIN_BYTES`] are left out: [`Canaries::too_short`].
    #[must_use]
    pub fn new<L: Into<String>, T: AsRef<str>>(things: impl IntoIterator<Item = (L, T)>) -> Self {
        let (mut labels, mut too_short, mut patterns) = (Vec::new(), Vec::new(), Vec::new());
        for (label, text) in things {
            if text.as_ref().len() < CANARY_MIN_BYTES {
                too_short.push(label.into());
                continue;
            }
            for (encoding, bytes) in encodings::of(text.as_ref()) {
                let exact = encodings::is_case_sensitive(encoding);
                patterns.push(Pattern { label: labels.len(), encoding, bytes, exact });
            }
            labels.push(label.into());
        }
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            // Made anew for each run, which has little to search: a DFA costs more than it saves.
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(patterns.iter().map(|pattern| &pattern.bytes))
            .expect("a run's canaries are far fewer than an automaton holds");
        let longest = patterns.iter().map(|pattern| pattern.bytes.len()).max().unwrap_or(0);
        Self { inner: Arc::new(Inner { labels, too_short, patterns, automaton, longest }) }
    }

    /// How many canaries are looked for, each in all encodings.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.inner.labels.len() as u64
    }

    /// The labels of texts that were left out because they are too short.
    #[must_use]
    pub fn too_short(&self) -> &[String] {
        &self.inner.too_short
    }

    /// Every canary in `bytes`, at most [`HITS_MAX`], by where it ends.
    #[must_use]
    pub fn scan(&self, bytes: &[u8]) -> Vec<SinkHit> {
        let mut hits = Vec::new();
        self.scan_from(bytes, 0, 0, &mut hits);
        hits
    }

    /// The search of a whole place, as an event's body.
    #[must_use]
    pub fn sink(&self, place: &str, bytes: &[u8]) -> Sink {
        let mut scanner = self.scanner();
        scanner.feed(bytes);
        scanner.finish(place)
    }

    /// Looks through bytes that come in pieces.
    #[must_use]
    pub fn scanner(&self) -> Scanner {
        Scanner { canaries: self.clone(), tail: Vec::new(), searched_bytes: 0, hits: Vec::new() }
    }

    /// Finds what ends after the first `known` bytes; `start` is the place of the first byte.
    fn scan_from(&self, bytes: &[u8], known: usize, start: u64, hits: &mut Vec<SinkHit>) {
        for found in self.inner.automaton.find_overlapping_iter(bytes) {
            let pattern = &self.inner.patterns[found.pattern().as_usize()];
            let as_written = !pattern.exact || bytes[found.range()] == pattern.bytes;
            if found.end() <= known || !as_written {
                continue;
            }
            if hits.len() == HITS_MAX {
                return;
            }
            hits.push(SinkHit {
                canary: self.inner.labels[pattern.label].clone(),
                encoding: pattern.encoding.to_owned(),
                offset: start + found.start() as u64,
                context: context(bytes, found.start(), found.end()),
            });
        }
    }
}

impl Scanner {
    /// The next piece. A canary that began in an earlier piece is found.
    pub fn feed(&mut self, piece: &[u8]) {
        let known = self.tail.len();
        let start = self.searched_bytes - known as u64;
        self.tail.extend_from_slice(piece);
        self.canaries.scan_from(&self.tail, known, start, &mut self.hits);
        self.searched_bytes += piece.len() as u64;
        let kept = self.canaries.inner.longest.saturating_sub(1).min(self.tail.len());
        self.tail.drain(..self.tail.len() - kept);
    }

    /// What was found so far.
    #[must_use]
    pub fn hits(&self) -> &[SinkHit] {
        &self.hits
    }

    /// The search as an event's body.
    #[must_use]
    pub fn finish(self, place: &str) -> Sink {
        let (searched_bytes, canaries) = (self.searched_bytes, self.canaries.count());
        Sink { place: place.to_owned(), searched_bytes, canaries, hits: self.hits }
    }
}

fn context(bytes: &[u8], start: usize, end: usize) -> String {
    let around = &bytes[start.saturating_sub(CONTEXT_BYTES)..bytes.len().min(end + CONTEXT_BYTES)];
    around.iter().map(|&byte| if matches!(byte, 0x20..=0x7e) { byte as char } else { '.' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use std::sync::LazyLock;

    const ADDRESS: &str = "Zoë.Quillfeather+x@Acmé.Example";

    fn canaries() -> &'static Canaries {
        static CANARIES: LazyLock<Canaries> =
            LazyLock::new(|| Canaries::new([("zoë", ADDRESS), ("title", "Merger with \"Bravo\"")]));
        &CANARIES
    }

    fn encodings_found(text: &[u8]) -> Vec<String> {
        canaries().scan(text).into_iter().map(|hit| hit.encoding).collect()
    }

    #[test]
    fn an_address_is_found_however_it_is_spelt() {
        let spellings: [(&str, &str); 7] = [
            ("plain", "user=Zoë.Quillfeather+x@Acmé.Example;"),
            ("canonical", "zoë.quillfeather+x@xn--acm-dma.example"),
            ("percent", "/users/zo%C3%AB.quillfeather%2Bx%40xn--acm-dma.example"),
            ("json", r#"{"user":"zo\u00eb.quillfeather+x@xn--acm-dma.example"}"#),
            ("hex", "7A6FC3AB2E7175696C6C666561746865722B78"),
            ("reversed", "elpmaxe.amd-mca--nx@x+rehtaeflliuq.ëoz"),
            ("local part", "hello zoë.quillfeather+x"),
        ];
        for (encoding, text) in spellings {
            let found = encodings_found(text.as_bytes());
            assert!(found.iter().any(|name| name == encoding), "{encoding}: {found:?}");
        }
    }

    #[test]
    fn a_hash_of_an_address_is_found() {
        // printf %s zoë.quillfeather+x@xn--acm-dma.example | sha256sum
        let hash = "b7000a7100f1d5dfa03519dc9de1747c06cc0f4f2e66a050c37da70791bf7386";
        assert_eq!(encodings_found(hash.as_bytes()), ["sha-256 in hex"]);
    }

    #[test]
    fn a_hit_says_what_where_and_amid_what() {
        let hit = &canaries().scan(b"....WARN title is Merger with \"Bravo\"\n")[0];
        let expected = SinkHit {
            canary: "title".into(),
            encoding: "plain".into(),
            offset: 18,
            context: "....WARN title is Merger with \"Bravo\".".into(),
        };
        assert_eq!(*hit, expected);
    }

    #[test]
    fn base64_of_other_case_is_other_text() {
        let text = encodings::of("quillfeather").into_iter().find(|(name, _)| *name == "base64");
        let text = text.expect("there is base64").1;
        let canaries = Canaries::new([("name", "quillfeather")]);
        assert_eq!(canaries.scan(&text).len(), 1);
        assert!(canaries.scan(&text.to_ascii_lowercase()).is_empty());
    }

    #[test]
    fn short_texts_are_no_canaries() {
        let canaries = Canaries::new([("greeting", "hi"), ("text", "hello Bob")]);
        assert_eq!((canaries.count(), canaries.too_short()), (1, &["greeting".to_owned()][..]));
        assert!(canaries.scan(b"hi hi hi").is_empty());
    }

    #[test]
    fn without_canaries_nothing_is_found() {
        let sink = Canaries::new(Vec::<(String, String)>::new()).sink("log", b"anything");
        assert_eq!((sink.searched_bytes, sink.canaries, sink.hits.len()), (8, 0, 0));
    }

    proptest! {
        #[test]
        fn every_encoding_is_found_amid_noise_and_across_pieces(
            which in any::<Index>(),
            before in vec(any::<u8>(), 0..300),
            after in vec(any::<u8>(), 0..300),
            cuts in vec(any::<Index>(), 0..8),
        ) {
            let all: Vec<(&str, Vec<u8>)> = encodings::of(ADDRESS);
            let (encoding, written) = which.get(&all);
            let text = [before.as_slice(), written.as_slice(), after.as_slice()].concat();
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            places.extend([0, text.len()]);
            places.sort_unstable();
            let mut scanner = canaries().scanner();
            places.windows(2).for_each(|cut| scanner.feed(&text[cut[0]..cut[1]]));
            let sink = scanner.finish("wire");
            let here = before.len() as u64;
            prop_assert!(sink.hits.iter().any(|hit| hit.encoding == *encoding && hit.offset == here));
            prop_assert_eq!(sink.searched_bytes, text.len() as u64);
            let mut whole: Vec<u64> = canaries().scan(&text).iter().map(|hit| hit.offset).collect();
            let mut pieces: Vec<u64> = sink.hits.iter().map(|hit| hit.offset).collect();
            whole.sort_unstable();
            pieces.sort_unstable();
            prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn noise_alone_is_nothing(noise in vec(any::<u8>(), 0..4_000), text in "[ -~]{0,400}") {
            prop_assert!(canaries().scan(&noise).is_empty());
            prop_assert!(canaries().scan(text.as_bytes()).is_empty());
        }
    }
}
