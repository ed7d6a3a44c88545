//! What the services decide, as pure state machines.

pub mod device_queue;
