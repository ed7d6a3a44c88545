//! Where a run is drawn: one lane for each host, those of a data centre and of a cluster side by side, and
//! the messages between them.

use std::collections::BTreeMap;

use fusion_history::event::{Call, World};
use fusion_history::{Body, Event, History, Outcome};
use fusion_protocol::{Url, UrlTemplate};
use serde::Serialize;
use serde_json::Value;

use super::is_drawn;

/// The group of the provider's hosts.
const PROVIDER: &str = "provider";

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Lane {
    /// Its name.
    pub(crate) host: String,
    /// What it belongs to: a cluster with its org, the provider, or nothing.
    pub(crate) group: String,
    /// The data centre of the cluster, with which its devices are drawn; empty for who is in none.
    pub(crate) place: String,
    /// The cluster whose own host it is; empty for devices and the provider's hosts.
    #[serde(skip)]
    pub(crate) cluster: String,
}

/// From which lane to which a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Arrow {
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// The lanes of a run, and who is served where.
pub(crate) struct Lanes<'h> {
    lanes: Vec<Lane>,
    lane: BTreeMap<String, usize>,
    template: Option<UrlTemplate>,
    /// The first host of each cluster.
    front: BTreeMap<&'h str, &'h str>,
    /// The cluster of each user, by the local part of the address, as devices are named.
    home: BTreeMap<&'h str, &'h str>,
}

/// The order of lanes: provider, then data centre by data centre and cluster by cluster, hosts before
/// devices, then whoever is left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Provider,
    Cluster { place: usize, cluster: usize, device: bool },
    Other,
}

impl<'h> Lanes<'h> {
    pub(crate) fn of(history: &'h History) -> Self {
        let world = history.events().iter().find_map(|event| match &event.body {
            Body::World(world) => Some(world),
            _ => None,
        });
        let mut found = Self {
            lanes: Vec::new(),
            lane: BTreeMap::new(),
            template: world
                .and_then(|world| UrlTemplate::parse(&world.template, world.provider.clone()?).ok()),
            front: BTreeMap::new(),
            home: BTreeMap::new(),
        };
        let mut ranked = Vec::new();
        if let Some(world) = world {
            found.take(world, &mut ranked);
        }
        for event in history.events().iter().filter(|event| is_drawn(event)) {
            if event.host != "engine" && !ranked.iter().any(|(_, lane)| lane.host == event.host) {
                ranked.push(found.stranger(&event.host, world));
            }
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        found.lanes = ranked.into_iter().map(|(_, lane)| lane).collect();
        found.lane = found.lanes.iter().enumerate().map(|(at, lane)| (lane.host.clone(), at)).collect();
        found
    }

    /// The lanes, in the order in which they are drawn.
    pub(crate) fn all(&self) -> &[Lane] {
        &self.lanes
    }

    /// The lanes that a word names: a host, the hosts of a cluster, the devices of a user.
    pub(crate) fn named(&self, word: &str) -> impl Iterator<Item = (usize, &Lane)> {
        let is_it =
            move |lane: &Lane| lane.host == word || lane.cluster == word || user_of(&lane.host) == word;
        self.lanes.iter().enumerate().filter(move |(_, lane)| is_it(lane))
    }

    /// The lane of an event's host; `None` for the engine's own events.
    pub(crate) fn at(&self, host: &str) -> Option<usize> {
        self.lane.get(host).copied()
    }

    /// The message that an event is the sending or the arrival of.
    pub(crate) fn arrow(&self, event: &Event, history: &History) -> Option<Arrow> {
        let own = self.at(&event.host)?;
        let (from, to) = match &event.body {
            Body::Invoke { call, .. } => (own, self.asked(&event.host, call)?),
            // No answer came.
            Body::Return { outcome: Outcome::Unreachable {} | Outcome::Unknown {} } => return None,
            Body::Return { .. } => {
                let Body::Invoke { call, .. } = &history.event(event.cause?)?.body else { return None };
                (self.asked(&event.host, call)?, own)
            }
            Body::Deliver { .. } => (self.home_of(&event.host)?, own),
            _ => return None,
        };
        (from != to).then_some(Arrow { from, to })
    }

    /// Where a URL of the federation points: cluster and path.
    pub(crate) fn locate(&self, url: &str) -> Option<(String, String)> {
        let located = self.template.as_ref()?.locate(&url.parse::<Url>().ok()?).ok()?;
        Some((located.cluster.as_str().to_owned(), located.path))
    }

    fn take(&mut self, world: &'h World, ranked: &mut Vec<(Rank, Lane)>) {
        let provider = |host: &String| (Rank::Provider, Lane::new(host, PROVIDER, "", ""));
        ranked.extend(world.provider_hosts.iter().map(provider));
        for cluster in &world.clusters {
            let rank = rank(world, cluster.name.as_str(), false);
            let group = group(world, cluster.name.as_str());
            let lane = |host: &String| Lane::new(host, &group, &cluster.data_center, cluster.name.as_str());
            ranked.extend(cluster.hosts.iter().map(|host| (rank, lane(host))));
            if let Some(front) = cluster.hosts.first() {
                self.front.insert(cluster.name.as_str(), front);
            }
        }
        self.home.extend(world.users.iter().map(|user| (user.user.local_part(), user.cluster.as_str())));
    }

    /// Of a host that the world does not name: a device or an admin, beside the cluster it belongs to.
    fn stranger(&self, host: &str, world: Option<&World>) -> (Rank, Lane) {
        let admins = host.strip_prefix("admin-").and_then(|rest| rest.split('/').next());
        let home =
            self.home.get(user_of(host)).copied().or(admins.filter(|name| self.front.contains_key(name)));
        let cluster = home.zip(world).and_then(|(home, world)| {
            let cluster = world.clusters.iter().find(|cluster| cluster.name.as_str() == home)?;
            let lane = Lane::new(host, &group(world, home), &cluster.data_center, "");
            Some((rank(world, home, true), lane))
        });
        cluster.unwrap_or_else(|| (Rank::Other, Lane::new(host, "", "", "")))
    }

    /// The lane of the cluster that a call goes to: the one it names, or the user's own.
    fn asked(&self, host: &str, call: &Call) -> Option<usize> {
        let named = serde_json::to_value(call).ok().and_then(|call| self.addressee(&call));
        named.or_else(|| self.home_of(host))
    }

    fn addressee(&self, call: &Value) -> Option<usize> {
        let members = call.as_object()?;
        let cluster = ["cluster", "via", "at"].iter().find_map(|name| members.get(*name)?.as_str());
        let located = || members.values().filter_map(Value::as_str).find_map(|text| self.locate(text));
        match cluster {
            Some(cluster) => self.front_of(cluster),
            None => self.front_of(&located()?.0),
        }
    }

    fn home_of(&self, host: &str) -> Option<usize> {
        self.front_of(self.home.get(user_of(host))?)
    }

    fn front_of(&self, cluster: &str) -> Option<usize> {
        self.at(self.front.get(cluster)?)
    }
}

impl Lane {
    fn new(host: &str, group: &str, place: &str, cluster: &str) -> Self {
        let [host, group, place, cluster] = [host, group, place, cluster].map(str::to_owned);
        Self { host, group, place, cluster }
    }

    /// Whether it is a service's.
    pub(crate) fn serves(&self) -> bool {
        !self.cluster.is_empty() || self.group == PROVIDER
    }

    /// Group and data centre, for people; the data centre only where it has a name of its own.
    pub(crate) fn home(&self) -> String {
        let own_name = self.group.split(' ').next() == Some(self.place.as_str());
        if self.place.is_empty() || own_name {
            return self.group.clone();
        }
        format!("{} in {}", self.group, self.place)
    }
}

/// Devices are named after their users: `alice/phone`.
fn user_of(host: &str) -> &str {
    host.split('/').next().unwrap_or_default()
}

fn group(world: &World, cluster: &str) -> String {
    let found = world.clusters.iter().find(|known| known.name.as_str() == cluster);
    found.map_or_else(|| cluster.to_owned(), |found| format!("{cluster} of {}", found.org))
}

fn rank(world: &World, cluster: &str, device: bool) -> Rank {
    let position = world.clusters.iter().position(|known| known.name.as_str() == cluster);
    let Some(cluster) = position else { return Rank::Other };
    let own = &world.clusters[cluster].data_center;
    let place = world.clusters.iter().position(|known| known.data_center == *own).unwrap_or(cluster);
    Rank::Cluster { place, cluster, device }
}
