//! What is known of each conversation, from everything that anybody was answered.

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::conversation::{Conversation, ConversationState, Kind, PairKey};
use fusion_protocol::{Address, Url, UserRef};

use super::{Asked, Facts, Sight, Verb};
use crate::event::{Answer, Body, Call, Event, EventId};
use crate::rank::pair_key;
use crate::table::Table;

/// Two users, the lesser address first.
pub type Pair<'h> = (&'h Address, &'h Address);

/// Every conversation that anybody heard of, by its URL.
#[derive(Debug, Default)]
pub struct Conversations<'h> {
    by_url: Table<&'h str, Known<'h>>,
    pairs: Vec<PairCase<'h>>,
}

/// What is known of one conversation.
#[derive(Clone, Debug)]
pub struct Known<'h> {
    /// Its URL.
    pub url: &'h Url,
    /// Which kind.
    pub kind: Option<Kind>,
    /// Everybody seen in it.
    pub members: BTreeSet<&'h Address>,
    /// The pair of a 1:1.
    pub pair: Option<Pair<'h>>,
    /// The pair's key, when both incarnations are known.
    pub pair_key: Option<PairKey>,
    /// The creation that made it, as its place in [`Facts::calls`]: the first that answered with it from
    /// its own cluster. A repeated one may be answered 200, so the status does not tell.
    pub created: Option<usize>,
    /// Members whose announcement was refused for good (RDV-002), as last seen.
    pub unreachable: BTreeSet<&'h Address>,
    /// The first evidence that it was `PROVISIONAL`.
    pub provisional: Option<EventId>,
    /// The first evidence that it was `BOUND`.
    pub bound: Option<EventId>,
    /// The first evidence that it was `SEALING` or `SUPERSEDED`.
    pub sealed: Option<EventId>,
    /// The winner it gave way to, and where that was seen.
    pub superseded_by: Option<(&'h Url, EventId)>,
    /// The first evidence of it at all.
    pub seen: EventId,
}

/// The conversations of one pair of people.
#[derive(Clone, Debug)]
pub struct PairCase<'h> {
    /// The pair.
    pub pair: Pair<'h>,
    /// The pair's key, when known.
    pub key: Option<PairKey>,
    /// Their 1:1 conversations, by URL.
    pub conversations: Vec<&'h str>,
}

/// The pair of two users, in order.
pub(crate) fn pair_of<'h>(one: &'h Address, other: &'h Address) -> Pair<'h> {
    if one <= other { (one, other) } else { (other, one) }
}

impl<'h> Conversations<'h> {
    /// What is known of the conversation at `url`.
    #[must_use]
    pub fn at(&self, url: &Url) -> Option<&Known<'h>> {
        self.by_url.get(url.as_str())
    }

    /// What is known of the conversation whose URL reads `url`.
    #[must_use]
    pub fn named(&self, url: &str) -> Option<&Known<'h>> {
        self.by_url.get(url)
    }

    /// All of them, by URL.
    pub fn iter(&self) -> impl Iterator<Item = &Known<'h>> {
        self.by_url.values()
    }

    /// The 1:1 conversations by pair of *people*: a new person at an old address is another pair. Where
    /// an address had several people, conversations of unknown incarnations belong to no pair.
    #[must_use]
    pub fn pairs(&self) -> &[PairCase<'h>] {
        &self.pairs
    }

    fn sorted_by_pair(&self) -> Vec<PairCase<'h>> {
        let mut by_pair: BTreeMap<Pair<'h>, Vec<&Known<'h>>> = BTreeMap::new();
        for known in self.iter() {
            if let Some(pair) = known.pair {
                by_pair.entry(pair).or_default().push(known);
            }
        }
        by_pair.into_iter().flat_map(|(pair, known)| split_by_key(pair, &known)).collect()
    }

    pub(super) fn of(facts: &Facts<'h>) -> Self {
        let mut conversations = Self::default();
        let mut states = facts.seen(Sight::State).peekable();
        for (asked, back) in facts.returned() {
            while let Some(event) = states.next_if(|event| event.id < back.id) {
                conversations.take_state(event);
            }
            conversations.take_answer(asked, back.id);
        }
        states.for_each(|event| conversations.take_state(event));
        for (at, asked) in facts.calls().iter().enumerate().filter(|(_, asked)| asked.verb == Verb::Create) {
            if let (Call::Create { at: home, .. }, Some(Answer::Conversation { created, conversation })) =
                (asked.call, asked.answer())
                && (*created || facts.cluster_of(&conversation.url).as_ref() == Some(home))
            {
                let known = conversations.entry(&conversation.url, asked.id);
                known.created.get_or_insert(at);
            }
        }
        conversations.share_pairs();
        conversations.by_url.sort_unstable_keys();
        conversations.pairs = conversations.sorted_by_pair();
        conversations
    }

    /// A winner is of the pair whose conversation gave way to it.
    fn share_pairs(&mut self) {
        let gave_way = |known: &Known<'h>| Some((known.superseded_by?.0, known.pair?, known.pair_key));
        let winners: Vec<_> = self.by_url.values().filter_map(gave_way).collect();
        for (winner, pair, key) in winners {
            if let Some(known) = self.by_url.get_mut(winner.as_str()) {
                known.kind.get_or_insert(Kind::OneToOne);
                known.pair.get_or_insert(pair);
                known.pair_key = known.pair_key.or(key);
            }
        }
    }

    fn entry(&mut self, url: &'h Url, seen: EventId) -> &mut Known<'h> {
        self.by_url.entry(url.as_str()).or_insert_with(|| Known {
            url,
            kind: None,
            members: BTreeSet::new(),
            pair: None,
            pair_key: None,
            created: None,
            unreachable: BTreeSet::new(),
            provisional: None,
            bound: None,
            sealed: None,
            superseded_by: None,
            seen,
        })
    }

    fn take_answer(&mut self, asked: &Asked<'h>, at: EventId) {
        match (asked.call, asked.answer()) {
            (_, Some(Answer::Conversation { conversation, .. })) => {
                self.take_conversation(conversation, at);
                if let Call::ReadConversation { conversation: url } = asked.call {
                    self.take_redirect(url, &conversation.url, at);
                }
            }
            (Call::LookUp { other }, Some(Answer::Peer(peer))) => {
                let known = self.entry(&peer.url, at);
                known.kind.get_or_insert(Kind::OneToOne);
                known.pair.get_or_insert(pair_of(asked.actor, other));
                known.members.extend([asked.actor, other]);
            }
            (_, Some(Answer::Index { entries, .. })) => {
                for entry in entries {
                    let known = self.entry(&entry.url, at);
                    known.kind.get_or_insert(entry.kind);
                    known.members.insert(asked.actor);
                    if let Some(winner) = &entry.superseded_by {
                        known.supersede(winner, at);
                    }
                }
            }
            (Call::Post { conversation, .. }, Some(Answer::Accepted { redirected_to: Some(to), .. }))
            | (Call::Read { conversation, .. }, Some(Answer::Activities { redirected_to: Some(to), .. })) => {
                self.take_redirect(conversation, to, at);
            }
            _ => {}
        }
    }

    fn take_conversation(&mut self, conversation: &'h Conversation, at: EventId) {
        let known = self.entry(&conversation.url, at);
        known.kind = Some(conversation.kind);
        known.members.extend(conversation.participants.iter().map(|participant| &participant.user));
        let unreachable = conversation.participants.iter().filter(|member| member.unreachable.is_some());
        known.unreachable = unreachable.map(|member| &member.user).collect();
        known.take_state(conversation.state, at);
        if let Some(winner) = &conversation.superseded_by {
            known.supersede(winner, at);
        }
        if conversation.kind == Kind::OneToOne
            && let [one, other] = conversation.participants.as_slice()
        {
            known.pair.get_or_insert(pair_of(&one.user, &other.user));
            let person = |incarnation, user: &Address| UserRef { user: user.clone(), incarnation };
            if let (Some(a), Some(b), None) = (one.incarnation, other.incarnation, known.pair_key) {
                known.pair_key = Some(pair_key(&person(a, &one.user), &person(b, &other.user)));
            }
        }
    }

    fn take_redirect(&mut self, from: &'h Url, to: &'h Url, at: EventId) {
        if from != to {
            self.entry(from, at).supersede(to, at);
        }
    }

    /// Evidence `State` only sharpens what clients saw: of a conversation that no client ever heard of
    /// nothing is known.
    fn take_state(&mut self, event: &'h Event) {
        let Body::State { concept, subject, state, .. } = &event.body else { return };
        if concept != "conversation" {
            return;
        }
        let state = serde_json::from_value(serde_json::Value::String(state.clone()));
        if let (Some(known), Ok(state)) = (self.by_url.get_mut(subject.as_str()), state) {
            known.take_state(state, event.id);
        }
    }
}

impl Known<'_> {
    /// The first evidence that it existed.
    #[must_use]
    pub fn exists_since(&self) -> EventId {
        let firsts = [self.provisional, self.bound, self.sealed];
        firsts.into_iter().flatten().fold(self.seen, EventId::min)
    }

    /// Whether it is known to have lost the race.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.sealed.is_some() || self.superseded_by.is_some()
    }

    fn take_state(&mut self, state: ConversationState, at: EventId) {
        let first = match state {
            ConversationState::Provisional => &mut self.provisional,
            ConversationState::Bound => &mut self.bound,
            ConversationState::Sealing | ConversationState::Superseded => &mut self.sealed,
        };
        *first = Some(first.map_or(at, |first| first.min(at)));
    }
}

impl<'h> Known<'h> {
    fn supersede(&mut self, winner: &'h Url, at: EventId) {
        self.superseded_by.get_or_insert((winner, at));
        self.take_state(ConversationState::Superseded, at);
    }
}

fn split_by_key<'h>(pair: Pair<'h>, known: &[&Known<'h>]) -> Vec<PairCase<'h>> {
    let keys: BTreeSet<PairKey> = known.iter().filter_map(|known| known.pair_key).collect();
    let urls = |keep: &dyn Fn(&Known<'h>) -> bool| -> Vec<&'h str> {
        known.iter().filter(|known| keep(known)).map(|known| known.url.as_str()).collect()
    };
    if keys.len() < 2 {
        return vec![PairCase { pair, key: keys.first().copied(), conversations: urls(&|_| true) }];
    }
    let case = |key: PairKey| PairCase {
        pair,
        key: Some(key),
        conversations: urls(&|known| known.pair_key == Some(key)),
    };
    keys.into_iter().map(case).collect()
}
