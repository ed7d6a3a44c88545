//! Media gone wrong.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use fusion_cluster::{ClusterConfig, Lender};
use fusion_deployment::{Hooks, Role};
use fusion_protocol::media::{Datagram, binding_request, parse, rtp};
use fusion_runtime::Net;
use fusion_runtime::net::{Listener, Stream, Udp};
use http::Method;

use crate::Mutant;
use crate::wrap;

/// How many characters of a token a relay looks at.
const LOOKED_AT: usize = 32;
/// How far ahead the packets are that a relay makes up.
const FAR_ON: u16 = 20_000;
/// Which packets a relay swallows: those whose number this divides.
const SWALLOWED: u16 = 10;

/// MED-001: a relay looks at the beginning of a token only.
pub(crate) const HALF_A_TOKEN: Mutant =
    Mutant { name: "half-a-token-binds", hooks: || relays(Fault::HalfToken) };

/// MED-001: a relay binds and forwards nothing.
pub(crate) const NOTHING_FORWARDED: Mutant =
    Mutant { name: "relay-forwards-nothing", hooks: || relays(Fault::Silent) };

/// MED-001: a relay sends what it gets back to the sender, too.
pub(crate) const ECHO: Mutant = Mutant { name: "relay-echoes", hooks: || relays(Fault::Echo) };

/// MED-001: a relay acknowledges that legs are closed and keeps them open.
pub(crate) const LEGS_STAY_OPEN: Mutant = Mutant {
    name: "legs-stay-open",
    hooks: || {
        wrap::calls_of(
            |role| matches!(role, Role::Relay { .. }),
            |method, _| method == Method::DELETE,
            |_| Box::pin(async { wrap::no_content() }),
        )
    },
};

/// MED-001: a relay closes the legs of a call that is over, and not the leg of who leaves one that goes on.
pub(crate) const LEG_OUTLIVES: Mutant = Mutant {
    name: "leg-outlives-its-user",
    hooks: || {
        wrap::calls_of(
            |role| matches!(role, Role::Relay { .. }),
            |method, path| method == Method::DELETE && path.contains("/v1/legs/"),
            |_| Box::pin(async { wrap::no_content() }),
        )
    },
};

/// MED-002: a cluster takes relays that another org lends it for its own.
pub(crate) const LENT_FOR_OWN: Mutant = Mutant {
    name: "lent-for-own",
    hooks: || {
        configured(|config| {
            config.relays.clear();
            config.borrowed_relays.retain(|relay| relay.lender == Lender::Other);
            config.borrowed_relays.iter_mut().for_each(|relay| relay.lender = Lender::Org);
        })
    },
};

/// MED-003: a cluster knows the relays of its org's other clusters and not the one next door.
pub(crate) const FARTHEST_RELAY: Mutant = Mutant {
    name: "farthest-relay-chosen",
    hooks: || {
        configured(|config| {
            if config.borrowed_relays.iter().any(|relay| relay.lender == Lender::Org) {
                config.relays.clear();
            }
        })
    },
};

/// MED-004: a cluster knows one of its relays only: when it dies there is no other.
pub(crate) const DEAD_RELAY_KEPT: Mutant =
    Mutant { name: "dead-relay-kept", hooks: || configured(|config| config.relays.truncate(1)) };

/// MED-005: a relay makes another packet of every one.
pub(crate) const PACKETS_FROM_NOWHERE: Mutant =
    Mutant { name: "packets-from-nowhere", hooks: || relays(Fault::Multiply) };

/// MED-005: a relay says of every packet that it was sent, and sends each tenth nowhere.
pub(crate) const PACKETS_SWALLOWED: Mutant =
    Mutant { name: "packets-swallowed", hooks: || relays(Fault::Swallow) };

fn configured(change: fn(&mut ClusterConfig)) -> Hooks {
    let configure = move |mut config: ClusterConfig| {
        change(&mut config);
        config
    };
    Hooks { configure: Some(Arc::new(configure)), ..Hooks::default() }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Multiply,
    HalfToken,
    Silent,
    Swallow,
    Echo,
}

fn relays(fault: Fault) -> Hooks {
    let wrap = move |role: &Role, net: Arc<dyn Net>| match role {
        Role::Relay { .. } => Arc::new(FaultyNet { net, fault }) as Arc<dyn Net>,
        Role::Cluster(_) | Role::Provider => net,
    };
    Hooks { wrap_net: Some(Arc::new(wrap)), ..Hooks::default() }
}

struct FaultyNet {
    net: Arc<dyn Net>,
    fault: Fault,
}

struct FaultyUdp {
    udp: Arc<dyn Udp>,
    fault: Fault,
}

#[async_trait]
impl Net for FaultyNet {
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.net.resolve(name, port).await
    }

    async fn connect(&self, to: SocketAddr, name: &str) -> io::Result<Stream> {
        self.net.connect(to, name).await
    }

    async fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        self.net.listen(at).await
    }

    async fn udp(&self, at: SocketAddr) -> io::Result<Arc<dyn Udp>> {
        Ok(Arc::new(FaultyUdp { udp: self.net.udp(at).await?, fault: self.fault }))
    }
}

#[async_trait]
impl Udp for FaultyUdp {
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        match (self.fault, parse(bytes)) {
            (Fault::Silent, Datagram::Rtp { .. }) => Ok(()),
            (Fault::Swallow, Datagram::Rtp { sequence, .. }) if sequence % SWALLOWED == 0 => Ok(()),
            (Fault::Multiply, Datagram::Rtp { ssrc, sequence }) => {
                self.udp.send_to(bytes, to).await?;
                self.udp.send_to(&rtp(ssrc, sequence.wrapping_add(FAR_ON), 0, &[]), to).await
            }
            _ => self.udp.send_to(bytes, to).await,
        }
    }

    async fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (length, from) = self.udp.recv_from(into).await?;
        match (self.fault, parse(&into[..length])) {
            (Fault::Echo, Datagram::Rtp { .. }) => self.udp.send_to(&into[..length], from).await?,
            (Fault::HalfToken, Datagram::Bind { transaction, token }) if token.len() > LOOKED_AT => {
                let believed = binding_request(transaction, &token[..LOOKED_AT]);
                into[..believed.len()].copy_from_slice(&believed);
                return Ok((believed.len(), from));
            }
            _ => {}
        }
        Ok((length, from))
    }

    fn local_addr(&self) -> SocketAddr {
        self.udp.local_addr()
    }
}
