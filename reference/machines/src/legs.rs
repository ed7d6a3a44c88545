//! The leg table of a media relay (MED): who may send to whom, and what became of every packet.
//!
//! A leg is where one device of one call sends. It is opened by the locus, bound to an address by its
//! token, forwards to the other bound legs of the same instance and to nobody else, and is remembered
//! for a while after its end, so that late packets are counted and not forwarded.
//!
//! Not here: sockets, and where tokens come from. Nothing on the packet's path allocates.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use fusion_protocol::media::{Counters, Datagram, Leg, LegCounters, OpenLeg};
use fusion_protocol::{Count, Uuid};

/// How many legs of one instance are forwarded to: participants with a device or two.
pub const ROOM_MAX: usize = 2_000;

/// The leg table of one relay.
#[derive(Clone, Debug)]
pub struct Legs {
    udp_address: SocketAddr,
    limit: usize,
    next: u64,
    legs: BTreeMap<Handle, Slot>,
    by_id: BTreeMap<Uuid, Handle>,
    by_token: BTreeMap<String, Handle>,
    by_address: BTreeMap<SocketAddr, Handle>,
    rooms: BTreeMap<Uuid, Room>,
    /// Closed legs, oldest first; at most `limit`.
    closed: VecDeque<Handle>,
    /// Loci none of whose legs is open, in the order in which they became so; at most `limit`.
    empty: VecDeque<(Uuid, Count)>,
    unbound: u64,
    /// Where the last packet goes; kept to spare an allocation a packet.
    to: Vec<SocketAddr>,
}

/// A leg's place in the table; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Handle(u64);

#[derive(Clone, Debug)]
struct Slot {
    leg: Leg,
    locus: Uuid,
    instance: Count,
    open: bool,
    address: Option<SocketAddr>,
    received: u64,
    forwarded: u64,
    dropped_alone: u64,
    dropped_malformed: u64,
    dropped_closed: u64,
    dropped_late: u64,
    sent: u64,
}

/// The newest instance of a locus that this relay knows.
#[derive(Clone, Debug)]
struct Room {
    instance: Count,
    over: bool,
    legs: Vec<Handle>,
}

/// Why a leg is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenRefusal {
    /// MED-001: the instance is over.
    #[error("the call is over")]
    CallOver,
    /// The id is another call's.
    #[error("the leg belongs to another call")]
    OtherCall,
    /// The table or the instance is full.
    #[error("the relay is full")]
    Full,
}

/// What a new leg is given; used only when it is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// Its token: unguessable, never given twice.
    pub token: String,
    /// Its source.
    pub ssrc: u32,
}

/// What became of a binding request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Binding {
    /// This leg is now bound to the sender's address.
    New(Uuid),
    /// It was already.
    Again,
    /// The token is good for nothing here: the sender is not answered.
    Refused,
}

impl Legs {
    /// An empty table of a relay whose devices send to `udp_address`: at most `limit` legs are open, and
    /// as many closed ones are remembered.
    #[must_use]
    pub fn new(udp_address: SocketAddr, limit: usize) -> Self {
        Self {
            udp_address,
            limit,
            next: 0,
            legs: BTreeMap::new(),
            by_id: BTreeMap::new(),
            by_token: BTreeMap::new(),
            by_address: BTreeMap::new(),
            rooms: BTreeMap::new(),
            closed: VecDeque::new(),
            empty: VecDeque::new(),
            unbound: 0,
            to: Vec::new(),
        }
    }

    /// Opens a leg. A repeated one is the same leg; a newer instance of a locus ends the older ones.
    ///
    /// # Errors
    /// See [`OpenRefusal`]; nothing has changed then.
    pub fn open(&mut self, open: &OpenLeg, secrets: Secrets) -> Result<Leg, OpenRefusal> {
        if let Some(known) = self.known(open)? {
            return Ok(known);
        }
        match self.rooms.get(&open.locus) {
            Some(room) if open.instance < room.instance => return Err(OpenRefusal::CallOver),
            Some(room) if open.instance == room.instance && room.over => return Err(OpenRefusal::CallOver),
            Some(room) if open.instance == room.instance && room.legs.len() >= ROOM_MAX => {
                return Err(OpenRefusal::Full);
            }
            Some(room) if open.instance > room.instance => self.end_room(open.locus),
            _ => {}
        }
        if self.open_count() >= self.limit {
            return Err(OpenRefusal::Full);
        }
        Ok(self.insert(open, secrets))
    }

    /// Binds the leg that `token` is good for to the address `from`.
    ///
    /// A device that changes its network binds again. MED-001: an address that an open leg of another
    /// call holds is not taken away, or a forged source address could divert somebody's media into a
    /// call of the forger's.
    pub fn bind(&mut self, token: &str, from: SocketAddr) -> Binding {
        let Some(handle) = self.by_token.get(token).copied() else {
            self.count_stray(from);
            return Binding::Refused;
        };
        let holder = self.by_address.get(&from).copied();
        if holder == Some(handle) {
            return Binding::Again;
        }
        if holder.is_some_and(|holder| self.slot(holder).open && !self.same_call(holder, handle)) {
            self.count_stray(from);
            return Binding::Refused;
        }
        if let Some(holder) = holder {
            self.slot(holder).address = None;
        }
        self.by_address.insert(from, handle);
        let slot = self.slot(handle);
        let (id, old) = (slot.leg.id, slot.address.replace(from));
        if let Some(old) = old {
            self.by_address.remove(&old);
        }
        Binding::New(id)
    }

    /// Where a datagram from `from` goes, which is neither a binding request nor forwarded when it is
    /// anything but RTP or RTCP. MED-005: it is counted as received, and as forwarded or as dropped.
    pub fn packet(&mut self, from: SocketAddr, datagram: &Datagram<'_>) -> &[SocketAddr] {
        self.to.clear();
        let Some(handle) = self.by_address.get(&from).copied() else {
            self.unbound += 1;
            return &self.to;
        };
        let Some(slot) = self.legs.get_mut(&handle) else { return &self.to };
        slot.received += 1;
        if !matches!(datagram, Datagram::Rtp { .. } | Datagram::Rtcp) {
            slot.dropped_malformed += 1;
        } else if !slot.open {
            slot.dropped_closed += 1;
        } else {
            let locus = slot.locus;
            self.fan_out(handle, locus);
        }
        &self.to
    }

    /// A datagram from `from` that is too late to be looked at: counted, and gone.
    pub fn late(&mut self, from: SocketAddr) {
        match self.by_address.get(&from).copied() {
            Some(handle) => {
                let slot = self.slot(handle);
                slot.received += 1;
                slot.dropped_late += 1;
            }
            None => self.unbound += 1,
        }
    }

    /// How many legs are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.legs.len() - self.closed.len()
    }

    /// Closes a leg: from now on its packets are dropped. Closing it again, or one that never was, is
    /// fine.
    pub fn close_leg(&mut self, id: Uuid) {
        let Some(handle) = self.by_id.get(&id).copied() else { return };
        if !self.slot(handle).open {
            return;
        }
        let slot = self.slot(handle);
        slot.open = false;
        let (token, locus) = (slot.leg.token.clone(), slot.locus);
        self.by_token.remove(&token);
        if let Some(room) = self.rooms.get_mut(&locus) {
            room.legs.retain(|other| *other != handle);
            if room.legs.is_empty() {
                let instance = room.instance;
                self.remember_empty(locus, instance);
            }
        }
        self.closed.push_back(handle);
        if self.closed.len() > self.limit {
            self.forget_oldest();
        }
    }

    /// MED-001: closes every leg of a call, and of all earlier ones of the locus, for ever.
    pub fn close_instance(&mut self, locus: Uuid, instance: Count) {
        let room = self.rooms.entry(locus).or_insert(Room { instance, over: true, legs: Vec::new() });
        if room.instance > instance {
            return;
        }
        let had_none = room.legs.is_empty();
        self.end_room(locus);
        if let Some(room) = self.rooms.get_mut(&locus) {
            room.instance = instance;
            room.over = true;
        }
        if had_none {
            self.remember_empty(locus, instance);
        }
    }

    /// The accounts of all legs, open and remembered, in the order of their opening (MED-005).
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters { legs: self.legs.values().map(Slot::counters).collect(), unbound: Count(self.unbound) }
    }

    /// The account of one leg.
    #[must_use]
    pub fn counters_of(&self, id: Uuid) -> Option<LegCounters> {
        Some(self.legs.get(self.by_id.get(&id)?)?.counters())
    }

    /// The ids of the open legs of a call.
    #[must_use]
    pub fn open_legs(&self, locus: Uuid, instance: Count) -> Vec<Uuid> {
        let room = self.rooms.get(&locus).filter(|room| room.instance == instance);
        let handles = room.into_iter().flat_map(|room| &room.legs);
        handles.filter_map(|handle| Some(self.legs.get(handle)?.leg.id)).collect()
    }

    /// The open leg that `open` asks for again.
    fn known(&self, open: &OpenLeg) -> Result<Option<Leg>, OpenRefusal> {
        let Some(slot) = self.by_id.get(&open.id).and_then(|handle| self.legs.get(handle)) else {
            return Ok(None);
        };
        if slot.locus != open.locus {
            return Err(OpenRefusal::OtherCall);
        }
        let same = slot.open && slot.instance == open.instance;
        Ok(same.then(|| slot.leg.clone()))
    }

    fn insert(&mut self, open: &OpenLeg, secrets: Secrets) -> Leg {
        let handle = Handle(self.next);
        self.next += 1;
        let leg =
            Leg { id: open.id, udp_address: self.udp_address, token: secrets.token, ssrc: secrets.ssrc };
        self.by_id.insert(open.id, handle);
        self.by_token.insert(leg.token.clone(), handle);
        let room = self.rooms.entry(open.locus).or_insert_with(|| Room::of(open.instance));
        room.instance = open.instance;
        room.over = false;
        room.legs.push(handle);
        self.legs.insert(handle, Slot::new(leg.clone(), open));
        leg
    }

    fn fan_out(&mut self, from: Handle, locus: Uuid) {
        let others = self.rooms.get(&locus).into_iter().flat_map(|room| &room.legs);
        for other in others.filter(|other| **other != from) {
            let Some(slot) = self.legs.get_mut(other) else { continue };
            if let Some(address) = slot.address {
                slot.sent += 1;
                self.to.push(address);
            }
        }
        let alone = self.to.is_empty();
        let slot = self.slot(from);
        if alone {
            slot.dropped_alone += 1;
        } else {
            slot.forwarded += 1;
        }
    }

    /// A binding request that is good for nothing: a malformed packet of its leg, or nobody's.
    fn count_stray(&mut self, from: SocketAddr) {
        match self.by_address.get(&from).copied() {
            Some(handle) => {
                let slot = self.slot(handle);
                slot.received += 1;
                slot.dropped_malformed += 1;
            }
            None => self.unbound += 1,
        }
    }

    fn end_room(&mut self, locus: Uuid) {
        let handles = self.rooms.get(&locus).map(|room| room.legs.clone()).unwrap_or_default();
        for handle in handles {
            let id = self.slot(handle).leg.id;
            self.close_leg(id);
        }
    }

    fn remember_empty(&mut self, locus: Uuid, instance: Count) {
        self.empty.push_back((locus, instance));
        if self.empty.len() > self.limit
            && let Some((locus, instance)) = self.empty.pop_front()
            && self.rooms.get(&locus).is_some_and(|room| room.instance == instance && room.legs.is_empty())
        {
            self.rooms.remove(&locus);
        }
    }

    fn forget_oldest(&mut self) {
        let Some(handle) = self.closed.pop_front() else { return };
        let Some(slot) = self.legs.remove(&handle) else { return };
        if self.by_id.get(&slot.leg.id) == Some(&handle) {
            self.by_id.remove(&slot.leg.id);
        }
        if let Some(address) = slot.address {
            self.by_address.remove(&address);
        }
    }

    fn same_call(&self, one: Handle, other: Handle) -> bool {
        let call = |handle| self.legs.get(&handle).map(|slot| (slot.locus, slot.instance));
        call(one) == call(other)
    }

    fn slot(&mut self, handle: Handle) -> &mut Slot {
        self.legs.get_mut(&handle).expect("every handle in an index or a room is of a leg in the table")
    }
}

impl Room {
    fn of(instance: Count) -> Self {
        Self { instance, over: false, legs: Vec::new() }
    }
}

impl Slot {
    fn new(leg: Leg, open: &OpenLeg) -> Self {
        Self {
            leg,
            locus: open.locus,
            instance: open.instance,
            open: true,
            address: None,
            received: 0,
            forwarded: 0,
            dropped_alone: 0,
            dropped_malformed: 0,
            dropped_closed: 0,
            dropped_late: 0,
            sent: 0,
        }
    }

    fn counters(&self) -> LegCounters {
        LegCounters {
            id: self.leg.id,
            locus: self.locus,
            instance: self.instance,
            open: self.open,
            received: Count(self.received),
            forwarded: Count(self.forwarded),
            dropped_alone: Count(self.dropped_alone),
            dropped_malformed: Count(self.dropped_malformed),
            dropped_closed: Count(self.dropped_closed),
            dropped_late: Count(self.dropped_late),
            sent: Count(self.sent),
        }
    }
}

#[cfg(test)]
mod tests;
