//! The target file: what `example.toml` beside this file explains, key by key.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use fusion_protocol::{Address, ClusterName, Domain, Service, UrlTemplate};
use fusion_settings::Mistake;
use serde::Deserialize;

use super::{Evidence, IdentityProvider, Limits, Org, OrgRole, ReadyUser, Target, TargetCluster, Writes};
use crate::jws::SigningKey;

/// A target file with every key explained.
pub const EXAMPLE: &str = include_str!("example.toml");

/// The provider's own hosts that clients speak to.
const PROVIDER_HOSTS: [&str; 1] = ["clustermap"];

impl Target {
    /// Reads a target file.
    ///
    /// # Errors
    /// A [`Mistake`] that names file, line, what was expected and what to write instead.
    pub fn read(file: &Path) -> Result<Self, Mistake> {
        Self::parse(file, &fusion_settings::text(file)?)
    }

    /// Parses the text of a target file; other files that it names are seen from `file`.
    ///
    /// # Errors
    /// As [`Target::read`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, Mistake> {
        let raw: RawTarget = fusion_settings::parse(file, text)?;
        Reader { file, text }.target(raw)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTarget {
    name: Option<String>,
    provider: String,
    template: String,
    ca: Option<PathBuf>,
    #[serde(default)]
    resolve: BTreeMap<String, Vec<IpAddr>>,
    #[serde(default)]
    cluster: Vec<RawCluster>,
    #[serde(default)]
    org: BTreeMap<String, RawOrg>,
    #[serde(default)]
    user: Vec<RawUser>,
    #[serde(default)]
    evidence: RawEvidence,
    #[serde(default)]
    limits: RawLimits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCluster {
    name: String,
    org: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOrg {
    #[serde(default)]
    role: RawRole,
    domains: Vec<String>,
    issuer: Option<String>,
    key: Option<PathBuf>,
    key_seed: Option<String>,
    admin: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawRole {
    #[default]
    Private,
    Consumer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUser {
    address: String,
    cluster: String,
    assertion: Option<String>,
    assertion_file: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEvidence {
    #[serde(default)]
    stores: Vec<PathBuf>,
    #[serde(default)]
    logs: Vec<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    #[serde(default)]
    max_requests_per_second: u32,
    #[serde(default)]
    read_only: bool,
}

/// The file being read, for whoever has to say where a mistake stands.
struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn target(&self, raw: RawTarget) -> Result<Target, Mistake> {
        let provider: Domain = raw.provider.parse().map_err(|error| self.wrong(&raw.provider, error))?;
        let template =
            UrlTemplate::parse(&raw.template, provider).map_err(|error| self.wrong(&raw.template, error))?;
        let stem = self.file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let name = raw.name.unwrap_or_else(|| stem.unwrap_or_default());
        let mut target = Target::new(name, template);
        for (name, org) in raw.org {
            target.orgs.insert(name.clone(), self.org(&name, org)?);
        }
        for cluster in raw.cluster {
            let cluster = self.cluster(cluster, &target)?;
            target.clusters.push(cluster);
        }
        if target.clusters.is_empty() {
            return Err(Mistake::new(self.file, "the target has no [[cluster]]: there is nothing to check"));
        }
        for user in raw.user {
            let user = self.user(user, &target)?;
            target.users.push(user);
        }
        target.resolve = self.resolve(raw.resolve, &target)?;
        target.ca = raw.ca.map(|ca| self.existing(&ca)).transpose()?;
        target.evidence = Evidence {
            stores: raw.evidence.stores.iter().map(|path| self.existing(path)).collect::<Result<_, _>>()?,
            logs: raw.evidence.logs.iter().map(|path| self.existing(path)).collect::<Result<_, _>>()?,
            seen: Vec::new(),
        };
        target.limits = Limits {
            max_requests_per_second: raw.limits.max_requests_per_second,
            writes: if raw.limits.read_only { Writes::ReadOnly } else { Writes::Allowed },
        };
        Ok(target)
    }

    fn org(&self, name: &str, raw: RawOrg) -> Result<Org, Mistake> {
        let role = match raw.role {
            RawRole::Private => OrgRole::Private,
            RawRole::Consumer => OrgRole::Consumer,
        };
        let domain = |text: &String| text.parse::<Domain>().map_err(|error| self.wrong(text, error));
        let domains = raw.domains.iter().map(domain).collect::<Result<Vec<_>, _>>()?;
        let key = match (&raw.key, &raw.key_seed) {
            (Some(_), Some(_)) => {
                let both = format!("org {name} has both key and key_seed");
                return Err(self.at(both, &format!("[org.{name}]")).suggest("keep one of them"));
            }
            (Some(path), None) => {
                let path = self.existing(path)?;
                let pem = fusion_settings::text(&path)?;
                Some(
                    SigningKey::from_pkcs8_pem(&pem)
                        .map_err(|error| Mistake::new(&path, error.to_string()))?,
                )
            }
            (None, Some(seed)) => {
                // A mistake quotes its line, so it points at the table: the line holds a secret.
                let key = SigningKey::from_seed_text(seed);
                let wrong = |error| format!("key_seed of org {name}: {error}");
                Some(key.map_err(|error| self.at(wrong(error), &format!("[org.{name}]")))?)
            }
            (None, None) => None,
        };
        let identity = match (key, raw.issuer) {
            (Some(key), Some(issuer)) => {
                Some(IdentityProvider { issuer, key, admin: raw.admin.unwrap_or_else(|| "admin".to_owned()) })
            }
            (Some(_), None) => {
                let table = format!("[org.{name}]");
                let what = format!("org {name} has a key and no issuer");
                return Err(self
                    .at(what, &table)
                    .suggest("add issuer = \"...\", the `iss` of its assertions"));
            }
            (None, _) => None,
        };
        Ok(Org { role, domains, identity })
    }

    fn cluster(&self, raw: RawCluster, target: &Target) -> Result<TargetCluster, Mistake> {
        let name: ClusterName = raw.name.parse().map_err(|error| self.wrong(&raw.name, error))?;
        if target.clusters.iter().any(|known| known.name == name) {
            return Err(self.at(format!("cluster {name} is there twice"), &format!("\"{name}\"")));
        }
        if !target.orgs.contains_key(&raw.org) {
            let what = format!("cluster {name} is of org \"{}\", which has no [org.{}]", raw.org, raw.org);
            let known = target.orgs.keys().map(String::as_str);
            return Err(self.at(what, &format!("\"{}\"", raw.org)).suggest_one_of(&raw.org, known));
        }
        Ok(TargetCluster { name, org: raw.org })
    }

    fn user(&self, raw: RawUser, target: &Target) -> Result<ReadyUser, Mistake> {
        let address: Address = raw.address.parse().map_err(|error| self.wrong(&raw.address, error))?;
        let cluster = target.clusters.iter().find(|known| known.name.as_str() == raw.cluster);
        let Some(cluster) = cluster else {
            let known = target.clusters.iter().map(|cluster| cluster.name.as_str());
            let what = format!("a user is of cluster \"{}\", which is no [[cluster]]", raw.cluster);
            return Err(self.at(what, &format!("\"{}\"", raw.cluster)).suggest_one_of(&raw.cluster, known));
        };
        let assertion = match (raw.assertion, raw.assertion_file) {
            (Some(assertion), None) => assertion,
            (None, Some(path)) => fusion_settings::text(&self.existing(&path)?)?.trim().to_owned(),
            _ => {
                let what = "a user has exactly one of assertion and assertion_file";
                return Err(self.at(what, &format!("\"{}\"", raw.address)));
            }
        };
        Ok(ReadyUser { address, cluster: cluster.name.clone(), assertion })
    }

    /// `*` stands for every service of the template, or for every host of the provider.
    fn resolve(
        &self,
        raw: BTreeMap<String, Vec<IpAddr>>,
        target: &Target,
    ) -> Result<BTreeMap<String, Vec<IpAddr>>, Mistake> {
        let known = known_hosts(target);
        let mut table = BTreeMap::new();
        for (pattern, addresses) in raw {
            if addresses.is_empty() {
                return Err(self.at(format!("{pattern} has no address"), &pattern));
            }
            let matched: Vec<_> = known.iter().filter(|host| matches_pattern(&pattern, host)).collect();
            if matched.is_empty() && pattern.contains('*') {
                let what = format!("{pattern} matches no host of this federation");
                return Err(self
                    .at(what, &pattern)
                    .suggest_one_of(&pattern, known.iter().map(String::as_str)));
            }
            if matched.is_empty() {
                // A name that clients are told only later, such as a second relay's.
                table.insert(pattern, addresses);
                continue;
            }
            for host in matched {
                table.insert(host.clone(), addresses.clone());
            }
        }
        Ok(table)
    }

    /// A path seen from the target file, which must lead to something.
    fn existing(&self, path: &Path) -> Result<PathBuf, Mistake> {
        let seen_from_here = self.file.parent().unwrap_or(Path::new("")).join(path);
        if seen_from_here.exists() {
            return Ok(seen_from_here);
        }
        let what = format!("there is no file {}", seen_from_here.display());
        Err(self.at(what, &path.to_string_lossy()).suggest("paths are seen from the target file"))
    }

    fn wrong(&self, written: &str, error: impl std::fmt::Display) -> Mistake {
        self.at(format!("\"{written}\": {error}"), &format!("\"{written}\""))
    }

    fn at(&self, what: impl Into<String>, needle: &str) -> Mistake {
        Mistake::new(self.file, what).at_text(self.text, needle)
    }
}

fn known_hosts(target: &Target) -> Vec<String> {
    let template = &target.template;
    let services = target
        .clusters
        .iter()
        .flat_map(|cluster| Service::ALL.into_iter().map(|service| template.host(&cluster.name, service)));
    let provider = PROVIDER_HOSTS.iter().map(|host| format!("{host}.{}", template.provider()));
    let mut hosts: Vec<String> = services.chain(provider).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// Whether `host` is `pattern`, in which one `*` stands for any part of one label.
fn matches_pattern(pattern: &str, host: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == host,
        Some((before, after)) => host
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|middle| !middle.is_empty() && !middle.contains('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
provider = "provider.example"
template = "https://{cluster}-{service}.{provider}:8443"

[resolve]
"a-*.provider.example" = ["127.0.1.2"]
"clustermap.provider.example" = ["127.0.1.1"]

[[cluster]]
name = "a"
org = "acme"

[org.acme]
domains = ["acme.example"]
issuer = "https://idp.acme.example"
key_seed = "0707070707070707070707070707070707070707070707070707070707070707"
"#;

    fn mistake(text: &str) -> String {
        Target::parse(Path::new("target.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn a_small_file_says_everything_that_is_needed() {
        let target = Target::parse(Path::new("nice.toml"), SMALL).unwrap();
        assert_eq!(target.name, "nice");
        assert_eq!(target.template.port(), 8443);
        assert_eq!(target.private_clusters().count(), 1);
        assert_eq!(target.consumer_clusters().count(), 0);
        assert_eq!(target.resolve.len(), 9);
        assert_eq!(target.resolve["a-conv.provider.example"], ["127.0.1.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(target.clusters_of_domain(&"acme.example".parse().unwrap()), ["a".parse().unwrap()]);
        assert_eq!(target.orgs["acme"].identity.as_ref().unwrap().admin, "admin");
    }

    #[test]
    fn the_documented_example_is_a_target_file() {
        let folder = tempfile::tempdir().unwrap();
        // An Ed25519 key in PKCS#8 is this header and its seed.
        let header = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let der: Vec<u8> = header.into_iter().chain([9; 32]).collect();
        let base64 = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, der);
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n");
        std::fs::create_dir(folder.path().join("provider")).unwrap();
        for (name, content) in [
            ("target.toml", EXAMPLE),
            ("ca.pem", ""),
            ("acme-idp.pem", &pem),
            ("probe-1.jwt", "e30.e30.\n"),
            ("provider/store.redb", ""),
            ("provider/log.jsonl", ""),
        ] {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let target = Target::read(&folder.path().join("target.toml")).unwrap();
        assert_eq!(target.name, "acme, production");
        assert_eq!(target.consumer_clusters().count(), 1);
        assert_eq!(target.users[0].assertion, "e30.e30.");
        assert_eq!(target.limits.max_requests_per_second, 50);
        assert!(target.evidence.stores[0].ends_with("provider/store.redb"));
    }

    #[test]
    fn mistakes_say_where_they_stand_and_what_to_write_instead() {
        insta::assert_snapshot!(mistake(&SMALL.replace("provider =", "provder =")));
        insta::assert_snapshot!(mistake(&SMALL.replace("org = \"acme\"", "org = \"acne\"")));
        insta::assert_snapshot!(mistake(&SMALL.replace("{cluster}-{service}", "{cluster}_{service}")));
        insta::assert_snapshot!(mistake(&SMALL.replace("127.0.1.2", "127.0.1")));
        insta::assert_snapshot!(mistake(&SMALL.replace("a-*.prov", "b-*.prov")));
        insta::assert_snapshot!(mistake(&format!("ca = \"nowhere.pem\"\n{SMALL}")));
        insta::assert_snapshot!(mistake(&SMALL.replace("name = \"a\"", "name = \"A-1\"")));
        insta::assert_snapshot!(mistake(&SMALL.replace("issuer =", "admin =")));
    }

    #[test]
    fn a_wrong_seed_is_not_quoted() {
        let said = mistake(&SMALL.replace("\"0707", "\"zz07"));
        assert!(said.contains("key_seed of org acme: not an Ed25519 private key"), "{said}");
        assert!(!said.contains("zz07"), "{said}");
    }

    #[test]
    fn a_target_without_clusters_checks_nothing() {
        let said = mistake(
            "provider = \"provider.example\"\ntemplate = \"https://{cluster}.{provider}/{service}\"\n",
        );
        assert!(said.contains("nothing to check"), "{said}");
    }
}
