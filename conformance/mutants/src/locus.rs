//! Calls gone wrong.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::response::Response;
use fusion_deployment::Hooks;
use fusion_protocol::Code;
use http::Method;
use serde_json::Value;

use crate::Mutant;
use crate::mercury::{commits, lose_events};
use crate::wrap::{self, Call, code_of, is_of};

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

/// LOC-003: of two who call each other at once, each is in a call of their own.
pub(crate) const TWO_CALLS: Mutant = Mutant { name: "glare-makes-two-calls", hooks: two_calls };

/// LOC-003: a call that begins refuses who calls back at the same moment.
pub(crate) const GLARE_REFUSED: Mutant = Mutant { name: "glare-refused", hooks: glare_refused };

/// LOC-003: a join that comes too late begins another call.
pub(crate) const LATE_JOIN_RINGS: Mutant =
    Mutant { name: "late-join-rings", hooks: || wrap::calls(is_join, |call| Box::pin(anyway(call))) };

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

/// LOC-008: a locus at rest has its first revision again.
pub(crate) const REV_RESTARTS: Mutant = Mutant {
    name: "revision-restarts",
    hooks: || {
        wrap::answers(
            |method, path| method == Method::GET && path.ends_with("/locus"),
            |_, locus| {
                if locus["state"] == "INACTIVE" {
                    locus["rev"] = "0".into();
                }
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

fn two_calls() -> Hooks {
    wrap::answers(is_join, |call, joined| {
        let expected = call.json().and_then(|join| number(&join["expect"]));
        let (instance, others) = (number(&joined["locus"]["instance"]), in_call(&joined["locus"]));
        if let (Some(expected), Some(instance), 2..) = (expected, instance, others)
            && instance == expected + 1
        {
            joined["locus"]["instance"] = (instance + 1).to_string().into();
        }
    })
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
