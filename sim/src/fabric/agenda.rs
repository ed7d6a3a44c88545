//! What is due, in a total order: by microsecond, then by the order in which it was put down.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use tokio::sync::Notify;

/// The events that wait for their time.
pub(super) struct Agenda<E> {
    heap: BinaryHeap<Entry<E>>,
    next_order: u64,
    /// When the pump has set its alarm; whoever puts down something earlier must wake it.
    alarm_us: u64,
    earlier: Arc<Notify>,
}

struct Entry<E> {
    due_us: u64,
    order: u64,
    event: E,
}

impl<E> Agenda<E> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), next_order: 0, alarm_us: u64::MAX, earlier: Arc::default() }
    }

    /// Told when something becomes due before the alarm.
    pub(super) fn earlier(&self) -> Arc<Notify> {
        self.earlier.clone()
    }

    /// Puts `event` down for `due_us`.
    pub(super) fn push(&mut self, due_us: u64, event: E) {
        self.heap.push(Entry { due_us, order: self.next_order, event });
        self.next_order += 1;
        if due_us < self.alarm_us {
            self.alarm_us = due_us;
            self.earlier.notify_one();
        }
    }

    /// Takes the next event due by `now_us`.
    pub(super) fn pop_due(&mut self, now_us: u64) -> Option<E> {
        if self.heap.peek()?.due_us > now_us {
            return None;
        }
        self.heap.pop().map(|entry| entry.event)
    }

    /// What waits, in the order in which it will come.
    pub(super) fn waiting(&self) -> Vec<(u64, &E)> {
        let mut waiting: Vec<_> = self.heap.iter().collect();
        waiting.sort_by_key(|entry| (entry.due_us, entry.order));
        waiting.into_iter().map(|entry| (entry.due_us, &entry.event)).collect()
    }

    /// Sets the alarm to the head and says when that is.
    pub(super) fn set_alarm(&mut self) -> Option<u64> {
        let head_us = self.heap.peek().map(|entry| entry.due_us);
        self.alarm_us = head_us.unwrap_or(u64::MAX);
        head_us
    }
}

impl<E> Ord for Entry<E> {
    /// Reversed, because the heap gives out its greatest entry.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due_us, other.order).cmp(&(self.due_us, self.order))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_then_of_being_put_down() {
        let mut agenda = Agenda::new();
        for (due_us, name) in [(2_000, "c"), (1_001, "b"), (1_000, "a1"), (1_000, "a2")] {
            agenda.push(due_us, name);
        }
        let order: Vec<_> = std::iter::from_fn(|| agenda.pop_due(u64::MAX)).collect();
        assert_eq!(order, ["a1", "a2", "b", "c"]);
    }

    #[test]
    fn nothing_comes_before_its_time() {
        let mut agenda = Agenda::new();
        agenda.push(5, ());
        assert!(agenda.pop_due(4).is_none());
        assert_eq!(agenda.set_alarm(), Some(5));
        assert!(agenda.pop_due(5).is_some());
        assert_eq!(agenda.set_alarm(), None);
    }
}
