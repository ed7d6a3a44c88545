//! Moving bytes: segments, acknowledgements, windows, retransmission.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::ReadBuf;

use super::{Connection, Hold, Segment, Side, Step, Timer};
use crate::fabric::host::Life;
use crate::fabric::link::Transit;
use crate::fabric::observe::{Reason, TcpSign, WireKind};
use crate::fabric::world::{Event, State};

impl State {
    /// Takes as much from `buffers` as there is room for and sends it.
    pub(super) fn poll_write(
        &mut self,
        id: u64,
        side: Side,
        buffers: &[IoSlice<'_>],
        context: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let now_us = self.now_us();
        let connection = self.held(id, side)?;
        let pipe = connection.outgoing(side);
        if pipe.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        pipe.hear(now_us);
        let room = (pipe.edge - pipe.sent) as usize;
        let mut bytes = gather(buffers, room);
        if bytes.is_empty() && buffers.iter().any(|buffer| !buffer.is_empty()) {
            pipe.writer = Some(context.waker().clone());
            self.await_room(id, side);
            return Poll::Pending;
        }
        let taken = bytes.len();
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(self.options.tcp.segment_bytes.max(1)));
            self.send_new(id, side, piece, false);
        }
        Poll::Ready(Ok(taken))
    }

    /// Fills `into` with what has arrived.
    pub(super) fn poll_read(
        &mut self,
        id: u64,
        side: Side,
        into: &mut ReadBuf<'_>,
        context: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        // What arrived before the connection broke can still be read.
        let Some(connection) = self.connections.open.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let (hold, broken) = (connection.end(side).hold, connection.end(side).broken);
        let pipe = connection.incoming(side);
        if hold != Hold::Process {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        if pipe.inbox.is_empty() {
            return match broken {
                Some(kind) => Poll::Ready(Err(kind.into())),
                None if pipe.ended => Poll::Ready(Ok(())),
                None => {
                    pipe.reader = Some(context.waker().clone());
                    Poll::Pending
                }
            };
        }
        while into.remaining() > 0
            && let Some(bytes) = pipe.inbox.front_mut()
        {
            let piece = bytes.split_to(bytes.len().min(into.remaining()));
            into.put_slice(&piece);
            pipe.read += piece.len() as u64;
            if bytes.is_empty() {
                pipe.inbox.pop_front();
            }
        }
        self.tell_of_room(id, side);
        Poll::Ready(Ok(()))
    }

    /// Sends the end of the stream, once.
    pub(super) fn finish(&mut self, id: u64, side: Side) -> io::Result<()> {
        let connection = self.held(id, side)?;
        if !std::mem::replace(&mut connection.outgoing(side).finished, true) {
            self.send_new(id, side, Bytes::new(), true);
        }
        Ok(())
    }

    /// Sends the next piece of the stream.
    pub(super) fn send_new(&mut self, id: u64, side: Side, bytes: Bytes, last: bool) {
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        let pipe = connection.outgoing(side);
        let segment = Segment { at: pipe.sent, bytes, last };
        pipe.sent = segment.end();
        pipe.unacknowledged.push_back(segment.clone());
        self.transmit(id, side, segment, WireKind::Sent);
    }

    /// A segment of `side` arrives at the other machine.
    pub(super) fn on_arrival(&mut self, id: u64, side: Side, segment: Segment) {
        let receiver = side.other();
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        let packet = connection.packet(id, side, segment.bytes.len());
        let (hold, forgotten) = (connection.end(receiver).hold, connection.has_forgotten(receiver));
        if self.host(packet.to.0).life == Life::Off {
            self.observe(&packet, WireKind::Dropped(Reason::HostDown));
            self.show_lost(&packet, TcpSign::Goes, Some(&segment), Reason::HostDown);
            return self.arm(id, side);
        }
        self.reached(packet.to.0);
        let unwanted = match hold {
            _ if forgotten => true,
            Hold::Gone | Hold::Unborn => true,
            Hold::Closed => !segment.bytes.is_empty(),
            Hold::Backlog | Hold::Process => false,
        };
        if unwanted {
            self.observe(&packet, WireKind::Dropped(Reason::NoListener));
            self.show_lost(&packet, TcpSign::Goes, Some(&segment), Reason::NoListener);
            self.tap(&packet, &segment.bytes);
            return self.send_reset(id, side);
        }
        self.observe(&packet, WireKind::Delivered);
        for bytes in self.take_in(id, receiver, segment) {
            self.tap(&packet, &bytes);
        }
        self.acknowledge(id, receiver);
    }

    /// This side's timer fires: is something still missing?
    pub(super) fn on_timeout(&mut self, id: u64, side: Side) {
        let now_us = self.now_us();
        let give_up_us = self.options.tcp.give_up_ms * 1_000;
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        if connection.end(side).hold == Hold::Gone || connection.end(side).broken.is_some() {
            return;
        }
        let pipe = connection.outgoing(side);
        pipe.timer = None;
        let waits_in_vain = pipe.tidings_lost && pipe.writer.is_some();
        if pipe.unacknowledged.is_empty() && !waits_in_vain {
            pipe.stalled_since_us = None;
            pipe.attempts = 0;
            return;
        }
        let since_us = *pipe.stalled_since_us.get_or_insert(now_us);
        if now_us - since_us >= give_up_us {
            return self.give_up(id, side);
        }
        pipe.attempts += 1;
        // An empty segment asks for room; a window has room for no other.
        let first = pipe.unacknowledged.front().cloned();
        let first = first.unwrap_or(Segment { at: pipe.sent, bytes: Bytes::new(), last: false });
        if self.transmit(id, side, first, WireKind::Retransmitted) {
            self.transmit_missing(id, side);
        }
    }

    /// Tidings that this side waited for have arrived.
    pub(super) fn on_room(&mut self, id: u64, side: Side) {
        let now_us = self.now_us();
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        let pipe = connection.outgoing(side);
        pipe.hear(now_us);
        pipe.wake_writer();
    }

    /// The connection, when `side` can still use it.
    fn held(&mut self, id: u64, side: Side) -> io::Result<&mut Connection> {
        let connection = self.connections.open.get_mut(&id).ok_or(io::ErrorKind::NotConnected)?;
        let end = connection.end(side);
        match end.broken {
            _ if end.hold != Hold::Process => Err(io::ErrorKind::NotConnected.into()),
            Some(kind) => Err(kind.into()),
            None => Ok(connection),
        }
    }

    /// Sends a segment; says whether it got onto the link.
    fn transmit(&mut self, id: u64, side: Side, segment: Segment, kind: WireKind) -> bool {
        let Some(connection) = self.connections.open.get(&id) else { return false };
        let packet = connection.packet(id, side, segment.bytes.len());
        if let Some((fault, most)) = self.segment_max((packet.from.0, packet.to.0))
            && segment.bytes.len() > most
        {
            self.faults.took_effect(fault);
            return self.transmit_in_pieces(id, side, segment, most, kind);
        }
        let transit = self.launch(&packet, kind);
        self.show(&packet, TcpSign::Goes, Some(&segment), &transit);
        match transit {
            Transit::Dropped(_) => {
                self.arm(id, side);
                false
            }
            Transit::Arrives { at_us, .. } => {
                self.after(id, side, at_us, Step::Arrival(side, segment));
                true
            }
        }
    }

    /// Sends a segment as several that the link can carry; says whether all got onto it.
    fn transmit_in_pieces(
        &mut self,
        id: u64,
        side: Side,
        mut segment: Segment,
        most: usize,
        kind: WireKind,
    ) -> bool {
        let mut all = true;
        while segment.bytes.len() > most {
            let piece = Segment { at: segment.at, bytes: segment.bytes.split_to(most), last: false };
            segment.at = piece.end();
            all &= self.transmit(id, side, piece, kind);
        }
        self.transmit(id, side, segment, kind) && all
    }

    /// Sends again, behind the first segment, what else the receiver lacks: as the answers to the first
    /// would tell the sender.
    fn transmit_missing(&mut self, id: u64, side: Side) {
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        let pipe = connection.outgoing(side);
        let lacks = |segment: &&Segment| {
            let held = pipe.early.get(&segment.at);
            segment.end() > pipe.received && held.is_none_or(|held| held.end() < segment.end())
        };
        let missing: Vec<_> = pipe.unacknowledged.iter().skip(1).filter(lacks).cloned().collect();
        for segment in missing {
            self.transmit(id, side, segment, WireKind::Retransmitted);
        }
    }

    /// Takes a segment into the receiver's stream; gives back what has come into order by it.
    fn take_in(&mut self, id: u64, receiver: Side, segment: Segment) -> Vec<Bytes> {
        let Some(connection) = self.connections.open.get_mut(&id) else { return Vec::new() };
        if receiver == Side::Client {
            // Whatever comes from the server implies its consent.
            connection.establish();
        }
        let closed = connection.end(receiver).hold == Hold::Closed;
        let pipe = connection.incoming(receiver);
        let is_news = pipe.early.get(&segment.at).is_none_or(|held| held.end() < segment.end());
        if segment.end() > pipe.received && is_news {
            pipe.early.insert(segment.at, segment);
        }
        let mut in_order = Vec::new();
        while let Some(mut segment) = pipe.next_in_order() {
            // What a link has cut into pieces may come again whole.
            let known = (pipe.received - segment.at) as usize;
            let _ = segment.bytes.split_to(known);
            pipe.received += segment.bytes.len() as u64 + u64::from(segment.last);
            pipe.ended |= segment.last;
            if !segment.bytes.is_empty() {
                in_order.push(segment.bytes.clone());
                if !closed {
                    pipe.inbox.push_back(segment.bytes);
                }
            }
        }
        if !in_order.is_empty() || pipe.ended {
            pipe.wake_reader();
        }
        in_order
    }

    /// The receiver says what it has and how much room there is.
    fn acknowledge(&mut self, id: u64, receiver: Side) {
        let window_bytes = self.options.tcp.window_bytes;
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        let packet = connection.packet(id, receiver, 0);
        // Acknowledgements are many and tell nothing new: they are not reported as packets.
        let transit = self.transit(&packet);
        self.show(&packet, TcpSign::Goes, None, &transit);
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        let pipe = connection.incoming(receiver);
        let Transit::Arrives { at_us, .. } = transit else {
            pipe.tidings_lost = true;
            return self.arm(id, receiver.other());
        };
        if pipe.received > pipe.acknowledged || pipe.unacknowledged.is_empty() {
            pipe.stalled_since_us = None;
            pipe.attempts = 0;
        }
        pipe.tidings_lost = false;
        pipe.acknowledged = pipe.received;
        // The sender cannot tell whether its copies go now or when this arrives; memory can.
        while pipe.unacknowledged.front().is_some_and(|segment| segment.end() <= pipe.received) {
            pipe.unacknowledged.pop_front();
        }
        pipe.told_edge = pipe.told_edge.max(pipe.read + window_bytes);
        let at_us = pipe.tidings.back().map_or(at_us, |(last_us, _)| at_us.max(*last_us));
        pipe.tidings.push_back((at_us, pipe.told_edge));
        if pipe.writer.is_some() {
            self.agenda.push(at_us, Event::Tcp { connection: id, step: Step::Room(receiver.other()) });
        }
    }

    /// The reader has made room: the sender is told when it matters.
    fn tell_of_room(&mut self, id: u64, receiver: Side) {
        let window_bytes = self.options.tcp.window_bytes;
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        if connection.end(receiver).broken.is_some() {
            return;
        }
        let pipe = connection.incoming(receiver);
        let is_short = pipe.told_edge.saturating_sub(pipe.received) < window_bytes / 2;
        let is_worth_telling = pipe.read + window_bytes >= pipe.told_edge + window_bytes / 4;
        if is_short && is_worth_telling {
            self.acknowledge(id, receiver);
        }
    }

    /// A writer waits: it is woken by the tidings on their way, or asks for them when they were lost.
    fn await_room(&mut self, id: u64, side: Side) {
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        let pipe = connection.outgoing(side);
        match pipe.tidings.front() {
            Some(&(at_us, _)) => {
                self.agenda.push(at_us, Event::Tcp { connection: id, step: Step::Room(side) });
            }
            None if pipe.tidings_lost => self.arm(id, side),
            None => {}
        }
    }

    /// Sets this side's retransmission timer, unless it is set.
    pub(super) fn arm(&mut self, id: u64, side: Side) {
        let now_us = self.now_us();
        let options = &self.options.tcp;
        let (first_us, max_us) = (options.retransmit_ms * 1_000, options.retransmit_ms_max * 1_000);
        let give_up_us = options.give_up_ms * 1_000;
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        let pipe = connection.outgoing(side);
        if pipe.timer.is_some() {
            return;
        }
        pipe.timer = Some(Timer);
        let since_us = *pipe.stalled_since_us.get_or_insert(now_us);
        let wait_us = first_us.saturating_mul(1 << pipe.attempts.min(16)).min(max_us);
        let due_us = (now_us + wait_us).min(since_us + give_up_us).max(now_us + 1);
        self.agenda.push(due_us, Event::Tcp { connection: id, step: Step::Timeout(side) });
    }
}

/// The first `room` bytes of `buffers` as one piece.
fn gather(buffers: &[IoSlice<'_>], room: usize) -> Bytes {
    let whole = buffers.iter().map(|buffer| buffer.len()).sum::<usize>();
    let mut bytes = BytesMut::with_capacity(whole.min(room));
    for buffer in buffers {
        let left = room - bytes.len();
        bytes.extend_from_slice(&buffer[..buffer.len().min(left)]);
    }
    bytes.freeze()
}
