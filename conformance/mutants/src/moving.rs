//! Moves of users gone wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use axum::response::Response;
use fusion_deployment::{Hooks, Role};
use fusion_protocol::Code;
use fusion_runtime::store::{Batch, Key, Row, Store, StoreError};
use http::Method;
use serde_json::Value;

use crate::Mutant;
use crate::wrap::{self, Call, is_of};

/// MAP-007: the new cluster commits without what came of the index.
pub(crate) const INDEX_LEFT_BEHIND: Mutant =
    Mutant { name: "index-left-behind", hooks: || leaving_behind(&["index", "index-at"]) };

/// MAP-007: the new cluster takes an index over and counts its changes anew.
pub(crate) const INDEX_COUNTED_ANEW: Mutant =
    Mutant { name: "index-counted-anew", hooks: || leaving_behind(&["index-cursor"]) };

/// MAP-007: the old cluster goes on writing while it carries everything over.
pub(crate) const FENCE_FORGOTTEN: Mutant =
    Mutant { name: "fence-forgotten", hooks: || wrap::stores(|store| Arc::new(Unfenced(store))) };

/// MAP-007: a user map that has answered for a user once answers so for ever.
pub(crate) const OLD_MAP_REMEMBERS: Mutant = Mutant { name: "old-map-remembers", hooks: remembering };

/// CNV-002: for whoever has moved nobody speaks but the cluster that they have now, not even of what they
/// made before.
pub(crate) const FROM_NOW_ON: Mutant = Mutant { name: "spoken-for-from-now-on", hooks: from_now_on };

/// Drops some of what comes when a user arrives.
struct LeftBehind {
    store: Arc<dyn Store>,
    what: &'static [&'static str],
}

/// Never writes a fence into a user's row.
struct Unfenced(Arc<dyn Store>);

#[async_trait]
impl Store for LeftBehind {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.store.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        self.store.scan(from, until, limit).await
    }

    async fn commit(&self, mut batch: Batch) -> Result<(), StoreError> {
        if batch.puts.iter().any(|(key, _)| is_of(key, &["arrival"])) {
            batch.puts.retain(|(key, _)| !is_of(key, self.what));
        }
        self.store.commit(batch).await
    }
}

#[async_trait]
impl Store for Unfenced {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.0.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        self.0.scan(from, until, limit).await
    }

    async fn commit(&self, mut batch: Batch) -> Result<(), StoreError> {
        for (_, value) in batch.puts.iter_mut().filter(|(key, _)| is_of(key, &["user"])) {
            if let Ok(mut row) = serde_json::from_slice::<Value>(value)
                && row.as_object_mut().is_some_and(|row| row.remove("fenced").is_some())
            {
                *value = serde_json::to_vec(&row).unwrap_or_default().into();
            }
        }
        self.0.commit(batch).await
    }
}

/// Who has arrived where, as everybody learns at once.
fn from_now_on() -> Hooks {
    let arrived: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    let concerns = |method: &Method, path: &str| {
        method == Method::POST && path.starts_with("/v1/arrivals/")
            || method == Method::PUT && path.contains("/peers/")
    };
    wrap::calls(concerns, move |call| {
        let arrived = arrived.clone();
        Box::pin(async move {
            let at = call.cluster().to_owned();
            let word = |n| call.path().split('/').nth(n).and_then(wrap::spelt_in).unwrap_or_default();
            if call.method() == Method::POST {
                arrived.lock().unwrap_or_else(PoisonError::into_inner).insert(word(3), at);
                return call.play().await;
            }
            let now = arrived.lock().unwrap_or_else(PoisonError::into_inner).get(&word(5)).cloned();
            let home = call.json().and_then(|claim| Some(claim.get("home")?.as_str()?.to_owned()));
            match now.is_some() && now != home {
                true => wrap::refusal(Code::NotYourObject),
                false => call.play().await,
            }
        })
    })
}

fn leaving_behind(what: &'static [&'static str]) -> Hooks {
    let wrap = move |role: &Role, store: Arc<dyn Store>| match wrap::is_cluster(role) {
        true => Arc::new(LeftBehind { store, what }) as Arc<dyn Store>,
        false => store,
    };
    Hooks { wrap_store: Some(Arc::new(wrap)), ..Hooks::default() }
}

fn remembering() -> Hooks {
    let told: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
    wrap::calls(is_map, move |call| Box::pin(remember(call, told.clone())))
}

/// `GET /v1/users/{user}` or the resolver.
fn is_map(method: &Method, path: &str) -> bool {
    let user = path.rsplit_once("/v1/users/").is_some_and(|(_, rest)| !rest.contains('/'));
    method == Method::GET && (user || path.contains("/v1/resolve/"))
}

async fn remember(call: Call, told: Arc<Mutex<BTreeMap<String, Value>>>) -> Response {
    let asked = format!("{} {}", call.cluster(), call.path());
    let (bytes, response) = wrap::taken(call.play().await).await;
    let answer: Option<Value> = serde_json::from_slice(&bytes).ok();
    let own = |answer: &Value| response.status().is_success() && answer["cluster"] == call.cluster();
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(answer) = answer.filter(own) {
        told.insert(asked, answer);
        return response;
    }
    told.get(&asked).map_or(response, wrap::json)
}
