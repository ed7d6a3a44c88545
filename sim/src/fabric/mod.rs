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
//! | `observe` | what an outside observer is told |
//!
//! **Invariant:** nothing here knows services, plans, histories or judges. An [`Observer`] turns what
//! it is told into whatever it likes.
//!
//! Resolution of time: the agenda orders by microsecond; the runtime's timers wake in whole
//! milliseconds, so what is due within one millisecond happens in order at its end.

mod agenda;
mod disk;
mod dns;
mod fault;
mod host;
mod inject;
mod link;
mod observe;
mod tcp;
mod udp;
mod world;

#[cfg(test)]
mod tests;

pub use disk::DiskOptions;
pub use fault::{Fault, FaultCount, FaultError, FaultId, FaultReport, Place};
pub use host::HostBuilder;
pub use link::{Jitter, LinkProfile};
pub use observe::{
    Endpoint, FaultEvent, FaultPhase, Observer, Protocol, Reason, WireCounts, WireEvent, WireKind,
};
pub use tcp::TcpOptions;
pub use udp::UdpOptions;
pub use world::{World, WorldError, WorldOptions};
