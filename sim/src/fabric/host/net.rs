//! The network as one incarnation of a machine sees it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use fusion_runtime::net::{Listener, Stream, Udp};
use fusion_runtime::probe::Level;
use fusion_runtime::{Net, Probe};
use serde_json::Value;

use super::{HostId, Incarnation};
use crate::fabric::world::{Shared, State};
use crate::fabric::{tcp, udp};

/// The network as one incarnation of a machine sees it.
pub(super) struct HostNet {
    pub(super) shared: Arc<Shared>,
    pub(super) machine: Incarnation,
}

#[async_trait]
impl Net for HostNet {
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut state = self.shared.lock();
        state.admit(self.machine)?;
        state.resolve(name, port)
    }

    async fn connect(&self, to: SocketAddr, name: &str) -> io::Result<Stream> {
        tcp::connect(&self.shared, self.machine, to, name).await
    }

    async fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        tcp::listen(&self.shared, self.machine, at)
    }

    async fn udp(&self, at: SocketAddr) -> io::Result<Arc<dyn Udp>> {
        udp::bind(&self.shared, self.machine, at)
    }
}

/// The probe of a machine that reports to nobody.
pub(super) struct Silent;

impl Probe for Silent {
    fn log(&self, _level: Level, _target: &'static str, _fields: Value) {}
}

impl State {
    /// What `machine` sees of whoever it has reached at `to` under `name`, as TLS would show it.
    ///
    /// # Errors
    /// When the certificate has run out or is somebody else's.
    pub(in crate::fabric) fn verify(&mut self, to: (HostId, SocketAddr), name: &str) -> io::Result<()> {
        let refuse = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        if let Some(fault) = self.host(to.0).expired {
            self.faults.took_effect(fault);
            return refuse(format!("the certificate of {name} has run out"));
        }
        if !self.names.is_of(name, to.1.ip()) {
            return refuse(format!("{} shows a certificate that is not for {name}", to.1));
        }
        Ok(())
    }
}
