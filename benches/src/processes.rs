//! A federation of `stack-fusion` processes, pinned to a core, started, watched and stopped.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fusion_conformance::Target;
use fusion_runtime::net::{LiveConfig, LiveNet, ResolveTable};
use fusion_runtime::store::MemoryStore;
use fusion_runtime::{Clock, Host};
use fusion_sim::stopwatch::Stopwatch;
use tempfile::TempDir;

use crate::How;
use crate::measure;

/// How long a process may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Whether connections are under TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    /// As everywhere.
    Tls,
    /// `--insecure-loopback`: for figures that are of the server alone.
    InClear,
}

/// A federation on this machine. It ends when dropped.
pub(crate) struct Federation {
    pub(crate) target: Arc<Target>,
    processes: Processes,
}

/// Its processes and their folder.
struct Processes {
    server: PathBuf,
    folder: TempDir,
    security: Security,
    core: Option<usize>,
    running: BTreeMap<String, Child>,
}

impl Federation {
    /// Writes and starts a federation of `topology` (TOML), or of the program's own default. The provider
    /// runs where it likes; everything else, too, or on `core`.
    pub(crate) fn start(
        how: &How,
        topology: Option<&str>,
        security: Security,
        core: Option<usize>,
    ) -> Result<Self> {
        let server = how.program("stack-fusion")?;
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("fusion-bench-");
        let folder = match &how.folder {
            Some(folder) => builder.tempdir_in(folder),
            None => builder.tempdir(),
        }?;
        let mut init = Command::new(&server);
        init.arg("init").arg(folder.path()).args(["--port", &free_port()?.to_string()]);
        if let Some(topology) = topology {
            let wanted = folder.path().join("wanted.toml");
            std::fs::write(&wanted, topology)?;
            init.arg("--topology").arg(wanted);
        }
        let made = init.output()?;
        if !made.status.success() {
            bail!("stack-fusion init failed: {}", String::from_utf8_lossy(&made.stderr).trim());
        }
        let mut processes = Processes { server, folder, security, core, running: BTreeMap::new() };
        let mut roles = processes.roles()?;
        // Clusters fetch the domain map at their start: the provider goes first.
        roles.sort_by_key(|name| (!name.starts_with("provider"), name.clone()));
        for role in roles {
            processes.serve(&role)?;
        }
        // The files that it names are there from now on.
        let target = Arc::new(Target::read(&processes.path("target.toml"))?);
        Ok(Self { target, processes })
    }

    /// As [`Processes::serve`].
    pub(crate) fn serve(&mut self, name: &str) -> Result<Duration> {
        self.processes.serve(name)
    }

    /// As [`Processes::stop`].
    pub(crate) fn stop(&mut self, name: &str, by_force: bool) -> Result<()> {
        self.processes.stop(name, by_force)
    }

    /// The process of `{name}.toml`.
    pub(crate) fn pid(&self, name: &str) -> Result<u32> {
        let child = self.processes.running.get(name);
        child.map(Child::id).with_context(|| format!("{name} is not running"))
    }

    /// CPU time of all clusters so far, in seconds.
    pub(crate) fn clusters_cpu_s(&self) -> Result<f64> {
        let clusters = self.processes.running.iter().filter(|(name, _)| name.starts_with("cluster"));
        clusters.map(|(_, child)| measure::cpu_s(child.id())).sum()
    }

    /// Where a file of the federation lies.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.processes.path(file)
    }

    /// A machine to speak to it from.
    pub(crate) fn host(&self) -> Result<Host> {
        let mut resolve = ResolveTable::default();
        for (name, addresses) in &self.target.resolve {
            if let Some(address) = addresses.first() {
                resolve.insert(name, &address.to_string())?;
            }
        }
        let ca: &Path = self.target.ca.as_deref().context("the target file has no ca")?;
        let config = LiveConfig {
            trust_pem: std::fs::read_to_string(ca)?,
            resolve,
            insecure_loopback: self.processes.security == Security::InClear,
            ..LiveConfig::default()
        };
        let net = Arc::new(LiveNet::new(config)?);
        Ok(Host { clock: Clock::real(), ..Host::live("bench", net, Arc::new(MemoryStore::new())) })
    }
}

impl Processes {
    /// Starts the process whose configuration is `{name}.toml`; answers how long it took until it served.
    fn serve(&mut self, name: &str) -> Result<Duration> {
        let role = name.split('-').next().unwrap_or(name);
        let mut command = match self.core.filter(|_| role != "provider") {
            None => anywhere(&self.server),
            Some(core) => pinned(core, &self.server),
        };
        command.args(["serve", "--role", role, "--config"]).arg(self.path(&format!("{name}.toml")));
        if self.security == Security::InClear {
            command.arg("--insecure-loopback");
        }
        let log = std::fs::File::create(self.path(&format!("{name}.stderr")))?;
        let watch = Stopwatch::start();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let output = child.stdout.take().context("a process without output")?;
        self.running.insert(name.to_owned(), child);
        let mut line = String::new();
        // It says one line when it serves, and ends its output when it does not.
        BufReader::new(output).read_line(&mut line)?;
        if line.is_empty() || watch.elapsed() > READY_WITHIN {
            let said = std::fs::read_to_string(self.path(&format!("{name}.stderr"))).unwrap_or_default();
            bail!("{name} did not start: {}", said.trim());
        }
        Ok(watch.elapsed())
    }

    /// Ends a process in good order, or by force.
    fn stop(&mut self, name: &str, by_force: bool) -> Result<()> {
        let mut child = self.running.remove(name).with_context(|| format!("{name} is not running"))?;
        if !by_force {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        } else {
            child.kill()?;
        }
        child.wait()?;
        Ok(())
    }

    /// Where a file of the federation lies.
    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn roles(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let is_role = ["provider", "cluster", "relay"].iter().any(|role| stem.starts_with(role));
            if is_role && path.extension().is_some_and(|ending| ending == "toml") {
                names.push(stem.to_owned());
            }
        }
        Ok(names)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A program on one core.
pub(crate) fn pinned(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// A program on any core, although this process may keep to one.
fn anywhere(program: &Path) -> Command {
    let last = std::thread::available_parallelism().map_or(1, usize::from).max(64) - 1;
    let mut command = Command::new("taskset");
    command.args(["-c", &format!("0-{last}")]).arg(program);
    command
}

/// A port that is free on loopback now.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
