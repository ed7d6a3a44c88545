//! The media relay: forwards RTP between the devices of one call, and to nobody else (MED).
//!
//! Two sides share one leg table (`fusion_machines::legs`): the control interface, through which the
//! relay's own cluster opens and closes legs, and one UDP socket, to which devices bind and send.
//!
//! A relay keeps nothing on disk: after a restart its legs are gone, which its clusters notice by its
//! `life`, and devices get them again by joining again (MED-004).
//!
//! MED-001 says that packets stop within a second of the participant's leaving, and a relay hears of that
//! from the call's home. While the two are cut off from each other it cannot hear it, and it goes on
//! forwarding: a relay that fell silent whenever it missed its home for a second would end the media of
//! every good call with each short cut and each crash of a home, which calls are to survive (OPS-003).
//!
//! Not here: which calls there are (the locus), and which relay carries which call.

mod control;
mod media;
mod stall;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use fusion_cluster::auth::Keyring;
use fusion_machines::legs::Legs;
use fusion_protocol::media::Counters;
use fusion_protocol::{ClusterName, UrlTemplate, Uuid, auth};
use fusion_runtime::net::Udp;
use fusion_runtime::probe::StateChange;
use fusion_runtime::{Host, http};
use serde_json::json;

use self::stall::Stall;

/// How many legs are open at once, and how many closed ones are remembered.
pub const LEGS_MAX: usize = 10_000;

/// What a relay is told about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayConfig {
    /// Its name in logs, for example `a-relay1`.
    pub name: String,
    /// The cluster it belongs to, which may open legs.
    pub cluster: ClusterName,
    /// Other clusters that may open legs, too: it is lent to them (MED-003).
    pub guests: Vec<ClusterName>,
    /// How URLs of services are made: where the cluster's keys are.
    pub template: UrlTemplate,
    /// Where the control interface listens.
    pub control: SocketAddr,
    /// Where devices' datagrams arrive; port 0 takes a free one.
    pub udp: SocketAddr,
    /// The address that devices are told to send to, with the port of the socket.
    pub advertised: IpAddr,
}

/// A running relay. Cheap to clone.
#[derive(Clone)]
pub struct Relay(Arc<Shared>);

/// What a [`Relay`] holds.
pub struct Shared {
    /// Its configuration.
    pub config: RelayConfig,
    host: Host,
    keyring: Keyring,
    life: Uuid,
    /// The issuer URL of its cluster: the audience of the calls that it takes.
    audience: String,
    udp: Arc<dyn Udp>,
    legs: Mutex<Legs>,
    stall: Stall,
}

/// Why a relay did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The UDP address cannot be had.
    #[error("the relay cannot receive datagrams at {at}: {error}")]
    Udp {
        /// The address.
        at: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The control address cannot be listened on.
    #[error("the relay's control interface cannot listen at {at}: {error}")]
    Control {
        /// The address.
        at: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

impl Relay {
    /// Starts a relay on `host`: its socket, its forwarding and its control interface.
    ///
    /// # Errors
    /// When one of the two addresses cannot be had.
    pub async fn start(host: Host, config: RelayConfig) -> Result<Self, StartError> {
        let control = config.control;
        let relay = Self::start_without_control(host, config).await?;
        let served = http::serve(&relay.host, control, relay.router()).await;
        served.map_err(|error| StartError::Control { at: control, error })?;
        Ok(relay)
    }

    /// As [`Relay::start`], with the control interface left to whoever serves [`Relay::router`].
    ///
    /// # Errors
    /// When the UDP address cannot be had.
    pub async fn start_without_control(host: Host, config: RelayConfig) -> Result<Self, StartError> {
        let bound = host.net.udp(config.udp).await;
        let udp = bound.map_err(|error| StartError::Udp { at: config.udp, error })?;
        let advertised = SocketAddr::new(config.advertised, udp.local_addr().port());
        let relay = Self(Arc::new(Shared {
            keyring: Keyring::new(&host, &http::Client::new(&host), &config.template),
            audience: auth::issuer(&config.template, &config.cluster),
            life: host.entropy.uuid(),
            legs: Mutex::new(Legs::new(advertised, LEGS_MAX)),
            stall: Stall::default(),
            config,
            host,
            udp,
        }));
        relay.host.tasks.spawn(media::forward(relay.clone()));
        relay.host.tasks.spawn(stall::watch(relay.clone()));
        Ok(relay)
    }

    /// The control interface: what the relay's own cluster asks.
    pub fn router(&self) -> Router {
        control::router(self)
    }

    /// What has become of every packet (MED-005).
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.legs().counters()
    }

    /// Where the socket is bound.
    #[must_use]
    pub fn udp_addr(&self) -> SocketAddr {
        self.udp.local_addr()
    }

    fn legs(&self) -> MutexGuard<'_, Legs> {
        // Nothing under the lock panics half-way through a change.
        self.legs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports a leg's new state with its account.
    fn report(&self, legs: &[Uuid], state: &str) {
        let probe = &self.host.probe;
        if !probe.watches_state() {
            return;
        }
        let accounts: Vec<_> = {
            let table = self.legs();
            legs.iter().filter_map(|leg| table.counters_of(*leg)).collect()
        };
        for account in accounts {
            let (subject, state) = (account.id.to_string(), state.to_owned());
            probe.state(StateChange { concept: "leg", subject, state, detail: json!(account) });
        }
    }
}

impl Deref for Relay {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
