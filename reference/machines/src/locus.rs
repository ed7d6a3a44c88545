//! The call object of a conversation (LOC): who is in the call, who is rung, when it is over.
//!
//! One call after another takes place in a locus, each an *instance*. What is decided here is decided by
//! one compare-and-set in the home's store (LOC-005): no cluster asks another.
//!
//! Not here: who may call (the conversation knows its members), when a lease or a ring runs out (the
//! service counts), and how the others hear of it (the outbox).

use std::collections::BTreeMap;

use fusion_protocol::conversation::Kind;
use fusion_protocol::locus::{LocusState, MovedParticipant, ParticipantState, Reason, Replaces};
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, Count, Url, Uuid};
use serde::{Deserialize, Serialize};

use step::Step;
use view::leg_id;
pub use view::{participant_id, register_takes};

/// How many devices of one user can be in one call.
pub const DEVICES_MAX: usize = 16;
/// How many calls of lost conversations a locus takes over in its life; a pair has one other home at a
/// time.
const TAKEN_OVER_MAX: usize = 16;

/// A locus as its home stores it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Locus {
    /// `TERMINATING` is passed through within one step and never stored.
    pub state: LocusState,
    /// The call that goes on, or the last one.
    pub instance: Count,
    /// Goes up with every change and never restarts (LOC-008).
    pub rev: Count,
    /// What kind of conversation the call is in.
    pub kind: Kind,
    /// Everybody's part in the call; after its end, what became of them.
    pub parties: BTreeMap<Address, Party>,
    /// The calls that go on in this one (LOC-004).
    pub replaces: Vec<Replaces>,
    /// The calls that were ever taken over, so that none is taken over twice.
    pub taken_over: Vec<Replaces>,
    /// The control interfaces of the relays that the call has used: the last carries its media now.
    pub relays: Vec<Url>,
    /// Whether calls take place here at all.
    pub place: Place,
}

/// Whether a locus is where its pair calls (LOC-004).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "place")]
pub enum Place {
    /// It is.
    Here,
    /// Its conversation lost the race: calls take place at the winner's.
    Moved {
        /// The call that was going on and goes on there.
        call: Option<Count>,
        /// Who was in it.
        joined: Vec<MovedParticipant>,
    },
}

/// Somebody's part in a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// Their state.
    pub state: ParticipantState,
    /// Why, when it is final.
    pub reason: Option<Reason>,
    /// Their devices in the call, each with its media leg. Not empty exactly while `JOINED`.
    pub devices: BTreeMap<String, Uuid>,
}

/// What happens to a locus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// LOC-002: a device joins, and thereby calls the others.
    Join(Join),
    /// The user does not want to (LOC-006: one device declines for all).
    Decline {
        /// Who.
        user: Address,
        /// The call that is meant.
        instance: Count,
    },
    /// The user leaves with one device, or with all.
    Leave {
        /// Who.
        user: Address,
        /// The call that is meant.
        instance: Count,
        /// The device; `None`: all.
        device: Option<String>,
    },
    /// LOC-006: nobody has answered in time.
    RingTimeout {
        /// The call that rang.
        instance: Count,
    },
    /// LOC-007: a device has not renewed its lease.
    LeaseExpired {
        /// Whose.
        user: Address,
        /// The call.
        instance: Count,
        /// The device.
        device: String,
    },
    /// SEC-006: these are in the conversation now, nobody else.
    Members(Vec<Address>),
    /// LOC-004: the conversation lost the race.
    Move,
    /// LOC-004: a call of a lost conversation goes on here, with those who were in it.
    TakeOver(TakeOver),
    /// MED-004: a relay carries the call no more.
    RelayFailed {
        /// The call.
        instance: Count,
        /// The relay that failed.
        from: Url,
        /// The one that takes over: the same one, when it has been started anew.
        to: Url,
    },
}

/// A device joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Who.
    pub user: Address,
    /// Their device.
    pub device: String,
    /// LOC-003: the instance that it last saw ended.
    pub expect: Count,
    /// The id of the leg that the device gets if it is new to the call.
    pub leg: Uuid,
    /// What a call that starts now starts with.
    pub setting: Setting,
}

/// A call of a lost conversation goes on here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakeOver {
    /// The call, and who is in it.
    pub call: Replaces,
    /// What the ids of the legs are derived from.
    pub seed: Uuid,
    /// What a call that starts now starts with.
    pub setting: Setting,
}

/// What a call starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The relay that carries it.
    pub relay: Option<Url>,
    /// The conversation's kind.
    pub kind: Kind,
    /// The conversation's members: all of them are called.
    pub members: Vec<Address>,
}

/// What follows from a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The locus came into this state, or changed within it.
    Entered {
        /// The state.
        state: LocusState,
        /// With this revision.
        rev: Count,
    },
    /// The user's entry of the active list is to say what [`Locus::entry`] says; at most one a user.
    Tell {
        /// Whose.
        user: Address,
        /// What their devices are woken with, if at all.
        event: Option<EventType>,
    },
    /// The device needs this leg, new or not.
    OpenLeg(Uuid),
    /// The leg is over.
    CloseLeg(Uuid),
    /// Every leg of the call is over.
    EndInstance(Count),
}

/// Why a step was not taken. The locus is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// LOC-003: the call that was meant is over, or never was.
    #[error("the call is over")]
    CallOver,
    /// The user's state does not allow it.
    #[error("the participant is not in a state that allows this")]
    NotNow,
    /// LOC-004: calls take place at the winner's locus.
    #[error("the conversation lost its race")]
    Moved,
    /// More than [`DEVICES_MAX`].
    #[error("a user has at most {DEVICES_MAX} devices in a call")]
    TooManyDevices,
}

impl Default for Locus {
    /// LOC-001: the locus of a new conversation.
    fn default() -> Self {
        Self {
            state: LocusState::Inactive,
            instance: Count(0),
            rev: Count(0),
            kind: Kind::OneToOne,
            parties: BTreeMap::new(),
            replaces: Vec::new(),
            taken_over: Vec::new(),
            relays: Vec::new(),
            place: Place::Here,
        }
    }
}

impl Default for Party {
    fn default() -> Self {
        Self { state: ParticipantState::Idle, reason: None, devices: BTreeMap::new() }
    }
}

impl Locus {
    /// Takes one step. An event that changes nothing (a repeated one, a late timer) has no effects.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing has changed then.
    pub fn step(&mut self, event: Event) -> Result<Vec<Effect>, Refusal> {
        match event {
            Event::Join(join) => self.join(join),
            Event::Decline { user, instance } => self.decline(&user, instance),
            Event::Leave { user, instance, device } => self.leave(&user, instance, device.as_deref()),
            Event::RingTimeout { instance } => Ok(self.ring_timeout(instance)),
            Event::LeaseExpired { user, instance, device } => Ok(self.expire(&user, instance, &device)),
            Event::Members(members) => Ok(self.members(&members)),
            Event::Move => Ok(self.move_away()),
            Event::TakeOver(take_over) => Ok(self.take_over(take_over)),
            Event::RelayFailed { instance, from, to } => Ok(self.change_relay(instance, &from, to)),
        }
    }

    /// Whether a call goes on.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state != LocusState::Inactive
    }

    /// Whether `device` of `user` is in the call `instance`: only then can a lease be renewed (LOC-007).
    #[must_use]
    pub fn holds(&self, user: &Address, instance: Count, device: &str) -> bool {
        self.is_active()
            && self.instance == instance
            && self.parties.get(user).is_some_and(|party| party.devices.contains_key(device))
    }

    /// The control interface of the relay that carries the call's media now.
    #[must_use]
    pub fn relay(&self) -> Option<&Url> {
        self.relays.last()
    }

    /// Whether anybody is being rung.
    #[must_use]
    pub fn rings(&self) -> bool {
        self.parties.values().any(|party| party.state == ParticipantState::Notified)
    }

    fn join(&mut self, join: Join) -> Result<Vec<Effect>, Refusal> {
        if self.place != Place::Here {
            return Err(Refusal::Moved);
        }
        match (self.is_active(), join.expect) {
            (false, expect) if expect == self.instance => Ok(self.start(join)),
            (true, expect) if expect.next() == self.instance => self.join_call(join),
            _ => Err(Refusal::CallOver),
        }
    }

    fn start(&mut self, join: Join) -> Vec<Effect> {
        let mut step = Step::default();
        self.begin(join.setting, &mut step);
        step.told.insert(join.user.clone(), Some(EventType::LocusChanged));
        self.parties.entry(join.user).or_default().enter(join.device, join.leg);
        step.legs.push(Effect::OpenLeg(join.leg));
        self.enter(LocusState::Initializing, &mut step);
        step.into_effects()
    }

    /// The next call: everybody is rung.
    fn begin(&mut self, setting: Setting, step: &mut Step) {
        self.instance = self.instance.next();
        self.kind = setting.kind;
        self.relays = setting.relay.into_iter().collect();
        self.parties = setting.members.into_iter().map(|user| (user, Party::notified())).collect();
        for user in self.parties.keys() {
            step.tell(user, Some(EventType::LocusRinging));
        }
    }

    fn join_call(&mut self, join: Join) -> Result<Vec<Effect>, Refusal> {
        let mut step = Step::default();
        let party = self.parties.entry(join.user.clone()).or_default();
        if let Some(leg) = party.devices.get(&join.device) {
            // Joined already: the answer got lost, or the device wants its leg again.
            return Ok(vec![Effect::OpenLeg(*leg)]);
        }
        if party.devices.len() >= DEVICES_MAX {
            return Err(Refusal::TooManyDevices);
        }
        let was_rung = party.state == ParticipantState::Notified;
        party.enter(join.device, join.leg);
        step.legs.push(Effect::OpenLeg(join.leg));
        self.tell_joined(&mut step);
        // LOC-006: the user's other devices ring no more.
        let event = if was_rung { EventType::LocusAnsweredElsewhere } else { EventType::LocusChanged };
        step.tell(&join.user, Some(event));
        self.connect(&mut step);
        Ok(step.into_effects())
    }

    /// Somebody has joined: two make a call active.
    fn connect(&mut self, step: &mut Step) {
        let connected = self.count(ParticipantState::Joined) >= 2;
        if connected && self.state == LocusState::Initializing {
            // Those who are still rung learn the state, quietly.
            self.tell_rung(step);
            self.enter(LocusState::Active, step);
        } else {
            self.enter(self.state, step);
        }
    }

    fn decline(&mut self, user: &Address, instance: Count) -> Result<Vec<Effect>, Refusal> {
        self.is_meant(instance)?;
        let mut step = Step::default();
        match self.parties.get_mut(user) {
            Some(party) if party.is_final() => return Ok(Vec::new()),
            Some(party) if self.state != LocusState::Inactive && party.devices.is_empty() => {
                party.finish(ParticipantState::Declined, Some(Reason::Hangup));
            }
            _ => return Err(Refusal::NotNow),
        }
        step.tell(user, Some(EventType::LocusChanged));
        self.settle(&mut step);
        Ok(step.into_effects())
    }

    fn leave(
        &mut self,
        user: &Address,
        instance: Count,
        device: Option<&str>,
    ) -> Result<Vec<Effect>, Refusal> {
        self.is_meant(instance)?;
        match self.parties.get(user) {
            Some(party) if party.is_final() => Ok(Vec::new()),
            Some(party) if party.state == ParticipantState::Joined => {
                Ok(self.remove_devices(user, device, Reason::Hangup))
            }
            _ => Err(Refusal::NotNow),
        }
    }

    fn ring_timeout(&mut self, instance: Count) -> Vec<Effect> {
        let mut step = Step::default();
        if !self.is_active() || self.instance != instance || !self.rings() {
            return Vec::new();
        }
        for (user, party) in &mut self.parties {
            if party.state == ParticipantState::Notified {
                party.finish(ParticipantState::Left, Some(Reason::Missed));
                step.tell(user, Some(EventType::LocusChanged));
            }
        }
        self.settle(&mut step);
        step.into_effects()
    }

    fn expire(&mut self, user: &Address, instance: Count, device: &str) -> Vec<Effect> {
        if !self.holds(user, instance, device) {
            return Vec::new();
        }
        self.remove_devices(user, Some(device), Reason::Lease)
    }

    fn members(&mut self, members: &[Address]) -> Vec<Effect> {
        let mut step = Step::default();
        if !self.is_active() {
            // Readers see the members as the conversation has them, under a new revision.
            self.parties.retain(|user, _| members.contains(user));
            self.enter(self.state, &mut step);
            return step.into_effects();
        }
        for (user, party) in &mut self.parties {
            if party.reason != Some(Reason::Removed) && !members.contains(user) {
                step.close_legs(party);
                party.finish(ParticipantState::Left, Some(Reason::Removed));
                step.tell(user, Some(EventType::LocusEnded));
            }
        }
        for user in members {
            // Who comes while a call goes on is not rung, and may join it.
            if !self.parties.contains_key(user) {
                self.parties.insert(user.clone(), Party::default());
                step.tell(user, None);
            }
        }
        if !step.told.is_empty() {
            self.settle(&mut step);
        }
        step.into_effects()
    }

    fn move_away(&mut self) -> Vec<Effect> {
        if self.place != Place::Here {
            return Vec::new();
        }
        let mut step = Step::default();
        let call = self.is_active().then_some(self.instance);
        self.place = Place::Moved { call, joined: self.joined() };
        match call {
            // Nobody left and nobody missed it: the call goes on at the winner.
            Some(_) => self.end(None, None, &mut step),
            None => self.enter(self.state, &mut step),
        }
        step.into_effects()
    }

    fn take_over(&mut self, take_over: TakeOver) -> Vec<Effect> {
        let TakeOver { call, seed, setting } = take_over;
        let shown = Replaces { joined: Vec::new(), ..call };
        let room = self.taken_over.len() < TAKEN_OVER_MAX;
        if self.place != Place::Here || self.taken_over.contains(&shown) || !room {
            return Vec::new();
        }
        let mut step = Step::default();
        self.taken_over.push(shown.clone());
        let mut moved = call.joined;
        moved.retain(|moved| setting.members.contains(&moved.user) && !moved.devices.is_empty());
        if moved.is_empty() {
            self.enter(self.state, &mut step);
            return step.into_effects();
        }
        if !self.is_active() {
            self.begin(setting, &mut step);
            self.enter(LocusState::Initializing, &mut step);
        }
        self.replaces.push(shown);
        for moved in moved {
            // Those who move are in the call, whatever rang here before.
            step.told.insert(moved.user.clone(), Some(EventType::LocusChanged));
            let party = self.parties.entry(moved.user.clone()).or_default();
            for device in moved.devices.into_iter().take(DEVICES_MAX) {
                let leg = leg_id(seed, &moved.user, &device);
                if !party.devices.contains_key(&device) && party.devices.len() < DEVICES_MAX {
                    party.enter(device, leg);
                    step.legs.push(Effect::OpenLeg(leg));
                }
            }
        }
        self.tell_joined(&mut step);
        self.connect(&mut step);
        step.into_effects()
    }

    fn change_relay(&mut self, instance: Count, from: &Url, to: Url) -> Vec<Effect> {
        let meant = self.is_active() && self.instance == instance && self.relay() == Some(from);
        if !meant {
            return Vec::new();
        }
        let mut step = Step::default();
        self.relays.retain(|relay| *relay != to);
        self.relays.push(to);
        for (user, party) in &self.parties {
            if party.state == ParticipantState::Joined {
                step.tell(user, Some(EventType::LocusRelayChanged));
            }
        }
        self.enter(self.state, &mut step);
        step.into_effects()
    }

    fn remove_devices(&mut self, user: &Address, device: Option<&str>, reason: Reason) -> Vec<Effect> {
        let mut step = Step::default();
        let Some(party) = self.parties.get_mut(user) else { return Vec::new() };
        let before = party.devices.len();
        party.devices.retain(|id, leg| {
            let stays = device.is_some_and(|device| device != id);
            if !stays {
                step.legs.push(Effect::CloseLeg(*leg));
            }
            stays
        });
        if party.devices.len() == before {
            return Vec::new();
        }
        if party.devices.is_empty() {
            party.finish(ParticipantState::Left, Some(reason));
        }
        step.tell(user, Some(EventType::LocusChanged));
        self.settle(&mut step);
        step.into_effects()
    }

    /// After somebody went: does the call go on? An empty one ends, and a 1:1 with one left and nobody
    /// rung.
    fn settle(&mut self, step: &mut Step) {
        let joined = self.count(ParticipantState::Joined);
        let alone = self.kind == Kind::OneToOne && joined == 1 && !self.rings();
        if joined == 0 || alone {
            self.end(Some(Reason::Alone), Some(Reason::Missed), step);
        } else {
            self.tell_joined(step);
            self.enter(self.state, step);
        }
    }

    /// The call is over for everybody. `joined` and `rung` say why it is for whoever still was.
    fn end(&mut self, joined: Option<Reason>, rung: Option<Reason>, step: &mut Step) {
        for (user, party) in &mut self.parties {
            match party.state {
                ParticipantState::Joined => party.finish(ParticipantState::Left, joined),
                ParticipantState::Notified => party.finish(ParticipantState::Left, rung),
                ParticipantState::Idle | ParticipantState::Left | ParticipantState::Declined => {}
            }
            step.tell(user, Some(EventType::LocusEnded));
        }
        self.replaces.clear();
        step.legs = vec![Effect::EndInstance(self.instance)];
        self.enter(LocusState::Terminating, step);
        self.enter(LocusState::Inactive, step);
    }

    fn enter(&mut self, state: LocusState, step: &mut Step) {
        self.state = state;
        self.rev = self.rev.next();
        step.entered.push(Effect::Entered { state, rev: self.rev });
    }

    fn tell_joined(&self, step: &mut Step) {
        for (user, party) in &self.parties {
            if party.state == ParticipantState::Joined {
                step.tell(user, Some(EventType::LocusChanged));
            }
        }
    }

    fn tell_rung(&self, step: &mut Step) {
        for (user, party) in &self.parties {
            if party.state == ParticipantState::Notified {
                step.tell(user, None);
            }
        }
    }

    /// LOC-003: the call that goes on or was the last one; any other is over.
    fn is_meant(&self, instance: Count) -> Result<(), Refusal> {
        if instance == self.instance { Ok(()) } else { Err(Refusal::CallOver) }
    }

    fn joined(&self) -> Vec<MovedParticipant> {
        let joined = self.parties.iter().filter(|(_, party)| party.state == ParticipantState::Joined);
        let moved = |(user, party): (&Address, &Party)| MovedParticipant {
            user: user.clone(),
            devices: party.devices.keys().cloned().collect(),
        };
        joined.map(moved).collect()
    }

    fn count(&self, state: ParticipantState) -> usize {
        self.parties.values().filter(|party| party.state == state).count()
    }
}

impl Party {
    fn notified() -> Self {
        Self { state: ParticipantState::Notified, ..Self::default() }
    }

    fn enter(&mut self, device: String, leg: Uuid) {
        self.state = ParticipantState::Joined;
        self.reason = None;
        self.devices.insert(device, leg);
    }

    fn finish(&mut self, state: ParticipantState, reason: Option<Reason>) {
        self.state = state;
        self.reason = reason;
        self.devices.clear();
    }

    fn is_final(&self) -> bool {
        matches!(self.state, ParticipantState::Left | ParticipantState::Declined)
    }
}

mod step;
#[cfg(test)]
mod tests;
mod view;
