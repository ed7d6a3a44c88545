//! What the services decide, as pure state machines.

pub mod conversation;
pub mod device_queue;
pub mod domain_claim;
pub mod index;
pub mod legs;
pub mod locus;
pub mod moving;
pub mod outbox;
pub mod pair;
pub mod repair;
pub mod resolution;
