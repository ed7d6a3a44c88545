//! Queues of devices gone wrong: what is stored is right, what is given out is not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use fusion_protocol::Uuid;
use fusion_protocol::mercury::RETENTION_SECONDS;
use fusion_runtime::store::{Batch, Key, Row, Store, StoreError};
use serde_json::Value;

use crate::Mutant;
use crate::wrap::{is_of, stores};

/// How many rows of a queue are looked at in one go: more than any story has.
const QUEUE_MAX: usize = 20_000;
/// For how long an event is owed, in microseconds.
const OWED_US: u64 = RETENTION_SECONDS * 1_000_000;

/// MER-001: the last of a user's devices is left out.
pub(crate) const LAST_LEFT_OUT: Mutant =
    Mutant { name: "last-device-left-out", hooks: || stores(|store| queue(store, AllButOne)) };

/// MER-002: what comes again has another id.
pub(crate) const IDS_CHANGE: Mutant = Mutant {
    name: "repeated-event-has-another-id",
    hooks: || stores(|store| queue(store, Renamed::default())),
};

/// MER-002: what comes again comes in another order, under the same numbers.
pub(crate) const ORDER_CHANGES: Mutant =
    Mutant { name: "repeated-events-swapped", hooks: || stores(|store| queue(store, Swapped::default())) };

/// MER-003: numbers are given when an event is sent, so that what was given up leaves no gap.
pub(crate) const NUMBERED_LATE: Mutant =
    Mutant { name: "numbered-when-sent", hooks: || stores(|store| queue(store, Numbered::default())) };

/// MER-004: the devices of a user are told in step.
pub(crate) const IN_STEP: Mutant =
    Mutant { name: "devices-in-step", hooks: || stores(|store| queue(store, InStep::default())) };

/// MER-005: a cluster that starts forgets the epochs of sockets.
pub(crate) const EPOCHS_FORGOTTEN: Mutant = Mutant {
    name: "epochs-forgotten-at-start",
    hooks: || stores(|store| queue(store, Forgotten::default())),
};

/// What is wrong with the queues of a store.
trait Fault: Send + Sync + 'static {
    /// Whether the whole queue is wanted where a part of it is asked for.
    const WHOLE: bool = false;

    /// Changes what is found in a queue from `from` on; `device` is whose.
    fn found(&self, device: &[u8], from: u64, rows: &mut Vec<(Key, Row)>) {
        let _ = (device, from, rows);
    }

    /// Changes the list of a user's queues.
    fn listed(&self, rows: &mut Vec<(Key, Row)>) {
        let _ = rows;
    }

    /// Changes a single row that is read.
    fn read(&self, key: &Key, row: &mut Row) {
        let _ = (key, row);
    }

    /// Sees what is written.
    fn written(&self, batch: &Batch) {
        let _ = batch;
    }
}

struct Queues<F> {
    store: Arc<dyn Store>,
    fault: F,
}

fn queue<F: Fault>(store: Arc<dyn Store>, fault: F) -> Arc<dyn Store> {
    Arc::new(Queues { store, fault })
}

#[async_trait]
impl<F: Fault> Store for Queues<F> {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        let mut rows = self.store.get(keys).await?;
        for (key, row) in keys.iter().zip(&mut rows) {
            row.iter_mut().for_each(|row| self.fault.read(key, row));
        }
        Ok(rows)
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        let place = position(from).filter(|(_, from)| *from > 0);
        let Some((device, number)) = place else {
            let mut rows = self.store.scan(from, until, limit).await?;
            if is_of(from, &["device-tail"]) {
                self.fault.listed(&mut rows);
            }
            return Ok(rows);
        };
        let mut rows = match F::WHOLE {
            true => self.store.scan(&Key::of(&[b"device-event", &device]), until, QUEUE_MAX).await?,
            false => self.store.scan(from, until, limit).await?,
        };
        self.fault.found(&device, number, &mut rows);
        rows.truncate(limit);
        Ok(rows)
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let seen = batch.clone();
        self.store.commit(batch).await?;
        self.fault.written(&seen);
        Ok(())
    }
}

/// A device and a place in its queue.
fn position(key: &Key) -> Option<(Vec<u8>, u64)> {
    let mut parts = key.parts().into_iter();
    parts.next().filter(|first| first == b"device-event")?;
    let (device, place) = (parts.next()?, parts.next()?);
    Some((device, u64::from_str_radix(std::str::from_utf8(&place).ok()?, 16).ok()?))
}

/// Changes the JSON of a row.
fn edit(row: &mut Row, change: impl FnOnce(&mut Value)) {
    if let Ok(mut value) = serde_json::from_slice::<Value>(&row.value) {
        change(&mut value);
        row.value = serde_json::to_vec(&value).unwrap_or_default().into();
    }
}

fn json_of(row: &Row) -> Value {
    serde_json::from_slice(&row.value).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct AllButOne;

impl Fault for AllButOne {
    fn listed(&self, rows: &mut Vec<(Key, Row)>) {
        if rows.len() > 1 {
            rows.pop();
        }
    }
}

/// Remembers what was given out in good measure: not a look at a single event.
#[derive(Default)]
struct Renamed(Mutex<BTreeSet<Key>>);

impl Fault for Renamed {
    fn found(&self, _: &[u8], _: u64, rows: &mut Vec<(Key, Row)>) {
        let mut given = lock(&self.0);
        for (key, row) in rows {
            if !given.insert(key.clone()) {
                edit(row, |event| {
                    let id = event["id"].as_str().and_then(|id| id.parse::<Uuid>().ok()).unwrap_or_default();
                    event["id"] = Uuid::from_u128(!id.as_u128()).to_string().into();
                });
            }
        }
    }
}

#[derive(Default)]
struct Swapped(Mutex<BTreeSet<Key>>);

impl Fault for Swapped {
    fn found(&self, _: &[u8], _: u64, rows: &mut Vec<(Key, Row)>) {
        let mut given = lock(&self.0);
        let again: Vec<bool> = rows.iter().map(|(key, _)| !given.insert(key.clone())).collect();
        for (rows, again) in rows.chunks_exact_mut(2).zip(again.chunks_exact(2)) {
            let ([one, other], [true, true]) = (rows, again) else { continue };
            let (mut first, mut second) = (json_of(&one.1), json_of(&other.1));
            let (left, right) = (first["seq"].take(), second["seq"].take());
            (first["seq"], second["seq"]) = (right, left);
            edit(&mut one.1, |event| *event = second);
            edit(&mut other.1, |event| *event = first);
        }
    }
}

/// By device: the number under which each event was first given out.
#[derive(Default)]
struct Numbered(Mutex<BTreeMap<Vec<u8>, Vec<Value>>>);

impl Fault for Numbered {
    const WHOLE: bool = true;

    fn found(&self, device: &[u8], from: u64, rows: &mut Vec<(Key, Row)>) {
        let at_us = |row: &Row| json_of(row)["atUs"].as_u64().unwrap_or_default();
        let newest = rows.iter().map(|(_, row)| at_us(row)).max().unwrap_or_default();
        rows.retain(|(_, row)| at_us(row) + OWED_US > newest);
        let mut given = lock(&self.0);
        let given = given.entry(device.to_vec()).or_default();
        rows.retain_mut(|(_, row)| {
            let id = json_of(row)["id"].take();
            let place = given.iter().position(|known| *known == id).unwrap_or_else(|| {
                given.push(id);
                given.len() - 1
            });
            let number = place as u64 + 1;
            edit(row, |event| event["seq"] = number.into());
            number >= from
        });
    }
}

/// The queues of each user, and how far each device has got.
#[derive(Default)]
struct InStep(Mutex<Progress>);

#[derive(Default)]
struct Progress {
    owners: BTreeMap<Vec<u8>, Vec<u8>>,
    last: BTreeMap<Vec<u8>, u64>,
    acked: BTreeMap<Vec<u8>, u64>,
}

impl Progress {
    fn backlog(&self, device: &[u8]) -> u64 {
        let of = |map: &BTreeMap<Vec<u8>, u64>| map.get(device).copied().unwrap_or_default();
        of(&self.last).saturating_sub(of(&self.acked))
    }
}

impl Fault for InStep {
    fn found(&self, device: &[u8], _: u64, rows: &mut Vec<(Key, Row)>) {
        let progress = lock(&self.0);
        let owner = progress.owners.get(device);
        let family = progress.owners.iter().filter(|(_, of)| Some(*of) == owner).map(|(device, _)| device);
        let behind = family.map(|device| progress.backlog(device)).max().unwrap_or_default();
        let last = progress.last.get(device).copied().unwrap_or_default();
        let until = (last + 1).saturating_sub(behind);
        rows.retain(|(_, row)| behind < 2 || json_of(row)["seq"].as_u64().is_some_and(|seq| seq <= until));
    }

    fn written(&self, batch: &Batch) {
        let mut progress = lock(&self.0);
        for (key, bytes) in &batch.puts {
            let parts = key.parts();
            let Ok(row) = serde_json::from_slice::<Value>(bytes) else { continue };
            match parts.as_slice() {
                [concept, owner, device] if concept == b"device-tail" => {
                    progress.owners.insert(device.clone(), owner.clone());
                    progress.last.insert(device.clone(), row["last"].as_u64().unwrap_or_default());
                }
                [concept, device] if concept == b"device-head" => {
                    progress.acked.insert(device.clone(), row["acked"].as_u64().unwrap_or_default());
                }
                _ => {}
            }
        }
    }
}

/// The heads that were written in this life: the others' epochs are forgotten.
#[derive(Default)]
struct Forgotten(Mutex<BTreeSet<Key>>);

impl Fault for Forgotten {
    fn read(&self, key: &Key, row: &mut Row) {
        if is_of(key, &["device-head"]) && !lock(&self.0).contains(key) {
            edit(row, |head| head["session"] = 0.into());
        }
    }

    fn written(&self, batch: &Batch) {
        let heads = batch.puts.iter().map(|(key, _)| key).filter(|key| is_of(key, &["device-head"]));
        lock(&self.0).extend(heads.cloned());
    }
}
