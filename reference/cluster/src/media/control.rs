//! What a cluster asks of a relay: legs, their end, and whether it lives.

use std::time::Duration;

use bytes::Bytes;
use fusion_protocol::media::{Leg, Life, OpenLeg};
use fusion_protocol::{Count, Url, Uuid};
use http::{Method, Request};

use crate::Cluster;
use crate::peers::{self, PeerError};

/// How long a relay may take to answer: a call waits for it, and MED-004 has two seconds.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long a relay may take to say that it lives: MED-004 has no time for more.
const LIFE_TIMEOUT: Duration = Duration::from_millis(300);
/// How long a relay may take until another one is looked for instead (MED-003): a few round trips, for
/// there may be no connection yet.
const CHOICE_TIMEOUT: Duration = Duration::from_millis(600);
/// How often the closing of one leg is tried; the end of its call closes it anyway.
const CLOSE_TRIES: u32 = 4;
/// The pause between two tries.
const CLOSE_PAUSE: Duration = Duration::from_millis(300);

/// Opens a leg at a relay, or finds it open.
///
/// # Errors
/// As [`peers::call`]; [`PeerError::Unreachable`] also when the answer is not one of a relay.
pub(crate) async fn open_leg(cluster: &Cluster, relay: &Url, open: &OpenLeg) -> Result<Leg, PeerError> {
    let body = serde_json::to_vec(open).expect("messages are plain data").into();
    let answer = ask(cluster, relay, Method::POST, "v1/legs", body).await?;
    serde_json::from_slice(&answer).map_err(|_| PeerError::Unreachable)
}

/// Closes a leg, if the relay can be reached soon.
pub(crate) async fn close_leg(cluster: &Cluster, relay: &Url, leg: Uuid) {
    for _ in 0..CLOSE_TRIES {
        let answer = ask(cluster, relay, Method::DELETE, &format!("v1/legs/{leg}"), Bytes::new()).await;
        if !matches!(answer, Err(PeerError::Unreachable)) {
            return;
        }
        cluster.host.clock.sleep(CLOSE_PAUSE).await;
    }
}

/// MED-001: closes all legs of a call, for ever.
///
/// # Errors
/// `Err` when the relay has not confirmed it.
pub(crate) async fn close_instance(
    cluster: &Cluster,
    relay: &Url,
    locus: Uuid,
    instance: Count,
) -> Result<(), PeerError> {
    let path = format!("v1/instances/{locus}/{instance}");
    ask(cluster, relay, Method::DELETE, &path, Bytes::new()).await.map(drop)
}

/// MED-004: which life of the relay this is, if it lives.
pub(crate) async fn life(cluster: &Cluster, relay: &Url) -> Option<Uuid> {
    let url = below(relay, "v1/life");
    let answer = peers::call_within(cluster, LIFE_TIMEOUT, Method::GET, &url, Bytes::new()).await.ok()?;
    Some(serde_json::from_slice::<Life>(&answer).ok()?.life)
}

/// MED-003: the relay answers, over a connection of its own, so that near and far ones need as many round
/// trips for it.
pub(super) async fn answers(cluster: &Cluster, relay: &Url) -> bool {
    let Ok(request) = Request::get(below(relay, "v1/life").as_str()).body(Bytes::new()) else { return false };
    let answer = cluster.http.with_timeout(CHOICE_TIMEOUT).send_anew(request).await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

async fn ask(
    cluster: &Cluster,
    relay: &Url,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Bytes, PeerError> {
    peers::call_within(cluster, TIMEOUT, method, &below(relay, path), body).await
}

/// `path` is below the relay's own URL, which may have a path itself.
fn below(relay: &Url, path: &str) -> Url {
    let mut url = relay.clone();
    url.set_path(&format!("{}/{path}", relay.path().trim_end_matches('/')));
    url
}
