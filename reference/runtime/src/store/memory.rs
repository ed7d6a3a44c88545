//! Rows in memory: the store of simulated worlds and of tests. Nothing outlives the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Batch, Expect, Key, Row, Store, StoreError};

/// A store in memory. Clones share the rows, so one kept aside is the disk that outlives a crash.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Rows>>);

#[derive(Default)]
struct Rows {
    /// The version of the last commit: versions are the store's, so that none comes twice.
    version: u64,
    rows: BTreeMap<Key, Row>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every row there is now, for judges and for people.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<Key, Row> {
        self.rows().rows.clone()
    }

    /// Applies `batch` at once: for whoever keeps the time of commits itself, such as a simulated disk.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.rows().apply(batch)
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        // Nothing under the lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        let store = self.rows();
        Ok(keys.iter().map(|key| store.rows.get(key).cloned()).collect())
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        if from >= until {
            return Ok(Vec::new());
        }
        let store = self.rows();
        let range = store.rows.range(from..until).take(limit);
        Ok(range.map(|(key, row)| (key.clone(), row.clone())).collect())
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.apply(batch)
    }
}

impl Rows {
    fn apply(&mut self, batch: Batch) -> Result<(), StoreError> {
        let as_expected = batch.expects.iter().all(|(key, expect)| match expect {
            Expect::Absent => !self.rows.contains_key(key),
            Expect::Version(version) => self.rows.get(key).is_some_and(|row| row.version == *version),
        });
        if !as_expected {
            return Err(StoreError::Conflict);
        }
        self.version += 1;
        for key in &batch.deletes {
            self.rows.remove(key);
        }
        for (key, value) in batch.puts {
            self.rows.insert(key, Row { version: self.version, value });
        }
        Ok(())
    }
}
