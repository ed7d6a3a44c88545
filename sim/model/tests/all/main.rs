//! The tests of the models, one program.

#![expect(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod command;
mod path;
mod plants;
