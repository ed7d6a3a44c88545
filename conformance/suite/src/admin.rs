//! An org's admin: provisions and deletes users at one cluster by SCIM (PRO), and claims domains (MAP).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fusion_history::event::Answer;
use fusion_history::{Call, Recorder};
use fusion_protocol::auth::GRANT_ASSERTION;
use fusion_protocol::map::{Claim, DomainRecord};
use fusion_protocol::moving::{Move, Order, Standing};
use fusion_protocol::provisioning::{MEDIA_TYPE, SCHEMA_USER, ScimUser};
use fusion_protocol::{Address, ClusterName, Code, Domain, Service, Url};
use fusion_runtime::Host;
use http::Method;
use serde::Deserialize;

use crate::device::scribe::{Scribe, Tried};
use crate::device::tokens::ask_token;
use crate::device::wire::Wire;
use crate::device::{Ask, Failure, Patience, Reply, lock};
use crate::target::Target;
use crate::transcript::Transcript;

/// How often an admin looks whether a move is done,
const MOVE_LOOKS: u32 = 300;
/// and how long the admin waits before each look.
const MOVE_LOOK_EVERY: Duration = Duration::from_millis(250);

/// The admin of an org, at one of its clusters. Clones are the same admin.
#[derive(Clone)]
pub struct Admin {
    wire: Wire,
    scribe: Scribe,
    cluster: ClusterName,
    patience: Patience,
    token: Arc<Mutex<Option<Held>>>,
    operation: Option<Arc<str>>,
}

/// A list as SCIM answers it (RFC 7644, 3.4.2).
#[derive(Deserialize)]
struct Found {
    #[serde(default, rename = "Resources")]
    resources: Vec<ScimUser>,
}

struct Held {
    text: String,
    good_until: Duration,
}

impl Admin {
    /// The admin of the org that runs `cluster`. `name` is its host in the history.
    ///
    /// # Errors
    /// When the target knows no identity provider of the cluster's org, or the org has no domain.
    pub fn new(
        host: Host,
        target: Arc<Target>,
        cluster: ClusterName,
        name: &str,
        recorder: Recorder,
    ) -> Result<Self, Failure> {
        let missing = || Failure::Unreachable(format!("the target names no admin of cluster {cluster}"));
        let (_, org) = target.org_of(&cluster).ok_or_else(missing)?;
        let account = &org.identity.as_ref().ok_or_else(missing)?.admin;
        let domain = org.domains.first().ok_or_else(missing)?;
        let actor: Address =
            account.parse().or_else(|_| format!("{account}@{domain}").parse()).map_err(|_| missing())?;
        let name: Arc<str> = name.into();
        let entropy = host.entropy.stream(&format!("admin {name}"));
        let host = Host { entropy, ..host };
        let scribe = Scribe::new(recorder, host.clock.clone(), name.clone(), actor);
        let wire = Wire::new(host, target, name);
        let (patience, token, operation) = (Patience::default(), Arc::default(), None);
        Ok(Self { wire, scribe, cluster, patience, token, operation })
    }

    /// The same admin, writing down what it says and hears.
    #[must_use]
    pub fn with_transcript(mut self, transcript: Transcript) -> Self {
        self.wire.transcript = Some(transcript);
        self
    }

    /// The same admin with another patience.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The same admin, who calls its next operation `operation` in the history.
    #[must_use]
    pub fn named(&self, operation: &str) -> Self {
        Self { operation: Some(operation.into()), ..self.clone() }
    }

    /// The cluster where this admin provisions.
    #[must_use]
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Makes a user (PRO-001, PRO-002).
    ///
    /// # Errors
    /// `already-exists`, `forbidden` and so on.
    pub async fn provision(&self, user: &Address, display_name: Option<&str>) -> Result<ScimUser, Failure> {
        let call = Call::Provision { user: user.clone(), cluster: self.cluster.clone() };
        let invoked = self.scribe.begin(self.operation.as_deref(), None, call);
        let body = ScimUser {
            schemas: vec![SCHEMA_USER.to_owned()],
            id: None,
            external_id: None,
            user_name: user.as_str().into(),
            display_name: display_name.map(Into::into),
            active: true,
            meta: None,
        };
        let key = self.wire.host.entropy.uuid().to_string();
        let ask = self.scim(Method::POST, "/scim/v2/Users").key(key);
        let ask = ask.json(&body).media_type(MEDIA_TYPE);
        let (answer, tries) = self.call_counted(ask).await;
        let mut made = answer.and_then(|reply| reply.json::<ScimUser>());
        // It was made at a try whose answer was lost.
        if tries > 1
            && made.as_ref().is_err_and(|failure| failure.code() == Some(Code::AlreadyExists))
            && let Ok(Some(known)) = self.find(user).await
        {
            made = Ok(known);
        }
        self.scribe.end(invoked, Tried::once(made), |_| Answer::Provisioned { incarnation: None })
    }

    /// The record of an address, by SCIM's filter; `None` when there is none.
    ///
    /// # Errors
    /// As the cluster refuses.
    pub async fn find(&self, user: &Address) -> Result<Option<ScimUser>, Failure> {
        let mut url = self.url("/scim/v2/Users");
        url.query_pairs_mut().append_pair("filter", &format!("userName eq \"{}\"", user.as_str()));
        let found: Found = self.call(Ask::new(Method::GET, url)).await?.json()?;
        Ok(found.resources.into_iter().next())
    }

    /// A user's record, by SCIM's id.
    ///
    /// # Errors
    /// 404 and so on.
    pub async fn read(&self, id: &str) -> Result<ScimUser, Failure> {
        self.call(self.scim(Method::GET, &user_path(id))).await?.json()
    }

    /// Deletes a user (PRO-005).
    ///
    /// # Errors
    /// 404 and so on.
    pub async fn deprovision(&self, user: &Address, id: &str) -> Result<(), Failure> {
        let call = Call::Deprovision { user: user.clone(), cluster: self.cluster.clone() };
        let invoked = self.scribe.begin(self.operation.as_deref(), None, call);
        let reply = self.call(self.scim(Method::DELETE, &user_path(id))).await;
        let tried = Tried::once(reply.and_then(|reply| reply.success()));
        self.scribe.end(invoked, tried, |()| Answer::Nothing {})
    }

    /// Moves a user of the admin's cluster to another one of the org, and waits until the user is served
    /// there (MAP-007).
    ///
    /// # Errors
    /// `conflict`, `peer-unreachable` and so on; no answer when it was ordered and not seen to be done.
    pub async fn move_user(&self, user: &Address, to: &ClusterName) -> Result<(), Failure> {
        let call = Call::Move { user: user.clone(), from: self.cluster.clone(), to: to.clone() };
        let invoked = self.scribe.begin(self.operation.as_deref(), None, call);
        let tried = Tried::once(self.moved(user, to).await);
        self.scribe.end(invoked, tried, |()| Answer::Nothing {})
    }

    async fn moved(&self, user: &Address, to: &ClusterName) -> Result<(), Failure> {
        let path = format!("/v1/moves/{}", user.path_segment());
        let url = self.wire.target.template.url(&self.cluster, Service::Users, &path);
        let order = Ask::new(Method::POST, url.clone()).json(&Order { to: to.clone() });
        let mut seen = self.call(order).await.and_then(|reply| reply.json::<Move>())?;
        for _ in 0..MOVE_LOOKS {
            if seen.state == Standing::Gone {
                return Ok(());
            }
            self.wire.host.clock.sleep(MOVE_LOOK_EVERY).await;
            if let Ok(reply) = self.call(Ask::new(Method::GET, url.clone())).await {
                seen = reply.json()?;
            }
        }
        Err(Failure::Unknown("the move was ordered and not seen to be done".to_owned()))
    }

    /// Claims a domain for the admin's org (MAP-002). `secret` is what the provider knows the org's admins
    /// by: a token of a cluster never goes there.
    ///
    /// # Errors
    /// `domain-claimed` and so on.
    pub async fn claim(
        &self,
        domain: &Domain,
        clusters: &[ClusterName],
        secret: &str,
    ) -> Result<DomainRecord, Failure> {
        let (org, _) = self
            .wire
            .target
            .org_of(&self.cluster)
            .ok_or_else(|| Failure::Unreachable("the target does not know the admin's org".to_owned()))?;
        let claim = Claim { domain: domain.clone(), org: org.to_owned(), clusters: clusters.to_vec() };
        let Claim { domain, org, clusters } = claim.clone();
        let call = Call::Claim { domain, org, clusters };
        let invoked = self.scribe.begin(self.operation.as_deref(), None, call);
        let url = self.wire.target.template.provider_url("clustermap", "/v1/domains");
        let key = self.wire.host.entropy.uuid().to_string();
        let ask = Ask::new(Method::POST, url).token(secret).key(key).json(&claim);
        let answer = self.wire.send(&ask, self.patience.timeout).await;
        let tried = Tried::once(answer.and_then(|reply| reply.json::<DomainRecord>()));
        self.scribe.end(invoked, tried, |record| Answer::Domain(record.clone()))
    }

    /// The admin's token, good for its cluster only (PRO-003).
    ///
    /// # Errors
    /// `invalid-grant`, or no answer.
    pub async fn token(&self) -> Result<String, Failure> {
        let now = self.wire.host.clock.now();
        if let Some(held) = &*lock(&self.token)
            && held.good_until > now
        {
            return Ok(held.text.clone());
        }
        let target = &self.wire.target;
        let assertion = target
            .admin_assertion(&self.wire.host, &self.cluster)
            .ok_or_else(|| Failure::Unreachable("the target has no key of the admin's org".to_owned()))?;
        let form = [("grant_type", GRANT_ASSERTION), ("assertion", &assertion)];
        let answer = ask_token(&self.wire, &self.cluster, &form, &self.patience).await?;
        let good_until = now + Duration::from_secs(answer.expires_in.saturating_sub(30));
        let text = answer.access_token;
        *lock(&self.token) = Some(Held { text: text.clone(), good_until });
        Ok(text)
    }

    /// Sends one request word for word.
    ///
    /// # Errors
    /// No answer, or a URL outside the federation (NAM-005).
    pub async fn send(&self, ask: &Ask) -> Result<Reply, Failure> {
        self.wire.send(ask, self.patience.timeout).await
    }

    /// A SCIM request to the admin's cluster, without its token.
    #[must_use]
    pub fn scim(&self, method: Method, path: &str) -> Ask {
        Ask::new(method, self.url(path))
    }

    fn url(&self, path: &str) -> Url {
        self.wire.target.template.url(&self.cluster, Service::Provisioning, path)
    }

    /// SCIM's calls may be repeated: a POST by its key, the others by their nature.
    async fn call(&self, ask: Ask) -> Result<Reply, Failure> {
        self.call_counted(ask).await.0
    }

    /// The same, and how often it was sent.
    async fn call_counted(&self, ask: Ask) -> (Result<Reply, Failure>, u32) {
        let mut tries = 1;
        loop {
            let token = match self.token().await {
                Ok(token) => token,
                Err(failure) => return (Err(failure), tries),
            };
            let ask = ask.clone().token(token);
            let answer = self.wire.send(&ask, self.patience.timeout).await;
            let pause = match &answer {
                Ok(reply) if reply.status == 401 && tries == 1 => {
                    *lock(&self.token) = None;
                    Duration::ZERO
                }
                Ok(reply) if matches!(reply.status, 429 | 503) => {
                    Duration::from_secs(reply.refusal().retry_after.unwrap_or(1)).min(self.patience.wait_max)
                }
                Ok(reply) => return (reply.success().map(|()| reply.clone()), tries),
                Err(_) => self.patience.backoff * (1 << tries.min(8)),
            };
            if tries >= self.patience.tries_max {
                return (answer.and_then(|reply| reply.success().map(|()| reply)), tries);
            }
            tries += 1;
            self.wire.host.clock.sleep(pause).await;
        }
    }
}

fn user_path(id: &str) -> String {
    let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
    format!("/scim/v2/Users/{id}")
}
