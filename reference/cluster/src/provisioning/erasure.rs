//! Deleting a user (PRO-005): the row first, with a note that the rest is to be erased; then what other
//! services keep. The note outlives a crash, and nobody new gets the address before it is worked off.

use std::time::Duration;

use fusion_protocol::{Address, Problem};
use fusion_runtime::probe::Level;
use fusion_runtime::store::{Batch, Key};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::place;
use crate::rows::{self, Committed, Loaded};
use crate::users::{self, UserRow};
use crate::{Cluster, StartError, index, locus, mercury};

/// The pause after an attempt that failed.
const PAUSE: Duration = Duration::from_secs(10);
/// How many notes are looked at together at the start.
const PAGE: usize = 256;

/// A user whose row is gone and whose things are to go.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    user: Address,
}

/// Deletes a user as loaded. Tokens end with the row; whoever gets the address next is somebody new
/// (NAM-004).
pub(super) async fn delete(cluster: &Cluster, row: &Loaded<UserRow>) -> Result<Committed, Problem> {
    let Some(UserRow { record, .. }) = &row.value else { return Ok(Committed::Yes) };
    let mut batch = Batch::default();
    users::remove(&mut batch, row);
    rows::put(&mut batch, note_key(&record.user), &Note { user: record.user.clone() });
    let committed = rows::commit(&*cluster.host.store, batch).await?;
    if committed == Committed::Yes {
        users::report(cluster, record, "DELETED");
    }
    Ok(committed)
}

/// Erases what a deleted user left, in the background, again and again until it is done.
pub(super) fn finish_soon(cluster: &Cluster, user: Address) {
    let here = cluster.clone();
    cluster.host.tasks.spawn(async move {
        loop {
            let result = {
                let _held = here.locks.hold(lock(&user)).await;
                finish(&here, &user).await
            };
            let Err(problem) = result else { return };
            here.host.probe.log(Level::Warn, "provisioning.erasure", json!({ "failed": problem.code }));
            here.host.clock.sleep(PAUSE).await;
        }
    });
}

/// The lock under which an address is added and deleted.
pub(super) fn lock(user: &Address) -> String {
    format!("user/{}", user.as_str())
}

/// Erases what a deleted user left, if there is a note that says so. Under [`lock`].
pub(super) async fn finish(cluster: &Cluster, user: &Address) -> Result<(), Problem> {
    let note = rows::load::<Note>(&*cluster.host.store, note_key(user)).await?;
    if note.value.is_none() {
        return Ok(());
    }
    // Objects homed here live on while a participant does, and pair slots stay (CNV-003).
    index::erase(cluster, user).await?;
    locus::erase(cluster, user).await?;
    mercury::erase(cluster, user).await?;
    place::leave(cluster, user).await?;
    let mut batch = Batch::default();
    batch.delete(note.key().clone());
    let _ = rows::commit(&*cluster.host.store, batch).await?;
    Ok(())
}

/// Works off the notes of an earlier life, in the background.
pub(super) async fn resume(cluster: &Cluster) -> Result<(), StartError> {
    let notes = rows::list::<Note>(&*cluster.host.store, &rows::key("erasing", &[]), PAGE).await;
    let notes = notes.map_err(|_| StartError::Row("erasing".to_owned()))?;
    for Note { user } in notes.into_iter().filter_map(|note| note.value) {
        finish_soon(cluster, user);
    }
    Ok(())
}

fn note_key(user: &Address) -> Key {
    rows::key("erasing", &[user.as_str()])
}
