//! Where engines and devices write what they observe.
//!
//! Not responsible for time: whoever records says when.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::event::{Body, Event, EventId};
use crate::history::History;

/// A handle on one history in the making; clones write into the same.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    inner: Arc<Mutex<Inner>>,
    watch: Arc<OnceLock<Watch>>,
}

/// Whoever is told of every event: its place, and its host.
struct Watch(Box<Listener>);

type Listener = dyn Fn(EventId, &str) + Send + Sync;

#[derive(Debug, Default)]
struct Inner {
    events: Vec<Event>,
    budget: Option<u64>,
    beyond_budget: u64,
}

impl Recorder {
    /// A recorder without a budget.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A recorder that keeps at most `events` and counts the rest.
    #[must_use]
    pub fn with_budget(events: u64) -> Self {
        let inner = Inner { budget: Some(events), ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)), watch: Arc::default() }
    }

    /// Writes down what happened; `at` is the time since the run began, `cause` the event that led to it.
    /// Answers the event's place, also when it is beyond the budget.
    pub fn record(&self, at: Duration, host: &str, cause: Option<EventId>, body: Body) -> EventId {
        let id = self.write_down(at, host, cause, body);
        if let Some(Watch(watch)) = self.watch.get() {
            watch(id, host);
        }
        id
    }

    /// Tells `watch` the place and the host of every event from now on, just after it is written down and
    /// before whoever records goes on. It must not record. The first watch counts.
    pub fn watch(&self, watch: impl Fn(EventId, &str) + Send + Sync + 'static) {
        let _ = self.watch.set(Watch(Box::new(watch)));
    }

    /// How many events were recorded, kept or not.
    #[must_use]
    pub fn count(&self) -> u64 {
        let inner = self.lock();
        inner.events.len() as u64 + inner.beyond_budget
    }

    /// Whether more was observed than the budget keeps.
    #[must_use]
    pub fn over_budget(&self) -> bool {
        self.lock().beyond_budget > 0
    }

    /// The history. Other handles go on writing into an empty one, which nobody reads.
    #[must_use]
    pub fn finish(self) -> History {
        let inner = std::mem::take(&mut *self.lock());
        History::of(inner.events, inner.beyond_budget)
    }

    /// A copy of the history so far.
    #[must_use]
    pub fn snapshot(&self) -> History {
        let inner = self.lock();
        History::of(inner.events.clone(), inner.beyond_budget)
    }

    fn write_down(&self, at: Duration, host: &str, cause: Option<EventId>, body: Body) -> EventId {
        let at_us = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        let mut inner = self.lock();
        let kept = inner.events.len() as u64;
        if inner.budget.is_some_and(|budget| kept >= budget) {
            inner.beyond_budget += 1;
            return EventId(kept + inner.beyond_budget - 1);
        }
        let id = EventId(kept);
        inner.events.push(Event { id, at_us, host: host.to_owned(), cause, body });
        id
    }

    /// Events are pushed whole, so what a panicking writer leaves behind is sound.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Phase;

    fn record(recorder: &Recorder, cause: Option<EventId>) -> EventId {
        recorder.record(Duration::from_micros(7), "a", cause, Body::Phase { phase: Phase::Act })
    }

    #[test]
    fn clones_write_into_one_history() {
        let recorder = Recorder::new();
        let first = record(&recorder, None);
        let clone = recorder.clone();
        let second = record(&clone, Some(first));
        assert_eq!((first, second), (EventId(0), EventId(1)));
        let history = recorder.finish();
        assert_eq!(history.events()[1].cause, Some(first));
        assert_eq!(history.events()[1].at_us, 7);
    }

    #[test]
    fn beyond_the_budget_events_are_counted_and_not_kept() {
        let recorder = Recorder::with_budget(2);
        let ids: Vec<u64> = (0..4).map(|_| record(&recorder, None).0).collect();
        assert_eq!(ids, [0, 1, 2, 3]);
        assert!(recorder.over_budget());
        assert_eq!(recorder.count(), 4);
        let history = recorder.finish();
        assert_eq!((history.len(), history.beyond_budget()), (2, 2));
    }

    #[test]
    fn a_watch_is_told_of_every_event_after_it_is_written_down() {
        let recorder = Recorder::new();
        let (told, seen) = (Arc::new(Mutex::new(Vec::new())), recorder.clone());
        let telling = told.clone();
        recorder.watch(move |id, host| {
            telling.lock().unwrap().push((id.0, host.to_owned(), seen.count()));
        });
        record(&recorder, None);
        record(&recorder, None);
        assert_eq!(*told.lock().unwrap(), [(0, "a".to_owned(), 1), (1, "a".to_owned(), 2)]);
    }

    #[test]
    fn a_snapshot_does_not_end_the_recording() {
        let recorder = Recorder::new();
        record(&recorder, None);
        assert_eq!(recorder.snapshot().len(), 1);
        record(&recorder, None);
        assert!(!recorder.over_budget());
        assert_eq!(recorder.finish().len(), 2);
    }
}
