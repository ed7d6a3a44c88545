//! A client outside of all processes, that knows what the target file says and no more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fusion_cluster::auth::SigningKey;
use fusion_protocol::auth::{AssertionClaims, GRANT_ASSERTION, Scope, TokenAnswer, issuer};
use fusion_protocol::conversation::{Activity, ActivityPage, Conversation};
use fusion_protocol::provisioning::{SCHEMA_USER, ScimUser};
use fusion_protocol::{ClusterName, Service, Url, UrlTemplate};
use fusion_runtime::http::Client;
use fusion_runtime::net::{LiveConfig, LiveNet, ResolveTable};
use fusion_runtime::store::MemoryStore;
use fusion_runtime::{Clock, Host};
use http::{Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};

use super::Federation;

/// How long a federation may take to be of one mind.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// Speaks to one cluster of a federation.
#[derive(Clone)]
pub(crate) struct Outside {
    pub(crate) host: Host,
    http: Client,
    template: UrlTemplate,
    cluster: ClusterName,
    identity_provider: Arc<SigningKey>,
    issuer: String,
    admin: String,
}

/// What somebody asked for and did not get: a status, or no answer at all.
#[derive(Debug)]
pub(crate) enum Failure {
    Status(u16, String),
    NoAnswer,
}

impl Outside {
    /// A client of `cluster`, of `org`.
    pub(crate) fn new(federation: &Federation, cluster: &str, org: &str) -> Self {
        Self::with(federation, cluster, org, LiveConfig::default())
    }

    /// A client without TLS.
    pub(crate) fn in_clear(federation: &Federation, cluster: &str, org: &str) -> Self {
        Self::with(federation, cluster, org, LiveConfig { insecure_loopback: true, ..LiveConfig::default() })
    }

    fn with(federation: &Federation, cluster: &str, org: &str, config: LiveConfig) -> Self {
        let target: toml::Value =
            toml::from_str(&federation.text("target.toml")).expect("the target file is TOML");
        let text = |value: &toml::Value| value.as_str().expect("a text").to_owned();
        let mut resolve = ResolveTable::default();
        for (name, addresses) in target["resolve"].as_table().expect("a table") {
            resolve.insert(name, &text(&addresses[0])).expect("a name and its address");
        }
        let ca = federation.text(&text(&target["ca"]));
        let net = LiveNet::new(LiveConfig { trust_pem: ca, resolve, ..config });
        let host = Host::live("outside", Arc::new(net.expect("a network")), Arc::new(MemoryStore::new()));
        let provider = text(&target["provider"]).parse().expect("a domain");
        let of_org = &target["org"][org];
        Self {
            http: Client::new(&host).with_timeout(Duration::from_secs(5)),
            host,
            template: UrlTemplate::parse(&text(&target["template"]), provider).expect("a template"),
            cluster: cluster.parse().expect("a cluster's name"),
            identity_provider: Arc::new(SigningKey::from_seed(&seed(&text(&of_org["key_seed"])))),
            issuer: text(&of_org["issuer"]),
            admin: text(&of_org["admin"]),
        }
    }

    /// Logs the org's admin in; waits until the cluster can.
    pub(crate) async fn admin_token(&self) -> String {
        let admin = self.admin.clone();
        self.token(&admin, Scope::Admin).await
    }

    /// Logs a user in; waits until the cluster can.
    pub(crate) async fn user_token(&self, user: &str) -> String {
        self.token(user, Scope::User).await
    }

    /// Provisions a user; its record's URL is what is acknowledged.
    pub(crate) async fn provision(&self, token: &str, user: &str) -> Result<Url, Failure> {
        let body = json!({"schemas": [SCHEMA_USER], "userName": user, "displayName": "Somebody"});
        let url = self.url(Service::Provisioning, "/scim/v2/Users");
        let made: ScimUser = self.ask(Method::POST, &url, token, Some(body)).await?;
        Ok(made.meta.expect("an answer has meta").location)
    }

    /// Provisions a user, trying until the cluster knows that it may.
    pub(crate) async fn provision_soon(&self, token: &str, user: &str) -> Url {
        self.soon("provisioning", || self.provision(token, user)).await
    }

    /// The user's name that a SCIM record says.
    pub(crate) async fn user_name(&self, token: &str, record: &Url) -> Result<String, Failure> {
        let user: ScimUser = self.ask(Method::GET, record, token, None).await?;
        Ok(user.user_name.into_exposed())
    }

    /// Makes a group.
    pub(crate) async fn group(&self, token: &str, with: &str) -> Url {
        let body = json!({"kind": "group", "participants": [with], "title": "Kills"});
        let url = self.url(Service::Conv, "/v1/conversations");
        let make = || self.ask::<Conversation>(Method::POST, &url, token, Some(body.clone()));
        self.soon("creating a group", make).await.url
    }

    /// Says something.
    pub(crate) async fn say(&self, token: &str, conversation: &Url, text: &str) -> Result<Activity, Failure> {
        let url = below(conversation, "activities");
        self.ask(Method::POST, &url, token, Some(json!({"verb": "message", "text": text}))).await
    }

    /// All activities of a conversation after a `seq`.
    pub(crate) async fn activities(
        &self,
        token: &str,
        conversation: &Url,
        after: u64,
    ) -> Result<Vec<Activity>, Failure> {
        let (mut all, mut after) = (Vec::new(), Some(after));
        while let Some(from) = after {
            let mut url = below(conversation, "activities");
            url.set_query(Some(&format!("after={from}&limit=200")));
            let page: ActivityPage = self.ask(Method::GET, &url, token, None).await?;
            all.extend(page.activities);
            after = page.next.map(|next| next.0);
        }
        Ok(all)
    }

    /// Tries until it works.
    async fn soon<T, F>(&self, what: &str, attempt: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let clock = Clock::real();
        loop {
            let failure = match attempt().await {
                Ok(done) => return done,
                Err(failure) => failure,
            };
            assert!(clock.now() < SETTLED_WITHIN, "{what} goes on failing: {failure:?}");
            clock.sleep(Duration::from_millis(100)).await;
        }
    }

    async fn token(&self, subject: &str, scope: Scope) -> String {
        let url = self.url(Service::Auth, "/v1/token");
        self.soon("logging in", || async {
            let assertion = self.assertion(subject, scope);
            let form = format!("grant_type={}&assertion={assertion}", GRANT_ASSERTION.replace(':', "%3A"));
            let request = Request::post(url.as_str())
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Bytes::from(form))
                .expect("a request");
            Ok(self.send::<TokenAnswer>(request).await?.access_token)
        })
        .await
    }

    fn assertion(&self, subject: &str, scope: Scope) -> String {
        let now = self.host.clock.wall().seconds();
        let claims = AssertionClaims {
            iss: self.issuer.clone(),
            sub: subject.to_owned(),
            aud: issuer(&self.template, &self.cluster),
            exp: now + 300,
            iat: now,
            jti: self.host.entropy.uuid().to_string(),
            scope: Some(scope),
        };
        self.identity_provider.sign("JWT", &claims)
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        url: &Url,
        token: &str,
        body: Option<Value>,
    ) -> Result<T, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(fusion_protocol::headers::IDEMPOTENCY_KEY, self.host.entropy.uuid().to_string())
            .body(body.map(|body| Bytes::from(body.to_string())).unwrap_or_default())
            .expect("a request");
        self.send(request).await
    }

    async fn send<T: serde::de::DeserializeOwned>(&self, request: Request<Bytes>) -> Result<T, Failure> {
        let answer: Response<Bytes> = self.http.send(request).await.map_err(|_| Failure::NoAnswer)?;
        let said = || String::from_utf8_lossy(answer.body()).into_owned();
        if !matches!(answer.status(), StatusCode::OK | StatusCode::CREATED) {
            return Err(Failure::Status(answer.status().as_u16(), said()));
        }
        Ok(serde_json::from_slice(answer.body()).unwrap_or_else(|error| panic!("{error}: {}", said())))
    }

    fn url(&self, service: Service, path: &str) -> Url {
        self.template.url(&self.cluster, service, path)
    }
}

fn below(url: &Url, part: &str) -> Url {
    let mut below = url.clone();
    below.path_segments_mut().expect("an https URL").pop_if_empty().push(part);
    below
}

fn seed(text: &str) -> [u8; 32] {
    let octets: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hexadecimal digits"))
        .collect();
    octets.try_into().expect("32 octets")
}
