//! Chats: one for each pair, every word once, in one order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::response::Response;
use fusion_cluster::{ClusterConfig, PairRule};
use fusion_deployment::Hooks;
use fusion_mutants::wrap::{self, Call, code_of, is_cluster, is_of};
use fusion_protocol::{Code, Url};
use fusion_runtime::store::{Batch, Key};
use fusion_sim::plant::Plant;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::disk::{Clerk, Forgetful, Range, Rows, kept_by, part};
use crate::lock;
use crate::mapping::remembered;

/// How long a copy is behind what it copies.
const COPY_BEHIND: Duration = Duration::from_millis(300);
/// How long the members of a conversation are remembered.
const MEMBERS_FOR: Duration = Duration::from_secs(5);
/// How long idempotency keys are remembered.
const KEYS_FOR: Duration = Duration::from_secs(1);
/// How many activities the export of a loser asks for at once.
const EXPORT_PAGE: usize = 100;
/// How many of them are exported.
const EXPORTED_MAX: usize = 2;

pub(crate) const ACKNOWLEDGED_WHILE_SEALING: Plant = Plant {
    name: "acknowledged-while-sealing",
    requirement: "CNV-004",
    wrong: "a message that comes while the loser of a race is being merged is acknowledged and then \
            dropped, for the export has already read its last page",
    held_out: false,
    hooks: || wrap::calls(posts, |call| Box::pin(acknowledged(call))),
};

pub(crate) const CREATION_KEY_FORGOTTEN: Plant = Plant {
    name: "creation-key-forgotten-at-restart",
    requirement: "RDV-005",
    wrong: "what a creation's key has made is held in memory only: a creation that is repeated after a crash \
            makes a second group",
    held_out: true,
    hooks: || kept_by(|| Forgetful::of(&["create"])),
};

pub(crate) const HIDING_EMPTIES: Plant = Plant {
    name: "hiding-empties-the-slot",
    requirement: "CNV-003",
    wrong: "who hides a conversation loses its pair slot with it",
    held_out: true,
    hooks: || {
        wrap::calls(
            |method, path| method == Method::PATCH && path.ends_with("/index"),
            |call| Box::pin(hidden(call)),
        )
    },
};

pub(crate) const KEYS_KEPT_TOO_BRIEFLY: Plant = Plant {
    name: "keys-kept-too-briefly",
    requirement: "RDV-005",
    wrong: "idempotency keys are forgotten after a second: a message that is repeated after a time-out is \
            there twice",
    held_out: true,
    hooks: || {
        wrap::calls_remembering::<Mutex<BTreeMap<String, Duration>>>(is_cluster, posts, |memory, call| {
            Box::pin(async move {
                let key = call.idempotency_key().unwrap_or_default().to_owned();
                let now = call.host.clock.now();
                let first = *lock(&memory).entry(key).or_insert(now);
                if now > first + KEYS_FOR { call.keyed_anew().play().await } else { call.play().await }
            })
        })
    },
};

pub(crate) const LOOKUP_CACHED: Plant = Plant {
    name: "lookup-cached",
    requirement: "CNV-004",
    wrong: "the conversation with somebody is looked up once and remembered: who has looked before a race \
            is over is shown the loser for ever",
    held_out: true,
    hooks: || {
        wrap::calls_remembering::<Mutex<BTreeMap<String, Bytes>>>(is_cluster, looks_up, |memory, call| {
            Box::pin(async move {
                let asked = call.path().to_owned();
                remembered(&memory, asked, call).await
            })
        })
    },
};

pub(crate) const MEMBERS_CACHED: Plant = Plant {
    name: "members-cached",
    requirement: "CNV-006",
    wrong: "who may read and write is looked up once in five seconds: who has just been added to a group is \
            refused",
    held_out: false,
    hooks: || {
        wrap::calls_remembering::<Mutex<Seen>>(is_cluster, is_activities, |memory, call| {
            Box::pin(async move {
                match listed(&memory, &call).await {
                    Some(false) => wrap::refusal(Code::NotParticipant),
                    _ => call.play().await,
                }
            })
        })
    },
};

pub(crate) const MERGE_CUT: Plant = Plant {
    name: "merge-of-one-page",
    requirement: "CNV-004",
    wrong: "only the first page of a loser's messages is exported, and a page is two: a race whose loser has \
            got more loses them",
    held_out: true,
    hooks: || kept_by(|| OnePage),
};

pub(crate) const READ_MISSES_OWN_WRITE: Plant = Plant {
    name: "read-misses-the-last-word",
    requirement: "CNV-001",
    wrong: "conversations are read from a copy that is 300 ms behind: who reads right after writing does \
            not see the own message",
    held_out: true,
    hooks: || {
        wrap::calls_remembering::<Mutex<BTreeMap<String, Duration>>>(
            is_cluster,
            is_activities,
            |memory, call| Box::pin(async move { from_copy(&memory, call).await }),
        )
    },
};

pub(crate) const REDIRECT_FORGETS: Plant = Plant {
    name: "redirect-forgets-the-rest",
    requirement: "CNV-004",
    wrong: "whoever asks a merged conversation for its messages or its call is redirected to the winner \
            itself, not to the winner's messages or call",
    held_out: true,
    hooks: || {
        wrap::calls(
            |_, path| path.starts_with("/v1/conversations/"),
            |call| Box::pin(async move { cut_short(call.play().await) }),
        )
    },
};

pub(crate) const REPEATED_AFTER_RESTART: Plant = Plant {
    name: "repeated-after-restart",
    requirement: "RDV-005",
    wrong: "which messages are there already is held in memory only: one that is repeated because the crash \
            took its answer is there twice",
    held_out: false,
    hooks: || kept_by(|| Forgetful::of(&["activity-id"])),
};

pub(crate) const RULE_DIFFERS: Plant = Plant {
    name: "rule-differs-in-one-cluster",
    requirement: "CNV-003",
    wrong: "one cluster has been left with an older rule for races: its pairs with others never agree",
    held_out: true,
    hooks: || {
        let older = |config: ClusterConfig| match config.name.as_str() {
            "b" => ClusterConfig { pair_rule: PairRule::LowerTimestamp, ..config },
            _ => config,
        };
        Hooks { configure: Some(Arc::new(older)), ..Hooks::default() }
    },
};

pub(crate) const SORTED_BY_TIME: Plant = Plant {
    name: "messages-sorted-by-time",
    requirement: "CNV-001",
    wrong: "a page of messages is sorted by when they were published: after a merge, or where a clock was \
            set back, that is another order than the home's",
    held_out: true,
    hooks: || {
        wrap::answers(
            |method, path| method == Method::GET && path.ends_with("/activities"),
            |_, page| {
                if let Some(activities) = page["activities"].as_array_mut() {
                    activities.sort_by_key(|activity| activity["published"].as_str().map(str::to_owned));
                }
            },
        )
    },
};

/// Who is in each conversation, and when that was looked up.
type Seen = BTreeMap<String, (Duration, Vec<String>)>;

fn posts(method: &Method, path: &str) -> bool {
    method == Method::POST && path.ends_with("/activities")
}

fn is_activities(_: &Method, path: &str) -> bool {
    path.ends_with("/activities")
}

fn looks_up(method: &Method, path: &str) -> bool {
    method == Method::GET && path.starts_with("/v1/users/") && path.contains("/peers/")
}

/// The id of the conversation that a path names.
pub(crate) fn conversation_of(path: &str) -> Option<&str> {
    path.strip_prefix("/v1/conversations/")?.split('/').next()
}

/// What the store says of the conversation that is asked for.
async fn stored(call: &Call) -> Option<Value> {
    let key = Key::of(&[b"conversation", conversation_of(call.path())?.as_bytes()]);
    let row = call.host.store.get(&[key]).await.ok()?.pop()??;
    serde_json::from_slice(&row.value).ok()
}

/// A message that has to wait for a merge is said to be there.
async fn acknowledged(call: Call) -> Response {
    let (code, response) = code_of(call.play().await).await;
    let (Some(Code::Sealing), Some(claims), Some(conversation)) = (code, call.claims(), stored(&call).await)
    else {
        return response;
    };
    let last = conversation["lastSeq"].as_str().and_then(|last| last.parse::<u64>().ok()).unwrap_or(0);
    let mut activity = call.json().unwrap_or_default();
    let id = call.host.entropy.uuid().simple().to_string();
    activity["id"] = format!("{id}{id}").into();
    activity["seq"] = (last + 1).to_string().into();
    activity["author"] = claims.sub.into();
    activity["incarnation"] = json!(claims.incarnation);
    activity["published"] = call.host.clock.wall().to_string().into();
    wrap::json_with(StatusCode::CREATED, &activity)
}

/// The slot of a conversation goes when its entry is hidden.
async fn hidden(call: Call) -> Response {
    let response = call.play().await;
    let change = call.json().unwrap_or_default();
    let user = call.claims().map(|claims| claims.sub).unwrap_or_default();
    if !response.status().is_success() || change["hidden"] != true {
        return response;
    }
    let slots = Key::of(&[b"slot", user.as_bytes()]);
    let mut batch = Batch::default();
    for (key, row) in call.host.store.scan(&slots, &slots.end(), 1_000).await.unwrap_or_default() {
        let row: Value = serde_json::from_slice(&row.value).unwrap_or_default();
        if row["slot"]["url"] == change["url"] {
            batch.delete(key);
        }
    }
    // What cannot be removed stays.
    let _ = call.host.store.commit(batch).await;
    response
}

/// Whether the caller is in the conversation as far as is remembered.
async fn listed(memory: &Mutex<Seen>, call: &Call) -> Option<bool> {
    let (user, now) = (call.claims()?.sub, call.host.clock.now());
    let id = conversation_of(call.path())?.to_owned();
    let fresh = lock(memory).get(&id).filter(|(at, _)| now < *at + MEMBERS_FOR).cloned();
    let members = match fresh {
        Some((_, members)) => members,
        None => {
            let conversation = stored(call).await?;
            let members = conversation["participants"].as_array()?;
            let members: Vec<_> =
                members.iter().filter_map(|member| Some(member["user"].as_str()?.to_owned())).collect();
            lock(memory).insert(id, (now, members.clone()));
            members
        }
    };
    Some(members.contains(&user))
}

/// A page as it was before the last message, where that is younger than the copy.
async fn from_copy(memory: &Mutex<BTreeMap<String, Duration>>, call: Call) -> Response {
    let (path, response) = (call.path().to_owned(), call.play().await);
    let now = call.host.clock.now();
    if call.method() == Method::POST && response.status().is_success() {
        lock(memory).insert(path, now);
        return response;
    }
    let behind = lock(memory).get(&path).is_some_and(|written| now < *written + COPY_BEHIND);
    if !behind || !response.status().is_success() {
        return response;
    }
    wrap::edited(response, |page| {
        let last = page["activities"].as_array_mut().and_then(Vec::pop);
        let seq = last.and_then(|last| last["seq"].as_str()?.parse::<u64>().ok());
        if let Some(seq) = seq {
            page["lastSeq"] = seq.saturating_sub(1).to_string().into();
        }
    })
    .await
}

/// A redirect to the conversation, whatever was asked for below it.
fn cut_short(mut response: Response) -> Response {
    if response.status() != StatusCode::PERMANENT_REDIRECT {
        return response;
    }
    let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok()?.parse::<Url>().ok());
    if let Some(mut to) = to
        && let Some(id) = conversation_of(to.path()).map(str::to_owned)
    {
        to.set_path(&format!("/v1/conversations/{id}"));
        if let Ok(to) = HeaderValue::from_str(to.as_str()) {
            response.headers_mut().insert(header::LOCATION, to);
        }
    }
    response
}

/// Gives the export of a conversation one short page.
struct OnePage;

impl Clerk for OnePage {
    fn scanned(&self, asked: &Range<'_>, mut found: Rows) -> Rows {
        if asked.limit == EXPORT_PAGE && is_of(asked.from, &["activity"]) {
            let first = part(asked.from, 2).is_some_and(|seq| u64::from_str_radix(&seq, 16) == Ok(1));
            found.truncate(if first { EXPORTED_MAX } else { 0 });
        }
        found
    }
}
