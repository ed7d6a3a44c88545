//! Devices and notifications gone wrong: stores that lose or disorder what devices are owed.

mod queues;
mod sockets;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use fusion_deployment::Hooks;
use fusion_runtime::store::{Batch, Key, Row, Store, StoreError};
use serde_json::Value;

use crate::Mutant;
use crate::wrap::{is_of, stores};

pub(crate) use queues::{EPOCHS_FORGOTTEN, IDS_CHANGE, IN_STEP, LAST_LEFT_OUT, NUMBERED_LATE, ORDER_CHANGES};
pub(crate) use sockets::OLDER_STAYS_OPEN;

/// MER-001: only one of a user's devices is told.
pub(crate) const ONE_DEVICE_ONLY: Mutant =
    Mutant { name: "one-device-only", hooks: || stores(|store| Arc::new(OneDevice(store))) };

/// MER-002: now and then an event of a device is thrown away.
pub(crate) const EVENT_DROPPED: Mutant =
    Mutant { name: "event-dropped", hooks: || commits(drop_every_fourth) };

/// MER-002: now and then a number is left out.
pub(crate) const NUMBER_SKIPPED: Mutant = Mutant { name: "number-skipped", hooks: || commits(skip_a_number) };

/// MER-005: what was sent counts as acknowledged.
pub(crate) const SENT_IS_TAKEN: Mutant = Mutant {
    name: "sent-counts-as-taken",
    hooks: || stores(|store| Arc::new(Once { store, given: Mutex::default() })),
};

/// MER-005: sockets are not numbered, so that an older one is not fenced.
pub(crate) const NOT_FENCED: Mutant =
    Mutant { name: "older-socket-not-fenced", hooks: || commits(forget_session) };

/// Changes what clusters write.
pub(crate) fn commits(edit: fn(&mut Batch)) -> Hooks {
    let wrap =
        move |role: &fusion_deployment::Role, store: Arc<dyn Store>| match crate::wrap::is_cluster(role) {
            true => Arc::new(Edited { store, edit }) as Arc<dyn Store>,
            false => store,
        };
    Hooks { wrap_store: Some(Arc::new(wrap)), ..Hooks::default() }
}

/// Changes the JSON of the rows of a concept that a batch writes.
pub(crate) fn edit_rows(batch: &mut Batch, concept: &str, edit: impl Fn(&mut Value)) {
    for (_, bytes) in batch.puts.iter_mut().filter(|(key, _)| is_of(key, &[concept])) {
        if let Ok(mut row) = serde_json::from_slice::<Value>(bytes) {
            edit(&mut row);
            *bytes = serde_json::to_vec(&row).unwrap_or_default().into();
        }
    }
}

/// Throws away the rows of events that `lost` chooses.
pub(crate) fn lose_events(batch: &mut Batch, lost: impl Fn(&Value) -> bool) {
    let chosen = |bytes: &[u8]| serde_json::from_slice(bytes).is_ok_and(|row: Value| lost(&row));
    batch.puts.retain(|(key, bytes)| !(is_of(key, &["device-event"]) && chosen(bytes)));
}

fn drop_every_fourth(batch: &mut Batch) {
    lose_events(batch, |event| event["seq"].as_u64().is_some_and(|seq| seq % 4 == 0));
}

fn skip_a_number(batch: &mut Batch) {
    edit_rows(batch, "device-tail", |tail| {
        if let Some(last) = tail["last"].as_u64().filter(|last| last % 4 == 3) {
            tail["last"] = (last + 1).into();
        }
    });
}

fn forget_session(batch: &mut Batch) {
    edit_rows(batch, "device-head", |head| head["session"] = 0.into());
}

struct Edited {
    store: Arc<dyn Store>,
    edit: fn(&mut Batch),
}

#[async_trait]
impl Store for Edited {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.store.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        self.store.scan(from, until, limit).await
    }

    async fn commit(&self, mut batch: Batch) -> Result<(), StoreError> {
        (self.edit)(&mut batch);
        self.store.commit(batch).await
    }
}

/// A store that finds one device of a user.
struct OneDevice(Arc<dyn Store>);

#[async_trait]
impl Store for OneDevice {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.0.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        let limit = if is_of(from, &["device-tail"]) { 1 } else { limit };
        self.0.scan(from, until, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.0.commit(batch).await
    }
}

/// A store that gives each event out once.
struct Once {
    store: Arc<dyn Store>,
    given: Mutex<BTreeSet<Key>>,
}

#[async_trait]
impl Store for Once {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.store.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        let mut rows = self.store.scan(from, until, limit).await?;
        // A look at one event is only a look.
        if limit > 1 && is_of(from, &["device-event"]) {
            let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
            rows.retain(|(key, _)| given.insert(key.clone()));
        }
        Ok(rows)
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.store.commit(batch).await
    }
}
