//! What a process is told: one TOML file for each, documented in `examples/`.
//!
//! A mistake is answered with file, line, what was expected and a suggestion. Not here: what is made of
//! it (`serve`), and writing the files of a whole federation (`init`).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use fusion_cluster::{BorrowedRelay, ClusterConfig, IdentityProvider, Lender, OrgRole, PairRule};
use fusion_deployment::Role;
use fusion_protocol::map::Claim;
use fusion_protocol::{ClusterName, Domain, Url, UrlTemplate};
use fusion_provider::{OrgAccount, ProviderConfig};
use fusion_relay::RelayConfig;
use fusion_runtime::net::live::LiveConfig;
use fusion_runtime::net::{IpRange, ResolveTable};
use fusion_runtime::tls::Identity;
use fusion_settings::Mistake;
use serde::{Deserialize, Serialize};

use crate::log::{Format, LogLevel};

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleName {
    /// Everything that the file lists, in one process
    All,
    /// The provider plane
    Provider,
    /// All services of one cluster
    Cluster,
    /// One media relay
    Relay,
}

/// The file of one process.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) listen: Listen,
    pub(crate) federation: FederationSection,
    #[serde(default)]
    pub(crate) network: Network,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<StoreSection>,
    #[serde(default)]
    pub(crate) log: LogSection,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) provider: Option<ProviderSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<ClusterSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) relay: Option<RelaySection>,
}

/// The file of a process that is everything: the files of its parts.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AllConfig {
    pub(crate) processes: Vec<PathBuf>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listen {
    pub(crate) address: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FederationSection {
    pub(crate) provider: Domain,
    pub(crate) template: String,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Network {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trust: Option<PathBuf>,
    #[serde(default)]
    pub(crate) allow: Vec<String>,
    #[serde(default)]
    pub(crate) insecure_loopback: bool,
    #[serde(default)]
    pub(crate) resolve: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreSection {
    pub(crate) file: PathBuf,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogSection {
    #[serde(default)]
    pub(crate) format: Format,
    #[serde(default)]
    pub(crate) level: LogLevel,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderSection {
    pub(crate) consumer_clusters: Vec<ClusterName>,
    #[serde(default = "default_ttl")]
    pub(crate) ttl_seconds: u32,
    #[serde(default)]
    pub(crate) org: Vec<OrgSection>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrgSection {
    pub(crate) name: String,
    pub(crate) clusters: Vec<ClusterName>,
    #[serde(default)]
    pub(crate) domains: Vec<Domain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admin_secret: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterSection {
    pub(crate) org: String,
    pub(crate) role: OrgRole,
    #[serde(default)]
    pub(crate) relays: Vec<Url>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) borrowed_relay: Vec<BorrowedRelaySection>,
    #[serde(default)]
    pub(crate) identity_provider: Vec<IdentityProviderSection>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BorrowedRelaySection {
    pub(crate) url: Url,
    pub(crate) cluster: ClusterName,
    pub(crate) lender: Lender,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentityProviderSection {
    pub(crate) issuer: String,
    pub(crate) public_key: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RelaySection {
    pub(crate) cluster: ClusterName,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) guests: Vec<ClusterName>,
    #[serde(default = "first")]
    pub(crate) number: u8,
    pub(crate) udp: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advertised: Option<IpAddr>,
}

/// A process as its file says, checked.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) network: LiveConfig,
    pub(crate) log: LogSection,
    pub(crate) part: Part,
}

/// What the process serves.
#[derive(Debug)]
pub(crate) enum Part {
    Provider { config: ProviderConfig, store: PathBuf },
    Cluster { config: ClusterConfig, store: PathBuf },
    Relay { config: RelayConfig, role: Role },
}

/// Reads the file, or for `all` the files, of a process.
///
/// # Errors
/// A [`Mistake`] that says where and what.
pub(crate) fn read(file: &Path, role: RoleName) -> Result<Vec<Process>, Mistake> {
    if role != RoleName::All {
        return Ok(vec![read_one(file, role)?]);
    }
    let all: AllConfig = fusion_settings::read(file)?;
    if all.processes.is_empty() {
        return Err(Mistake::new(file, "`processes` lists no file: there is nothing to serve"));
    }
    all.processes.iter().map(|path| read_one(&seen_from(file, path), RoleName::All)).collect()
}

fn read_one(file: &Path, role: RoleName) -> Result<Process, Mistake> {
    let text = fusion_settings::text(file)?;
    let config = fusion_settings::parse(file, &text)?;
    Reader { file, text: &text }.process(config, role)
}

/// The file being read, for whoever has to say where a mistake stands.
struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn process(&self, config: Config, role: RoleName) -> Result<Process, Mistake> {
        let template = &config.federation.template;
        let template = UrlTemplate::parse(template, config.federation.provider.clone())
            .map_err(|error| self.wrong(template, error))?;
        let part = self.part(&config, role, template)?;
        let mut log = config.log;
        log.file = log.file.map(|file| seen_from(self.file, &file));
        Ok(Process {
            name: config.name,
            address: config.listen.address,
            network: self.network(&config.listen, config.network)?,
            log,
            part,
        })
    }

    fn part(&self, config: &Config, role: RoleName, template: UrlTemplate) -> Result<Part, Mistake> {
        let (part, found) = match (&config.provider, &config.cluster, &config.relay) {
            (Some(provider), None, None) => (self.provider(config, provider, template)?, RoleName::Provider),
            (None, Some(cluster), None) => (self.cluster(config, cluster, template)?, RoleName::Cluster),
            (None, None, Some(relay)) => (relay_part(config, relay, template), RoleName::Relay),
            _ => {
                let what = "a process has exactly one of [provider], [cluster] and [relay]";
                return Err(Mistake::new(self.file, what));
            }
        };
        if role != RoleName::All && role != found {
            let (found, asked) = (word(found), word(role));
            let what = format!("this is the file of a {found}, and --role says {asked}");
            return Err(self.at(what, &format!("[{found}]")).suggest(format!("write --role {found}")));
        }
        Ok(part)
    }

    fn provider(
        &self,
        config: &Config,
        section: &ProviderSection,
        template: UrlTemplate,
    ) -> Result<Part, Mistake> {
        let claims = section.org.iter().flat_map(|org| {
            let claim = |domain: &Domain| Claim {
                domain: domain.clone(),
                org: org.name.clone(),
                clusters: org.clusters.clone(),
            };
            org.domains.iter().map(claim)
        });
        let account = |org: &OrgSection| OrgAccount {
            org: org.name.clone(),
            clusters: org.clusters.iter().cloned().collect(),
            admin_secret: org.admin_secret.clone(),
        };
        let config_of_provider = ProviderConfig {
            template,
            consumer_clusters: section.consumer_clusters.clone(),
            orgs: section.org.iter().map(account).collect(),
            domains: claims.collect(),
            ttl_seconds: section.ttl_seconds,
        };
        Ok(Part::Provider { config: config_of_provider, store: self.store(config)? })
    }

    fn cluster(
        &self,
        config: &Config,
        section: &ClusterSection,
        template: UrlTemplate,
    ) -> Result<Part, Mistake> {
        let name: ClusterName = config.name.parse().map_err(|error| self.wrong(&config.name, error))?;
        let identity_providers: Result<Vec<_>, _> =
            section.identity_provider.iter().map(|section| self.identity_provider(section)).collect();
        let config_of_cluster = ClusterConfig {
            name,
            org: section.org.clone(),
            role: section.role,
            template,
            identity_providers: identity_providers?,
            // Nobody can configure another one.
            pair_rule: PairRule::default(),
            relays: section.relays.clone(),
            borrowed_relays: section.borrowed_relay.iter().map(borrowed).collect(),
        };
        Ok(Part::Cluster { config: config_of_cluster, store: self.store(config)? })
    }

    fn identity_provider(&self, section: &IdentityProviderSection) -> Result<IdentityProvider, Mistake> {
        let public_key = unhex(&section.public_key).ok_or_else(|| {
            let expected = "a public key is 64 hexadecimal digits: 32 octets of Ed25519 (RFC 8032)";
            self.wrong(&section.public_key, expected)
        })?;
        Ok(IdentityProvider { issuer: section.issuer.clone(), public_key })
    }

    fn store(&self, config: &Config) -> Result<PathBuf, Mistake> {
        let section = config.store.as_ref().ok_or_else(|| {
            Mistake::new(self.file, "a provider and a cluster keep rows: [store] is missing")
                .suggest("add [store] with file = \"data/NAME.redb\"")
        })?;
        Ok(seen_from(self.file, &section.file))
    }

    fn network(&self, listen: &Listen, section: Network) -> Result<LiveConfig, Mistake> {
        let mut resolve = ResolveTable::default();
        for (name, address) in &section.resolve {
            resolve.insert(name, address).map_err(|error| self.at(error.to_string(), name))?;
        }
        let allow: Result<Vec<IpRange>, _> = section
            .allow
            .iter()
            .map(|range| range.parse::<IpRange>().map_err(|error| self.at(error.to_string(), range)))
            .collect();
        let trust_pem = match &section.trust {
            Some(path) => fusion_settings::text(&self.existing(path)?)?,
            None => String::new(),
        };
        Ok(LiveConfig {
            identities: self.identity(listen)?.into_iter().collect(),
            trust_pem,
            resolve,
            allow: allow?,
            insecure_loopback: section.insecure_loopback,
        })
    }

    fn identity(&self, listen: &Listen) -> Result<Option<Identity>, Mistake> {
        match (&listen.certificate, &listen.key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                let (certificate, key) = (self.existing(certificate)?, self.existing(key)?);
                Identity::read(&certificate, &key)
                    .map(Some)
                    .map_err(|error| self.at(error.to_string(), "[listen]"))
            }
            _ => Err(self.at("[listen] has one of certificate and key: both or none", "[listen]")),
        }
    }

    /// A path seen from the file, which must lead to something.
    fn existing(&self, path: &Path) -> Result<PathBuf, Mistake> {
        let seen = seen_from(self.file, path);
        if seen.exists() {
            return Ok(seen);
        }
        let what = format!("there is no file {}", seen.display());
        Err(self.at(what, &path.to_string_lossy()).suggest("paths are seen from the configuration file"))
    }

    fn wrong(&self, written: &str, error: impl std::fmt::Display) -> Mistake {
        self.at(format!("\"{written}\": {error}"), &format!("\"{written}\""))
    }

    fn at(&self, what: impl Into<String>, needle: &str) -> Mistake {
        Mistake::new(self.file, what).at_text(self.text, needle)
    }
}

impl std::fmt::Debug for OrgSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OrgSection").field("name", &self.name).finish_non_exhaustive()
    }
}

fn borrowed(section: &BorrowedRelaySection) -> BorrowedRelay {
    BorrowedRelay { url: section.url.clone(), cluster: section.cluster.clone(), lender: section.lender }
}

fn relay_part(config: &Config, section: &RelaySection, template: UrlTemplate) -> Part {
    let role = Role::Relay { cluster: section.cluster.clone(), number: section.number };
    let config_of_relay = RelayConfig {
        name: config.name.clone(),
        cluster: section.cluster.clone(),
        guests: section.guests.clone(),
        template,
        control: config.listen.address,
        udp: section.udp,
        advertised: section.advertised.unwrap_or(section.udp.ip()),
    };
    Part::Relay { config: config_of_relay, role }
}

impl Part {
    /// What the ready line calls it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Provider { .. } => word(RoleName::Provider),
            Self::Cluster { .. } => word(RoleName::Cluster),
            Self::Relay { .. } => word(RoleName::Relay),
        }
    }
}

fn word(role: RoleName) -> &'static str {
    match role {
        RoleName::All => "all",
        RoleName::Provider => "provider",
        RoleName::Cluster => "cluster",
        RoleName::Relay => "relay",
    }
}

fn seen_from(file: &Path, path: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| Some(c.to_digit(16)? as u8)).collect();
    let octets: Vec<u8> =
        digits?.chunks(2).filter(|pair| pair.len() == 2).map(|pair| pair[0] * 16 + pair[1]).collect();
    if text.len() == 64 { octets.try_into().ok() } else { None }
}

fn default_ttl() -> u32 {
    fusion_provider::TTL_SECONDS
}

fn first() -> u8 {
    1
}
