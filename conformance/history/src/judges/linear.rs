//! Whether what was seen of one register fits one order (linearisability, object by object).
//!
//! Each value is written by one operation, or by several that agree on it. Then it need not be searched for
//! an order: the operations of one value make a zone, from the first end to the last beginning among them,
//! and the zones alone tell (Gibbons and Korach, "Testing shared memories", theorem 4.2). An operation that
//! nobody saw end may have taken effect at any time since it began, or never.
//!
//! Not responsible for what an operation is, nor for what follows when there is no order.

use std::hash::Hash;

use crate::event::EventId;
use crate::table::Table;

/// What was seen of one register, by value; `None` is the value before anything was written.
#[derive(Debug)]
pub(super) struct Register<V> {
    values: Table<Option<V>, Seen>,
    /// The first writing of which nobody knows what it wrote.
    blind: Option<EventId>,
}

/// An operation, from its call to its return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) asked: EventId,
    /// `None`: nobody saw it end.
    pub(super) back: Option<EventId>,
}

/// What was seen of one value.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The writing that began first.
    written: Option<Span>,
    /// The operation that ended first: from then on the value was there, or had been.
    first: Option<Span>,
    /// The operation that began last: until then the value was there, or was to come.
    last: Option<Span>,
}

/// Why there is no order: the operations that cannot be put into one, at most four.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Impossible<V> {
    pub(super) what: What<V>,
    pub(super) spans: Vec<Span>,
}

/// What cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What<V> {
    /// A value was seen before anybody began to write it.
    FromNowhere(V),
    /// The first value was there, and then the second, and then the first again.
    Again(Option<V>, Option<V>),
}

/// The operations of one value.
#[derive(Clone, Copy)]
struct Zone<V> {
    value: Option<V>,
    first: Option<Span>,
    last: Span,
}

impl<V> Default for Register<V> {
    fn default() -> Self {
        Self { values: Table::default(), blind: None }
    }
}

impl<V: Copy + Eq + Hash> Register<V> {
    /// `value` was written, or may have been if the end was not seen.
    pub(super) fn wrote(&mut self, value: V, span: Span) {
        let seen = self.values.entry(Some(value)).or_default();
        if seen.written.is_none_or(|first| span.asked < first.asked) {
            seen.written = Some(span);
        }
        // What may never have happened proves nothing.
        if span.back.is_some() {
            seen.take(span);
        }
    }

    /// Something was written, if anything: a value that no other writing has, and nobody knows which.
    pub(super) fn wrote_something(&mut self, span: Span) {
        self.blind = Some(self.blind.map_or(span.asked, |first| first.min(span.asked)));
    }

    /// `value` was read. A reading without an end has read nothing.
    pub(super) fn read(&mut self, value: Option<V>, span: Span) {
        if span.back.is_some() {
            self.values.entry(value).or_default().take(span);
        }
    }

    /// Whether something was seen to end before something else began: without that, any order will do.
    pub(super) fn is_ordered(&self) -> bool {
        let seen = || self.values.values();
        let end = seen().filter_map(|seen| seen.first?.back).min();
        let beginning = seen().filter_map(|seen| Some(seen.last?.asked)).max();
        end.zip(beginning).is_some_and(|(end, beginning)| end < beginning)
    }

    /// Whether there is one order in which all of it could have happened, one after the other, each between
    /// its beginning and its end.
    pub(super) fn judge(&self) -> Result<(), Impossible<V>> {
        self.judge_sources()?;
        let zones = self.values.iter().filter_map(|(value, seen)| {
            // What was there at first has been written before everything else.
            let first = seen.first.filter(|_| value.is_some());
            let last = seen.last?;
            // Nothing of a value happens before it begins to be written.
            let last = seen.written.filter(|span| span.asked > last.asked).unwrap_or(last);
            Some(Zone { value: *value, first, last })
        });
        let (mut forward, backward): (Vec<_>, Vec<_>) = zones.partition(Zone::is_forward);
        forward.sort_unstable_by_key(Zone::from);
        if let Some(two) = forward.windows(2).find(|two| two[1].from() < Some(two[0].last.asked)) {
            return Err(again(&two[0], &two[1]));
        }
        for short in backward {
            let before = forward.partition_point(|long| long.from() < Some(short.last.asked));
            let long = before.checked_sub(1).map(|at| &forward[at]);
            if let Some(long) = long.filter(|long| short.from() < Some(long.last.asked)) {
                return Err(again(long, &short));
            }
        }
        Ok(())
    }

    /// Nobody sees what nobody has begun to write.
    fn judge_sources(&self) -> Result<(), Impossible<V>> {
        for (value, seen) in &self.values {
            let (Some(value), Some(first)) = (*value, seen.first) else { continue };
            let begun = [seen.written.map(|span| span.asked), self.blind].into_iter().flatten().min();
            if begun.is_none_or(|begun| first.back < Some(begun)) {
                return Err(Impossible { what: What::FromNowhere(value), spans: vec![first] });
            }
        }
        Ok(())
    }
}

impl Seen {
    fn take(&mut self, span: Span) {
        if self.first.is_none_or(|first| span.back < first.back) {
            self.first = Some(span);
        }
        if self.last.is_none_or(|last| span.asked > last.asked) {
            self.last = Some(span);
        }
    }
}

impl<V> Zone<V> {
    /// When the first of its operations ended; `None`: before everything.
    fn from(&self) -> Option<EventId> {
        self.first?.back
    }

    /// Whether the value must have been there from one event to a later one.
    fn is_forward(&self) -> bool {
        self.from() < Some(self.last.asked)
    }
}

/// The shortest story: the one value was there, the other came in between, and the one was there again.
fn again<V: Copy>(long: &Zone<V>, short: &Zone<V>) -> Impossible<V> {
    let mut spans: Vec<Span> = Vec::new();
    for span in [long.first, short.first, Some(short.last), Some(long.last)].into_iter().flatten() {
        if !spans.contains(&span) {
            spans.push(span);
        }
    }
    Impossible { what: What::Again(long.value, short.value), spans }
}

impl Span {
    pub(super) fn events(self) -> impl Iterator<Item = EventId> {
        [Some(self.asked), self.back].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn span(asked: u64, back: u64) -> Span {
        Span { asked: EventId(asked), back: Some(EventId(back)) }
    }

    fn open(asked: u64) -> Span {
        Span { asked: EventId(asked), back: None }
    }

    #[test]
    fn one_after_the_other_is_an_order() {
        let mut register = Register::default();
        register.read(None, span(0, 1));
        register.wrote(1, span(2, 3));
        register.read(Some(1), span(4, 5));
        register.wrote(2, span(6, 7));
        register.read(Some(2), span(8, 9));
        assert_eq!((register.judge(), register.is_ordered()), (Ok(()), true));
    }

    #[test]
    fn what_overlaps_may_have_been_either_way() {
        let mut register = Register::default();
        register.wrote(1, span(0, 9));
        register.wrote(2, span(1, 8));
        register.read(Some(2), span(2, 3));
        register.read(Some(1), span(4, 5));
        assert_eq!(register.judge(), Ok(()));
    }

    #[test]
    fn an_old_value_after_a_new_one_is_shown_by_the_three_that_exclude_each_other() {
        let mut register = Register::default();
        register.wrote(1, span(0, 1));
        register.wrote(2, span(2, 3));
        register.read(Some(1), span(4, 5));
        register.read(Some(1), span(6, 7));
        let spans = vec![span(0, 1), span(2, 3), span(6, 7)];
        assert_eq!(register.judge(), Err(Impossible { what: What::Again(Some(1), Some(2)), spans }));
    }

    #[test]
    fn what_was_written_is_not_gone_again() {
        let mut register = Register::default();
        register.wrote(1, span(0, 1));
        register.read(None, span(2, 3));
        let spans = vec![span(0, 1), span(2, 3)];
        assert_eq!(register.judge(), Err(Impossible { what: What::Again(None, Some(1)), spans }));
    }

    #[test]
    fn two_values_in_turn_have_no_order() {
        let mut register = Register::default();
        register.wrote(1, span(0, 1));
        register.wrote(2, span(0, 1));
        for (at, value) in [(2, 1), (4, 2), (6, 1), (8, 2)] {
            register.read(Some(value), span(at, at + 1));
        }
        assert!(matches!(register.judge(), Err(Impossible { what: What::Again(..), .. })));
    }

    #[test]
    fn a_value_that_nobody_wrote_comes_from_nowhere_unless_somebody_may_have() {
        let mut register = Register::default();
        register.read(Some(1), span(2, 3));
        let spans = vec![span(2, 3)];
        assert_eq!(register.judge(), Err(Impossible { what: What::FromNowhere(1), spans }));
        register.wrote(1, open(4));
        assert!(register.judge().is_err(), "it began too late");
        register.wrote_something(open(1));
        assert_eq!(register.judge(), Ok(()));
    }

    #[test]
    fn a_writing_that_nobody_saw_end_may_have_been_or_not() {
        let mut register = Register::default();
        register.wrote(1, span(0, 1));
        register.wrote(2, open(2));
        register.read(Some(1), span(3, 4));
        assert_eq!(register.judge(), Ok(()), "not yet, or never");
        register.read(Some(2), span(5, 6));
        assert_eq!(register.judge(), Ok(()), "in between");
        register.read(Some(1), span(7, 8));
        assert!(register.judge().is_err(), "what was there stays until something else is written");
    }

    /// One operation of a made-up history: what it did, with which value.
    type Made = (bool, u8, Span);

    /// Searches for an order (Wing and Gong), remembering what has been tried (Lowe).
    fn has_order(ops: &[Made]) -> bool {
        fn search(ops: &[Made], done: u32, now: Option<u8>, tried: &mut BTreeSet<(u32, Option<u8>)>) -> bool {
            let left = || (0..ops.len()).filter(|at| done & (1 << at) == 0);
            if left().all(|at| ops[at].2.back.is_none()) {
                return true;
            }
            if !tried.insert((done, now)) {
                return false;
            }
            let first_end = left().filter_map(|at| ops[at].2.back).min();
            let mut next = left().filter(|at| first_end.is_none_or(|end| ops[*at].2.asked < end));
            next.any(|at| {
                let (writes, value, _) = ops[at];
                let value = (value > 0).then_some(value);
                (writes || value == now)
                    && search(ops, done | 1 << at, if writes { value } else { now }, tried)
            })
        }
        search(ops, 0, None, &mut BTreeSet::new())
    }

    /// Up to nine operations; each value is written at most once; reads end.
    fn histories() -> impl Strategy<Value = Vec<Made>> {
        let ops = vec((any::<bool>(), 0..4_u8, 0..20_u64, 1..12_u64, 0..5_u8), 1..9);
        ops.prop_map(|ops| {
            let mut written = BTreeSet::new();
            let made = ops.into_iter().enumerate().map(|(at, (writes, value, from, lasts, ends))| {
                let writes = writes && value > 0 && written.insert(value);
                // No two events at one place.
                let place = |time: u64, half: u64| EventId((time * 20 + at as u64) * 2 + half);
                let back = (!writes || ends > 0).then(|| place(from + lasts, 1));
                (writes, value, Span { asked: place(from, 0), back })
            });
            made.collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn zones_say_what_a_search_says(ops in histories()) {
            let mut register = Register::default();
            for &(writes, value, span) in &ops {
                match writes {
                    true => register.wrote(value, span),
                    false => register.read((value > 0).then_some(value), span),
                }
            }
            let found = register.judge();
            prop_assert_eq!(found.is_ok(), has_order(&ops), "{:?}", found);
            // What is shown is enough: it has no order by itself either.
            if let Err(Impossible { what: What::Again(..), spans }) = found {
                prop_assert!(spans.len() <= 4);
                let shown: Vec<Made> = ops
                    .iter()
                    .filter(|(writes, _, span)| spans.contains(span) || *writes)
                    .copied()
                    .collect();
                prop_assert!(!has_order(&shown));
            }
        }

        #[test]
        fn the_beginning_of_what_has_an_order_has_one(ops in histories(), until in 0..1_000_u64) {
            if !has_order(&ops) {
                return Ok(());
            }
            let mut register = Register::default();
            for &(writes, value, span) in ops.iter().filter(|op| op.2.asked.0 < until) {
                let span = Span { back: span.back.filter(|back| back.0 < until), ..span };
                match writes {
                    true => register.wrote(value, span),
                    false => register.read((value > 0).then_some(value), span),
                }
            }
            prop_assert!(register.judge().is_ok());
        }
    }
}
