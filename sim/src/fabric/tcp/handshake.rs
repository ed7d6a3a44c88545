//! Opening: request, consent, refusal, repetition.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use super::{Connection, End, Handshake, Hold, Pipe, Side, Step};
use crate::fabric::host::{HostId, Life};
use crate::fabric::link::Transit;
use crate::fabric::observe::{Reason, TcpSign, WireKind};
use crate::fabric::world::{Event, State};

impl State {
    /// Begins to connect `from` to `to`.
    pub(super) fn open(&mut self, from: HostId, to: (HostId, SocketAddr)) -> io::Result<u64> {
        let port = self.free_port(from)?;
        let address = SocketAddr::new(self.host(from).ip, port);
        let window_bytes = self.options.tcp.window_bytes;
        let until_us = self.now_us() + self.options.tcp.connect_timeout_ms * 1_000;
        self.connections.opened += 1;
        let id = self.connections.opened;
        let connection = Connection {
            ends: [
                End { host: from, address, hold: Hold::Process, broken: None },
                End { host: to.0, address: to.1, hold: Hold::Unborn, broken: None },
            ],
            pipes: [Pipe::new(window_bytes), Pipe::new(window_bytes)],
            handshake: Handshake::Asking { attempts: 0, until_us, waiting: None },
        };
        self.connections.open.insert(id, connection);
        self.request(id, WireKind::Sent);
        Ok(id)
    }

    /// Whether the connection is open yet.
    pub(super) fn poll_open(&mut self, id: u64, context: &Context<'_>) -> Poll<io::Result<()>> {
        let Some(connection) = self.connections.open.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if let Some(kind) = connection.end(Side::Client).broken {
            return Poll::Ready(Err(kind.into()));
        }
        match &mut connection.handshake {
            Handshake::Done => Poll::Ready(Ok(())),
            Handshake::Asking { waiting, .. } => {
                *waiting = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The request arrives at the server's machine.
    pub(super) fn on_request(&mut self, id: u64) {
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        let packet = connection.packet(id, Side::Client, 0);
        let (host, address) = packet.to;
        if connection.end(Side::Server).hold != Hold::Unborn {
            return self.consent(id, WireKind::Retransmitted);
        }
        if self.host(host).life == Life::Off {
            self.observe(&packet, WireKind::Dropped(Reason::HostDown));
            self.show_lost(&packet, TcpSign::Request, None, Reason::HostDown);
            return self.repeat_later(id);
        }
        self.reached(host);
        if let Some(fault) = self.host(host).backlog_full
            && self.listeners.contains_key(&address)
        {
            self.faults.took_effect(fault);
            self.observe(&packet, WireKind::Dropped(Reason::Backlog));
            self.show_lost(&packet, TcpSign::Request, None, Reason::Backlog);
            return self.repeat_later(id);
        }
        let backlog_max = self.options.tcp.backlog_max;
        match self.listeners.get_mut(&address) {
            Some(listener) if listener.backlog.len() < backlog_max => {
                listener.backlog.push_back(id);
                listener.wake();
                if let Some(connection) = self.connections.open.get_mut(&id) {
                    connection.end_mut(Side::Server).hold = Hold::Backlog;
                }
                self.observe(&packet, WireKind::Opened);
                self.consent(id, WireKind::Sent);
            }
            Some(_) => self.refuse(id, Reason::Backlog),
            None => self.refuse(id, Reason::NoListener),
        }
    }

    /// The consent arrives at the client's machine.
    pub(super) fn on_consent(&mut self, id: u64) {
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        connection.establish();
        let host = connection.end(Side::Client).host;
        // The third step of a real handshake tells nobody here anything: no link carries it.
        self.show_at_once(id, Side::Client, TcpSign::Goes);
        self.reached(host);
    }

    /// The refusal arrives at the client's machine.
    pub(super) fn on_refusal(&mut self, id: u64) {
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        connection.end_mut(Side::Client).broken = Some(io::ErrorKind::ConnectionRefused);
        connection.establish();
    }

    /// Time to ask again, or to give up.
    pub(super) fn on_repeat(&mut self, id: u64) {
        let now_us = self.now_us();
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        let Handshake::Asking { until_us, .. } = connection.handshake else { return };
        if connection.end(Side::Client).hold != Hold::Process {
            return;
        }
        if now_us < until_us {
            return self.request(id, WireKind::Retransmitted);
        }
        connection.end_mut(Side::Client).broken = Some(io::ErrorKind::TimedOut);
        connection.establish();
    }

    fn request(&mut self, id: u64, kind: WireKind) {
        let Some(connection) = self.connections.open.get(&id) else { return };
        let packet = connection.packet(id, Side::Client, 0);
        let transit = self.launch(&packet, kind);
        self.show(&packet, TcpSign::Request, None, &transit);
        match transit {
            Transit::Dropped(_) => self.repeat_later(id),
            Transit::Arrives { at_us, .. } => {
                self.after(id, Side::Client, at_us, Step::Request);
                self.watch_deadline(id, at_us);
            }
        }
    }

    fn consent(&mut self, id: u64, kind: WireKind) {
        let Some(connection) = self.connections.open.get(&id) else { return };
        let packet = connection.packet(id, Side::Server, 0);
        let transit = self.launch(&packet, kind);
        self.show(&packet, TcpSign::Consent, None, &transit);
        match transit {
            Transit::Dropped(_) => self.repeat_later(id),
            Transit::Arrives { at_us, .. } => {
                self.after(id, Side::Server, at_us, Step::Consent);
                self.watch_deadline(id, at_us);
            }
        }
    }

    fn refuse(&mut self, id: u64, reason: Reason) {
        let Some(connection) = self.connections.open.get(&id) else { return };
        let (asked, answer) =
            (connection.packet(id, Side::Client, 0), connection.packet(id, Side::Server, 0));
        self.observe(&asked, WireKind::Dropped(reason));
        self.observe(&asked, WireKind::Refused);
        let transit = self.launch(&answer, WireKind::Sent);
        self.show(&answer, TcpSign::Reset, None, &transit);
        match transit {
            Transit::Dropped(_) => self.repeat_later(id),
            Transit::Arrives { at_us, .. } => self.after(id, Side::Server, at_us, Step::Refusal),
        }
    }

    /// Sets the client's alarm: it hears nothing, so it asks again, later and later.
    fn repeat_later(&mut self, id: u64) {
        let now_us = self.now_us();
        let retry_us = self.options.tcp.connect_retry_ms * 1_000;
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        let Handshake::Asking { attempts, until_us, .. } = &mut connection.handshake else { return };
        let wait_us = retry_us.saturating_mul(1 << (*attempts).min(16));
        *attempts += 1;
        let due_us = (now_us + wait_us).min(*until_us).max(now_us + 1);
        self.agenda.push(due_us, Event::Tcp { connection: id, step: Step::Repeat });
    }

    /// Sets the client's alarm for the end of its patience, when what is on its way comes too late.
    fn watch_deadline(&mut self, id: u64, arrival_us: u64) {
        let Some(connection) = self.connections.open.get(&id) else { return };
        if let Handshake::Asking { until_us, .. } = connection.handshake
            && arrival_us > until_us
        {
            self.agenda.push(until_us, Event::Tcp { connection: id, step: Step::Repeat });
        }
    }

    /// Puts down `step` of what `side` sent, behind everything it sent before.
    pub(super) fn after(&mut self, id: u64, side: Side, at_us: u64, step: Step) {
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        let pipe = connection.outgoing(side);
        pipe.last_arrival_us = pipe.last_arrival_us.max(at_us);
        let due_us = pipe.last_arrival_us;
        self.agenda.push(due_us, Event::Tcp { connection: id, step });
    }
}

impl Connection {
    /// The client need not wait any longer.
    pub(super) fn establish(&mut self) {
        if let Handshake::Asking { waiting: Some(waiting), .. } =
            std::mem::replace(&mut self.handshake, Handshake::Done)
        {
            waiting.wake();
        }
    }
}
