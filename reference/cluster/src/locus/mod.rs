//! Loci: the persistent call objects (LOC).
//!
//! `http` is what devices and clusters ask, `store` holds one locus and takes its steps, `effects` is
//! what leaves with a step and after it, `leases` counts time, `relays` looks after the relays that
//! carry calls, `active` keeps the lists of active loci of the users served here.
//!
//! Not here: what a step is (`fusion_machines::locus`), who is in a conversation, and how a change
//! reaches another cluster (the outbox).

mod active;
mod effects;
mod http;
mod leases;
mod relays;
mod store;
#[cfg(test)]
mod tests;

use fusion_machines::locus::{Event, Place, TakeOver};
use fusion_protocol::locus::Replaces;
use fusion_protocol::{Problem, Uuid};
use fusion_runtime::store::Batch;

pub(crate) use active::{CARRIED, erase, write_active};
pub(crate) use http::{call_routes, list_routes};
pub(crate) use leases::Leases;
pub(crate) use relays::Relays;

use self::store::Home;
use crate::{Cluster, StartError, conversation};

/// Starts counting: every joined device and every ringing call gets its full time (LOC-007).
pub(crate) async fn start(cluster: &Cluster) -> Result<(), StartError> {
    leases::start(cluster).await
}

/// LOC-001: the persistent locus of a new conversation, in the conversation's own commit.
pub(crate) fn create(cluster: &Cluster, batch: &mut Batch, conversation: Uuid) {
    let _ = cluster;
    store::create(batch, conversation);
}

/// SEC-006: the conversation's members have changed, durably: who is no longer in it is out of the call.
/// Call it after the commit, and again when it fails.
pub(crate) async fn members_changed(cluster: &Cluster, conversation: Uuid) -> Result<(), Problem> {
    let home = Home::hold(cluster, conversation).await;
    let membership = conversation::membership(cluster, conversation).await?;
    let members = membership.members.into_iter().map(|member| member.user).collect();
    home.step(Event::Members(members)).await.map(drop)
}

/// LOC-004: the conversation is sealed, durably: its call, if any, ends here and goes on at the winner's
/// locus. Returns what the winner is to be told, the same whenever it is asked.
pub(crate) async fn move_away(cluster: &Cluster, conversation: Uuid) -> Result<Vec<Replaces>, Problem> {
    let home = Home::hold(cluster, conversation).await;
    let locus = home.step(Event::Move).await?.locus;
    let call = match locus.place {
        Place::Moved { call: Some(instance), joined } => {
            Some(Replaces { locus_url: home.url.clone(), instance, joined })
        }
        Place::Moved { call: None, .. } | Place::Here => None,
    };
    Ok(call.into_iter().collect())
}

/// LOC-004: calls of the losing conversation go on in the locus of this one, with those who were in
/// them. Each is taken over once, however often this is called.
pub(crate) async fn take_over(
    cluster: &Cluster,
    conversation: Uuid,
    calls: Vec<Replaces>,
) -> Result<(), Problem> {
    let home = Home::hold(cluster, conversation).await;
    let membership = conversation::membership(cluster, conversation).await?;
    for call in calls {
        let setting = store::setting(&home, &membership).await?;
        let event = Event::TakeOver(TakeOver { call, seed: cluster.host.entropy.uuid(), setting });
        home.step(event).await?;
    }
    Ok(())
}
