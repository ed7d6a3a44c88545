//! The rows of devices and of their queues.
//!
//! | row | says |
//! |---|---|
//! | `device/{device}` | whose it is |
//! | `device-tail/{user}/{device}` | where events are added; written by whoever enqueues |
//! | `device-head/{device}` | where events are taken; written by connection servers |
//! | `device-event/{device}/{seq}` | an event that is owed |
//! | `device-event-id/{device}/{id}` | that an event of this id is stored |

use fusion_machines::device_queue::{Enqueued, Head, Retention, Tail};
use fusion_protocol::mercury::{Event, EventType, Notification};
use fusion_protocol::{Address, Code, Count, Incarnation, Pii, Problem, Url, UserRef, Uuid, limits};
use fusion_runtime::store::{Batch, Key, Row};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Cluster;
use crate::rows::{self, Committed, Loaded};

/// How many rows are read or removed at once.
const PAGE: usize = 256;
/// What a frame needs besides an event's data, in octets, generously.
const FRAME_OVERHEAD: usize = 4 << 10;
/// How often a commit is tried again under contention.
const TRIES: usize = 16;

/// The rows that go with a user who moves (MAP-007), each below the user,
pub(crate) const CARRIED: &[&str] = &["device-tail"];
/// and each below one of the user's devices.
pub(crate) const CARRIED_BY_DEVICE: &[&str] = &["device", "device-head", "device-event", "device-event-id"];

/// Whose a device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceRow {
    pub(crate) owner: UserRef,
    pub(super) name: Option<Pii<String>>,
}

/// The tail of a device's queue, under its user, so that one scan finds all queues of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TailRow {
    pub(super) incarnation: Incarnation,
    #[serde(flatten)]
    pub(super) tail: Tail,
}

/// A stored event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventRow {
    pub(super) at_us: u64,
    pub(super) seq: u64,
    pub(super) id: Uuid,
    event_type: EventType,
    resource: Url,
    data: Value,
}

/// A device with all that a socket's opening depends on.
pub(super) struct Opening {
    pub(super) device: Loaded<DeviceRow>,
    pub(super) head: Loaded<Head>,
    pub(super) last: u64,
}

/// Adds an event to the queues of `user` (only to that of `only`, if given): whether to any.
pub(super) async fn enqueue(
    cluster: &Cluster,
    batch: &mut Batch,
    user: &Address,
    only: Option<Uuid>,
    notification: &Notification,
) -> Result<bool, Problem> {
    let prefix = rows::key("device-tail", &[user.as_str()]);
    let mut added = false;
    for tail in rows::list::<TailRow>(&*cluster.host.store, &prefix, limits::DEVICES_MAX).await? {
        let device = device_of(tail.key())?;
        if only.is_none_or(|only| only == device) {
            added |= enqueue_one(cluster, batch, device, &tail, notification).await?;
        }
    }
    Ok(added)
}

/// The devices of a user.
pub(crate) async fn devices(cluster: &Cluster, user: &Address) -> Result<Vec<Uuid>, Problem> {
    let prefix = rows::key("device-tail", &[user.as_str()]);
    let tails = rows::list::<TailRow>(&*cluster.host.store, &prefix, limits::DEVICES_MAX).await?;
    tails.iter().map(|tail| device_of(tail.key())).collect()
}

/// Loads a device's registration.
pub(super) async fn device(cluster: &Cluster, device: Uuid) -> Result<Loaded<DeviceRow>, Problem> {
    rows::load(&*cluster.host.store, rows::key("device", &[&device.to_string()])).await
}

/// Adds a device that was not there when `vacant` was loaded.
pub(super) fn insert(batch: &mut Batch, vacant: &Loaded<DeviceRow>, device: Uuid, row: &DeviceRow) {
    vacant.save(batch, row);
    let tail = TailRow { incarnation: row.owner.incarnation, tail: Tail::default() };
    rows::put(batch, tail_key(&row.owner.user, device), &tail);
    rows::put(batch, head_key(device), &Head::default());
}

/// Removes a device and its queue: the events first, so that an interrupted removal can be repeated.
pub(super) async fn remove(cluster: &Cluster, user: &Address, device: Uuid) -> Result<(), Problem> {
    for _ in 0..TRIES {
        purge(cluster, device, u64::MAX).await?;
        let tail = rows::load::<TailRow>(&*cluster.host.store, tail_key(user, device)).await?;
        let mut batch = Batch::default();
        // No event is added meanwhile.
        tail.remove(&mut batch);
        batch.delete(head_key(device));
        batch.delete(rows::key("device", &[&device.to_string()]));
        if rows::commit(&*cluster.host.store, batch).await? == Committed::Yes {
            // What came between the purge and the commit.
            return purge(cluster, device, u64::MAX).await;
        }
    }
    Err(contention())
}

/// Loads what a socket's opening depends on; `gone` when the device is.
pub(super) async fn opening(cluster: &Cluster, device: Uuid) -> Result<Opening, Problem> {
    let store = &*cluster.host.store;
    let row = self::device(cluster, device).await?;
    let Some(DeviceRow { owner, .. }) = &row.value else { return Err(Code::Gone.into()) };
    let tail = rows::load::<TailRow>(store, tail_key(&owner.user, device)).await?;
    let last = tail.value.map(|tail| tail.tail.last).ok_or(Code::Gone)?;
    Ok(Opening { device: row, head: head(cluster, device).await?, last })
}

/// Loads the end at which a device's events are taken.
pub(super) async fn head(cluster: &Cluster, device: Uuid) -> Result<Loaded<Head>, Problem> {
    rows::load(&*cluster.host.store, head_key(device)).await
}

/// At most `limit` events after `after` that are still owed, in order.
pub(super) async fn events(
    cluster: &Cluster,
    device: Uuid,
    after: u64,
    limit: usize,
) -> Result<Vec<EventRow>, Problem> {
    let (mut from, now_us) = (after + 1, cluster.host.clock.wall().0);
    loop {
        let page = stored(cluster, device, from, u64::MAX, limit).await?;
        let (full, last) = (page.len() == limit, page.last().map_or(0, |event| event.seq));
        let owed: Vec<_> =
            page.into_iter().filter(|event| Retention::default().keeps(event.at_us, now_us)).collect();
        if !owed.is_empty() || !full {
            return Ok(owed);
        }
        from = last + 1;
    }
}

/// Removes the events `taken`, each by `seq` and id.
pub(super) fn take(batch: &mut Batch, device: Uuid, taken: impl IntoIterator<Item = (u64, Uuid)>) {
    for (seq, id) in taken {
        batch.delete(event_key(device, seq));
        batch.delete(id_key(device, id));
    }
}

/// Removes all stored events up to `seq`.
pub(super) async fn purge(cluster: &Cluster, device: Uuid, seq: u64) -> Result<(), Problem> {
    loop {
        let page = stored(cluster, device, 0, seq, PAGE).await?;
        if page.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        take(&mut batch, device, page.iter().map(|event| (event.seq, event.id)));
        let _ = rows::commit(&*cluster.host.store, batch).await?;
        if page.len() < PAGE {
            return Ok(());
        }
    }
}

/// The object is too busy.
pub(super) fn contention() -> Problem {
    Problem::new(Code::Unavailable).detail("too much contention on one device")
}

impl EventRow {
    /// What goes over the wire.
    pub(super) fn into_event(self) -> Event {
        let Self { seq, id, event_type, resource, data, .. } = self;
        Event { id, seq: Count(seq), event_type, resource, data }
    }
}

async fn enqueue_one(
    cluster: &Cluster,
    batch: &mut Batch,
    device: Uuid,
    loaded: &Loaded<TailRow>,
    notification: &Notification,
) -> Result<bool, Problem> {
    let pending = position(batch, loaded.key());
    let row = match pending {
        Some(at) => Some(decode(&batch.puts[at].1)?),
        None => loaded.value.clone(),
    };
    // NAM-004: a different person at the same address does not get it.
    let mine = |row: &TailRow| notification.incarnation.is_none_or(|whose| whose == row.incarnation);
    let Some(mut row) = row.filter(mine) else { return Ok(false) };

    let id_key = id_key(device, notification.id);
    let mut keys = vec![id_key.clone()];
    keys.extend(row.tail.probes().map(|seq| event_key(device, seq)));
    let mut found = cluster.host.store.get(&keys).await.map_err(rows::refused)?;
    if pending.is_some() {
        overlay(batch, &keys, &mut found);
    }
    let known = found[0].is_some();
    let probed: Vec<Option<EventRow>> = found[1..]
        .iter()
        .map(|row| row.as_ref().map(|row| decode(&row.value)).transpose())
        .collect::<Result<_, _>>()?;

    let now_us = cluster.host.clock.wall().0;
    let ages = probed.iter().map(|event| event.as_ref().map(|event| event.at_us));
    match row.tail.enqueue(known, ages, Retention::default(), now_us) {
        Enqueued::Known => Ok(false),
        Enqueued::Added { seq, drop } => {
            let dropped = probed.iter().flatten().filter(|event| drop.contains(&event.seq));
            take(batch, device, dropped.map(|event| (event.seq, event.id)));
            rows::put(batch, event_key(device, seq), &event_row(now_us, seq, notification));
            rows::put(batch, id_key, &seq);
            loaded.save(batch, &row);
            Ok(true)
        }
    }
}

/// SEC-007: an event that fits no frame goes without its data; it is only a hint.
fn event_row(at_us: u64, seq: u64, notification: &Notification) -> EventRow {
    let Notification { id, event_type, resource, data, .. } = notification.clone();
    let size = serde_json::to_vec(&data).map_or(usize::MAX, |data| data.len()) + resource.as_str().len();
    let data = if size + FRAME_OVERHEAD > limits::FRAME_MAX { Value::Null } else { data };
    EventRow { at_us, seq, id, event_type, resource, data }
}

/// Where in `batch` the row is written last.
fn position(batch: &Batch, key: &Key) -> Option<usize> {
    batch.puts.iter().rposition(|(written, _)| written == key)
}

/// Rows that the batch writes stand in for those of the store.
fn overlay(batch: &Batch, keys: &[Key], found: &mut [Option<Row>]) {
    for (key, found) in keys.iter().zip(found) {
        if let Some(at) = position(batch, key) {
            *found = Some(Row { version: 0, value: batch.puts[at].1.clone() });
        }
    }
}

async fn stored(
    cluster: &Cluster,
    device: Uuid,
    from: u64,
    to: u64,
    limit: usize,
) -> Result<Vec<EventRow>, Problem> {
    let (from, until) = (event_key(device, from), event_key(device, to).end());
    let rows = rows::list_range::<EventRow>(&*cluster.host.store, &from, &until, limit).await?;
    Ok(rows.into_iter().filter_map(|row| row.value).collect())
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes)
        .map_err(|_| Problem::new(Code::Internal).detail("a stored row cannot be read"))
}

fn device_of(tail: &Key) -> Result<Uuid, Problem> {
    let part = tail.parts().pop().and_then(|part| String::from_utf8(part).ok());
    part.and_then(|part| part.parse().ok()).ok_or_else(|| Code::Internal.into())
}

fn tail_key(user: &Address, device: Uuid) -> Key {
    rows::key("device-tail", &[user.as_str(), &device.to_string()])
}

fn head_key(device: Uuid) -> Key {
    rows::key("device-head", &[&device.to_string()])
}

/// Hexadecimal of a fixed length, so that the order of keys is the order of numbers.
fn event_key(device: Uuid, seq: u64) -> Key {
    rows::key("device-event", &[&device.to_string(), &format!("{seq:016x}")])
}

fn id_key(device: Uuid, id: Uuid) -> Key {
    rows::key("device-event-id", &[&device.to_string(), &id.to_string()])
}
