//! A world in memory for this crate's own tests: one network, scripted peers, time that jumps.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use fusion_protocol::{Domain, UrlTemplate};
use fusion_runtime::http::serve;
use fusion_runtime::net::{Listener, Net, Stream, Udp};
use fusion_runtime::store::MemoryStore;
use fusion_runtime::{Clock, Entropy, Host, Timestamp};
use tokio::sync::mpsc;

use crate::device::lock;
use crate::jws::SigningKey;
use crate::target::{IdentityProvider, Org, OrgRole, Target, TargetCluster};

type Arrivals = mpsc::UnboundedSender<(Stream, SocketAddr)>;

/// A network of pipes. Every name ends in the one server.
#[derive(Clone, Default)]
pub(crate) struct Pipes(Arc<Mutex<BTreeMap<SocketAddr, Arrivals>>>);

struct Door {
    at: SocketAddr,
    arrivals: mpsc::UnboundedReceiver<(Stream, SocketAddr)>,
}

#[async_trait]
impl Net for Pipes {
    async fn resolve(&self, _: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![(IpAddr::from([10, 0, 0, 1]), port).into()])
    }

    async fn connect(&self, to: SocketAddr, _: &str) -> io::Result<Stream> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let from = (IpAddr::from([10, 0, 0, 2]), 1_024).into();
        let open = lock(&self.0).get(&to).is_some_and(|door| door.send((Box::new(theirs), from)).is_ok());
        if open { Ok(Box::new(ours)) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
    }

    async fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let (door, arrivals) = mpsc::unbounded_channel();
        lock(&self.0).insert(at, door);
        Ok(Box::new(Door { at, arrivals }))
    }

    async fn udp(&self, _: SocketAddr) -> io::Result<Arc<dyn Udp>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[async_trait]
impl Listener for Door {
    async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        match self.arrivals.recv().await {
            Some(arrival) => Ok(arrival),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.at
    }
}

/// A machine on `net`.
pub(crate) fn host(net: &Pipes) -> Host {
    Host {
        clock: Clock::starting_at(Timestamp(1_700_000_000_000_000)),
        entropy: Entropy::from_u64(1),
        ..Host::live("test", Arc::new(net.clone()), Arc::new(MemoryStore::new()))
    }
}

/// Serves `router` for every name of the federation.
pub(crate) async fn serve_everything(host: &Host, router: axum::Router) {
    let at = (IpAddr::from([10, 0, 0, 1]), 443).into();
    serve(host, at, router).await.unwrap();
}

/// Two private clusters `a` and `b`, one consumer cluster `c`.
pub(crate) fn target() -> Target {
    let provider: Domain = "provider.example".parse().unwrap();
    let template = UrlTemplate::parse("https://{cluster}-{service}.{provider}", provider).unwrap();
    let mut target = Target::new("test", template);
    for (cluster, org, role, domain) in [
        ("a", "acme", OrgRole::Private, "acme.example"),
        ("b", "bravo", OrgRole::Private, "bravo.example"),
        ("c", "public", OrgRole::Consumer, "mail.example"),
    ] {
        target.clusters.push(TargetCluster { name: cluster.parse().unwrap(), org: org.to_owned() });
        let identity = IdentityProvider {
            issuer: format!("https://idp.{domain}"),
            key: SigningKey::from_seed([cluster.as_bytes()[0]; 32]).unwrap(),
            admin: "admin".to_owned(),
        };
        let domains = vec![domain.parse().unwrap()];
        target.orgs.insert(org.to_owned(), Org { role, domains, identity: Some(identity) });
    }
    target
}
