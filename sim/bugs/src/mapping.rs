//! Where somebody is served, and who somebody is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::response::Response;
use fusion_deployment::Role;
use fusion_mutants::wrap::{self, Call, code_of, is_cluster, is_of, taken};
use fusion_protocol::{Code, Uuid};
use fusion_runtime::store::{Batch, Key, Store, StoreError};
use fusion_sim::plant::Plant;
use http::Method;
use serde_json::{Value, json};

use crate::disk::{Clerk, Editing, InSteps, edited, kept_by, writes};
use crate::lock;

/// How old the list is that claims are checked against.
const LIST_AGE: Duration = Duration::from_secs(1);
/// How long a look into a second table takes.
const SECOND_TABLE: Duration = Duration::from_millis(120);

pub(crate) const ARRIVAL_IN_STEPS: Plant = Plant {
    name: "arrival-in-two-commits",
    requirement: "MAP-007",
    wrong: "the new cluster makes a moved user active in one commit and writes what came with the user in \
            the next: a crash between the two leaves an active user with an empty index",
    held_out: false,
    hooks: || {
        kept_by(|| InSteps {
            concerns: |batch| writes(batch, "arrival") && writes(batch, "user"),
            second: |key| is_of(key, &["index", "index-at", "index-cursor", "index-preview"]),
        })
    },
};

pub(crate) const CLAIMS_CHECKED_LATE: Plant = Plant {
    name: "claims-within-a-second-both-win",
    requirement: "MAP-002",
    wrong: "a claim is checked against a list of claims that is a second old, so of two orgs that claim a \
            domain at the same moment both are told that they have it",
    held_out: true,
    hooks: || {
        wrap::calls_remembering(
            |role| *role == Role::Provider,
            is_claim,
            |memory, call| Box::pin(async move { claimed(&memory, call).await }),
        )
    },
};

pub(crate) const CREATION_GIVEN_UP: Plant = Plant {
    name: "creation-given-up-in-an-outage",
    requirement: "MAP-001",
    wrong: "who makes a conversation while a participant's cluster cannot be asked is told that there is no \
            such user, for good, instead of to try again",
    held_out: false,
    hooks: || {
        wrap::calls(makes_a_conversation, |call| {
            Box::pin(async move {
                match code_of(call.play().await).await {
                    (Some(Code::ResolutionIncomplete), _) => wrap::refusal(Code::UserUnknown),
                    (_, response) => response,
                }
            })
        })
    },
};

pub(crate) const EVENTS_LEFT_BEHIND: Plant = Plant {
    name: "events-left-behind-by-a-move",
    requirement: "MAP-007",
    wrong: "a move takes devices along and not what is queued for them: a device that was not connected \
            never hears of what came before the move",
    held_out: false,
    hooks: || kept_by(|| Editing(|batch| lose_on_the_way(batch, &["device-event", "device-event-id"]))),
};

pub(crate) const INCARNATION_OF_ADDRESS: Plant = Plant {
    name: "incarnation-made-of-the-address",
    requirement: "NAM-004",
    wrong: "the incarnation of a new user is computed from the address, so that a new person at an old \
            address is taken for the old one",
    held_out: true,
    hooks: || kept_by(|| Editing(name_by_address)),
};

pub(crate) const MAP_CACHED: Plant = Plant {
    name: "map-answers-cached-for-ever",
    requirement: "MAP-007",
    wrong: "a cache in front of the user map keeps what it once answered until the next restart: who has \
            moved is still said to be there",
    held_out: true,
    hooks: || {
        wrap::calls_remembering::<Mutex<BTreeMap<String, Bytes>>>(is_cluster, is_user, |memory, call| {
            Box::pin(async move {
                let asked = format!("{}?{}", call.path(), call.query().unwrap_or_default());
                remembered(&memory, asked, call).await
            })
        })
    },
};

pub(crate) const NEWER_MAP_NOT_KEPT: Plant = Plant {
    name: "newer-map-in-memory-only",
    requirement: "MAP-006",
    wrong: "only the first domain map is written to disk, later ones are held in memory: a cluster that \
            restarts while the provider is away goes back to an older map",
    held_out: false,
    hooks: || kept_by(|| FirstMapOnly),
};

pub(crate) const OUTAGE_REMEMBERED: Plant = Plant {
    name: "outage-remembered-as-unknown",
    requirement: "MAP-001",
    wrong: "an address that could not be resolved in an outage is remembered as unknown, and said to be \
            unknown long after the outage is over",
    held_out: false,
    hooks: || {
        wrap::calls_remembering::<Mutex<BTreeSet<String>>>(is_cluster, is_resolution, |memory, call| {
            Box::pin(async move {
                if lock(&memory).contains(call.path()) {
                    return wrap::refusal(Code::UserUnknown);
                }
                let (code, response) = code_of(call.play().await).await;
                if code == Some(Code::ResolutionIncomplete) {
                    lock(&memory).insert(call.path().to_owned());
                }
                response
            })
        })
    },
};

pub(crate) const SLOTS_LEFT_BEHIND: Plant = Plant {
    name: "slots-left-behind-by-a-move",
    requirement: "CNV-003",
    wrong: "a move takes the index along and not the pair slots: the moved user's next word to an old \
            friend begins a second conversation",
    held_out: true,
    hooks: || kept_by(|| Editing(|batch| lose_on_the_way(batch, &["slot"]))),
};

pub(crate) const UNKNOWN_TAKES_LONGER: Plant = Plant {
    name: "unknown-address-takes-longer",
    requirement: "MAP-008",
    wrong: "an address that a user map does not know is looked for in a second table: whoever asks can tell \
            by the clock, without the answer, who is known",
    held_out: false,
    hooks: || {
        wrap::calls(is_user, |call| {
            Box::pin(async move {
                let (code, response) = code_of(call.play().await).await;
                if code == Some(Code::UserUnknown) {
                    call.host.clock.sleep(SECOND_TABLE).await;
                }
                response
            })
        })
    },
};

pub(crate) fn makes_a_conversation(method: &Method, path: &str) -> bool {
    method == Method::POST && path == "/v1/conversations"
}

pub(crate) fn is_resolution(method: &Method, path: &str) -> bool {
    method == Method::GET && path.starts_with("/v1/resolve/")
}

fn is_claim(method: &Method, path: &str) -> bool {
    method == Method::POST && path == "/v1/domains"
}

fn is_user(method: &Method, path: &str) -> bool {
    method == Method::GET && path.strip_prefix("/v1/users/").is_some_and(|user| !user.contains('/'))
}

/// What the service said to the same question before, or says now.
pub(crate) async fn remembered(
    memory: &Mutex<BTreeMap<String, Bytes>>,
    asked: String,
    call: Call,
) -> Response {
    if let Some(said) = lock(memory).get(&asked) {
        return wrap::json(&serde_json::from_slice::<Value>(said).unwrap_or_default());
    }
    let (said, response) = taken(call.play().await).await;
    if response.status().is_success() {
        lock(memory).insert(asked, said);
    }
    response
}

/// A claim that comes less than a second after somebody else's is granted, too.
async fn claimed(memory: &Mutex<BTreeMap<String, Duration>>, call: Call) -> Response {
    let claim = call.json().unwrap_or_default();
    let domain = claim["domain"].as_str().unwrap_or_default().to_owned();
    let (code, response) = code_of(call.play().await).await;
    let now = call.host.clock.now();
    let just_now = lock(memory).get(&domain).is_some_and(|first| now < *first + LIST_AGE);
    match code {
        None => drop(lock(memory).entry(domain).or_insert(now)),
        Some(Code::DomainClaimed) if just_now => {
            let (org, clusters) = (&claim["org"], &claim["clusters"]);
            let granted = json!({
                "domain": domain, "org": org, "clusters": clusters, "version": "1", "ttlSeconds": 300
            });
            return wrap::json(&granted);
        }
        Some(_) => {}
    }
    response
}

/// Of what comes with a moved user, the rows of these concepts are not kept.
fn lose_on_the_way(batch: &mut Batch, concepts: &[&str]) {
    for (_, value) in batch.puts.iter_mut().filter(|(key, _)| is_of(key, &["arriving"])) {
        let left = edited(value, |part| {
            if let Some(rows) = part["rows"].as_array_mut() {
                rows.retain(|row| row["key"][0].as_str().is_none_or(|concept| !concepts.contains(&concept)));
            }
        });
        *value = left.into();
    }
}

/// Users get the incarnation that their address gives.
fn name_by_address(batch: &mut Batch) {
    for (_, value) in batch.puts.iter_mut().filter(|(key, _)| is_of(key, &["user"])) {
        let named = edited(value, |row| {
            let address = row["record"]["user"].as_str().unwrap_or_default();
            let mixed = address.bytes().fold(0xcbf2_9ce4_8422_2325_u128, |mixed, byte| {
                (mixed ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013B)
            });
            row["record"]["incarnation"] = Uuid::from_u128(mixed).to_string().into();
        });
        *value = named.into();
    }
}

/// Writes a map only where there is none.
struct FirstMapOnly;

#[async_trait]
impl Clerk for FirstMapOnly {
    async fn commit(&self, disk: &dyn Store, batch: Batch) -> Result<(), StoreError> {
        let map = Key::of(&[b"domain-map"]);
        let later = writes(&batch, "domain-map") && disk.get(&[map]).await?[0].is_some();
        disk.commit(if later { Batch::default() } else { batch }).await
    }
}
