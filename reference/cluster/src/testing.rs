//! Clusters for tests: memory stores, a network in memory, users with valid tokens.
//!
//! ```ignore
//! let world = World::new(&["a", "b"]).await;          // serving a.example and b.example
//! let alice = world.user("a", "alice@a.example").await; // provisioned on a
//! let token = world.token("a", &alice);                // good for a
//! let guest = world.guest_token("a", &alice, "b");     // what an exchange at a gives for b
//! let (status, body) = world.post("a", Service::Conv, "/v1/conversations", &token, json!({..})).await;
//! ```
//!
//! Tests run on paused time: `#[tokio::test(start_paused = true)]`.

mod net;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fusion_protocol::map::{DomainChange, DomainFeed, DomainRecord};
use fusion_protocol::{Address, ClusterName, Count, Incarnation, Service, Url, UrlTemplate, UserRef};
use fusion_runtime::probe::{Level, Probe, StateChange};
use fusion_runtime::store::{Batch, MemoryStore};
use fusion_runtime::{Clock, Entropy, Host, Timestamp, http as server};
use http::{HeaderMap, Method, Request, StatusCode, header};
use serde_json::Value;

use self::net::MemoryNet;
use crate::users::{self, UserRow};
use crate::{Cluster, ClusterConfig, IdentityProvider, OrgRole, PairRule, auth, router};

/// When every test begins: 2027, in microseconds.
const START: Timestamp = Timestamp(1_800_000_000_000_000);

/// The issuer of the identity provider that every test cluster trusts.
pub(crate) const IDENTITY_PROVIDER: &str = "https://idp.example";

/// The consumer org's cluster in every world that has one.
pub(crate) const CONSUMER: &str = "c";

/// A few clusters of one federation in memory. Cluster `x` is of org `org-x` and serves `x.example`; the
/// cluster named [`CONSUMER`] is the consumer org's.
pub(crate) struct World {
    pub(crate) template: UrlTemplate,
    pub(crate) clock: Clock,
    pub(crate) net: MemoryNet,
    entropy: Entropy,
    stores: BTreeMap<String, MemoryStore>,
    clusters: BTreeMap<String, Cluster>,
    probes: BTreeMap<String, Arc<Recorded>>,
    http: server::Client,
    map_version: Count,
    relays: Vec<Url>,
    /// The machine that requests and WebSockets come from.
    pub(crate) client: Host,
}

/// What a test cluster reported.
#[derive(Default)]
pub(crate) struct Recorded {
    pub(crate) lines: Mutex<Vec<(&'static str, Value)>>,
    pub(crate) states: Mutex<Vec<StateChange>>,
}

/// The key of [`IDENTITY_PROVIDER`].
pub(crate) fn identity_provider_key() -> auth::SigningKey {
    auth::SigningKey::from_seed(&[7; 32])
}

/// An address, from text that is one.
pub(crate) fn address(text: &str) -> Address {
    text.parse().expect("a test's address")
}

/// A cluster's name, from text that is one.
pub(crate) fn name(text: &str) -> ClusterName {
    text.parse().expect("a test's cluster name")
}

impl World {
    /// Starts these clusters, each serving HTTP, each knowing all domains.
    pub(crate) async fn new(names: &[&str]) -> Self {
        Self::with_relays(names, &[]).await
    }

    /// The same, each cluster with relays at these URLs.
    pub(crate) async fn with_relays(names: &[&str], relays: &[Url]) -> Self {
        let provider = "provider.example".parse().expect("a domain");
        let template = UrlTemplate::parse("https://{cluster}-{service}.{provider}", provider);
        let clock = Clock::starting_at(START);
        let net = MemoryNet::default();
        let client = host("client", &clock, &net, &Entropy::from_u64(2), MemoryStore::new(), Arc::default());
        let mut world = Self {
            template: template.expect("a template"),
            clock,
            net,
            entropy: Entropy::from_u64(1),
            stores: BTreeMap::new(),
            clusters: BTreeMap::new(),
            probes: BTreeMap::new(),
            http: server::Client::new(&client),
            map_version: Count(0),
            client,
            relays: relays.to_vec(),
        };
        for name in names {
            world.stores.insert((*name).to_owned(), MemoryStore::new());
            world.start(name).await;
        }
        for name in names.iter().filter(|name| **name != CONSUMER) {
            world.claim(&format!("{name}.example"), &[name]).await;
        }
        world
    }

    /// All clusters learn that the org of these clusters has claimed a domain; of none: released it.
    pub(crate) async fn claim(&mut self, domain: &str, clusters: &[&str]) {
        self.map_version = self.map_version.next();
        let (domain, version) = (domain.parse().expect("a test's domain"), self.map_version);
        let change = match clusters {
            [] => DomainChange::Released { domain, version },
            [first, ..] => DomainChange::Claimed(DomainRecord {
                domain,
                org: format!("org-{first}"),
                clusters: clusters.iter().map(|text| name(text)).collect(),
                version,
                ttl_seconds: 300,
            }),
        };
        let consumers: Vec<&str> =
            self.clusters.keys().map(String::as_str).filter(|text| *text == CONSUMER).collect();
        self.tell(vec![change], &consumers).await;
    }

    /// All clusters learn that these are the consumer org's.
    pub(crate) async fn consumers(&mut self, clusters: &[&str]) {
        self.map_version = self.map_version.next();
        self.tell(Vec::new(), clusters).await;
    }

    async fn tell(&self, changes: Vec<DomainChange>, consumers: &[&str]) {
        let consumer_clusters = consumers.iter().map(|text| name(text)).collect();
        let feed = DomainFeed { version: self.map_version, changes, consumer_clusters };
        for cluster in self.clusters.values() {
            cluster.map.apply(&cluster.host, feed.clone()).await.expect("a feed can be taken in");
        }
    }

    /// The cluster of that name.
    pub(crate) fn cluster(&self, name: &str) -> &Cluster {
        &self.clusters[name]
    }

    /// What the cluster of that name reported.
    pub(crate) fn probe(&self, name: &str) -> &Recorded {
        &self.probes[name]
    }

    /// Everything that the cluster of that name holds.
    pub(crate) fn store(&self, name: &str) -> &MemoryStore {
        &self.stores[name]
    }

    /// Ends a cluster's process and starts it again on the same disk.
    pub(crate) async fn restart(&mut self, name: &str) {
        self.cluster(name).host.tasks.abort_all();
        self.net.unplug(at(name));
        self.start(name).await;
    }

    /// Makes a cluster unreachable until [`World::reconnect`].
    pub(crate) fn cut(&self, name: &str) {
        self.net.unplug(at(name));
    }

    /// Makes it reachable again.
    pub(crate) async fn reconnect(&self, name: &str) {
        serve(self.cluster(name), name).await;
    }

    /// A user, provisioned on a cluster.
    pub(crate) async fn user(&self, cluster: &str, user: &str) -> UserRef {
        add_user(self.cluster(cluster), user).await
    }

    /// A token of a user's own cluster for that cluster.
    pub(crate) fn token(&self, home: &str, user: &UserRef) -> String {
        self.guest_token(home, user, home)
    }

    /// A token of a user's own cluster for another one.
    pub(crate) fn guest_token(&self, home: &str, user: &UserRef, audience: &str) -> String {
        auth::user_token(self.cluster(home), user, &name(audience))
    }

    /// An admin's token of a cluster.
    pub(crate) fn admin_token(&self, cluster: &str) -> String {
        auth::admin_token(self.cluster(cluster), "admin")
    }

    /// The URL of a service's path.
    pub(crate) fn url(&self, cluster: &str, service: Service, path: &str) -> Url {
        self.template.url(&name(cluster), service, path)
    }

    /// A GET with a bearer token (none when empty), over the network in memory.
    pub(crate) async fn get(
        &self,
        cluster: &str,
        service: Service,
        path: &str,
        token: &str,
    ) -> (StatusCode, Value) {
        let url = self.url(cluster, service, path);
        let (status, _, body) = self.send(Method::GET, &url, token, None).await;
        (status, body)
    }

    /// A POST of JSON with a bearer token (none when empty) and a new `Idempotency-Key`.
    pub(crate) async fn post(
        &self,
        cluster: &str,
        service: Service,
        path: &str,
        token: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let url = self.url(cluster, service, path);
        let (status, _, body) = self.send(Method::POST, &url, token, Some(body)).await;
        (status, body)
    }

    /// Any request.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &Url,
        token: &str,
        body: Option<Value>,
    ) -> (StatusCode, HeaderMap, Value) {
        let mut request = Request::builder().method(method).uri(url.as_str());
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .header(fusion_protocol::headers::IDEMPOTENCY_KEY, self.entropy.uuid().to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.map(|body| Bytes::from(body.to_string())).unwrap_or_default())
            .expect("a request");
        self.send_raw(request).await
    }

    /// A request as it is; the answer's body as JSON, or `null` when it is none.
    pub(crate) async fn send_raw(&self, request: Request<Bytes>) -> (StatusCode, HeaderMap, Value) {
        let answer = self.http.send(request).await.expect("the cluster answers");
        let body = serde_json::from_slice(answer.body()).unwrap_or_default();
        (answer.status(), answer.headers().clone(), body)
    }

    async fn start(&mut self, name: &str) {
        let probe = Arc::<Recorded>::default();
        let store = self.stores[name].clone();
        let entropy = self.entropy.stream(name);
        let host = host(name, &self.clock.of_another_host(), &self.net, &entropy, store, probe.clone());
        let cluster = Cluster::start(host, self.config(name)).await.expect("a cluster starts");
        for service in Service::ALL {
            self.net.name(&self.template.host(cluster.name(), service), at(name));
        }
        serve(&cluster, name).await;
        self.clusters.insert(name.to_owned(), cluster);
        self.probes.insert(name.to_owned(), probe);
    }

    fn config(&self, cluster: &str) -> ClusterConfig {
        ClusterConfig {
            name: name(cluster),
            org: format!("org-{cluster}"),
            role: if cluster == CONSUMER { OrgRole::Consumer } else { OrgRole::Private },
            template: self.template.clone(),
            identity_providers: vec![IdentityProvider {
                issuer: IDENTITY_PROVIDER.to_owned(),
                public_key: identity_provider_key().public_key(),
            }],
            relays: self.relays.clone(),
            pair_rule: PairRule::default(),
            borrowed_relays: vec![],
        }
    }
}

impl Recorded {
    /// Everything reported, as one text: what a test looks for addresses in.
    pub(crate) fn text(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|(target, fields)| format!("{target} {fields}\n")).collect()
    }
}

impl Probe for Recorded {
    fn watches_state(&self) -> bool {
        true
    }

    fn state(&self, change: StateChange) {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }

    fn log(&self, _: Level, target: &'static str, fields: Value) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push((target, fields));
    }
}

/// Writes a user's row, as provisioning does.
async fn add_user(cluster: &Cluster, user: &str) -> UserRef {
    let user = address(user);
    let incarnation = Incarnation(cluster.host.entropy.uuid());
    let record = fusion_protocol::map::UserRecord {
        user: user.clone(),
        incarnation,
        cluster: cluster.name().clone(),
        version: Count(1),
    };
    let row = UserRow {
        record,
        id: cluster.host.entropy.uuid(),
        display_name: None,
        external_id: None,
        active: true,
        fenced: false,
    };
    let vacant = users::served_here(cluster, &user).await.expect("a row can be read");
    assert!(vacant.value.is_none(), "a test adds each user once");
    let mut batch = Batch::default();
    users::insert(&mut batch, &vacant, &row);
    cluster.host.store.commit(batch).await.expect("a row can be written");
    UserRef { user, incarnation }
}

async fn serve(cluster: &Cluster, name: &str) {
    server::serve(&cluster.host, at(name), router::router(cluster)).await.expect("the address is free");
}

/// The address of a cluster: from the first letter of its name.
fn at(name: &str) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, name.as_bytes()[0]], 443))
}

fn host(
    name: &str,
    clock: &Clock,
    net: &MemoryNet,
    entropy: &Entropy,
    store: MemoryStore,
    probe: Arc<Recorded>,
) -> Host {
    Host {
        clock: clock.clone(),
        entropy: entropy.clone(),
        probe,
        ..Host::live(name, Arc::new(net.clone()), Arc::new(store))
    }
}
