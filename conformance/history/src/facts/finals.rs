//! What was read when nothing moved any more: liveness is judged by it.

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::conversation::{Activity, PeerLookup, PeerState};
use fusion_protocol::index::IndexEntry;
use fusion_protocol::{Address, Url, limits};

use super::{Asked, Conversations, Facts, PairCase};
use crate::event::{Answer, Call, EventId};
use crate::table::{Set, Table};

/// The last word of each reading, from the calls after [`crate::event::Phase::Quiescent`] began, in the order
/// of their keys.
#[derive(Debug, Default)]
pub struct Finals<'h> {
    /// By who looked up whom.
    pub lookups: Table<(&'h Address, &'h Address), Asked<'h>>,
    /// By whose index it is.
    pub indexes: Table<&'h Address, FinalIndex<'h>>,
    /// By reader and the URL that was asked.
    pub reads: Table<(&'h Address, &'h str), FinalRead<'h>>,
    /// A conversation's state, by reader and the URL that was asked.
    pub conversations: Table<(&'h Address, &'h str), Asked<'h>>,
    /// The active loci, by whose they are.
    pub active: Table<&'h Address, Asked<'h>>,
    /// By reader and locus.
    pub loci: Table<(&'h Address, &'h str), Asked<'h>>,
    /// Who read at a URL, so that nobody need look through what all others read.
    readers: Table<&'h str, BTreeSet<&'h Address>>,
    /// Who asked a URL for a conversation's state.
    askers: Table<&'h str, BTreeSet<&'h Address>>,
    /// Of each stream the first reading to its end, as its key in `reads`.
    whole: Table<&'h str, (&'h Address, &'h str)>,
    /// Streams of which a reading was not answered in the end.
    failed: Set<&'h str>,
}

/// An index as its user last read it.
#[derive(Clone, Debug, Default)]
pub struct FinalIndex<'h> {
    /// By the conversation's URL.
    pub entries: BTreeMap<&'h str, &'h IndexEntry>,
    /// Whether it was read from the start to the end.
    pub complete: bool,
    /// Whether the last call was not answered.
    pub failed: bool,
    /// The calls that read it.
    pub events: Vec<EventId>,
    /// Up to which cursor it was read.
    through: u64,
}

/// A conversation as somebody last read it.
#[derive(Clone, Debug)]
pub struct FinalRead<'h> {
    /// The conversation that answered: the one asked, or where that redirected to.
    pub stream: &'h Url,
    /// The activities, in the order in which they came.
    pub activities: Vec<&'h Activity>,
    /// Whether it was read from the start to the end.
    pub complete: bool,
    /// The last call's refusal or silence, when it was not answered.
    pub failed: Option<Asked<'h>>,
    /// The calls that read it.
    pub events: Vec<EventId>,
}

impl<'h> Finals<'h> {
    /// What everybody who read `stream` to its end found there, the first such reading.
    #[must_use]
    pub fn read_of(&self, stream: &str) -> Option<&FinalRead<'h>> {
        self.reads.get(self.whole.get(stream)?)
    }

    /// Each reader's reading at `url`.
    pub fn reads_at(&self, url: &'h str) -> impl Iterator<Item = &FinalRead<'h>> {
        let readers = self.readers.get(url).into_iter().flatten();
        readers.filter_map(move |reader| self.reads.get(&(*reader, url)))
    }

    /// What each asker was told of the state of the conversation at `url`.
    pub fn conversations_at(&self, url: &'h str) -> impl Iterator<Item = &Asked<'h>> {
        let askers = self.askers.get(url).into_iter().flatten();
        askers.filter_map(move |asker| self.conversations.get(&(*asker, url)))
    }

    /// Whether a reading of `stream` was not answered in the end.
    #[must_use]
    pub fn failed_at(&self, stream: &str) -> bool {
        self.failed.contains(stream)
    }

    /// The conversation that both members' look-ups agree on; when nobody looked it up, the only one that
    /// is not known to have lost, if it is known to be bound.
    #[must_use]
    pub fn winner_of(&self, case: &PairCase<'h>, known: &Conversations<'h>) -> Option<&'h str> {
        let (one, other) = case.pair;
        let found = |lookup: &Asked<'h>| match lookup.answer() {
            Some(Answer::Peer(PeerLookup { url, state: PeerState::Live, .. })) => Some(url.as_str()),
            _ => None,
        };
        let lookups = [self.lookups.get(&(one, other)), self.lookups.get(&(other, one))];
        let found: Vec<Option<&str>> = lookups.into_iter().flatten().map(found).collect();
        if let Some(first) = found.first() {
            let agreed = found.iter().all(|url| url == first);
            return first.filter(|url| agreed && case.conversations.contains(url));
        }
        let of_pair = case.conversations.iter().filter_map(|url| known.named(url));
        let mut left = of_pair.filter(|known| !known.is_superseded());
        let only = left.next().filter(|_| left.next().is_none())?;
        only.bound.map(|_| only.url.as_str())
    }

    /// See [`Facts::standing`].
    pub(super) fn standing(&self, known: &Conversations<'h>) -> Set<&'h str> {
        let groups = known.iter().filter(|known| known.pair.is_none()).map(|known| known.url.as_str());
        let pairs = known.pairs();
        let of_pairs = pairs.iter().filter_map(|pair| self.winner_of(pair, known));
        groups.chain(of_pairs).collect()
    }

    pub(super) fn of(facts: &Facts<'h>) -> Self {
        let mut finals = Self::default();
        for asked in facts.final_calls() {
            finals.take(asked);
        }
        finals.sort();
        finals
    }

    /// Puts what was read in the order of its keys, and makes it findable by URL.
    fn sort(&mut self) {
        self.lookups.sort_unstable_keys();
        self.indexes.sort_unstable_keys();
        self.reads.sort_unstable_keys();
        self.conversations.sort_unstable_keys();
        self.active.sort_unstable_keys();
        self.loci.sort_unstable_keys();
        for (&(reader, url), read) in &self.reads {
            self.readers.entry(url).or_default().insert(reader);
            let stream = read.stream.as_str();
            if read.complete {
                self.whole.entry(stream).or_insert((reader, url));
            }
            if read.failed.is_some() {
                self.failed.insert(stream);
            }
        }
        for &(asker, url) in self.conversations.keys() {
            self.askers.entry(url).or_default().insert(asker);
        }
    }

    fn take(&mut self, asked: &Asked<'h>) {
        match asked.call {
            Call::LookUp { other } => drop(self.lookups.insert((asked.actor, other), asked.clone())),
            Call::ReadConversation { conversation } => {
                self.conversations.insert((asked.actor, conversation.as_str()), asked.clone());
            }
            Call::ListLoci {} => drop(self.active.insert(asked.actor, asked.clone())),
            Call::ReadLocus { locus } => {
                self.loci.insert((asked.actor, locus.as_str()), asked.clone());
            }
            Call::ReadIndex { after } => self.indexes.entry(asked.actor).or_default().take(asked, after.0),
            Call::Read { conversation, after } => {
                let read = self.reads.entry((asked.actor, conversation.as_str()));
                read.or_insert_with(|| FinalRead::new(conversation)).take(asked, conversation, after.0);
            }
            _ => {}
        }
    }
}

impl<'h> FinalIndex<'h> {
    fn take(&mut self, asked: &Asked<'h>, after: u64) {
        if after == 0 {
            *self = Self::default();
        }
        self.events.extend(asked.events());
        let Some(Answer::Index { entries, cursor }) = asked.answer() else {
            (self.complete, self.failed) = (false, true);
            return;
        };
        if after > self.through {
            return;
        }
        // A full page may have a next one, which somebody must then have read.
        self.complete = entries.len() < limits::PAGE_MAX;
        self.through = cursor.0;
        for entry in entries {
            self.entries.insert(entry.url.as_str(), entry);
        }
    }
}

impl<'h> FinalRead<'h> {
    fn new(stream: &'h Url) -> Self {
        Self { stream, activities: Vec::new(), complete: false, failed: None, events: Vec::new() }
    }

    fn take(&mut self, asked: &Asked<'h>, url: &'h Url, after: u64) {
        if after == 0 {
            *self = Self::new(url);
        }
        self.events.extend(asked.events());
        let Some(Answer::Activities { activities, last_seq, redirected_to }) = asked.answer() else {
            self.complete = false;
            self.failed = Some(asked.clone());
            return;
        };
        let stream = redirected_to.as_ref().unwrap_or(url);
        let through = self.through();
        if after != 0 && (after != through || stream != self.stream) {
            return;
        }
        self.stream = stream;
        self.failed = None;
        self.activities.extend(activities);
        self.complete = self.through() >= last_seq.0;
    }

    fn through(&self) -> u64 {
        self.activities.last().map_or(0, |activity| activity.seq.0)
    }
}
