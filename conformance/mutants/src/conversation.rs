//! Conversations gone wrong.

mod told;

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::Request;
use axum::response::Response;
use fusion_deployment::{Hooks, Role};
use fusion_protocol::conversation::{Import, Imported};
use fusion_protocol::{Code, Count};
use fusion_runtime::Host;
use fusion_runtime::store::{Batch, Key, Row, Store, StoreError};
use http::Method;
use serde_json::{Value, json};

use crate::Mutant;
use crate::wrap::{self, Call, Verdict, body_of};

pub(crate) use told::{
    ACTIVITY_NOT_KEPT, BY_LOT, GRANTED_UNSEEN, IMPORTS_REFUSED, LOCALS_ADD, NUMBER_OF_THE_LAST,
};

/// CNV-002: a create that does not look whether the pair has a conversation.
pub(crate) const SECOND_ONE_TO_ONE: Mutant = Mutant { name: "second-one-to-one", hooks: forgetful };

/// CNV-004: the winner acknowledges the loser's activities and throws them away.
pub(crate) const LOSER_DROPPED: Mutant = Mutant {
    name: "losers-messages-dropped",
    hooks: || wrap::clusters(|host, request| Box::pin(drop_import(host, request))),
};

/// CNV-001: readers from other clusters see the last two messages in another order.
pub(crate) const REORDERED: Mutant =
    Mutant { name: "reordered-for-guests", hooks: || wrap::answers(is_page, reordered) };

/// CNV-001: a message that is sent again is another message.
pub(crate) const DOUBLED: Mutant = Mutant {
    name: "repeated-post-doubled",
    hooks: || {
        wrap::calls(
            |method, path| method == Method::POST && path.ends_with("/activities"),
            |call| Box::pin(async move { call.keyed_anew().play().await }),
        )
    },
};

/// CNV-002: a conversation of two takes a third in: it says so.
pub(crate) const THIRD_TAKEN_IN: Mutant = Mutant {
    name: "third-taken-into-pair",
    hooks: || {
        wrap::calls(
            |method, path| method == Method::POST && path.ends_with("/activities"),
            |call| Box::pin(taken_in(call)),
        )
    },
};

/// CNV-006: who is brought in reads only what comes after.
pub(crate) const NO_HISTORY: Mutant =
    Mutant { name: "late-joiner-without-history", hooks: || wrap::answers(is_page, from_own_joining) };

fn is_page(method: &Method, path: &str) -> bool {
    method == Method::GET && path.ends_with("/activities")
}

fn reordered(call: &Call, page: &mut Value) {
    let guest = told::is_guest(call);
    let Some(activities) = page["activities"].as_array_mut() else { return };
    // A page that is a whole conversation, not what is new.
    if let (true, [.., _, _, _, _, a, b]) = (guest, activities.as_mut_slice()) {
        std::mem::swap(a, b);
    }
}

fn from_own_joining(call: &Call, page: &mut Value) {
    let Some(claims) = call.claims() else { return };
    let Some(activities) = page["activities"].as_array_mut() else { return };
    let joining = |act: &Value| act["verb"] == "add" && act["user"] == claims.sub.as_str();
    if let Some(joined) = activities.iter().position(joining) {
        activities.drain(..joined);
    }
}

async fn taken_in(call: Call) -> Response {
    match wrap::code_of(call.play().await).await {
        (Some(Code::FixedMembership), _) => {
            call.play_json(&json!({ "verb": "message", "text": "somebody was brought in" })).await
        }
        (_, response) => response,
    }
}

async fn drop_import(_: Host, request: Request) -> Verdict {
    if request.method() != Method::POST || !request.uri().path().ends_with("/imports") {
        return Verdict::Pass(request);
    }
    let (bytes, request) = body_of(request).await;
    match serde_json::from_slice::<Import>(&bytes) {
        Ok(import) => {
            let through = import.first_seq.0 + import.activities.len() as u64 - 1;
            Verdict::Answer(wrap::json(&Imported { through: Count(through) }))
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
