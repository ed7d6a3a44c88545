//! Relays.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fusion_deployment::{Hooks, Role};
use fusion_mutants::wrap;
use fusion_protocol::Uuid;
use fusion_protocol::media::{Datagram, parse};
use fusion_runtime::Net;
use fusion_runtime::net::{Listener, Stream, Udp};
use fusion_sim::plant::Plant;
use http::Method;
use serde_json::json;

use crate::lock;

/// How late a call's legs are closed.
const CLOSED_LATE: Duration = Duration::from_secs(3);
/// Every how many packets one is not sent.
const LOST_EVERY: u64 = 64;
/// Every how many packets one is overtaken.
const LATE_EVERY: u64 = 50;

pub(crate) const EVERY_FIFTIETH_LATE: Plant = Plant {
    name: "every-fiftieth-packet-overtaken",
    requirement: "MED-005",
    wrong: "two threads of a relay send: now and then a packet is overtaken by the next of its stream",
    held_out: true,
    hooks: || sending(Overtaken::default),
};

pub(crate) const FORWARDED_AND_NOT_SENT: Plant = Plant {
    name: "forwarded-and-not-sent",
    requirement: "MED-005",
    wrong: "a packet that the relay's full socket does not take is counted as forwarded",
    held_out: false,
    hooks: || sending(Lossy::default),
};

pub(crate) const INSTANCE_CLOSED_LATE: Plant = Plant {
    name: "legs-closed-three-seconds-late",
    requirement: "MED-001",
    wrong: "a relay acknowledges the end of a call and cleans up three seconds later: until then whoever \
            has a leg goes on sending",
    held_out: false,
    hooks: || {
        wrap::calls_of(
            is_relay,
            |method, path| method == Method::DELETE && path.starts_with("/v1/instances/"),
            |call| {
                Box::pin(async move {
                    let host = call.host.clone();
                    host.tasks.clone().spawn(async move {
                        host.clock.sleep(CLOSED_LATE).await;
                        drop(call.play().await);
                    });
                    wrap::no_content()
                })
            },
        )
    },
};

pub(crate) const LEG_STAYS: Plant = Plant {
    name: "leg-of-who-leaves-stays-open",
    requirement: "MED-001",
    wrong: "a relay closes the legs of a call that is over and not the leg of who leaves one that goes on",
    held_out: false,
    hooks: || {
        wrap::calls_of(
            is_relay,
            |method, path| method == Method::DELETE && path.starts_with("/v1/legs/"),
            |_| Box::pin(async { wrap::no_content() }),
        )
    },
};

pub(crate) const LIFE_IS_THE_NAME: Plant = Plant {
    name: "relay-says-it-never-died",
    requirement: "MED-004",
    wrong: "a relay's sign of life is its name, the same after a crash: a cluster that did not look while \
            it was down does not move the legs that it has lost",
    held_out: false,
    hooks: || {
        let name = |call: &wrap::Call, life: &mut serde_json::Value| {
            let octets = call.authority().bytes().fold(0_u128, |name, byte| name << 5 ^ u128::from(byte));
            life["life"] = json!(Uuid::from_u128(octets));
        };
        wrap::calls_of(
            is_relay,
            |method, path| method == Method::GET && path.ends_with("/v1/life"),
            move |call| {
                Box::pin(async move {
                    // It tells when it is asked, and does not beat: there is one life to tell of, after all.
                    let response = call.read(call.path()).await;
                    wrap::edited(response, |life| name(&call, life)).await
                })
            },
        )
    },
};

fn is_relay(role: &Role) -> bool {
    matches!(role, Role::Relay { .. })
}

/// What becomes of packets that a relay sends.
#[async_trait]
trait Sender: Send + Sync + 'static {
    async fn send(&self, socket: &dyn Udp, packet: &[u8], to: SocketAddr) -> io::Result<()>;
}

/// Every relay sends through such a sender, a new one for each of its sockets.
fn sending<S: Sender>(sender: fn() -> S) -> Hooks {
    let wrap = move |role: &Role, net: Arc<dyn Net>| match is_relay(role) {
        true => Arc::new(Medium { net, sender }) as Arc<dyn Net>,
        false => net,
    };
    Hooks { wrap_net: Some(Arc::new(wrap)), ..Hooks::default() }
}

struct Medium<S> {
    net: Arc<dyn Net>,
    sender: fn() -> S,
}

struct Socket<S> {
    socket: Arc<dyn Udp>,
    sender: S,
}

#[async_trait]
impl<S: Sender> Net for Medium<S> {
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
        Ok(Arc::new(Socket { socket: self.net.udp(at).await?, sender: (self.sender)() }))
    }
}

#[async_trait]
impl<S: Sender> Udp for Socket<S> {
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        match parse(bytes) {
            Datagram::Rtp { .. } => self.sender.send(&*self.socket, bytes, to).await,
            _ => self.socket.send_to(bytes, to).await,
        }
    }

    async fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(into).await
    }

    fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }
}

/// Loses a packet now and then.
#[derive(Default)]
struct Lossy(Mutex<u64>);

#[async_trait]
impl Sender for Lossy {
    async fn send(&self, socket: &dyn Udp, packet: &[u8], to: SocketAddr) -> io::Result<()> {
        let sent = {
            let mut sent = lock(&self.0);
            *sent += 1;
            *sent
        };
        if sent.is_multiple_of(LOST_EVERY) { Ok(()) } else { socket.send_to(packet, to).await }
    }
}

/// Keeps a packet back now and then until the next one to the same address.
#[derive(Default)]
struct Overtaken(Mutex<BTreeMap<SocketAddr, Stretch>>);

/// What has been sent to an address.
#[derive(Default)]
struct Stretch {
    sent: u64,
    kept: Option<Vec<u8>>,
}

#[async_trait]
impl Sender for Overtaken {
    async fn send(&self, socket: &dyn Udp, packet: &[u8], to: SocketAddr) -> io::Result<()> {
        let kept = {
            let mut streams = lock(&self.0);
            let stretch = streams.entry(to).or_default();
            stretch.sent += 1;
            if stretch.sent.is_multiple_of(LATE_EVERY) {
                stretch.kept = Some(packet.to_vec());
                return Ok(());
            }
            stretch.kept.take()
        };
        socket.send_to(packet, to).await?;
        match kept {
            Some(kept) => socket.send_to(&kept, to).await,
            None => Ok(()),
        }
    }
}
