//! The index: who is told, what they are shown, and what leaves a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::response::Response;
use fusion_mutants::wrap::{self, Call, is_cluster, is_of, taken};
use fusion_protocol::Code;
use fusion_runtime::store::{Batch, Key, Row, Store, StoreError};
use fusion_sim::plant::Plant;
use http::Method;
use serde_json::{Value, json};

use crate::disk::{Clerk, Editing, InSteps, kept_by, writes};
use crate::lock;
use crate::mapping::makes_a_conversation;

/// How long a page of an index is shown again.
const PAGE_FOR: Duration = Duration::from_millis(400);

pub(crate) const CREATIONS_ONE_AT_A_TIME: Plant = Plant {
    name: "creations-one-at-a-time",
    requirement: "RDV-002",
    wrong: "a cluster makes one conversation at a time: while it waits for a dead cluster because of one, \
            all others wait, too",
    held_out: true,
    hooks: || {
        wrap::calls_remembering::<tokio::sync::Mutex<()>>(is_cluster, makes_a_conversation, |queue, call| {
            Box::pin(async move {
                let _turn = queue.lock().await;
                call.play().await
            })
        })
    },
};

pub(crate) const LAST_OF_GROUP_NEVER_TOLD: Plant = Plant {
    name: "last-of-a-group-never-told",
    requirement: "RDV-002",
    wrong: "of those whom a new group is to be announced to in other clusters, the last is left out",
    held_out: false,
    hooks: || kept_by(|| Editing(leave_out_the_last)),
};

pub(crate) const LOSER_NOT_MARKED: Plant = Plant {
    name: "loser-not-marked-in-the-index",
    requirement: "CNV-004",
    wrong: "the index shows the loser of a race as if it were alive, beside the winner",
    held_out: true,
    hooks: || {
        wrap::answers(is_index, |_, page| {
            for entry in entries(page) {
                if let Some(entry) = entry.as_object_mut() {
                    entry.remove("supersededBy");
                }
            }
        })
    },
};

pub(crate) const NOTIFIED_BEFORE_INDEXED: Plant = Plant {
    name: "notified-before-indexed",
    requirement: "RDV-002",
    wrong: "the event is queued in one commit and the index entry written in the next: who is fast reads an \
            index that knows nothing of it, and after a crash between the two it never does",
    held_out: true,
    hooks: || {
        kept_by(|| InSteps {
            concerns: |batch| writes(batch, "device-event") && writes(batch, "index"),
            second: |key| is_of(key, &["index", "index-at", "index-cursor", "index-preview"]),
        })
    },
};

pub(crate) const ONE_REFUSED_BLOCKS_ALL: Plant = Plant {
    name: "one-refused-row-blocks-the-batch",
    requirement: "RDV-005",
    wrong: "a batch of index entries of which one is refused is answered as failed: the others are sent \
            again and again and never count as written",
    held_out: false,
    hooks: || {
        wrap::calls(
            |method, path| method == Method::POST && path == "/v1/index",
            |call| Box::pin(all_or_nothing(call)),
        )
    },
};

pub(crate) const OUTBOX_FORGETS_WHAT_IS_SENT: Plant = Plant {
    name: "outbox-row-removed-when-sent",
    requirement: "RDV-005",
    wrong: "a row of the outbox is removed when it is handed to the sender, not when it is answered: what \
            waits for a peer that is down is lost in a crash",
    held_out: false,
    hooks: || kept_by(Dispatcher::default),
};

pub(crate) const PAGE_FROM_THE_PAST: Plant = Plant {
    name: "index-page-from-the-past",
    requirement: "RDV-002",
    wrong: "a page of the index is kept for 400 ms and given again, also to a read that waits for a cursor: \
            who reads twice within that time misses what came between",
    held_out: false,
    hooks: || {
        wrap::calls_remembering::<Mutex<BTreeMap<String, (Duration, Bytes)>>>(
            is_cluster,
            is_index,
            |memory, call| Box::pin(async move { again(&memory, call).await }),
        )
    },
};

pub(crate) const PREVIEW_ONE_BEHIND: Plant = Plant {
    name: "preview-one-message-behind",
    requirement: "RDV-004",
    wrong: "the preview that an index shows lacks the last message",
    held_out: false,
    hooks: || {
        wrap::answers(is_index, |_, page| {
            for entry in entries(page) {
                if let Some(preview) = entry["preview"].as_array_mut().filter(|preview| preview.len() > 1) {
                    preview.pop();
                }
            }
        })
    },
};

pub(crate) const REPAIR_SKIPS_MISSING: Plant = Plant {
    name: "repair-skips-what-is-missing",
    requirement: "RDV-007",
    wrong: "a digest is compared with the entries that are there: what an index has lost altogether is not \
            asked for",
    held_out: false,
    hooks: || {
        wrap::answers(
            |method, path| method == Method::POST && path == "/v1/index/digests",
            |_, answer| {
                if let Some(differences) = answer["differences"].as_array_mut() {
                    differences.retain(|difference| !difference["lastSeq"].is_null());
                }
            },
        )
    },
};

pub(crate) const UNREACHABLE_FOR_EVER: Plant = Plant {
    name: "once-unreachable-always-unreachable",
    requirement: "RDV-006",
    wrong: "a conversation that was shown as unreachable once is shown so until the next restart",
    held_out: true,
    hooks: || {
        wrap::calls_remembering::<Mutex<BTreeSet<String>>>(is_cluster, is_index, |memory, call| {
            Box::pin(async move {
                let response = call.play().await;
                wrap::edited(response, |page| given_up(&mut lock(&memory), page)).await
            })
        })
    },
};

fn is_index(method: &Method, path: &str) -> bool {
    method == Method::GET && path.starts_with("/v1/users/") && path.ends_with("/index")
}

fn entries(page: &mut Value) -> impl Iterator<Item = &mut Value> {
    page["entries"].as_array_mut().into_iter().flatten()
}

/// Of a creation's rows of the outbox, the last one is not written if it is not the only one.
fn leave_out_the_last(batch: &mut Batch) {
    let mut outbox =
        batch.puts.iter().enumerate().filter(|(_, (key, _))| is_of(key, &["outbox"])).map(|(at, _)| at);
    let (first, last) = (outbox.next(), outbox.last());
    if let (Some(_), Some(last)) = (first, last)
        && writes(batch, "create")
    {
        batch.puts.remove(last);
    }
}

/// A batch in which something is refused is answered as not taken.
async fn all_or_nothing(call: Call) -> Response {
    let (said, response) = taken(call.play().await).await;
    let answer: Value = serde_json::from_slice(&said).unwrap_or_default();
    let refused = answer["results"].as_array().into_iter().flatten().any(|row| !row["code"].is_null());
    if refused { wrap::refusal(Code::Unavailable) } else { response }
}

/// The page that was given a moment ago, or a new one.
async fn again(memory: &Mutex<BTreeMap<String, (Duration, Bytes)>>, call: Call) -> Response {
    let query = call.query().unwrap_or_default();
    let plain: Vec<&str> = query.split('&').filter(|part| !part.starts_with("atLeast")).collect();
    let asked = format!("{}?{}", call.path(), plain.join("&"));
    let now = call.host.clock.now();
    let young = lock(memory).get(&asked).filter(|(at, _)| now < *at + PAGE_FOR).cloned();
    if let Some((_, page)) = young {
        return wrap::json(&serde_json::from_slice::<Value>(&page).unwrap_or_default());
    }
    let (page, response) = taken(call.play().await).await;
    if response.status().is_success() {
        lock(memory).insert(asked, (call.host.clock.now(), page));
    }
    response
}

fn given_up(unreachable: &mut BTreeSet<String>, page: &mut Value) {
    for entry in entries(page) {
        let url = entry["url"].as_str().unwrap_or_default().to_owned();
        if entry["reachable"] == false {
            unreachable.insert(url);
        } else if unreachable.contains(&url) {
            entry["reachable"] = json!(false);
        }
    }
}

/// Removes each row of the outbox as soon as it is written. The process remembers that it was there.
#[derive(Default)]
struct Dispatcher {
    handed_over: Mutex<BTreeSet<Key>>,
}

#[async_trait]
impl Clerk for Dispatcher {
    fn got(&self, keys: &[Key], mut found: Vec<Option<Row>>) -> Vec<Option<Row>> {
        let handed_over = lock(&self.handed_over);
        for (_, row) in keys.iter().zip(&mut found).filter(|(key, _)| handed_over.contains(*key)) {
            row.get_or_insert(Row { version: 0, value: Bytes::new() });
        }
        found
    }

    async fn commit(&self, disk: &dyn Store, batch: Batch) -> Result<(), StoreError> {
        let is_outbox = |key: &&Key| is_of(key, &["outbox"]);
        let rows: Vec<Key> = batch.puts.iter().map(|(key, _)| key).filter(is_outbox).cloned().collect();
        let answered: Vec<Key> = batch.deletes.iter().filter(is_outbox).cloned().collect();
        disk.commit(batch).await?;
        {
            let mut handed_over = lock(&self.handed_over);
            handed_over.retain(|key| !answered.contains(key));
            handed_over.extend(rows.iter().cloned());
        }
        if rows.is_empty() {
            return Ok(());
        }
        disk.commit(Batch { deletes: rows, ..Batch::default() }).await
    }
}
