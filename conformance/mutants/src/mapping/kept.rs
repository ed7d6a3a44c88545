//! Maps that keep too little, or too long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use fusion_deployment::{Hooks, Role};
use fusion_runtime::store::{Batch, Expect, Key, Row, Store, StoreError};
use http::Method;
use serde_json::Value;

use super::is_resolver;
use crate::Mutant;
use crate::wrap;

/// MAP-002: the map writes what was decided, whoever has written meanwhile.
pub(crate) const BOTH_WIN: Mutant = Mutant {
    name: "both-claims-win",
    hooks: || {
        let wrap = |role: &Role, store: Arc<dyn Store>| -> Arc<dyn Store> {
            if matches!(role, Role::Provider) { Arc::new(LastWins(store)) } else { store }
        };
        Hooks { wrap_store: Some(Arc::new(wrap)), ..Hooks::default() }
    },
};

/// MAP-006: a cluster keeps the domain map in memory only.
pub(crate) const MAP_NOT_KEPT: Mutant = Mutant {
    name: "map-not-kept",
    hooks: || wrap::stores(|store| wrap::not_kept(store, &["domain", "domain-map"])),
};

/// MAP-006: what comes from an old map is not marked.
pub(crate) const OLD_AS_NEW: Mutant = Mutant {
    name: "old-map-as-new",
    hooks: || {
        wrap::answers(is_resolver, |_, answer| {
            if let Some(stale) = answer.get_mut("stale") {
                *stale = false.into();
            }
        })
    },
};

/// MAP-004: the registrar of an org gives a place to every cluster that asks.
pub(crate) const PLACE_FOR_ALL: Mutant = Mutant {
    name: "place-for-everybody",
    hooks: || {
        wrap::calls(
            |method, path| method == Method::PUT && path.contains("/v1/places/"),
            |_| Box::pin(async { wrap::no_content() }),
        )
    },
};

/// MAP-004: a resolver remembers for ever where it has found somebody.
pub(crate) const NEVER_FORGETS: Mutant = Mutant { name: "resolver-never-forgets", hooks: never_forgets };

/// A store that looks at no precondition.
struct LastWins(Arc<dyn Store>);

#[async_trait]
impl Store for LastWins {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.0.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        self.0.scan(from, until, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.0.commit(Batch { expects: Vec::<(Key, Expect)>::new(), ..batch }).await
    }
}

fn never_forgets() -> Hooks {
    let found: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
    wrap::calls(is_resolver, move |call| {
        let found = found.clone();
        Box::pin(async move {
            let asked = format!("{} {}", call.cluster(), call.path());
            let known = found.lock().unwrap_or_else(PoisonError::into_inner).get(&asked).cloned();
            if let Some(known) = known {
                return wrap::json(&known);
            }
            let (bytes, response) = wrap::taken(call.play().await).await;
            if let (true, Ok(answer)) = (response.status().is_success(), serde_json::from_slice(&bytes)) {
                found.lock().unwrap_or_else(PoisonError::into_inner).insert(asked, answer);
            }
            response
        })
    })
}
