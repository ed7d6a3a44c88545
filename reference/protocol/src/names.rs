//! Clusters, services and their URLs (NAM-001, NAM-002, NAM-003, NAM-005).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::Domain;

/// The longest cluster name.
pub const CLUSTER_NAME_MAX: usize = 20;

/// Names of the provider's own hosts, which no cluster may take.
const RESERVED: [&str; 4] = ["clustermap", "portal", "probe", "www"];

/// A cluster's name: one DNS label `[a-z][a-z0-9]*` of at most 20 characters (NAM-002).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(Arc<str>);

/// A service of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// The authorisation server.
    Auth,
    /// Conversations, loci and indexes.
    Conv,
    /// The lists of active loci.
    Locus,
    /// Allots media legs.
    Media,
    /// Devices and notifications.
    Mercury,
    /// SCIM.
    Provisioning,
    /// A media relay's control interface.
    Relay,
    /// The user map and the resolver.
    Users,
}

/// How the URL of a service is made (NAM-001).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTemplate {
    shape: Shape,
    provider: Domain,
    port: Option<u16>,
}

/// Where a URL points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The cluster that its host names.
    pub cluster: ClusterName,
    /// The service.
    pub service: Service,
    /// The path below the service, starting with `/`.
    pub path: String,
}

/// Why a name, a template or a URL is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a cluster name.
    #[error(
        "a cluster name is one DNS label [a-z][a-z0-9]* of at most {CLUSTER_NAME_MAX} characters, and not one of the provider's own names"
    )]
    Cluster,
    /// Not a service.
    #[error(
        "there is no service {0:?}; the services are auth, conv, locus, media, mercury, provisioning, relay and users"
    )]
    Service(String),
    /// Not a template.
    #[error(
        "a URL template is https://{{cluster}}-{{service}}.{{provider}}, https://{{service}}-{{cluster}}.{{provider}} or https://{{cluster}}.{{provider}}/{{service}}, with an optional :port"
    )]
    Template,
    /// The URL does not fit the template (NAM-005).
    #[error("the URL is not one of this federation")]
    Foreign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    ClusterService,
    ServiceCluster,
    Path,
}

impl ClusterName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 8] = [
        Self::Auth,
        Self::Conv,
        Self::Locus,
        Self::Media,
        Self::Mercury,
        Self::Provisioning,
        Self::Relay,
        Self::Users,
    ];

    /// Its name in URLs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Conv => "conv",
            Self::Locus => "locus",
            Self::Media => "media",
            Self::Mercury => "mercury",
            Self::Provisioning => "provisioning",
            Self::Relay => "relay",
            Self::Users => "users",
        }
    }
}

impl UrlTemplate {
    /// Parses a template such as `https://{cluster}-{service}.{provider}:8443` for a provider's domain.
    ///
    /// # Errors
    /// [`NameError::Template`] when it is none of the three shapes.
    pub fn parse(template: &str, provider: Domain) -> Result<Self, NameError> {
        let rest = template.strip_prefix("https://").ok_or(NameError::Template)?;
        let shapes = [
            ("{cluster}-{service}.{provider}", "", Shape::ClusterService),
            ("{service}-{cluster}.{provider}", "", Shape::ServiceCluster),
            ("{cluster}.{provider}", "/{service}", Shape::Path),
        ];
        for (host, path, shape) in shapes {
            let Some(rest) = rest.strip_prefix(host).and_then(|rest| rest.strip_suffix(path)) else {
                continue;
            };
            let port = match rest.strip_prefix(':') {
                None if rest.is_empty() => None,
                Some(port) => Some(port.parse().map_err(|_| NameError::Template)?),
                None => return Err(NameError::Template),
            };
            return Ok(Self { shape, provider, port });
        }
        Err(NameError::Template)
    }

    /// The provider's domain.
    #[must_use]
    pub fn provider(&self) -> &Domain {
        &self.provider
    }

    /// The port of every URL.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(443)
    }

    /// The host that serves `service` of `cluster`.
    #[must_use]
    pub fn host(&self, cluster: &ClusterName, service: Service) -> String {
        let (cluster, service, provider) = (cluster.as_str(), service.as_str(), &self.provider);
        match self.shape {
            Shape::ClusterService => format!("{cluster}-{service}.{provider}"),
            Shape::ServiceCluster => format!("{service}-{cluster}.{provider}"),
            Shape::Path => format!("{cluster}.{provider}"),
        }
    }

    /// The path before a service's own paths: empty, or `/{service}`.
    #[must_use]
    pub fn path_prefix(&self, service: Service) -> String {
        match self.shape {
            Shape::ClusterService | Shape::ServiceCluster => String::new(),
            Shape::Path => format!("/{}", service.as_str()),
        }
    }

    /// The URL of `path` (starting with `/`, already percent-encoded) at a service.
    #[must_use]
    pub fn url(&self, cluster: &ClusterName, service: Service, path: &str) -> Url {
        self.absolute(&self.host(cluster, service), &format!("{}{path}", self.path_prefix(service)))
    }

    /// The URL of `path` at one of the provider's own hosts, for example `clustermap`.
    #[must_use]
    pub fn provider_url(&self, host: &str, path: &str) -> Url {
        self.absolute(&format!("{host}.{}", self.provider), path)
    }

    /// NAM-005: where `url` points, matched on label boundaries.
    ///
    /// # Errors
    /// [`NameError::Foreign`] for another scheme, port, domain or shape, for user information and for
    /// hosts that are addresses.
    pub fn locate(&self, url: &Url) -> Result<Located, NameError> {
        let plain = url.scheme() == "https" && url.username().is_empty() && url.password().is_none();
        let Some(Host::Domain(host)) = url.host() else { return Err(NameError::Foreign) };
        if !plain || url.port_or_known_default() != Some(self.port()) {
            return Err(NameError::Foreign);
        }
        let label = host.strip_suffix(self.provider.as_str()).and_then(|rest| rest.strip_suffix('.'));
        let label = label.filter(|label| !label.contains('.')).ok_or(NameError::Foreign)?;
        let (cluster, service, path) = match self.shape {
            Shape::ClusterService => split_label(label, '-').map(|(c, s)| (c, s, url.path()))?,
            Shape::ServiceCluster => split_label(label, '-').map(|(s, c)| (c, s, url.path()))?,
            Shape::Path => {
                let rest = url.path().strip_prefix('/').unwrap_or_default();
                let end = rest.find('/').unwrap_or(rest.len());
                (label, &rest[..end], if end == rest.len() { "/" } else { &rest[end..] })
            }
        };
        let cluster = cluster.parse().map_err(|_| NameError::Foreign)?;
        let service = service.parse().map_err(|_| NameError::Foreign)?;
        Ok(Located { cluster, service, path: path.to_owned() })
    }

    fn absolute(&self, host: &str, path: &str) -> Url {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        Url::parse(&format!("https://{host}{port}{path}"))
            .expect("a template's host and an encoded path make a URL")
    }
}

impl FromStr for ClusterName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let starts = text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
        let all = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !starts || !all || text.len() > CLUSTER_NAME_MAX || RESERVED.contains(&text) {
            return Err(NameError::Cluster);
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for Service {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let found = Self::ALL.into_iter().find(|service| service.as_str() == text);
        found.ok_or_else(|| NameError::Service(text.chars().take(40).collect()))
    }
}

impl TryFrom<String> for ClusterName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0.to_string()
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for UrlTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        match self.shape {
            Shape::ClusterService => write!(f, "https://{{cluster}}-{{service}}.{{provider}}{port}"),
            Shape::ServiceCluster => write!(f, "https://{{service}}-{{cluster}}.{{provider}}{port}"),
            Shape::Path => write!(f, "https://{{cluster}}.{{provider}}{port}/{{service}}"),
        }
    }
}

/// Names have no dash, so the first dash is the only one.
fn split_label(label: &str, at: char) -> Result<(&str, &str), NameError> {
    label.split_once(at).ok_or(NameError::Foreign)
}
