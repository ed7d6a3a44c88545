//! Whether other clusters are there, for readers of an index (RDV-006). What the outbox meets while
//! sending counts first; of clusters that it has nothing for, their health is asked.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use fusion_protocol::{ClusterName, Service};
use futures_util::future::join_all;
use http::Request;

use super::contact;
use crate::Cluster;

/// How long a look holds.
const FRESH: Duration = Duration::from_secs(15);
/// How long a reader waits for a look: a cluster that takes longer counts as not reachable.
const WITHIN: Duration = Duration::from_millis(500);

/// What somebody saw of a cluster, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    at: Duration,
    there: bool,
}

impl Look {
    /// The cluster has shown itself in another way. Answers whether that is news.
    pub(super) fn met(&mut self) -> bool {
        !std::mem::replace(&mut self.there, true)
    }
}

/// RDV-006: whether `peer` answered when it was last tried.
pub(crate) fn is_reachable(cluster: &Cluster, peer: &ClusterName) -> bool {
    let state = cluster.outbox.state();
    state.machine.is_reachable(peer) && state.looked.get(peer).is_none_or(|look| look.there)
}

/// Looks whether these clusters are there, unless that is known.
pub(crate) async fn look(cluster: &Cluster, peers: &BTreeSet<&ClusterName>) {
    let now = cluster.host.clock.now();
    let unknown: Vec<&ClusterName> = {
        let state = cluster.outbox.state();
        let known = |peer: &ClusterName| {
            let fresh = state.looked.get(peer).is_some_and(|look| look.at + FRESH > now);
            peer == cluster.name() || fresh || !state.machine.is_reachable(peer)
        };
        peers.iter().copied().filter(|peer| !known(peer)).collect()
    };
    join_all(unknown.into_iter().map(|peer| look_at(cluster, peer))).await;
}

async fn look_at(cluster: &Cluster, peer: &ClusterName) {
    let url = cluster.config.template.url(peer, Service::Conv, "/v1/health");
    let Ok(request) = Request::get(url.as_str()).body(Bytes::new()) else { return };
    let answer = cluster.http.with_timeout(WITHIN).send(request).await;
    let there = answer.is_ok_and(|answer| answer.status().is_success());
    if there {
        // While it still counts as away, so that its coming back is noticed.
        contact(cluster, peer);
    }
    let look = Look { at: cluster.host.clock.now(), there };
    cluster.outbox.state().looked.insert(peer.clone(), look);
}
