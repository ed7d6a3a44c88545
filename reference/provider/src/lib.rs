//! The provider plane: the domain map and who may write to it (MAP-002, MAP-003, MAP-006).
//!
//! It knows domains, orgs and clusters, and nothing of anybody's users (PRI-001).
//!
//! Not here yet: the portal, proofs that an org controls a domain (MAP-011), placement of consumer users,
//! ops tools. An org's admin is known by a static secret of the configuration; whoever operates the
//! provider has checked the org's right to its domains before writing it there.

mod claims;
mod config;
mod feed;
mod http;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use fusion_cluster::auth::Keyring;
use fusion_runtime::http::Client;
use fusion_runtime::store::StoreError;
use fusion_runtime::{Host, Latch};

pub use config::{OrgAccount, ProviderConfig, TTL_SECONDS};

/// The name of the domain map's host, below the provider's domain.
pub const CLUSTERMAP: &str = fusion_cluster::peers::PROVIDER_HOST;

/// A running provider. Cheap to clone.
#[derive(Clone)]
pub struct Provider(Arc<Shared>);

struct Shared {
    host: Host,
    config: ProviderConfig,
    /// Who signed a cluster's call.
    keyring: Keyring,
    /// True once long polls are to be answered at once.
    draining: Latch,
}

/// Why a provider did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store could not be read or written.
    #[error("the provider's store failed at the start: {0}")]
    Store(#[from] StoreError),
    /// The configuration names a claim that cannot be.
    #[error("the domain {domain} of the configuration cannot be claimed by {org}: {reason}")]
    Claim {
        /// The domain.
        domain: String,
        /// The org.
        org: String,
        /// Why not.
        reason: String,
    },
}

impl Provider {
    /// Starts the provider on `host`: domains of the configuration that nobody has ever claimed are
    /// claimed for their orgs.
    ///
    /// # Errors
    /// When the store fails or the configuration claims what cannot be claimed.
    pub async fn start(host: Host, config: ProviderConfig) -> Result<Self, StartError> {
        let http = Client::new(&host);
        let keyring = Keyring::new(&host, &http, &config.template);
        let draining = Latch::new();
        let provider = Self(Arc::new(Shared { host, config, keyring, draining }));
        for claim in provider.0.config.domains.clone() {
            let (domain, org) = (claim.domain.to_string(), claim.org.clone());
            claims::claim_at_start(&provider.0, claim).await.map_err(|problem| StartError::Claim {
                domain,
                org,
                reason: problem.detail.unwrap_or(problem.title),
            })?;
        }
        Ok(provider)
    }

    /// Answers long polls at once, for good: a graceful end need not wait for them (OPS-004).
    pub fn drain_polls(&self) {
        self.0.draining.open();
    }

    /// Everything that the provider serves, behind one listener.
    pub fn router(&self) -> Router {
        http::router(&self.0)
    }
}
