//! Who had which device, and what it was told.

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, Url};
use serde_json::Value;

use super::{Facts, Moment, Verb};
use crate::event::{Body, EventId, SocketChange};
use crate::table::Table;

/// Every device with a socket, by its place (the host of its events).
#[derive(Debug, Default)]
pub struct Devices<'h> {
    by_host: Table<&'h str, Device<'h>>,
    /// Whose are where.
    hosts: Table<&'h Address, BTreeSet<&'h str>>,
    quiescent: Option<EventId>,
}

/// A device with a socket.
#[derive(Clone, Debug)]
pub struct Device<'h> {
    /// Its place.
    pub host: &'h str,
    /// Whose it is.
    pub user: &'h Address,
    /// What it was told, by resource.
    pub told: BTreeMap<&'h str, Vec<Told<'h>>>,
    sockets: Vec<(EventId, SocketChange)>,
    connects: Vec<EventId>,
    closed_us: Vec<u64>,
}

/// A notification.
#[derive(Clone, Copy, Debug)]
pub struct Told<'h> {
    /// Its delivery.
    pub id: EventId,
    /// What happened.
    pub event_type: EventType,
    /// To which object.
    pub resource: &'h Url,
    /// What it carried.
    pub data: &'h Value,
}

impl<'h> Devices<'h> {
    /// The devices of `user` that must have been told whatever happened after `since`: connected before,
    /// not registered anew since, and connected when everything came to rest.
    pub fn listening(&self, user: &Address, since: EventId) -> impl Iterator<Item = &Device<'h>> {
        let quiescent = self.quiescent;
        self.of(user).filter(move |device| quiescent.is_some_and(|rest| device.listened(since, rest)))
    }

    /// Everything that the devices of `user` were told of a resource.
    pub fn told(&self, user: &Address, resource: &str) -> impl Iterator<Item = Told<'h>> {
        self.of(user).flat_map(move |device| device.told.get(resource).into_iter().flatten().copied())
    }

    /// The devices of a user.
    fn of(&self, user: &Address) -> impl Iterator<Item = &Device<'h>> {
        self.hosts.get(user).into_iter().flatten().filter_map(|host| self.by_host.get(host))
    }

    pub(super) fn sorted(facts: &Facts<'h>) -> Self {
        let mut devices =
            Self { by_host: Table::default(), hosts: Table::default(), quiescent: facts.quiescent() };
        for moment in facts.moments() {
            match moment {
                Moment::Asked(asked) if asked.verb == Verb::Connect => {
                    devices.device(asked.host, asked.actor).connects.push(asked.id);
                }
                Moment::Seen(event) => match &event.body {
                    Body::Socket { user, what, .. } => {
                        let device = devices.device(&event.host, user);
                        device.sockets.push((event.id, *what));
                        device.closed_us.extend((*what == SocketChange::Closed).then_some(event.at_us));
                    }
                    Body::Deliver { user, event_type, resource, data, .. } => {
                        let told = Told { id: event.id, event_type: *event_type, resource, data };
                        let device = devices.device(&event.host, user);
                        device.told.entry(resource.as_str()).or_default().push(told);
                    }
                    _ => {}
                },
                Moment::Asked(_) | Moment::Returned(..) => {}
            }
        }
        devices
    }

    fn device(&mut self, host: &'h str, user: &'h Address) -> &mut Device<'h> {
        if !self.by_host.contains_key(host) {
            self.hosts.entry(user).or_default().insert(host);
        }
        self.by_host.entry(host).or_insert_with(|| Device {
            host,
            user,
            told: BTreeMap::new(),
            sockets: Vec::new(),
            connects: Vec::new(),
            closed_us: Vec::new(),
        })
    }
}

impl Device<'_> {
    /// Whether it was told to re-sync after `since`: then REST gives the truth (MER-003).
    #[must_use]
    pub fn resynced_after(&self, since: EventId) -> bool {
        self.sockets.iter().any(|(id, what)| *id > since && *what == SocketChange::Resync)
    }

    /// Whether its socket ended in this time, in microseconds since the run began.
    #[must_use]
    pub fn closed_within(&self, from_us: u64, until_us: u64) -> bool {
        self.closed_us.iter().any(|at| (from_us..=until_us).contains(at))
    }

    /// What it was told of a resource after `since`.
    pub fn told_after(&self, resource: &str, since: EventId) -> impl Iterator<Item = &Told<'_>> {
        self.told.get(resource).into_iter().flatten().filter(move |told| told.id > since)
    }

    fn listened(&self, since: EventId, rest: EventId) -> bool {
        let ready = |(id, what): &(EventId, SocketChange)| *id < since && *what == SocketChange::Ready;
        let at_rest = self.sockets.iter().rev().find(|(id, _)| *id < rest);
        self.sockets.iter().any(ready)
            && self.connects.iter().all(|id| *id < since)
            && at_rest.is_some_and(|(_, what)| *what != SocketChange::Closed)
    }
}
