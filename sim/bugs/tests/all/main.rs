//! The tests of the bug base, one program.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod base;
mod effect;
mod found;
mod page;
