//! All judges hear one history: a long one circle by circle, several circles at a time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::circles::{self, Part};
use crate::facts::{Common, Facts};
use crate::history::History;
use crate::judge::{Casebook, Scope, Verdict, heard};
use crate::judges::judges;

/// From how many events on a history is judged circle by circle.
const LONG_EVENTS: usize = 50_000;
/// How many events a part of a long history has at least: so few that they stay in a processor's cache.
const PART_EVENTS: usize = 8_192;

/// All judges' verdicts on one history, in the order of [`crate::judges::judges`].
#[must_use]
pub fn judge_all(history: &History) -> Vec<Verdict> {
    if history.len() >= LONG_EVENTS {
        return judge_in_parts(history, PART_EVENTS);
    }
    let facts = Facts::of(history);
    judges().iter().map(|judge| heard(&**judge, &facts).close(history.beyond_budget())).collect()
}

/// As [`judge_all`], and circle by circle: in parts of at least `least` events, several at a time. The rulings
/// are the same; where more is violated than a verdict spells out, it may spell out others.
#[must_use]
pub fn judge_in_parts(history: &History, least: usize) -> Vec<Verdict> {
    let parts = circles::parts(history, least);
    let whole = Facts::of(history);
    let queue = Queue {
        history,
        parts: &parts,
        common: whole.common(),
        next: AtomicUsize::new(0),
        done: Mutex::default(),
    };
    let on_the_whole = std::thread::scope(|scope| {
        let helpers = std::thread::available_parallelism().map_or(1, usize::from) - 1;
        for _ in 0..helpers.min(parts.len()) {
            scope.spawn(|| queue.work());
        }
        let on_the_whole = hear(&whole, Scope::History);
        queue.work();
        on_the_whole
    });
    let (mut on_the_whole, mut of_circles) = (on_the_whole.into_iter(), queue.all().into_iter());
    let books = judges().into_iter().map(|judge| {
        let book = match judge.scope() {
            Scope::History => on_the_whole.next(),
            Scope::Circle => of_circles.next(),
        };
        book.unwrap_or_else(|| Casebook::new(&*judge))
    });
    books.map(|book| book.close(history.beyond_budget())).collect()
}

/// Parts that wait for the judges, and what came of the others.
struct Queue<'a, 'h> {
    history: &'h History,
    parts: &'a [Part],
    common: &'a Common<'h>,
    next: AtomicUsize,
    done: Mutex<BTreeMap<usize, Vec<Casebook>>>,
}

impl Queue<'_, '_> {
    /// Hears parts until none is left.
    fn work(&self) {
        loop {
            let place = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = self.parts.get(place) else { break };
            let books = hear(&Facts::of_part(self.history, self.common.clone(), part), Scope::Circle);
            self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(place, books);
        }
    }

    /// What came of all parts together: in their order, so that the same history has the same verdicts.
    fn all(self) -> Vec<Casebook> {
        let done = self.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let together = |all: Vec<Casebook>, more: Vec<Casebook>| -> Vec<Casebook> {
            all.into_iter().zip(more).map(|(one, other)| one.and(other)).collect()
        };
        done.into_values().reduce(together).unwrap_or_default()
    }
}

fn hear(facts: &Facts<'_>, scope: Scope) -> Vec<Casebook> {
    let of_scope = judges().into_iter().filter(|judge| judge.scope() == scope);
    of_scope.map(|judge| heard(&*judge, facts)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Ruling, ruling_of};
    use crate::testing::{Story, accepted, conversation_url, message, post};

    /// Two pairs who never meet; each of them says three things.
    fn two_pairs() -> Story {
        let mut story = Story::new();
        let (one, other) = (conversation_url("a", 1), conversation_url("b", 2));
        for n in 1..=3 {
            story.posts("alice", &one, &message("alice", &format!("one {n}"), n));
            story.posts("bob", &other, &message("bob", &format!("two {n}"), n));
        }
        story
    }

    fn without_violations(mut verdicts: Vec<Verdict>) -> Vec<Verdict> {
        verdicts.iter_mut().for_each(|verdict| verdict.violations.clear());
        verdicts
    }

    #[test]
    fn in_parts_as_on_the_whole() {
        let story = two_pairs();
        for least in [1, 5, 1_000] {
            assert_eq!(judge_in_parts(story.told(), least), judge_all(story.told()));
        }
    }

    #[test]
    fn a_violation_in_any_part_is_found_and_counted() {
        let mut story = two_pairs();
        let url = conversation_url("b", 2);
        story.does("bob", post(&url, "again", "two 2"), accepted(&message("bob", "two 2", 2)));
        story.posts("bob", &url, &message("bob", "other", 1));
        let (parts, whole) = (judge_in_parts(story.told(), 1), judge_all(story.told()));
        assert_eq!(ruling_of(&parts), Ruling::Violated);
        assert_eq!(without_violations(parts.clone()), without_violations(whole.clone()));
        let shown = |verdicts: &[Verdict]| -> Vec<_> {
            let mut shown: Vec<_> = verdicts.iter().flat_map(|verdict| verdict.violations.clone()).collect();
            shown.sort_by(|one, other| {
                (&one.excerpt, &one.statement).cmp(&(&other.excerpt, &other.statement))
            });
            shown
        };
        assert_eq!(shown(&parts), shown(&whole));
    }

    #[test]
    fn nothing_is_heard_of_an_empty_history() {
        let verdicts = judge_in_parts(&History::new(), 1);
        assert_eq!(verdicts, judge_all(&History::new()));
    }
}
