//! From a topology to hosts, addresses, names and keys.
//!
//! Everything here is decided by the topology and a stream of randomness: the same two give the same
//! federation, in a simulator as on this machine.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use fusion_cluster::{BorrowedRelay, ClusterConfig, IdentityProvider, Lender, PairRule};
use fusion_protocol::map::Claim;
use fusion_protocol::{ClusterName, Domain, Service, Url, UrlTemplate};
use fusion_provider::{OrgAccount, ProviderConfig};
use fusion_relay::RelayConfig;
use fusion_runtime::Entropy;

use crate::target::hex;
use crate::topology::{ClusterSpec, OrgRole, OrgSpec, Topology, TopologyError};

/// The names of the provider's own hosts, below its domain.
pub const PROVIDER_HOSTS: [&str; 2] = ["clustermap", "portal"];
/// The account that every org's identity provider calls an admin.
pub const ADMIN: &str = "admin";
/// How many addresses of a /24 are given to hosts.
const BLOCK: u32 = 254;

/// Where the hosts of a federation get their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// `127.0.1.N` on this machine, then `127.0.2.N` and so on.
    Loopback,
    /// `10.x.y.z`, one `x.y` for each data centre, in a simulated network.
    Simulated,
}

/// What one host is for. One machine plays one part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The provider plane.
    Provider,
    /// All services of a cluster.
    Cluster(ClusterName),
    /// One media relay of a cluster.
    Relay {
        /// Whose it is.
        cluster: ClusterName,
        /// Which of the cluster's relays, from 1.
        number: u8,
    },
}

/// A machine to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSpec {
    /// Its name: `provider`, the cluster's name, or `{cluster}-relay{n}`.
    pub name: String,
    /// Where it stands.
    pub data_center: String,
    /// Its only address.
    pub ip: IpAddr,
    /// What it is for.
    pub role: Role,
}

/// What an org's identity provider is, as far as whoever set up the federation plays its part.
#[derive(Clone)]
pub struct OrgKeys {
    /// The `iss` of its assertions.
    pub issuer: String,
    /// The seed of its Ed25519 key (RFC 8032), secret.
    pub seed: [u8; 32],
    /// The raw public key.
    pub public_key: [u8; 32],
    /// The account that it calls an admin (PRO-003).
    pub admin: String,
    /// The bearer secret of the org's admins at the provider.
    pub provider_secret: String,
}

/// A federation, ready to be started.
#[derive(Clone)]
pub struct Federation {
    /// What it was made of.
    pub topology: Topology,
    /// How URLs are made, parsed.
    pub template: UrlTemplate,
    /// Its machines: the provider first, then each cluster followed by its relays.
    pub hosts: Vec<HostSpec>,
    /// The addresses of every name, like curl's `--resolve`.
    pub resolve: BTreeMap<String, Vec<IpAddr>>,
    /// The identity providers of the orgs, by org.
    pub keys: BTreeMap<String, OrgKeys>,
}

/// Makes hosts, addresses, names and keys for a topology.
///
/// # Errors
/// When such a federation cannot exist.
pub fn assemble(
    topology: &Topology,
    addressing: Addressing,
    entropy: &Entropy,
) -> Result<Federation, TopologyError> {
    topology.validate()?;
    let template = topology.url_template()?;
    let hosts = hosts(topology, addressing);
    let resolve = resolve(&template, &hosts);
    let keys = topology.orgs.iter().map(|org| (org.name.clone(), OrgKeys::make(topology, org, entropy)));
    Ok(Federation { template, hosts, resolve, keys: keys.collect(), topology: topology.clone() })
}

impl Federation {
    /// What the provider of this federation is told about itself. The domains of private orgs are claimed
    /// from the start.
    #[must_use]
    pub fn provider_config(&self) -> ProviderConfig {
        let of = |role| self.topology.orgs.iter().filter(move |org| org.role == role);
        let account = |org: &OrgSpec| OrgAccount {
            org: org.name.clone(),
            clusters: org.cluster_names().into_iter().collect(),
            admin_secret: self.keys.get(&org.name).map(|keys| keys.provider_secret.clone()),
        };
        let claims = |org: &OrgSpec| -> Vec<Claim> {
            let claim = |domain: &Domain| Claim {
                domain: domain.clone(),
                org: org.name.clone(),
                clusters: org.cluster_names(),
            };
            org.domains.iter().map(claim).collect()
        };
        let consumer_clusters = of(OrgRole::Consumer).flat_map(OrgSpec::cluster_names).collect();
        ProviderConfig {
            orgs: of(OrgRole::Private).map(account).collect(),
            domains: of(OrgRole::Private).flat_map(claims).collect(),
            ..ProviderConfig::new(self.template.clone(), consumer_clusters)
        }
    }

    /// What a relay of this federation is told about itself. Media has the number of the HTTPS port: each
    /// relay has an address of its own, and two federations on one machine differ in the port.
    #[must_use]
    pub fn relay_config(&self, host: &HostSpec) -> Option<RelayConfig> {
        let Role::Relay { cluster, .. } = &host.role else { return None };
        Some(RelayConfig {
            name: host.name.clone(),
            cluster: cluster.clone(),
            guests: self.guests_of(cluster),
            template: self.template.clone(),
            control: self.listen(host),
            udp: self.listen(host),
            advertised: host.ip,
        })
    }

    /// The machine with this role.
    #[must_use]
    pub fn host(&self, role: &Role) -> Option<&HostSpec> {
        self.hosts.iter().find(|host| host.role == *role)
    }

    /// Where the machine serves HTTPS.
    #[must_use]
    pub fn listen(&self, host: &HostSpec) -> SocketAddr {
        SocketAddr::new(host.ip, self.template.port())
    }

    /// What a cluster of this federation is told about itself.
    #[must_use]
    pub fn cluster_config(&self, cluster: &ClusterName) -> Option<ClusterConfig> {
        let org = self.topology.org_of(cluster)?;
        let spec = org.clusters.iter().find(|spec| spec.name == *cluster)?;
        let keys = self.keys.get(&org.name)?;
        Some(ClusterConfig {
            name: cluster.clone(),
            org: org.name.clone(),
            role: org.role,
            template: self.template.clone(),
            identity_providers: vec![keys.identity_provider()],
            pair_rule: PairRule::default(),
            relays: self.relays_of(spec).collect(),
            borrowed_relays: self.borrowed_by(org, spec),
        })
    }

    fn relays_of(&self, spec: &ClusterSpec) -> impl Iterator<Item = Url> {
        (1..=spec.relays).map(|number| relay_url(&self.template, &spec.name, number))
    }

    /// The relays of the org's other clusters, and of those that the cluster's policy names.
    fn borrowed_by(&self, org: &OrgSpec, borrower: &ClusterSpec) -> Vec<BorrowedRelay> {
        let siblings = org.clusters.iter().filter(|spec| spec.name != borrower.name);
        let others = self.topology.clusters().map(|(_, spec)| spec);
        let others = others.filter(|spec| borrower.overflow.contains(&spec.name));
        let lenders =
            siblings.map(|spec| (spec, Lender::Org)).chain(others.map(|spec| (spec, Lender::Other)));
        lenders
            .flat_map(|(spec, lender)| {
                let cluster = &spec.name;
                self.relays_of(spec).map(move |url| BorrowedRelay { url, cluster: cluster.clone(), lender })
            })
            .collect()
    }

    /// The clusters that borrow the relays of `lender`.
    fn guests_of(&self, lender: &ClusterName) -> Vec<ClusterName> {
        let own = self.topology.org_of(lender).map(|org| &org.name);
        let borrows = |org: &OrgSpec, spec: &ClusterSpec| {
            spec.name != *lender && (Some(&org.name) == own || spec.overflow.contains(lender))
        };
        let borrowers = self.topology.clusters().filter(|(org, spec)| borrows(org, spec));
        borrowers.map(|(_, spec)| spec.name.clone()).collect()
    }
}

impl HostSpec {
    /// The cluster it belongs to; none for the provider's.
    #[must_use]
    pub fn cluster(&self) -> Option<&ClusterName> {
        match &self.role {
            Role::Provider => None,
            Role::Cluster(cluster) | Role::Relay { cluster, .. } => Some(cluster),
        }
    }

    /// The names under which it is found.
    #[must_use]
    pub fn names(&self, template: &UrlTemplate) -> Vec<String> {
        match &self.role {
            Role::Provider => {
                PROVIDER_HOSTS.iter().map(|name| format!("{name}.{}", template.provider())).collect()
            }
            Role::Cluster(cluster) => Service::ALL
                .into_iter()
                .filter(|service| *service != Service::Relay)
                .map(|service| template.host(cluster, service))
                .collect(),
            Role::Relay { cluster, number } => vec![relay_name(template, cluster, *number)],
        }
    }
}

impl OrgKeys {
    /// What clusters are told about it.
    #[must_use]
    pub fn identity_provider(&self) -> IdentityProvider {
        IdentityProvider { issuer: self.issuer.clone(), public_key: self.public_key }
    }

    fn make(topology: &Topology, org: &OrgSpec, entropy: &Entropy) -> Self {
        let secret = |purpose: &str| {
            let mut bytes = [0; 32];
            entropy.stream(&format!("{purpose}/{}", org.name)).fill(&mut bytes);
            bytes
        };
        let seed = secret("identity-provider");
        Self {
            issuer: format!("https://idp.{}.{}", label(&org.name), topology.provider),
            seed,
            public_key: public_key(&seed),
            admin: ADMIN.to_owned(),
            provider_secret: hex(&secret("provider-secret")),
        }
    }
}

/// The name of a relay's control interface. The first is the one of the template; further ones, and all
/// of a template that puts services below one host, are named beside it.
#[must_use]
pub fn relay_name(template: &UrlTemplate, cluster: &ClusterName, number: u8) -> String {
    let of_template = template.path_prefix(Service::Relay).is_empty();
    match number {
        1 if of_template => template.host(cluster, Service::Relay),
        1 => format!("{cluster}-relay.{}", template.provider()),
        _ => format!("{cluster}-relay{number}.{}", template.provider()),
    }
}

/// The public half of an Ed25519 key.
///
/// # Panics
/// Never: any 32 octets are a seed.
#[must_use]
pub fn public_key(seed: &[u8; 32]) -> [u8; 32] {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 octets are an Ed25519 seed");
    pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 octets")
}

fn relay_url(template: &UrlTemplate, cluster: &ClusterName, number: u8) -> Url {
    let mut url = template.url(cluster, Service::Relay, "/");
    url.set_host(Some(&relay_name(template, cluster, number))).expect("a relay's name is a host name");
    url
}

fn hosts(topology: &Topology, addressing: Addressing) -> Vec<HostSpec> {
    let mut addresses = Addresses { addressing, blocks: 0, of_data_center: BTreeMap::new() };
    let mut hosts = Vec::new();
    let mut add = |name: String, data_center: &str, role| {
        let ip = addresses.next(data_center);
        hosts.push(HostSpec { name, data_center: data_center.to_owned(), ip, role });
    };
    add("provider".to_owned(), &topology.data_center, Role::Provider);
    for (_, spec) in topology.clusters() {
        add(spec.name.to_string(), spec.data_center(), Role::Cluster(spec.name.clone()));
        for number in 1..=spec.relays {
            let role = Role::Relay { cluster: spec.name.clone(), number };
            add(format!("{}-relay{number}", spec.name), spec.data_center(), role);
        }
    }
    hosts
}

fn resolve(template: &UrlTemplate, hosts: &[HostSpec]) -> BTreeMap<String, Vec<IpAddr>> {
    let mut table = BTreeMap::new();
    for host in hosts {
        table.extend(host.names(template).into_iter().map(|name| (name, vec![host.ip])));
    }
    table
}

/// Hands out addresses in blocks of 254, so that none ends in 0 or in 255.
struct Addresses {
    addressing: Addressing,
    blocks: u32,
    /// Of each data centre: the block it is in, and how many of it are given.
    of_data_center: BTreeMap<String, (u32, u32)>,
}

impl Addresses {
    fn next(&mut self, data_center: &str) -> IpAddr {
        let (network, place) = match self.addressing {
            Addressing::Loopback => (Ipv4Addr::new(127, 0, 1, 0), ""),
            Addressing::Simulated => (Ipv4Addr::new(10, 0, 0, 0), data_center),
        };
        let (block, given) = self.of_data_center.entry(place.to_owned()).or_insert((0, BLOCK));
        if *given == BLOCK {
            (*block, *given) = (self.blocks, 0);
            self.blocks += 1;
        }
        *given += 1;
        Ipv4Addr::from_bits(network.to_bits() + *block * 256 + *given).into()
    }
}

/// A name as one label of a host name.
fn label(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn federation(clusters: usize, addressing: Addressing) -> Federation {
        let org = |n: usize| {
            serde_json::json!({
                "name": format!("org{n}"), "domains": [format!("org{n}.example")],
                "clusters": [{"name": format!("c{n}"), "relays": 2}],
            })
        };
        let orgs: Vec<_> = (0..clusters).map(org).collect();
        let topology = serde_json::from_value(serde_json::json!({ "orgs": orgs })).unwrap();
        assemble(&topology, addressing, &Entropy::from_u64(7)).unwrap()
    }

    #[test]
    fn every_host_has_an_address_of_its_own_and_every_name_one_of_them() {
        for addressing in [Addressing::Loopback, Addressing::Simulated] {
            let federation = federation(300, addressing);
            let ips: std::collections::BTreeSet<_> = federation.hosts.iter().map(|host| host.ip).collect();
            assert_eq!(ips.len(), 1 + 300 * 3);
            assert!(federation.resolve.values().flatten().all(|ip| ips.contains(ip)));
            assert!(
                ips.iter().all(|ip| !ip.to_string().ends_with(".0") && !ip.to_string().ends_with(".255"))
            );
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_keys() {
        let (one, other) = (federation(1, Addressing::Simulated), federation(1, Addressing::Loopback));
        assert_eq!(one.keys["org0"].seed, other.keys["org0"].seed);
        assert_eq!(one.keys["org0"].public_key, public_key(&one.keys["org0"].seed));
    }

    #[test]
    fn the_first_relay_has_the_name_of_the_template() {
        let federation = federation(1, Addressing::Simulated);
        let config = federation.cluster_config(&"c0".parse().unwrap()).unwrap();
        let relays: Vec<_> = config.relays.iter().map(Url::as_str).collect();
        assert_eq!(relays, ["https://c0-relay.provider.example/", "https://c0-relay2.provider.example/"]);
        assert!(federation.resolve.contains_key("c0-relay2.provider.example"));
    }
}
