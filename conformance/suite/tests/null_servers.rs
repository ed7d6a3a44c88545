//! A suite that can be pleased by nothing proves nothing: against servers that refuse, hang, or answer
//! the same to everything, over real sockets, no check of a MUST may pass, and the run must say that
//! nobody is there, or that it is incomplete.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse as _;
use fusion_conformance::catalogue::Level;
use fusion_conformance::check::Verdict;
use fusion_conformance::jws::SigningKey;
use fusion_conformance::target::{IdentityProvider, Org, OrgRole, Target, TargetCluster};
use fusion_conformance::{Options, Report, live, run};
use fusion_protocol::auth::GRANT_ASSERTION;
use fusion_protocol::{Domain, Service, UrlTemplate};
use fusion_runtime::Host;
use fusion_runtime::http::serve;
use fusion_runtime::net::{LiveConfig, LiveNet};
use fusion_runtime::tls::TestCa;
use http::StatusCode;
use serde_json::json;

const CLUSTERS: [(&str, OrgRole, &str); 3] = [
    ("a", OrgRole::Private, "acme.example"),
    ("b", OrgRole::Private, "bravo.example"),
    ("c", OrgRole::Consumer, "mail.example"),
];

/// A target whose every name leads to one address, with an authority of its own.
struct Nobody {
    target: Target,
    ca: TestCa,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Nobody {
    fn new() -> Self {
        let port =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let provider: Domain = "provider.example".parse().unwrap();
        let template = format!("https://{{cluster}}-{{service}}.{{provider}}:{port}");
        let mut target = Target::new("nobody", UrlTemplate::parse(&template, provider).unwrap());
        let here = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
        for (cluster, role, domain) in CLUSTERS {
            let name = cluster.parse().unwrap();
            for service in Service::ALL {
                target.resolve.insert(target.template.host(&name, service), here.clone());
            }
            target.clusters.push(TargetCluster { name, org: domain.to_owned() });
            let identity = IdentityProvider {
                issuer: format!("https://idp.{domain}"),
                key: SigningKey::from_seed([1; 32]).unwrap(),
                admin: "admin".to_owned(),
            };
            let domains = vec![domain.parse().unwrap()];
            target.orgs.insert(domain.to_owned(), Org { role, domains, identity: Some(identity) });
        }
        target.resolve.insert("clustermap.provider.example".to_owned(), here);
        let ca = TestCa::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, ca.ca_pem()).unwrap();
        target.ca = Some(file);
        Self { target, ca, port, _folder: folder }
    }

    /// Serves `router` for every name.
    async fn serving(self, router: Router) -> Self {
        let names: Vec<&str> = self.target.resolve.keys().map(String::as_str).collect();
        let identities = vec![self.ca.issue(&names).unwrap()];
        let net = LiveNet::new(LiveConfig { identities, ..LiveConfig::default() }).unwrap();
        let host = Host { net: Arc::new(net), ..live::host(&self.target).unwrap() };
        serve(&host, (Ipv4Addr::LOCALHOST, self.port).into(), router).await.unwrap();
        self
    }

    async fn checked(self) -> Report {
        let host = live::host(&self.target).unwrap();
        run(&host, Arc::new(self.target), &Options { at_once: 64, ..Options::default() }, |_| {}).await
    }
}

fn assert_nothing_passes(report: &Report) {
    let passed: Vec<&str> = report
        .checks
        .iter()
        .filter(|check| check.level == Level::Must && matches!(check.verdict, Verdict::Pass | Verdict::Slow))
        .map(|check| check.id.as_str())
        .collect();
    assert!(passed.is_empty(), "passed against nobody: {passed:?}");
    assert!(report.requirements.iter().all(|it| it.verdict != Some(Verdict::Pass)));
    assert!(!report.checks.is_empty());
}

fn assert_nobody_there(report: &Report) {
    assert_nothing_passes(report);
    assert_eq!(report.exit_code(), 5);
    assert!(report.took_us < 10_000_000, "a target that nobody answers for must be known soon");
}

#[tokio::test]
async fn a_server_that_refuses_is_unreachable() {
    assert_nobody_there(&Nobody::new().checked().await);
}

#[tokio::test]
async fn a_server_that_hangs_is_unreachable() {
    let router = Router::new().fallback(std::future::pending::<StatusCode>);
    assert_nobody_there(&Nobody::new().serving(router).await.checked().await);
}

#[tokio::test]
async fn a_server_that_says_yes_to_everything_is_not_one_of_ours() {
    let router = Router::new().fallback(|| async { axum::Json(json!({})) });
    assert_nobody_there(&Nobody::new().serving(router).await.checked().await);
}

#[tokio::test]
async fn a_server_that_knows_nothing_is_not_one_of_ours() {
    let router = Router::new().fallback(|| async { StatusCode::NOT_FOUND });
    assert_nobody_there(&Nobody::new().serving(router).await.checked().await);
}

#[tokio::test]
async fn a_server_that_echoes_is_not_one_of_ours() {
    let router =
        Router::new().fallback(|request: Request| async move { request.into_body().into_response() });
    assert_nobody_there(&Nobody::new().serving(router).await.checked().await);
}

/// It gets past the greeting: it says who it is, and then the same to everything.
async fn impostor(answer: fn() -> axum::response::Response) -> Report {
    let nobody = Nobody::new();
    let port = nobody.port;
    let router = Router::new().fallback(move |request: Request| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        if request.uri().path() != "/.well-known/oauth-authorization-server" {
            return answer();
        }
        let issuer = format!("https://{host}");
        assert!(issuer.ends_with(&port.to_string()));
        let metadata = json!({
            "issuer": issuer, "token_endpoint": format!("{issuer}/v1/token"), "jwks_uri": format!("{issuer}/v1/jwks"),
            "grant_types_supported": [GRANT_ASSERTION], "response_types_supported": [],
        });
        axum::Json(metadata).into_response()
    });
    nobody.serving(router).await.checked().await
}

#[tokio::test]
async fn an_impostor_that_says_yes_to_everything_passes_nothing() {
    let report = impostor(|| axum::Json(json!({})).into_response()).await;
    assert_nothing_passes(&report);
    assert_ne!(report.exit_code(), 0);
}

#[tokio::test]
async fn an_impostor_that_knows_nothing_passes_nothing() {
    let report = impostor(|| StatusCode::NOT_FOUND.into_response()).await;
    assert_nothing_passes(&report);
    assert_ne!(report.exit_code(), 0);
}

#[tokio::test]
async fn an_impostor_that_refuses_everything_alike_passes_nothing() {
    let report = impostor(|| {
        let problem = fusion_protocol::Problem::new(fusion_protocol::Code::Forbidden);
        (StatusCode::FORBIDDEN, axum::Json(problem)).into_response()
    })
    .await;
    assert_nothing_passes(&report);
    assert_ne!(report.exit_code(), 0);
}
