//! Whole worlds, seen from outside.

mod connections;
mod datagrams;
mod faults;
mod machines;
mod runs;
mod segments;
mod services;
mod vocabulary;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fusion_runtime::Host;
use fusion_runtime::net::{Stream, Udp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Where every test's server listens.
const PORT: u16 = 443;

fn ip(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, number))
}

fn at(number: u8) -> SocketAddr {
    SocketAddr::new(ip(number), PORT)
}

fn place(text: &str) -> Vec<Place> {
    vec![text.parse().unwrap()]
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A world with machines `a` (address 1) and `b` (address 2) in one data centre.
struct Pair {
    world: World,
    a: Host,
    b: Host,
}

impl Pair {
    fn new(seed: u64) -> Self {
        Self::with(seed, WorldOptions::default(), Arc::new(Log::default()))
    }

    fn with(seed: u64, options: WorldOptions, observer: Arc<dyn Observer>) -> Self {
        let world = World::with(seed, options, observer);
        let a = world.host("a", ip(1), "here").start().unwrap();
        let b = world.host("b", ip(2), "here").start().unwrap();
        Self { world, a, b }
    }

    /// A connection from `a` to `b`.
    async fn connection(&self) -> (Stream, Stream) {
        let mut listener = self.b.net.listen(at(2)).await.unwrap();
        let (client, server) = tokio::join!(self.a.net.connect(at(2), "b"), listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    /// Datagram sockets of `a` and `b`.
    async fn sockets(&self) -> (Arc<dyn Udp>, Arc<dyn Udp>) {
        (self.a.net.udp(at(1)).await.unwrap(), self.b.net.udp(at(2)).await.unwrap())
    }

    fn partition(&self) -> Fault {
        Fault::Partition { a: place("a"), b: place("b") }
    }
}

/// Answers every connection with what it says, on the machine's own tasks.
fn serve_echo(host: &Host, at: SocketAddr) {
    let machine = host.clone();
    host.tasks.spawn(async move {
        let mut listener = machine.net.listen(at).await.unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            machine.tasks.spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
}

/// Says `ping` and hears it back.
async fn ping(stream: &mut Stream) -> std::io::Result<()> {
    stream.write_all(b"ping").await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"ping");
    Ok(())
}

/// An observer that writes everything down.
#[derive(Default)]
struct Log {
    wire: Mutex<Vec<WireEvent>>,
    faults: Mutex<Vec<FaultEvent>>,
    bytes: Mutex<Vec<u8>>,
}

impl Observer for Log {
    fn wire(&self, event: &WireEvent) {
        self.wire.lock().unwrap().push(event.clone());
    }

    fn fault(&self, event: &FaultEvent) {
        self.faults.lock().unwrap().push(event.clone());
    }

    fn watches_bytes(&self, host: &str) -> bool {
        host == "b"
    }

    fn bytes(&self, arrival: &WireEvent, bytes: &[u8]) {
        assert_eq!(&*arrival.to.host, "b");
        self.bytes.lock().unwrap().extend(bytes);
    }
}
