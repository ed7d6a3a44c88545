//! Adding a user: whose address it is, that nobody else has it, and who it is from now on.

use fusion_machines::resolution::Answer;
use fusion_protocol::map::UserRecord;
use fusion_protocol::{Address, Code, Count, Incarnation, Pii, Problem};
use fusion_runtime::store::Batch;

use super::{erasure, place};
use crate::rows::{self, Committed};
use crate::users::{self, UserRow, View};
use crate::{Cluster, OrgRole, moves};

/// What an admin says of a new user.
pub(super) struct NewUser {
    pub(super) user: Address,
    pub(super) display_name: Option<Pii<String>>,
    pub(super) external_id: Option<String>,
    pub(super) active: bool,
}

/// PRO-003, MAP-004, NAM-004: adds a user that this cluster is to serve, as a new incarnation.
///
/// # Errors
/// `forbidden` when the address's domain is not this org's, `already-exists`, and
/// `resolution-incomplete` when it cannot be made sure that nobody else serves the address.
pub(super) async fn create(cluster: &Cluster, new: NewUser) -> Result<UserRow, Problem> {
    may_serve(cluster, &new.user).await?;
    let _held = cluster.locks.hold(erasure::lock(&new.user)).await;
    erasure::finish(cluster, &new.user).await?;
    moves::clear(cluster, &new.user).await?;
    place::take(cluster, &new.user).await?;
    let row = row(cluster, new);
    loop {
        let vacant = users::served_here(cluster, &row.record.user).await?;
        if vacant.value.is_some() {
            return Err(Code::AlreadyExists.into());
        }
        let mut batch = Batch::default();
        users::insert(&mut batch, &vacant, &row);
        match rows::commit(&*cluster.host.store, batch).await? {
            Committed::Yes => break,
            Committed::Again => {}
        }
    }
    users::report(cluster, &row.record, "ACTIVE");
    Ok(row)
}

/// Whether this org, and of its clusters this one, is the place for the address.
async fn may_serve(cluster: &Cluster, user: &Address) -> Result<(), Problem> {
    let view = cluster.map.view(&user.domain(), cluster.host.clock.now());
    if view.version == Count(0) {
        return Err(Code::ResolutionIncomplete.into());
    }
    match cluster.config.role {
        OrgRole::Private => own_domain(cluster, &view)?,
        OrgRole::Consumer => unserved_by_its_org(cluster, user, &view).await?,
    }
    match users::among(cluster, user, &users::siblings(cluster, &user.domain())).await {
        Answer::Unknown => Ok(()),
        Answer::Found(_) => Err(Code::AlreadyExists.into()),
        _ => Err(Code::ResolutionIncomplete.into()),
    }
}

/// The map names this cluster: it names no cluster that is not of the claiming org.
fn own_domain(cluster: &Cluster, view: &View) -> Result<(), Problem> {
    let own = view.record.as_ref().is_some_and(|record| record.clusters.contains(cluster.name()));
    if own { Ok(()) } else { Err(not_ours()) }
}

/// A claimed domain may still have consumer users: those that its org's map does not hold.
async fn unserved_by_its_org(cluster: &Cluster, user: &Address, view: &View) -> Result<(), Problem> {
    let Some(record) = &view.record else { return Ok(()) };
    match users::at_its_org(cluster, user, record).await {
        Answer::Unknown => Ok(()),
        Answer::Found(_) | Answer::Elsewhere(_) => Err(not_ours()),
        _ => Err(Code::ResolutionIncomplete.into()),
    }
}

fn row(cluster: &Cluster, new: NewUser) -> UserRow {
    let entropy = &cluster.host.entropy;
    let record = UserRecord {
        user: new.user,
        incarnation: Incarnation(entropy.uuid()),
        cluster: cluster.name().clone(),
        version: Count(1),
    };
    UserRow {
        record,
        id: entropy.uuid(),
        display_name: new.display_name,
        external_id: new.external_id,
        active: new.active,
        fenced: false,
    }
}

fn not_ours() -> Problem {
    Problem::new(Code::Forbidden).detail("the address's domain is not this organisation's")
}
