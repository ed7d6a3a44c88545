//! A machine's durable store.
//!
//! One writer, in order: a commit waits for those before it and takes virtual time. It goes on when
//! its caller is gone. At a crash, what was acknowledged is there; of what was not, a seeded number of
//! the first commits is there and the rest is not, as with a log cut anywhere. Reading takes no time.
//!
//! A commit is there whole or not at all, as the contract of [`Store`] says. Sectors that are lost or torn
//! are beneath that contract: the tests of the embedded store let it meet them on a disk of its own
//! (`fusion_runtime::store::SimDisk`).

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use fusion_runtime::store::{Batch, Key, MemoryStore, Row, StoreError};
use fusion_runtime::{Entropy, Store};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::fault::FaultId;
use super::host::{HostId, Incarnation};
use super::world::{Event, Shared, State};

/// How disks behave when nothing is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiskOptions {
    /// The least time a commit takes, microseconds.
    pub commit_us_min: u64,
    /// And up to this much more, microseconds.
    pub commit_us_jitter: u64,
}

/// Rows, and the commits on their way to them.
pub(super) struct Disk {
    rows: MemoryStore,
    pending: VecDeque<Pending>,
    next_ticket: u64,
    writer_free_us: u64,
    entropy: Entropy,
    /// Decides which commits meet an error.
    luck: Entropy,
    options: DiskOptions,
    pub(super) slow: Option<(FaultId, u64)>,
    pub(super) full: Option<FaultId>,
    pub(super) errors: Option<(FaultId, f64)>,
}

struct Pending {
    ticket: u64,
    batch: Batch,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

/// The store as one incarnation of a machine sees it.
pub(super) struct DiskStore {
    pub(super) shared: Arc<Shared>,
    pub(super) machine: Incarnation,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self { commit_us_min: 300, commit_us_jitter: 700 }
    }
}

impl Disk {
    pub(super) fn new(options: DiskOptions, entropy: Entropy) -> Self {
        Self {
            rows: MemoryStore::new(),
            pending: VecDeque::new(),
            next_ticket: 0,
            writer_free_us: 0,
            luck: entropy.stream("errors"),
            entropy,
            options,
            slow: None,
            full: None,
            errors: None,
        }
    }

    /// Every row, in key order.
    pub(super) fn dump(&self) -> Vec<(Key, Row)> {
        self.rows.snapshot().into_iter().collect()
    }

    /// How many commits are on their way.
    pub(super) fn commits_waiting(&self) -> usize {
        self.pending.len()
    }

    /// Power is gone: some of the first commits in flight are on the disk, the rest is lost.
    pub(super) fn cut(&mut self) {
        let written = self.entropy.below(self.pending.len() as u64 + 1);
        for (place, pending) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            if (place as u64) < written && self.full.is_none() {
                // Nobody is left to hear of a conflict.
                let _ = self.rows.apply(pending.batch);
            }
        }
        self.writer_free_us = 0;
    }

    /// The rows of these tables are gone; says how many. What is on its way to the disk meets that.
    pub(super) fn lose(&mut self, tables: &[String]) -> u64 {
        let is_lost = |key: &Key| {
            let table = key.parts().into_iter().next().unwrap_or_default();
            tables.iter().any(|lost| lost.as_bytes() == table)
        };
        let mut batch = Batch::default();
        batch.deletes.extend(self.rows.snapshot().into_keys().filter(is_lost));
        let lost = batch.deletes.len() as u64;
        // Without preconditions there is no conflict.
        let _ = self.rows.apply(batch);
        lost
    }

    /// Why the next commit is refused, and whose fault that is.
    fn refusal(&self) -> Option<(FaultId, &'static str)> {
        if let Some(fault) = self.full {
            return Some((fault, "no space left on the disk"));
        }
        let (fault, probability) = self.errors?;
        // A stream of its own: how long commits take stays as it is.
        let is_refused = self.luck.chance(probability);
        is_refused.then_some((fault, "input/output error of the disk"))
    }

    /// Queues a commit; says when it will be done.
    fn queue(
        &mut self,
        now_us: u64,
        batch: Batch,
        reply: oneshot::Sender<Result<(), StoreError>>,
    ) -> (u64, u64) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.pending.push_back(Pending { ticket, batch, reply });
        let slow_us = self.slow.map_or(0, |(_, us)| us);
        let takes_us =
            self.options.commit_us_min + self.entropy.below(self.options.commit_us_jitter + 1) + slow_us;
        self.writer_free_us = self.writer_free_us.max(now_us) + takes_us;
        (ticket, self.writer_free_us)
    }
}

impl State {
    /// The commit `ticket` is through, unless the machine has crashed since.
    pub(super) fn on_committed(&mut self, host: HostId, ticket: u64) {
        let disk = &mut self.host_mut(host).disk;
        if disk.pending.front().is_none_or(|first| first.ticket != ticket) {
            return;
        }
        let Some(Pending { batch, reply, .. }) = disk.pending.pop_front() else { return };
        let refused = disk.refusal();
        let done = match refused {
            Some((_, why)) => Err(StoreError::Refused(why.into())),
            None => disk.rows.apply(batch),
        };
        // The caller may have stopped waiting; the commit stands all the same.
        let _ = reply.send(done);
        if let Some((fault, _)) = refused {
            self.faults.took_effect(fault);
        }
    }

    fn begin_commit(
        &mut self,
        machine: Incarnation,
        batch: Batch,
    ) -> Result<oneshot::Receiver<Result<(), StoreError>>, StoreError> {
        let now_us = self.now_us();
        let disk = self.disk(machine)?;
        let (reply, done) = oneshot::channel();
        let (ticket, due_us) = disk.queue(now_us, batch, reply);
        if let Some((fault, _)) = disk.slow {
            self.faults.took_effect(fault);
        }
        self.agenda.push(due_us, Event::Committed { host: machine.host, ticket });
        Ok(done)
    }

    /// The disk, unless `machine` is a zombie.
    fn disk(&mut self, machine: Incarnation) -> Result<&mut Disk, StoreError> {
        if !self.is_alive(machine) {
            return Err(StoreError::Closed);
        }
        Ok(&mut self.host_mut(machine.host).disk)
    }
}

#[async_trait]
impl Store for DiskStore {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.rows()?.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        self.rows()?.scan(from, until, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let done = self.shared.lock().begin_commit(self.machine, batch)?;
        done.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl DiskStore {
    /// The rows, unless this is a zombie's store.
    fn rows(&self) -> Result<MemoryStore, StoreError> {
        Ok(self.shared.lock().disk(self.machine)?.rows.clone())
    }
}
