//! The world of a call: the locus and what follows from each of its steps, the devices, and their lists.

use std::collections::{BTreeSet, VecDeque};

use fusion_machines::locus::{Effect, Event, Join, Locus, register_takes};
use fusion_protocol::locus::{ActiveLocus, LocusState, ParticipantState};
use fusion_protocol::{Count, Uuid};

use super::{Asked, Bug, Call, DOUBLES_MAX, GONE_MAX, JOINS_MAX, Request, Step, Told};
use crate::cast::{self, Person};

/// More steps than any world needs to come to rest.
const STEPS_MAX: usize = 200;

/// Everything about a call. Two that differ in what decides nothing are one: see [`super::essence`].
#[derive(Clone, Debug)]
pub struct World {
    /// Durable.
    pub(super) locus: Locus,
    /// Durable: what each active list is still to be told, in order.
    pub(super) telling: Vec<VecDeque<Told>>,
    /// In the home's memory: whose leases run.
    pub(super) leases: BTreeSet<Person>,
    /// In the home's memory: whether the ring's time runs.
    pub(super) ring: bool,
    pub(super) devices: Vec<Device>,
    /// What each device waits for an answer to.
    pub(super) waiting: Vec<Option<Request>>,
    /// Each person's active list, durable in their cluster.
    pub(super) lists: Vec<Option<Told>>,
    /// Requests under way.
    pub(super) requests: BTreeSet<Request>,
    /// Entries under way that have arrived once.
    pub(super) late: BTreeSet<(Person, Told)>,
    pub(super) calls: u8,
    pub(super) doubles: u8,
    /// The highest call that anybody has asked for.
    pub(super) asked: u64,
    /// Whether a list has ever gone back.
    pub(super) went_back: bool,
}

/// What a device thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Device {
    Out,
    In(u64),
    Gone,
}

impl World {
    pub(super) fn new(people: usize) -> Self {
        Self {
            locus: Locus::default(),
            telling: vec![VecDeque::new(); people],
            leases: BTreeSet::new(),
            ring: false,
            devices: vec![Device::Out; people],
            waiting: vec![None; people],
            lists: vec![None; people],
            requests: BTreeSet::new(),
            late: BTreeSet::new(),
            calls: 0,
            doubles: 0,
            asked: 0,
            went_back: false,
        }
    }

    /// Whether somebody's device is in the call that goes on.
    pub(super) fn holds(&self, who: Person) -> bool {
        self.locus.holds(&cast::address(who), self.locus.instance, device(who))
    }

    /// Whether somebody's device keeps itself in the call.
    fn renews(&self, who: Person) -> bool {
        self.devices[who] == Device::In(self.locus.instance.0)
    }

    /// Whether a device thinks rightly that it is in a call, or does not think so.
    fn knows(&self, who: Person) -> bool {
        match self.devices[who] {
            Device::In(instance) => self.holds(who) && self.locus.instance.0 == instance,
            Device::Out | Device::Gone => true,
        }
    }
}

impl Call {
    /// What somebody and their device can do.
    pub(super) fn steps_of(&self, world: &World, who: Person, steps: &mut Vec<Step>) {
        if world.devices[who] == Device::Gone {
            return;
        }
        let gone = world.devices.iter().filter(|device| **device == Device::Gone).count();
        steps.extend((gone < GONE_MAX).then_some(Step::Vanish(who)));
        if let Some(request) = world.waiting[who] {
            steps.extend((!self.patient).then_some(Step::GiveUp(who)));
            steps.extend((!world.requests.contains(&request)).then_some(Step::Send(request)));
            return;
        }
        let part = world.lists[who].map(|told| told.part);
        match world.devices[who] {
            Device::Out => {
                steps.extend((world.calls < JOINS_MAX).then_some(Step::Join(who)));
                steps.extend((part == Some(ParticipantState::Notified)).then_some(Step::Decline(who)));
            }
            Device::In(_) => {
                steps.push(Step::HangUp(who));
                steps.extend((!world.knows(who)).then_some(Step::Refused(who)));
            }
            Device::Gone => {}
        }
    }

    /// What the home does by itself, and what the lists hear.
    pub(super) fn steps_of_the_home(&self, world: &World) -> Vec<Step> {
        let mut steps = Vec::new();
        let silent = world.leases.iter().copied().filter(|who| !world.renews(*who));
        steps.extend(silent.map(Step::Expire));
        steps.extend(world.ring.then_some(Step::RingOver));
        for who in self.everybody().filter(|who| !world.telling[*who].is_empty()) {
            steps.push(Step::Tell(who));
            steps.extend((world.doubles < DOUBLES_MAX).then_some(Step::TellTwice(who)));
        }
        steps.extend(world.late.iter().map(|(who, told)| Step::TellLate(*who, *told)));
        steps
    }

    pub(super) fn take(&self, world: &mut World, step: Step) {
        match step {
            Step::Join(who) => {
                let expect = match world.lists[who] {
                    Some(told) if told.state == LocusState::Inactive => told.instance,
                    Some(told) => told.instance.saturating_sub(1),
                    None => 0,
                };
                world.calls += 1;
                world.asked = world.asked.max(expect + 1);
                ask(world, who, Asked::Join(expect));
            }
            Step::HangUp(who) => {
                if let Device::In(instance) = world.devices[who] {
                    world.devices[who] = Device::Out;
                    ask(world, who, Asked::Leave(instance));
                }
            }
            Step::Decline(who) => {
                let instance = world.lists[who].map_or(0, |told| told.instance);
                ask(world, who, Asked::Decline(instance));
            }
            Step::Vanish(who) => (world.devices[who], world.waiting[who]) = (Device::Gone, None),
            Step::GiveUp(who) => world.waiting[who] = None,
            Step::Send(request) => drop(world.requests.insert(request)),
            Step::Arrive(request) => {
                world.requests.remove(&request);
                self.arrive(world, request, true);
            }
            Step::Double(request) => {
                world.doubles += 1;
                self.arrive(world, request, false);
            }
            Step::Lose(request) => drop(world.requests.remove(&request)),
            Step::Tell(who) => drop(self.tell_next(world, who)),
            Step::TellTwice(who) => {
                world.doubles += 1;
                let told = self.tell_next(world, who);
                world.late.extend(told.map(|told| (who, told)));
            }
            Step::TellLate(who, told) => {
                world.late.remove(&(who, told));
                self.tell(world, who, told);
            }
            Step::Refused(who) => world.devices[who] = Device::Out,
            Step::Expire(who) => {
                world.leases.remove(&who);
                let (user, device) = (cast::address(who), device(who).to_owned());
                let instance = world.locus.instance;
                self.step(world, Event::LeaseExpired { user, instance, device });
            }
            Step::RingOver => {
                world.ring = false;
                let instance = world.locus.instance;
                self.step(world, Event::RingTimeout { instance });
            }
            Step::Crash => self.crash(world),
        }
    }

    /// Nothing is under way, nobody waits, and no time runs that will run out.
    pub(super) fn is_at_rest(&self, world: &World) -> bool {
        let told = world.telling.iter().all(VecDeque::is_empty) && world.late.is_empty();
        let renewed = world.leases.iter().all(|who| world.renews(*who)) && !world.ring;
        let asked = world.requests.is_empty() && world.waiting.iter().all(Option::is_none);
        told && renewed && asked && self.everybody().all(|who| world.knows(who))
    }

    /// Somebody is in the call whose device is not.
    pub(super) fn has_ghosts(&self, world: &World) -> bool {
        self.everybody().any(|who| world.holds(who) && !world.renews(who))
    }

    pub(super) fn lists_agree(&self, world: &World) -> bool {
        let goes_on = |told: &Told| told.state != LocusState::Inactive;
        let same = |told: Told, now: Told| {
            (told.instance, told.part, goes_on(&told)) == (now.instance, now.part, goes_on(&now))
        };
        let says = |who: Person| world.lists[who].is_some_and(|told| same(told, self.entry(world, who)));
        world.locus.instance == Count(0) || self.everybody().all(says)
    }

    /// Whether it all ends once nothing is lost any more, and nobody does anything new.
    pub(super) fn comes_to_rest(&self, world: &World) -> bool {
        let mut world = world.clone();
        for _ in 0..STEPS_MAX {
            let Some(step) = self.fair_step(&world) else { return self.is_at_rest(&world) };
            self.take(&mut world, step);
        }
        false
    }

    fn fair_step(&self, world: &World) -> Option<Step> {
        if let Some(request) = world.requests.first() {
            return Some(Step::Arrive(*request));
        }
        let mut steps = self.steps_of_the_home(world);
        self.everybody().for_each(|who| self.steps_of(world, who, &mut steps));
        let fair = |step: &Step| {
            let told = matches!(step, Step::Send(_) | Step::Tell(_) | Step::TellLate(..));
            told || matches!(step, Step::Refused(_) | Step::Expire(_) | Step::RingOver)
        };
        steps.into_iter().find(fair)
    }

    fn arrive(&self, world: &mut World, request: Request, answered: bool) {
        let Request { who, what } = request;
        let user = cast::address(who);
        let event = match what {
            Asked::Join(expect) => Event::Join(Join {
                user,
                device: device(who).to_owned(),
                expect: Count(self.expected(world, expect)),
                leg: Uuid::from_u128(who as u128 + 1),
                setting: self.setting.clone(),
            }),
            Asked::Leave(instance) => Event::Leave { user, instance: Count(instance), device: None },
            Asked::Decline(instance) => Event::Decline { user, instance: Count(instance) },
        };
        let done = self.step(world, event);
        if !answered || world.waiting[who] != Some(request) {
            return;
        }
        world.waiting[who] = None;
        if done && matches!(what, Asked::Join(_)) {
            world.devices[who] = Device::In(world.locus.instance.0);
        }
    }

    /// One with [`Bug::LateJoinCalls`] takes each join for one that fits.
    fn expected(&self, world: &World, expect: u64) -> u64 {
        let fits = world.locus.instance.0 - u64::from(world.locus.is_active());
        if self.has(Bug::LateJoinCalls) { fits } else { expect }
    }

    /// One step of the locus, with everything in its transaction; whether it was taken.
    fn step(&self, world: &mut World, event: Event) -> bool {
        let Ok(effects) = world.locus.step(event) else { return false };
        for who in self.everybody() {
            let user = cast::address(who);
            let told = |effect: &Effect| matches!(effect, Effect::Tell { user: other, .. } if *other == user);
            if effects.iter().any(told) {
                let entry = self.entry(world, who);
                // One list that lags behind shows what any of them can show, in far fewer worlds.
                match who + 1 < self.people {
                    true => self.tell(world, who, entry),
                    false => world.telling[who].push_back(entry),
                }
            }
        }
        // Counted is what the locus asks for, and nothing else.
        world.leases = self.everybody().filter(|who| world.holds(*who)).collect();
        world.ring = world.locus.rings();
        true
    }

    fn tell_next(&self, world: &mut World, who: Person) -> Option<Told> {
        let told = world.telling[who].pop_front()?;
        self.tell(world, who, told);
        Some(told)
    }

    fn tell(&self, world: &mut World, who: Person, told: Told) {
        let (old, new) = (world.lists[who].map(|told| self.active(told)), self.active(told));
        if !self.has(Bug::ListGoesBack) && !register_takes(old.as_ref(), &new) {
            return;
        }
        world.went_back |= old.is_some_and(|old| (new.instance, new.rev) < (old.instance, old.rev));
        world.lists[who] = Some(told);
        // The device hears of it, and knows when it is out.
        let left = matches!(told.part, ParticipantState::Left | ParticipantState::Declined);
        let out = left || told.state == LocusState::Inactive;
        if out && world.devices[who] == Device::In(told.instance) {
            world.devices[who] = Device::Out;
        }
    }

    /// What was under way to the home is gone. What it counts, it counts anew from the locus.
    fn crash(&self, world: &mut World) {
        world.requests.clear();
        world.late.clear();
        if self.has(Bug::LeasesForgotten) {
            world.leases.clear();
        }
        if self.has(Bug::TellingForgotten) {
            world.telling.iter_mut().for_each(VecDeque::clear);
        }
    }

    fn entry(&self, world: &World, who: Person) -> Told {
        let entry = world.locus.entry(&cast::address(who), &self.at, &self.conversation);
        Told {
            instance: entry.instance.0,
            rev: entry.rev.0,
            state: entry.state,
            part: entry.participant_state,
        }
    }

    fn active(&self, told: Told) -> ActiveLocus {
        ActiveLocus {
            locus_url: self.at.clone(),
            conversation_url: self.conversation.clone(),
            instance: Count(told.instance),
            rev: Count(told.rev),
            state: told.state,
            participant_state: told.part,
        }
    }
}

fn ask(world: &mut World, who: Person, what: Asked) {
    let request = Request { who, what };
    world.waiting[who] = Some(request);
    world.requests.insert(request);
}

fn device(who: Person) -> &'static str {
    ["alices-phone", "bobs-phone", "carols-phone"][who]
}
