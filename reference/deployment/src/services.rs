//! Starts what a host is for, on any network.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use fusion_cluster::auth::{Verifier, Verify};
use fusion_cluster::{Cluster, ClusterConfig};
use fusion_provider::{Provider, ProviderConfig};
use fusion_relay::{Relay, RelayConfig};
use fusion_runtime::http::{Serving, serve};
use fusion_runtime::{Host, Net, Store};

use crate::federation::{Federation, HostSpec, Role};

/// What a faulty deployment does differently. The default changes nothing.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Wraps what a role serves.
    pub wrap_router: Option<Arc<WrapRouter>>,
    /// Wraps where a role keeps its rows.
    pub wrap_store: Option<Arc<WrapStore>>,
    /// Wraps the network that a role sees.
    pub wrap_net: Option<Arc<WrapNet>>,
    /// Judges the tokens of clusters instead of the right judge.
    pub verifier: Option<Arc<dyn Verify>>,
    /// Tells a cluster something else about itself.
    pub configure: Option<Arc<Configure>>,
}

/// Makes another router of a role's router. The host is the one the role runs on.
pub type WrapRouter = dyn Fn(&Role, &Host, Router) -> Router + Send + Sync;
/// Makes another store of a role's store.
pub type WrapStore = dyn Fn(&Role, Arc<dyn Store>) -> Arc<dyn Store> + Send + Sync;
/// Makes another network of a role's network.
pub type WrapNet = dyn Fn(&Role, Arc<dyn Net>) -> Arc<dyn Net> + Send + Sync;

/// Makes another configuration of a cluster's configuration.
pub type Configure = dyn Fn(ClusterConfig) -> ClusterConfig + Send + Sync;

/// A started host. Dropping it leaves everything running.
pub struct Running {
    /// Its HTTPS server.
    pub serving: Serving,
    /// What it serves.
    pub service: Service,
}

/// What runs on a host, for whoever looks into it.
#[derive(Clone)]
pub enum Service {
    /// The provider plane.
    Provider(Provider),
    /// All services of a cluster.
    Cluster(Cluster),
    /// A media relay.
    Relay(Relay),
}

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its address cannot be listened on.
    #[error("cannot listen on {at}: {error}")]
    Listen {
        /// The address.
        at: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The services did not start.
    #[error(transparent)]
    Cluster(#[from] fusion_cluster::StartError),
    /// The provider did not start.
    #[error(transparent)]
    Provider(#[from] fusion_provider::StartError),
    /// The relay did not start.
    #[error(transparent)]
    Relay(#[from] fusion_relay::StartError),
    /// The federation has no such host.
    #[error("the federation has no host {0:?}")]
    Unknown(String),
}

/// Starts what `spec` is for on `host`, and serves it at the host's address. A host that has crashed is
/// started again by the same call on its next incarnation, with the store that it had.
///
/// # Errors
/// When the address is taken or the store cannot be read.
pub async fn start_host(
    host: &Host,
    spec: &HostSpec,
    federation: &Federation,
    hooks: &Hooks,
) -> Result<Running, StartError> {
    let unknown = || StartError::Unknown(spec.name.clone());
    let at = federation.listen(spec);
    match &spec.role {
        Role::Cluster(name) => {
            let config = federation.cluster_config(name).ok_or_else(unknown)?;
            start_cluster(host, at, config, hooks).await
        }
        Role::Relay { .. } => {
            let config = federation.relay_config(spec).ok_or_else(unknown)?;
            start_relay(host, spec.role.clone(), config, hooks).await
        }
        Role::Provider => start_provider(host, at, federation.provider_config(), hooks).await,
    }
}

/// Starts the services of a cluster and serves them at `at`.
///
/// # Errors
/// As [`start_host`].
pub async fn start_cluster(
    host: &Host,
    at: SocketAddr,
    config: ClusterConfig,
    hooks: &Hooks,
) -> Result<Running, StartError> {
    let role = Role::Cluster(config.name.clone());
    let host = hooks.host(&role, host);
    let verifier = hooks.verifier.clone().unwrap_or_else(|| Arc::new(Verifier));
    let config = match &hooks.configure {
        Some(configure) => configure(config),
        None => config,
    };
    let cluster = Cluster::start_with(host.clone(), config, verifier).await?;
    let router = fusion_cluster::router::router(&cluster);
    let serving = hooks.serve(&role, &host, at, router).await?;
    Ok(Running { serving, service: Service::Cluster(cluster) })
}

/// Starts the provider plane and serves it at `at`.
///
/// # Errors
/// As [`start_host`].
pub async fn start_provider(
    host: &Host,
    at: SocketAddr,
    config: ProviderConfig,
    hooks: &Hooks,
) -> Result<Running, StartError> {
    let host = hooks.host(&Role::Provider, host);
    let provider = Provider::start(host.clone(), config).await?;
    let serving = hooks.serve(&Role::Provider, &host, at, provider.router()).await?;
    Ok(Running { serving, service: Service::Provider(provider) })
}

/// Starts a relay and serves its control interface.
///
/// # Errors
/// As [`start_host`].
pub async fn start_relay(
    host: &Host,
    role: Role,
    config: RelayConfig,
    hooks: &Hooks,
) -> Result<Running, StartError> {
    let (host, at) = (hooks.host(&role, host), config.control);
    let relay = Relay::start_without_control(host.clone(), config).await?;
    let serving = hooks.serve(&role, &host, at, relay.router()).await?;
    Ok(Running { serving, service: Service::Relay(relay) })
}

impl Running {
    /// Begins a graceful end: nothing more is accepted, what is under way is finished, devices are sent
    /// elsewhere (OPS-004). [`Running::drained`] waits for its end.
    pub fn stop(&self) {
        self.serving.stop();
        match &self.service {
            Service::Provider(provider) => provider.drain_polls(),
            Service::Cluster(cluster) => cluster.drain_sockets(),
            Service::Relay(_) => {}
        }
    }

    /// Waits until it can serve everybody: a cluster knows nobody before it has seen the domain map.
    pub async fn ready(&self) {
        if let Service::Cluster(cluster) = &self.service {
            cluster.ready().await;
        }
    }

    /// Waits until no connection is left.
    pub async fn drained(&self) {
        self.serving.drained().await;
    }
}

impl Hooks {
    fn host(&self, role: &Role, host: &Host) -> Host {
        let mut host = host.clone();
        if let Some(wrap) = &self.wrap_store {
            host.store = wrap(role, host.store.clone());
        }
        if let Some(wrap) = &self.wrap_net {
            host.net = wrap(role, host.net.clone());
        }
        host
    }

    async fn serve(
        &self,
        role: &Role,
        host: &Host,
        at: SocketAddr,
        router: Router,
    ) -> Result<Serving, StartError> {
        let router = match &self.wrap_router {
            Some(wrap) => wrap(role, host, router),
            None => router,
        };
        serve(host, at, router).await.map_err(|error| StartError::Listen { at, error })
    }
}
