//! What people do: episodes that overlap in time, each made of threads.
//!
//! A thread is what one device does, one thing after the other. Threads run beside each other, so that the
//! same person may be in two of them at once, as people are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fusion_deployment::Topology;
use fusion_deployment::topology::{OrgRole, UserSpec};
use fusion_protocol::ClusterName;

use super::STEPS_ENOUGH;
use super::dice::Dice;
use super::people::{Device, NAMES};
use crate::scenario::{Act, Start, Step, user_named};

/// What an episode can be about, and how often it is.
const EPISODES: [(u64, Episode); 9] = [
    (40, Episode::Pair),
    (20, Episode::Group),
    (12, Episode::Errands),
    (8, Episode::Move),
    (5, Episode::Newcomer),
    (3, Episode::MadeTwice),
    (3, Episode::TakenOver),
    (5, Episode::Claims),
    (4, Episode::Hostile),
];

/// A story among a few people.
#[derive(Clone, Copy)]
enum Episode {
    Pair,
    Group,
    Errands,
    Move,
    Newcomer,
    MadeTwice,
    TakenOver,
    Claims,
    Hostile,
}

/// A scenario in the making.
pub(super) struct Script {
    pub(super) topology: Topology,
    pub(super) act: Duration,
    /// Everybody who is there from the beginning, by name.
    pub(super) residents: Vec<String>,
    /// The one chat in which a device calls and is called: it is in one call at a time.
    pub(super) callers: BTreeMap<Device, String>,
    /// Who must stay where they are, because a step counts on it.
    pub(super) settled: BTreeSet<String>,
    /// Who moves.
    pub(super) movers: BTreeSet<String>,
    /// Whether somebody's place changes in the story.
    pub(super) moves_people: bool,
    steps: Vec<Step>,
}

/// What one device does, one thing after the other.
pub(super) struct Thread {
    pub(super) device: Device,
    prefix: String,
    count: u32,
    next: Start,
}

impl Script {
    pub(super) fn new(topology: Topology, act: Duration) -> Self {
        let residents = topology.users.iter().map(|user| user.address.local_part().to_owned()).collect();
        Self {
            topology,
            act,
            residents,
            callers: BTreeMap::new(),
            settled: BTreeSet::new(),
            movers: BTreeSet::new(),
            moves_people: false,
            steps: Vec::new(),
        }
    }

    /// Draws episodes: more in larger worlds. Each seed leaves out some kinds of them, so that others come
    /// close together.
    pub(super) fn episodes(&mut self, dice: &Dice) {
        let appetite = dice.stream("appetite");
        let wanted: Vec<(u64, Episode)> = EPISODES
            .into_iter()
            .enumerate()
            .filter(|(n, _)| *n == 0 || !appetite.percent(35))
            .map(|(_, choice)| choice)
            .collect();
        let clusters = self.topology.clusters().count() as u64;
        for n in 1..=dice.few(1, 4 + clusters / 2) {
            if self.steps.len() >= STEPS_ENOUGH {
                break;
            }
            let dice = dice.stream(&n.to_string());
            self.episode(dice.weighted(&wanted), n, &dice);
        }
    }

    /// The federation and everything that is done in it.
    pub(super) fn end(self) -> (Topology, Vec<Step>) {
        (self.topology, self.steps)
    }

    /// A thread of episode `n` that begins somewhere in the first half of the act.
    pub(super) fn thread(&self, n: u64, device: Device, at: Duration) -> Thread {
        let named = if device.name == "phone" { "" } else { device.name };
        let dash = if named.is_empty() { "" } else { "-" };
        Thread { prefix: format!("e{n}-{}{dash}{named}", device.user), device, count: 0, next: Start::At(at) }
    }

    /// When an episode begins.
    pub(super) fn begins(&self, dice: &Dice) -> Duration {
        dice.millis(100, self.act.as_millis() as u64 / 2)
    }

    /// Different people, at most `count` of them.
    pub(super) fn several(&self, dice: &Dice, count: usize) -> Vec<String> {
        let mut left = self.residents.clone();
        (0..count).map_while(|_| dice.take(&mut left)).collect()
    }

    /// Somebody whom nobody has met: not there at the beginning, unless the caller says so.
    pub(super) fn newcomer(
        &mut self,
        make: impl FnOnce(&Topology, &str) -> Option<UserSpec>,
    ) -> Option<String> {
        let name = NAMES.iter().find(|name| user_named(&self.topology, name).is_none())?;
        let user = make(&self.topology, name)?;
        self.topology.users.push(user);
        self.moves_people = true;
        Some((*name).to_owned())
    }

    /// Where somebody has an account at the beginning.
    pub(super) fn home_of(&self, name: &str) -> Option<ClusterName> {
        user_named(&self.topology, name).map(|user| user.cluster.clone())
    }

    /// Whether somebody is of a private org.
    pub(super) fn is_private(&self, name: &str) -> bool {
        let org = self.home_of(name).and_then(|home| self.topology.org_of(&home).map(|org| org.role));
        org == Some(OrgRole::Private)
    }

    fn episode(&mut self, kind: Episode, n: u64, dice: &Dice) {
        match kind {
            Episode::Pair => self.pair(n, dice),
            Episode::Group => self.group(n, dice),
            Episode::Errands => self.errands(n, dice),
            Episode::Move => self.moving(n, dice),
            Episode::Newcomer => self.somebody_comes(n, dice),
            Episode::MadeTwice => self.made_twice(n, dice),
            Episode::TakenOver => self.taken_over(n, dice),
            Episode::Claims => self.claims(n, dice),
            Episode::Hostile => self.hostile(n, dice),
        }
    }
}

impl Thread {
    /// The next thing, `delay` after the last one. Returns the step's id.
    pub(super) fn does(
        &mut self,
        script: &mut Script,
        delay: Duration,
        jitter: Duration,
        act: Act,
    ) -> String {
        self.count += 1;
        let id = format!("{}-{}", self.prefix, self.count);
        let start = match &self.next {
            Start::At(at) => Start::At(*at + delay),
            Start::After { steps, delay: more } => {
                Start::After { steps: steps.clone(), delay: *more + delay }
            }
        };
        script.steps.push(Step {
            id: id.clone(),
            user: self.device.user.clone(),
            device: self.device.name.to_owned(),
            start,
            jitter,
            act,
        });
        self.next = Start::After { steps: vec![id.clone()], delay: Duration::ZERO };
        id
    }

    /// The next thing begins after these steps, too.
    pub(super) fn waits_for(&mut self, others: &[String]) {
        let steps = match &mut self.next {
            Start::After { steps, .. } => steps,
            Start::At(_) => {
                self.next = Start::After { steps: others.to_vec(), delay: Duration::ZERO };
                return;
            }
        };
        steps.extend(others.iter().cloned());
        steps.sort();
        steps.dedup();
    }

    /// The step that this thread has come to, if any.
    pub(super) fn last(&self) -> Vec<String> {
        match &self.next {
            Start::At(_) => Vec::new(),
            Start::After { steps, .. } => steps.clone(),
        }
    }
}
