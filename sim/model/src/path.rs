//! Whether what a world really did is a path of a model: a history of the simulator, or of real sockets, is
//! projected on one machine and followed in the model, step by step.
//!
//! The projection is that of [`mod@crate::pair`] with two clusters: every state of the pair's two slots and of
//! its conversations that the services reported once it was durable (`slot` and `conversation` of the
//! history), in order. What one commit reported together is one observation. Not projected: activities,
//! and what was under way; those steps of the model are hidden, and found by search. So a history is followed
//! if *some* run of the machines, with whatever was lost, doubled or reordered, shows exactly its states.

mod project;

use std::fmt;

use fusion_history::EventId;
use fusion_machines::pair::{Hold, Life};

use crate::cast::{Person, Site};
use crate::model::Model as _;
use crate::pair::{Pair, Step, World};

pub use project::{Unfit, project};

/// What a history says of one pair.
#[derive(Debug)]
pub struct Projection {
    /// Who and where, for people.
    pub title: String,
    pub(crate) model: Pair,
    /// What was observed, in order.
    pub observed: Vec<Observed>,
}

/// What one commit reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The first event of it.
    pub at: EventId,
    /// When, in microseconds since the run began.
    pub at_us: u64,
    pub(crate) host: String,
    /// What is so from now on.
    pub states: Vec<State>,
}

/// A state of a slot or of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Somebody's slot.
    Slot {
        /// Whose.
        person: Person,
        /// Whether it is final.
        hold: Hold,
        /// Where its conversation is.
        to: Site,
        /// Where the loser is whose activities are moving.
        merging: Option<Site>,
    },
    /// The pair's conversation in a cluster.
    Life {
        /// Where it is.
        site: Site,
        /// Its state.
        state: LifeState,
    },
}

/// The state of a conversation, with the winner's place once it lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "SPEC's words")]
pub enum LifeState {
    Provisional,
    Bound,
    Sealing(Site),
    Superseded(Site),
}

/// A path of the model that shows what was observed.
#[derive(Clone, Debug)]
pub struct Path {
    /// Each step, and the event that it was observed by; hidden ones have none.
    pub steps: Vec<(Step, Option<EventId>)>,
}

/// The first observation that no step of the model can show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The event.
    pub at: EventId,
    /// When, in microseconds since the run began.
    pub at_us: u64,
    /// How many observations before it were followed.
    pub followed: usize,
    /// What was observed.
    pub observed: Vec<String>,
    /// What the model can show there instead, each with the step that leads to it.
    pub possible: Vec<String>,
}

/// A world of the model, and how it was reached.
struct Node {
    world: World,
    from: Option<(usize, Step)>,
    at: Option<EventId>,
}

impl Projection {
    /// Follows what was observed.
    ///
    /// # Errors
    /// [`Refused`]: at this event the world was in a state to which the machines do not lead.
    pub fn follow(&self) -> Result<Path, Box<Refused>> {
        let starts = self.model.starts().into_iter();
        let mut nodes: Vec<Node> = starts.map(|world| Node { world, from: None, at: None }).collect();
        let mut frontier: Vec<usize> = (0..nodes.len()).collect();
        for (followed, observed) in self.observed.iter().enumerate() {
            self.add_hidden(&mut nodes, &mut frontier);
            let next = self.next(&mut nodes, &frontier, observed);
            if next.is_empty() {
                return Err(Box::new(self.refused(&nodes, &frontier, observed, followed)));
            }
            frontier = next;
        }
        Ok(Path { steps: frontier.first().map_or_else(Vec::new, |last| way_to(&nodes, *last)) })
    }

    /// Adds to `frontier` whatever is reached by steps that nobody observes.
    fn add_hidden(&self, nodes: &mut Vec<Node>, frontier: &mut Vec<usize>) {
        let mut looked_at = 0;
        while let Some(place) = frontier.get(looked_at).copied() {
            looked_at += 1;
            for step in self.model.steps(&nodes[place].world) {
                let world = self.model.after(&nodes[place].world, &step);
                let hidden = self.states(&world) == self.states(&nodes[place].world);
                if hidden && frontier.iter().all(|other| nodes[*other].world != world) {
                    frontier.push(nodes.len());
                    nodes.push(Node { world, from: Some((place, step)), at: None });
                }
            }
        }
    }

    /// The worlds in which exactly that is observed which was observed.
    fn next(&self, nodes: &mut Vec<Node>, frontier: &[usize], observed: &Observed) -> Vec<usize> {
        let mut next: Vec<usize> = Vec::new();
        for place in frontier.iter().copied() {
            let before = self.states(&nodes[place].world);
            if observed.states.iter().all(|state| before.contains(state)) {
                // Reported once more, as with each page of an import.
                next.push(place);
            }
            for step in self.model.steps(&nodes[place].world) {
                let world = self.model.after(&nodes[place].world, &step);
                if fits(&before, &self.states(&world), &observed.states)
                    && next.iter().all(|other| nodes[*other].world != world)
                {
                    next.push(nodes.len());
                    nodes.push(Node { world, from: Some((place, step)), at: Some(observed.at) });
                }
            }
        }
        next
    }

    fn refused(&self, nodes: &[Node], frontier: &[usize], observed: &Observed, followed: usize) -> Refused {
        let mut possible: Vec<String> = Vec::new();
        for place in frontier {
            let before = self.states(&nodes[*place].world);
            for step in self.model.steps(&nodes[*place].world) {
                let after = self.states(&self.model.after(&nodes[*place].world, &step));
                let new: Vec<_> = after.iter().filter(|state| !before.contains(state)).collect();
                let new: Vec<_> = new.into_iter().map(State::to_string).collect();
                let line = format!("{step}: {}", new.join("; "));
                if !new.is_empty() && !possible.contains(&line) {
                    possible.push(line);
                }
            }
        }
        Refused {
            at: observed.at,
            at_us: observed.at_us,
            followed,
            observed: observed.states.iter().map(State::to_string).collect(),
            possible,
        }
    }

    /// Everything that the services would report of a world.
    fn states(&self, world: &World) -> Vec<State> {
        let slots = world.slots.iter().enumerate().filter_map(|(person, slot)| {
            let slot = slot.as_ref()?;
            let merging = slot.merging_from.as_ref().map(|url| self.model.site_of(url));
            let to = self.model.site_of(&slot.conversation.url);
            Some(State::Slot { person, hold: slot.hold, to, merging })
        });
        let lives = world.objects.iter().enumerate().filter_map(|(site, object)| {
            let state = match &object.as_ref()?.life {
                Life::Provisional => LifeState::Provisional,
                Life::Bound => LifeState::Bound,
                Life::Sealing { winner } => LifeState::Sealing(self.model.site(&winner.home)),
                Life::Superseded { winner } => LifeState::Superseded(self.model.site(&winner.home)),
            };
            Some(State::Life { site, state })
        });
        slots.chain(lives).collect()
    }
}

/// Whether a step from `before` to `after` shows `observed`: all of it is so after, and nothing else changed.
fn fits(before: &[State], after: &[State], observed: &[State]) -> bool {
    let is_so = observed.iter().all(|state| after.contains(state));
    let new = || after.iter().filter(|state| !before.contains(state));
    is_so && new().count() > 0 && new().all(|state| observed.contains(state))
}

fn way_to(nodes: &[Node], last: usize) -> Vec<(Step, Option<EventId>)> {
    let mut steps = Vec::new();
    let mut place = last;
    while let Some((from, step)) = nodes[place].from {
        steps.push((step, nodes[place].at));
        place = from;
    }
    steps.reverse();
    steps
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::cast::{person as name, site as at};
        match self {
            Self::Slot { person, hold, to, merging } => {
                let hold = match hold {
                    Hold::Unbound => "UNBOUND",
                    Hold::Bound => "BOUND",
                };
                write!(f, "{}'s slot is {hold} to the conversation at {}", name(*person), at(*to))?;
                match merging {
                    Some(loser) => write!(f, ", from which that at {} is moving", at(*loser)),
                    None => Ok(()),
                }
            }
            Self::Life { site, state } => {
                write!(f, "the conversation at {} is ", at(*site))?;
                match state {
                    LifeState::Provisional => f.write_str("PROVISIONAL"),
                    LifeState::Bound => f.write_str("BOUND"),
                    LifeState::Sealing(winner) => write!(f, "SEALING, lost to that at {}", at(*winner)),
                    LifeState::Superseded(winner) => write!(f, "SUPERSEDED by that at {}", at(*winner)),
                }
            }
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, at_us, followed, observed, possible } = self;
        let seconds = *at_us as f64 / 1e6;
        writeln!(f, "event {} at {seconds:.6} s, after {followed} observations that were followed:", at.0)?;
        writeln!(f, "    observed: {}", observed.join("; "))?;
        match possible.is_empty() {
            true => write!(f, "    possible there: nothing that could be observed"),
            false => write!(f, "    possible there: {}", possible.join("\n                    ")),
        }
    }
}

impl std::error::Error for Refused {}
