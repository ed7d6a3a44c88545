//! The new cluster's side: keeps what comes, and commits it in one transaction or refuses it for ever.

use fusion_machines::moving::{Decision, Verdict};
use fusion_protocol::map::UserRecord;
use fusion_protocol::moving::{Arrival, Decided, PARTS_MAX, Part};
use fusion_protocol::{Address, ClusterName, Code, Count, Problem, UserRef};
use fusion_runtime::store::Batch;

use super::store::{self, Staged};
use super::{carry, depart};
use crate::rows::{self, Committed};
use crate::users::{self, UserRow};
use crate::{Cluster, provisioning};

/// The highest epoch that anybody comes with: there are always more after it.
const EPOCH_MAX: Count = Count(u64::MAX / 2);

/// Somebody who comes, as the old cluster says.
pub(super) struct Coming {
    pub(super) from: ClusterName,
    pub(super) who: UserRef,
    pub(super) epoch: Count,
}

/// Whether the user may come: only within one org, and only where nobody is at the address.
///
/// # Errors
/// `forbidden`, `already-exists`.
pub(super) async fn may_come(cluster: &Cluster, from: &ClusterName, user: &Address) -> Result<(), Problem> {
    of_org(cluster, from, user)?;
    match users::held(cluster, user).await?.value {
        Some(_) => Err(Code::AlreadyExists.into()),
        None => Ok(()),
    }
}

/// Keeps a part.
///
/// # Errors
/// `forbidden` from outside the org, `unprocessable` for a part too many.
pub(super) async fn take(cluster: &Cluster, coming: &Coming, number: u32, part: Part) -> Result<(), Problem> {
    of_org(cluster, &coming.from, &coming.who.user)?;
    if number >= PARTS_MAX {
        return Err(Problem::new(Code::Unprocessable).detail("too many parts"));
    }
    let destination = store::destination(cluster, &coming.who.user, coming.who.incarnation).await?;
    if destination.value.unwrap_or_default().decided(coming.epoch).is_some() {
        // Late: it would only lie about.
        return Ok(());
    }
    let mut batch = Batch::default();
    destination.unchanged(&mut batch);
    let staged = Staged { attempt: part.attempt, rows: part.rows };
    store::stage(&mut batch, &coming.who.user, number, &staged);
    match rows::commit(&*cluster.host.store, batch).await? {
        Committed::Yes => Ok(()),
        Committed::Again => Err(Code::Unavailable.into()),
    }
}

/// The commit, once: everything that came and the record at its new epoch, in one transaction.
///
/// # Errors
/// `conflict` when a part is missing, `forbidden` from outside the org, for somebody else's things and with
/// somebody else's SCIM id, `unprocessable` for too many parts or an epoch that none could follow.
pub(super) async fn commit(cluster: &Cluster, coming: &Coming, arrival: Arrival) -> Result<Decided, Problem> {
    let user = &coming.who.user;
    of_org(cluster, &coming.from, user)?;
    if arrival.parts > PARTS_MAX {
        return Err(Problem::new(Code::Unprocessable).detail("too many parts"));
    }
    if coming.epoch > EPOCH_MAX {
        return Err(Problem::new(Code::Unprocessable).detail("no epoch could follow"));
    }
    let _held = cluster.locks.hold(provisioning::lock(user)).await;
    // What an earlier person or an earlier stay has left must not mix with what comes.
    provisioning::finish_erasure(cluster, user).await?;
    depart::clear(cluster, user).await?;
    loop {
        if let Some(decision) = commit_once(cluster, coming, &arrival).await? {
            return Ok(Decided { committed: decision == Decision::Committed });
        }
    }
}

/// Refuses for ever what has not been committed.
///
/// # Errors
/// `forbidden` from outside the org.
pub(super) async fn withdraw(cluster: &Cluster, coming: &Coming) -> Result<Decided, Problem> {
    of_org(cluster, &coming.from, &coming.who.user)?;
    loop {
        if let Some(decision) = refuse_once(cluster, coming).await? {
            return Ok(Decided { committed: decision == Decision::Committed });
        }
    }
}

/// `None`: begin again.
async fn commit_once(
    cluster: &Cluster,
    coming: &Coming,
    arrival: &Arrival,
) -> Result<Option<Decision>, Problem> {
    let user = &coming.who.user;
    let row = store::destination(cluster, user, coming.who.incarnation).await?;
    let staged = store::staged(cluster, user, arrival.parts).await?;
    let complete =
        staged.iter().all(|part| part.value.as_ref().is_some_and(|part| part.attempt == arrival.attempt));
    let next = match row.value.unwrap_or_default().commit(coming.epoch, complete) {
        Verdict::Decided(decision) => return Ok(Some(decision)),
        Verdict::Incomplete => return Err(Problem::new(Code::Conflict).detail("a part is missing")),
        Verdict::Commit(next) => next,
    };
    let vacant = users::held(cluster, user).await?;
    if vacant.value.is_some() {
        // Somebody else has got the address meanwhile: nobody is ever put in their place.
        return refuse_once(cluster, coming).await;
    }
    let mut batch = Batch::default();
    row.save(&mut batch, &next);
    staged.iter().for_each(|part| part.unchanged(&mut batch));
    let carried: Vec<_> =
        staged.iter().filter_map(|part| part.value.as_ref()).flat_map(|part| part.rows.clone()).collect();
    carry::unpack(cluster, &mut batch, &coming.who, &carried).await?;
    if !users::rely_on_free_id(cluster, &mut batch, arrival.id).await? {
        return Err(Code::Forbidden.into());
    }
    let served = user_row(cluster, coming, arrival);
    users::insert(&mut batch, &vacant, &served);
    store::unstage(cluster, &mut batch, user).await?;
    batch.delete(store::departure(cluster, user).await?.key().clone());
    if rows::commit(&*cluster.host.store, batch).await? == Committed::Again {
        return Ok(None);
    }
    users::forget(cluster, user);
    users::report(cluster, &served.record, "ACTIVE");
    Ok(Some(Decision::Committed))
}

async fn refuse_once(cluster: &Cluster, coming: &Coming) -> Result<Option<Decision>, Problem> {
    let user = &coming.who.user;
    let row = store::destination(cluster, user, coming.who.incarnation).await?;
    let (next, decision) = row.value.unwrap_or_default().withdraw(coming.epoch);
    if row.value == Some(next) {
        return Ok(Some(decision));
    }
    let mut batch = Batch::default();
    row.save(&mut batch, &next);
    store::unstage(cluster, &mut batch, user).await?;
    Ok((rows::commit(&*cluster.host.store, batch).await? == Committed::Yes).then_some(decision))
}

fn user_row(cluster: &Cluster, coming: &Coming, arrival: &Arrival) -> UserRow {
    UserRow {
        record: UserRecord {
            user: coming.who.user.clone(),
            incarnation: coming.who.incarnation,
            cluster: cluster.name().clone(),
            version: coming.epoch,
        },
        id: arrival.id,
        display_name: arrival.display_name.clone(),
        external_id: arrival.external_id.clone(),
        active: arrival.active,
        fenced: false,
    }
}

/// A user moves between clusters that the map lists together only.
fn of_org(cluster: &Cluster, from: &ClusterName, user: &Address) -> Result<(), Problem> {
    let clusters = users::clusters_of(cluster, &user.domain());
    let ours = clusters.contains(cluster.name()) && clusters.contains(from) && from != cluster.name();
    if ours { Ok(()) } else { Err(Code::Forbidden.into()) }
}
