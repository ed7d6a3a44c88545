//! What a federation is made of, as a scenario or a configuration says it.
//!
//! ```toml
//! provider = "provider.example"          # the default
//!
//! [[orgs]]
//! name = "acme"
//! domains = ["acme.example"]             # what it claims
//! [[orgs.clusters]]
//! name = "a"
//! data_center = "frankfurt"              # the default: the cluster's name
//! relays = 1                             # the default
//! overflow = ["b"]                       # other orgs' clusters that lend it their relays; none by default
//!
//! [[orgs]]
//! name = "public"
//! role = "consumer"
//! domains = ["mail.example"]             # never claimed: where its test users live
//! [[orgs.clusters]]
//! name = "c"
//!
//! [[users]]
//! address = "alice@acme.example"
//! cluster = "a"
//! display_name = "Alice"
//! ```
//!
//! Not here: addresses, keys and names of hosts ([`crate::Federation`] makes them).

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::{Address, ClusterName, Domain, Pii, UrlTemplate};
use serde::{Deserialize, Serialize};

pub use fusion_cluster::OrgRole;

/// The URL template of a topology that names none (NAM-001).
pub const TEMPLATE: &str = "https://{cluster}-{service}.{provider}";
/// The most relays that one cluster can have.
pub const RELAYS_MAX: u8 = 8;
/// The most clusters that one federation can have.
pub const CLUSTERS_MAX: usize = 10_000;

/// A federation: one provider, the orgs with their clusters, and who is to be provisioned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The provider's domain.
    #[serde(default = "default_provider")]
    pub provider: Domain,
    /// How URLs of services are made (NAM-001), with an optional port.
    #[serde(default = "default_template")]
    pub template: String,
    /// The data centre of the provider's own host.
    #[serde(default = "default_provider_data_center")]
    pub data_center: String,
    /// The orgs, at most one of them the consumer org.
    pub orgs: Vec<OrgSpec>,
    /// Who is to be provisioned, over the wire and by the caller.
    #[serde(default)]
    pub users: Vec<UserSpec>,
}

/// An org and its clusters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrgSpec {
    /// What the domain map calls it.
    pub name: String,
    /// Whose users it serves.
    #[serde(default = "private")]
    pub role: OrgRole,
    /// A private org: the domains it claims. The consumer org: unclaimed domains of its users.
    #[serde(default)]
    pub domains: Vec<Domain>,
    /// Its clusters, at least one.
    pub clusters: Vec<ClusterSpec>,
}

/// A cluster of an org.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSpec {
    /// Its name (NAM-002).
    pub name: ClusterName,
    /// Where it stands; the cluster's name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_center: Option<String>,
    /// How many relays it has, at most [`RELAYS_MAX`].
    #[serde(default = "one_relay")]
    pub relays: u8,
    /// MED-003, policy: clusters of other orgs whose relays may carry its calls while no relay of its own
    /// org can be reached. Those of its org's other clusters always may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overflow: Vec<ClusterName>,
}

/// A user who is to be provisioned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserSpec {
    /// The address.
    pub address: Address,
    /// The cluster that is to serve the user.
    pub cluster: ClusterName,
    /// The name shown to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<Pii<String>>,
}

/// Why no federation can be made of a topology.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct TopologyError {
    what: String,
    needle: String,
}

impl Topology {
    /// The parsed URL template.
    ///
    /// # Errors
    /// When it is none of the three shapes of NAM-001.
    pub fn url_template(&self) -> Result<UrlTemplate, TopologyError> {
        UrlTemplate::parse(&self.template, self.provider.clone())
            .map_err(|error| TopologyError::new(&self.template, error.to_string()))
    }

    /// The org that runs `cluster`.
    #[must_use]
    pub fn org_of(&self, cluster: &ClusterName) -> Option<&OrgSpec> {
        self.orgs.iter().find(|org| org.clusters.iter().any(|known| known.name == *cluster))
    }

    /// Every cluster with its org.
    pub fn clusters(&self) -> impl Iterator<Item = (&OrgSpec, &ClusterSpec)> {
        self.orgs.iter().flat_map(|org| org.clusters.iter().map(move |cluster| (org, cluster)))
    }

    /// Checks that such a federation can exist.
    ///
    /// # Errors
    /// The first thing that is impossible, in the order of the file.
    pub fn validate(&self) -> Result<(), TopologyError> {
        self.url_template()?;
        self.validate_orgs()?;
        self.validate_clusters()?;
        self.validate_users()
    }

    fn validate_orgs(&self) -> Result<(), TopologyError> {
        let mut names = BTreeSet::new();
        let mut claimed = BTreeMap::new();
        for org in &self.orgs {
            if org.name.is_empty() || !names.insert(&org.name) {
                return Err(TopologyError::new(&org.name, "each org needs a name of its own"));
            }
            if org.clusters.is_empty() {
                return Err(TopologyError::new(&org.name, format!("org {:?} has no cluster", org.name)));
            }
            for domain in &org.domains {
                if let Some(other) = claimed.insert(domain, &org.name) {
                    let what =
                        format!("domain {domain} is claimed by {other:?} and by {:?} (MAP-002)", org.name);
                    return Err(TopologyError::new(domain.as_str(), what));
                }
            }
        }
        let consumers: Vec<_> = self.orgs.iter().filter(|org| org.role == OrgRole::Consumer).collect();
        match consumers.get(1) {
            Some(second) => Err(TopologyError::new(&second.name, "there is at most one consumer org")),
            None => Ok(()),
        }
    }

    fn validate_clusters(&self) -> Result<(), TopologyError> {
        let mut names = BTreeSet::new();
        for (_, cluster) in self.clusters() {
            let name = cluster.name.as_str();
            if !names.insert(name) {
                return Err(TopologyError::new(name, format!("two clusters are called {name:?} (NAM-002)")));
            }
            if cluster.relays > RELAYS_MAX {
                let what = format!("cluster {name:?} has {} relays; at most {RELAYS_MAX}", cluster.relays);
                return Err(TopologyError::new(name, what));
            }
        }
        for (org, cluster) in self.clusters() {
            for lender in &cluster.overflow {
                if self.org_of(lender).is_none_or(|of| of.name == org.name) {
                    let what = format!(
                        "cluster {lender:?} is of no other org: it lends no relays to {:?}",
                        cluster.name
                    );
                    return Err(TopologyError::new(lender.as_str(), what));
                }
            }
        }
        if names.len() > CLUSTERS_MAX {
            return Err(TopologyError::new("orgs", format!("there are at most {CLUSTERS_MAX} clusters")));
        }
        Ok(())
    }

    fn validate_users(&self) -> Result<(), TopologyError> {
        let mut addresses = BTreeSet::new();
        for user in &self.users {
            let (address, cluster) = (user.address.as_str(), user.cluster.as_str());
            if !addresses.insert(address) {
                return Err(TopologyError::new(address, format!("user {address} is listed twice (NAM-004)")));
            }
            let Some(org) = self.org_of(&user.cluster) else {
                return Err(TopologyError::new(
                    cluster,
                    format!("user {address} is on cluster {cluster:?}, which no org has"),
                ));
            };
            if org.role == OrgRole::Private && !org.domains.contains(&user.address.domain()) {
                let what = format!(
                    "user {address} is on cluster {cluster:?} of org {:?}, which does not claim the domain (PRO-003)",
                    org.name
                );
                return Err(TopologyError::new(address, what));
            }
        }
        Ok(())
    }
}

impl OrgSpec {
    /// The names of its clusters.
    #[must_use]
    pub fn cluster_names(&self) -> Vec<ClusterName> {
        self.clusters.iter().map(|cluster| cluster.name.clone()).collect()
    }
}

impl ClusterSpec {
    /// Where it stands.
    #[must_use]
    pub fn data_center(&self) -> &str {
        self.data_center.as_deref().unwrap_or(self.name.as_str())
    }
}

impl TopologyError {
    /// A text that stands in the file near the mistake.
    #[must_use]
    pub fn needle(&self) -> &str {
        &self.needle
    }

    fn new(needle: &str, what: impl Into<String>) -> Self {
        Self { what: what.into(), needle: needle.to_owned() }
    }
}

fn default_provider() -> Domain {
    "provider.example".parse().expect("a constant domain")
}

fn default_template() -> String {
    TEMPLATE.to_owned()
}

fn default_provider_data_center() -> String {
    "provider".to_owned()
}

fn private() -> OrgRole {
    OrgRole::Private
}

fn one_relay() -> u8 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme_and_consumer() -> Topology {
        let cluster = |name: &str| ClusterSpec {
            name: name.parse().unwrap(),
            data_center: None,
            relays: 1,
            overflow: vec![],
        };
        let user = |address: &str, cluster: &str| UserSpec {
            address: address.parse().unwrap(),
            cluster: cluster.parse().unwrap(),
            display_name: None,
        };
        Topology {
            provider: default_provider(),
            template: default_template(),
            data_center: default_provider_data_center(),
            orgs: vec![
                OrgSpec {
                    name: "acme".into(),
                    role: OrgRole::Private,
                    domains: vec!["acme.example".parse().unwrap()],
                    clusters: vec![cluster("a")],
                },
                OrgSpec {
                    name: "public".into(),
                    role: OrgRole::Consumer,
                    domains: vec![],
                    clusters: vec![cluster("c")],
                },
            ],
            users: vec![user("alice@acme.example", "a"), user("bob@mail.example", "c")],
        }
    }

    fn refusal(change: impl FnOnce(&mut Topology)) -> String {
        let mut topology = acme_and_consumer();
        topology.validate().unwrap();
        change(&mut topology);
        topology.validate().unwrap_err().to_string()
    }

    #[test]
    fn a_domain_has_one_owner() {
        let said = refusal(|topology| {
            let domain = topology.orgs[0].domains[0].clone();
            topology.orgs[1].domains.push(domain);
        });
        assert_eq!(said, "domain acme.example is claimed by \"acme\" and by \"public\" (MAP-002)");
    }

    #[test]
    fn a_cluster_name_is_taken_once() {
        let said = refusal(|topology| topology.orgs[1].clusters[0].name = "a".parse().unwrap());
        assert!(said.starts_with("two clusters are called \"a\""), "{said}");
    }

    #[test]
    fn a_user_lives_on_a_cluster_that_exists_and_may_serve_them() {
        let nowhere = refusal(|topology| topology.users[0].cluster = "z".parse().unwrap());
        assert!(nowhere.contains("which no org has"), "{nowhere}");
        let foreign = refusal(|topology| topology.users[1].cluster = "a".parse().unwrap());
        assert!(foreign.contains("does not claim the domain"), "{foreign}");
    }

    #[test]
    fn a_claimed_domain_may_still_have_consumer_users() {
        let mut topology = acme_and_consumer();
        topology.users[1].address = "eve@acme.example".parse().unwrap();
        topology.validate().unwrap();
    }

    #[test]
    fn relays_are_lent_by_clusters_of_other_orgs() {
        let own = refusal(|topology| topology.orgs[0].clusters[0].overflow.push("a".parse().unwrap()));
        assert!(own.contains("is of no other org"), "{own}");
        let nobody = refusal(|topology| topology.orgs[0].clusters[0].overflow.push("z".parse().unwrap()));
        assert!(nobody.contains("is of no other org"), "{nobody}");
        let mut topology = acme_and_consumer();
        topology.orgs[0].clusters[0].overflow.push("c".parse().unwrap());
        topology.validate().unwrap();
    }

    #[test]
    fn there_is_one_consumer_org() {
        let said = refusal(|topology| topology.orgs[0].role = OrgRole::Consumer);
        assert_eq!(said, "there is at most one consumer org");
    }
}
