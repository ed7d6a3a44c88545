//! A local federation of separate processes, and a client outside of all of them.

#![allow(dead_code, reason = "each test uses what it needs")]

pub(crate) mod client;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use fusion_runtime::Clock;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// How long a process may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// The files of a federation, in a folder that goes away with it.
pub(crate) struct Federation {
    folder: TempDir,
}

/// A process that serves.
pub(crate) struct Process {
    child: Child,
    /// Its ready line.
    pub(crate) ready: serde_json::Value,
}

impl Federation {
    /// `stack-fusion init` in a new folder, at a free port.
    pub(crate) async fn init() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let made = program()
            .arg("init")
            .arg(folder.path())
            .args(["--port", &free_port().to_string()])
            .output()
            .await
            .expect("the program runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { folder }
    }

    /// The path of one of its files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The text of one of its files.
    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a file of the federation")
    }

    /// Starts a process and waits until it serves.
    pub(crate) async fn start(&self, role: &str, file: &str) -> Process {
        Process::start(role, &self.path(file), &[]).await
    }
}

impl Process {
    /// Starts a process with further arguments and waits until it serves.
    pub(crate) async fn start(role: &str, file: &Path, arguments: &[&str]) -> Self {
        let mut child = program()
            .args(["serve", "--role", role, "--config"])
            .arg(file)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let output = child.stdout.take().expect("its output is piped");
        let mut lines = BufReader::new(output).lines();
        let line = Clock::real().timeout(READY_WITHIN, lines.next_line()).await;
        let line = line.expect("it serves in time").expect("its output can be read").expect("it serves");
        Self { child, ready: serde_json::from_str(&line).expect("the ready line is JSON") }
    }

    /// kill -9.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// SIGTERM; its exit code.
    pub(crate) async fn terminate(mut self) -> Option<i32> {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().await.expect("kill runs");
        assert!(sent.success());
        self.child.wait().await.expect("it ends").code()
    }
}

/// The program under test.
pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_stack-fusion"))
}

/// A port that is free on loopback now.
fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    socket.local_addr().expect("a bound socket has an address").port()
}
