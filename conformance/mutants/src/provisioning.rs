//! Provisioning gone wrong.

use http::{Method, StatusCode};

use crate::Mutant;
use crate::wrap::{self, json_with};

/// PRO-001: a deletion is acknowledged and not done.
pub(crate) const NOT_DELETED: Mutant = Mutant {
    name: "deletion-not-done",
    hooks: || {
        wrap::calls(
            |method, path| method == Method::DELETE && path.contains("/scim/v2/Users/"),
            |_| Box::pin(async { wrap::no_content() }),
        )
    },
};

/// PRO-001: whoever is there already is made once more.
pub(crate) const MADE_AGAIN: Mutant = Mutant {
    name: "user-made-again",
    hooks: || {
        wrap::calls(
            |method, path| method == Method::POST && path.ends_with("/scim/v2/Users"),
            |call| {
                Box::pin(async move {
                    let response = call.play().await;
                    match response.status() {
                        StatusCode::CONFLICT => {
                            json_with(StatusCode::CREATED, &call.json().unwrap_or_default())
                        }
                        _ => response,
                    }
                })
            },
        )
    },
};
