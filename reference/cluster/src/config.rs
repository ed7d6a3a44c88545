//! What a cluster is told about itself.

pub use fusion_machines::pair::Rule as PairRule;
use fusion_protocol::{ClusterName, Url, UrlTemplate};
use serde::{Deserialize, Serialize};

/// Whose users a cluster serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrgRole {
    /// An org's own users, by claimed domains.
    Private,
    /// Everybody under no other org.
    Consumer,
}

/// An identity provider whose assertions the authorisation server accepts (SEC-002).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityProvider {
    /// Its issuer name.
    pub issuer: String,
    /// Its raw Ed25519 public key.
    pub public_key: [u8; 32],
}

/// A cluster's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Its name, for ever.
    pub name: ClusterName,
    /// Its org.
    pub org: String,
    /// Whose users it serves.
    pub role: OrgRole,
    /// How URLs of services are made.
    pub template: UrlTemplate,
    /// Who may vouch for its users and admins.
    pub identity_providers: Vec<IdentityProvider>,
    /// By which rule two conversations of one pair race. All clusters of a federation have the same, and
    /// but for deployments that are faulty on purpose it is the one that ships (CNV-005).
    pub pair_rule: PairRule,
    /// The control interfaces of its relays; of equally near ones the first is taken.
    pub relays: Vec<Url>,
    /// Relays of other clusters that it may use besides (MED-003); none is the policy to use none.
    pub borrowed_relays: Vec<BorrowedRelay>,
}

/// A relay of another cluster that lends it: its configuration lists this cluster as a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BorrowedRelay {
    /// Its control interface.
    pub url: Url,
    /// Whose it is.
    pub cluster: ClusterName,
    /// In which case it is used.
    pub lender: Lender,
}

/// Who lends a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lender {
    /// Another cluster of the own org: as good as an own relay, if it is near.
    Org,
    /// Another org: for overflow, while no relay of the own org can be reached, and never for a call
    /// among the org's own users (MED-002).
    Other,
}
