//! What the provider is told about itself.

use std::collections::BTreeSet;
use std::fmt;

use fusion_protocol::map::Claim;
use fusion_protocol::{ClusterName, UrlTemplate};

/// How long a client may keep a record of the domain map, unless told otherwise, in seconds.
pub const TTL_SECONDS: u32 = 300;

/// The provider's configuration.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// How URLs of services are made.
    pub template: UrlTemplate,
    /// The consumer org's clusters, first asked first.
    pub consumer_clusters: Vec<ClusterName>,
    /// The orgs that may claim domains.
    pub orgs: Vec<OrgAccount>,
    /// Domains that are claimed from the start. An org that releases one keeps it released.
    pub domains: Vec<Claim>,
    /// How long a client may keep a record, in seconds.
    pub ttl_seconds: u32,
}

/// An org as the provider knows it.
#[derive(Clone)]
pub struct OrgAccount {
    /// Its name.
    pub org: String,
    /// Its clusters: the only ones that its claims may name.
    pub clusters: BTreeSet<ClusterName>,
    /// The bearer secret of its admins at the provider; without one nobody claims over the wire.
    pub admin_secret: Option<String>,
}

impl ProviderConfig {
    /// A provider with nothing but its own clusters.
    #[must_use]
    pub fn new(template: UrlTemplate, consumer_clusters: Vec<ClusterName>) -> Self {
        Self { template, consumer_clusters, orgs: Vec::new(), domains: Vec::new(), ttl_seconds: TTL_SECONDS }
    }

    pub(crate) fn org(&self, name: &str) -> Option<&OrgAccount> {
        self.orgs.iter().find(|account| account.org == name)
    }
}

impl fmt::Debug for OrgAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrgAccount")
            .field("org", &self.org)
            .field("clusters", &self.clusters)
            .finish_non_exhaustive()
    }
}
