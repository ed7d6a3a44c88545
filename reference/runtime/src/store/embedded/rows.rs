//! How rows lie in redb, and the reading of them.

use bytes::Bytes;
use redb::{Database, Error, ReadableDatabase as _, StorageBackend, TableDefinition, TableError};

use super::super::{Key, Row};

/// The longest value of a row, in bytes.
pub(super) const VALUE_MAX: usize = 16 << 20;

/// A row's value is its version in 8 bytes, big-endian, and then what was written.
pub(super) const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

/// One entry: the version of the last commit. Versions are the store's, so that none comes twice.
pub(super) const VERSION: TableDefinition<'_, (), u64> = TableDefinition::new("version");

/// redb's page cache.
const CACHE_BYTES: usize = 64 << 20;

/// Opens what lies in `storage`, with both tables there.
pub(super) fn open(storage: impl StorageBackend) -> Result<Database, Error> {
    let database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(storage)?;
    if version(&database)?.is_none() {
        let transaction = database.begin_write()?;
        transaction.open_table(ROWS)?;
        transaction.open_table(VERSION)?.insert((), 0)?;
        transaction.commit()?;
    }
    Ok(database)
}

/// The version of the last durable commit; none in a file that was just made.
pub(super) fn version(database: &Database) -> Result<Option<u64>, Error> {
    match database.begin_read()?.open_table(VERSION) {
        Ok(version) => Ok(version.get(())?.map(|version| version.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn get(database: &Database, keys: &[Key]) -> Result<Vec<Option<Row>>, Error> {
    let rows = database.begin_read()?.open_table(ROWS)?;
    keys.iter()
        .map(|key| rows.get(key.as_bytes())?.map(|stored| decode(stored.value())).transpose())
        .collect()
}

pub(super) fn scan(
    database: &Database,
    from: &Key,
    until: &Key,
    limit: usize,
) -> Result<Vec<(Key, Row)>, Error> {
    let rows = database.begin_read()?.open_table(ROWS)?;
    let mut found = Vec::new();
    for entry in rows.range(from.as_bytes()..until.as_bytes())?.take(limit) {
        let (key, stored) = entry?;
        found.push((Key::from_bytes(Bytes::copy_from_slice(key.value())), decode(stored.value())?));
    }
    Ok(found)
}

pub(super) fn encode(version: u64, value: &[u8]) -> Vec<u8> {
    [&version.to_be_bytes(), value].concat()
}

pub(super) fn decode(stored: &[u8]) -> Result<Row, Error> {
    let (version, value) =
        stored.split_first_chunk().ok_or_else(|| Error::Corrupted("a row without a version".to_owned()))?;
    Ok(Row { version: u64::from_be_bytes(*version), value: Bytes::copy_from_slice(value) })
}
