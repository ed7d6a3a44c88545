//! What the services decide, as pure state machines.

pub mod device_queue;
pub mod domain_claim;
pub mod legs;
pub mod locus;
pub mod resolution;
