//! Which deployment is checked, and as whom.
//!
//! A [`Target`] is what a target file says ([`mod@file`]), or what a simulator knows about its own world
//! ([`Target::new`] and the public fields). It names no engine: how names become addresses
//! is the network's affair, which is handed the [`Target::resolve`] table.

pub mod file;
mod pace;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use fusion_protocol::auth::{AssertionClaims, Scope, issuer};
use fusion_protocol::{Address, ClusterName, Domain, Url, UrlTemplate};
use fusion_runtime::Host;

use crate::jws::SigningKey;

/// For how long an assertion is good, in seconds.
const ASSERTION_SECONDS: u64 = 300;

/// A deployment as its clients may know it.
#[derive(Debug)]
pub struct Target {
    /// What reports call it.
    pub name: String,
    /// How URLs are made, and the provider's domain (NAM-001).
    pub template: UrlTemplate,
    /// The clusters that are checked.
    pub clusters: Vec<TargetCluster>,
    /// The orgs, by name.
    pub orgs: BTreeMap<String, Org>,
    /// Users that exist already, for deployments that allow no provisioning.
    pub users: Vec<ReadyUser>,
    /// Addresses of host names, like curl's `--resolve`; other names go to DNS.
    pub resolve: BTreeMap<String, Vec<IpAddr>>,
    /// The certificate authority to trust, in PEM; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// What of the provider plane can be looked at from here (PRI-001).
    pub evidence: Evidence,
    /// What the checks may do to the deployment.
    pub limits: Limits,
    pub(crate) pace: pace::Pace,
}

/// A cluster of the deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetCluster {
    /// Its name.
    pub name: ClusterName,
    /// The org that runs it; a key of [`Target::orgs`].
    pub org: String,
}

/// An org of the deployment.
#[derive(Clone, Debug)]
pub struct Org {
    /// Whether it is the consumer org.
    pub role: OrgRole,
    /// A private org: the domains it has claimed. The consumer org: unclaimed domains at which its test
    /// users may live.
    pub domains: Vec<Domain>,
    /// Makes assertions for its users and admins; `None`: only [`Target::users`] can log in.
    pub identity: Option<IdentityProvider>,
}

/// What an org is to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrgRole {
    /// Owns domains and runs its own clusters.
    Private,
    /// Everybody under no other org.
    Consumer,
}

/// An org's identity provider, as far as the suite plays its part.
#[derive(Clone, Debug)]
pub struct IdentityProvider {
    /// The `iss` of its assertions.
    pub issuer: String,
    /// What it signs with.
    pub key: SigningKey,
    /// The account that it calls an admin.
    pub admin: String,
}

/// A user that exists already.
#[derive(Clone, Debug)]
pub struct ReadyUser {
    /// The address.
    pub address: Address,
    /// The cluster that the assertion is for.
    pub cluster: ClusterName,
    /// What logs the user in (RFC 7523).
    pub assertion: String,
}

/// What tells what the provider plane holds (PRI-001).
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The stores of the provider plane.
    pub stores: Vec<PathBuf>,
    /// The logs of the provider plane.
    pub logs: Vec<PathBuf>,
    /// What an engine sees of the provider plane by itself.
    pub seen: Vec<Seen>,
}

/// A place of the provider plane that an engine sees into.
#[derive(Clone)]
pub struct Seen {
    /// `store`, `log` or `wire`.
    pub place: &'static str,
    /// Its name in reports.
    pub name: String,
    /// What it holds now.
    pub bytes: Arc<dyn Fn() -> Vec<u8> + Send + Sync>,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seen({} {})", self.place, self.name)
    }
}

/// What the checks may do to the deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests per second over all clients; 0: no limit.
    pub max_requests_per_second: u32,
    /// Whether objects may be made.
    pub writes: Writes,
}

/// Whether a run may make objects in the deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// Users, conversations and calls of its own, taken away at the end.
    Allowed,
    /// None: checks that need them are blocked.
    ReadOnly,
}

impl Target {
    /// A deployment without clusters; fill in the public fields.
    #[must_use]
    pub fn new(name: impl Into<String>, template: UrlTemplate) -> Self {
        Self {
            name: name.into(),
            template,
            clusters: Vec::new(),
            orgs: BTreeMap::new(),
            users: Vec::new(),
            resolve: BTreeMap::new(),
            ca: None,
            evidence: Evidence::default(),
            limits: Limits { max_requests_per_second: 0, writes: Writes::Allowed },
            pace: pace::Pace::default(),
        }
    }

    /// The clusters of the consumer org.
    pub fn consumer_clusters(&self) -> impl Iterator<Item = &TargetCluster> {
        self.clusters.iter().filter(|cluster| self.role(cluster) == OrgRole::Consumer)
    }

    /// The clusters of private orgs.
    pub fn private_clusters(&self) -> impl Iterator<Item = &TargetCluster> {
        self.clusters.iter().filter(|cluster| self.role(cluster) == OrgRole::Private)
    }

    /// The private org that has claimed `domain`, and its clusters, as far as the target knows.
    #[must_use]
    pub fn clusters_of_domain(&self, domain: &Domain) -> Vec<ClusterName> {
        let owner = self
            .orgs
            .iter()
            .find(|(_, org)| org.role == OrgRole::Private && org.domains.iter().any(|owned| owned == domain));
        let of_org = |name: &str| {
            let clusters = self.clusters.iter().filter(move |cluster| cluster.org == name);
            clusters.map(|cluster| cluster.name.clone()).collect()
        };
        owner.map(|(name, _)| of_org(name)).unwrap_or_default()
    }

    /// The org that runs `cluster`, with its name.
    #[must_use]
    pub fn org_of(&self, cluster: &ClusterName) -> Option<(&str, &Org)> {
        let found = self.clusters.iter().find(|known| known.name == *cluster)?;
        self.orgs.get_key_value(&found.org).map(|(name, org)| (name.as_str(), org))
    }

    /// Whether a private org runs `cluster`.
    #[must_use]
    pub fn is_private(&self, cluster: &ClusterName) -> bool {
        self.org_of(cluster).is_some_and(|(_, org)| org.role == OrgRole::Private)
    }

    /// One cluster with test users for each org that has one: private orgs first.
    #[must_use]
    pub fn peopled(&self) -> Vec<ClusterName> {
        let mut orgs: Vec<&str> = Vec::new();
        let mut peopled = Vec::new();
        for cluster in self.private_clusters().chain(self.consumer_clusters()) {
            let keys = self
                .orgs
                .get(&cluster.org)
                .is_some_and(|org| org.identity.is_some() && !org.domains.is_empty());
            let ready = self.users.iter().any(|user| user.cluster == cluster.name);
            if (keys || ready) && !orgs.contains(&cluster.org.as_str()) {
                orgs.push(&cluster.org);
                peopled.push(cluster.name.clone());
            }
        }
        peopled
    }

    /// Whether every org that is checked has a user ready.
    #[must_use]
    pub fn has_ready_users(&self) -> bool {
        self.peopled().iter().all(|cluster| self.users.iter().any(|user| user.cluster == *cluster))
    }

    /// An assertion that logs `user` in at `cluster`; `None` when the target has neither a key of the
    /// cluster's org nor a ready-made one.
    #[must_use]
    pub fn user_assertion(&self, host: &Host, cluster: &ClusterName, user: &Address) -> Option<String> {
        let ready = self.users.iter().find(|ready| ready.address == *user && ready.cluster == *cluster);
        if let Some(ready) = ready {
            return Some(ready.assertion.clone());
        }
        let provider = self.org_of(cluster)?.1.identity.as_ref()?;
        let audience = issuer(&self.template, cluster);
        Some(provider.key.sign(&claims(host, provider, audience, user.as_str(), Scope::User)))
    }

    /// An assertion that logs the org's admin in at `cluster` (PRO-003).
    #[must_use]
    pub fn admin_assertion(&self, host: &Host, cluster: &ClusterName) -> Option<String> {
        let provider = self.org_of(cluster)?.1.identity.as_ref()?;
        let audience = issuer(&self.template, cluster);
        Some(provider.key.sign(&claims(host, provider, audience, &provider.admin, Scope::Admin)))
    }

    /// NAM-005: the cluster that `url` leads to, if it is one of this federation.
    #[must_use]
    pub fn cluster_of(&self, url: &Url) -> Option<ClusterName> {
        self.template.locate(url).ok().map(|located| located.cluster)
    }

    fn role(&self, cluster: &TargetCluster) -> OrgRole {
        self.orgs.get(&cluster.org).map_or(OrgRole::Private, |org| org.role)
    }
}

/// What an identity provider vouches for, good from now on.
pub(crate) fn claims(
    host: &Host,
    provider: &IdentityProvider,
    audience: String,
    subject: &str,
    scope: Scope,
) -> AssertionClaims {
    let now = host.clock.wall().seconds();
    AssertionClaims {
        iss: provider.issuer.clone(),
        sub: subject.to_owned(),
        aud: audience,
        exp: now + ASSERTION_SECONDS,
        iat: now,
        jti: host.entropy.uuid().to_string(),
        scope: Some(scope),
    }
}
