//! Indexes gone wrong.

use axum::extract::Request;
use fusion_protocol::conversation::{PeerClaim, PeerGrant};
use fusion_protocol::index::{BatchAnswer, IndexBatch, RowResult};
use fusion_runtime::Host;
use http::Method;

use crate::Mutant;
use crate::wrap::{self, Verdict, body_of, json};

/// RDV-002, RDV-003: the participant's cluster says yes and writes nothing.
pub(crate) const NOT_WRITTEN: Mutant = Mutant {
    name: "index-not-written",
    hooks: || wrap::clusters(|host, request| Box::pin(not_written(host, request))),
};

async fn not_written(_: Host, request: Request) -> Verdict {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let claims = method == Method::PUT && path.contains("/peers/");
    let batches = method == Method::POST && path.ends_with("/v1/index");
    if !claims && !batches {
        return Verdict::Pass(request);
    }
    let (bytes, request) = body_of(request).await;
    if let (true, Ok(claim)) = (claims, serde_json::from_slice::<PeerClaim>(&bytes)) {
        return Verdict::Answer(json(&PeerGrant { url: claim.url }));
    }
    if let (true, Ok(batch)) = (batches, serde_json::from_slice::<IndexBatch>(&bytes)) {
        let result =
            |row: &fusion_protocol::index::IndexWrite| RowResult { id: row.id, code: None, clusters: vec![] };
        return Verdict::Answer(json(&BatchAnswer { results: batch.rows.iter().map(result).collect() }));
    }
    Verdict::Pass(request)
}
