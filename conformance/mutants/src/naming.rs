//! Names and addresses gone wrong.

use axum::response::Response;
use fusion_protocol::Code;
use http::Method;
use serde_json::Value;

use crate::Mutant;
use crate::wrap::{self, Call, address_in, refusal, spelt_in};

/// NAM-003: ids are shown without the cluster that gave them.
pub(crate) const BARE_IDS: Mutant =
    Mutant { name: "bare-ids", hooks: || wrap::answers(|_, path| path.contains("/v1/"), bare) };

/// NAM-004: the resolver takes addresses as they are spelt.
pub(crate) const SPELLING_MATTERS: Mutant = Mutant {
    name: "spelling-matters",
    hooks: || wrap::calls(|_, path| path.contains("/v1/resolve/"), |call| Box::pin(as_spelt(call))),
};

/// NAM-003: a locus names its conversation by a URL that is none of the federation.
pub(crate) const FOREIGN_URL: Mutant = Mutant {
    name: "url-outside-the-federation",
    hooks: || {
        wrap::answers(
            |method, path| method == Method::GET && path.ends_with("/locus"),
            |call, answer| {
                let elsewhere = format!("https://elsewhere.example{}", call.path());
                if let Some(url) = answer.get_mut("conversationUrl") {
                    *url = elsewhere.into();
                }
            },
        )
    },
};

fn bare(_: &Call, answer: &mut Value) {
    if let Some(id) = answer.get_mut("id") {
        let bare = id.as_str().and_then(|id| id.split_once('~')).map(|(_, bare)| bare.to_owned());
        if let Some(bare) = bare {
            *id = bare.into();
        }
    }
}

async fn as_spelt(call: Call) -> Response {
    let part = call.path().rsplit('/').next().unwrap_or("");
    match (spelt_in(part), address_in(part)) {
        (Some(spelt), Some(address)) if spelt != address.as_str() => refusal(Code::UserUnknown),
        _ => call.play().await,
    }
}
