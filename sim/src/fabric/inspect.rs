//! What is the case in a world at one moment, for whoever looks into it.
//!
//! Looking changes nothing: no time passes, nothing is drawn, nobody is woken.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fusion_runtime::store::{Key, Row};
use serde::Serialize;

use super::fault::FaultReport;
use super::host::{HostSlot, Life};
use super::link::Packet;
use super::observe::Endpoint;
use super::tcp::ConnectionState;
use super::world::{Event, State, World};

/// A world at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Virtual microseconds since the run began.
    pub at_us: u64,
    /// Every machine, by name.
    pub machines: BTreeMap<Arc<str>, MachineState>,
    /// Every connection, in the order in which they were asked for.
    pub connections: Vec<ConnectionState>,
    /// What is on its way, in the order in which it is due.
    pub in_flight: Vec<InFlight>,
    /// The faults in force, the oldest first.
    pub faults: Vec<FaultReport>,
}

/// A machine at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MachineState {
    /// Its address.
    pub ip: IpAddr,
    /// Where it stands.
    pub datacenter: Arc<str>,
    /// The group it is one of, for example those of one cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Arc<str>>,
    /// `up`, `paused`, `crashed` or `off`.
    pub life: &'static str,
    /// How often it has been started again.
    pub restarts: u32,
    /// By how much its wall clock is wrong, microseconds.
    pub skew_us: i64,
    /// Tasks of its processes that have not ended.
    pub tasks: usize,
    /// Where it listens for connections, and how many wait to be accepted there.
    pub listeners: BTreeMap<SocketAddr, usize>,
    /// Its datagram sockets, and how many datagrams wait in each.
    pub sockets: BTreeMap<SocketAddr, usize>,
    /// Commits on their way to its disk.
    pub commits_waiting: usize,
    /// Whether its disk refuses every commit.
    pub disk_full: bool,
    /// Every row on its disk, in key order.
    #[serde(skip)]
    pub rows: Vec<(Key, Row)>,
}

/// Something on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InFlight {
    /// When it arrives, virtual microseconds.
    pub due_us: u64,
    /// The connection, whose numbers begin with 1; 0: a datagram.
    pub connection: u64,
    /// From where, of a datagram.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Endpoint>,
    /// Where to, of a datagram.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Endpoint>,
    /// Bytes of payload of a datagram; 0 otherwise.
    pub len: usize,
}

impl World {
    /// What is the case now. Not to be called by an observer of the wire, which is told of it in the
    /// middle of the world's work.
    #[must_use]
    pub fn inspect(&self) -> Inspection {
        let faults = self.faults().into_iter().filter(|report| !report.healed).collect();
        let state = self.shared.lock();
        Inspection {
            at_us: state.now_us(),
            machines: state.hosts.iter().map(|slot| (slot.name.clone(), state.machine(slot))).collect(),
            connections: state.connections.shown(&state.hosts),
            in_flight: state.in_flight(),
            faults,
        }
    }
}

impl State {
    fn machine(&self, slot: &HostSlot) -> MachineState {
        let listeners = self.listeners.iter().filter(|(address, _)| address.ip() == slot.ip);
        let sockets = self.sockets.iter().filter(|(address, _)| address.ip() == slot.ip);
        MachineState {
            ip: slot.ip,
            datacenter: slot.datacenter.clone(),
            group: slot.group.clone(),
            life: match slot.life {
                Life::Up if slot.paused.is_some() => "paused",
                Life::Up => "up",
                Life::Crashed => "crashed",
                Life::Off => "off",
            },
            restarts: slot.restarts(),
            skew_us: slot.clock.skew_us(),
            tasks: slot.tasks_alive(),
            listeners: listeners.map(|(address, backlog)| (*address, backlog.waiting())).collect(),
            sockets: sockets.map(|(address, socket)| (*address, socket.waiting())).collect(),
            commits_waiting: slot.disk.commits_waiting(),
            disk_full: slot.disk.full.is_some(),
            rows: slot.disk.dump(),
        }
    }

    fn in_flight(&self) -> Vec<InFlight> {
        let waiting = self.agenda.waiting().into_iter();
        waiting.filter_map(|(due_us, event)| self.on_its_way(due_us, event)).collect()
    }

    /// Commits are the disk's affair, and timers of connections are on no way.
    fn on_its_way(&self, due_us: u64, event: &Event) -> Option<InFlight> {
        match event {
            Event::Datagram { packet, .. } => {
                let Packet { from, to, len, .. } = *packet;
                let endpoint =
                    |(host, address)| Some(Endpoint { host: self.host(host).name.clone(), address });
                Some(InFlight { due_us, connection: 0, from: endpoint(from), to: endpoint(to), len })
            }
            Event::Tcp { connection, step } if step.is_packet() => {
                Some(InFlight { due_us, connection: *connection, from: None, to: None, len: 0 })
            }
            Event::Tcp { .. } | Event::Committed { .. } => None,
        }
    }
}
