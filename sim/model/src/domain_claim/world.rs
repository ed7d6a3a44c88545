//! The provider's store, the requests at work there, and the admins.

use std::collections::BTreeSet;

use fusion_machines::domain_claim::{Claim, Effect, Refusal, Rules};
use fusion_protocol::ClusterName;

use super::{Bug, By, DomainClaim, Request, Step, Wish, Working};
use crate::cast;

/// More steps than any world needs to come to rest.
const STEPS_MAX: usize = 60;

/// Everything about the domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Durable: what each version of the map holds of the domain; the last is what is held now.
    held: Vec<Claim>,
    pub(super) requests: BTreeSet<Request>,
    /// In the provider's memory.
    pub(super) working: BTreeSet<Working>,
    waiting: Vec<Option<Request>>,
    wishes: Vec<u8>,
    /// How often a request has arrived twice or its answer was lost.
    pub(super) mishaps: u8,
    /// Which orgs were granted the domain and have not given it up since.
    pub(super) granted: BTreeSet<usize>,
    /// How many commits have changed the map.
    pub(super) changes: u64,
    /// Which orgs have ever had it, a bit for each.
    pub(super) owners: u8,
    /// Whether anybody has ever heard that it is theirs.
    pub(super) told: bool,
}

impl World {
    pub(super) fn new(admins: usize) -> Self {
        Self {
            held: vec![Claim::None],
            requests: BTreeSet::new(),
            working: BTreeSet::new(),
            waiting: vec![None; admins],
            wishes: vec![0; admins],
            mishaps: 0,
            granted: BTreeSet::new(),
            changes: 0,
            owners: 0,
            told: false,
        }
    }

    /// The version of the map now; the empty map is version 1.
    pub(super) fn version(&self) -> u64 {
        self.held.len() as u64
    }

    pub(super) fn claim(&self) -> &Claim {
        self.held.last().expect("there is a first version")
    }
}

impl DomainClaim {
    pub(super) fn owner(&self, world: &World) -> Option<usize> {
        let Claim::Claimed { org, .. } = world.claim() else { return None };
        self.orgs.iter().position(|other| other.name == org)
    }

    /// What an admin can do.
    pub(super) fn steps_of(&self, world: &World, by: By, steps: &mut Vec<Step>) {
        if let Some(request) = world.waiting[by] {
            steps.push(Step::GiveUp(by));
            // Whoever asks again has heard that the connection is gone.
            let pending = world.working.iter().any(|working| working.request == request);
            let lost = !pending && !world.requests.contains(&request);
            steps.extend(lost.then_some(Step::Send(request)));
        } else if world.wishes[by] < self.wishes_max {
            let wishes: &[Wish] = match by {
                1 => &[Wish::Claim, Wish::Steal, Wish::Release],
                _ => &[Wish::Claim, Wish::Release],
            };
            steps.extend(wishes.iter().map(|wish| Step::Ask(Request { by, wish: *wish })));
        }
    }

    pub(super) fn take(&self, world: &mut World, step: &Step) {
        match *step {
            Step::Ask(request) => {
                world.wishes[request.by] += 1;
                world.waiting[request.by] = Some(request);
                world.requests.insert(request);
            }
            Step::Send(request) => drop(world.requests.insert(request)),
            Step::GiveUp(by) => world.waiting[by] = None,
            Step::Read(request) => {
                world.requests.remove(&request);
                read(world, request);
            }
            Step::ReadTwice(request) => {
                world.mishaps += 1;
                read(world, request);
            }
            Step::Lose(request) => drop(world.requests.remove(&request)),
            Step::Write(working) => self.write(world, working, true),
            Step::WriteUnheard(working) => {
                world.mishaps += 1;
                self.write(world, working, false);
            }
            Step::Crash => {
                world.requests.clear();
                world.working.clear();
                if self.has(Bug::CommitForgotten) && world.held.len() > 1 {
                    world.held.pop();
                }
            }
        }
    }

    /// Whether everybody is answered once nothing is lost any more.
    pub(super) fn comes_to_rest(&self, world: &World) -> bool {
        let mut world = world.clone();
        for _ in 0..STEPS_MAX {
            let request = world.requests.first().map(|request| Step::Read(*request));
            let working = || world.working.first().map(|working| Step::Write(*working));
            let again = || world.waiting.iter().flatten().next().map(|request| Step::Send(*request));
            let Some(step) = request.or_else(working).or_else(again) else { return true };
            self.take(&mut world, &step);
        }
        false
    }

    /// Decides on what was read, and commits if that is still so; else reads again.
    fn write(&self, world: &mut World, working: Working, heard: bool) {
        let Working { request, read: version } = working;
        let mut claim = world.held[version as usize - 1].clone();
        let decided = self.decide(&mut claim, request);
        if decided == Ok(Effect::Changed) {
            let overtaken = world.version() != version;
            if overtaken && !self.has(Bug::BlindWrite) {
                world.working.remove(&working);
                read(world, request);
                return;
            }
            world.held.truncate(version as usize);
            world.held.push(claim);
            world.changes += 1;
        }
        world.working.remove(&working);
        // What changes nothing was so when it was read: it takes its place there.
        if decided == Ok(Effect::Changed) {
            self.granted(world, request);
        }
        if heard && world.waiting[request.by] == Some(request) {
            world.waiting[request.by] = None;
            world.told |= decided.is_ok() && request.wish == Wish::Claim;
        }
    }

    fn granted(&self, world: &mut World, request: Request) {
        let org = self.admins[request.by].org;
        match request.wish {
            Wish::Claim | Wish::Steal => {
                world.owners |= 1 << org;
                world.granted.insert(org);
            }
            Wish::Release => drop(world.granted.remove(&org)),
        }
    }

    fn decide(&self, claim: &mut Claim, request: Request) -> Result<Effect, Refusal> {
        let own = &self.orgs[self.admins[request.by].org].clusters;
        let everybodys: BTreeSet<ClusterName> =
            self.orgs.iter().flat_map(|org| &org.clusters).cloned().collect();
        let rules = Rules {
            domain: &self.domain,
            provider: &self.provider,
            clusters_of_org: if self.has(Bug::ForeignClusters) { &everybodys } else { own },
            consumer_clusters: &[],
        };
        claim.step(&rules, self.event(request))
    }

    /// A line for the map, and for what is under way.
    pub(super) fn lines(&self, world: &World) -> Vec<String> {
        let held = match world.claim() {
            Claim::None => "never claimed".to_owned(),
            Claim::Released => "given up".to_owned(),
            Claim::Claimed { org, clusters } => {
                let clusters: Vec<_> = clusters.iter().map(ClusterName::as_str).collect();
                format!("{org}'s, in {}", clusters.join(" and "))
            }
        };
        let granted: Vec<_> = world.granted.iter().map(|org| self.orgs[*org].name).collect();
        let granted = if granted.is_empty() { "nobody".to_owned() } else { granted.join(" and ") };
        let map = format!("the map: version {}, the domain is {held}", world.version());
        let promised = format!("granted to, and not given up: {granted}");
        let waiting = world.waiting.iter().enumerate().filter(|(_, request)| request.is_some());
        let waiting = waiting.map(|(by, _)| format!("the admin in {} waits for an answer", cast::site(by)));
        let requests = world.requests.iter().map(|request| format!("under way: {request}"));
        let working = world.working.iter().map(|working| format!("at the provider: {working}"));
        [map, promised].into_iter().chain(waiting).chain(requests).chain(working).collect()
    }
}

/// The provider reads what is held now.
fn read(world: &mut World, request: Request) {
    let read = world.version();
    world.working.insert(Working { request, read });
}
