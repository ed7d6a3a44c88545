//! Leaks that show only sometimes.

use std::time::Duration;

use axum::body::Bytes;
use fusion_mutants::wrap::{self, Call, code_of};
use fusion_protocol::{Address, Code};
use fusion_runtime::http::Client;
use fusion_runtime::probe::Level;
use fusion_sim::plant::Plant;
use http::Request;
use serde_json::json;

use crate::mapping::{is_resolution, makes_a_conversation};

/// What takes longer is worth a line in the log.
const SLOW: Duration = Duration::from_millis(500);
/// How long a cluster waits for the provider.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) const ASKS_BY_ORDER_OF_NAMES: Plant = Plant {
    name: "asks-the-provider-by-order-of-names",
    requirement: "PRI-002",
    wrong: "before a conversation is made, the one of the two whose address comes first looks the other's \
            domain up at the provider: how often it is asked tells whose name comes first",
    held_out: true,
    hooks: || {
        wrap::calls(makes_a_conversation, |call| {
            Box::pin(async move {
                let own = call.claims().map(|claims| claims.sub).unwrap_or_default();
                let first = others(&call).into_iter().find(|other| own.as_str() < other.as_str());
                if let Some(other) = first {
                    ask_provider(&call, &format!("/v1/domains/{}", other.domain())).await;
                }
                call.play().await
            })
        })
    },
};

pub(crate) const SLOW_REQUESTS_LOGGED: Plant = Plant {
    name: "slow-requests-logged-whole",
    requirement: "PRI-005",
    wrong: "a request that takes more than half a second is logged with its whole path, and paths name \
            people",
    held_out: false,
    hooks: || {
        wrap::calls(
            |_, path| path.contains("/users/") || path.contains("/resolve/"),
            |call| {
                Box::pin(async move {
                    let began = call.host.clock.now();
                    let response = call.play().await;
                    let took = call.host.clock.now().saturating_sub(began);
                    if took > SLOW {
                        let fields = json!({ "path": call.path(), "ms": took.as_millis() as u64 });
                        call.host.probe.log(Level::Warn, "http.slow", fields);
                    }
                    response
                })
            },
        )
    },
};

pub(crate) const UNRESOLVED_REPORTED: Plant = Plant {
    name: "unresolved-address-reported-to-the-provider",
    requirement: "PRI-001",
    wrong: "an address that could not be resolved is sent to the provider's map for a second opinion",
    held_out: true,
    hooks: || {
        wrap::calls(
            |method, path| makes_a_conversation(method, path) || is_resolution(method, path),
            |call| {
                Box::pin(async move {
                    let (code, response) = code_of(call.play().await).await;
                    if matches!(code, Some(Code::UserUnknown | Code::ResolutionIncomplete)) {
                        let asked = call.path().strip_prefix("/v1/resolve/").and_then(wrap::address_in);
                        for address in asked.into_iter().chain(others(&call)) {
                            let (domain, user) = (address.domain(), address.path_segment());
                            ask_provider(&call, &format!("/v1/domains/{domain}?user={user}")).await;
                        }
                    }
                    response
                })
            },
        )
    },
};

/// With whom a conversation is to be made.
fn others(call: &Call) -> Vec<Address> {
    let asked = call.json().unwrap_or_default();
    let participants = asked["participants"].as_array().into_iter().flatten();
    participants.filter_map(|participant| participant.as_str()?.parse().ok()).collect()
}

async fn ask_provider(call: &Call, path: &str) {
    let provider = call.authority().split_once('.').map_or("", |(_, provider)| provider);
    let request = Request::get(format!("https://clustermap.{provider}{path}")).body(Bytes::new());
    if let Ok(request) = request {
        // Whatever it says, the answer is not needed.
        let _ = Client::new(&call.host).with_timeout(PATIENCE).send(request).await;
    }
}
