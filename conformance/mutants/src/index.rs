//! Indexes gone wrong.

mod entries;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use axum::extract::Request;
use fusion_deployment::Hooks;
use fusion_protocol::Url;
use fusion_protocol::conversation::{PeerClaim, PeerGrant};
use fusion_protocol::index::{BatchAnswer, IndexBatch, RowResult};
use fusion_runtime::Host;
use fusion_runtime::store::{Batch, Key, Row, Store, StoreError};
use http::Method;
use serde_json::Value;

use crate::Mutant;
use crate::wrap::{self, Verdict, body_of, json};

pub(crate) use entries::{ALL_AT_HOME, LEFT_FOR_LATER, NOBODY_TOLD, PLACE_NOT_KEPT, PREVIEW_CUT};

/// RDV-002, RDV-003: the participant's cluster says yes and writes nothing.
pub(crate) const NOT_WRITTEN: Mutant = Mutant {
    name: "index-not-written",
    hooks: || wrap::clusters(|host, request| Box::pin(not_written(host, request))),
};

/// RDV-002: an index is read from a copy that is behind by one reading.
pub(crate) const INDEX_BEHIND: Mutant = Mutant { name: "index-written-late", hooks: behind };

/// RDV-004: the preview has its activities in another order than the home.
pub(crate) const PREVIEW_BACKWARDS: Mutant = Mutant {
    name: "preview-backwards",
    hooks: || {
        wrap::answers(is_index, |_, page| {
            for preview in page["entries"].as_array_mut().into_iter().flatten() {
                if let Some(preview) = preview["preview"].as_array_mut() {
                    preview.reverse();
                }
            }
        })
    },
};

/// RDV-001: other clusters stand in for a conversation's home with copies of it.
pub(crate) const SECOND_HOME: Mutant = Mutant { name: "copy-in-another-cluster", hooks: second_home };

/// RDV-007: a home that looks for what it should tell others finds nothing.
pub(crate) const NEVER_DIGESTED: Mutant = Mutant {
    name: "digest-never-sent",
    hooks: || wrap::stores(|store| Arc::new(NotListed(store, "conversation"))),
};

/// RDV-005: a home that starts again does not look what it still has to tell.
pub(crate) const OUTBOX_FORGOTTEN: Mutant =
    Mutant { name: "outbox-forgotten", hooks: || wrap::stores(|store| Arc::new(NotListed(store, "outbox"))) };

/// RDV-006: an index says of every home that it is there.
pub(crate) const ALWAYS_THERE: Mutant = Mutant {
    name: "home-always-there",
    hooks: || {
        wrap::answers(is_index, |_, page| {
            for entry in page["entries"].as_array_mut().into_iter().flatten() {
                entry["reachable"] = Value::Bool(true);
            }
        })
    },
};

fn is_index(method: &Method, path: &str) -> bool {
    method == Method::GET && path.contains("/v1/users/") && path.ends_with("/index")
}

/// The first reading that would show an entry does not show it.
fn behind() -> Hooks {
    let shown: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    wrap::calls(is_index, move |call| {
        let shown = shown.clone();
        Box::pin(async move {
            let path = call.path().to_owned();
            wrap::edited(call.play().await, |page| {
                let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                let mut known = |entry: &Value| !shown.insert(format!("{path} {}", entry["url"]));
                if let Some(entries) = page["entries"].as_array_mut() {
                    entries.retain(|entry| known(entry));
                }
            })
            .await
        })
    })
}

fn second_home() -> Hooks {
    let copies: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
    wrap::calls(
        |_, path| path.contains("/v1/conversations"),
        move |call| {
            let copies = copies.clone();
            Box::pin(async move {
                let (bytes, response) = wrap::taken(call.play().await).await;
                let mut copies = copies.lock().unwrap_or_else(PoisonError::into_inner);
                if let (404, Some(copy)) = (response.status().as_u16(), copies.get(call.path())) {
                    return json(copy);
                }
                let made = serde_json::from_slice::<Value>(&bytes).ok();
                let url = made.as_ref().and_then(|made| made["url"].as_str()?.parse::<Url>().ok());
                if let (true, Some(url), Some(made)) = (response.status().is_success(), url, made) {
                    copies.insert(url.path().to_owned(), made);
                }
                response
            })
        },
    )
}

/// A store in which the rows of one concept are found by their names only, never by looking through.
struct NotListed(Arc<dyn Store>, &'static str);

#[async_trait]
impl Store for NotListed {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.0.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        match wrap::is_of(from, &[self.1]) {
            true => Ok(Vec::new()),
            false => self.0.scan(from, until, limit).await,
        }
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.0.commit(batch).await
    }
}

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
