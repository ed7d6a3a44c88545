//! Faults of a deployment that this engine must find: set by `--plant`, never otherwise.

use std::sync::Arc;

use async_trait::async_trait;
use fusion_deployment::{Hooks, Role};
use fusion_runtime::Store;
use fusion_runtime::store::{Batch, Key, Row, StoreError};

/// A planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// Stores that commit whatever has changed meanwhile: every race between two tasks loses an update
    BlindCommits,
}

impl Plant {
    /// The deployment with it.
    #[must_use]
    pub fn hooks(self) -> Hooks {
        let wrap = |_: &Role, store: Arc<dyn Store>| Arc::new(Blind(store)) as Arc<dyn Store>;
        Hooks { wrap_store: Some(Arc::new(wrap)), ..Hooks::default() }
    }
}

/// A store that does not look at what a commit expects.
struct Blind(Arc<dyn Store>);

#[async_trait]
impl Store for Blind {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.0.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        self.0.scan(from, until, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.0.commit(Batch { expects: Vec::new(), ..batch }).await
    }
}
