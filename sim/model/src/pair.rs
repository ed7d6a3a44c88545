//! The race for a pair (CNV-003, CNV-004): two people create their 1:1 at once, in two clusters; with a
//! third cluster, each of them may move once while it goes on (MAP-007).
//!
//! The machines are [`fusion_machines::pair::decide`] for whoever is asked, and [`Life::step`] for a conversation. The world keeps
//! slots and conversations durable, repeats claims and imports until they are answered, and lets any
//! message come late, twice or never. A request and its answer are two messages, so an answer can come
//! after a crash of whoever asked: worse than what a connection does.
//!
//! People look up their conversation after each step, and post at any place that they have ever learnt of.
//!
//! Not modelled: claims that die (a peer who is gone, another rule), who may claim (SEC-005), the index
//! entry that travels with a claim, hiding.

mod show;
mod world;

use std::fmt;

use fusion_machines::pair::{Contender, Life, pair_key, rank};
use fusion_protocol::ClusterName;
use fusion_protocol::conversation::PairKey;

use crate::cast::{self, Person, Site};
use crate::model::{Model, Plant, Property, Sort};
use crate::words;

use world::Object;
pub use world::World;

/// The race for one pair.
#[derive(Debug)]
pub struct Pair {
    sites: Vec<ClusterName>,
    /// A pair for each order in which the clusters can rank for it.
    pairs: Vec<PairKey>,
    /// What a conversation in a cluster is called, for each creator.
    places: Vec<[Contender; 2]>,
    posts_max: usize,
    network: Network,
    bug: Option<Bug>,
}

/// What a network does with what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    /// Each loss, each doubling and each crash is a step of its own.
    Loses,
    /// Whatever is sent can arrive from then on at any time, again and again or never: every loss, doubling
    /// and reordering, and every crash of a cluster that forgets nothing, in far fewer worlds.
    Keeps,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Somebody asks their cluster for the conversation with the other.
    Create(Person),
    /// Somebody posts at a place that they know of, and follows it where it points.
    Post(Person, Site),
    /// A cluster sends what its outbox holds.
    Send(Message),
    /// A message arrives.
    Arrive(Message),
    /// A message arrives, and stays to arrive again.
    Double(Message),
    /// A message is lost.
    Lose(Message),
    /// A cluster crashes and comes back: nothing from and to it is under way any more.
    Crash(Site),
    /// Somebody moves to another cluster, with their slot.
    Move(Person, Site),
}

/// What clusters say to each other of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// The conversation at `home` asks to be the pair's, at the cluster where the other is thought to be.
    Claim {
        /// Where the conversation lives.
        home: Site,
        /// Who is asked.
        at: Site,
    },
    /// What is answered.
    Answer {
        /// Where the conversation lives.
        home: Site,
        /// Who answers.
        at: Site,
        /// What.
        answer: Answer,
    },
    /// The loser's activities, up to the `until`th.
    Import {
        /// The loser's home.
        loser: Site,
        /// The winner's.
        to: Site,
        /// How many.
        until: usize,
        /// Whether that is all.
        complete: bool,
    },
    /// The winner has everything.
    Imported {
        /// The loser's home.
        loser: Site,
        /// The winner's.
        to: Site,
    },
    /// The loser is over: its creator, who is served elsewhere now, is to see the winner.
    Settle {
        /// The loser's home.
        loser: Site,
        /// The creator's cluster.
        at: Site,
    },
    /// That is done.
    Settled {
        /// The loser's home.
        loser: Site,
        /// The creator's cluster.
        at: Site,
    },
}

/// An answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// 200.
    Granted,
    /// 409: the conversation at this home is the pair's.
    Taken(Site),
    /// 421.
    WrongCluster,
}

/// What can be wrong with this model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The second cluster sees the homes of both contenders exchanged when it decides.
    RankBackwards,
    /// A crash forgets the claim that was still to be sent.
    ClaimForgotten,
    /// A crash forgets what was granted to another cluster.
    GrantForgotten,
    /// A winner takes in again what it has already.
    ImportDoubled,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::RankBackwards, Self::ClaimForgotten, Self::GrantForgotten, Self::ImportDoubled];

    /// How it is told on the command line.
    #[must_use]
    pub fn plant(self) -> Plant {
        let (name, what) = match self {
            Self::RankBackwards => ("rank-backwards", "one cluster ranks the two homes the wrong way round"),
            Self::ClaimForgotten => {
                ("claim-forgotten", "a crash forgets the claim that was still to be sent")
            }
            Self::GrantForgotten => ("grant-forgotten", "a crash forgets to whom the pair was granted"),
            Self::ImportDoubled => ("import-doubled", "the winner does not know again what it has taken in"),
        };
        Plant { name, what }
    }
}

impl Pair {
    /// The race in so many clusters, 2 or 3.
    #[must_use]
    pub fn new(clusters: usize, bug: Option<Bug>) -> Self {
        let sites: Vec<_> = (0..clusters).map(cast::cluster).collect();
        let place = |site: Site, creator: Person| {
            let url =
                format!("https://{}-conv.provider.example/v1/conversations/{creator}", cast::site(site));
            Contender::new(url.parse().expect("a URL of plain names"), cast::cluster(site))
        };
        Self {
            pairs: pairs_of_each_order(&sites),
            places: (0..clusters).map(|site| [place(site, 0), place(site, 1)]).collect(),
            posts_max: if clusters == 2 { 2 } else { 1 },
            network: if clusters == 2 { Network::Loses } else { Network::Keeps },
            sites,
            bug,
        }
    }

    /// The race for one pair whose clusters and conversations are known; nobody posts.
    pub(crate) fn observed(sites: Vec<ClusterName>, pair: PairKey, places: Vec<[Contender; 2]>) -> Self {
        Self { sites, pairs: vec![pair], places, posts_max: 0, network: Network::Keeps, bug: None }
    }

    pub(crate) fn site(&self, name: &ClusterName) -> Site {
        self.sites.iter().position(|site| site == name).expect("only clusters of the model are named")
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

/// Pairs for which the clusters rank in each of the orders that there are.
fn pairs_of_each_order(sites: &[ClusterName]) -> Vec<PairKey> {
    let mut orders: Vec<(Vec<usize>, PairKey)> = Vec::new();
    let orders_max: usize = (1..=sites.len()).product();
    for salt in 0.. {
        let pair = pair_key(&cast::user(0, 2 * salt), &cast::user(1, 2 * salt + 1));
        let mut order: Vec<usize> = (0..sites.len()).collect();
        order.sort_by_key(|site| rank(&pair, &sites[*site]));
        if orders.iter().all(|(known, _)| *known != order) {
            orders.push((order, pair));
        }
        if orders.len() == orders_max {
            break;
        }
    }
    orders.sort();
    orders.into_iter().map(|(_, pair)| pair).collect()
}

impl Model for Pair {
    type World = World;
    type Step = Step;

    fn starts(&self) -> Vec<World> {
        (0..self.pairs.len()).map(|pair| World::new(pair, self.sites.len())).collect()
    }

    fn steps(&self, world: &World) -> Vec<Step> {
        let mut steps = Vec::new();
        for person in [0, 1] {
            steps.extend(world.slots[person].is_none().then_some(Step::Create(person)));
            steps.extend(self.places_to_post(world, person).map(|site| Step::Post(person, site)));
            if self.sites.len() > 2 && world.served[person] == person {
                let elsewhere = (0..self.sites.len()).filter(|site| *site != person);
                steps.extend(elsewhere.map(|site| Step::Move(person, site)));
            }
        }
        if self.network == Network::Keeps {
            steps.extend(world.under_way.iter().copied().map(Step::Double));
            // A cluster that forgets nothing is after its crash what it was before.
            steps.extend((0..self.sites.len()).filter(|_| self.bug.is_some()).map(Step::Crash));
            return steps;
        }
        let due = self.due(world).into_iter().filter(|message| !world.under_way.contains(message));
        steps.extend(due.map(Step::Send));
        for message in &world.under_way {
            steps.extend([Step::Arrive(*message), Step::Double(*message), Step::Lose(*message)]);
        }
        steps.extend((0..self.sites.len()).map(Step::Crash));
        steps
    }

    fn after(&self, world: &World, step: &Step) -> World {
        let mut world = world.clone();
        self.take(&mut world, *step);
        world
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a pair has at most one bound conversation", |_, world: &World| {
                world.bound.count_ones() <= 1
            }),
            Property::always("a bound conversation is never unseated", |_, world: &World| {
                let objects = world.objects.iter().enumerate();
                let mut was_bound = objects.filter(|(site, _)| world.bound & (1 << site) != 0);
                was_bound.all(|(_, object)| object.as_ref().is_some_and(|object| object.life == Life::Bound))
            }),
            Property::always("no two clusters compute different winners", |_, world: &World| {
                world.alarm.is_none()
            }),
            Property::always(
                "whoever is pointed elsewhere is pointed to the one that is bound",
                |model: &Self, world: &World| model.points_to_the_bound(world),
            ),
            Property::always("whoever wrote something reads it, in order", |model: &Self, world: &World| {
                model.reads_what_was_written(world)
            }),
            Property::always(
                "at rest both have one conversation, with each activity once",
                |model: &Self, world: &World| !model.is_at_rest(world) || model.is_settled(world),
            ),
            Property::eventually("everything comes to rest", |model: &Self, world: &World| {
                model.comes_to_rest(world)
            }),
            Property::sometimes("both create before either claim has arrived", |_, world: &World| {
                let objects = || world.objects.iter().flatten();
                objects().count() == 2 && objects().all(|object| object.life == Life::Provisional)
            }),
            Property::sometimes("a pair is bound without a race", |_, world: &World| {
                world.objects.iter().flatten().count() == 1
                    && world.slots.iter().all(Option::is_some)
                    && world.bound != 0
            }),
            Property::sometimes("a loser's activity is moved to the winner", |_, world: &World| {
                let lost = |object: &Object| object.life.winner().is_some() && !object.log.is_empty();
                let over = |object: &Object| matches!(object.life, Life::Superseded { .. });
                world.objects.iter().flatten().any(|object| lost(object) && over(object))
            }),
            Property::sometimes("a claim comes when all is decided", |_, world: &World| {
                let late = |home: Site| {
                    world.objects[home].as_ref().is_some_and(|object| object.life.winner().is_some())
                };
                world
                    .under_way
                    .iter()
                    .any(|message| matches!(*message, Message::Claim { home, .. } if late(home)))
            }),
        ]
    }

    fn sort(step: &Step) -> Sort {
        match step {
            Step::Create(_) | Step::Post(..) | Step::Move(..) => Sort::Act,
            Step::Send(_) => Sort::Send,
            Step::Arrive(_) => Sort::Arrive,
            Step::Double(_) => Sort::Double,
            Step::Lose(_) => Sort::Lose,
            Step::Crash(_) => Sort::Crash,
        }
    }

    fn show(&self, world: &World) -> Vec<String> {
        self.lines(world)
    }

    fn needs(&self) -> &[Sort] {
        match self.network {
            Network::Loses => &[Sort::Send, Sort::Arrive, Sort::Double, Sort::Lose, Sort::Crash],
            Network::Keeps => &[Sort::Double],
        }
    }

    fn bounds(&self) -> String {
        let posts = words::count(self.posts_max, "activity", "activities");
        let faults = match self.network {
            Network::Loses => "any number of losses, doublings, reorderings and crashes",
            Network::Keeps => "one move each; whatever is sent can arrive at any time, ever again or never",
        };
        format!("{posts} each, {faults}; equal messages under way count as one; each order of ranks")
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |person: &Person| cast::person(*person);
        match self {
            Self::Create(person) => {
                write!(f, "{} creates a conversation with {}", name(person), name(&(1 - person)))
            }
            Self::Post(person, site) => {
                write!(f, "{} posts in the conversation at {}", name(person), cast::site(*site))
            }
            Self::Send(message) => write!(f, "{} sends {message}", cast::site(message.from())),
            Self::Arrive(message) => write!(f, "{} gets {message}", cast::site(message.to())),
            Self::Double(message) => {
                write!(f, "{} gets {message}, and it is under way once more", cast::site(message.to()))
            }
            Self::Lose(message) => write!(f, "lost: {message}"),
            Self::Crash(site) => write!(f, "{} crashes and comes back", cast::site(*site)),
            Self::Move(person, site) => write!(f, "{} moves to {}", name(person), cast::site(*site)),
        }
    }
}
