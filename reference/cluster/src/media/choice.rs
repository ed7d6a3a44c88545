//! Which relay carries a call: the own org's first, of these the nearest that answers, and another org's
//! only where policy lends one and the call may leave the org (MED-002, MED-003).

use std::time::Duration;

use fusion_protocol::Url;
use fusion_protocol::conversation::Participant;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::control;
use crate::{Cluster, Lender, OrgRole};

/// Relays that answer within this time of each other are equally near: the preferred one is taken.
const EQUALLY_NEAR: Duration = Duration::from_millis(2);

/// How far the media of a call may go (MED-002).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bounds {
    /// It is a call among the own org's users: not beyond its relays, even if there is no media then.
    Org,
    /// As far as policy lets them.
    Policy,
}

/// MED-002: whether everybody in a conversation is of the own org, as they were when they came into it.
pub(crate) fn bounds(cluster: &Cluster, members: &[Participant]) -> Bounds {
    if members.iter().all(|member| is_own(cluster, member)) { Bounds::Org } else { Bounds::Policy }
}

/// Whoever cannot be told to be somebody else's counts as the own org's: media stay at home in doubt.
fn is_own(cluster: &Cluster, member: &Participant) -> bool {
    let view = cluster.map.view(&member.user.domain(), cluster.host.clock.now());
    let serves = |clusters: &[_]| member.cluster.as_ref().is_none_or(|serving| clusters.contains(serving));
    match (cluster.config.role, view.record) {
        _ if view.version.0 == 0 => true,
        (OrgRole::Consumer, _) => serves(&view.consumer),
        (OrgRole::Private, Some(record)) => record.org == cluster.config.org && serves(&record.clusters),
        (OrgRole::Private, None) => false,
    }
}

/// The relays that may carry such a call, the own org's first, each in its order of preference.
pub(crate) fn candidates(cluster: &Cluster, bounds: Bounds) -> Vec<&Url> {
    let mut relays = of_org(cluster);
    if bounds == Bounds::Policy {
        relays.extend(lent_by(cluster, Lender::Other));
    }
    relays
}

/// Every relay that a call of this cluster can ever have been at.
pub(crate) fn all(cluster: &Cluster) -> Vec<Url> {
    candidates(cluster, Bounds::Policy).into_iter().cloned().collect()
}

/// MED-003: the relay that a new call begins at; while none answers, the preferred one, which may be there
/// by the time somebody joins again.
pub(crate) async fn first_choice(cluster: &Cluster, bounds: Bounds) -> Option<Url> {
    match candidates(cluster, bounds).as_slice() {
        [] => None,
        // There is nothing to choose: nobody is asked, and no time is lost.
        [only] => Some((*only).clone()),
        [preferred, ..] => Some(best(cluster, bounds, None).await.unwrap_or_else(|| (*preferred).clone())),
    }
}

/// MED-004: the relay that takes over from one that failed; `None` when no other answers.
pub(crate) async fn next_choice(cluster: &Cluster, bounds: Bounds, failed: &Url) -> Option<Url> {
    best(cluster, bounds, Some(failed)).await
}

async fn best(cluster: &Cluster, bounds: Bounds, not: Option<&Url>) -> Option<Url> {
    let mut own = of_org(cluster);
    own.retain(|relay| Some(*relay) != not);
    match (nearest(cluster, &own).await, bounds) {
        (None, Bounds::Policy) => {
            let lent = lent_by(cluster, Lender::Other).filter(|relay| Some(*relay) != not);
            nearest(cluster, &lent.collect::<Vec<_>>()).await
        }
        (found, _) => found,
    }
}

/// All are asked at once: the first to answer has the shortest round trip.
async fn nearest(cluster: &Cluster, relays: &[&Url]) -> Option<Url> {
    let asked = relays.iter().enumerate();
    let mut asked: FuturesUnordered<_> = asked
        .map(|(place, relay)| async move { control::answers(cluster, relay).await.then_some(place) })
        .collect();
    let mut found: Option<usize> = None;
    while found.is_none() {
        found = asked.next().await?;
    }
    let as_near = async {
        while let Some(answer) = asked.next().await {
            found = found.into_iter().chain(answer).min();
        }
    };
    // Whoever has not answered by then is farther away.
    let _ = cluster.host.clock.timeout(EQUALLY_NEAR, as_near).await;
    relays.get(found?).map(|relay| (*relay).clone())
}

fn of_org(cluster: &Cluster) -> Vec<&Url> {
    cluster.config.relays.iter().chain(lent_by(cluster, Lender::Org)).collect()
}

fn lent_by(cluster: &Cluster, lender: Lender) -> impl Iterator<Item = &Url> {
    let borrowed = cluster.config.borrowed_relays.iter();
    borrowed.filter(move |relay| relay.lender == lender).map(|relay| &relay.url)
}
