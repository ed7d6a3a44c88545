//! Maps and resolution gone wrong.

mod kept;
mod told;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::response::Response;
use fusion_deployment::Role;
use fusion_protocol::{Address, Code};
use fusion_runtime::store::Key;
use http::{Method, StatusCode};
use serde_json::{Value, json};

pub(crate) use kept::{BOTH_WIN, MAP_NOT_KEPT, NEVER_FORGETS, OLD_AS_NEW, PLACE_FOR_ALL};
pub(crate) use told::{CLAIMED_BY_TURNS, FIRST_CLUSTER_ONLY, FOUND_ONCE, SISTERS_UNKNOWN};

use crate::Mutant;
use crate::wrap::{self, Call, address_in, code_of, json_with, refusal};

/// How long it takes to go through all that a map has of somebody.
const GOING_THROUGH: Duration = Duration::from_millis(150);

/// MAP-001: a resolver says that everybody is at its own cluster.
pub(crate) const EVERYBODY_HERE: Mutant = Mutant {
    name: "everybody-is-here",
    hooks: || {
        wrap::answers(is_resolver, |call, answer| {
            let here = call.cluster().to_owned();
            if let Some(cluster) = answer.get_mut("cluster") {
                *cluster = here.into();
            }
        })
    },
};

/// MAP-001: a resolver makes up a record for whom it does not find.
pub(crate) const NOBODY_FOUND: Mutant =
    Mutant { name: "nobody-found", hooks: || wrap::calls(is_resolver, |call| Box::pin(made_up(call))) };

/// MAP-001: an unknown user is answered as a service that cannot answer.
pub(crate) const UNKNOWN_IS_UNAVAILABLE: Mutant = Mutant {
    name: "unknown-is-unavailable",
    hooks: || wrap::calls(is_resolver, |call| Box::pin(unavailable(call))),
};

/// MAP-001: the consumer cluster's map does not answer for claimed domains.
pub(crate) const NO_FALL_THROUGH: Mutant = Mutant {
    name: "consumer-map-skipped",
    hooks: || wrap::calls(is_user_map, |call| Box::pin(own_domain_only(call))),
};

/// MAP-008: a map goes through all that it has of whom it knows before it answers.
pub(crate) const KNOWN_TAKES_LONGER: Mutant = Mutant {
    name: "known-takes-longer",
    hooks: || {
        wrap::calls(is_user_map, |call| {
            Box::pin(async move {
                let answer = call.play().await;
                if answer.status().is_success() {
                    call.host.clock.sleep(GOING_THROUGH).await;
                }
                answer
            })
        })
    },
};

/// MAP-005: who asks the wrong cluster is not told the right one.
pub(crate) const NO_HINT: Mutant = Mutant {
    name: "wrong-cluster-without-hint",
    hooks: || {
        wrap::answers(
            |_, path| path.contains("/v1/users/"),
            |_, answer| {
                if let Some(answer) = answer.as_object_mut() {
                    answer.remove("clusters");
                }
            },
        )
    },
};

/// MAP-008: a map without a token says 404 for whom it does not know and 401 for whom it knows.
pub(crate) const MAP_TELLS_UNKNOWN: Mutant = Mutant {
    name: "map-tells-unknown-users",
    hooks: || wrap::calls(is_user_map, |call| Box::pin(telling(call))),
};

/// MAP-008: a map answers whoever asks.
pub(crate) const MAP_OPEN: Mutant = Mutant { name: "map-open-to-all", hooks: open };

/// MAP-008: a map lists everybody to its users.
pub(crate) const MAP_LISTS: Mutant = Mutant {
    name: "map-lists-users",
    hooks: || {
        wrap::calls(
            |method, path| method == Method::GET && path.trim_end_matches('/').ends_with("/v1/users"),
            |call| Box::pin(everybody(call)),
        )
    },
};

/// MAP-012: asking where somebody logs in says whether there is such a user.
pub(crate) const LOGIN_TELLS: Mutant = Mutant {
    name: "log-in-tells-unknown-users",
    hooks: || wrap::calls(|_, path| path.ends_with("/v1/login"), |call| Box::pin(log_in_of(call))),
};

/// MAP-003: the domain map tells visitors a domain and not its clusters.
pub(crate) const DOMAIN_WITHOUT_CLUSTERS: Mutant = Mutant {
    name: "domain-leads-nowhere",
    hooks: || {
        wrap::calls_of(
            |role| matches!(role, Role::Provider),
            |method, path| method == Method::GET && path.contains("/v1/domains/"),
            |call| {
                Box::pin(async move {
                    wrap::edited(call.play().await, |answer| {
                        let visitor = !call.has_token();
                        if let Some(clusters) = answer.get_mut("clusters").filter(|_| visitor) {
                            *clusters = Value::Array(Vec::new());
                        }
                    })
                    .await
                })
            },
        )
    },
};

fn is_resolver(_: &Method, path: &str) -> bool {
    path.contains("/v1/resolve/")
}

/// `GET /v1/users/{user}` or the resolver.
fn is_user_map(method: &Method, path: &str) -> bool {
    let user = path.rsplit_once("/v1/users/").is_some_and(|(_, rest)| !rest.contains('/'));
    method == Method::GET && (user || path.contains("/v1/resolve/"))
}

async fn made_up(call: Call) -> Response {
    let (code, response) = code_of(call.play().await).await;
    let user = address_in(call.path().rsplit('/').next().unwrap_or(""));
    match (code, user) {
        (Some(Code::UserUnknown), Some(user)) => json_with(
            StatusCode::OK,
            &json!({
                "user": user, "incarnation": call.host.entropy.uuid(), "cluster": call.cluster(),
                "version": "1", "stale": false, "mapVersion": "1",
            }),
        ),
        _ => response,
    }
}

async fn unavailable(call: Call) -> Response {
    match code_of(call.play().await).await {
        (Some(Code::UserUnknown), _) => refusal(Code::Unavailable),
        (_, response) => response,
    }
}

async fn own_domain_only(call: Call) -> Response {
    let user = address_in(call.path().rsplit('/').next().unwrap_or(""));
    let (consumer, resolver) = (call.cluster() == "c", call.path().contains("/v1/resolve/"));
    let claimed = user.is_some_and(|user| user.domain().as_str() != "mail.example");
    if consumer && !resolver && claimed { refusal(Code::UserUnknown) } else { call.play().await }
}

async fn telling(call: Call) -> Response {
    let user = address_in(call.path().rsplit('/').next().unwrap_or(""));
    match user.filter(|_| !call.has_token()) {
        Some(user) if !is_known(&call, &user).await => refusal(Code::UserUnknown),
        _ => call.play().await,
    }
}

async fn log_in_of(call: Call) -> Response {
    let asked = call.query().and_then(|query| query.split_once("domain=")?.1.split('&').next());
    match asked.and_then(address_in) {
        Some(user) if !is_known(&call, &user).await => refusal(Code::UserUnknown),
        _ => call.play().await,
    }
}

async fn is_known(call: &Call, user: &Address) -> bool {
    let key = Key::of(&[b"user", user.as_str().as_bytes()]);
    call.host.store.get(&[key]).await.is_ok_and(|rows| rows.iter().flatten().next().is_some())
}

async fn everybody(call: Call) -> Response {
    let all = Key::of(&[b"user"]);
    let rows = call.host.store.scan(&all, &all.end(), 100).await.unwrap_or_default();
    let users = rows.iter().filter_map(|(key, _)| String::from_utf8(key.parts().pop()?).ok());
    wrap::json(&json!({ "users": users.collect::<Vec<_>>() }))
}

/// What was told to one caller is told to the next, whoever that is.
fn open() -> fusion_deployment::Hooks {
    let told: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
    wrap::calls(is_user_map, move |call| {
        let told = told.clone();
        Box::pin(async move {
            let known = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let (false, Some(record)) = (call.has_token(), known) {
                return wrap::json(&serde_json::from_slice::<Value>(&record).unwrap_or_default());
            }
            let (bytes, response) = wrap::taken(call.play().await).await;
            if response.status().is_success() {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes.to_vec());
            }
            response
        })
    })
}
