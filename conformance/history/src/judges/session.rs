//! What a session may rely on: whoever wrote or read something never reads less (CNV-001, RDV-002).
//!
//! A judge says what a key is (a reader and a stream, a user's index) and what is counted; nothing else
//! differs between the registers that only grow.

use std::hash::Hash;

use super::floor::Floor;
use crate::event::EventId;
use crate::facts::Asked;
use crate::table::Table;

/// Who has seen how much, by key: a counter that only goes up.
#[derive(Debug)]
pub(super) struct Session<K> {
    floors: Table<K, Floor>,
}

/// What somebody had seen before they were answered less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// How much.
    pub(super) value: u64,
    /// Where that was seen.
    pub(super) at: EventId,
}

impl<K> Default for Session<K> {
    fn default() -> Self {
        Self { floors: Table::default() }
    }
}

impl<K: Hash + Eq> Session<K> {
    /// What was known when `asked` began; `None`: nothing yet.
    pub(super) fn known(&self, key: &K, asked: &Asked<'_>) -> Option<Known> {
        self.known_at(key, asked.id)
    }

    /// What was known before an event; `None`: nothing yet.
    pub(super) fn known_at(&self, key: &K, event: EventId) -> Option<Known> {
        let (at, value) = self.floors.get(key)?.at(event)?;
        Some(Known { value, at })
    }

    /// From `at` on at least `value` is known. Called in the order of events.
    pub(super) fn learn(&mut self, key: K, at: EventId, value: u64) {
        self.floors.entry(key).or_default().rise(at, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Facts;
    use crate::testing::{Story, conversation_url, page, read};

    #[test]
    fn only_what_was_known_when_the_question_was_asked_counts() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.does("bob", read(&url, 0), page(&[]));
        story.does("bob", read(&url, 0), page(&[]));
        let facts = Facts::of(story.told());
        let [first, second] = facts.calls() else { panic!("two calls") };
        let mut session = Session::default();
        let seen = first.back.expect("answered").id;
        session.learn("bob", seen, 3);
        session.learn("bob", second.back.expect("answered").id, 2);
        assert_eq!(session.known(&"bob", first), None);
        assert_eq!(session.known(&"bob", second), Some(Known { value: 3, at: seen }));
        assert_eq!(session.known(&"alice", second), None);
    }
}
