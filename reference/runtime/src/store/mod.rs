//! Durable rows behind one small contract, made for pure machines: load, decide, commit.
//!
//! Back-ends: [`MemoryStore`] for simulated worlds, [`EmbeddedStore`] for one machine. All of them run
//! the same conformance tests (`conformance.rs`).
//!
//! Not here: what the rows mean, and repeating a refused decision (the service that decided does it).

#[cfg(test)]
mod conformance;
#[cfg(not(madsim))]
mod embedded;
#[cfg(not(madsim))]
mod file;
mod memory;
#[cfg(not(madsim))]
mod sim_disk;

use std::sync::Arc;

#[cfg(not(madsim))]
pub use embedded::{EmbeddedStore, OpenError};
pub use memory::MemoryStore;
#[cfg(not(madsim))]
pub use sim_disk::{Damage, DiskFault, SimDisk};

use async_trait::async_trait;
use bytes::Bytes;

/// The key of a row: parts joined so that the order of keys is the order of their parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

/// A row as read: its value and the version that a precondition can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Goes up with every commit that writes the row; never reused, not even after a deletion.
    pub version: u64,
    /// What was written.
    pub value: Bytes,
}

/// What must still be true of a row when a commit is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The row does not exist.
    Absent,
    /// The row exists in this version.
    Version(u64),
}

/// One atomic change. Removals come first: a row that is both removed and written is written.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// All must hold, or nothing is written.
    pub expects: Vec<(Key, Expect)>,
    /// Rows written.
    pub puts: Vec<(Key, Bytes)>,
    /// Rows removed.
    pub deletes: Vec<Key>,
}

/// Why the store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A precondition did not hold: load again and decide again.
    #[error("a row has changed since it was read")]
    Conflict,
    /// The disk is full or refuses: nothing was written, nothing acknowledged is lost.
    #[error("the store cannot write: {0}")]
    Refused(String),
    /// The machine has crashed, or the store is closed: whether a commit was written is unknown.
    #[error("the store is closed")]
    Closed,
}

/// A store of rows. Every call is atomic; a successful commit is durable when it returns.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The rows of `keys`, in that order, as of one moment.
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError>;

    /// Rows whose key is at least `from` and below `until`, in key order, at most `limit`.
    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError>;

    /// Applies the batch, or nothing of it. A commit that is no longer waited for may still happen.
    async fn commit(&self, batch: Batch) -> Result<(), StoreError>;
}

impl Key {
    /// Joins `parts`. Each part is escaped and ended, so that no part can run into the next and
    /// `("a","b") < ("a","c") < ("ab")`.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut joined = Vec::with_capacity(parts.iter().map(|part| part.len() + 2).sum());
        for part in parts {
            for &byte in *part {
                joined.push(byte);
                if byte == 0 {
                    joined.push(0xff);
                }
            }
            joined.extend_from_slice(&[0, 1]);
        }
        Self(joined.into())
    }

    /// The key just after every key that starts with this one's parts: `scan(&prefix, &prefix.end(), n)`
    /// reads all rows below `prefix`. Of the key without parts: after every key whose first part does
    /// not begin with 256 bytes of 0xff.
    #[must_use]
    pub fn end(&self) -> Self {
        let mut bytes = self.0.to_vec();
        match bytes.last_mut() {
            // A part ends with 0 1; nothing that goes on from there, and nothing else, lies before 0 2.
            Some(last) => *last += 1,
            None => bytes.resize(256, 0xff),
        }
        Self(bytes.into())
    }

    /// The parts this key was made of.
    #[must_use]
    pub fn parts(&self) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        let mut part = Vec::new();
        let mut bytes = self.0.iter().copied();
        while let Some(byte) = bytes.next() {
            match (byte, if byte == 0 { bytes.next() } else { None }) {
                (0, Some(1)) => parts.push(std::mem::take(&mut part)),
                _ => part.push(byte),
            }
        }
        parts
    }

    /// The key's bytes, ordered as the store orders.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A key read back from a back-end.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Batch {
    /// Adds a precondition: the row is still as it was read.
    pub fn expect(&mut self, key: &Key, read: Option<&Row>) -> &mut Self {
        let expect = read.map_or(Expect::Absent, |row| Expect::Version(row.version));
        self.expects.push((key.clone(), expect));
        self
    }

    /// Adds a write.
    pub fn put(&mut self, key: Key, value: impl Into<Bytes>) -> &mut Self {
        self.puts.push((key, value.into()));
        self
    }

    /// Adds a removal.
    pub fn delete(&mut self, key: Key) -> &mut Self {
        self.deletes.push(key);
        self
    }

    /// Takes over everything of `other`.
    pub fn merge(&mut self, other: Self) -> &mut Self {
        self.expects.extend(other.expects);
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
        self
    }

    /// Whether it would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }
}

#[async_trait]
impl<S: Store + ?Sized> Store for Arc<S> {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        (**self).get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        (**self).scan(from, until, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        (**self).commit(batch).await
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Parts of bytes that the encoding treats differently, and of any.
    fn parts() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let byte = prop_oneof![Just(0), Just(1), Just(2), Just(0xfe), Just(0xff), any::<u8>()];
        vec(vec(byte, 0..4), 0..4)
    }

    fn key(parts: &[Vec<u8>]) -> Key {
        Key::of(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn keys_are_ordered_as_their_parts(a in parts(), b in parts()) {
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
        }

        #[test]
        fn a_key_gives_its_parts_back(a in parts()) {
            prop_assert_eq!(key(&a).parts(), a);
        }

        #[test]
        fn a_range_to_the_end_holds_what_starts_with_the_parts_and_nothing_else(a in parts(), b in parts()) {
            prop_assume!(!a.is_empty());
            let (prefix, other) = (key(&a), key(&b));
            prop_assert_eq!(prefix <= other && other < prefix.end(), b.starts_with(&a));
        }
    }
}
