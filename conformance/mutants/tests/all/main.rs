//! Faulty deployments from end to end, one program.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod engines;
mod parts;
mod self_test;
mod shrink;
