//! What maps and resolvers tell one asker and not the next.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fusion_deployment::{Hooks, Role};
use fusion_protocol::Code;
use http::Method;

use super::{is_resolver, is_user_map};
use crate::Mutant;
use crate::wrap::{self, code_of, refusal};

/// MAP-001: a cluster denies whom another cluster of its org serves.
pub(crate) const SISTERS_UNKNOWN: Mutant = Mutant {
    name: "sisters-users-unknown",
    hooks: || {
        wrap::calls(is_user_map, |call| {
            Box::pin(async move {
                match code_of(call.play().await).await {
                    (Some(Code::WrongCluster), _) => refusal(Code::UserUnknown),
                    (_, response) => response,
                }
            })
        })
    },
};

/// MAP-001: a resolver finds everybody once.
pub(crate) const FOUND_ONCE: Mutant = Mutant { name: "found-only-once", hooks: found_once };

/// MAP-003: the domain map tells the first of a domain's clusters only.
pub(crate) const FIRST_CLUSTER_ONLY: Mutant = Mutant {
    name: "first-cluster-only",
    hooks: || {
        wrap::calls_of(
            |role| matches!(role, Role::Provider),
            |method, path| method == Method::GET && path.contains("/v1/domains/"),
            |call| {
                Box::pin(async move {
                    wrap::edited(call.play().await, |answer| {
                        if let Some(clusters) = answer["clusters"].as_array_mut() {
                            clusters.truncate(1);
                        }
                    })
                    .await
                })
            },
        )
    },
};

/// MAP-002: the domain map knows a claim every other time.
pub(crate) const CLAIMED_BY_TURNS: Mutant = Mutant {
    name: "claimed-by-turns",
    hooks: || {
        let asked: Arc<AtomicU64> = Arc::default();
        wrap::calls_of(
            |role| matches!(role, Role::Provider),
            |method, path| method == Method::GET && path.contains("/v1/domains/"),
            move |call| {
                let turn = asked.fetch_add(1, Ordering::Relaxed);
                Box::pin(async move {
                    if turn % 2 == 1 { refusal(Code::DomainUnclaimed) } else { call.play().await }
                })
            },
        )
    },
};

fn found_once() -> Hooks {
    let found: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    wrap::calls(is_resolver, move |call| {
        let found = found.clone();
        Box::pin(async move {
            let response = call.play().await;
            let asked = format!("{} {}", call.cluster(), call.path());
            let first = || found.lock().unwrap_or_else(PoisonError::into_inner).insert(asked);
            if response.status().is_success() && !first() { refusal(Code::UserUnknown) } else { response }
        })
    })
}
