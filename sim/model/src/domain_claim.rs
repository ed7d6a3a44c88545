//! Claims of one domain at once (MAP-002): two orgs want it, the admins of three clusters write, and the
//! provider crashes between what it reads and what it writes.
//!
//! The machine is [`fusion_machines::domain_claim::Claim`]. The world is the provider's store, whose commits
//! hold only if nobody else made the version that they make, the requests at work between reading and
//! writing, and admins who ask again until they are answered or give up. With a third cluster, the first
//! org has two, and an admin in each, who name different clusters of it.
//!
//! One admin also tries to claim with a cluster of the other org's.
//!
//! Not modelled: the proof that an org controls the domain, public and reserved domains (they depend on
//! nothing that races), replicas of the map (MAP-006).

mod world;

use std::collections::BTreeSet;
use std::fmt;

use fusion_machines::domain_claim::{Claim, Event};
use fusion_protocol::{ClusterName, Domain};

use crate::cast::{self, Site};
use crate::model::{Model, Plant, Property, Sort};
use crate::words;

pub use world::World;

/// How often a request can arrive twice, or its answer be lost: each lets the map change once more.
const MISHAPS_MAX: u8 = 1;

/// A domain that several want.
pub struct DomainClaim {
    admins: Vec<Admin>,
    orgs: [Org; 2],
    domain: Domain,
    provider: Domain,
    /// How many things each admin wants, one after the other.
    wishes_max: u8,
    bug: Option<Bug>,
}

/// Whoever writes for an org, from one of its clusters.
struct Admin {
    org: usize,
    clusters: Vec<ClusterName>,
}

struct Org {
    name: &'static str,
    clusters: BTreeSet<ClusterName>,
}

/// An admin, by the cluster that they sit in.
type By = Site;

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An admin asks.
    Ask(Request),
    /// An admin asks again.
    Send(Request),
    /// An admin waits no longer.
    GiveUp(By),
    /// A request arrives, and the provider reads what is held of the domain.
    Read(Request),
    /// The same, and the request can arrive again.
    ReadTwice(Request),
    /// A request is lost.
    Lose(Request),
    /// The provider decides, writes and answers.
    Write(Working),
    /// The same, and the answer is lost.
    WriteUnheard(Working),
    /// The provider crashes and comes back.
    Crash,
}

/// What an admin asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    by: By,
    wish: Wish,
}

/// See [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wish {
    /// The domain, with clusters of their own org.
    Claim,
    /// The domain, with a cluster of the other org's.
    Steal,
    /// To give it up.
    Release,
}

/// A request between reading and writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Working {
    request: Request,
    /// The version that it has read.
    read: u64,
}

/// What can be wrong with this model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A commit does not ask whether somebody else was faster.
    BlindWrite,
    /// A crash forgets the last commit, though it was answered.
    CommitForgotten,
    /// Each org may name each cluster.
    ForeignClusters,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::BlindWrite, Self::CommitForgotten, Self::ForeignClusters];

    /// How it is told on the command line.
    #[must_use]
    pub fn plant(self) -> Plant {
        let (name, what) = match self {
            Self::BlindWrite => ("blind-write", "a commit does not ask whether somebody else was faster"),
            Self::CommitForgotten => ("commit-forgotten", "a crash forgets a claim that was granted"),
            Self::ForeignClusters => ("foreign-clusters", "an org may name clusters that are not its own"),
        };
        Plant { name, what }
    }
}

impl DomainClaim {
    /// The domain and so many clusters, 2 or 3.
    #[must_use]
    pub fn new(clusters: usize, bug: Option<Bug>) -> Self {
        let all: Vec<_> = (0..clusters).map(cast::cluster).collect();
        // The second org has the cluster in the middle, the first org the others.
        let of = |org: usize| all.iter().skip(org).step_by(2).cloned().collect::<Vec<_>>();
        let admin = |site: usize| {
            let clusters = if site == 2 { of(0) } else { vec![all[site].clone()] };
            Admin { org: site % 2, clusters }
        };
        let domain = |text: &str| text.parse().expect("a domain of plain names");
        let org = |name, number| Org { name, clusters: of(number).into_iter().collect() };
        Self {
            admins: (0..clusters).map(admin).collect(),
            orgs: [org("acme", 0), org("globex", 1)],
            domain: domain("wanted.example"),
            provider: domain("provider.example"),
            wishes_max: if clusters == 2 { 2 } else { 1 },
            bug,
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn event(&self, request: Request) -> Event {
        let admin = &self.admins[request.by];
        let org = self.orgs[admin.org].name.to_owned();
        match request.wish {
            Wish::Claim => Event::Claim { org, clusters: admin.clusters.clone() },
            Wish::Steal => {
                let others = &self.orgs[1 - admin.org].clusters;
                Event::Claim { org, clusters: others.iter().take(1).cloned().collect() }
            }
            Wish::Release => Event::Release { org },
        }
    }
}

impl Model for DomainClaim {
    type World = World;
    type Step = Step;

    fn starts(&self) -> Vec<World> {
        vec![World::new(self.admins.len())]
    }

    fn steps(&self, world: &World) -> Vec<Step> {
        let mut steps = Vec::new();
        for by in 0..self.admins.len() {
            self.steps_of(world, by, &mut steps);
        }
        for request in &world.requests {
            steps.extend([Step::Read(*request), Step::Lose(*request)]);
            steps.extend((world.mishaps < MISHAPS_MAX).then_some(Step::ReadTwice(*request)));
        }
        for working in &world.working {
            steps.push(Step::Write(*working));
            steps.extend((world.mishaps < MISHAPS_MAX).then_some(Step::WriteUnheard(*working)));
        }
        steps.push(Step::Crash);
        steps
    }

    fn after(&self, world: &World, step: &Step) -> World {
        let mut world = world.clone();
        self.take(&mut world, step);
        world
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("at most one org has been granted the domain", |_, world: &World| {
                world.granted.len() <= 1
            }),
            Property::always(
                "whoever was granted the domain has it until they give it up",
                |model: &Self, world: &World| {
                    model.owner(world).into_iter().eq(world.granted.iter().copied())
                },
            ),
            Property::always("each change of the map is a version of its own", |_, world: &World| {
                world.version() == 1 + world.changes
            }),
            Property::always(
                "a claim names clusters of the org that has it",
                |model: &Self, world: &World| {
                    let Claim::Claimed { clusters, .. } = world.claim() else { return true };
                    let owner = model.owner(world).map(|org| &model.orgs[org].clusters);
                    owner.is_some_and(|own| clusters.iter().all(|cluster| own.contains(cluster)))
                },
            ),
            Property::eventually("everybody is answered", |model: &Self, world: &World| {
                model.comes_to_rest(world)
            }),
            Property::sometimes(
                "two orgs have read the same version, to claim it",
                |model: &Self, world: &World| {
                    let reads = |org: usize| {
                        let here = |working: &&Working| {
                            model.admins[working.request.by].org == org
                                && working.request.wish == Wish::Claim
                                && working.read == 1
                        };
                        world.working.iter().any(|working| here(&working))
                    };
                    world.version() == 1 && reads(0) && reads(1)
                },
            ),
            Property::sometimes("somebody comes too late with what they have read", |_, world: &World| {
                world.working.iter().any(|working| working.read < world.version())
            }),
            Property::sometimes("the domain goes to the other org", |_, world: &World| world.owners == 0b11),
            Property::sometimes("an org is told that it has the domain", |_, world: &World| world.told),
        ]
    }

    fn sort(step: &Step) -> Sort {
        match step {
            Step::Ask(_) | Step::GiveUp(_) => Sort::Act,
            Step::Send(_) => Sort::Send,
            Step::Read(_) | Step::Write(_) => Sort::Arrive,
            Step::ReadTwice(_) => Sort::Double,
            Step::Lose(_) | Step::WriteUnheard(_) => Sort::Lose,
            Step::Crash => Sort::Crash,
        }
    }

    fn needs(&self) -> &[Sort] {
        &[Sort::Send, Sort::Arrive, Sort::Double, Sort::Lose, Sort::Crash]
    }

    fn show(&self, world: &World) -> Vec<String> {
        self.lines(world)
    }

    fn bounds(&self) -> String {
        format!(
            "{}, {} each, {} arrives twice or is answered to nobody, any number of losses, reorderings and \
             crashes; equal requests under way count as one",
            words::count(self.admins.len(), "admin", "admins"),
            words::count(self.wishes_max.into(), "wish", "wishes"),
            words::count(MISHAPS_MAX.into(), "request", "requests"),
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask(request) => write!(f, "{request}"),
            Self::Send(request) => write!(f, "once more, {request}"),
            Self::GiveUp(by) => write!(f, "the admin in {} waits no longer for an answer", cast::site(*by)),
            Self::Read(request) => write!(f, "the provider gets and reads the map: {request}"),
            Self::ReadTwice(request) => {
                write!(f, "the provider gets and reads the map, and it is under way once more: {request}")
            }
            Self::Lose(request) => write!(f, "lost: {request}"),
            Self::Write(working) => write!(f, "the provider goes on, and answers: {working}"),
            Self::WriteUnheard(working) => write!(f, "the provider goes on, its answer is lost: {working}"),
            Self::Crash => f.write_str("the provider crashes and comes back"),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = cast::site(self.by);
        match self.wish {
            Wish::Claim => write!(f, "the admin in {by} claims the domain"),
            Wish::Steal => write!(f, "the admin in {by} claims the domain with the other org's cluster"),
            Wish::Release => write!(f, "the admin in {by} gives the domain up"),
        }
    }
}

impl fmt::Display for Working {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, having read version {}", self.request, self.read)
    }
}
