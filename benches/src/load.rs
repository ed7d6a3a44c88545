//! `bench load`: two clusters as separate processes, both on one core, the client on the other.
//!
//! TLS between them and to them, durable stores at both ends, bodies of 100 bytes, counted where Bob's
//! WebSocket hears them. What is of one server alone (idle devices, sessions, resolution) is in clear.

mod devices;
mod raw;
mod resolution;
mod restart;
mod traffic;

use std::future::Future;

use anyhow::Result;

use crate::How;
use crate::measure;
use crate::people::People;
use crate::processes::{Federation, Security};
use crate::row::Report;

pub(crate) use resolution::plain_axum;

/// Two companies, each with a cluster. No relays: nobody talks here.
const TWO_CLUSTERS: &str = r#"
[[orgs]]
name = "acme"
domains = ["acme.example"]
clusters = [{ name = "a", relays = 0 }]

[[orgs]]
name = "globex"
domains = ["globex.example"]
clusters = [{ name = "b", relays = 0 }]

[[orgs]]
name = "public"
role = "consumer"
domains = ["mail.example"]
clusters = [{ name = "c", relays = 0 }]
"#;

/// Which core serves and which one asks.
#[derive(Clone, Copy)]
pub(crate) struct Cores {
    pub(crate) servers: usize,
    pub(crate) client: usize,
}

/// Measures what is wanted.
pub(crate) fn run(how: &How, report: &Report) -> Result<()> {
    let cores = Cores::of_this_machine();
    measure::pin(cores.client)?;
    traffic::run(how, report, cores)?;
    resolution::run(how, report, cores)?;
    devices::run(how, report, cores)?;
    restart::run(how, report, cores)
}

impl Cores {
    /// The first core serves, the last one asks; on a machine with one core they share it.
    pub(crate) fn of_this_machine() -> Self {
        let cores = measure::cores();
        let first = cores.first().copied().unwrap_or(0);
        Self { servers: first, client: cores.last().copied().unwrap_or(first) }
    }

    pub(crate) fn words(self) -> String {
        if self.servers == self.client {
            return "clusters and client share the machine's only core".to_owned();
        }
        "clusters on one core, client on another".to_owned()
    }
}

/// A federation of two clusters with people to be.
pub(crate) fn stage(how: &How, security: Security, cores: Cores) -> Result<(Federation, People)> {
    let federation = Federation::start(how, Some(TWO_CLUSTERS), security, Some(cores.servers))?;
    let people = People { host: federation.host()?, target: federation.target.clone() };
    Ok((federation, people))
}

/// The client's runtime: one thread, which stays on its core.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
