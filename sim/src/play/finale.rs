//! The end of a run: everybody reads everything, and the provider plane is searched.
//!
//! What is read here is what liveness is judged by.

use std::collections::BTreeSet;

use fusion_conformance::Device;
use fusion_deployment::Topology;
use fusion_deployment::topology::{OrgRole, UserSpec};
use fusion_history::Body;
use fusion_history::canary::Canaries;
use fusion_protocol::conversation::Kind;
use fusion_protocol::{Address, Domain, Url};

use super::Play;
use super::cast::Cast;
use crate::scenario::Act;

/// Each user, on one device: index, conversations, the pair with everybody, loci, active list.
pub(super) async fn read_everything(cast: &Cast<'_>) {
    let mut seen = BTreeSet::new();
    // Who came to an address last is who is there now.
    let (newcomers, others): (Vec<_>, Vec<_>) = cast
        .devices
        .iter()
        .partition(|(name, player)| cast.is_of_newcomer(name) && player.device.home().is_some());
    for (_, player) in newcomers.into_iter().chain(others) {
        if seen.insert(player.device.user().clone()) {
            read_as(cast, &player.device).await;
        }
    }
}

/// The domains that somebody has claimed in the story.
fn claimed(cast: &Cast<'_>) -> BTreeSet<Domain> {
    let claims = cast.plan.steps.iter().filter_map(|step| match &step.act {
        Act::Claim { domain } => Some(domain.clone()),
        _ => None,
    });
    claims.collect()
}

async fn read_as(cast: &Cast<'_>, device: &Device) {
    let entries = device.read_index().await.unwrap_or_default();
    let mut loci: BTreeSet<Url> = BTreeSet::new();
    for entry in &entries {
        let _ = device.read_conversation(&entry.url).await;
        let _ = device.read(&entry.url).await;
        if entry.superseded_by.is_none() {
            loci.insert(entry.locus_url.clone());
        }
    }
    let pairs = entries.iter().any(|entry| entry.kind == Kind::OneToOne);
    let others: Vec<Address> = cast.plan.topology.users.iter().map(|user| user.address.clone()).collect();
    for other in others.iter().filter(|other| pairs && *other != device.user()) {
        if let Ok(found) = device.look_up(other).await {
            loci.insert(found.locus_url);
            let _ = device.read(&found.url).await;
        }
    }
    for locus in loci {
        let _ = device.read_locus(&locus).await;
    }
    let _ = device.list_loci().await;
    for other in &others {
        let _ = device.resolve(other).await;
    }
    for domain in claimed(cast) {
        let _ = device.read_domain(&domain).await;
    }
}

/// PRI-001: everything private that the plan put into the world, looked for at the provider. Where nobody is of
/// a private org, there is nothing to look for.
pub(super) fn search(play: &Play<'_>) {
    let topology = &play.plan.topology;
    if !topology.users.iter().any(|user| is_private(topology, user)) {
        return;
    }
    for (host, sink) in play.stage.search(&canaries(play, Whose::PrivateOrgs)) {
        play.record(&host, Body::Sink(sink));
    }
}

/// PRI-005: everything that anybody would call private, looked for in every other log.
pub(super) fn search_logs(play: &Play<'_>) {
    for (host, sink) in play.stage.search_logs(&canaries(play, Whose::Everybodys)) {
        play.record(&host, Body::Sink(sink));
    }
}

/// Whose private things are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    PrivateOrgs,
    Everybodys,
}

fn canaries(play: &Play<'_>, whose: Whose) -> Canaries {
    let topology = &play.plan.topology;
    let is_theirs = |user: &&UserSpec| whose == Whose::Everybodys || is_private(topology, user);
    let mut things: Vec<(String, String)> = Vec::new();
    for user in topology.users.iter().filter(is_theirs) {
        let name = user.address.local_part();
        things.push((format!("address of {name}"), user.address.as_str().to_owned()));
        things.extend(
            user.display_name.as_ref().map(|shown| (format!("name of {name}"), shown.expose().clone())),
        );
    }
    for step in &play.plan.steps {
        if let Act::Say { text, .. } = &step.act {
            things.push((format!("text of {}", step.id), text.clone()));
        }
    }
    Canaries::new(things)
}

fn is_private(topology: &Topology, user: &UserSpec) -> bool {
    topology.org_of(&user.cluster).is_some_and(|org| org.role == OrgRole::Private)
}

/// MED-005: what each relay has done with packets, as it says itself.
pub(super) fn relay_accounts(play: &Play<'_>) {
    for (host, account) in play.stage.relay_accounts() {
        play.record(&host, Body::Leg(account));
    }
}
