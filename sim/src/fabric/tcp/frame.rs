//! What an observer of frames is shown of connections.

use super::{Segment, Side};
use crate::fabric::link::{Packet, Transit, Turn};
use crate::fabric::observe::{Cargo, Reason, TcpSign};
use crate::fabric::world::State;

impl State {
    /// Shows a packet of a connection as it leaves `packet`'s sender, if anybody looks.
    pub(super) fn show(&self, packet: &Packet, sign: TcpSign, segment: Option<&Segment>, transit: &Transit) {
        if self.watches_frames {
            self.with_cargo(packet, sign, segment, |cargo| self.frame(packet, cargo, transit));
        }
    }

    /// Shows a packet that no link carries: it arrives when `side` sends it.
    pub(super) fn show_at_once(&self, id: u64, side: Side, sign: TcpSign) {
        if let Some(connection) = self.connections.open.get(&id).filter(|_| self.watches_frames) {
            let packet = connection.packet(id, side, 0);
            let at_us = self.now_us();
            let now = Transit::Arrives { at_us, again_at_us: None, turn: Turn::default(), flipped: None };
            self.show(&packet, sign, None, &now);
        }
    }

    /// Shows that a packet of a connection was lost at its destination, if anybody looks.
    pub(super) fn show_lost(
        &self,
        packet: &Packet,
        sign: TcpSign,
        segment: Option<&Segment>,
        reason: Reason,
    ) {
        if self.watches_frames {
            let lost = Transit::Dropped(reason);
            self.with_cargo(packet, sign, segment, |cargo| self.frame_lost(packet, cargo, &lost));
        }
    }

    fn with_cargo(
        &self,
        packet: &Packet,
        sign: TcpSign,
        segment: Option<&Segment>,
        with: impl FnOnce(Cargo<'_>),
    ) {
        let Some(connection) = self.connections.open.get(&packet.connection) else { return };
        let is_client = connection.end(Side::Client).address == packet.from.1;
        let side = if is_client { Side::Client } else { Side::Server };
        let (outgoing, incoming) =
            (&connection.pipes[side as usize], &connection.pipes[side.other() as usize]);
        with(Cargo::Tcp {
            sign,
            at: segment.map_or(outgoing.sent, |segment| segment.at),
            received: incoming.received,
            window: incoming.told_edge.saturating_sub(incoming.received),
            bytes: segment.map_or(&[], |segment| &segment.bytes),
            last: segment.is_some_and(|segment| segment.last),
        });
    }
}
