//! Closing, resetting, giving up, and what the end of a machine does to its connections.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;

use super::{Connection, Handshake, Hold, Side, Step};
use crate::fabric::fault::Place;
use crate::fabric::host::{HostId, Life};
use crate::fabric::link::Transit;
use crate::fabric::observe::{TcpSign, WireKind};
use crate::fabric::world::State;

impl State {
    /// The process lets go of its end. What it wrote is still delivered; unread bytes make it a reset.
    pub(super) fn let_go(&mut self, id: u64, side: Side) {
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        if connection.end(side).hold != Hold::Process {
            return;
        }
        connection.end_mut(side).hold = Hold::Closed;
        if connection.end(side).broken.is_some() {
            connection.end_mut(side).hold = Hold::Gone;
        } else if !connection.incoming(side).inbox.is_empty() || connection.is_asking(side) {
            connection.end_mut(side).hold = Hold::Gone;
            self.send_reset(id, side.other());
        } else if !std::mem::replace(&mut connection.outgoing(side).finished, true) {
            self.send_new(id, side, Bytes::new(), true);
        }
        self.reap(id);
    }

    /// A reset sets out for `to`.
    pub(super) fn send_reset(&mut self, id: u64, to: Side) {
        let Some(connection) = self.connections.open.get(&id) else { return };
        if matches!(connection.end(to).hold, Hold::Unborn | Hold::Gone) {
            return;
        }
        let packet = connection.packet(id, to.other(), 0);
        let transit = self.launch(&packet, WireKind::Sent);
        self.show(&packet, TcpSign::Reset, None, &transit);
        if let Transit::Arrives { at_us, .. } = transit {
            self.after(id, to.other(), at_us, Step::Reset(to));
        }
    }

    /// A reset reaches this side.
    pub(super) fn on_reset(&mut self, id: u64, side: Side) {
        let Some(connection) = self.connections.open.get(&id) else { return };
        let host = connection.end(side).host;
        if self.host(host).life != Life::Off {
            self.reached(host);
            self.break_off(id, side, io::ErrorKind::ConnectionReset);
            self.reap(id);
        }
    }

    /// Nothing has got through for too long: the connection is broken off at both ends.
    pub(super) fn give_up(&mut self, id: u64, side: Side) {
        self.break_off(id, side, io::ErrorKind::TimedOut);
        self.break_off(id, side.other(), io::ErrorKind::ConnectionReset);
        self.reap(id);
    }

    /// Severs a machine that goes down from the network.
    pub(in crate::fabric) fn sever(&mut self, host: HostId, how: Life) {
        self.close_sockets(host);
        for (_, mut listener) in self.listeners.extract_if(.., |_, listener| listener.host == host) {
            listener.wake();
        }
        for (id, side) in self.ends_of(host) {
            let Some(connection) = self.connections.open.get_mut(&id) else { continue };
            connection.end_mut(side).hold = Hold::Gone;
            // Whoever still waits is a zombie, which learns so.
            connection.incoming(side).inbox.clear();
            connection.incoming(side).wake_reader();
            connection.outgoing(side).wake_writer();
            if side == Side::Client {
                connection.establish();
            }
            if how == Life::Crashed {
                self.send_reset(id, side.other());
            }
            self.reap(id);
        }
    }

    /// Resets every connection between `a` and `b` at both ends; says how many.
    pub(in crate::fabric) fn reset_between(&mut self, a: &[Place], b: &[Place]) -> u64 {
        let mut ids = self.connections_between(a, b);
        ids.extend(self.connections_between(b, a));
        let ids: BTreeSet<u64> = ids.into_iter().map(|(id, _)| id).collect();
        for &id in &ids {
            for side in [Side::Client, Side::Server] {
                self.show_at_once(id, side.other(), TcpSign::Reset);
                self.break_off(id, side, io::ErrorKind::ConnectionReset);
            }
            self.reap(id);
        }
        ids.len() as u64
    }

    /// The machines of `a` forget every connection to `b`, and nobody tells `b`; says how many.
    pub(in crate::fabric) fn forget_between(&mut self, a: &[Place], b: &[Place]) -> u64 {
        let mut forgotten = 0;
        for (id, side) in self.connections_between(a, b) {
            let Some(connection) = self.connections.open.get(&id) else { continue };
            let is_open = matches!(connection.handshake, Handshake::Done);
            if is_open && connection.end(side).hold == Hold::Process && connection.end(side).broken.is_none()
            {
                forgotten += 1;
                self.break_off(id, side, io::ErrorKind::ConnectionAborted);
            }
        }
        forgotten
    }

    /// The connections with one end on a machine at `a` and the other on another at `b`, with the former.
    fn connections_between(&self, a: &[Place], b: &[Place]) -> Vec<(u64, Side)> {
        let is_between = |connection: &Connection, side: Side| {
            let (near, far) = (connection.end(side).host, connection.end(side.other()).host);
            near != far && self.host(near).is_at(a) && self.host(far).is_at(b)
        };
        let ends = self.connections.open.iter().flat_map(|(id, connection)| {
            let sides = [Side::Client, Side::Server].into_iter();
            sides.filter(|side| is_between(connection, *side)).map(|side| (*id, side))
        });
        ends.collect()
    }

    /// A listener ends: those whom it has not accepted are reset.
    pub(super) fn turn_away(&mut self, waiting: impl IntoIterator<Item = u64>) {
        for id in waiting {
            if let Some(connection) = self.connections.open.get_mut(&id) {
                connection.end_mut(Side::Server).hold = Hold::Gone;
                self.send_reset(id, Side::Client);
                self.reap(id);
            }
        }
    }

    /// This side learns that the connection is broken.
    fn break_off(&mut self, id: u64, side: Side, kind: io::ErrorKind) {
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        let packet = connection.packet(id, side.other(), 0);
        let end = connection.end_mut(side);
        if end.broken.is_some() || matches!(end.hold, Hold::Unborn | Hold::Gone) {
            return;
        }
        end.broken = Some(kind);
        match end.hold {
            // Whoever accepts it later learns at the first read; a backlog keeps its order.
            Hold::Backlog | Hold::Process => {}
            _ => end.hold = Hold::Gone,
        }
        let outgoing = connection.outgoing(side);
        outgoing.unacknowledged.clear();
        outgoing.tidings.clear();
        outgoing.wake_writer();
        connection.incoming(side).wake_reader();
        if side == Side::Client {
            connection.establish();
        }
        self.observe(&packet, WireKind::Reset);
    }

    /// Forgets the connection when nobody is left who could notice anything.
    fn reap(&mut self, id: u64) {
        let Some(connection) = self.connections.open.get(&id) else { return };
        if connection.is_over() {
            let packet = connection.packet(id, Side::Client, 0);
            let was_open = connection.end(Side::Server).hold != Hold::Unborn;
            self.connections.open.remove(&id);
            if was_open {
                self.observe(&packet, WireKind::Closed);
            }
        }
    }

    fn ends_of(&self, host: HostId) -> Vec<(u64, Side)> {
        let sides = [Side::Client, Side::Server];
        let ends = self.connections.open.iter().flat_map(|(id, connection)| {
            sides.into_iter().filter(|side| connection.is_held_on(*side, host)).map(|side| (*id, side))
        });
        ends.collect()
    }

    /// Plays one step of a connection.
    pub(in crate::fabric) fn on_step(&mut self, id: u64, step: Step) {
        match step {
            Step::Request => self.on_request(id),
            Step::Repeat => self.on_repeat(id),
            Step::Consent => self.on_consent(id),
            Step::Refusal => self.on_refusal(id),
            Step::Arrival(side, segment) => self.on_arrival(id, side, segment),
            Step::Room(side) => self.on_room(id, side),
            Step::Timeout(side) => self.on_timeout(id, side),
            Step::Reset(side) => self.on_reset(id, side),
        }
    }
}

impl Connection {
    /// Whether `side` still waits for the other's consent.
    fn is_asking(&self, side: Side) -> bool {
        side == Side::Client && matches!(self.handshake, Handshake::Asking { .. })
    }

    fn is_held_on(&self, side: Side, host: HostId) -> bool {
        let end = self.end(side);
        end.host == host && !matches!(end.hold, Hold::Unborn | Hold::Gone)
    }
}
