//! Devices and what they are owed.

use std::collections::BTreeMap;

use async_trait::async_trait;
use fusion_mutants::wrap::is_of;
use fusion_runtime::store::{Batch, Key, Store, StoreError};
use fusion_sim::plant::Plant;
use serde_json::Value;

use crate::disk::{Clerk, Editing, Forgetful, edited, in_two_steps, kept_by, part, taken_out, writes};

/// How many rows are read at once; queues of scenarios are shorter.
const PAGE: usize = 10_000;

pub(crate) const COALESCED: Plant = Plant {
    name: "queue-coalesced-by-resource",
    requirement: "MER-002",
    wrong: "an event that waits for a device is thrown away when a newer one about the same resource comes: \
            a device that was away hears of the last message only",
    held_out: true,
    hooks: || kept_by(|| OnlyTheNewest),
};

pub(crate) const FAN_OUT_IN_STEPS: Plant = Plant {
    name: "devices-told-in-two-commits",
    requirement: "MER-001",
    wrong: "the first of a user's devices gets an event in one commit, the others in the next: after a crash \
            between the two they never get it",
    held_out: true,
    hooks: || kept_by(|| FirstDeviceFirst),
};

pub(crate) const QUEUE_CLEARED_ON_CONNECT: Plant = Plant {
    name: "queue-cleared-when-a-socket-opens",
    requirement: "MER-002",
    wrong: "a device's queue is begun anew when its socket opens: what came while it was away is lost",
    held_out: true,
    hooks: || kept_by(|| BegunAnew),
};

pub(crate) const QUEUES_IN_MEMORY: Plant = Plant {
    name: "queues-in-memory-only",
    requirement: "MER-005",
    wrong: "what devices have not acknowledged is held in memory only: a crash of the connection server \
            loses it",
    held_out: true,
    hooks: || kept_by(|| Forgetful::of(&["device-event", "device-event-id"])),
};

pub(crate) const SWAPPED_IN_ONE_BATCH: Plant = Plant {
    name: "two-at-once-swapped",
    requirement: "MER-002",
    wrong: "of several events that are queued for a device in one commit the first and the last change \
            places: two messages that are sent on together arrive in the other order",
    held_out: true,
    hooks: || kept_by(|| Editing(swap_events)),
};

pub(crate) const TAIL_NOT_CHECKED: Plant = Plant {
    name: "queue-end-written-unchecked",
    requirement: "MER-002",
    wrong: "the end of a device's queue is written without a look whether it has changed: of two events \
            from different services at the same moment one overwrites the other",
    held_out: true,
    hooks: || kept_by(|| Editing(|batch| batch.expects.retain(|(key, _)| !is_of(key, &["device-tail"])))),
};

pub(crate) const TAKEN_BY_ONE: Plant = Plant {
    name: "taken-by-one-taken-for-all",
    requirement: "MER-002",
    wrong: "an event that one of a user's devices has acknowledged is removed from the queues of the others",
    held_out: false,
    hooks: || kept_by(|| TakenForAll),
};

/// A row of a device, by what is its own.
fn device_row(concept: &str, device: &str, own: &str) -> Key {
    Key::of(&[concept.as_bytes(), device.as_bytes(), own.as_bytes()])
}

fn queue(device: &str) -> Key {
    Key::of(&[b"device-event", device.as_bytes()])
}

/// What a row says.
fn said(value: &[u8]) -> Value {
    serde_json::from_slice(value).unwrap_or_default()
}

/// The device that a row of its own belongs to.
fn device_of(key: &Key) -> Option<String> {
    let at = if is_of(key, &["device-tail"]) { 2 } else { 1 };
    is_of(key, &["device-tail", "device-event", "device-event-id"]).then(|| part(key, at))?
}

/// The first and the last event of one device in a batch change places in its queue.
fn swap_events(batch: &mut Batch) {
    let mut by_device: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, (key, _)) in batch.puts.iter().enumerate().filter(|(_, (key, _))| is_of(key, &["device-event"]))
    {
        by_device.entry(part(key, 1).unwrap_or_default()).or_default().push(at);
    }
    for (device, events) in by_device {
        let (Some(&first), Some(&last)) = (events.first(), events.last()) else { continue };
        if first == last {
            continue;
        }
        let (one, other) = (said(&batch.puts[first].1), said(&batch.puts[last].1));
        batch.puts[first].1 = in_place_of(&one, &other).into();
        batch.puts[last].1 = in_place_of(&other, &one).into();
        for (event, seq) in [(&one, &other["seq"]), (&other, &one["seq"])] {
            let id = device_row("device-event-id", &device, event["id"].as_str().unwrap_or_default());
            batch.puts.iter_mut().filter(|(key, _)| *key == id).for_each(|(_, value)| {
                *value = serde_json::to_vec(seq).unwrap_or_default().into();
            });
        }
    }
}

/// `event` with the place of `place`.
fn in_place_of(place: &Value, event: &Value) -> Vec<u8> {
    edited(event.to_string().as_bytes(), |event| {
        event["seq"] = place["seq"].clone();
        event["atUs"] = place["atUs"].clone();
    })
}

/// Throws away what waits for a device about a resource when there is something newer.
struct OnlyTheNewest;

#[async_trait]
impl Clerk for OnlyTheNewest {
    async fn commit(&self, disk: &dyn Store, mut batch: Batch) -> Result<(), StoreError> {
        let mut outdated = Vec::new();
        for (key, value) in batch.puts.iter().filter(|(key, _)| is_of(key, &["device-event"])) {
            let (device, newer) = (part(key, 1).unwrap_or_default(), said(value));
            let queue = queue(&device);
            for (older, row) in disk.scan(&queue, &queue.end(), PAGE).await? {
                let waiting = said(&row.value);
                if waiting["resource"] == newer["resource"] {
                    let id = waiting["id"].as_str().unwrap_or_default();
                    outdated.extend([older, device_row("device-event-id", &device, id)]);
                }
            }
        }
        batch.deletes.extend(outdated);
        disk.commit(batch).await
    }
}

/// Writes what is for a user's first device, and then the rest.
struct FirstDeviceFirst;

#[async_trait]
impl Clerk for FirstDeviceFirst {
    async fn commit(&self, disk: &dyn Store, mut batch: Batch) -> Result<(), StoreError> {
        if !writes(&batch, "device-event") {
            return disk.commit(batch).await;
        }
        let first = batch.puts.iter().find_map(|(key, _)| device_of(key));
        let others = |key: &Key| device_of(key).is_some_and(|device| Some(&device) != first.as_ref());
        let rest = taken_out(&mut batch, others);
        in_two_steps(disk, batch, rest).await
    }
}

/// Removes what waits for a device when a socket of it opens.
struct BegunAnew;

#[async_trait]
impl Clerk for BegunAnew {
    async fn commit(&self, disk: &dyn Store, mut batch: Batch) -> Result<(), StoreError> {
        let mut lost = Vec::new();
        for (key, value) in batch.puts.iter().filter(|(key, _)| is_of(key, &["device-head"])) {
            let before = disk.get(std::slice::from_ref(key)).await?.pop().flatten();
            let session = before.map_or(Value::Null, |row| said(&row.value)["session"].clone());
            if said(value)["session"].as_u64() <= session.as_u64() {
                continue;
            }
            let device = part(key, 1).unwrap_or_default();
            let queue = queue(&device);
            for (key, row) in disk.scan(&queue, &queue.end(), PAGE).await? {
                let id = said(&row.value)["id"].as_str().unwrap_or_default().to_owned();
                lost.extend([key, device_row("device-event-id", &device, &id)]);
            }
        }
        batch.deletes.extend(lost);
        disk.commit(batch).await
    }
}

/// Removes from every queue what one device has taken.
struct TakenForAll;

#[async_trait]
impl Clerk for TakenForAll {
    async fn commit(&self, disk: &dyn Store, mut batch: Batch) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        if writes(&batch, "device-head") {
            let ids: Vec<_> = batch.deletes.iter().filter(|key| is_of(key, &["device-event-id"])).collect();
            let ids: Vec<_> = ids.into_iter().filter_map(|key| part(key, 2)).collect();
            let all = Key::of(&[b"device-event-id"]);
            let known = if ids.is_empty() { Vec::new() } else { disk.scan(&all, &all.end(), PAGE).await? };
            for (key, row) in known {
                let (Some(device), Some(id)) = (part(&key, 1), part(&key, 2)) else { continue };
                if ids.contains(&id) {
                    let seq = said(&row.value).as_u64().unwrap_or_default();
                    gone.extend([key, device_row("device-event", &device, &format!("{seq:016x}"))]);
                }
            }
        }
        batch.deletes.extend(gone);
        disk.commit(batch).await
    }
}
