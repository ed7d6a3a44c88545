//! A value that only goes up, with when it did.

use crate::event::EventId;

/// What was known at least, from when on.
#[derive(Debug, Default)]
pub(super) struct Floor(Vec<(EventId, u64)>);

impl Floor {
    /// The value when an event happened, and since when.
    pub(super) fn at(&self, event: EventId) -> Option<(EventId, u64)> {
        let risen = self.0.partition_point(|(at, _)| *at < event);
        self.0.get(risen.checked_sub(1)?).copied()
    }

    /// From `at` on the value is at least `to`. Called in the order of events.
    pub(super) fn rise(&mut self, at: EventId, to: u64) {
        if self.0.last().is_none_or(|(_, value)| *value < to) {
            self.0.push((at, to));
        }
    }
}
