//! A machine's durable store, kept outside of the world.
//!
//! As fabric's: one writer, in order, and a commit takes time. At a crash, what was acknowledged is there;
//! of what was not, a seeded number of the first commits is there and the rest is not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fusion_runtime::store::{Batch, Key, MemoryStore, Row, StoreError};
use fusion_runtime::{Clock, Entropy, Store, Tasks};

use crate::engines::evidence::lock;

/// The least time a commit takes, microseconds, and how much more it may take.
const COMMIT_US: (u64, u64) = (300, 700);

/// Rows, and the commits on their way to them. Clones are the same disk.
#[derive(Clone)]
pub(super) struct Disk {
    rows: MemoryStore,
    pending: Arc<Mutex<Pending>>,
    entropy: Entropy,
}

#[derive(Default)]
struct Pending {
    next_ticket: u64,
    batches: BTreeMap<u64, Batch>,
}

/// A disk as one life of a machine sees it.
pub(super) struct DiskStore {
    disk: Disk,
    clock: Clock,
    tasks: Tasks,
    writer: Arc<tokio::sync::Mutex<()>>,
}

impl Disk {
    pub(super) fn new(entropy: Entropy) -> Self {
        Self { rows: MemoryStore::new(), pending: Arc::default(), entropy }
    }

    /// The store of a new life, whose commits end with its `tasks`.
    pub(super) fn store(&self, clock: Clock, tasks: Tasks) -> DiskStore {
        DiskStore { disk: self.clone(), clock, tasks, writer: Arc::default() }
    }

    /// Every row there is now.
    pub(super) fn rows(&self) -> BTreeMap<Key, Row> {
        self.rows.snapshot()
    }

    /// The machine has crashed: some of the first commits in flight are on the disk, the rest is lost.
    pub(super) fn cut(&self) {
        let batches = std::mem::take(&mut lock(&self.pending).batches);
        let written = self.entropy.below(batches.len() as u64 + 1) as usize;
        for batch in batches.into_values().take(written) {
            // Nobody is left to hear of a conflict.
            let _ = self.rows.apply(batch);
        }
    }

    fn queue(&self, batch: Batch) -> u64 {
        let mut pending = lock(&self.pending);
        let ticket = pending.next_ticket;
        pending.next_ticket += 1;
        pending.batches.insert(ticket, batch);
        ticket
    }

    fn write(&self, ticket: u64) -> Result<(), StoreError> {
        let batch = lock(&self.pending).batches.remove(&ticket);
        batch.map_or(Err(StoreError::Closed), |batch| self.rows.apply(batch))
    }
}

#[async_trait]
impl Store for DiskStore {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.disk.rows.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        self.disk.rows.scan(from, until, limit).await
    }

    /// Goes on when its caller is gone.
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let ticket = self.disk.queue(batch);
        let (disk, clock, writer) = (self.disk.clone(), self.clock.clone(), self.writer.clone());
        let write = self.tasks.spawn(async move {
            let _turn = writer.lock().await;
            let (least, more) = COMMIT_US;
            clock.sleep(Duration::from_micros(least + disk.entropy.below(more + 1))).await;
            disk.write(ticket)
        });
        write.join().await.unwrap_or(Err(StoreError::Closed))
    }
}

#[cfg(test)]
mod tests {
    use fusion_runtime::Timestamp;

    use super::*;

    fn put(key: &str) -> Batch {
        let mut batch = Batch::default();
        batch.put(Key::of(&[key.as_bytes()]), "row");
        batch
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_acknowledged_is_there_after_a_crash_and_of_the_rest_a_beginning() {
        let disk = Disk::new(Entropy::from_u64(7));
        let (clock, tasks) = (Clock::starting_at(Timestamp(0)), Tasks::default());
        let store = Arc::new(disk.store(clock, tasks.clone()));
        store.commit(put("kept")).await.unwrap();
        for n in 0..5 {
            let store = store.clone();
            tasks.spawn(async move { store.commit(put(&format!("late-{n}"))).await });
        }
        tokio::task::yield_now().await;
        assert_eq!(lock(&disk.pending).batches.len(), 5);

        tasks.abort_all();
        disk.cut();

        let kept: Vec<_> = disk.rows().into_keys().collect();
        let expected = ["kept", "late-0", "late-1", "late-2", "late-3", "late-4"];
        let expected = expected.map(|key| Key::of(&[key.as_bytes()]));
        assert!(!kept.is_empty() && kept == expected[..kept.len()], "{kept:?}");
    }
}
