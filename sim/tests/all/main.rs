//! The simulator's tests, one program: each file is an area, and what they share is here.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

mod bundles;
mod detect;
mod determinism;
mod engines;
mod explore;
mod golden;
mod mistakes;
mod pcapng;
mod pipes;
mod shards;
mod shrink;
mod spins;
mod step;
mod stories;
mod tokens;

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

/// A file of this test alone, that lasts as long as the build: other tests may run in other processes.
fn scratch(name: &str) -> PathBuf {
    let test = std::thread::current().name().unwrap_or("tests").replace("::", "-");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

/// What the program said when it had ended, and its exit code.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn by(command: &mut Command) -> Self {
        Self::of(command.output().unwrap())
    }

    fn of(Output { status, stdout, stderr }: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
    }

    /// What machines read of it.
    fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
