//! What a cluster asks of a relay: legs, their end, and whether it lives.

use std::time::Duration;

use bytes::Bytes;
use fusion_protocol::media::{BEAT, BEATS, Leg, Life, OpenLeg};
use fusion_protocol::{Count, Url, Uuid};
use fusion_runtime::http::Coming;
use http::{Method, Request};

use crate::Cluster;
use crate::peers::{self, PeerError};

/// How long a relay may take to answer: a call waits for it, and MED-004 has two seconds.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How late a relay may be that says that it lives: MED-004 has no time for more.
const LIFE_TIMEOUT: Duration = Duration::from_millis(300);
/// How long a relay may take to answer whoever wants to listen: there is a connection to be made.
const LISTEN_TIMEOUT: Duration = Duration::from_millis(400);
/// How long a relay may take until another one is looked for instead (MED-003): a few round trips, for
/// there may be no connection yet.
const CHOICE_TIMEOUT: Duration = Duration::from_millis(600);
/// How long it may be what a relay says of its life, in octets.
const LIFE_BYTES_MAX: usize = 1_024;
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

/// A relay that is listened to.
pub(crate) struct Heart {
    /// Which life of the relay this is.
    pub(crate) life: Uuid,
    beats: Coming,
    /// How many octets it may still send: a relay may be another org's, and nobody beats for ever.
    left: usize,
}

/// MED-004: whether the relay lives, and hears it from now on.
pub(crate) async fn listen(cluster: &Cluster, relay: &Url) -> Option<Heart> {
    let mut url = below(relay, "v1/life");
    url.set_query(Some("beats"));
    let request = Request::get(url.as_str()).body(Bytes::new()).ok()?;
    let answer = cluster.http.with_timeout(LISTEN_TIMEOUT).begin(request).await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    let (mut beats, mut said) = (answer.into_body(), Vec::new());
    // It may come in pieces.
    while said.len() <= LIFE_BYTES_MAX {
        said.extend(beats.next(LIFE_TIMEOUT).await.ok()??);
        if let Ok(Life { life }) = serde_json::from_slice(&said) {
            return Some(Heart { life, beats, left: BEATS as usize + 1 });
        }
    }
    None
}

impl Heart {
    /// Waits for the next beat. `Some(true)`: the relay lives. `Some(false)`: it has told all that it wanted
    /// to, and may be asked anew. `None`: it does not answer in time.
    pub(crate) async fn beats(&mut self) -> Option<bool> {
        let beat = self.beats.next(BEAT + LIFE_TIMEOUT).await.ok()?;
        self.left = self.left.saturating_sub(beat.as_ref().map_or(0, Bytes::len));
        Some(beat.is_some() && self.left > 0)
    }
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
