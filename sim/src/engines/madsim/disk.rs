//! A machine's disk: rows that outlive its crashes, and commits that take their time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fusion_runtime::Clock;
use fusion_runtime::store::{Batch, Key, MemoryStore, Row, Store, StoreError};

/// How long a commit takes where nothing is wrong.
const COMMIT: Duration = Duration::from_millis(1);

/// A disk. Clones are the same one.
///
/// Every call lets other tasks go first: what happens between a load and its commit is what the races
/// are about. A crash falls before a commit, after it, or between the commit and its acknowledgement.
#[derive(Clone)]
pub(super) struct Disk {
    rows: MemoryStore,
    clock: Clock,
    slower_by_ms: Arc<AtomicU64>,
    full: Arc<AtomicBool>,
}

impl Disk {
    pub(super) fn new(clock: Clock) -> Self {
        Self { rows: MemoryStore::new(), clock, slower_by_ms: Arc::default(), full: Arc::default() }
    }

    /// Every row there is now.
    pub(super) fn rows(&self) -> &MemoryStore {
        &self.rows
    }

    /// What is wrong with it from now on.
    pub(super) fn fault(&self, slower_by_ms: u64, full: bool) {
        self.slower_by_ms.store(slower_by_ms, Ordering::Relaxed);
        self.full.store(full, Ordering::Relaxed);
    }
}

#[async_trait]
impl Store for Disk {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        tokio::task::yield_now().await;
        self.rows.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        tokio::task::yield_now().await;
        self.rows.scan(from, until, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let slower_by = Duration::from_millis(self.slower_by_ms.load(Ordering::Relaxed));
        self.clock.sleep(COMMIT + slower_by).await;
        if self.full.load(Ordering::Relaxed) {
            return Err(StoreError::Refused("no space left".to_owned()));
        }
        let committed = self.rows.apply(batch);
        tokio::task::yield_now().await;
        committed
    }
}
