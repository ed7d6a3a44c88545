//! Which rows of the outbox may leave when (RDV-005): order, routes, back-off.
//!
//! Rows wait in *lanes*: one for each (stream, addressee), first in, first out. A lane's addressee is
//! resolved when there is something to send, never before; then the lane queues at the cluster that
//! serves it. One cluster that does not answer delays only the lanes that lead there.
//!
//! Not here: what a row says, how it travels, where it is stored. Time and chance are arguments.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use fusion_protocol::{Address, ClusterName};

/// The wait after the first failure.
pub const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// The longest wait.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// The place of a row among all rows of one cluster: rows of a lane leave in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub u128);

/// What leaves in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// What the rows are about: an object's URL.
    pub stream: String,
    /// Whom they are for.
    pub to: Addressee,
}

/// Whom a row is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Addressee {
    /// A user, wherever they are when it is sent.
    User(Address),
    /// A cluster.
    Cluster(ClusterName),
}

/// What one request can carry together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Entries of indexes, many at once.
    Index,
    /// Entries of active lists, many at once.
    Loci,
    /// Claims of a pair: a request for each.
    Claims,
    /// Activities of a loser: a request for each page.
    Imports,
}

/// A row that waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row<R> {
    /// Its place.
    pub id: RowId,
    /// How it travels.
    pub channel: Channel,
    /// Its size in a request, in octets.
    pub octets: usize,
    /// What it says.
    pub what: R,
}

/// Rows of one lane that are under way together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken<R> {
    /// The lane.
    pub lane: Lane,
    /// Its next rows.
    pub rows: Vec<Row<R>>,
}

/// What became of a row that was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered for good; or dead, with nobody to send it to.
    Done,
    /// Not now: the lane tries again later.
    Later,
    /// Not there: the lane's addressee is resolved again, later.
    Misrouted,
}

/// Limits of one request.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Rows.
    pub rows_max: usize,
    /// Octets of all rows together; one row is always taken.
    pub octets_max: usize,
}

/// The waiting rows of one cluster's outbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outbox<R> {
    lanes: BTreeMap<Lane, Waiting<R>>,
    routes: BTreeMap<Address, Route>,
    peers: BTreeMap<ClusterName, Peer>,
    /// Who is due to be resolved now.
    unresolved: BTreeSet<Address>,
    /// Who and what sleeps until when.
    asleep: BTreeSet<(Duration, Sleeper)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiting<R> {
    rows: VecDeque<Row<R>>,
    standing: Standing,
    attempts: u32,
}

/// Where a lane stands: in exactly one place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Standing {
    /// Its user's cluster is not known.
    Routing,
    /// In a queue of a cluster.
    Queued(ClusterName, Channel),
    /// So many of its rows are being sent.
    UnderWay(usize),
    /// Sleeps until then.
    Asleep(Duration),
}

/// Where a user's lanes go, as long as there are any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Route {
    cluster: Option<ClusterName>,
    attempts: u32,
    /// Lanes that wait for the cluster to be known.
    lanes: BTreeSet<Lane>,
    /// How many lanes there are for this user.
    uses: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Peer {
    attempts: u32,
    not_before: Option<Duration>,
    queues: BTreeMap<Channel, VecDeque<Lane>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Sleeper {
    Lane(Lane),
    User(Address),
    Peer(ClusterName),
}

/// How long to wait after `attempts` failures (from 0): doubling, capped, the upper half by chance.
/// `jitter` is any random number.
#[must_use]
pub fn backoff(attempts: u32, jitter: u64) -> Duration {
    let whole = BACKOFF_MIN.saturating_mul(1 << attempts.min(16)).min(BACKOFF_MAX);
    let half = whole / 2;
    let by_chance = (half.as_nanos() * u128::from(jitter)) >> 64;
    half + Duration::from_nanos(by_chance as u64)
}

impl<R> Default for Outbox<R> {
    fn default() -> Self {
        Self {
            lanes: BTreeMap::new(),
            routes: BTreeMap::new(),
            peers: BTreeMap::new(),
            unresolved: BTreeSet::new(),
            asleep: BTreeSet::new(),
        }
    }
}

impl<R: Clone> Outbox<R> {
    /// Adds a row. Rows of one lane may be added in any order; a row never overtakes one that was added
    /// before it and has a lower place.
    pub fn add(&mut self, lane: Lane, row: Row<R>) {
        if let Some(waiting) = self.lanes.get_mut(&lane) {
            let later = waiting.rows.iter().rev().take_while(|other| other.id > row.id).count();
            let under_way = match waiting.standing {
                Standing::UnderWay(count) => count,
                Standing::Routing | Standing::Queued(..) | Standing::Asleep(_) => 0,
            };
            let at = (waiting.rows.len() - later).max(under_way);
            waiting.rows.insert(at, row);
            return;
        }
        let waiting = Waiting { rows: VecDeque::from([row]), standing: Standing::Routing, attempts: 0 };
        self.lanes.insert(lane.clone(), waiting);
        if let Addressee::User(user) = &lane.to {
            self.routes.entry(user.clone()).or_default().uses += 1;
        }
        self.enroute(lane);
    }

    /// Users who are due to be resolved; the caller answers each with [`Outbox::resolved`],
    /// [`Outbox::not_resolved`] or [`Outbox::give_up_on_user`].
    pub fn to_resolve(&mut self) -> BTreeSet<Address> {
        std::mem::take(&mut self.unresolved)
    }

    /// `user` is served by `cluster`.
    pub fn resolved(&mut self, user: &Address, cluster: ClusterName) {
        let Some(route) = self.routes.get_mut(user) else { return };
        route.cluster = Some(cluster);
        route.attempts = 0;
        std::mem::take(&mut route.lanes).into_iter().for_each(|lane| self.enroute(lane));
    }

    /// `user` cannot be resolved now.
    pub fn not_resolved(&mut self, user: &Address, now: Duration, jitter: u64) {
        let Some(route) = self.routes.get_mut(user) else { return };
        let wait = backoff(route.attempts, jitter);
        route.attempts += 1;
        self.asleep.insert((now + wait, Sleeper::User(user.clone())));
    }

    /// There is no such user: removes and returns what was waiting for the route.
    pub fn give_up_on_user(&mut self, user: &Address) -> Vec<Taken<R>> {
        let Some(route) = self.routes.get_mut(user) else { return Vec::new() };
        let lanes = std::mem::take(&mut route.lanes);
        lanes.into_iter().map(|lane| Taken { rows: self.remove(&lane), lane }).collect()
    }

    /// Clusters and channels that something can be sent on now.
    pub fn ready(&mut self, now: Duration) -> Vec<(ClusterName, Channel)> {
        self.wake(now);
        let awake = self.peers.iter().filter(|(_, peer)| peer.not_before.is_none());
        awake.flat_map(|(name, peer)| peer.queues.keys().map(|channel| (name.clone(), *channel))).collect()
    }

    /// The next rows for `cluster` on `channel`, in order within each lane. Their lanes stand still until
    /// [`Outbox::settle`] or [`Outbox::unreachable`].
    pub fn take(
        &mut self,
        cluster: &ClusterName,
        channel: Channel,
        room: Room,
        now: Duration,
    ) -> Vec<Taken<R>> {
        self.wake(now);
        let Some(peer) = self.peers.get_mut(cluster).filter(|peer| peer.not_before.is_none()) else {
            return Vec::new();
        };
        let (mut taken, mut rows_left, mut octets_left) = (Vec::new(), room.rows_max, room.octets_max);
        let Some(queue) = peer.queues.get_mut(&channel) else { return taken };
        while let Some(lane) = queue.front() {
            let Some(waiting) = self.lanes.get_mut(lane) else {
                queue.pop_front();
                continue;
            };
            let mut count = 0;
            for row in waiting.rows.iter().take_while(|row| row.channel == channel) {
                let alone = taken.is_empty() && count == 0;
                if rows_left == 0 || (row.octets > octets_left && !alone) {
                    break;
                }
                rows_left -= 1;
                octets_left = octets_left.saturating_sub(row.octets);
                count += 1;
                if matches!(channel, Channel::Claims | Channel::Imports) {
                    break;
                }
            }
            if count == 0 {
                break;
            }
            waiting.standing = Standing::UnderWay(count);
            let rows = waiting.rows.iter().take(count).cloned().collect();
            taken.extend(queue.pop_front().map(|lane| Taken { lane, rows }));
        }
        if queue.is_empty() {
            peer.queues.remove(&channel);
        }
        self.forget_idle(cluster);
        taken
    }

    /// What became of the rows of a [`Taken`], one for each. Rows that are not done stay first.
    pub fn settle(&mut self, lane: &Lane, outcomes: &[Outcome], now: Duration, jitter: u64) {
        let Some(waiting) = self.lanes.get_mut(lane) else { return };
        let Standing::UnderWay(count) = waiting.standing else { return };
        let under_way: Vec<_> = waiting.rows.drain(..count).collect();
        let undone = under_way.into_iter().zip(outcomes).filter(|(_, outcome)| **outcome != Outcome::Done);
        for (row, _) in undone.collect::<Vec<_>>().into_iter().rev() {
            waiting.rows.push_front(row);
        }
        let (empty, attempts) = (waiting.rows.is_empty(), waiting.attempts);
        let again = outcomes.iter().any(|outcome| *outcome != Outcome::Done);
        waiting.attempts = if again { attempts + 1 } else { 0 };
        if empty {
            self.remove(lane);
        } else if again {
            let until = now + backoff(attempts, jitter);
            waiting.standing = Standing::Asleep(until);
            self.asleep.insert((until, Sleeper::Lane(lane.clone())));
        } else {
            self.enroute(lane.clone());
        }
        if outcomes.contains(&Outcome::Misrouted) {
            self.forget_route(&lane.to);
        }
    }

    /// `cluster` did not answer: what was under way waits at the head of its queue.
    pub fn unreachable(&mut self, cluster: &ClusterName, taken: &[Lane], now: Duration, jitter: u64) {
        let peer = self.peers.entry(cluster.clone()).or_default();
        if peer.not_before.is_none() {
            let until = now + backoff(peer.attempts, jitter);
            peer.attempts += 1;
            peer.not_before = Some(until);
            self.asleep.insert((until, Sleeper::Peer(cluster.clone())));
        }
        for lane in taken.iter().rev() {
            let Some(waiting) = self.lanes.get_mut(lane) else { continue };
            let channel = waiting.rows[0].channel;
            waiting.standing = Standing::Queued(cluster.clone(), channel);
            peer.queues.entry(channel).or_default().push_front(lane.clone());
        }
    }

    /// Whether `cluster` answered when it was last tried, as far as anybody remembers.
    #[must_use]
    pub fn is_reachable(&self, cluster: &ClusterName) -> bool {
        self.peers.get(cluster).is_none_or(|peer| peer.attempts == 0)
    }

    /// `cluster` is there: what waits for it is due at once, and so is whoever could not be resolved.
    /// Answers whether that is news.
    pub fn contact(&mut self, cluster: &ClusterName) -> bool {
        let Some(peer) = self.peers.get_mut(cluster).filter(|peer| peer.attempts > 0) else { return false };
        peer.attempts = 0;
        if let Some(until) = peer.not_before.take() {
            self.asleep.remove(&(until, Sleeper::Peer(cluster.clone())));
        }
        let users = |(_, sleeper): &(Duration, Sleeper)| matches!(sleeper, Sleeper::User(_));
        let due: Vec<_> = self.asleep.iter().filter(|entry| users(entry)).cloned().collect();
        for entry in due {
            self.asleep.remove(&entry);
            if let Sleeper::User(user) = entry.1 {
                self.unresolved.insert(user);
            }
        }
        self.forget_idle(cluster);
        true
    }

    /// Removes a lane with all its rows, wherever it stands: they are done, or have become pointless.
    pub fn remove(&mut self, lane: &Lane) -> Vec<Row<R>> {
        let Some(waiting) = self.lanes.remove(lane) else { return Vec::new() };
        match waiting.standing {
            Standing::Routing | Standing::UnderWay(_) => {}
            Standing::Queued(cluster, channel) => self.unqueue(lane, &cluster, channel),
            Standing::Asleep(until) => drop(self.asleep.remove(&(until, Sleeper::Lane(lane.clone())))),
        }
        if let Addressee::User(user) = &lane.to
            && let Some(route) = self.routes.get_mut(user)
        {
            route.lanes.remove(lane);
            route.uses -= 1;
            if route.uses == 0 {
                self.routes.remove(user);
                self.unresolved.remove(user);
            }
        }
        waiting.rows.into()
    }

    /// All rows of a lane, in order.
    pub fn rows(&self, lane: &Lane) -> impl Iterator<Item = &Row<R>> {
        self.lanes.get(lane).into_iter().flat_map(|waiting| &waiting.rows)
    }

    /// When something that sleeps is due; `None`: nothing sleeps.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.asleep.first().map(|(due, _)| *due)
    }

    /// Rows that are not done.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lanes.values().map(|waiting| waiting.rows.len()).sum()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Puts a lane where it belongs: to its cluster, or to those who wait for a route.
    fn enroute(&mut self, lane: Lane) {
        let Some(waiting) = self.lanes.get_mut(&lane) else { return };
        let Some(channel) = waiting.rows.front().map(|row| row.channel) else { return };
        let cluster = match &lane.to {
            Addressee::Cluster(cluster) => Some(cluster.clone()),
            Addressee::User(user) => self.routes.get(user).and_then(|route| route.cluster.clone()),
        };
        match (cluster, &lane.to) {
            (Some(cluster), _) => {
                waiting.standing = Standing::Queued(cluster.clone(), channel);
                self.peers.entry(cluster).or_default().queues.entry(channel).or_default().push_back(lane);
            }
            (None, Addressee::User(user)) => {
                waiting.standing = Standing::Routing;
                let route = self.routes.entry(user.clone()).or_default();
                if route.lanes.is_empty() {
                    self.unresolved.insert(user.clone());
                }
                route.lanes.insert(lane);
            }
            (None, Addressee::Cluster(_)) => {}
        }
    }

    fn unqueue(&mut self, lane: &Lane, cluster: &ClusterName, channel: Channel) {
        let Some(peer) = self.peers.get_mut(cluster) else { return };
        if let Some(queue) = peer.queues.get_mut(&channel) {
            queue.retain(|other| other != lane);
            if queue.is_empty() {
                peer.queues.remove(&channel);
            }
        }
        self.forget_idle(cluster);
    }

    fn forget_route(&mut self, to: &Addressee) {
        if let Addressee::User(user) = to
            && let Some(route) = self.routes.get_mut(user)
        {
            route.cluster = None;
        }
    }

    /// A peer about whom there is nothing to remember is forgotten.
    fn forget_idle(&mut self, cluster: &ClusterName) {
        if self.peers.get(cluster).is_some_and(|peer| peer.attempts == 0 && peer.queues.is_empty()) {
            self.peers.remove(cluster);
        }
    }

    fn wake(&mut self, now: Duration) {
        while self.asleep.first().is_some_and(|(due, _)| *due <= now) {
            let Some((_, sleeper)) = self.asleep.pop_first() else { return };
            match sleeper {
                Sleeper::Lane(lane) => self.enroute(lane),
                Sleeper::User(user) => drop(self.unresolved.insert(user)),
                Sleeper::Peer(cluster) => {
                    if let Some(peer) = self.peers.get_mut(&cluster) {
                        peer.not_before = None;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
