//! A register that is set once: whatever it was at first, it is for ever.
//!
//! Works on what clients were answered: an answer that was on its way while another came proves nothing
//! about their order, so only what was asked after the first answer had come can show a change.

use std::hash::Hash;

use crate::event::EventId;
use crate::table::Table;

/// Registers by their keys.
#[derive(Debug)]
pub(super) struct SetOnce<K, V> {
    first: Table<K, (V, EventId)>,
}

/// What another value was seen after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before<V> {
    /// The value that was there first.
    pub(super) value: V,
    /// Where it was seen.
    pub(super) at: EventId,
}

impl<K, V> Default for SetOnce<K, V> {
    fn default() -> Self {
        Self { first: Table::default() }
    }
}

/// How a value stands to what was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen<V> {
    /// The first, or one that was asked for before the first had come.
    First,
    /// The same again.
    Same,
    /// Another one.
    Changed(Before<V>),
}

impl<K: Hash + Eq, V: Copy + PartialEq> SetOnce<K, V> {
    /// `value` was answered at `at` to what was asked at `asked`. Called in the order of answers.
    pub(super) fn see(&mut self, key: K, value: V, asked: EventId, at: EventId) -> Seen<V> {
        match self.first.get(&key) {
            None => {
                self.first.insert(key, (value, at));
                Seen::First
            }
            Some((first, since)) if *since < asked => match *first == value {
                true => Seen::Same,
                false => Seen::Changed(Before { value: *first, at: *since }),
            },
            Some(_) => Seen::First,
        }
    }

    /// What the register holds, and since when that is known.
    pub(super) fn value(&self, key: &K) -> Option<Before<V>> {
        self.first.get(key).map(|(value, at)| Before { value: *value, at: *at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(register: &mut SetOnce<&str, u8>, value: u8, asked: u64, at: u64) -> Seen<u8> {
        register.see("one", value, EventId(asked), EventId(at))
    }

    #[test]
    fn what_is_set_stays_and_a_change_names_what_was_before() {
        let mut register = SetOnce::default();
        assert_eq!(see(&mut register, 1, 1, 2), Seen::First);
        assert_eq!(see(&mut register, 1, 3, 4), Seen::Same);
        let before = Before { value: 1, at: EventId(2) };
        assert_eq!(see(&mut register, 2, 5, 6), Seen::Changed(before));
        assert_eq!(register.value(&"one"), Some(before), "the first is the truth");
    }

    #[test]
    fn what_was_asked_before_the_first_answer_came_shows_no_change() {
        let mut register = SetOnce::default();
        see(&mut register, 1, 3, 4);
        assert_eq!(see(&mut register, 2, 2, 5), Seen::First);
    }
}
