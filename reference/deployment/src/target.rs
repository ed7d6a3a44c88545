//! What a client of the federation has to know, as the text of a target file.
//!
//! The conformance suite defines the format and reads it; this writes it, so that a local deployment
//! can be checked as it stands.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::Federation;
use crate::topology::OrgRole;

/// What a target file says besides what the federation knows. Paths are seen from the target file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetFile {
    /// What reports call the deployment.
    pub name: String,
    /// The certificate authority to trust; none: the system's.
    pub ca: Option<String>,
    /// The stores of the provider plane (PRI-001).
    pub stores: Vec<String>,
    /// The logs of the provider plane (PRI-001).
    pub logs: Vec<String>,
}

#[derive(Serialize)]
struct Text<'a> {
    name: &'a str,
    provider: &'a str,
    template: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<&'a str>,
    resolve: &'a BTreeMap<String, Vec<IpAddr>>,
    cluster: Vec<Cluster<'a>>,
    org: BTreeMap<&'a str, Org<'a>>,
    evidence: Evidence<'a>,
}

#[derive(Serialize)]
struct Cluster<'a> {
    name: &'a str,
    org: &'a str,
}

#[derive(Serialize)]
struct Org<'a> {
    role: OrgRole,
    domains: Vec<&'a str>,
    issuer: &'a str,
    key_seed: String,
    admin: &'a str,
}

#[derive(Serialize)]
struct Evidence<'a> {
    stores: &'a [String],
    logs: &'a [String],
}

impl Federation {
    /// The text of a target file for this federation. It holds the secret keys of the orgs' identity
    /// providers: whoever reads it can log in as anybody.
    ///
    /// # Panics
    /// Never: names, addresses and keys are plain data.
    #[must_use]
    pub fn target_file(&self, file: &TargetFile) -> String {
        let clusters = self.topology.clusters();
        let orgs = self.topology.orgs.iter().filter_map(|org| {
            let keys = self.keys.get(&org.name)?;
            let domains = org.domains.iter().map(|domain| domain.as_str()).collect();
            let key_seed = hex(&keys.seed);
            let org_text =
                Org { role: org.role, domains, issuer: &keys.issuer, key_seed, admin: &keys.admin };
            Some((org.name.as_str(), org_text))
        });
        let text = Text {
            name: &file.name,
            provider: self.template.provider().as_str(),
            template: self.template.to_string(),
            ca: file.ca.as_deref(),
            resolve: &self.resolve,
            cluster: clusters
                .map(|(org, cluster)| Cluster { name: cluster.name.as_str(), org: &org.name })
                .collect(),
            org: orgs.collect(),
            evidence: Evidence { stores: &file.stores, logs: &file.logs },
        };
        toml::to_string(&text).expect("a target file is plain data")
    }
}

/// Hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use fusion_runtime::Entropy;

    use super::*;
    use crate::{Addressing, assemble};

    #[test]
    fn a_target_file_says_all_that_a_client_needs() {
        let topology = serde_json::from_value(serde_json::json!({
            "template": "https://{cluster}-{service}.{provider}:8443",
            "orgs": [
                {"name": "acme", "domains": ["acme.example"], "clusters": [{"name": "a", "relays": 0}]},
                {"name": "public", "role": "consumer", "clusters": [{"name": "c", "relays": 0}]},
            ],
        }))
        .unwrap();
        let federation = assemble(&topology, Addressing::Loopback, &Entropy::from_u64(1)).unwrap();
        insta::assert_snapshot!(federation.target_file(&TargetFile {
            name: "local".into(),
            ca: Some("ca.pem".into()),
            stores: vec!["data/provider.redb".into()],
            logs: vec!["log/provider.jsonl".into()],
        }));
    }
}
