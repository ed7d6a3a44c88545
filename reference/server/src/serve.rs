//! Starts the parts of a process, says when they serve, and ends them gracefully.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fusion_deployment::services::{start_cluster, start_provider, start_relay};
use fusion_deployment::{Hooks, Running};
use fusion_runtime::net::live::LiveNet;
use fusion_runtime::probe::Level;
use fusion_runtime::store::{EmbeddedStore, MemoryStore};
use fusion_runtime::{Clock, Host, Probe, Store, Tasks};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Part, Process};
use crate::log::{Log, Sink};

/// How long a graceful end may take; what is not finished then is cut off.
const GRACE: Duration = Duration::from_secs(10);

struct Started {
    running: Running,
    tasks: Tasks,
    probe: Arc<dyn Probe>,
}

/// Serves until SIGTERM or Ctrl-C.
///
/// # Errors
/// When a part does not start.
pub(crate) async fn serve(processes: Vec<Process>) -> Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let mut started = Vec::new();
    let mut ready = Vec::new();
    for process in processes {
        let (name, role) = (process.name.clone(), process.part.word());
        let one = start(process).await.with_context(|| format!("{role} {name} does not start"))?;
        ready
            .push(json!({"role": role, "name": name, "address": one.running.serving.local_addr.to_string()}));
        started.push(one);
    }
    let served = async {
        futures_util::future::join_all(started.iter().map(|one| one.running.ready())).await;
        // Whoever started this process reads one line. Nobody may be reading: that is no reason to end.
        let mut stdout = std::io::stdout();
        let _ = writeln!(stdout, "{}", json!({ "ready": ready })).and_then(|()| stdout.flush());
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        _ = stop.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
        () = served => {}
    }
    drain(&started).await;
    Ok(())
}

async fn start(process: Process) -> Result<Started> {
    let Process { name, address, network, log, part } = process;
    let sink = match &log.file {
        Some(file) => Sink::file(file).with_context(|| format!("cannot log to {}", file.display()))?,
        None => Sink::stderr(),
    };
    let log = Log { name: name.clone(), format: log.format, level: log.level, sink, clock: Clock::real() };
    let store: Arc<dyn Store> = match &part {
        Part::Provider { store, .. } | Part::Cluster { store, .. } => Arc::new(open(store)?),
        // A relay keeps nothing on disk.
        Part::Relay { .. } => Arc::new(MemoryStore::new()),
    };
    let net = Arc::new(LiveNet::new(network)?);
    let host = Host { probe: Arc::new(log), ..Host::live(&name, net, store) };
    let hooks = Hooks::default();
    let role = part.word();
    let running = match part {
        Part::Provider { config, .. } => start_provider(&host, address, config, &hooks).await?,
        Part::Cluster { config, .. } => start_cluster(&host, address, config, &hooks).await?,
        Part::Relay { config, role } => start_relay(&host, role, config, &hooks).await?,
    };
    let fields = json!({ "role": role, "version": env!("CARGO_PKG_VERSION") });
    host.probe.log(Level::Info, "process.serving", fields);
    Ok(Started { running, tasks: host.tasks, probe: host.probe })
}

fn open(path: &Path) -> Result<EmbeddedStore> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    Ok(EmbeddedStore::open(path)?)
}

/// OPS-004: finishes what is under way, sends devices elsewhere, then ends the tasks, which lets the
/// stores close.
async fn drain(started: &[Started]) {
    started.iter().for_each(|one| one.running.stop());
    let all = futures_util::future::join_all(started.iter().map(|one| one.running.drained()));
    let finished = Clock::real().timeout(GRACE, all).await.is_ok();
    for one in started {
        one.tasks.abort_all();
        one.probe.log(Level::Info, "process.stopped", json!({ "finished": finished }));
    }
}
