//! The rows of the outbox.
//!
//! | row | says |
//! |---|---|
//! | `outbox/{place}` | something to be sent; gone once answered |
//! | `outbox-life` | how often the cluster has started |
//! | `outbox-dead/{place}` | what was refused for good, without its content |

use fusion_machines::outbox::RowId;
use fusion_protocol::{Address, Code, Problem, Uuid};
use fusion_runtime::store::{Batch, Key, StoreError};
use serde::{Deserialize, Serialize};

use super::Effect;
use crate::rows::{self, Committed};
use crate::{Cluster, StartError};

/// How many rows are read at once.
const PAGE: usize = 1_024;

/// A row of the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OutboxRow {
    /// The row's id at the receiver, and the event's.
    pub(super) id: Uuid,
    pub(super) stream: String,
    #[serde(flatten)]
    pub(super) effect: Effect,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct LifeRow {
    life: u64,
}

/// What became of a row that was refused for good.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeadRow {
    pub(super) id: Uuid,
    pub(super) stream: String,
    pub(super) user: Option<Address>,
    pub(super) code: Code,
}

/// Counts a start of the cluster.
pub(super) async fn begin_life(cluster: &Cluster) -> Result<u64, StartError> {
    let store = &*cluster.host.store;
    loop {
        let row = rows::load::<LifeRow>(store, rows::key("outbox-life", &[])).await.map_err(unreadable)?;
        let life = row.value.unwrap_or_default().life + 1;
        let mut batch = Batch::default();
        row.save(&mut batch, &LifeRow { life });
        match rows::commit(store, batch).await {
            Ok(Committed::Yes) => return Ok(life),
            Ok(Committed::Again) => {}
            Err(_) => return Err(StartError::Store(StoreError::Closed)),
        }
    }
}

/// Everything that an earlier life left, in order, with its size.
pub(super) async fn left(cluster: &Cluster) -> Result<Vec<(RowId, usize, OutboxRow)>, StartError> {
    let store = &*cluster.host.store;
    let prefix = rows::key("outbox", &[]);
    let (mut from, until) = (prefix.clone(), prefix.end());
    let mut left = Vec::new();
    loop {
        let page = store.scan(&from, &until, PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(left) };
        from = last.end();
        for (key, row) in &page {
            let read = serde_json::from_slice(&row.value).ok();
            let (Some(id), Some(read)) = (place_of(key), read) else {
                return Err(StartError::Row("outbox".to_owned()));
            };
            left.push((id, row.value.len(), read));
        }
    }
}

/// Adds a row: its size.
pub(super) fn put(batch: &mut Batch, id: RowId, row: &OutboxRow) -> usize {
    rows::put(batch, key(id), row);
    batch.puts.last().map_or(0, |(_, value)| value.len())
}

pub(super) fn delete(batch: &mut Batch, id: RowId) {
    batch.delete(key(id));
}

pub(super) fn put_dead(batch: &mut Batch, id: RowId, row: &DeadRow) {
    rows::put(batch, rows::key("outbox-dead", &[&place(id)]), row);
}

/// Which of `ids` are in the store.
pub(super) async fn present(cluster: &Cluster, ids: &[RowId]) -> Result<Vec<bool>, Problem> {
    let keys: Vec<_> = ids.iter().map(|id| key(*id)).collect();
    let rows = cluster.host.store.get(&keys).await.map_err(rows::refused)?;
    Ok(rows.iter().map(Option::is_some).collect())
}

pub(super) fn key(id: RowId) -> Key {
    rows::key("outbox", &[&place(id)])
}

fn place(id: RowId) -> String {
    format!("{:032x}", id.0)
}

fn place_of(key: &Key) -> Option<RowId> {
    let parts = key.parts();
    let text = std::str::from_utf8(parts.get(1)?).ok()?;
    u128::from_str_radix(text, 16).ok().map(RowId)
}

fn unreadable(_: Problem) -> StartError {
    StartError::Row("outbox-life".to_owned())
}
