//! The queue of one device's events, from durable enqueue to acknowledgement (MER-002..005).
//!
//! A queue has two ends that different parties write, so that they never wait for each other: the
//! [`Tail`], moved by whoever enqueues, in the commit that the event announces; the [`Head`], moved by
//! the connection server. [`Delivery`] is what one socket has in flight, and is not durable.
//!
//! Not here: the events themselves (rows of the store, one a `seq`), pings, sockets.

use std::collections::VecDeque;
use std::ops::Range;

use fusion_protocol::mercury::{RETENTION_EVENTS, RETENTION_SECONDS};
use serde::{Deserialize, Serialize};

/// How many stored events an enqueue looks at, to drop what has outlived its retention. More than one,
/// so that a queue shrinks faster than it grows.
pub const PROBES: u64 = 2;

/// For how long and for how many events a queue is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How many events.
    pub events: u64,
    /// For how long, in microseconds.
    pub age_us: u64,
}

/// The end at which events are added. Its commit carries the event and what the event announces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tail {
    /// The `seq` of the last event; 0 before the first.
    pub last: u64,
    /// No event up to this one is stored any more.
    pub dropped: u64,
}

/// What an enqueue did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// The queue holds an event of this id: nothing to write.
    Known,
    /// The event is to be stored under `seq`, and the events of `drop` are to be removed.
    Added {
        /// The event's place, one more than the last.
        seq: u64,
        /// What has outlived its retention, or has been taken.
        drop: Range<u64>,
    },
}

/// The end at which events are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// All up to this `seq` has been taken, or is lost.
    pub acked: u64,
    /// The epoch of the newest socket (MER-005); 0 before the first.
    pub session: u64,
}

/// What the opening of a socket decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The socket's epoch: all older sockets of the device are fenced.
    pub session: u64,
    /// Where the device says it stands: what `ready` answers.
    pub base: u64,
    /// The new base, when events between it and `base` are lost (MER-003).
    pub resync: Option<u64>,
    /// The events that are to be removed: taken, or lost.
    pub drop: Range<u64>,
}

/// Why the head does not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// A newer socket of the device has taken over (MER-005).
    #[error("a newer session of the device has taken over")]
    Fenced,
    /// The device acknowledges what it was never sent.
    #[error("an acknowledgement of an event that was not sent")]
    Ahead,
}

/// What one socket has in flight: at most `window` events that are sent and not acknowledged.
#[derive(Clone, Debug)]
pub struct Delivery<K> {
    base: u64,
    window: usize,
    /// The events after `base`, each with what the caller needs for its removal.
    in_flight: VecDeque<K>,
}

/// What becomes of a stored event that is next to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is to be sent.
    Send,
    /// Events before it are lost: `resync` with this base is to be sent first.
    Resync(u64),
}

impl Default for Retention {
    /// MER-005: 24 hours or 10,000 events.
    fn default() -> Self {
        Self { events: RETENTION_EVENTS, age_us: RETENTION_SECONDS * 1_000_000 }
    }
}

impl Retention {
    /// Whether an event that was enqueued at `at_us` is still owed at `now_us`.
    #[must_use]
    pub fn keeps(&self, at_us: u64, now_us: u64) -> bool {
        now_us.saturating_sub(at_us) <= self.age_us
    }
}

impl Tail {
    /// Which stored events [`Tail::enqueue`] wants to know of.
    #[must_use]
    pub fn probes(&self) -> Range<u64> {
        self.dropped + 1..(self.dropped + 1 + PROBES).min(self.last + 1)
    }

    /// MER-002, MER-005: gives the next `seq` to an event, unless one of its id is stored (`known`).
    /// `probed`: when each event of [`Tail::probes`] was enqueued, in microseconds; `None` where none is
    /// stored. Overflow ends in the loss of the oldest, not in growth (MER-004).
    pub fn enqueue(
        &mut self,
        known: bool,
        probed: impl IntoIterator<Item = Option<u64>>,
        retention: Retention,
        now_us: u64,
    ) -> Enqueued {
        if known {
            return Enqueued::Known;
        }
        self.last += 1;
        let from = self.dropped + 1;
        for at_us in probed {
            let over = self.last - self.dropped > retention.events;
            let owed = at_us.is_some_and(|at_us| retention.keeps(at_us, now_us));
            if owed && !over {
                break;
            }
            self.dropped += 1;
        }
        Enqueued::Added { seq: self.last, drop: from..self.dropped + 1 }
    }
}

impl Head {
    /// MER-005: a new socket of the device, which fences all older ones. `resume` is authoritative: all up
    /// to it counts as acknowledged. `first`: the oldest event after it that is stored and still owed;
    /// `last`: the queue's last `seq`.
    pub fn open(&mut self, resume: Option<u64>, first: Option<u64>, last: u64) -> Opened {
        let before = self.acked;
        let base = resume.unwrap_or(before).min(last);
        let floor = first.map_or(last, |first| first.saturating_sub(1).max(base));
        self.acked = floor.max(before);
        self.session += 1;
        // A device that has forgotten where it stood gets the rest of the queue; one that says where it
        // stands is told of every gap, one that claims the future too.
        let moved = self.acked != base || resume.is_some_and(|resume| resume > last);
        Opened {
            session: self.session,
            base,
            resync: moved.then_some(self.acked),
            drop: before + 1..self.acked + 1,
        }
    }

    /// All up to `seq` has been taken by the socket of `session`: what is to be removed.
    ///
    /// # Errors
    /// [`AckError::Fenced`] when a newer socket has taken over.
    pub fn ack(&mut self, session: u64, seq: u64) -> Result<Range<u64>, AckError> {
        if session != self.session {
            return Err(AckError::Fenced);
        }
        let before = self.acked;
        self.acked = before.max(seq);
        Ok(before + 1..self.acked + 1)
    }
}

impl<K> Delivery<K> {
    /// A socket that has been told `base`.
    #[must_use]
    pub fn new(base: u64, window: usize) -> Self {
        Self { base, window, in_flight: VecDeque::new() }
    }

    /// The `seq` after which the next event is looked for.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.base + self.in_flight.len() as u64
    }

    /// How many more events may be sent now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.window.saturating_sub(self.in_flight.len())
    }

    /// The event `seq` is the oldest stored one after [`Delivery::sent`] and is about to be sent.
    pub fn send(&mut self, seq: u64, event: K) -> Next {
        assert!(seq > self.sent(), "events are sent in order and once");
        assert!(self.room() > 0, "the window bounds what is in flight");
        let next = if seq == self.sent() + 1 { Next::Send } else { Next::Resync(seq - 1) };
        if let Next::Resync(base) = next {
            // What is in flight before the gap is as good as taken: its rows are lost with the others.
            self.in_flight.clear();
            self.base = base;
        }
        self.in_flight.push_back(event);
        next
    }

    /// The device has taken all up to `seq`: the events that this acknowledges.
    ///
    /// # Errors
    /// [`AckError::Ahead`] for what was never sent.
    pub fn ack(&mut self, seq: u64) -> Result<Vec<K>, AckError> {
        if seq > self.sent() {
            return Err(AckError::Ahead);
        }
        let taken = seq.saturating_sub(self.base);
        self.base += taken;
        Ok(self.in_flight.drain(..taken as usize).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const RETENTION: Retention = Retention { events: 8, age_us: 1_000 };
    const WINDOW: usize = 3;

    /// The rows of one queue, as a store would keep them, and the device that they are for.
    #[derive(Default)]
    struct World {
        now_us: u64,
        tail: Tail,
        head: Head,
        rows: BTreeMap<u64, (u64, u32)>,
        socket: Option<(u64, Delivery<u64>)>,
        device: Device,
        /// Every event of the queue that was ever added: its id.
        added: BTreeMap<u64, u32>,
    }

    /// What a device that keeps to the protocol knows.
    #[derive(Default)]
    struct Device {
        seq: Option<u64>,
        got: BTreeMap<u64, u32>,
        lost: Vec<u64>,
    }

    impl World {
        fn enqueue(&mut self, id: u32) {
            let known = self.rows.values().any(|(_, stored)| *stored == id);
            let probed: Vec<_> =
                self.tail.probes().map(|seq| self.rows.get(&seq).map(|(at_us, _)| *at_us)).collect();
            let before = self.tail.last;
            match self.tail.enqueue(known, probed, RETENTION, self.now_us) {
                Enqueued::Known => assert!(known),
                Enqueued::Added { seq, drop } => {
                    assert_eq!(seq, before + 1, "gapless");
                    drop.for_each(|seq| drop_row(&mut self.rows, seq));
                    self.rows.insert(seq, (self.now_us, id));
                    self.added.insert(seq, id);
                }
            }
        }

        fn first_owed(&self, after: u64) -> Option<u64> {
            let mut rows = self.rows.range(after + 1..);
            rows.find(|(_, (at_us, _))| RETENTION.keeps(*at_us, self.now_us)).map(|(seq, _)| *seq)
        }

        fn open(&mut self) {
            let resume = self.device.seq;
            let first = self.first_owed(resume.unwrap_or(self.head.acked).min(self.tail.last));
            let opened = self.head.open(resume, first, self.tail.last);
            opened.drop.clone().for_each(|seq| drop_row(&mut self.rows, seq));
            self.device.ready(opened.base);
            if let Some(base) = opened.resync {
                self.device.resync(base);
            }
            self.socket = Some((opened.session, Delivery::new(self.head.acked, WINDOW)));
        }

        fn deliver(&mut self) {
            let Some(sent) = self.socket.as_ref().map(|(_, delivery)| delivery.sent()) else { return };
            let Some(seq) = self.first_owed(sent) else { return };
            let Some((_, delivery)) = &mut self.socket else { return };
            if delivery.room() == 0 {
                return;
            }
            if let Next::Resync(base) = delivery.send(seq, seq) {
                self.device.resync(base);
            }
            self.device.event(seq, self.rows[&seq].1);
        }

        fn ack(&mut self) {
            let (Some((session, delivery)), Some(seq)) = (&mut self.socket, self.device.seq) else { return };
            delivery.ack(seq).unwrap();
            let dropped = self.head.ack(*session, seq).unwrap();
            dropped.for_each(|seq| drop_row(&mut self.rows, seq));
        }
    }

    fn drop_row(rows: &mut BTreeMap<u64, (u64, u32)>, seq: u64) {
        rows.remove(&seq);
    }

    impl Device {
        fn ready(&mut self, base: u64) {
            assert!(self.seq.is_none_or(|seq| seq == base), "resume is authoritative");
            self.seq = Some(base);
        }

        fn resync(&mut self, base: u64) {
            let from = self.seq.unwrap() + 1;
            self.lost.extend(from..base + 1);
            self.seq = Some(base);
        }

        fn event(&mut self, seq: u64, id: u32) {
            assert_eq!(self.seq, Some(seq - 1), "the only permitted jump is a resync");
            assert!(self.got.insert(seq, id).is_none(), "not repeated after a resume");
            self.seq = Some(seq);
        }
    }

    #[derive(Clone, Debug)]
    enum Act {
        Enqueue(u32),
        Open,
        Deliver,
        Ack,
        Drop,
        Wait(u64),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            6 => (0..200_u32).prop_map(Act::Enqueue),
            2 => Just(Act::Open),
            8 => Just(Act::Deliver),
            3 => Just(Act::Ack),
            1 => Just(Act::Drop),
            1 => (0..1_500_u64).prop_map(Act::Wait),
        ];
        proptest::collection::vec(act, 0..120)
    }

    proptest! {
        #[test]
        fn a_device_gets_each_event_once_in_order_or_is_told_of_the_gap(acts in acts()) {
            let mut world = World::default();
            for act in acts {
                match act {
                    Act::Enqueue(id) => world.enqueue(id),
                    Act::Open => world.open(),
                    Act::Deliver => world.deliver(),
                    Act::Ack => world.ack(),
                    Act::Drop => world.socket = None,
                    Act::Wait(us) => world.now_us += us,
                }
                prop_assert!(world.rows.len() as u64 <= RETENTION.events, "bounded (MER-004)");
            }
            world.open();
            while world.socket.as_ref().unwrap().1.sent() < world.tail.last {
                let sent = world.socket.as_ref().unwrap().1.sent();
                world.deliver();
                world.ack();
                prop_assert!(world.socket.as_ref().unwrap().1.sent() > sent, "it goes on");
            }
            for (seq, id) in &world.added {
                let told = world.device.lost.contains(seq);
                prop_assert!(told || world.device.got.get(seq) == Some(id), "event {} vanished", seq);
            }
        }
    }

    #[test]
    fn a_repeated_notification_is_one_event_while_it_is_kept() {
        let mut world = World::default();
        world.enqueue(1);
        world.enqueue(1);
        assert_eq!(world.tail.last, 1);
    }

    #[test]
    fn an_event_within_retention_is_never_lost_to_a_crash_of_the_connection_server() {
        let mut world = World::default();
        world.open();
        (1..=5).for_each(|id| world.enqueue(id));
        world.deliver();
        world.deliver();
        world.socket = None;
        world.open();
        (0..3).for_each(|_| world.deliver());
        assert_eq!(world.device.got.len(), 5);
        assert!(world.device.lost.is_empty());
    }

    #[test]
    fn a_newer_socket_fences_the_older() {
        let mut head = Head::default();
        let older = head.open(None, None, 0).session;
        let newer = head.open(None, None, 0).session;
        assert_eq!(head.ack(older, 1), Err(AckError::Fenced));
        assert_eq!(head.ack(newer, 1), Ok(1..2));
    }

    #[test]
    fn overflow_ends_in_resync_with_the_new_base() {
        let mut world = World::default();
        world.open();
        (1..=20).for_each(|id| world.enqueue(id));
        world.open();
        assert_eq!(world.device.lost, Vec::from_iter(1..=12));
        assert_eq!(world.device.seq, Some(12));
    }

    #[test]
    fn what_is_older_than_the_retention_is_resynced_away() {
        let mut world = World::default();
        world.open();
        (1..=3).for_each(|id| world.enqueue(id));
        world.now_us += RETENTION.age_us + 1;
        world.open();
        assert_eq!(world.device.lost, [1, 2, 3]);
        world.enqueue(4);
        assert!(world.rows.len() < 3, "what nobody fetched goes away by itself");
    }

    #[test]
    fn a_device_that_claims_the_future_is_told_the_present() {
        let mut head = Head::default();
        let opened = head.open(Some(9), None, 4);
        assert_eq!((opened.base, opened.resync), (4, Some(4)));
    }

    #[test]
    fn an_acknowledgement_of_what_was_not_sent_is_refused() {
        let mut delivery = Delivery::new(0, WINDOW);
        assert_eq!(delivery.send(1, ()), Next::Send);
        assert_eq!(delivery.ack(2), Err(AckError::Ahead));
    }

    #[test]
    fn a_slow_device_has_a_bounded_window_in_flight() {
        let mut delivery = Delivery::new(0, WINDOW);
        (1..=3).for_each(|seq| assert_eq!(delivery.send(seq, ()), Next::Send));
        assert_eq!(delivery.room(), 0);
        assert_eq!(delivery.ack(2).unwrap().len(), 2);
        assert_eq!(delivery.room(), 2);
    }
}
