//! What the services decide, as pure state machines.
