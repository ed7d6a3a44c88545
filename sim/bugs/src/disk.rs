//! Disks of clusters that keep something other than what they are given.
//!
//! Each machine has a [`Clerk`] of its own, from its start to its end, between the services and the disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use fusion_deployment::{Hooks, Role};
use fusion_mutants::wrap::{is_cluster, is_of};
use fusion_runtime::store::{Batch, Expect, Key, Row, Store, StoreError};
use serde_json::Value;

use crate::lock;

/// What it was given and what it gives back, of many rows.
pub(crate) type Rows = Vec<(Key, Row)>;

/// What is scanned for.
pub(crate) struct Range<'k> {
    pub(crate) from: &'k Key,
    pub(crate) until: &'k Key,
    pub(crate) limit: usize,
}

/// Stands between a cluster's services and its disk, which is asked in any case: what is wrong here is not
/// how long it takes. What it does not say goes through.
#[async_trait]
pub(crate) trait Clerk: Send + Sync + 'static {
    /// What it says of these keys, where this was found.
    fn got(&self, _: &[Key], found: Vec<Option<Row>>) -> Vec<Option<Row>> {
        found
    }

    /// What it says of a range, where this was found.
    fn scanned(&self, _: &Range<'_>, found: Rows) -> Rows {
        found
    }

    async fn commit(&self, disk: &dyn Store, batch: Batch) -> Result<(), StoreError> {
        disk.commit(batch).await
    }
}

/// Every cluster has such a clerk, a new one at each start.
pub(crate) fn kept_by<C: Clerk>(clerk: fn() -> C) -> Hooks {
    let wrap = move |role: &Role, disk: Arc<dyn Store>| match is_cluster(role) {
        true => Arc::new(Desk { disk, clerk: clerk() }) as Arc<dyn Store>,
        false => disk,
    };
    Hooks { wrap_store: Some(Arc::new(wrap)), ..Hooks::default() }
}

/// Whether a batch writes a row of this concept.
pub(crate) fn writes(batch: &Batch, concept: &str) -> bool {
    batch.puts.iter().any(|(key, _)| is_of(key, &[concept]))
}

/// One part of a row's key, as text.
pub(crate) fn part(key: &Key, at: usize) -> Option<String> {
    String::from_utf8(key.parts().into_iter().nth(at)?).ok()
}

/// The value with what it says changed; as it was, where it is not JSON.
pub(crate) fn edited(value: &[u8], edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let Ok(mut said) = serde_json::from_slice::<Value>(value) else { return value.to_vec() };
    edit(&mut said);
    serde_json::to_vec(&said).unwrap_or_else(|_| value.to_vec())
}

/// Takes the writes of some rows out of a batch.
pub(crate) fn taken_out(batch: &mut Batch, is_meant: impl Fn(&Key) -> bool) -> Batch {
    Batch {
        expects: Vec::new(),
        puts: batch.puts.extract_if(.., |(key, _)| is_meant(key)).collect(),
        deletes: batch.deletes.extract_if(.., |key| is_meant(key)).collect(),
    }
}

/// Commits twice, if there is anything for the second time.
pub(crate) async fn in_two_steps(disk: &dyn Store, first: Batch, second: Batch) -> Result<(), StoreError> {
    disk.commit(first).await?;
    if second.is_empty() { Ok(()) } else { disk.commit(second).await }
}

struct Desk<C> {
    disk: Arc<dyn Store>,
    clerk: C,
}

#[async_trait]
impl<C: Clerk> Store for Desk<C> {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        Ok(self.clerk.got(keys, self.disk.get(keys).await?))
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Rows, StoreError> {
        let found = self.disk.scan(from, until, limit).await?;
        Ok(self.clerk.scanned(&Range { from, until, limit }, found))
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.clerk.commit(&*self.disk, batch).await
    }
}

/// Keeps the rows of some concepts in memory only: they are gone with the process.
pub(crate) struct Forgetful {
    concepts: &'static [&'static str],
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    version: u64,
    rows: BTreeMap<Key, Row>,
}

impl Forgetful {
    pub(crate) fn of(concepts: &'static [&'static str]) -> Self {
        Self { concepts, memory: Mutex::default() }
    }

    fn mine(&self, key: &Key) -> bool {
        is_of(key, self.concepts)
    }
}

impl Memory {
    fn admits(&self, expects: &[(Key, Expect)]) -> bool {
        expects.iter().all(|(key, expect)| match expect {
            Expect::Absent => !self.rows.contains_key(key),
            Expect::Version(version) => self.rows.get(key).is_some_and(|row| row.version == *version),
        })
    }

    fn apply(&mut self, batch: Batch) {
        self.version += 1;
        for key in &batch.deletes {
            self.rows.remove(key);
        }
        for (key, value) in batch.puts {
            self.rows.insert(key, Row { version: self.version, value });
        }
    }
}

#[async_trait]
impl Clerk for Forgetful {
    fn got(&self, keys: &[Key], mut found: Vec<Option<Row>>) -> Vec<Option<Row>> {
        let memory = lock(&self.memory);
        for (key, row) in keys.iter().zip(&mut found).filter(|(key, _)| self.mine(key)) {
            *row = memory.rows.get(key).cloned();
        }
        found
    }

    fn scanned(&self, asked: &Range<'_>, found: Rows) -> Rows {
        if !self.mine(asked.from) || asked.from >= asked.until {
            return found;
        }
        let memory = lock(&self.memory);
        let range = memory.rows.range(asked.from.clone()..asked.until.clone()).take(asked.limit);
        range.map(|(key, row)| (key.clone(), row.clone())).collect()
    }

    async fn commit(&self, disk: &dyn Store, mut batch: Batch) -> Result<(), StoreError> {
        let expects: Vec<_> = batch.expects.extract_if(.., |(key, _)| self.mine(key)).collect();
        if !lock(&self.memory).admits(&expects) {
            return Err(StoreError::Conflict);
        }
        let remembered = taken_out(&mut batch, |key| self.mine(key));
        disk.commit(batch).await?;
        lock(&self.memory).apply(remembered);
        Ok(())
    }
}

/// Writes some rows of a batch in a commit of their own, after the others.
pub(crate) struct InSteps {
    /// Whether the batch is written in two.
    pub(crate) concerns: fn(&Batch) -> bool,
    /// Whether a row is written in the second step.
    pub(crate) second: fn(&Key) -> bool,
}

#[async_trait]
impl Clerk for InSteps {
    async fn commit(&self, disk: &dyn Store, mut batch: Batch) -> Result<(), StoreError> {
        if !(self.concerns)(&batch) {
            return disk.commit(batch).await;
        }
        let second = taken_out(&mut batch, self.second);
        in_two_steps(disk, batch, second).await
    }
}

/// Changes what is written.
pub(crate) struct Editing(pub(crate) fn(&mut Batch));

#[async_trait]
impl Clerk for Editing {
    async fn commit(&self, disk: &dyn Store, mut batch: Batch) -> Result<(), StoreError> {
        (self.0)(&mut batch);
        disk.commit(batch).await
    }
}

/// Changes what is read of the rows of one concept.
pub(crate) struct Misreading {
    /// Whose rows.
    pub(crate) concept: &'static str,
    /// What becomes of what such a row says.
    pub(crate) edit: fn(&mut Value),
}

impl Misreading {
    fn misread(&self, key: &Key, row: &mut Row) {
        if is_of(key, &[self.concept]) {
            row.value = edited(&row.value, self.edit).into();
        }
    }
}

impl Clerk for Misreading {
    fn got(&self, keys: &[Key], mut found: Vec<Option<Row>>) -> Vec<Option<Row>> {
        let rows = keys.iter().zip(&mut found).filter_map(|(key, row)| Some((key, row.as_mut()?)));
        rows.for_each(|(key, row)| self.misread(key, row));
        found
    }

    fn scanned(&self, _: &Range<'_>, mut found: Rows) -> Rows {
        found.iter_mut().for_each(|(key, row)| self.misread(key, row));
        found
    }
}
