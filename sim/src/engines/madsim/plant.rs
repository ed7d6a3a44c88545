//! A bug that this engine must find: planted by name, never otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use fusion_deployment::{Hooks, Role};
use fusion_runtime::Store;
use fusion_runtime::store::{Batch, Key, Row, StoreError};

use crate::plant::Plant;

/// What only an engine with another order of tasks for each seed finds soon.
pub const FORGETFUL_COMMITS: Plant = Plant {
    name: "forgetful-commits",
    requirement: "OPS-003",
    wrong: "the group commit forgets all but the first of what is committed at the same time",
    held_out: false,
    hooks: forgetful_commits,
};

fn forgetful_commits() -> Hooks {
    let wrap = |role: &Role, store: Arc<dyn Store>| match role {
        Role::Cluster(_) => Arc::new(Forgetful { store, in_flight: AtomicUsize::new(0) }) as Arc<dyn Store>,
        Role::Provider | Role::Relay { .. } => store,
    };
    Hooks { wrap_store: Some(Arc::new(wrap)), ..Hooks::default() }
}

/// A store that acknowledges what it has not written, but only where two tasks commit at the same time.
struct Forgetful {
    store: Arc<dyn Store>,
    in_flight: AtomicUsize,
}

#[async_trait]
impl Store for Forgetful {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.store.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        self.store.scan(from, until, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let first = self.in_flight.fetch_add(1, Ordering::Relaxed) == 0;
        let committed = if first { self.store.commit(batch).await } else { Ok(()) };
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        committed
    }
}
