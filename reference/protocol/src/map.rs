//! The domain map, the user maps and resolution (MAP).
//!
//! | call | answer |
//! |---|---|
//! | `GET https://clustermap.{provider}/v1/domains/{domain}` | [`DomainRecord`], or 404 `domain-unclaimed` with member `version` |
//! | `GET https://clustermap.{provider}/v1/domains?after={version}&wait={seconds}` | [`DomainFeed`] (clusters only) |
//! | `POST https://clustermap.{provider}/v1/domains` | [`Claim`] -> [`DomainRecord`] (an org's admin) |
//! | `GET https://{c}-users.{provider}/v1/users/{user}` | [`UserRecord`]; 404 `user-unknown`; 421 `wrong-cluster` with member `clusters` |
//! | `GET https://{c}-users.{provider}/v1/resolve/{user}` | [`Resolution`], for users of the cluster |

use serde::{Deserialize, Serialize};

use crate::{Address, ClusterName, Count, Domain, Incarnation, Url};

/// Who owns a domain and where its users are asked for (MAP-003).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainRecord {
    /// The domain.
    pub domain: Domain,
    /// The org that claimed it.
    pub org: String,
    /// The org's clusters; any of them answers for the whole org.
    pub clusters: Vec<ClusterName>,
    /// The feed's version at which the record took this form.
    pub version: Count,
    /// For how long a client may keep it, in seconds.
    pub ttl_seconds: u32,
}

/// A change of the domain map: a record, or its versioned tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum DomainChange {
    /// Claimed, or changed.
    Claimed(DomainRecord),
    /// Released or lapsed.
    #[serde(rename_all = "camelCase")]
    Released {
        /// The domain.
        domain: Domain,
        /// The feed's version of the release.
        version: Count,
    },
}

/// Changes of the domain map after a version (MAP-006).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainFeed {
    /// The version that a replica has after applying `changes`.
    pub version: Count,
    /// In order of version.
    pub changes: Vec<DomainChange>,
    /// The clusters of the consumer org.
    pub consumer_clusters: Vec<ClusterName>,
}

/// A claim of a domain for an org (MAP-002).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The domain.
    pub domain: Domain,
    /// The org that claims it.
    pub org: String,
    /// The org's clusters.
    pub clusters: Vec<ClusterName>,
}

/// What a user map answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserRecord {
    /// The user.
    pub user: Address,
    /// Who that is now (NAM-004).
    pub incarnation: Incarnation,
    /// The cluster that serves the user.
    pub cluster: ClusterName,
    /// The record's epoch (MAP-007): goes up with every move.
    pub version: Count,
}

/// Where a user is, as the resolver of the asker's own cluster found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resolution {
    /// The user map's answer.
    #[serde(flatten)]
    pub record: UserRecord,
    /// Whether the domain map's replica could not be refreshed of late (MAP-006).
    pub stale: bool,
    /// The feed version that the domain step read.
    pub map_version: Count,
}

/// What a client learns before login (MAP-012): from the domain only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginDiscovery {
    /// The authorisation servers to try, in order.
    pub authorization_servers: Vec<Url>,
}
