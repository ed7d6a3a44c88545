//! What all services of a cluster share.

use std::ops::Deref;
use std::sync::Arc;

use fusion_protocol::{ClusterName, Service, Url};
use fusion_runtime::{Host, http};

use crate::auth::{SigningKey, Verifier, Verify};
use crate::locks::Locks;
use crate::{ClusterConfig, auth, index, locus, mercury, moves, outbox, provisioning, users};

/// A running cluster, as its services see it. Cheap to clone.
#[derive(Clone)]
pub struct Cluster(Arc<Shared>);

/// What a [`Cluster`] holds.
pub struct Shared {
    /// The machine it runs on.
    pub host: Host,
    /// Its configuration.
    pub config: ClusterConfig,
    /// Its issuer URL: each token has it.
    issuer: String,
    /// Its way to others.
    pub http: http::Client,
    /// The key that signs its tokens and its calls.
    pub signing: SigningKey,
    /// Who decides which tokens hold.
    pub verifier: Arc<dyn Verify>,
    /// Serialises work on one object inside this instance; the store's preconditions decide between
    /// instances.
    pub(crate) locks: Locks,
    pub(crate) auth: auth::Memory,
    pub(crate) map: users::Replica,
    pub(crate) found: users::Remembered,
    pub(crate) quota: users::Quota,
    pub(crate) sockets: mercury::Sockets,
    pub(crate) outbox: outbox::Outbox,
    pub(crate) leases: locus::Leases,
    pub(crate) relays: locus::Relays,
    pub(crate) repair: index::Repair,
}

/// Why a cluster did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store could not be read or written.
    #[error("the cluster's store failed at the start: {0}")]
    Store(#[from] fusion_runtime::store::StoreError),
    /// A row of the store could not be understood.
    #[error("the cluster's store holds a row that this version cannot read: {0}")]
    Row(String),
}

impl Cluster {
    /// Starts a cluster on `host`: reads or makes its key, then starts its background tasks.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn start(host: Host, config: ClusterConfig) -> Result<Self, StartError> {
        Self::start_with(host, config, Arc::new(Verifier)).await
    }

    /// As [`Cluster::start`], with another judge of tokens: how a faulty deployment is made.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn start_with(
        host: Host,
        config: ClusterConfig,
        verifier: Arc<dyn Verify>,
    ) -> Result<Self, StartError> {
        let signing = SigningKey::load_or_make(&host).await?;
        let map = users::Replica::load(&host).await?;
        let http = http::Client::new(&host);
        let cluster = Self(Arc::new(Shared {
            auth: auth::Memory::new(&host, &http, &config, &signing),
            repair: index::Repair::new(&host.clock),
            issuer: fusion_protocol::auth::issuer(&config.template, &config.name),
            http,
            host,
            config,
            signing,
            verifier,
            locks: Locks::default(),
            map,
            found: users::Remembered::default(),
            quota: users::Quota::default(),
            sockets: mercury::Sockets::default(),
            outbox: outbox::Outbox::default(),
            leases: locus::Leases::default(),
            relays: locus::Relays::default(),
        }));
        users::start(&cluster);
        provisioning::start(&cluster).await?;
        moves::start(&cluster).await?;
        outbox::start(&cluster).await?;
        index::start(&cluster);
        locus::start(&cluster).await?;
        Ok(cluster)
    }

    /// Whether it can serve everybody: it has seen the domain map, now or before a restart. Before that
    /// it can resolve nobody, and its own users only can log in.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.map.is_known()
    }

    /// Waits until it is ready.
    pub async fn ready(&self) {
        self.map.known().await;
    }

    /// Says goodbye to every device's socket, for good: the devices connect to another instance (OPS-004).
    pub fn drain_sockets(&self) {
        self.sockets.drain();
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ClusterName {
        &self.config.name
    }

    /// The URL of `path` (starting with `/`, encoded) at one of its own services.
    #[must_use]
    pub fn url(&self, service: Service, path: &str) -> Url {
        self.config.template.url(&self.config.name, service, path)
    }

    /// Its issuer URL, which is also the audience of tokens that are good for it.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
}

impl Deref for Cluster {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
