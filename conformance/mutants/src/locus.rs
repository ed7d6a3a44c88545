//! Calls gone wrong.

mod kept;
mod rows;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::response::Response;
use fusion_deployment::Hooks;
use fusion_protocol::Code;
use fusion_runtime::store::{Batch, Key};
use http::Method;
use serde_json::{Value, json};

use crate::Mutant;
use crate::mercury::{commits, lose_events};
use crate::wrap::{self, Call, code_of, is_of, taken};

pub(crate) use kept::{CALLS_COUNTED_ANEW, NOT_TAKEN_IN, OTHER_URL_KEPT, RINGS_AFTER_JOINING};
pub(crate) use rows::{
    END_NOT_POSTED, GROUP_OF_TWO, LEASE_NOT_KEPT, READ_FROM_A_COPY, REV_OF_THE_CALL, REV_RESTARTS, RINGS_ON,
    THROWN_OUT,
};

/// Where clusters serve.
const HTTPS: u16 = 443;
/// How often a row is tried to be changed that others change, too.
const STRIKES_MAX: usize = 8;

/// LOC-001: each call but the first has a URL of its own.
pub(crate) const URL_CHANGES: Mutant = Mutant {
    name: "locus-url-changes",
    hooks: || {
        wrap::answers(is_join, |_, joined| {
            let locus = &mut joined["locus"];
            if let (Some(url), Some(instance @ 2..)) = (locus["url"].as_str(), number(&locus["instance"])) {
                locus["url"] = format!("{url}/{instance}").into();
            }
        })
    },
};

/// LOC-002: nobody is rung.
pub(crate) const NEVER_RINGS: Mutant = Mutant {
    name: "never-rings",
    hooks: || commits(|batch| lose_events(batch, |event| event["eventType"] == "locus.ringing")),
};

/// LOC-003: whoever joins a call that goes on ends it and begins one of their own.
pub(crate) const TWO_CALLS: Mutant =
    Mutant { name: "glare-makes-two-calls", hooks: || wrap::calls(is_join, |call| Box::pin(apart(call))) };

/// LOC-003: a call that begins refuses who calls back at the same moment.
pub(crate) const GLARE_REFUSED: Mutant = Mutant { name: "glare-refused", hooks: glare_refused };

/// LOC-003: whoever looks at a locus is told of the call after the current one.
pub(crate) const COUNTED_AHEAD: Mutant = Mutant {
    name: "calls-counted-ahead",
    hooks: || {
        wrap::answers(
            |method, path| method == Method::GET && path.ends_with("/locus"),
            |_, locus| {
                if let Some(instance @ 1..) = number(&locus["instance"]) {
                    locus["instance"] = (instance + 1).to_string().into();
                }
            },
        )
    },
};

/// LOC-003: a join that comes too late begins another call.
pub(crate) const LATE_JOIN_RINGS: Mutant =
    Mutant { name: "late-join-rings", hooks: || wrap::calls(is_join, |call| Box::pin(anyway(call))) };

/// LOC-005: before it takes a join, the home asks the clusters of all participants.
pub(crate) const ASKS_FIRST: Mutant = Mutant {
    name: "join-asks-other-clusters",
    hooks: || wrap::calls(is_join, |call| Box::pin(having_asked(call))),
};

/// LOC-006: declining is acknowledged and not done.
pub(crate) const DECLINE_IGNORED: Mutant = Mutant {
    name: "decline-ignored",
    hooks: || {
        wrap::calls(
            |method, path| method == Method::PUT && path.contains("/locus/participants/"),
            |call| Box::pin(without_declining(call)),
        )
    },
};

/// LOC-006: the other devices are not told that one has answered.
pub(crate) const OTHERS_RING_ON: Mutant = Mutant {
    name: "others-ring-on",
    hooks: || commits(|batch| lose_events(batch, |event| event["eventType"] == "locus.answeredElsewhere")),
};

/// LOC-007: calls that are over stay in the lists.
pub(crate) const GHOST_CALLS: Mutant = Mutant {
    name: "ended-calls-stay-listed",
    hooks: || {
        commits(|batch| {
            batch.deletes.retain(|key| !is_of(key, &["active-now"]));
        })
    },
};

/// LOC-007: the lease of a call that is over is renewed.
pub(crate) const LEASE_FOR_EVER: Mutant = Mutant {
    name: "lease-outlives-call",
    hooks: || {
        wrap::calls(
            |method, path| method == Method::POST && path.ends_with("/lease"),
            |call| {
                Box::pin(async move {
                    match code_of(call.play().await).await {
                        (Some(Code::CallOver), _) => wrap::no_content(),
                        (_, response) => response,
                    }
                })
            },
        )
    },
};

fn is_join(method: &Method, path: &str) -> bool {
    method == Method::POST && path.ends_with("/locus/participants")
}

/// How many are in the call that somebody has joined.
fn in_call(locus: &Value) -> usize {
    let all = locus["participants"].as_array().into_iter().flatten();
    all.filter(|participant| participant["state"] == "JOINED").count()
}

/// Whoever finds somebody in the call strikes it out, and begins the next.
async fn apart(call: Call) -> Response {
    let (bytes, response) = taken(call.play().await).await;
    let joined: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let instance = number(&joined["locus"]["instance"]).filter(|_| in_call(&joined["locus"]) > 1);
    let mut join = call.json().unwrap_or_default();
    match instance.filter(|instance| number(&join["expect"]) == instance.checked_sub(1)) {
        Some(instance) if strike_out(&call).await.is_some() => {
            join["expect"] = instance.to_string().into();
            call.play_json(&join).await
        }
        _ => response,
    }
}

/// Nobody is in the call any more, as far as the store knows.
async fn strike_out(call: &Call) -> Option<()> {
    let store = &call.host.store;
    let key = Key::of(&[b"locus", conversation_of(call)?.as_bytes()]);
    for _ in 0..STRIKES_MAX {
        let row = store.get(std::slice::from_ref(&key)).await.ok()?.pop()??;
        let mut locus: Value = serde_json::from_slice(&row.value).ok()?;
        locus["state"] = "INACTIVE".into();
        locus["parties"] = json!({});
        let mut batch = Batch::default();
        batch.expect(&key, Some(&row)).put(key.clone(), serde_json::to_vec(&locus).ok()?);
        if store.commit(batch).await.is_ok() {
            return Some(());
        }
    }
    None
}

/// Every participant's cluster is connected to, one after the other, before the join is looked at.
async fn having_asked(call: Call) -> Response {
    for other in clusters_of(&call).await.unwrap_or_default() {
        let name = call.authority().replacen(call.cluster(), &other, 1);
        let net = &call.host.net;
        for address in net.resolve(&name, HTTPS).await.unwrap_or_default() {
            drop(net.connect(address, &name).await);
        }
    }
    call.play().await
}

/// The other clusters that the conversation's members are served by.
async fn clusters_of(call: &Call) -> Option<BTreeSet<String>> {
    let key = Key::of(&[b"conversation", conversation_of(call)?.as_bytes()]);
    let row = call.host.store.get(std::slice::from_ref(&key)).await.ok()?.pop()??;
    let conversation: Value = serde_json::from_slice(&row.value).ok()?;
    let members = conversation["participants"].as_array().into_iter().flatten();
    let clusters = members.filter_map(|member| member["cluster"].as_str().map(str::to_owned));
    Some(clusters.filter(|cluster| cluster != call.cluster()).collect())
}

/// The conversation that a call's path names.
fn conversation_of(call: &Call) -> Option<&str> {
    call.path().strip_prefix("/v1/conversations/")?.split('/').next()
}

/// The second join that expects the same is told that the call is over.
fn glare_refused() -> Hooks {
    let begun: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    wrap::calls(is_join, move |call| {
        let begun = begun.clone();
        Box::pin(async move {
            let expect = call.json().map(|join| join["expect"].to_string()).unwrap_or_default();
            let first = format!("{} {expect}", call.path());
            let (code, response) = code_of(call.play().await).await;
            let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
            match code.is_none() && !begun.insert(first) {
                true => wrap::refusal(Code::CallOver),
                false => response,
            }
        })
    })
}

/// The call is joined as if the caller knew what has become of it.
async fn anyway(call: Call) -> Response {
    let (mut code, mut response) = code_of(call.play().await).await;
    let mut join = call.json().unwrap_or_default();
    for _ in 0..3 {
        let Some(expect) = number(&join["expect"]).filter(|_| code == Some(Code::CallOver)) else { break };
        join["expect"] = (expect + 1).to_string().into();
        (code, response) = code_of(call.play_json(&join).await).await;
    }
    response
}

async fn without_declining(call: Call) -> Response {
    let declines = call.json().is_some_and(|change| change["state"] == "DECLINED");
    match call.path().split_once("/participants/").filter(|_| declines) {
        Some((locus, _)) => call.read(locus).await,
        None => call.play().await,
    }
}

fn number(value: &Value) -> Option<u64> {
    value.as_str()?.parse().ok()
}
