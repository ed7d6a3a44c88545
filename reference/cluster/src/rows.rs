//! Typed rows of the store: load, decide, commit.
//!
//! The pattern of every command: hold the object's lock, then `loop { load; decide; match
//! commit(batch).await? { Committed::Yes => break, Committed::Again => continue } }`.

use fusion_protocol::{Code, Problem};
use fusion_runtime::store::{Batch, Key, Row, Store, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A row as loaded, present or not.
pub(crate) struct Loaded<T> {
    key: Key,
    row: Option<Row>,
    /// What it says.
    pub(crate) value: Option<T>,
}

/// Whether a commit was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Committed {
    /// It is durable.
    Yes,
    /// A row has changed meanwhile: load and decide again.
    Again,
}

/// The key of a row: its concept, then what identifies it.
pub(crate) fn key(concept: &str, parts: &[&str]) -> Key {
    let parts: Vec<&[u8]> =
        std::iter::once(concept).chain(parts.iter().copied()).map(str::as_bytes).collect();
    Key::of(&parts)
}

/// Loads one row.
pub(crate) async fn load<T: DeserializeOwned>(store: &dyn Store, key: Key) -> Result<Loaded<T>, Problem> {
    let row = store.get(std::slice::from_ref(&key)).await.map_err(refused)?.pop().flatten();
    let value = row.as_ref().map(read).transpose()?;
    Ok(Loaded { key, row, value })
}

/// Loads several rows as of one moment, in the order of `keys`.
pub(crate) async fn load_all<T: DeserializeOwned>(
    store: &dyn Store,
    keys: Vec<Key>,
) -> Result<Vec<Loaded<T>>, Problem> {
    let rows = store.get(&keys).await.map_err(refused)?;
    let loaded = keys.into_iter().zip(rows).map(|(key, row)| {
        let value = row.as_ref().map(read).transpose()?;
        Ok(Loaded { key, row, value })
    });
    loaded.collect()
}

/// Loads rows whose key starts with `prefix`, in order, at most `limit`.
pub(crate) async fn list<T: DeserializeOwned>(
    store: &dyn Store,
    prefix: &Key,
    limit: usize,
) -> Result<Vec<Loaded<T>>, Problem> {
    list_range(store, prefix, &prefix.end(), limit).await
}

/// Loads rows from `from` until before `until`, in order, at most `limit`.
pub(crate) async fn list_range<T: DeserializeOwned>(
    store: &dyn Store,
    from: &Key,
    until: &Key,
    limit: usize,
) -> Result<Vec<Loaded<T>>, Problem> {
    let rows = store.scan(from, until, limit).await.map_err(refused)?;
    rows.into_iter().map(|(key, row)| Ok(Loaded { key, value: Some(read(&row)?), row: Some(row) })).collect()
}

/// Applies `batch`.
pub(crate) async fn commit(store: &dyn Store, batch: Batch) -> Result<Committed, Problem> {
    match store.commit(batch).await {
        Ok(()) => Ok(Committed::Yes),
        Err(StoreError::Conflict) => Ok(Committed::Again),
        Err(error) => Err(refused(error)),
    }
}

/// Adds an unconditional write.
pub(crate) fn put(batch: &mut Batch, key: Key, value: &impl Serialize) {
    batch.put(key, encode(value));
}

impl<T: Serialize> Loaded<T> {
    /// The row's key.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Writes `value`, provided the row is still as it was loaded.
    pub(crate) fn save(&self, batch: &mut Batch, value: &T) {
        batch.expect(&self.key, self.row.as_ref());
        batch.put(self.key.clone(), encode(value));
    }

    /// Removes the row, provided it is still as it was loaded.
    pub(crate) fn remove(&self, batch: &mut Batch) {
        batch.expect(&self.key, self.row.as_ref());
        batch.delete(self.key.clone());
    }

    /// Demands that the row is still as it was loaded.
    pub(crate) fn unchanged(&self, batch: &mut Batch) {
        batch.expect(&self.key, self.row.as_ref());
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("rows are plain data: string keys, no failing Serialize")
}

fn read<T: DeserializeOwned>(row: &Row) -> Result<T, Problem> {
    // Never quote serde's message: it can contain what the row says (PRI-005).
    serde_json::from_slice(&row.value)
        .map_err(|_| Problem::new(Code::Internal).detail("a stored row cannot be read"))
}

/// The store could not: nothing was written (a full disk never loses an acknowledged write).
pub(crate) fn refused(error: StoreError) -> Problem {
    match error {
        StoreError::Conflict => Problem::new(Code::Unavailable).detail("too much contention on one object"),
        StoreError::Refused(_) | StoreError::Closed => {
            Problem::new(Code::Unavailable).detail("the store cannot write now")
        }
    }
}
