//! Conversations gone wrong.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::Request;
use fusion_deployment::{Hooks, Role};
use fusion_protocol::Count;
use fusion_protocol::conversation::{Import, Imported};
use fusion_runtime::Host;
use fusion_runtime::store::{Batch, Key, Row, Store, StoreError};
use http::Method;

use crate::Mutant;
use crate::wrap::{self, Verdict, body_of, json};

/// CNV-002: a create that does not look whether the pair has a conversation.
pub(crate) const SECOND_ONE_TO_ONE: Mutant = Mutant { name: "second-one-to-one", hooks: forgetful };

/// CNV-004: the winner acknowledges the loser's activities and throws them away.
pub(crate) const LOSER_DROPPED: Mutant = Mutant {
    name: "losers-messages-dropped",
    hooks: || wrap::clusters(|host, request| Box::pin(drop_import(host, request))),
};

async fn drop_import(_: Host, request: Request) -> Verdict {
    if request.method() != Method::POST || !request.uri().path().ends_with("/imports") {
        return Verdict::Pass(request);
    }
    let (bytes, request) = body_of(request).await;
    match serde_json::from_slice::<Import>(&bytes) {
        Ok(import) => {
            let through = import.first_seq.0 + import.activities.len() as u64 - 1;
            Verdict::Answer(json(&Imported { through: Count(through) }))
        }
        Err(_) => Verdict::Pass(request),
    }
}

fn forgetful() -> Hooks {
    let wrap = |role: &Role, store: Arc<dyn Store>| match role {
        Role::Cluster(_) => Arc::new(Forgetful(store)) as Arc<dyn Store>,
        Role::Provider | Role::Relay { .. } => store,
    };
    Hooks { wrap_store: Some(Arc::new(wrap)), ..Hooks::default() }
}

/// A store that does not find what says which conversation a pair has.
struct Forgetful(Arc<dyn Store>);

/// The rows that say so.
fn says_the_pair(key: &Key) -> bool {
    key.parts().first().is_some_and(|concept| concept == b"slot" || concept == b"pair")
}

#[async_trait]
impl Store for Forgetful {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        let rows = self.0.get(keys).await?;
        Ok(keys.iter().zip(rows).map(|(key, row)| row.filter(|_| !says_the_pair(key))).collect())
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        self.0.scan(from, until, limit).await
    }

    async fn commit(&self, mut batch: Batch) -> Result<(), StoreError> {
        batch.expects.retain(|(key, _)| !says_the_pair(key));
        self.0.commit(batch).await
    }
}
