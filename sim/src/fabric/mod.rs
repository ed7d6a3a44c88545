//! Fabric: a deterministic network and its machines, for the seam of `fusion_runtime`.
//!
//! A [`World`] is one paused, single-threaded tokio runtime. Every machine is a scope of tasks on it;
//! every packet, time-out and disk write is an entry of one agenda, ordered by (microsecond, sequence)
//! and played by one pump. Nothing ticks: a world in which nobody does anything costs nothing,
//! however long it lasts.
//!
//! What happens is a function of the seed. Chance comes from named streams, one per link direction,
//! host and purpose, so that one more draw somewhere does not reshuffle the rest.
//!
//! | file | holds |
//! |---|---|
//! | `world` | options, the run, the pump |
//! | `agenda` | what is due, in a total order |
//! | `link` | what happens to one packet between two hosts |
//! | `tcp`, `udp`, `dns` | what a machine's network does with packets and names |
//! | `host`, `disk` | machines: start, crash, restart, pause, clock, store |
//! | `fault`, `inject` | faults as data, and their doing and undoing |
//! | `strangers` | clients that come in numbers |
//! | `observe` | what an outside observer is told |
//! | `effort` | how much work is done, and who does it when it is too much |
//! | `inspect` | what is the case at one moment |
//!
//! ```
//! use fusion_sim::fabric::{Fault, World};
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//!
//! let world = World::new(7);
//! let alice = world.host("alice", "203.0.113.1".parse()?, "east").start()?;
//! let bob = world.host("bob", "203.0.113.2".parse()?, "west").start()?;
//! world.publish("bob.example", ["203.0.113.2".parse()?]);
//! world.run(async {
//!     let mut listener = bob.net.listen("203.0.113.2:443".parse()?).await?;
//!     bob.tasks.spawn(async move {
//!         let (mut stream, _) = listener.accept().await.expect("bob is up");
//!         stream.write_all(b"hello").await.expect("alice listens");
//!     });
//!     let cut = world.inject(&Fault::Partition { a: vec!["alice".parse()?], b: vec!["bob".parse()?] }).await?;
//!     let heal = async {
//!         world.clock().sleep(std::time::Duration::from_secs(2)).await;
//!         world.heal(cut).await
//!     };
//!     let address = alice.net.resolve("bob.example", 443).await?[0];
//!     let (stream, healed) = tokio::join!(alice.net.connect(address, "bob.example"), heal);
//!     healed?;
//!     let mut heard = String::new();
//!     stream?.read_to_string(&mut heard).await?;
//!     assert_eq!(heard, "hello");
//!     assert_eq!(world.fault_counts()["partition"].effective, 1);
//!     Ok::<_, Box<dyn std::error::Error>>(())
//! })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** nothing here knows services, plans, histories or judges. An [`Observer`] turns what
//! it is told into whatever it likes.
//!
//! Resolution of time: the agenda orders by microsecond; the runtime's timers wake in whole
//! milliseconds, so what is due within one millisecond happens in order at its end.

mod agenda;
mod disk;
mod dns;
mod effort;
mod fault;
mod host;
mod inject;
mod inspect;
mod link;
mod observe;
mod strangers;
mod tcp;
mod udp;
mod world;

#[cfg(test)]
mod tests;

pub use disk::DiskOptions;
pub use effort::{Effort, Limits, Load, Overrun, RequestKind, SPINS, Spin};
pub use fault::{Fault, FaultCount, FaultError, FaultId, FaultReport, Place, Shape};
pub use host::HostBuilder;
pub use inspect::{InFlight, Inspection, MachineState};
pub use link::{Jitter, LinkProfile};
pub use observe::{
    Cargo, Endpoint, Fate, FaultEvent, FaultPhase, Frame, Observer, Protocol, Reason, TcpSign, WireCounts,
    WireEvent, WireKind,
};
pub use tcp::{ConnectionState, PipeState, TcpOptions};
pub use udp::UdpOptions;
pub use world::{World, WorldError, WorldOptions};
