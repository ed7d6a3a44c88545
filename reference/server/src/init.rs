//! Writes everything that a federation on this machine needs: a file for each process, certificates,
//! keys, and the target file for whoever checks it.
//!
//! Done again in the same folder it keeps topology, keys and stores, and writes the rest anew.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fusion_cluster::BorrowedRelay;
use fusion_deployment::target::hex;
use fusion_deployment::topology::Topology;
use fusion_deployment::{Addressing, Federation, HostSpec, Role, TargetFile, assemble};
use fusion_protocol::ClusterName;
use fusion_relay::RelayConfig;
use fusion_runtime::Entropy;
use fusion_runtime::tls::TestCa;
use fusion_settings::Mistake;

use crate::config::{
    AllConfig, BorrowedRelaySection, ClusterSection, Config, FederationSection, IdentityProviderSection,
    Listen, LogSection, Network, OrgSection, ProviderSection, RelaySection, StoreSection,
};
use crate::log::LogLevel;

/// The folder's files that are not of one process.
const TOPOLOGY: &str = "topology.toml";
const ALL: &str = "federation.toml";
const TARGET: &str = "target.toml";
const SEED: &str = "secret.seed";
const CA: &str = "tls/ca.pem";
const CA_KEY: &str = "tls/ca.key";

/// Two companies and the consumer org, each with one cluster and one relay.
const DEFAULT_TOPOLOGY: &str = r#"
[[orgs]]
name = "acme"
domains = ["acme.example"]
clusters = [{ name = "a" }]

[[orgs]]
name = "globex"
domains = ["globex.example"]
clusters = [{ name = "b" }]

[[orgs]]
name = "public"
role = "consumer"
domains = ["mail.example"]
clusters = [{ name = "c" }]
"#;

/// What was written.
pub(crate) struct Written {
    pub(crate) all: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) processes: Vec<PathBuf>,
}

/// Writes a federation into `folder`.
///
/// # Errors
/// A [`Mistake`] for a topology that cannot be; otherwise when a file cannot be written.
pub(crate) fn init(folder: &Path, port: u16, topology: Option<&Path>) -> Result<Written> {
    for below in ["tls", "data", "log"] {
        fs::create_dir_all(folder.join(below))
            .with_context(|| format!("cannot make {}", folder.join(below).display()))?;
    }
    let topology = with_port(read_topology(folder, topology)?, port);
    let federation = assemble(&topology, Addressing::Loopback, &secrets(folder)?)?;
    let ca = authority(folder)?;
    let mut processes = Vec::new();
    for host in &federation.hosts {
        let names: Vec<&str> = names_of(&federation, host).collect();
        let identity = ca.issue(&names)?;
        write(folder, &certificate(host), &identity.cert_pem)?;
        write_secret(folder, &key(host), &identity.key_pem)?;
        let text = format!("# {}", explanation(&toml::to_string(&config(&federation, host))?));
        // An org's secret at the provider is in there.
        write_secret(folder, &file_of(host), &text)?;
        fs::OpenOptions::new().create(true).append(true).open(folder.join(log_of(host)))?;
        processes.push(PathBuf::from(file_of(host)));
    }
    write(folder, TOPOLOGY, &toml::to_string(&topology)?)?;
    write(folder, ALL, &toml::to_string(&AllConfig { processes: processes.clone() })?)?;
    write_secret(folder, TARGET, &target(&federation))?;
    Ok(Written { all: folder.join(ALL), target: folder.join(TARGET), processes })
}

fn read_topology(folder: &Path, given: Option<&Path>) -> Result<Topology, Mistake> {
    let kept = folder.join(TOPOLOGY);
    let (file, text) = match given {
        Some(file) => (file.to_owned(), fusion_settings::text(file)?),
        None if kept.exists() => (kept.clone(), fusion_settings::text(&kept)?),
        None => (PathBuf::from("(the default topology)"), DEFAULT_TOPOLOGY.to_owned()),
    };
    let topology: Topology = fusion_settings::parse(&file, &text)?;
    topology
        .validate()
        .map_err(|error| Mistake::new(&file, error.to_string()).at_text(&text, error.needle()))?;
    Ok(topology)
}

/// The template's port is where every process listens.
fn with_port(mut topology: Topology, port: u16) -> Topology {
    if let Some((before, after)) = topology.template.split_once("{provider}") {
        let after = after
            .strip_prefix(':')
            .map_or(after, |port| port.trim_start_matches(|c: char| c.is_ascii_digit()));
        topology.template = format!("{before}{{provider}}:{port}{after}");
    }
    topology
}

/// All keys of the orgs come from one seed, which is made once.
fn secrets(folder: &Path) -> Result<Entropy> {
    let path = folder.join(SEED);
    if !path.exists() {
        let mut seed = [0; 32];
        Entropy::from_system().fill(&mut seed);
        write_secret(folder, SEED, &hex(&seed))?;
    }
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let seed = crate::config::unhex(text.trim())
        .with_context(|| format!("{} is not 64 hexadecimal digits", path.display()))?;
    Ok(Entropy::seeded(seed))
}

fn authority(folder: &Path) -> Result<TestCa> {
    let (certificate, key) = (folder.join(CA), folder.join(CA_KEY));
    if certificate.exists() && key.exists() {
        return Ok(TestCa::from_pem(&fs::read_to_string(certificate)?, &fs::read_to_string(key)?)?);
    }
    let ca = TestCa::generate()?;
    write(folder, CA, ca.ca_pem())?;
    write_secret(folder, CA_KEY, &ca.key_pem())?;
    Ok(ca)
}

fn config(federation: &Federation, host: &HostSpec) -> Config {
    let resolve =
        federation.resolve.iter().filter_map(|(name, ips)| Some((name.clone(), ips.first()?.to_string())));
    let keeps_rows = !matches!(host.role, Role::Relay { .. });
    Config {
        name: host.name.clone(),
        listen: Listen {
            address: federation.listen(host),
            certificate: Some(certificate(host).into()),
            key: Some(key(host).into()),
        },
        federation: FederationSection {
            provider: federation.template.provider().clone(),
            template: federation.template.to_string(),
        },
        network: Network {
            trust: Some(CA.into()),
            allow: vec!["127.0.0.0/8".to_owned()],
            insecure_loopback: false,
            resolve: resolve.collect(),
        },
        store: keeps_rows.then(|| StoreSection { file: store_of(host).into() }),
        log: LogSection { file: Some(log_of(host).into()), level: level_of(host), ..LogSection::default() },
        provider: (host.role == Role::Provider).then(|| provider(federation)),
        cluster: match &host.role {
            Role::Cluster(name) => cluster(federation, name),
            _ => None,
        },
        relay: relay(federation, host),
    }
}

fn provider(federation: &Federation) -> ProviderSection {
    let config = federation.provider_config();
    let org = config.orgs.iter().map(|account| OrgSection {
        name: account.org.clone(),
        clusters: account.clusters.iter().cloned().collect(),
        domains: config
            .domains
            .iter()
            .filter(|claim| claim.org == account.org)
            .map(|claim| claim.domain.clone())
            .collect(),
        admin_secret: account.admin_secret.clone(),
    });
    ProviderSection {
        org: org.collect(),
        consumer_clusters: config.consumer_clusters.clone(),
        ttl_seconds: config.ttl_seconds,
    }
}

fn cluster(federation: &Federation, name: &ClusterName) -> Option<ClusterSection> {
    let config = federation.cluster_config(name)?;
    let identity_provider = config
        .identity_providers
        .into_iter()
        .map(|known| IdentityProviderSection { issuer: known.issuer, public_key: hex(&known.public_key) });
    Some(ClusterSection {
        org: config.org,
        role: config.role,
        relays: config.relays,
        borrowed_relay: config.borrowed_relays.into_iter().map(borrowed).collect(),
        identity_provider: identity_provider.collect(),
    })
}

fn relay(federation: &Federation, host: &HostSpec) -> Option<RelaySection> {
    let config = federation.relay_config(host)?;
    let Role::Relay { number, .. } = host.role else { return None };
    let RelayConfig { cluster, guests, udp, .. } = config;
    Some(RelaySection { cluster, guests, number, udp, advertised: None })
}

fn borrowed(relay: BorrowedRelay) -> BorrowedRelaySection {
    BorrowedRelaySection { url: relay.url, cluster: relay.cluster, lender: relay.lender }
}

fn target(federation: &Federation) -> String {
    let provider = federation.hosts.iter().filter(|host| host.role == Role::Provider);
    federation.target_file(&TargetFile {
        name: "local".to_owned(),
        ca: Some(CA.to_owned()),
        stores: provider.clone().map(store_of).collect(),
        logs: provider.map(log_of).collect(),
    })
}

fn names_of<'a>(federation: &'a Federation, host: &HostSpec) -> impl Iterator<Item = &'a str> {
    let ip: IpAddr = host.ip;
    let table: &'a BTreeMap<String, Vec<IpAddr>> = &federation.resolve;
    table.iter().filter(move |(_, ips)| ips.contains(&ip)).map(|(name, _)| name.as_str())
}

/// `{role}-{name}.toml`: who starts the processes tells their roles by it.
fn file_of(host: &HostSpec) -> String {
    match &host.role {
        Role::Provider => "provider.toml".to_owned(),
        Role::Cluster(name) => format!("cluster-{name}.toml"),
        Role::Relay { cluster, number } => format!("relay-{cluster}-{number}.toml"),
    }
}

fn certificate(host: &HostSpec) -> String {
    format!("tls/{}.pem", host.name)
}

fn key(host: &HostSpec) -> String {
    format!("tls/{}.key", host.name)
}

fn store_of(host: &HostSpec) -> String {
    format!("data/{}.redb", host.name)
}

fn log_of(host: &HostSpec) -> String {
    format!("log/{}.jsonl", host.name)
}

/// Whoever checks PRI-001 wants to see all that the provider could write.
fn level_of(host: &HostSpec) -> LogLevel {
    if host.role == Role::Provider { LogLevel::Debug } else { LogLevel::Info }
}

fn explanation(text: &str) -> String {
    format!("Written by `stack-fusion init`; `stack-fusion example-config` explains every key.\n\n{text}")
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// As [`write`], for the owner's eyes only.
fn write_secret(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    let mut options = fs::OpenOptions::new();
    let written = options.create(true).write(true).truncate(true).mode(0o600).open(&path);
    written
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
