//! Participants and limits gone wrong: who may do what, and how much.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::response::Response;
use fusion_deployment::Hooks;
use fusion_protocol::{Code, limits};
use fusion_runtime::store::Key;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::Mutant;
use crate::wrap::{self, Call, code_of};

/// SEC-006: a cache before the conversations does not look at who asks.
pub(crate) const CACHE_FOR_ALL: Mutant = Mutant {
    name: "strangers-read-from-cache",
    hooks: || {
        cached(
            |method, path| method == Method::GET && path.contains("/v1/conversations/"),
            Code::NotParticipant,
        )
    },
};

/// SEC-006: whoever knows the URL of a conversation reads what was said in it.
pub(crate) const URL_IS_ENOUGH: Mutant = Mutant {
    name: "url-is-enough-to-read",
    hooks: || {
        wrap::calls(
            |method, path| method == Method::GET && path.ends_with("/activities"),
            |call| Box::pin(read_by_anybody(call)),
        )
    },
};

/// SEC-010: a cache before the indexes does not look at who asks.
pub(crate) const INDEX_FOR_ALL: Mutant = Mutant {
    name: "index-open-to-others",
    hooks: || cached(|method, path| method == Method::GET && path.ends_with("/index"), Code::Forbidden),
};

/// SEC-010: the list of somebody's calls is shown to whoever asks.
pub(crate) const CALLS_WITHOUT_TOKEN: Mutant = Mutant {
    name: "calls-open-to-all",
    hooks: || cached(|method, path| method == Method::GET && path.ends_with("/loci"), Code::Unauthorized),
};

/// SEC-006: leaving a group is acknowledged and has no effect.
pub(crate) const LEFT_AND_IN: Mutant = Mutant {
    name: "leave-without-effect",
    hooks: || wrap::calls(posts, |call| Box::pin(instead_of_leaving(call))),
};

/// SEC-007: what is too long is cut and taken.
pub(crate) const CUT_TO_LENGTH: Mutant =
    Mutant { name: "too-long-is-cut", hooks: || wrap::calls(posts, |call| Box::pin(cut(call))) };

fn posts(method: &Method, path: &str) -> bool {
    method == Method::POST && path.ends_with("/activities")
}

/// Answers of `code` are replaced by what somebody else was told.
fn cached(concerns: fn(&Method, &str) -> bool, code: Code) -> Hooks {
    let told: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
    wrap::calls(concerns, move |call| {
        let told = told.clone();
        Box::pin(async move {
            let (found, response) = code_of(call.play().await).await;
            let known = told.lock().unwrap_or_else(PoisonError::into_inner).get(call.path()).cloned();
            if let (true, Some(known)) = (found == Some(code), known) {
                return wrap::json(&serde_json::from_slice::<Value>(&known).unwrap_or_default());
            }
            let (bytes, response) = wrap::taken(response).await;
            if response.status() == StatusCode::OK {
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                told.insert(call.path().to_owned(), bytes.to_vec());
            }
            response
        })
    })
}

/// Who is refused is shown what the store has.
async fn read_by_anybody(call: Call) -> Response {
    let (code, response) = code_of(call.play().await).await;
    let id = call.path().strip_prefix("/v1/conversations/").and_then(|rest| rest.split('/').next());
    let Some(id) = id.filter(|_| code == Some(Code::NotParticipant)) else { return response };
    let all = Key::of(&[b"activity", id.as_bytes()]);
    let rows = call.host.store.scan(&all, &all.end(), limits::PAGE_MAX).await.unwrap_or_default();
    let said = rows.iter().filter_map(|(_, row)| serde_json::from_slice::<Value>(&row.value).ok());
    let said: Vec<Value> = said.collect();
    wrap::json(&json!({ "lastSeq": said.len().to_string(), "activities": said }))
}

async fn instead_of_leaving(call: Call) -> Response {
    let leaves = call.json().is_some_and(|act| act["verb"] == "leave");
    match leaves {
        true => call.play_json(&json!({ "verb": "message", "text": "left" })).await,
        false => call.play().await,
    }
}

async fn cut(call: Call) -> Response {
    let long = call.json().and_then(|mut act| {
        let text = act.get("text")?.as_str()?.get(..limits::TEXT_MAX)?.to_owned();
        act["text"] = text.into();
        Some(act)
    });
    match long {
        Some(act) => call.play_json(&act).await,
        None => call.play().await,
    }
}
