//! Serialises work on one object inside one instance, so that commits seldom conflict.
//!
//! Not a guarantee: the store's preconditions are. Dropping every lock would only cost retries.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// A family of locks, one for each key that somebody waits for.
#[derive(Default)]
pub(crate) struct Locks(Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>);

/// Holds one key until dropped.
pub(crate) struct Held<'a> {
    locks: &'a Locks,
    key: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Locks {
    /// Waits for `key`, in order of arrival.
    pub(crate) async fn hold(&self, key: impl Into<String>) -> Held<'_> {
        let key = key.into();
        let mutex = self.map().entry(key.clone()).or_default().clone();
        // Made before the wait, so that a wait that is given up forgets the key, too.
        let mut held = Held { locks: self, key, guard: None };
        held.guard = Some(mutex.lock_owned().await);
        held
    }

    fn map(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<tokio::sync::Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.guard = None;
        let mut map = self.locks.map();
        // One owner left is the map itself: nobody holds or waits.
        if map.get(&self.key).is_some_and(|mutex| Arc::strong_count(mutex) == 1) {
            map.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_held_by_one_and_forgotten_when_free() {
        let locks = Locks::default();
        let first = locks.hold("a").await;
        let other = locks.hold("b").await;
        assert!(futures_util::FutureExt::now_or_never(locks.hold("a")).is_none());
        drop(first);
        drop(other);
        assert!(futures_util::FutureExt::now_or_never(locks.hold("a")).is_some());
        assert!(locks.map().is_empty());
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_leaves_nothing_behind() {
        let locks = Locks::default();
        let first = locks.hold("a").await;
        let mut waiting = Box::pin(locks.hold("a"));
        assert!(futures_util::FutureExt::now_or_never(&mut waiting).is_none());
        drop(first);
        drop(waiting);
        assert!(locks.map().is_empty());
    }
}
