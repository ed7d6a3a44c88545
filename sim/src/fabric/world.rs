//! The world: its options, its state, its run.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fusion_runtime::store::{Key, Row};
use fusion_runtime::{Clock, Entropy, Proofs, Tasks, Timestamp};
use futures_util::future::abortable;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::agenda::Agenda;
use super::disk::DiskOptions;
use super::dns::Names;
use super::effort::{Effort, Limits, Spin};
use super::fault::Place;
use super::host::{self, HostId, HostSlot};
use super::inject::Faults;
use super::link::{LinkProfile, Links, Packet, Turn};
use super::observe::{Observer, WireCounts};
use super::tcp::{Backlog, Connections, Step, TcpOptions};
use super::udp::{Socket, UdpOptions};

/// 2026-01-01T00:00:00Z, in microseconds: when worlds begin, so that nothing depends on today.
const EPOCH_US: u64 = 1_767_225_600_000_000;
/// Who polls what is given to [`World::run`], in accounts of who spins.
const MAIN: &str = "the play";

/// How a world behaves when nothing is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorldOptions {
    /// The wall time at which the world begins, microseconds since the Unix epoch.
    pub epoch_us: u64,
    /// The simulated time after which a run that has not ended is a failure, seconds.
    pub run_limit_s: u64,
    /// How much may be done in it.
    pub limits: Limits,
    /// The probability with which a task that is about to run lets the others go first, 0 to 1: other
    /// orders of the same events.
    pub explore_order: f64,
    /// Links from a machine to itself.
    pub loopback: LinkProfile,
    /// Links within a data centre.
    pub near: LinkProfile,
    /// Links between data centres.
    pub far: LinkProfile,
    /// Connections.
    pub tcp: TcpOptions,
    /// Datagram sockets.
    pub udp: UdpOptions,
    /// Disks.
    pub disk: DiskOptions,
}

/// Why a machine cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// Another machine has that name.
    #[error("two machines are named `{0}`")]
    NameTaken(String),
    /// Another machine has that address.
    #[error("two machines have the address {0}")]
    AddressTaken(IpAddr),
}

/// A simulated world. Clones are the same world.
#[derive(Clone)]
pub struct World {
    pub(super) shared: Arc<Shared>,
}

/// What the world and everything in it share.
pub(super) struct Shared {
    state: Mutex<State>,
    runtime: Mutex<Option<Runtime>>,
    tasks: Tasks,
}

/// Everything that is the case.
pub(super) struct State {
    pub(super) agenda: Agenda<Event>,
    pub(super) clock: Clock,
    pub(super) entropy: Entropy,
    pub(super) options: WorldOptions,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) watches_wire: bool,
    pub(super) watches_frames: bool,
    pub(super) counts: WireCounts,
    pub(super) hosts: Vec<HostSlot>,
    pub(super) host_by_name: BTreeMap<Arc<str>, HostId>,
    pub(super) host_by_ip: BTreeMap<IpAddr, HostId>,
    pub(super) profiles: Vec<(Vec<Place>, Vec<Place>, LinkProfile)>,
    pub(super) links: Links,
    pub(super) connections: Connections,
    pub(super) listeners: BTreeMap<SocketAddr, Backlog>,
    pub(super) sockets: BTreeMap<SocketAddr, Socket>,
    pub(super) names: Names,
    pub(super) faults: Faults,
    pub(super) effort: Effort,
    pub(super) proofs: Proofs,
    pub(super) era: Era,
}

/// Where the world is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// Time stands at zero.
    Before,
    /// Time is the runtime's.
    Running,
    /// Time stands where it ended.
    Over(u64),
}

/// Something that becomes due.
pub(super) enum Event {
    Tcp { connection: u64, step: Step },
    Datagram { packet: Packet, bytes: Bytes, turn: Option<Turn> },
    Committed { host: HostId, ticket: u64 },
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            epoch_us: EPOCH_US,
            run_limit_s: 24 * 3_600,
            limits: Limits::default(),
            explore_order: 0.0,
            loopback: LinkProfile::loopback(),
            near: LinkProfile::near(),
            far: LinkProfile::far(),
            tcp: TcpOptions::default(),
            udp: UdpOptions::default(),
            disk: DiskOptions::default(),
        }
    }
}

impl World {
    /// The world that `seed` determines, unobserved.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(seed, WorldOptions::default(), Arc::new(Nobody))
    }

    /// The world that `seed` and `options` determine, as `observer` sees it.
    ///
    /// # Panics
    /// When the operating system cannot give a runtime.
    #[must_use]
    pub fn with(seed: u64, options: WorldOptions, observer: Arc<dyn Observer>) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime =
            builder.enable_time().start_paused(true).build().expect("a runtime without I/O needs nothing");
        let clock = {
            let _inside = runtime.enter();
            Clock::starting_at(Timestamp(options.epoch_us))
        };
        let state = State {
            agenda: Agenda::new(),
            effort: Effort::new(clock.clone(), options.limits),
            clock,
            entropy: Entropy::from_u64(seed).stream("world"),
            options,
            watches_wire: observer.watches_wire(),
            watches_frames: observer.watches_frames(),
            observer,
            counts: WireCounts::default(),
            hosts: Vec::new(),
            host_by_name: BTreeMap::new(),
            host_by_ip: BTreeMap::new(),
            profiles: Vec::new(),
            links: Links::default(),
            connections: Connections::default(),
            listeners: BTreeMap::new(),
            sockets: BTreeMap::new(),
            names: Names::default(),
            faults: Faults::default(),
            proofs: Proofs::of_one_process(),
            era: Era::Before,
        };
        let shared =
            Shared { state: Mutex::new(state), runtime: Mutex::new(Some(runtime)), tasks: Tasks::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Plays `main`, then ends every machine.
    ///
    /// Whatever spawns, listens or sends must happen inside: machines added before do nothing yet.
    ///
    /// # Panics
    /// When the world has run before, when `main` has not ended at the run limit or somebody spins, and
    /// when a task is left over in the end: one that was not spawned on its machine.
    pub fn run<F: Future>(&self, main: F) -> F::Output {
        self.run_bounded(main).unwrap_or_else(|spin| panic!("{spin}"))
    }

    /// As [`World::run`]; where a limit of [`WorldOptions::limits`] is passed, or one that somebody else
    /// counts ([`Effort::pass`]), the run is ended.
    ///
    /// # Errors
    /// Who spins, when a limit was passed.
    ///
    /// # Panics
    /// As [`World::run`].
    pub fn run_bounded<F: Future>(&self, main: F) -> Result<F::Output, Box<Spin>> {
        let effort = self.effort();
        let counting = effort.clone();
        let (main, halt) = abortable(async move {
            let mut main = pin!(main);
            poll_fn(|context| {
                counting.polled(MAIN);
                main.as_mut().poll(context)
            })
            .await
        });
        effort.arm(halt);
        let output = self.run_to_the_end(main);
        match (effort.spin(), output) {
            (None, Ok(output)) => Ok(output),
            (Some(spin), _) => Err(spin),
            (None, Err(_)) => unreachable!("only a passed limit ends a run"),
        }
    }

    fn run_to_the_end<F: Future>(&self, main: F) -> F::Output {
        let runtime = self.shared.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        let runtime = runtime.expect("a world runs once");
        let output = runtime.block_on(async {
            self.shared.lock().era = Era::Running;
            self.shared.tasks.spawn(pump(self.shared.clone()));
            let limit_s = self.shared.lock().options.run_limit_s;
            let ended = self.clock().timeout(Duration::from_secs(limit_s), main).await;
            self.stop().await;
            host::yield_until(|| runtime.metrics().num_alive_tasks() == 0).await;
            ended.unwrap_or_else(|_| panic!("the run had not ended after {limit_s} simulated seconds"))
        });
        assert_eq!(runtime.metrics().num_alive_tasks(), 0, "tasks were spawned outside of their machines");
        output
    }

    /// What it has done so far, for whoever counts something, too.
    #[must_use]
    pub fn effort(&self) -> Effort {
        self.shared.lock().effort.clone()
    }

    /// The world's own clock, never skewed: for whoever plays a plan.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.shared.lock().clock.clone()
    }

    /// Virtual microseconds since the run began.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.shared.lock().now_us()
    }

    /// A stream of randomness for `purpose`, apart from all of the world's own.
    #[must_use]
    pub fn entropy(&self, purpose: &str) -> Entropy {
        self.shared.lock().entropy.stream(&format!("purpose/{purpose}"))
    }

    /// Publishes `addresses` as those of `name`; none takes the name away.
    pub fn publish(&self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        self.shared.lock().names.publish(name, addresses.into_iter().collect());
    }

    /// Sets how links from `from` to `to` behave; the last word counts.
    pub fn set_link(&self, from: Vec<Place>, to: Vec<Place>, profile: LinkProfile) {
        self.shared.lock().set_link(from, to, profile);
    }

    /// How often what happened on the wire.
    #[must_use]
    pub fn wire_counts(&self) -> WireCounts {
        self.shared.lock().counts
    }

    /// Every row on the disk of a machine, up or down, in key order (PRI-001: what a store holds).
    #[must_use]
    pub fn rows(&self, machine: &str) -> Vec<(Key, Row)> {
        let state = self.shared.lock();
        let id = state.host_by_name.get(machine);
        id.map(|id| state.host(*id).disk.dump()).unwrap_or_default()
    }

    /// How many tasks of machines have ended by a panic.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.shared.lock().panics()
    }

    /// Ends every machine and the pump.
    async fn stop(&self) {
        let tasks = {
            let mut state = self.shared.lock();
            state.era = Era::Over(state.now_us());
            for slot in &mut state.hosts {
                // A machine refers to the world that refers to it.
                slot.forget();
            }
            state.tasks()
        };
        for tasks in &tasks {
            host::end(tasks).await;
        }
        host::end(&self.shared.tasks).await;
    }
}

impl Shared {
    /// A poisoned lock only says that a task panicked; the state stays usable.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The world's own tasks, which no machine's fate ends.
    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }
}

impl State {
    /// Virtual microseconds since the run began.
    pub(super) fn now_us(&self) -> u64 {
        match self.era {
            Era::Before => 0,
            Era::Running => self.clock.now().as_micros() as u64,
            Era::Over(at_us) => at_us,
        }
    }

    /// Plays everything that is due; says when the next thing is.
    fn play_due(&mut self) -> Option<u64> {
        let now_us = self.now_us();
        while let Some(event) = self.agenda.pop_due(now_us) {
            match event {
                Event::Tcp { connection, step } => self.on_step(connection, step),
                Event::Datagram { packet, bytes, turn } => self.on_datagram(&packet, &bytes, turn),
                Event::Committed { host, ticket } => self.on_committed(host, ticket),
            }
        }
        self.agenda.set_alarm()
    }
}

/// Plays the agenda for as long as the world runs.
async fn pump(shared: Arc<Shared>) {
    let (clock, earlier) = {
        let state = shared.lock();
        (state.clock.clone(), state.agenda.earlier())
    };
    loop {
        let next_us = shared.lock().play_due();
        match next_us {
            None => earlier.notified().await,
            Some(next_us) => {
                tokio::select! {
                    biased;
                    () = earlier.notified() => {}
                    () = clock.sleep_until(Duration::from_micros(next_us)) => {}
                }
            }
        }
    }
}

/// The observer of a world that nobody looks at.
struct Nobody;

impl Observer for Nobody {
    fn watches_wire(&self) -> bool {
        false
    }
}
