//! Clusters that others' troubles become troubles of, and one that promises too much.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use fusion_protocol::Code;
use fusion_runtime::http::Client;
use fusion_runtime::store::{Batch, Key, MemoryStore, Row, Store, StoreError};
use http::{Method, Request};
use tokio::sync::{Mutex, MutexGuard};

use crate::Mutant;
use crate::wrap::{self, Call, is_of};

/// How long a cluster waits for the provider, which it need not ask.
const SHORT: Duration = Duration::from_millis(500);
/// How long a cluster waits for another one that it does not need.
const LONG: Duration = Duration::from_secs(6);
/// How many rows are read at once.
const PAGE: usize = 1_000;

/// OPS-001: a cluster asks the provider before it makes a conversation, each time.
pub(crate) const ASKS_PROVIDER_FIRST: Mutant = Mutant {
    name: "asks-provider-first",
    hooks: || {
        wrap::calls(makes_a_conversation, |call| {
            Box::pin(async move {
                let url = format!("https://clustermap.{}/v1/domains/acme.example", provider(&call));
                match is_there(&call, &url, SHORT).await {
                    true => call.play().await,
                    false => wrap::refusal(Code::ResolutionIncomplete),
                }
            })
        })
    },
};

/// OPS-002: a cluster waits for all others that there are before it makes a conversation.
pub(crate) const WAITS_FOR_EVERYBODY: Mutant = Mutant {
    name: "waits-for-everybody",
    hooks: || {
        wrap::calls(makes_a_conversation, |call| {
            Box::pin(async move {
                for cluster in 'a'..='e' {
                    let url = format!("https://{cluster}-conv.{}/v1/health", provider(&call));
                    is_there(&call, &url, LONG).await;
                }
                call.play().await
            })
        })
    },
};

/// OPS-003: a cluster acknowledges what it has in memory; its disk gets an activity with the next one.
pub(crate) const ANSWERS_BEFORE_DURABLE: Mutant = Mutant {
    name: "answers-before-durable",
    hooks: || wrap::stores(|disk| Arc::new(Lazy { disk, memory: Mutex::default() })),
};

fn makes_a_conversation(method: &Method, path: &str) -> bool {
    method == Method::POST && path == "/v1/conversations"
}

/// The provider's domain, from the name that was asked.
fn provider(call: &Call) -> &str {
    call.authority().split_once('.').map_or("", |(_, provider)| provider)
}

async fn is_there(call: &Call, url: &str, within: Duration) -> bool {
    let Ok(request) = Request::get(url).body(Bytes::new()) else { return false };
    Client::new(&call.host).with_timeout(within).send(request).await.is_ok()
}

/// A store that reads and writes in memory. What was written since the last activity, and that one, its
/// disk gets when the next one is written.
struct Lazy {
    disk: Arc<dyn Store>,
    memory: Mutex<Option<Memory>>,
}

struct Memory {
    rows: MemoryStore,
    /// What the disk has not got yet.
    owed: Vec<Batch>,
}

impl Lazy {
    /// What the disk had when the process began, and what has been written since.
    async fn memory(&self) -> Result<MutexGuard<'_, Option<Memory>>, StoreError> {
        let mut memory = self.memory.lock().await;
        if memory.is_none() {
            let rows = MemoryStore::new();
            let (mut from, until) = (Key::of(&[]), Key::of(&[]).end());
            loop {
                let page = self.disk.scan(&from, &until, PAGE).await?;
                let Some((last, _)) = page.last() else { break };
                from = last.end();
                let mut batch = Batch::default();
                for (key, row) in page {
                    batch.put(key, row.value);
                }
                rows.commit(batch).await?;
            }
            *memory = Some(Memory { rows, owed: Vec::new() });
        }
        Ok(memory)
    }

    async fn rows(&self) -> Result<MemoryStore, StoreError> {
        let memory = self.memory().await?;
        memory.as_ref().map(|memory| memory.rows.clone()).ok_or(StoreError::Closed)
    }
}

#[async_trait]
impl Store for Lazy {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.rows().await?.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        self.rows().await?.scan(from, until, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut memory = self.memory().await?;
        let Some(memory) = memory.as_mut() else { return Err(StoreError::Closed) };
        memory.rows.commit(batch.clone()).await?;
        let has_activity = batch.puts.iter().any(|(key, _)| is_of(key, &["activity"]));
        if has_activity {
            for owed in memory.owed.drain(..) {
                self.disk.commit(owed).await?;
            }
        }
        let batch = Batch { expects: Vec::new(), ..batch };
        if has_activity || !memory.owed.is_empty() {
            memory.owed.push(batch);
            return Ok(());
        }
        self.disk.commit(batch).await
    }
}
