//! Calls to other clusters (SEC-004): signed, bounded, to URLs of the template only (NAM-005).

use bytes::Bytes;
use fusion_protocol::{Problem, Url};
use http::Method;
use serde::Serialize;

use crate::Cluster;

/// What another cluster answered, or why there is no answer.
#[derive(Debug)]
pub enum PeerError {
    /// Nobody answered, or the outcome is unknown: try again later.
    Unreachable,
    /// It refused; the problem's code says whether trying again makes sense.
    Refused(Box<Problem>),
}

/// Calls `url`, signed by this cluster, and returns the body of a 2xx answer.
pub async fn call(
    cluster: &Cluster,
    method: Method,
    url: &Url,
    body: &impl Serialize,
) -> Result<Bytes, PeerError> {
    let _ = (cluster, method, url, serde_json::to_vec(body));
    unimplemented!()
}
