//! The simulator's tests, one program: each file is an area, and what they share is here.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

use std::path::{Path, PathBuf};
use std::process::Command;

mod bundles;
mod detect;
mod determinism;
mod engines;
mod explore;
mod golden;
mod mistakes;
mod pcapng;
mod shards;
mod shrink;
mod spins;
mod step;

/// Where the workspace is, and from where users start the program.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The program itself, so that a second process is a real one.
fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fusion-sim"))
}

/// The program with the scenarios that come with it.
fn program_with_scenarios() -> Command {
    let mut command = program();
    command.arg("--scenarios").arg(root().join("scenarios"));
    command
}

/// A file that lasts as long as the build.
fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}
