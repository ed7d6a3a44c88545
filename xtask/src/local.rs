//! A local deployment of separate processes: started, waited for, stopped.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::cargo;

/// How long a process may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How often processes are looked after.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How many looks the suite has to say how it ended: 10 s.
const LOOKS: u32 = 200;

/// The processes of a deployment; they end with it.
struct Deployment {
    processes: Vec<(String, Child)>,
    target_file: PathBuf,
}

/// Checks a deployment that exists only for it.
pub(crate) fn conform(arguments: &[String]) -> Result<ExitCode> {
    let suite = cargo::build("fusion-conformance")?;
    let stopped = stopped()?;
    let folder = tempfile::Builder::new().prefix("stack-fusion-").tempdir()?;
    let deployment = Deployment::start(folder.path(), free_port()?)?;
    if stopped.try_recv().is_ok() {
        eprintln!("stopped before anything was checked");
        return Ok(ExitCode::from(3));
    }
    let mut suite =
        Command::new(suite).arg("--target").arg(&deployment.target_file).args(arguments).spawn()?;
    // Ctrl-C reaches the suite through the terminal, and it says how it ended. A signal to this process
    // alone does not: then it is ended from here.
    while suite.try_wait()?.is_none() {
        if stopped.recv_timeout(LOOK_AGAIN).is_ok() {
            end(&mut suite, &stopped)?;
        }
    }
    Ok(cargo::code(suite.wait()?))
}

/// Leaves a deployment running until Ctrl-C.
pub(crate) fn up(folder: &Path, port: u16) -> Result<ExitCode> {
    let folder = cargo::workspace().join(folder);
    let stopped = stopped()?;
    let mut deployment = Deployment::start(&folder, port)?;
    println!("target file: {}", deployment.target_file.display());
    println!("check it:    cargo xtask conform --target {}", deployment.target_file.display());
    println!("Ctrl-C stops it; its stores stay in {}.", folder.display());
    while stopped.recv_timeout(LOOK_AGAIN).is_err() {
        if let Some((name, how)) = deployment.ended()? {
            bail!(
                "{name} ended by itself ({how}); its log is {}",
                folder.join(format!("{name}.log")).display()
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Gives the suite its time to say how it ended; a second Ctrl-C takes it away.
fn end(suite: &mut Child, stopped: &mpsc::Receiver<()>) -> Result<()> {
    for _ in 0..LOOKS {
        if suite.try_wait()?.is_some() {
            return Ok(());
        }
        if stopped.recv_timeout(LOOK_AGAIN).is_ok() {
            break;
        }
    }
    // It may have ended this very moment.
    let _ = suite.kill();
    Ok(())
}

/// Tells of Ctrl-C and of requests to terminate; from here on they do not end this process, so that
/// what it has started and written is always cleaned up.
fn stopped() -> Result<mpsc::Receiver<()>> {
    let (sender, stopped) = mpsc::channel();
    ctrlc::set_handler(move || {
        let _ = sender.send(());
    })?;
    Ok(stopped)
}

impl Deployment {
    fn start(folder: &Path, port: u16) -> Result<Self> {
        let server = cargo::build("stack-fusion")?;
        let made =
            Command::new(&server).arg("init").arg(folder).args(["--port", &port.to_string()]).output()?;
        if !made.status.success() {
            bail!("stack-fusion init failed: {}", String::from_utf8_lossy(&made.stderr).trim());
        }
        let mut deployment = Self { processes: Vec::new(), target_file: folder.join("target.toml") };
        for (role, name, configuration) in roles(folder)? {
            let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
            let child = Command::new(&server)
                .args(["serve", "--role", &role, "--config"])
                .arg(&configuration)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(log)
                // Out of reach of Ctrl-C: the suite ends before those that it talks to.
                .process_group(0)
                .spawn()
                .with_context(|| format!("cannot start {name}"))?;
            deployment.processes.push((name, child));
        }
        deployment.wait_until_ready(folder)?;
        Ok(deployment)
    }

    /// The first process that is there no more, and how it ended.
    fn ended(&mut self) -> Result<Option<(String, ExitStatus)>> {
        for (name, child) in &mut self.processes {
            if let Some(how) = child.try_wait()? {
                return Ok(Some((name.clone(), how)));
            }
        }
        Ok(None)
    }

    fn wait_until_ready(&mut self, folder: &Path) -> Result<()> {
        let (sender, ready) = mpsc::channel();
        for (name, child) in &mut self.processes {
            let (sender, name) = (sender.clone(), name.clone());
            let output = child.stdout.take().context("a process without output")?;
            #[expect(clippy::disallowed_methods, reason = "a launcher is not simulated")]
            std::thread::spawn(move || {
                let mut lines = BufReader::new(output).lines();
                let first = lines.next().and_then(Result::ok);
                let _ = sender.send((name, first));
                // Read on, so that the process never blocks on a full pipe.
                lines.for_each(drop);
            });
        }
        for _ in 0..self.processes.len() {
            let (name, line) =
                ready.recv_timeout(READY_WITHIN).context("a process of the deployment does not get ready")?;
            if line.is_none() {
                let log = std::fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default();
                bail!("{name} did not start:\n{}", log.trim());
            }
        }
        Ok(())
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for (_, child) in &mut self.processes {
            // Stores survive a kill by design; a graceful stop would only take longer.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `init` writes one file for each process, `{role}-{name}.toml`.
fn roles(folder: &Path) -> Result<Vec<(String, String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        if path.extension().is_some_and(|ending| ending == "toml") {
            let role = ["provider", "cluster", "relay"].into_iter().find(|role| stem.starts_with(role));
            found.extend(role.map(|role| (role.to_owned(), stem, path)));
        }
    }
    // Clusters fetch the domain map at their start: the provider goes first.
    found.sort_by_key(|(role, name, _)| (role != "provider", name.clone()));
    Ok(found)
}

/// A port that is free on loopback now.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
