//! Mercury: wakes a user's devices over WebSockets (MER).
//!
//! Whoever changes something that a local user should hear of calls [`enqueue`] with the batch that
//! changes it, commits, and then calls [`Wake::now`]. Everything else happens here: `http` registers
//! devices and takes notifications from other clusters, `store` keeps the queues, `socket` is one
//! device's connection.
//!
//! Not here: what a notification says, and its truth (a notification is only ever a hint, MER-003).

mod http;
mod socket;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use bytes::Bytes;
use fusion_protocol::mercury::Notification;
use fusion_protocol::{Address, Problem, Uuid};
use fusion_runtime::Latch;
use fusion_runtime::store::Batch;
use serde::{Deserialize, Serialize};

pub(crate) use http::routes;
pub(crate) use store::{CARRIED, CARRIED_BY_DEVICE, DeviceRow, devices};

use crate::Cluster;

/// The sockets that this instance holds.
#[derive(Default)]
pub(crate) struct Sockets {
    drain: Latch,
}

/// Devices to wake once the commit is durable.
#[must_use = "devices are woken by `now`, after the commit"]
#[derive(Default)]
pub(crate) struct Wake {
    users: BTreeSet<Address>,
}

/// What the connection servers of a cluster tell each other about one user. Only a hint: whoever misses
/// it finds the same in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Hint {
    /// There are new events.
    Events,
    /// A socket of this device is open, of this epoch: older ones are fenced.
    Opened { device: Uuid, session: u64 },
    /// The device is gone.
    Removed { device: Uuid },
}

/// Adds the event to the queues of all devices of a local user, in `batch`, so that it is durable with
/// the state it announces (MER-005). A notification whose id a device's queue holds is not added twice.
/// Several events of one user may go into one batch.
///
/// The batch then expects the queues as they were read: on [`Committed::Again`](crate::rows::Committed)
/// begin again with a new batch.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn enqueue(
    cluster: &Cluster,
    batch: &mut Batch,
    user: &Address,
    notification: &Notification,
) -> Result<Wake, Problem> {
    let added = store::enqueue(cluster, batch, user, None, notification).await?;
    Ok(Wake { users: added.then(|| user.clone()).into_iter().collect() })
}

/// Removes all devices of a local user and everything that is queued for them (PRO-005). Done again
/// after an error, it goes on where it was.
///
/// # Errors
/// When the store cannot be read or written.
pub(crate) async fn erase(cluster: &Cluster, user: &Address) -> Result<(), Problem> {
    for device in devices(cluster, user).await? {
        store::remove(cluster, user, device).await?;
        Hint::Removed { device }.publish(cluster, user);
    }
    Ok(())
}

impl Sockets {
    /// Says goodbye to every device, which then connects elsewhere (OPS-004). For good.
    pub(crate) fn drain(&self) {
        self.drain.open();
    }
}

impl Wake {
    /// Takes over what `other` wakes.
    pub(crate) fn merge(&mut self, mut other: Self) {
        self.users.append(&mut other.users);
    }

    /// Tells the connection servers over the bus.
    pub(crate) fn now(self, cluster: &Cluster) {
        for user in &self.users {
            Hint::Events.publish(cluster, user);
        }
    }
}

impl Hint {
    fn publish(&self, cluster: &Cluster, user: &Address) {
        let message = serde_json::to_vec(self).expect("a hint is plain data");
        cluster.host.bus.publish(&subject(user), Bytes::from(message));
    }

    /// A hint of a later version means: look.
    fn read(message: &[u8]) -> Self {
        serde_json::from_slice(message).unwrap_or(Self::Events)
    }
}

/// The bus's subject of one user. It stays inside the cluster.
fn subject(user: &Address) -> String {
    format!("mercury.{}", user.as_str())
}
