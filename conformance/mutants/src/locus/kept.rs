//! Calls gone wrong: what is kept of them, and what is told.

use serde_json::{Value, json};

use crate::Mutant;
use crate::mercury::{commits, edit_rows, lose_events};
use crate::wrap::is_of;

/// LOC-001: an index keeps another URL for a locus than its conversation has.
pub(crate) const OTHER_URL_KEPT: Mutant = Mutant {
    name: "index-keeps-another-locus",
    hooks: || {
        commits(|batch| {
            edit_rows(batch, "index", |entry| {
                let other = entry["locusUrl"].as_str().and_then(|url| url.strip_suffix("/locus"));
                if let Some(conversation) = other {
                    entry["locusUrl"] = format!("{conversation}/locus/1").into();
                }
            });
        })
    },
};

/// LOC-002: a cluster keeps nothing of the calls that its users are asked to join.
pub(crate) const NOT_TAKEN_IN: Mutant = Mutant {
    name: "calls-not-taken-in",
    hooks: || {
        commits(|batch| {
            batch.puts.retain(|(key, _)| !is_of(key, &["active", "active-now"]));
            lose_events(batch, is_of_call);
        })
    },
};

/// LOC-003: whoever is in a call that another joins is rung in it again.
pub(crate) const RINGS_AFTER_JOINING: Mutant = Mutant {
    name: "rings-after-joining",
    hooks: || commits(|batch| edit_rows(batch, "locus", ring_the_first)),
};

/// LOC-004: a locus at rest counts its calls anew.
pub(crate) const CALLS_COUNTED_ANEW: Mutant = Mutant {
    name: "calls-counted-anew",
    hooks: || {
        commits(|batch| {
            edit_rows(batch, "locus", |row| {
                if row["state"] == "INACTIVE" {
                    row["instance"] = "0".into();
                }
            });
        })
    },
};

fn is_of_call(event: &Value) -> bool {
    event["eventType"].as_str().is_some_and(|kind| kind.starts_with("locus."))
}

fn ring_the_first(row: &mut Value) {
    let parties = row["parties"].as_object_mut().into_iter().flat_map(|parties| parties.values_mut());
    let mut joined: Vec<&mut Value> = parties.filter(|party| party["state"] == "JOINED").collect();
    if let [first, _, ..] = joined.as_mut_slice() {
        **first = json!({ "state": "NOTIFIED", "reason": null, "devices": {} });
    }
}
