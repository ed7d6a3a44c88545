//! What a model says of itself, whoever searches it.

use std::fmt::{Debug, Display};
use std::hash::Hash;

/// A small world: where it starts, what can happen next, what must hold.
pub trait Model: Send + Sync + 'static {
    /// Everything that matters for what can happen next, and for what must hold.
    type World: Clone + Debug + Eq + Hash + Send + Sync + 'static;
    /// One thing that happens. Its `Display` is a sentence of a counterexample.
    type Step: Clone + Debug + Display + PartialEq + Send + Sync + 'static;

    /// The worlds that it can start with.
    fn starts(&self) -> Vec<Self::World>;
    /// Everything that can happen next, in an order that depends on `world` alone.
    fn steps(&self, world: &Self::World) -> Vec<Self::Step>;
    /// The world after one of its [`Model::steps`].
    fn after(&self, world: &Self::World, step: &Self::Step) -> Self::World;
    /// What must hold.
    fn properties(&self) -> Vec<Property<Self>>;
    /// What sort of thing a step is.
    fn sort(step: &Self::Step) -> Sort;
    /// What must have happened in it, or it proves little.
    fn needs(&self) -> &[Sort];
    /// The world in words, a line for each thing in it; a counterexample shows the lines that changed.
    fn show(&self, world: &Self::World) -> Vec<String>;
    /// How far the search goes, so that nobody takes it for more than it is.
    fn bounds(&self) -> String;
}

/// Something that holds of a model, or must not fail to happen in it.
pub struct Property<M: Model + ?Sized> {
    /// How often.
    pub kind: Kind,
    /// What, as a sentence.
    pub words: &'static str,
    /// Whether it is so in a world.
    pub so: fn(&M, &M::World) -> bool,
}

/// How often a property holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In every world that can be reached.
    Always,
    /// From every world that can be reached, once the network loses nothing any more.
    ///
    /// A model answers by playing on, in one fair order, from every world with nothing under way; any world
    /// is one loss of everything away from such a world. (The search's own `eventually` follows no path
    /// that joins another one.)
    Eventually,
    /// In one world at least: else the model is empty, and what always holds in it says nothing.
    Sometimes,
}

/// What sort of thing happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// Somebody does something.
    Act,
    /// A cluster sends what its outbox holds, or sends it again.
    Send,
    /// A message arrives, whichever of those under way.
    Arrive,
    /// A message arrives, and can arrive once more.
    Double,
    /// A message is lost.
    Lose,
    /// A cluster crashes: what is under way from and to it is gone, and what it had in memory.
    Crash,
    /// Time passes, until something is due.
    Wait,
}

/// A bug of a model's own making, which its search must find. None of them is in what ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plant {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What goes wrong.
    pub what: &'static str,
}

impl<M: Model + ?Sized> Property<M> {
    /// See [`Kind::Always`].
    pub fn always(words: &'static str, so: fn(&M, &M::World) -> bool) -> Self {
        Self { kind: Kind::Always, words, so }
    }

    /// See [`Kind::Eventually`].
    pub fn eventually(words: &'static str, so: fn(&M, &M::World) -> bool) -> Self {
        Self { kind: Kind::Eventually, words, so }
    }

    /// See [`Kind::Sometimes`].
    pub fn sometimes(words: &'static str, so: fn(&M, &M::World) -> bool) -> Self {
        Self { kind: Kind::Sometimes, words, so }
    }
}

impl Kind {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Eventually => "eventually",
            Self::Sometimes => "sometimes",
        }
    }
}

impl Sort {
    /// All of them, in order.
    pub const ALL: [Self; 7] =
        [Self::Act, Self::Send, Self::Arrive, Self::Double, Self::Lose, Self::Crash, Self::Wait];

    /// What a step of this sort is, in the plural.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Act => "acts",
            Self::Send => "sendings",
            Self::Arrive => "arrivals",
            Self::Double => "doublings",
            Self::Lose => "losses",
            Self::Crash => "crashes",
            Self::Wait => "waits",
        }
    }
}
