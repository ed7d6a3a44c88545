//! Machines for the tests: on pipes in memory with time that passes by itself, and on real sockets.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use fusion_runtime::http::{Client, ClientError};
use fusion_runtime::net::{Listener, LiveConfig, LiveNet, Net, Stream, Udp};
use fusion_runtime::store::MemoryStore;
use fusion_runtime::tls::TestCa;
use fusion_runtime::{Clock, Entropy, Host, Timestamp};
use http::{Request, Response};
use tokio::sync::mpsc;

/// The port that servers of the tests use on pipes.
pub const PORT: u16 = 8443;

/// Pipes in memory: every name is the machine at 192.0.2.1, and `missing.test` does not exist.
#[derive(Clone, Default)]
pub struct PipeNet(Arc<Pipes>);

#[derive(Default)]
struct Pipes {
    listening: Mutex<BTreeMap<SocketAddr, mpsc::Sender<Stream>>>,
    connections: AtomicUsize,
}

impl PipeNet {
    /// How many connections have been opened.
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }
}

/// What a server has read, request by request. Clones are the same.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    pub fn hear(&self, request: &[u8]) {
        self.0.lock().unwrap().push(String::from_utf8_lossy(request).into_owned());
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

pub fn at() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], PORT))
}

/// A machine on `net` whose time begins at zero and follows the paused runtime.
pub fn machine(net: &PipeNet) -> Host {
    Host {
        clock: Clock::starting_at(Timestamp(0)),
        entropy: Entropy::from_u64(1),
        ..Host::live("m", Arc::new(net.clone()), Arc::new(MemoryStore::new()))
    }
}

#[async_trait]
impl Net for PipeNet {
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if name == "missing.test" {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(vec![SocketAddr::new(at().ip(), port)])
    }

    async fn connect(&self, to: SocketAddr, _: &str) -> io::Result<Stream> {
        let (near, far) = tokio::io::duplex(16 << 10);
        let listener =
            self.0.listening.lock().unwrap().get(&to).cloned().ok_or(io::ErrorKind::ConnectionRefused)?;
        listener.send(Box::new(far)).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        self.0.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(near))
    }

    async fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let (sender, receiver) = mpsc::channel(16);
        self.0.listening.lock().unwrap().insert(at, sender);
        Ok(Box::new(PipeListener { at, receiver }))
    }

    async fn udp(&self, _: SocketAddr) -> io::Result<Arc<dyn Udp>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

struct PipeListener {
    at: SocketAddr,
    receiver: mpsc::Receiver<Stream>,
}

#[async_trait]
impl Listener for PipeListener {
    async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        let stream = self.receiver.recv().await.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok((stream, SocketAddr::from(([192, 0, 2, 2], 50_000))))
    }

    fn local_addr(&self) -> SocketAddr {
        self.at
    }
}

pub const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A real machine with a certificate of `ca` for `*.provider.test`, which `table` says where to find.
pub fn real_machine(ca: &TestCa, table: &[(&str, &str)]) -> Host {
    let mut config = LiveConfig { trust_pem: ca.ca_pem().to_owned(), ..LiveConfig::default() };
    config.identities.push(ca.issue(&["*.provider.test"]).unwrap());
    for (name, address) in table {
        config.resolve.insert(name, address).unwrap();
    }
    real_machine_with(config)
}

pub fn real_machine_with(config: LiveConfig) -> Host {
    Host::live("m", Arc::new(LiveNet::new(config).unwrap()), Arc::new(MemoryStore::new()))
}

pub async fn get(client: &Client, url: &str) -> Result<Response<Bytes>, ClientError> {
    client.send(Request::get(url).body(Bytes::new()).unwrap()).await
}
