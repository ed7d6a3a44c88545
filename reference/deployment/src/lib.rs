//! From a topology to a running federation, on any network.
//!
//! A [`Topology`] says what there is; [`assemble`] gives every part a host, an address, names and keys;
//! [`start_host`] starts one host's services. The server, the simulator and the ops back-ends all build
//! their worlds here, so that there is one way to build a world.
//!
//! Not here: who is provisioned and what is claimed over the wire (a client does it), networks, stores.

pub mod federation;
pub mod services;
pub mod target;
pub mod topology;

pub use federation::{Addressing, Federation, HostSpec, OrgKeys, Role, assemble};
pub use services::{Hooks, Running, Service, StartError, start_host};
pub use target::TargetFile;
pub use topology::{ClusterSpec, OrgSpec, Topology, TopologyError, UserSpec};
