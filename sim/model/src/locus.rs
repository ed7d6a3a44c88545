//! A call (LOC-002, LOC-003, LOC-006, LOC-007): two people call each other at once, or three in a group, each
//! from a cluster of their own; devices give up, hang up and vanish, and the home in `a` crashes.
//!
//! The machines are [`fusion_machines::locus::Locus`] at the home and [`register_takes`] at the active list
//! of each person. The world keeps the locus, the rows for the lists and the lists durable; which leases and
//! rings are counted is in the home's memory, and counted anew from the locus after a crash. A device joins
//! with what its own list says, repeats a request until it is answered or it gives up, and is out of a call
//! once its list or a refused renewal says so.
//!
//! A lease runs out only where nobody renews it; when, is any time. A request that nobody waits for any more
//! can still arrive: that is how a ghost comes into a call.
//!
//! Not modelled: relays and legs, several devices of one person, members who come and go, the calls of a
//! conversation that loses its race (LOC-004), lists that hide what is not renewed.
//!
//! [`register_takes`]: fusion_machines::locus::register_takes

mod essence;
mod show;
mod world;

use std::fmt;

use fusion_machines::locus::Setting;
use fusion_protocol::Url;
use fusion_protocol::conversation::Kind;
use fusion_protocol::locus::{LocusState, ParticipantState};

use crate::cast::{self, Person};
use crate::model::{Model, Plant, Property, Sort};
use crate::words;

use world::Device;
pub use world::World;

/// How often somebody can join.
const JOINS_MAX: u8 = 2;
/// How many devices can vanish.
const GONE_MAX: usize = 1;
/// How often a message can arrive twice, or without its answer arriving.
const DOUBLES_MAX: u8 = 1;

/// A call of as many people as there are clusters.
pub struct Call {
    people: usize,
    at: Url,
    conversation: Url,
    setting: Setting,
    /// Whether devices wait for answers as long as they are there.
    patient: bool,
    bug: Option<Bug>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Somebody calls, or answers.
    Join(Person),
    /// Somebody hangs up.
    HangUp(Person),
    /// Somebody does not want to.
    Decline(Person),
    /// Somebody's device is not there any more, for good.
    Vanish(Person),
    /// Somebody waits no longer for an answer.
    GiveUp(Person),
    /// A device asks again.
    Send(Request),
    /// A request arrives, and its answer.
    Arrive(Request),
    /// A request arrives and can arrive again; its answer is lost.
    Double(Request),
    /// A request is lost.
    Lose(Request),
    /// The next entry for somebody's active list arrives, and its answer.
    Tell(Person),
    /// The next entry for somebody's active list arrives, and can arrive again later.
    TellTwice(Person),
    /// An entry arrives that arrived before.
    TellLate(Person, Told),
    /// A renewal is refused: the device learns that it is in the call no more.
    Refused(Person),
    /// A lease that nobody renews runs out.
    Expire(Person),
    /// It has rung long enough.
    RingOver,
    /// The home crashes and comes back.
    Crash,
}

/// What a device asks of the locus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    /// Whose device.
    pub who: Person,
    /// What.
    pub what: Asked,
}

/// See [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asked {
    /// To join; the call that was last seen to end.
    Join(u64),
    /// To leave this call.
    Leave(u64),
    /// To decline this call.
    Decline(u64),
}

/// What an active list is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Told {
    instance: u64,
    rev: u64,
    state: LocusState,
    part: ParticipantState,
}

/// What can be wrong with this model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// After a crash, nobody counts the leases of the call that goes on.
    LeasesForgotten,
    /// The home takes a late join for one to the next call.
    LateJoinCalls,
    /// A list takes whatever comes last.
    ListGoesBack,
    /// A crash forgets what the lists were still to be told.
    TellingForgotten,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::LeasesForgotten, Self::LateJoinCalls, Self::ListGoesBack, Self::TellingForgotten];

    /// How it is told on the command line.
    #[must_use]
    pub fn plant(self) -> Plant {
        let (name, what) = match self {
            Self::LeasesForgotten => {
                ("leases-forgotten", "after a crash nobody counts the leases of the call")
            }
            Self::LateJoinCalls => ("late-join-calls", "a join that comes after the call begins another one"),
            Self::ListGoesBack => ("list-goes-back", "an active list takes whatever comes last"),
            Self::TellingForgotten => {
                ("telling-forgotten", "a crash forgets what active lists are to be told")
            }
        };
        Plant { name, what }
    }
}

impl Call {
    /// A call of so many people in as many clusters, 2 or 3.
    #[must_use]
    pub fn new(people: usize, bug: Option<Bug>) -> Self {
        let conversation = "https://a-conv.provider.example/v1/conversations/1";
        let url = |text: &str| text.parse().expect("a URL of plain names");
        let kind = if people == 2 { Kind::OneToOne } else { Kind::Group };
        let members = (0..people).map(cast::address).collect();
        Self {
            people,
            at: url(&format!("{conversation}/locus")),
            conversation: url(conversation),
            setting: Setting { relay: None, kind, members },
            // Three devices have too many worlds for more.
            patient: people > 2,
            bug,
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn everybody(&self) -> std::ops::Range<Person> {
        0..self.people
    }
}

impl Model for Call {
    type World = World;
    type Step = Step;

    fn starts(&self) -> Vec<World> {
        vec![World::new(self.people)]
    }

    fn steps(&self, world: &World) -> Vec<Step> {
        let mut steps = Vec::new();
        for who in self.everybody() {
            self.steps_of(world, who, &mut steps);
        }
        for request in &world.requests {
            steps.extend([Step::Arrive(*request), Step::Lose(*request)]);
            steps.extend((world.doubles < DOUBLES_MAX).then_some(Step::Double(*request)));
        }
        steps.extend(self.steps_of_the_home(world));
        steps.push(Step::Crash);
        steps
    }

    fn after(&self, world: &World, step: &Step) -> World {
        let mut world = world.clone();
        self.take(&mut world, *step);
        world
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "a call begins only for somebody who saw the last one end",
                |_, world: &World| world.locus.instance.0 <= world.asked,
            ),
            Property::always("a call that goes on has somebody in it", |model: &Self, world: &World| {
                !world.locus.is_active() || model.everybody().any(|who| world.holds(who))
            }),
            Property::always("no active list goes back", |_, world: &World| !world.went_back),
            Property::always("at rest there is no ghost in the call", |model: &Self, world: &World| {
                !model.is_at_rest(world) || !model.has_ghosts(world)
            }),
            Property::always("at rest each list says what the locus says", |model: &Self, world: &World| {
                !model.is_at_rest(world) || model.lists_agree(world)
            }),
            Property::always("at rest nobody rings", |model: &Self, world: &World| {
                !model.is_at_rest(world) || !world.locus.rings()
            }),
            Property::eventually("everything comes to rest", |model: &Self, world: &World| {
                model.comes_to_rest(world)
            }),
            Property::sometimes("two call at once", |_, world: &World| {
                let joins = world.requests.iter().filter(|request| matches!(request.what, Asked::Join(0)));
                world.locus.instance.0 == 0 && joins.count() >= 2
            }),
            Property::sometimes("those who called at once are in one call", |_, world: &World| {
                let are_in = world.devices.iter().filter(|device| matches!(device, Device::In(1)));
                are_in.count() >= 2 && world.locus.state == LocusState::Active
            }),
            Property::sometimes("there is a ghost in the call", |model: &Self, world: &World| {
                model.has_ghosts(world)
            }),
            Property::sometimes("there is another call after the first", |_, world: &World| {
                world.locus.instance.0 == 2
            }),
        ]
    }

    fn sort(step: &Step) -> Sort {
        match step {
            Step::Join(_) | Step::HangUp(_) | Step::Decline(_) | Step::Vanish(_) | Step::GiveUp(_) => {
                Sort::Act
            }
            Step::Send(_) => Sort::Send,
            Step::Arrive(_) | Step::Tell(_) | Step::Refused(_) => Sort::Arrive,
            Step::Double(_) | Step::TellTwice(_) | Step::TellLate(..) => Sort::Double,
            Step::Lose(_) => Sort::Lose,
            Step::Expire(_) | Step::RingOver => Sort::Wait,
            Step::Crash => Sort::Crash,
        }
    }

    fn needs(&self) -> &[Sort] {
        &Sort::ALL
    }

    fn show(&self, world: &World) -> Vec<String> {
        self.lines(world)
    }

    fn bounds(&self) -> String {
        let patience = if self.patient { "no device gives up, " } else { "" };
        format!(
            "{}, {} to join, {} vanishes, {patience}{} twice or without its answer, any number of losses, \
             reorderings and crashes; the last one's list is told in order but for what comes twice, the others \
             at once; worlds that differ only in why somebody left, or in how high a revision is, count as one",
            words::count(self.people, "device", "devices"),
            words::count(JOINS_MAX.into(), "attempt", "attempts"),
            words::count(GONE_MAX, "device", "devices"),
            words::count(DOUBLES_MAX.into(), "message comes", "messages come"),
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |who: &Person| cast::person(*who);
        match self {
            Self::Join(who) => write!(f, "{} joins the call, or begins one", name(who)),
            Self::HangUp(who) => write!(f, "{} hangs up", name(who)),
            Self::Decline(who) => write!(f, "{} does not want to", name(who)),
            Self::Vanish(who) => write!(f, "{}'s device vanishes for good", name(who)),
            Self::GiveUp(who) => write!(f, "{} waits no longer for an answer", name(who)),
            Self::Send(request) => write!(f, "once more, {request}"),
            Self::Arrive(request) => write!(f, "a gets and answers: {request}"),
            Self::Double(request) => {
                write!(f, "a gets, and its answer is lost, and it is under way once more: {request}")
            }
            Self::Lose(request) => write!(f, "lost: {request}"),
            Self::Tell(who) => write!(f, "{}'s active list gets the next entry", name(who)),
            Self::TellTwice(who) => {
                write!(f, "{}'s active list gets the next entry, and it is under way once more", name(who))
            }
            Self::TellLate(who, told) => write!(f, "{}'s active list gets again: {told}", name(who)),
            Self::Refused(who) => {
                write!(f, "{}'s lease is not renewed: the call is over for them", name(who))
            }
            Self::Expire(who) => write!(f, "{}'s lease runs out", name(who)),
            Self::RingOver => f.write_str("it has rung long enough"),
            Self::Crash => f.write_str("a crashes and comes back"),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = cast::person(self.who);
        match self.what {
            Asked::Join(expect) => write!(f, "{name} joins, having seen the end of call {expect}"),
            Asked::Leave(instance) => write!(f, "{name} leaves call {instance}"),
            Asked::Decline(instance) => write!(f, "{name} declines call {instance}"),
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instance, rev, state, part } = self;
        write!(f, "call {instance} {}, they {}, rev {rev}", show::state(*state), show::part(*part))
    }
}
