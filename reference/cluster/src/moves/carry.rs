//! What goes with a user who moves: the index, the pair slots, the active list, the devices and everything
//! that is queued for them. As rows, for each service knows best what it keeps.

use std::collections::BTreeSet;

use fusion_protocol::moving::{Carried, PART_OCTETS, PARTS_MAX};
use fusion_protocol::{Address, Code, Pii, Problem, UserRef, Uuid};
use fusion_runtime::store::{Batch, Key};
use serde_json::Value;

use crate::rows::{self, Loaded};
use crate::{Cluster, conversation, index, locus, mercury};

/// How many rows are read at once.
const PAGE: usize = 256;

/// Concepts whose rows are below the user.
const BY_USER: [&[&str]; 4] = [index::CARRIED, conversation::CARRIED, locus::CARRIED, mercury::CARRIED];

/// Everything of a user, in parts that fit a request.
///
/// # Errors
/// `too-large` for more than [`PARTS_MAX`] parts.
pub(super) async fn collect(cluster: &Cluster, user: &Address) -> Result<Vec<Vec<Carried>>, Problem> {
    let mut parts = Parts::default();
    for concept in BY_USER.into_iter().flatten() {
        parts.add(cluster, &rows::key(concept, &[user.as_str()])).await?;
    }
    for device in mercury::devices(cluster, user).await? {
        for concept in mercury::CARRIED_BY_DEVICE {
            parts.add(cluster, &rows::key(concept, &[&device.to_string()])).await?;
        }
    }
    Ok(parts.parts)
}

/// Adds what came to `batch`.
///
/// # Errors
/// `forbidden` when a row is not of this user: nobody brings anything for others.
pub(super) async fn unpack(
    cluster: &Cluster,
    batch: &mut Batch,
    user: &UserRef,
    carried: &[Carried],
) -> Result<(), Problem> {
    let devices = devices_of(user, carried);
    for device in &devices {
        let known: Loaded<mercury::DeviceRow> =
            rows::load(&*cluster.host.store, rows::key("device", &[device])).await?;
        if known.value.as_ref().is_some_and(|known| known.owner != *user) {
            return Err(Code::Forbidden.into());
        }
        known.unchanged(batch);
    }
    for Carried { key, row } in carried {
        let parts: Vec<&str> = key.expose().iter().map(String::as_str).collect();
        if !is_of(&parts, user, &devices) {
            return Err(Code::Forbidden.into());
        }
        rows::put(batch, rows::key(parts[0], &parts[1..]), row);
    }
    Ok(())
}

/// Forgets the pair slots of a user who has gone; each other service erases its own.
pub(super) async fn erase_slots(cluster: &Cluster, user: &Address) -> Result<(), Problem> {
    let store = &*cluster.host.store;
    for concept in conversation::CARRIED {
        let prefix = rows::key(concept, &[user.as_str()]);
        loop {
            let page = store.scan(&prefix, &prefix.end(), PAGE).await.map_err(rows::refused)?;
            if page.is_empty() {
                break;
            }
            let mut batch = Batch::default();
            for (key, _) in page {
                batch.delete(key);
            }
            let _ = rows::commit(store, batch).await?;
        }
    }
    Ok(())
}

/// Rows on their way into parts.
#[derive(Default)]
struct Parts {
    parts: Vec<Vec<Carried>>,
    /// Of the last part.
    octets: usize,
}

impl Parts {
    /// Adds every row below `prefix`.
    async fn add(&mut self, cluster: &Cluster, prefix: &Key) -> Result<(), Problem> {
        let mut from = prefix.clone();
        loop {
            let page = cluster.host.store.scan(&from, &prefix.end(), PAGE).await.map_err(rows::refused)?;
            for (key, row) in &page {
                self.push(carried(key, &row.value)?, row.value.len() + key.as_bytes().len())?;
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => from = last.end(),
                _ => return Ok(()),
            }
        }
    }

    fn push(&mut self, row: Carried, octets: usize) -> Result<(), Problem> {
        if self.parts.is_empty() || self.octets + octets > PART_OCTETS {
            if self.parts.len() >= PARTS_MAX as usize {
                return Err(Code::TooLarge.into());
            }
            self.parts.push(Vec::new());
            self.octets = 0;
        }
        self.octets += octets;
        self.parts.last_mut().ok_or(Code::Internal)?.push(row);
        Ok(())
    }
}

fn carried(key: &Key, value: &[u8]) -> Result<Carried, Problem> {
    let unreadable = || Problem::new(Code::Internal).detail("a stored row cannot be read");
    let parts: Result<Vec<String>, _> = key.parts().into_iter().map(String::from_utf8).collect();
    let row: Value = serde_json::from_slice(value).map_err(|_| unreadable())?;
    Ok(Carried { key: Pii::new(parts.map_err(|_| unreadable())?), row: Pii::new(row) })
}

/// The devices that come with a user.
fn devices_of<'c>(user: &UserRef, carried: &'c [Carried]) -> BTreeSet<&'c str> {
    let tail = |row: &'c Carried| match row.key.expose().as_slice() {
        [concept, owner, device] if mercury::CARRIED.contains(&concept.as_str()) => {
            (owner == user.user.as_str() && is_canonical(device)).then_some(device.as_str())
        }
        _ => None,
    };
    carried.iter().filter_map(tail).collect()
}

/// In another spelling somebody else's device would pass for one that nobody has.
fn is_canonical(device: &str) -> bool {
    device.parse::<Uuid>().is_ok_and(|id| id.to_string() == device)
}

fn is_of(key: &[&str], user: &UserRef, devices: &BTreeSet<&str>) -> bool {
    let [concept, whose, ..] = key else { return false };
    if mercury::CARRIED_BY_DEVICE.contains(concept) {
        return devices.contains(whose);
    }
    BY_USER.into_iter().flatten().any(|known| known == concept) && *whose == user.user.as_str()
}
