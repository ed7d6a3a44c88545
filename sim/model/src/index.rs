//! A conversation's way into a foreign index (RDV-002, RDV-004, RDV-005): what Alice says at home in `a` is
//! in Bob's index at `b`, exactly the newest, whatever is lost, doubled or forgotten in a crash. With a
//! third cluster, Bob may move there once while it goes on (MAP-007).
//!
//! The machines are [`fusion_machines::outbox::Outbox`] at the home, which forgets everything in a crash, and
//! [`fusion_machines::index::merge`] at whoever keeps the index. The world keeps the conversation, its outbox
//! rows and the index durable; a row is durable with what it announces, and the machine hears of it in a
//! later step, so that a crash can come between. An answer counts only as long as its request is waited for.
//!
//! The story begins with 19 activities in the index: the preview is about to be full.
//!
//! Not modelled: titles, members who come and go, hiding, more than one lane, dead rows, the periodic repair
//! (RDV-007).

mod show;
mod world;

use std::fmt;

use fusion_protocol::{ClusterName, Url};

use crate::cast::{self, Site};
use crate::model::{Model, Plant, Property, Sort};
use crate::words;

pub use world::World;

/// How many activities there are in the beginning: one less than a preview holds.
const SAID_BEFORE: u64 = 19;
/// How often the home may wait until its next try is due; between, any number of signs of life.
const WAITS_MAX: u8 = 2;

/// A conversation and a foreign index.
pub struct Index {
    sites: Vec<ClusterName>,
    url: Url,
    locus_url: Url,
    posts_max: u64,
    bug: Option<Bug>,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Alice says something: durable, together with its row.
    Say,
    /// Alice takes back what she said last.
    TakeBack,
    /// Bob moves, with his index.
    Move(Site),
    /// The home's outbox hears of the rows that are durable.
    Wake,
    /// The home finds out where Bob is.
    Resolve(Site),
    /// The home sends what is due.
    Send(Site),
    /// Rows arrive.
    Arrive(Rows),
    /// Rows arrive, and can arrive again.
    Double(Rows),
    /// Rows are lost.
    Lose(Rows),
    /// An answer arrives.
    Answer(Answer),
    /// An answer is lost.
    LoseAnswer(Answer),
    /// The home does not wait for an answer any longer.
    TimeOut,
    /// The home hears from the cluster that did not answer.
    Contact(Site),
    /// Time passes until the next try is due.
    Wait,
    /// A cluster crashes and comes back.
    Crash(Site),
}

/// Rows in one request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rows {
    to: Site,
    /// The `seq` of the activity that each announces.
    seqs: Vec<u64>,
}

/// What is answered to [`Rows`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Answer {
    to: Rows,
    /// Whether the index is kept there; else the user is not there.
    here: bool,
}

/// What can be wrong with this model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A row is durable only once the outbox has heard of it.
    RowForgotten,
    /// A row is removed when it is sent.
    RowRemovedEarly,
    /// A write replaces the entry that is there.
    LateOverwrites,
    /// An index that has crashed has answered what it did not keep.
    AnsweredBeforeKept,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::RowForgotten, Self::RowRemovedEarly, Self::LateOverwrites, Self::AnsweredBeforeKept];

    /// How it is told on the command line.
    #[must_use]
    pub fn plant(self) -> Plant {
        let (name, what) = match self {
            Self::RowForgotten => {
                ("row-forgotten", "a crash forgets rows between their commit and their sending")
            }
            Self::RowRemovedEarly => {
                ("row-removed-early", "a row is removed when it is sent, not when it is answered")
            }
            Self::LateOverwrites => ("late-overwrites", "a write that comes late replaces what is newer"),
            Self::AnsweredBeforeKept => {
                ("answered-before-kept", "an index answers, crashes, and has kept nothing")
            }
        };
        Plant { name, what }
    }
}

impl Index {
    /// The conversation and the index in so many clusters, 2 or 3.
    #[must_use]
    pub fn new(clusters: usize, bug: Option<Bug>) -> Self {
        let url = "https://a-conv.provider.example/v1/conversations/1";
        Self {
            sites: (0..clusters).map(cast::cluster).collect(),
            url: url.parse().expect("a URL of plain names"),
            locus_url: format!("{url}/locus").parse().expect("a URL of plain names"),
            posts_max: if clusters == 2 { 3 } else { 2 },
            bug,
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

impl Model for Index {
    type World = World;
    type Step = Step;

    fn starts(&self) -> Vec<World> {
        vec![self.start()]
    }

    fn steps(&self, world: &World) -> Vec<Step> {
        let mut steps = Vec::new();
        if world.said < SAID_BEFORE + self.posts_max {
            steps.push(Step::Say);
            steps.extend((world.said > SAID_BEFORE && world.taken_back.is_none()).then_some(Step::TakeBack));
        }
        if self.sites.len() > 2 && world.served == 1 {
            steps.push(Step::Move(2));
        }
        self.steps_of_the_home(world, &mut steps);
        for rows in &world.requests {
            steps.extend([Step::Arrive(rows.clone()), Step::Double(rows.clone()), Step::Lose(rows.clone())]);
        }
        for answer in &world.answers {
            steps.extend([Step::Answer(answer.clone()), Step::LoseAnswer(answer.clone())]);
        }
        steps.extend((0..self.sites.len()).map(Step::Crash));
        steps
    }

    fn after(&self, world: &World, step: &Step) -> World {
        let mut world = world.clone();
        self.take(&mut world, step);
        world
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("an index never goes back", |_, world: &World| !world.went_back),
            Property::always(
                "an index says nothing that the conversation does not",
                |model: &Self, world: &World| {
                    world.last_seq() <= world.said && model.previews_what_was_said(world)
                },
            ),
            Property::always("an entry previews everything up to its last activity", |_, world: &World| {
                world.previews_without_gap()
            }),
            Property::always("what was taken back does not come back", |_, world: &World| {
                world.previews_nothing_taken_back()
            }),
            Property::always("what is not answered stays in the outbox", |_, world: &World| {
                world.last_seq() == world.said || !world.rows.is_empty()
            }),
            Property::always("at rest the index is exactly the newest", |_, world: &World| {
                !world.is_at_rest() || world.last_seq() == world.said
            }),
            Property::eventually("everything comes to rest", |model: &Self, world: &World| {
                !world.is_quiet() || model.comes_to_rest(world)
            }),
            Property::sometimes("rows are durable, and nobody has been told of them", |_, world: &World| {
                world.heard.is_empty() && world.rows.len() > 1
            }),
            Property::sometimes("two rows leave together", |_, world: &World| {
                world.requests.iter().any(|rows| rows.seqs.len() > 1)
            }),
            Property::sometimes("a row is on its way that the index has already", |_, world: &World| {
                world.requests.iter().any(|rows| rows.seqs.iter().all(|seq| *seq <= world.last_seq()))
            }),
            Property::sometimes("the oldest falls out of a full preview", |_, world: &World| {
                !world.preview.contains_key(&1)
            }),
        ]
    }

    fn sort(step: &Step) -> Sort {
        match step {
            Step::Say | Step::TakeBack | Step::Move(_) | Step::Wake | Step::Resolve(_) => Sort::Act,
            Step::Send(_) => Sort::Send,
            Step::Arrive(_) | Step::Answer(_) => Sort::Arrive,
            Step::Double(_) => Sort::Double,
            Step::Lose(_) | Step::LoseAnswer(_) => Sort::Lose,
            Step::TimeOut | Step::Contact(_) | Step::Wait => Sort::Wait,
            Step::Crash(_) => Sort::Crash,
        }
    }

    fn needs(&self) -> &[Sort] {
        &Sort::ALL
    }

    fn show(&self, world: &World) -> Vec<String> {
        self.lines(world)
    }

    fn bounds(&self) -> String {
        let said = words::count(self.posts_max as usize, "activity", "activities");
        let moves = if self.sites.len() > 2 { "one move, " } else { "" };
        format!(
            "{said} of which one is taken back, {moves}any number of losses, doublings, reorderings, crashes \
             and signs of life, at most {WAITS_MAX} waits for a back-off in one life; equal requests under way \
             count as one"
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let site = |site: &Site| cast::site(*site);
        match self {
            Self::Say => f.write_str("alice says something; it is durable with its outbox row"),
            Self::TakeBack => {
                f.write_str("alice takes back what she said last; that is durable with its row")
            }
            Self::Move(to) => write!(f, "bob moves to {}, with his index", site(to)),
            Self::Wake => f.write_str("the outbox of a hears of the new rows"),
            Self::Resolve(at) => write!(f, "a resolves bob: he is at {}", site(at)),
            Self::Send(to) => write!(f, "a sends to {} what is due", site(to)),
            Self::Arrive(rows) => write!(f, "{} gets {rows}", site(&rows.to)),
            Self::Double(rows) => write!(f, "{} gets {rows}, and it is under way once more", site(&rows.to)),
            Self::Lose(rows) => write!(f, "lost: {rows}"),
            Self::Answer(answer) => write!(f, "a gets {answer}"),
            Self::LoseAnswer(answer) => write!(f, "lost: {answer}"),
            Self::TimeOut => f.write_str("a waits no longer for the answer"),
            Self::Contact(with) => write!(f, "a hears from {}", site(with)),
            Self::Wait => f.write_str("time passes until the next try is due"),
            Self::Crash(at) => write!(f, "{} crashes and comes back", site(at)),
        }
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seqs: Vec<_> = self.seqs.iter().map(u64::to_string).collect();
        write!(f, "the request to {} with the row of seq {}", cast::site(self.to), seqs.join(" and that of "))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = if self.here { "done" } else { "wrong-cluster" };
        write!(f, "the answer {said} to {}", self.to)
    }
}
