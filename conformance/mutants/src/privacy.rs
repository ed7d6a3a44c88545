//! Leaks.

use axum::extract::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fusion_deployment::{Hooks, Role};
use fusion_runtime::probe::Level;
use fusion_runtime::store::{Batch, Key};
use fusion_runtime::{Host, http::Client};
use std::sync::Arc;

use crate::Mutant;
use crate::wrap::{self, Judged, Verdict, spelt_in, wrapped};

/// PRI-001: clusters tell the provider whom they look up, and the provider writes it into its log.
pub(crate) const ADDRESS_IN_PROVIDER_LOG: Mutant = Mutant {
    name: "address-in-provider-log",
    hooks: || telling(|host, request| Box::pin(log_all(host, request))),
};

/// PRI-001: clusters tell the provider whom they look up, and the provider keeps it in another form.
pub(crate) const ADDRESS_IN_PROVIDER_STORE: Mutant = Mutant {
    name: "address-in-provider-store",
    hooks: || telling(|host, request| Box::pin(keep(host, request))),
};

/// PRI-001: clusters tell the provider whom they look up, and the provider does nothing with it.
pub(crate) const ADDRESS_TOLD_TO_PROVIDER: Mutant = Mutant {
    name: "address-told-to-provider",
    hooks: || telling(|_, request| Box::pin(async { Verdict::Pass(request) })),
};

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

/// PRI-005: clusters log whole paths instead of route templates.
pub(crate) const PATHS_IN_LOG: Mutant = Mutant {
    name: "paths-in-the-log",
    hooks: || wrap::clusters(|host, request| Box::pin(log_all(host, request))),
};

/// Clusters that tell, and a provider that does with it what `provider` does.
fn telling(provider: fn(Host, Request) -> Judged) -> Hooks {
    let wrap = move |role: &Role, host: &Host, router| match role {
        Role::Provider => wrapped(router, host.clone(), provider),
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

/// Logs whole URLs instead of route templates (PRI-005).
async fn log_all(host: Host, request: Request) -> Verdict {
    host.probe.log(Level::Info, "http.asked", serde_json::json!({"url": request.uri().to_string()}));
    Verdict::Pass(request)
}

/// A provider that keeps what was asked, in Base64.
async fn keep(host: Host, request: Request) -> Verdict {
    let asked = request.uri().path_and_query().map(ToString::to_string).and_then(|asked| spelt_in(&asked));
    if let Some(asked) = asked {
        let mut batch = Batch::default();
        let key = Key::of(&[b"asked", &host.entropy.u64().to_be_bytes()]);
        batch.put(key, STANDARD.encode(asked));
        let _ = host.store.commit(batch).await;
    }
    Verdict::Pass(request)
}
