//! Calls: who is in them, who is told, and when they end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::response::Response;
use fusion_mutants::wrap::{self, Call, is_cluster, taken};
use fusion_runtime::store::{Batch, Key};
use fusion_sim::plant::Plant;
use http::Method;
use serde_json::{Value, json};

use crate::disk::{Forgetful, Misreading, kept_by};
use crate::lock;

/// By how much entries of the active list look older than they are, in microseconds.
const AGED_US: u64 = 150_000_000;

pub(crate) const ACTIVE_CALL_HIDDEN_EARLY: Plant = Plant {
    name: "active-call-hidden-early",
    requirement: "LOC-007",
    wrong: "a call leaves the list of active calls 30 s after its home has last spoken of it, and the home \
            speaks every 60 s: a long call comes and goes",
    held_out: false,
    hooks: || {
        kept_by(|| Misreading {
            concept: "active-now",
            edit: |row| {
                if let Some(renewed) = row["renewed"].as_u64() {
                    row["renewed"] = renewed.saturating_sub(AGED_US).into();
                }
            },
        })
    },
};

pub(crate) const JOIN_FROM_CACHE: Plant = Plant {
    name: "join-answered-from-a-cache",
    requirement: "LOC-003",
    wrong: "a join that has been answered is answered the same when it comes again, also when the call is \
            over: the device believes that it is in a call that there is not",
    held_out: false,
    hooks: || {
        wrap::calls_remembering::<Mutex<BTreeMap<String, Bytes>>>(is_cluster, is_join, |memory, call| {
            Box::pin(async move {
                let user = call.claims().map(|claims| claims.sub).unwrap_or_default();
                let join = call.json().unwrap_or_default();
                let asked = format!("{} {user} {} {}", call.path(), join["device"], join["expect"]);
                crate::mapping::remembered(&memory, asked, call).await
            })
        })
    },
};

pub(crate) const LAST_WORD_WINS: Plant = Plant {
    name: "last-word-on-a-call-wins",
    requirement: "LOC-007",
    wrong: "the list of active calls takes whatever comes last, whatever its instance and rev: a word that \
            was held up on its way brings back a call that is over",
    held_out: false,
    hooks: || {
        wrap::calls(
            |method, path| method == Method::POST && path == "/v1/loci",
            |call| Box::pin(taken_as_it_comes(call)),
        )
    },
};

pub(crate) const LEASE_RENEWED_BY_ANYBODY: Plant = Plant {
    name: "lease-renewed-by-anybody",
    requirement: "LOC-007",
    wrong: "whoever keeps a call alive keeps it alive for all who ever did: a device that has crashed never \
            leaves while another stays",
    held_out: false,
    hooks: || {
        wrap::calls_remembering::<Mutex<Keepers>>(is_cluster, is_lease, |memory, call| {
            Box::pin(async move { for_everybody(&memory, call).await })
        })
    },
};

pub(crate) const LEFT_AND_STILL_IN: Plant = Plant {
    name: "left-and-still-in",
    requirement: "LOC-007",
    wrong: "who hangs up is answered, and stays in the call until the lease runs out",
    held_out: true,
    hooks: || {
        wrap::calls(
            |method, path| method == Method::PUT && path.contains("/locus/participants/"),
            |call| {
                Box::pin(async move {
                    let leaves = call.json().is_some_and(|change| change["state"] == "LEFT");
                    match call.path().split_once("/participants/") {
                        Some((locus, _)) if leaves => call.read(locus).await,
                        _ => call.play().await,
                    }
                })
            },
        )
    },
};

pub(crate) const LISTED_AS_RINGING: Plant = Plant {
    name: "joined-call-listed-as-ringing",
    requirement: "LOC-007",
    wrong: "the list of active calls says of each that it rings, also to who has joined it",
    held_out: true,
    hooks: || {
        wrap::answers(
            |method, path| method == Method::GET && path.starts_with("/v1/users/") && path.ends_with("/loci"),
            |_, list| {
                for call in list["loci"].as_array_mut().into_iter().flatten() {
                    call["participantState"] = "NOTIFIED".into();
                }
            },
        )
    },
};

pub(crate) const LIVE_CALLS_FORGOTTEN: Plant = Plant {
    name: "live-calls-forgotten-at-restart",
    requirement: "LOC-007",
    wrong: "which calls go on is held in memory only: after a restart of the home nobody's lease in them \
            runs out, and who has crashed meanwhile is in the call for ever",
    held_out: true,
    hooks: || kept_by(|| Forgetful::of(&["locus-live"])),
};

pub(crate) const REV_AS_TEXT: Plant = Plant {
    name: "rev-compared-as-text",
    requirement: "LOC-008",
    wrong: "whether a reader knows a call's newest state is decided by comparing revs as text: who knows 9 \
            is told that nothing is new at 10",
    held_out: false,
    hooks: || {
        wrap::calls(
            |method, path| method == Method::GET && path.ends_with("/locus"),
            |call| Box::pin(compared_as_text(call)),
        )
    },
};

/// The last renewal of each device's lease, by locus.
type Keepers = BTreeMap<String, BTreeMap<String, Arc<Call>>>;

fn is_join(method: &Method, path: &str) -> bool {
    method == Method::POST && path.ends_with("/locus/participants")
}

fn is_lease(method: &Method, path: &str) -> bool {
    method == Method::POST && path.ends_with("/lease")
}

/// Every renewal of the locus that was ever asked for is asked for again.
async fn for_everybody(memory: &Mutex<Keepers>, call: Call) -> Response {
    let Some((locus, participant)) = call.path().split_once("/participants/") else {
        return call.play().await;
    };
    let (locus, device) = (locus.to_owned(), call.json().unwrap_or_default()["device"].to_string());
    let keeper = format!("{participant} {device}");
    let call = Arc::new(call);
    let keepers = {
        let mut memory = lock(memory);
        let keepers = memory.entry(locus).or_default();
        keepers.insert(keeper.clone(), call.clone());
        keepers.clone()
    };
    let response = call.play().await;
    for (_, other) in keepers.iter().filter(|(other, _)| **other != keeper) {
        drop(other.play().await);
    }
    response
}

/// An entry that is older than the known one takes its place.
async fn taken_as_it_comes(call: Call) -> Response {
    let response = call.play().await;
    let sent = call.json().unwrap_or_default();
    if response.status().is_success() {
        for row in sent["rows"].as_array().into_iter().flatten() {
            // A row that others change meanwhile stays as it is.
            let _ = put_back(&call, row).await;
        }
    }
    response
}

async fn put_back(call: &Call, sent: &Value) -> Option<()> {
    let (user, entry) = (sent["user"].as_str()?, &sent["entry"]);
    let locus = entry["locusUrl"].as_str()?;
    let key = |concept: &str| Key::of(&[concept.as_bytes(), user.as_bytes(), locus.as_bytes()]);
    let row = call.host.store.get(&[key("active")]).await.ok()?.pop()??;
    let mut known: Value = serde_json::from_slice(&row.value).ok()?;
    if age(&known["entry"])? <= age(entry)? {
        return None;
    }
    known["entry"] = entry.clone();
    let known = serde_json::to_vec(&known).ok()?;
    let mut batch = Batch::default();
    batch.expect(&key("active"), Some(&row)).put(key("active"), known.clone());
    if entry["state"] != "INACTIVE" {
        batch.put(key("active-now"), known);
    }
    call.host.store.commit(batch).await.ok()
}

/// By what entries of the active list are ordered.
fn age(entry: &Value) -> Option<(u64, u64)> {
    let number = |member: &str| entry[member].as_str()?.parse().ok();
    Some((number("instance")?, number("rev")?))
}

async fn compared_as_text(call: Call) -> Response {
    let since = call.query().and_then(|query| query.split('&').find_map(|part| part.strip_prefix("since=")));
    let Some(since) = since.map(str::to_owned) else { return call.play().await };
    let (whole, response) = taken(call.read(call.path()).await).await;
    let whole: Value = serde_json::from_slice(&whole).unwrap_or_default();
    match whole["rev"].as_str() {
        Some(rev) if since.as_str() >= rev => wrap::json(&json!({ "type": "unchanged", "rev": rev })),
        Some(_) => call.play().await,
        None => response,
    }
}
