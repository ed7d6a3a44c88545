//! Leaks.

use axum::extract::Request;
use bytes::Bytes;
use fusion_deployment::{Hooks, Role};
use fusion_runtime::probe::Level;
use fusion_runtime::{Host, http::Client};
use std::sync::Arc;

use crate::Mutant;
use crate::wrap::{self, Verdict, wrapped};

/// PRI-001: clusters tell the provider whom they look up, and the provider writes it into its log.
pub(crate) const ADDRESS_IN_PROVIDER_LOG: Mutant = Mutant { name: "address-in-provider-log", hooks };

/// PRI-005: a refusal says what was asked for.
pub(crate) const ERRORS_QUOTE: Mutant = Mutant {
    name: "errors-quote-the-request",
    hooks: || {
        wrap::answers(
            |_, path| path.contains("/v1/"),
            |call, answer| {
                if answer.get("type").is_some() && answer.get("code").is_some() {
                    answer["detail"] = format!("nothing to say to {}", call.path()).into();
                }
            },
        )
    },
};

fn hooks() -> Hooks {
    let wrap = |role: &Role, host: &Host, router| match role {
        Role::Provider => wrapped(router, host.clone(), |host, request| Box::pin(log_all(host, request))),
        Role::Cluster(_) => wrapped(router, host.clone(), |host, request| Box::pin(tell(host, request))),
        Role::Relay { .. } => router,
    };
    Hooks { wrap_router: Some(Arc::new(wrap)), ..Hooks::default() }
}

/// A cluster that is asked to resolve an address asks the domain map about it, too.
async fn tell(host: Host, request: Request) -> Verdict {
    let authority = request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok());
    let asked = request.uri().path().split_once("/v1/resolve/").map(|(_, address)| address.to_owned());
    if let (Some(authority), Some(address)) = (authority, asked) {
        // `{cluster}-users.{provider}` becomes `clustermap.{provider}`, whatever the port.
        let provider = authority.split_once('.').map(|(_, provider)| provider).unwrap_or_default();
        let url = format!("https://clustermap.{provider}/v1/domains/who?user={address}");
        if let Ok(ask) = http::Request::get(url).body(Bytes::new()) {
            let _ = Client::new(&host).send(ask).await;
        }
    }
    Verdict::Pass(request)
}

/// A provider that logs whole URLs instead of route templates (PRI-005).
async fn log_all(host: Host, request: Request) -> Verdict {
    host.probe.log(Level::Info, "http.asked", serde_json::json!({"url": request.uri().to_string()}));
    Verdict::Pass(request)
}
