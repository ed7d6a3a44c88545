//! What SPEC says of the domain map, shown by a provider and two clusters in memory.

// One network in memory for the tests of both crates.
#[path = "../../cluster/src/testing/net.rs"]
mod net;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fusion_cluster::{Cluster, ClusterConfig, OrgRole, PairRule, router};
use fusion_protocol::{ClusterName, Service, Url, UrlTemplate};
use fusion_runtime::http::{Client, serve};
use fusion_runtime::probe::{Level, Probe};
use fusion_runtime::store::{Batch, Key, MemoryStore, Row, Store, StoreError};
use fusion_runtime::{Clock, Entropy, Host, Timestamp};
use http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};

use self::net::MemoryNet;
use crate::{OrgAccount, Provider, ProviderConfig};

const PROVIDER: &str = "provider";

struct World {
    template: UrlTemplate,
    net: MemoryNet,
    clock: Clock,
    stores: BTreeMap<&'static str, MemoryStore>,
    hosts: BTreeMap<&'static str, Host>,
    provider: Option<Provider>,
    lines: Arc<Lines>,
    http: Client,
}

/// A store that lets others go first before every call, so that what races meets in the middle.
struct Slow(MemoryStore);

#[async_trait::async_trait]
impl Store for Slow {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        tokio::task::yield_now().await;
        self.0.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        tokio::task::yield_now().await;
        self.0.scan(from, until, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        self.0.commit(batch).await
    }
}

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Probe for Lines {
    fn log(&self, _: Level, target: &'static str, fields: Value) {
        self.0.lock().unwrap().push(format!("{target} {fields}"));
    }
}

fn name(text: &str) -> ClusterName {
    text.parse().unwrap()
}

fn claim(domain: &str, org: &str, clusters: &[&str]) -> Value {
    json!({ "domain": domain, "org": org, "clusters": clusters })
}

impl World {
    /// A provider and the clusters a (of org-a) and b (of org-b).
    async fn new() -> Self {
        let provider = "provider.example".parse().unwrap();
        let template = UrlTemplate::parse("https://{cluster}-{service}.{provider}:8443", provider).unwrap();
        let net = MemoryNet::default();
        let clock = Clock::starting_at(Timestamp(1_800_000_000_000_000));
        let lines = Arc::<Lines>::default();
        let client = host("client", &net, &clock, MemoryStore::new(), &lines);
        let http = Client::new(&client).with_timeout(Duration::from_secs(60));
        let mut world = Self {
            template,
            net,
            clock,
            stores: BTreeMap::new(),
            hosts: BTreeMap::new(),
            provider: None,
            lines,
            http,
        };
        world.start_provider().await;
        world.start_cluster("a").await;
        world.start_cluster("b").await;
        world
    }

    async fn start_provider(&mut self) {
        let host = self.host(PROVIDER);
        let account = |org: &str, cluster: &str| OrgAccount {
            org: org.to_owned(),
            clusters: [name(cluster)].into(),
            admin_secret: Some(format!("secret of {org}")),
        };
        let mut config = ProviderConfig::new(self.template.clone(), vec![name("c")]);
        config.orgs = vec![account("org-a", "a"), account("org-b", "b")];
        config.domains = vec![serde_json::from_value(claim("first.example", "org-a", &["a"])).unwrap()];
        let provider = Provider::start(host.clone(), config).await.unwrap();
        self.net.name("clustermap.provider.example", at(PROVIDER));
        serve(&host, at(PROVIDER), provider.router()).await.unwrap();
        self.provider = Some(provider);
    }

    async fn start_cluster(&mut self, cluster: &'static str) {
        let host = self.host(cluster);
        let config = ClusterConfig {
            name: name(cluster),
            org: format!("org-{cluster}"),
            role: OrgRole::Private,
            template: self.template.clone(),
            identity_providers: Vec::new(),
            pair_rule: PairRule::default(),
            relays: Vec::new(),
            borrowed_relays: Vec::new(),
        };
        for service in Service::ALL {
            self.net.name(&self.template.host(&name(cluster), service), at(cluster));
        }
        let started = Cluster::start(host.clone(), config).await.unwrap();
        serve(&host, at(cluster), router::router(&started)).await.unwrap();
    }

    fn host(&mut self, of: &'static str) -> Host {
        let store = self.stores.entry(of).or_default().clone();
        let host = host(of, &self.net, &self.clock, store, &self.lines);
        self.hosts.insert(of, host.clone());
        host
    }

    fn stop(&self, of: &str) {
        self.hosts[of].tasks.abort_all();
        self.net.unplug(at(of));
    }

    async fn wait(&self, seconds: u64) {
        self.clock.sleep(Duration::from_secs(seconds)).await;
    }

    async fn send(&self, method: Method, url: &Url, token: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(if body.is_null() { Bytes::new() } else { body.to_string().into() })
            .unwrap();
        let answer = self.http.send(request).await.unwrap();
        (answer.status(), serde_json::from_slice(answer.body()).unwrap_or_default())
    }

    async fn claim(&self, org: &str, claim: Value) -> (StatusCode, Value) {
        let url = self.template.provider_url("clustermap", "/v1/domains");
        self.send(Method::POST, &url, &format!("secret of {org}"), claim).await
    }

    async fn domain(&self, domain: &str) -> (StatusCode, Value) {
        let url = self.template.provider_url("clustermap", &format!("/v1/domains/{domain}"));
        self.send(Method::GET, &url, "", Value::Null).await
    }

    /// Where cluster `of` sends users of `domain` to log in: what its replica knows.
    async fn servers(&self, of: &str, domain: &str) -> Vec<String> {
        let mut url = self.template.url(&name(of), Service::Users, "/v1/login");
        url.set_query(Some(&format!("domain={domain}")));
        let (status, body) = self.send(Method::GET, &url, "", Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let servers = body["authorizationServers"].as_array().unwrap();
        servers.iter().map(|url| url.as_str().unwrap()[8..9].to_owned()).collect()
    }
}

fn at(of: &str) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, of.as_bytes()[0]], 8443))
}

fn host(of: &str, net: &MemoryNet, clock: &Clock, store: MemoryStore, lines: &Arc<Lines>) -> Host {
    Host {
        clock: clock.clone(),
        entropy: Entropy::from_u64(1).stream(of),
        probe: lines.clone(),
        ..Host::live(of, Arc::new(net.clone()), Arc::new(Slow(store)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_claimed_domain_is_known_everywhere_at_once() {
    let world = World::new().await;
    world.wait(1).await;
    assert_eq!(world.servers("b", "first.example").await, ["a", "c"], "from the configuration");
    let (status, record) = world.claim("org-b", claim("B.example", "org-b", &["b"])).await;
    assert_eq!(
        (status, &record["domain"], &record["version"]),
        (StatusCode::OK, &json!("b.example"), &json!("3"))
    );
    world.wait(1).await;
    assert_eq!(world.servers("a", "b.example").await, ["b", "c"], "the long poll was answered");
    assert_eq!(world.domain("b.example").await, (StatusCode::OK, record));
}

#[tokio::test(start_paused = true)]
async fn a_released_domain_is_forgotten_and_can_be_claimed_by_another() {
    let world = World::new().await;
    let url = world.template.provider_url("clustermap", "/v1/domains/first.example");
    let (status, _) = world.send(Method::DELETE, &url, "secret of org-b", Value::Null).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, _) = world.send(Method::DELETE, &url, "secret of org-a", Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    world.wait(1).await;
    assert_eq!(world.servers("b", "first.example").await, ["c"]);
    let (status, body) = world.domain("first.example").await;
    assert_eq!(
        (status, &body["code"], &body["version"]),
        (StatusCode::NOT_FOUND, &json!("domain-unclaimed"), &json!("3"))
    );
    assert_eq!(world.claim("org-b", claim("first.example", "org-b", &["b"])).await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn of_racing_claims_exactly_one_succeeds() {
    let world = World::new().await;
    for round in 0..20 {
        let domain = format!("race{round}.example");
        let (a, b) = tokio::join!(
            world.claim("org-a", claim(&domain, "org-a", &["a"])),
            world.claim("org-b", claim(&domain, "org-b", &["b"])),
        );
        let lost = if a.0 == StatusCode::OK { &b } else { &a };
        assert_ne!(a.0 == StatusCode::OK, b.0 == StatusCode::OK, "{a:?} {b:?}");
        assert_eq!((lost.0, &lost.1["code"]), (StatusCode::CONFLICT, &json!("domain-claimed")));
    }
}

#[tokio::test(start_paused = true)]
async fn only_an_orgs_own_admin_claims_and_only_for_its_own_clusters() {
    let world = World::new().await;
    let refused = [
        ("org-b", claim("x.example", "org-a", &["a"]), StatusCode::FORBIDDEN),
        ("nobody", claim("x.example", "nobody", &["a"]), StatusCode::UNAUTHORIZED),
        ("org-a", claim("x.example", "org-a", &["b"]), StatusCode::UNPROCESSABLE_ENTITY),
        ("org-a", claim("x.example", "org-a", &["c"]), StatusCode::UNPROCESSABLE_ENTITY),
        ("org-a", claim("gmail.com", "org-a", &["a"]), StatusCode::UNPROCESSABLE_ENTITY),
        ("org-a", claim("co.uk", "org-a", &["a"]), StatusCode::UNPROCESSABLE_ENTITY),
        ("org-a", claim("a.probe.provider.example", "org-a", &["a"]), StatusCode::UNPROCESSABLE_ENTITY),
    ];
    for (org, claim, expected) in refused {
        let (status, body) = world.claim(org, claim.clone()).await;
        assert_eq!(status, expected, "{claim} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_feed_answers_clusters_only() {
    let world = World::new().await;
    let url = world.template.provider_url("clustermap", "/v1/domains");
    let (status, body) = world.send(Method::GET, &url, "secret of org-a", Value::Null).await;
    assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthorized")));
}

#[tokio::test(start_paused = true)]
async fn with_the_provider_away_known_domains_stay_known() {
    let mut world = World::new().await;
    world.wait(1).await;
    world.stop(PROVIDER);
    world.wait(3_600).await;
    assert_eq!(world.servers("b", "first.example").await, ["a", "c"]);
    world.stop("b");
    world.start_cluster("b").await;
    assert_eq!(world.servers("b", "first.example").await, ["a", "c"], "even after a restart");
    world.start_provider().await;
    world.claim("org-b", claim("b.example", "org-b", &["b"])).await;
    world.wait(16).await;
    assert_eq!(world.servers("b", "b.example").await, ["b", "c"], "and news arrive again");
}

#[tokio::test(start_paused = true)]
async fn a_replica_catches_up_with_more_changes_than_one_answer_carries() {
    let mut world = World::new().await;
    world.stop("b");
    for number in 0..(crate::feed::CHANGES_MAX + 20) {
        let (status, _) = world.claim("org-a", claim(&format!("d{number}.example"), "org-a", &["a"])).await;
        assert_eq!(status, StatusCode::OK);
    }
    world.start_cluster("b").await;
    world.wait(2).await;
    for domain in ["d0.example".to_owned(), format!("d{}.example", crate::feed::CHANGES_MAX + 19)] {
        assert_eq!(world.servers("b", &domain).await, ["a", "c"], "{domain}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_names_routes_and_no_domain() {
    let world = World::new().await;
    world.domain("very-private.example").await;
    let lines = world.lines.0.lock().unwrap().join("\n");
    assert!(lines.contains("/v1/domains/{domain}"));
    assert!(!lines.contains("very-private"));
}

#[tokio::test(start_paused = true)]
async fn a_map_without_claims_is_a_map() {
    let mut world = World::new().await;
    world.stores.insert("empty", MemoryStore::new());
    let host = world.host("empty");
    let config = ProviderConfig::new(world.template.clone(), vec![name("c")]);
    let provider = Provider::start(host, config).await.unwrap();
    let feed = crate::feed::after(&provider.0, fusion_protocol::Count(0), 20).await.unwrap();
    assert_eq!((feed.version.0, feed.changes.len()), (1, 0), "told at once, so that a cluster knows");
}
