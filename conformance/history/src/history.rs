//! One append-only stream of events, its hash chain, and the first difference between two of them.
//!
//! The chain is the proof of determinism: the same plan gives the same [`History::hash`] in two runs and
//! in two processes. Not responsible for what the events mean ([`crate::judge`]).

use std::fmt;
use std::io::{self, BufRead, Write};
use std::ops::Range;
use std::sync::OnceLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::event::{Body, Event, EventId};

/// The label that every chain starts from. Another form of events gets another label.
pub const FORMAT: &str = "stack-fusion-history/1";
/// The longest line that is read: a page of 200 activities of 16 KiB, twice over.
pub const LINE_MAX_BYTES: usize = 8 << 20;
/// How many events are read at most.
pub const EVENTS_MAX: u64 = 50_000_000;
/// After how many events the chain is noted, so that two histories can be bisected.
pub const CHECKPOINT_EVERY: u64 = 1_024;
/// How many events a [`Difference`] shows before and after.
const CONTEXT_EVENTS: usize = 3;

/// Everything observed in a run, in order.
#[derive(Clone, Debug, Default)]
pub struct History {
    events: Vec<Event>,
    beyond_budget: u64,
    chain: OnceLock<Chain>,
}

/// The chain of a history at regular places: small enough to be handed from one process to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoints {
    /// How many events there are.
    pub events: u64,
    /// The chain at the end, in hexadecimal.
    pub hash: String,
    /// The chain after each [`CHECKPOINT_EVERY`] events, in hexadecimal.
    pub chain: Vec<String>,
}

/// Where two histories part.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The place of the first event that differs, from 0.
    pub index: u64,
    /// The events just before it, equal on both sides.
    pub before: Vec<Event>,
    /// The left side from there on; empty where the left history ends.
    pub left: Vec<Event>,
    /// The right side from there on; empty where the right history ends.
    pub right: Vec<Event>,
}

/// Why lines are no history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A line is not what was expected.
    #[error("line {line}, column {column} (offset {offset}): {problem}")]
    Line {
        /// Which, from 1.
        line: u64,
        /// The octet of the line, from 1.
        column: u64,
        /// The octet of the whole, from 0.
        offset: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The lines could not be read.
    #[error("the history could not be read: {0}")]
    Io(#[from] io::Error),
}

/// The first line of a written history.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    format: String,
    events: u64,
    #[serde(default)]
    beyond_budget: u64,
    hash: String,
}

#[derive(Clone, Debug)]
struct Chain {
    head: [u8; 32],
    checkpoints: Vec<[u8; 32]>,
    length: u64,
}

impl History {
    /// An empty history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an event and gives it its place. `at` is the time since the run began.
    pub fn append(&mut self, at: Duration, host: &str, cause: Option<EventId>, body: Body) -> EventId {
        let id = EventId(self.events.len() as u64);
        let at_us = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        self.chain = OnceLock::new();
        self.events.push(Event { id, at_us, host: host.to_owned(), cause, body });
        id
    }

    /// The events, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The event at a place.
    #[must_use]
    pub fn event(&self, id: EventId) -> Option<&Event> {
        self.events.get(usize::try_from(id.0).ok()?)
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing was observed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// How many events were observed beyond the recorder's budget, and not kept.
    #[must_use]
    pub fn beyond_budget(&self) -> u64 {
        self.beyond_budget
    }

    /// The head of the chain, in hexadecimal: `chain_0` = SHA-256([`FORMAT`]), `chain_n` =
    /// SHA-256(`chain_{n-1}`, length of the event's bytes as 8 octets big-endian, the bytes). Computed
    /// when first asked for.
    #[must_use]
    pub fn hash(&self) -> String {
        hex(&self.chain().head)
    }

    /// The chain at regular places.
    #[must_use]
    pub fn checkpoints(&self) -> Checkpoints {
        let chain = self.chain();
        Checkpoints {
            events: chain.length,
            hash: hex(&chain.head),
            chain: chain.checkpoints.iter().map(hex).collect(),
        }
    }

    /// The history as JSON lines: a header, then one event a line.
    #[must_use]
    pub fn to_lines(&self) -> String {
        let mut lines = Vec::new();
        self.write_lines(&mut lines).expect("writing into memory does not fail");
        String::from_utf8(lines).expect("JSON is UTF-8")
    }

    /// Writes what [`History::to_lines`] answers.
    ///
    /// # Errors
    /// What the writer fails with.
    pub fn write_lines(&self, mut to: impl Write) -> io::Result<()> {
        let header = Header {
            format: FORMAT.to_owned(),
            events: self.events.len() as u64,
            beyond_budget: self.beyond_budget,
            hash: self.hash(),
        };
        serde_json::to_writer(&mut to, &header)?;
        to.write_all(b"\n")?;
        let mut bytes = Vec::new();
        for event in &self.events {
            canonical(event, &mut bytes);
            bytes.push(b'\n');
            to.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Reads what [`History::to_lines`] wrote.
    ///
    /// # Errors
    /// [`HistoryError::Line`] for a line that is cut, changed, out of place, too long or no event.
    pub fn from_lines(lines: &str) -> Result<Self, HistoryError> {
        Self::read_lines(lines.as_bytes())
    }

    /// Reads what [`History::write_lines`] wrote; a line longer than [`LINE_MAX_BYTES`] is not taken into
    /// memory.
    ///
    /// # Errors
    /// As [`History::from_lines`], and [`HistoryError::Io`].
    pub fn read_lines(mut from: impl BufRead) -> Result<Self, HistoryError> {
        let mut lines = Lines { from: &mut from, line: 0, start: 0, length: 0, bytes: Vec::new() };
        let header: Header = match lines.next()? {
            true => lines.parse("the header of a history")?,
            false => return Err(lines.wrong("there is nothing; expected the header of a history".to_owned())),
        };
        if header.format != FORMAT {
            return Err(lines.wrong(format!("the format is {:?}; expected {FORMAT:?}", header.format)));
        }
        let mut events = Vec::new();
        let mut chain = Chain::start();
        while lines.next()? {
            let event: Event = lines.parse("an event")?;
            if event.id.0 != chain.length {
                let problem = format!("event {} stands where event {} is due", event.id.0, chain.length);
                return Err(lines.wrong(problem));
            }
            if chain.length == EVENTS_MAX {
                return Err(lines.wrong(format!("there are more than {EVENTS_MAX} events")));
            }
            chain.extend(&lines.bytes);
            events.push(event);
        }
        if chain.length != header.events {
            let problem = format!("the history ends after {} of {} events", chain.length, header.events);
            return Err(lines.wrong(problem));
        }
        if hex(&chain.head) != header.hash {
            let problem = "the events are not those that the header's hash was made of".to_owned();
            return Err(HistoryError::Line { line: 1, column: 1, offset: 0, problem });
        }
        Ok(Self { events, beyond_budget: header.beyond_budget, chain: OnceLock::from(chain) })
    }

    pub(crate) fn of(events: Vec<Event>, beyond_budget: u64) -> Self {
        Self { events, beyond_budget, chain: OnceLock::new() }
    }

    fn chain(&self) -> &Chain {
        self.chain.get_or_init(|| {
            let mut chain = Chain::start();
            let mut bytes = Vec::new();
            for event in &self.events {
                canonical(event, &mut bytes);
                chain.extend(&bytes);
            }
            chain
        })
    }
}

impl PartialEq for History {
    /// Equal event by event, to the byte.
    fn eq(&self, other: &Self) -> bool {
        self.beyond_budget == other.beyond_budget && self.chain().head == other.chain().head
    }
}

impl Checkpoints {
    /// The places among which the first difference lies; `None` when there is none.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<Range<u64>> {
        if (self.events, &self.hash) == (other.events, &other.hash) {
            return None;
        }
        let shared = self.chain.len().min(other.chain.len());
        // Once two chains part they never meet again, so the shared prefix can be searched by halves.
        let indexes: Vec<usize> = (0..shared).collect();
        let equal = indexes.partition_point(|&at| self.chain[at] == other.chain[at]) as u64;
        let end = ((equal + 1) * CHECKPOINT_EVERY).min(self.events.max(other.events));
        Some(equal * CHECKPOINT_EVERY..end)
    }
}

/// Where `left` and `right` part; `None` when they are equal to the byte.
#[must_use]
pub fn first_difference(left: &History, right: &History) -> Option<Difference> {
    let range = left.checkpoints().first_difference(&right.checkpoints())?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let same = |at: &u64| {
        let pair = (left.event(EventId(*at)), right.event(EventId(*at)));
        let (Some(one), Some(other)) = pair else { return false };
        canonical(one, &mut ours);
        canonical(other, &mut theirs);
        ours == theirs
    };
    let start = range.start;
    let index = start + range.take_while(same).count() as u64;
    let from = |history: &History, at: usize| {
        let end = history.len().min(at + 1 + CONTEXT_EVENTS);
        history.events.get(at..end).map(<[Event]>::to_vec).unwrap_or_default()
    };
    let at = usize::try_from(index).unwrap_or(usize::MAX);
    Some(Difference {
        index,
        before: left.events[at.saturating_sub(CONTEXT_EVENTS)..at].to_vec(),
        left: from(left, at),
        right: from(right, at),
    })
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the first difference is at event {}", self.index)?;
        self.before.iter().try_for_each(|event| write_line(f, "  both ", event))?;
        for (name, events) in [("< left ", &self.left), ("> right", &self.right)] {
            if events.is_empty() {
                writeln!(f, "{name} (ends here)")?;
            }
            events.iter().try_for_each(|event| write_line(f, name, event))?;
        }
        Ok(())
    }
}

impl Chain {
    fn start() -> Self {
        Self { head: Sha256::digest(FORMAT).into(), checkpoints: Vec::new(), length: 0 }
    }

    fn extend(&mut self, bytes: &[u8]) {
        let mut hasher = Sha256::new();
        hasher.update(self.head);
        hasher.update((bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
        self.head = hasher.finalize().into();
        self.length += 1;
        if self.length.is_multiple_of(CHECKPOINT_EVERY) {
            self.checkpoints.push(self.head);
        }
    }
}

/// Reads line by line within a limit.
struct Lines<'a, R> {
    from: &'a mut R,
    line: u64,
    /// Where the line begins, and how long it is with its end.
    start: u64,
    length: u64,
    bytes: Vec<u8>,
}

impl<R: BufRead> Lines<'_, R> {
    /// Goes on to the next line; whether there is one.
    fn next(&mut self) -> Result<bool, HistoryError> {
        self.bytes.clear();
        self.line += 1;
        self.start += self.length;
        let limit = LINE_MAX_BYTES as u64 + 1;
        let read = io::Read::take(&mut *self.from, limit).read_until(b'\n', &mut self.bytes)?;
        self.length = read as u64;
        if read == 0 {
            return Ok(false);
        }
        if self.bytes.last() == Some(&b'\n') {
            self.bytes.pop();
        } else if read as u64 == limit {
            return Err(self.wrong(format!("the line is longer than {LINE_MAX_BYTES} bytes")));
        }
        Ok(true)
    }

    /// The line as `what`.
    fn parse<T: serde::de::DeserializeOwned>(&self, what: &str) -> Result<T, HistoryError> {
        serde_json::from_slice(&self.bytes).map_err(|error| {
            let told = error.to_string();
            // The place is told once, as one of the whole.
            let told = told.rsplit_once(" at line ").map_or(told.as_str(), |(told, _)| told);
            self.wrong_at(error.column().max(1) as u64, format!("this is not {what}: {told}"))
        })
    }

    fn wrong(&self, problem: String) -> HistoryError {
        self.wrong_at(1, problem)
    }

    fn wrong_at(&self, column: u64, problem: String) -> HistoryError {
        HistoryError::Line { line: self.line, column, offset: self.start + column - 1, problem }
    }
}

/// The bytes that are hashed: compact JSON, members in the order of declaration.
fn canonical(event: &Event, into: &mut Vec<u8>) {
    into.clear();
    serde_json::to_writer(into, event).expect("events have only text keys and finite numbers");
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_line(f: &mut fmt::Formatter<'_>, side: &str, event: &Event) -> fmt::Result {
    let mut bytes = Vec::new();
    canonical(event, &mut bytes);
    writeln!(f, "{side} {}", String::from_utf8_lossy(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Phase;

    fn history(events: u64) -> History {
        let mut history = History::new();
        for n in 0..events {
            history.append(Duration::from_millis(n), "a", None, log(n));
        }
        history
    }

    fn log(n: u64) -> Body {
        Body::Log { level: "info".into(), target: "test".into(), fields: serde_json::json!({ "n": n }) }
    }

    #[test]
    fn the_chain_is_what_its_definition_says() {
        let one = history(1);
        let line = one.to_lines().lines().nth(1).expect("one event").to_owned();
        let mut hasher = Sha256::new();
        hasher.update(Sha256::digest(FORMAT));
        hasher.update((line.len() as u64).to_be_bytes());
        hasher.update(line);
        assert_eq!(one.hash(), hex(&hasher.finalize().into()));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let written = history(3_000);
        let read = History::from_lines(&written.to_lines()).expect("a history");
        assert_eq!(read, written);
        assert_eq!(read.events(), written.events());
        assert_eq!(read.checkpoints(), written.checkpoints());
    }

    #[test]
    fn one_more_event_gives_another_hash() {
        let mut grown = history(3);
        let before = grown.hash();
        grown.append(Duration::ZERO, "a", None, Body::Phase { phase: Phase::End });
        assert_ne!(grown.hash(), before);
    }

    #[test]
    fn corrupt_lines_are_named_by_their_place() {
        let lines = history(4).to_lines();
        let problem = |text: &str| History::from_lines(text).expect_err("corrupt").to_string();
        let line_4 = lines.match_indices('\n').nth(2).expect("a line for each event").0 + 1;
        let second = |told: &str| format!("line 4, column 1 (offset {line_4}): {told}");
        assert!(problem("").starts_with("line 1, column 1 (offset 0): there is nothing"));
        assert!(problem("{}").starts_with("line 1, column 2 (offset 1): this is not the header"));
        assert!(
            problem(&lines.replace("/1", "/9")).starts_with("line 1, column 1 (offset 0): the format is")
        );
        assert!(problem(&lines.replace("\"id\":2", "\"id\":7")).starts_with(&second("event 7 stands")));
        assert!(problem(&lines.replace("\"n\":2", "\"n\":8")).contains("(offset 0): the events are not"));
        let cut: Vec<&str> = lines.lines().take(3).collect();
        let cut = cut.join("\n");
        let end = format!("line 4, column 1 (offset {}): the history ends after 2 of 4 events", cut.len());
        assert_eq!(problem(&cut), end);

        let broken = lines.replace("\"n\":2", "\"n\":");
        let at = broken.find("\"n\":}").expect("it was broken") + "\"n\":".len();
        let place = format!("line 4, column {} (offset {at}): this is not an event", at - line_4 + 1);
        assert!(problem(&broken).starts_with(&place), "{}", problem(&broken));
    }

    #[test]
    fn the_first_difference_is_found_and_shown_from_both_sides() {
        let left = history(5_000);
        let mut right = history(4_000);
        right.append(Duration::from_secs(9), "b", None, log(4_000));
        let difference = first_difference(&left, &right).expect("they differ");
        assert_eq!((difference.index, difference.before.len()), (4_000, 3));
        assert_eq!((difference.left.len(), difference.right.len()), (4, 1));
        insta::assert_snapshot!(difference);
        assert!(first_difference(&left, &history(5_000)).is_none());
    }

    #[test]
    fn a_history_that_merely_ends_earlier_differs_at_its_end() {
        let difference = first_difference(&history(2_048), &history(2_050)).expect("they differ");
        assert_eq!(difference.index, 2_048);
        assert!(difference.left.is_empty());
        assert!(difference.to_string().contains("< left  (ends here)"));
    }

    #[test]
    fn checkpoints_alone_bisect_to_one_stretch() {
        let range = history(5_000).checkpoints().first_difference(&history(4_000).checkpoints());
        assert_eq!(range, Some(3_072..4_096));
    }

    #[test]
    fn members_in_another_order_are_a_difference() {
        let with = |fields| {
            let mut history = History::new();
            let body = Body::Log { level: "info".into(), target: "t".into(), fields };
            history.append(Duration::ZERO, "a", None, body);
            history
        };
        let one = with(serde_json::json!({"a": 1, "b": 2}));
        let other = with(serde_json::json!({"b": 2, "a": 1}));
        assert_eq!(first_difference(&one, &other).map(|difference| difference.index), Some(0));
    }
}
