//! Conversations gone wrong between clusters: claims, imports, who may do what.

use fusion_cluster::{ClusterConfig, PairRule};
use fusion_deployment::Hooks;
use fusion_protocol::Code;
use fusion_protocol::conversation::{PeerClaim, PeerGrant};
use http::Method;
use serde_json::Value;
use std::sync::Arc;

use crate::Mutant;
use crate::mercury::commits;
use crate::wrap::{self, Call, is_of, refusal};

/// CNV-001: now and then an activity is acknowledged and not kept.
pub(crate) const ACTIVITY_NOT_KEPT: Mutant = Mutant {
    name: "activity-not-kept",
    hooks: || {
        commits(|batch| {
            batch.puts.retain(|(key, bytes)| !(is_of(key, &["activity"]) && is_second(bytes)));
        })
    },
};

/// CNV-001: what is accepted is answered with the number of the activity before it.
pub(crate) const NUMBER_OF_THE_LAST: Mutant = Mutant {
    name: "number-of-the-last",
    hooks: || {
        wrap::answers(
            |method, path| method == Method::POST && path.ends_with("/activities"),
            |_, activity| {
                let seq = activity["seq"].as_str().and_then(|seq| seq.parse::<u64>().ok());
                if let Some(seq @ 2..) = seq {
                    activity["seq"] = (seq - 1).to_string().into();
                }
            },
        )
    },
};

/// CNV-002: whoever claims a pair gets it.
pub(crate) const GRANTED_UNSEEN: Mutant = Mutant {
    name: "claims-granted-unseen",
    hooks: || {
        wrap::calls(
            |method, path| method == Method::PUT && path.contains("/peers/"),
            |call| {
                Box::pin(async move {
                    match serde_json::from_slice::<PeerClaim>(&call.body) {
                        Ok(claim) => wrap::json(&PeerGrant { url: claim.url }),
                        Err(_) => call.play().await,
                    }
                })
            },
        )
    },
};

/// CNV-003: the lot decides a race, not the rank.
pub(crate) const BY_LOT: Mutant = Mutant { name: "race-decided-by-lot", hooks: by_lot };

/// CNV-004: a winner refuses what the loser brings.
pub(crate) const IMPORTS_REFUSED: Mutant = Mutant {
    name: "imports-refused",
    hooks: || {
        wrap::calls(
            |method, path| method == Method::POST && path.ends_with("/imports"),
            |_| Box::pin(async { refusal(Code::Forbidden) }),
        )
    },
};

/// CNV-006: only people of the group's own cluster bring others in.
pub(crate) const LOCALS_ADD: Mutant = Mutant {
    name: "guests-may-not-add",
    hooks: || {
        wrap::calls(
            |method, path| method == Method::POST && path.ends_with("/activities"),
            |call| {
                Box::pin(async move {
                    let adds = call.json().is_some_and(|act| act["verb"] == "add");
                    if adds && is_guest(&call) { refusal(Code::Forbidden) } else { call.play().await }
                })
            },
        )
    },
};

/// Whether the caller is served elsewhere, by who signed for them.
pub(super) fn is_guest(call: &Call) -> bool {
    call.claims().is_some_and(|claims| !claims.iss.contains(&format!("//{}-", call.cluster())))
}

/// Whether this is the second activity of its conversation.
fn is_second(bytes: &[u8]) -> bool {
    serde_json::from_slice(bytes).is_ok_and(|row: Value| row["seq"] == "2")
}

fn by_lot() -> Hooks {
    let configure =
        |config: ClusterConfig| ClusterConfig { pair_rule: PairRule::LowerId { draws: 1 }, ..config };
    Hooks { configure: Some(Arc::new(configure)), ..Hooks::default() }
}
