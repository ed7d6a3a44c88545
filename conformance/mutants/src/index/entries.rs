//! Entries of indexes gone wrong: what is kept of a conversation is not what its home has told.

use std::time::Duration;

use fusion_runtime::store::Batch;
use http::Method;
use serde_json::Value;

use super::is_index;
use crate::Mutant;
use crate::mercury::{commits, edit_rows, lose_events};
use crate::wrap::{self, is_of};

/// How long what others tell is left lying: less than a caller waits for an answer.
const LEFT_LYING: Duration = Duration::from_secs(3);
/// How many letters of a message a preview has.
const LETTERS: usize = 4;

/// RDV-001: an index names the user's own cluster as the home of everything.
pub(crate) const ALL_AT_HOME: Mutant = Mutant {
    name: "index-names-own-cluster",
    hooks: || {
        wrap::answers(is_index, |call, page| {
            for entry in page["entries"].as_array_mut().into_iter().flatten() {
                entry["home"] = call.cluster().into();
            }
        })
    },
};

/// RDV-002: of an entry that changes the new place in the index is not kept, and its change is told.
pub(crate) const PLACE_NOT_KEPT: Mutant =
    Mutant { name: "place-in-index-not-kept", hooks: || commits(lose_places) };

/// RDV-002: a cluster looks only now and then at what others tell it.
pub(crate) const LEFT_FOR_LATER: Mutant = Mutant {
    name: "told-and-left-lying",
    hooks: || {
        wrap::calls(
            |method, path| method == Method::POST && path.ends_with("/v1/index"),
            |call| {
                Box::pin(async move {
                    call.host.clock.sleep(LEFT_LYING).await;
                    call.play().await
                })
            },
        )
    },
};

/// RDV-003: entries are written and nobody is told of them.
pub(crate) const NOBODY_TOLD: Mutant = Mutant {
    name: "written-and-not-told",
    hooks: || {
        commits(|batch| {
            lose_events(batch, |event| {
                event["eventType"].as_str().is_some_and(|kind| kind.starts_with("conversation."))
            });
        })
    },
};

/// RDV-004: a preview has the first letters of a message only.
pub(crate) const PREVIEW_CUT: Mutant = Mutant {
    name: "preview-cut",
    hooks: || {
        commits(|batch| {
            edit_rows(batch, "index-preview", |activity| {
                let text = activity["text"].as_str();
                if let Some(cut) = text.map(|text| text.chars().take(LETTERS).collect::<String>()) {
                    activity["text"] = cut.into();
                }
            });
        })
    },
};

/// The first place of all is kept.
fn lose_places(batch: &mut Batch) {
    let later = |bytes: &[u8]| {
        serde_json::from_slice(bytes).is_ok_and(|row: Value| row["cursor"].as_str() != Some("1"))
    };
    batch.puts.retain(|(key, bytes)| !(is_of(key, &["index-at"]) && later(bytes)));
}
