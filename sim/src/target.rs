//! A federation as its clients know it.

use std::collections::BTreeMap;

use fusion_conformance::jws::SigningKey;
use fusion_conformance::target::{IdentityProvider, Org, OrgRole, Target, TargetCluster};
use fusion_deployment::Federation;
use fusion_deployment::topology::OrgRole as TopologyRole;

/// What a target file of `federation` would say.
#[must_use]
pub fn target_of(federation: &Federation) -> Target {
    let topology = &federation.topology;
    let mut target = Target::new("simulated", federation.template.clone());
    target.clusters = topology
        .clusters()
        .map(|(org, cluster)| TargetCluster { name: cluster.name.clone(), org: org.name.clone() })
        .collect();
    target.orgs = orgs(federation);
    target.resolve = federation.resolve.clone();
    target
}

fn orgs(federation: &Federation) -> BTreeMap<String, Org> {
    let orgs = federation.topology.orgs.iter().map(|org| {
        let role = match org.role {
            TopologyRole::Private => OrgRole::Private,
            TopologyRole::Consumer => OrgRole::Consumer,
        };
        let identity = federation.keys.get(&org.name).map(|keys| IdentityProvider {
            issuer: keys.issuer.clone(),
            key: SigningKey::from_seed(keys.seed).expect("any 32 octets are a seed (RFC 8032)"),
            admin: keys.admin.clone(),
        });
        (org.name.clone(), Org { role, domains: org.domains.clone(), identity })
    });
    orgs.collect()
}
