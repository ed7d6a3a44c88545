//! What every device was told, device by device, for the judges of Mercury.

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::{Address, Uuid};

use crate::event::{Answer, Body, Call, EventId, Phase, SocketChange};
use crate::facts::{Facts, Moment, Sight, Verb};
use crate::table::{Set, Table};

/// A device that stayed one device all the time: registered before people began to act, and not anew.
pub(super) struct Stream<'h> {
    pub(super) host: &'h str,
    pub(super) user: &'h Address,
    /// What it was told, in this order.
    pub(super) told: Vec<(Uuid, EventId)>,
    pub(super) resyncs: Vec<EventId>,
    /// Whether it was ever without a socket once it had one, by its own will or not.
    pub(super) was_away: bool,
    /// Whether it was ever closed on purpose.
    pub(super) was_closed: bool,
    is_open: bool,
    ids: BTreeSet<&'h str>,
    ready: Option<EventId>,
}

/// The streams of each user who had several devices, until nothing moved any more.
pub(super) fn families<'h>(facts: &Facts<'h>) -> Vec<Vec<Stream<'h>>> {
    let (Some(rest), Some(begins)) = (facts.quiescent(), act(facts)) else { return Vec::new() };
    let mut streams: Table<&str, Stream<'_>> = Table::default();
    for moment in facts.moments() {
        match moment {
            Moment::Asked(asked) if asked.verb == Verb::Disconnect => {
                if let (Call::Disconnect { .. }, Some(stream)) = (asked.call, streams.get_mut(asked.host))
                    && asked.id < rest
                {
                    stream.was_closed = true;
                }
            }
            Moment::Returned(asked, _) if asked.verb == Verb::Connect => {
                if let Some(Answer::Connected { id }) = asked.answer() {
                    of(&mut streams, asked.host, asked.actor).ids.insert(id);
                }
            }
            Moment::Seen(event) if event.id < rest => match &event.body {
                Body::Socket { user, what, .. } => {
                    of(&mut streams, &event.host, user).socket(event.id, *what);
                }
                Body::Deliver { user, id, .. } => {
                    of(&mut streams, &event.host, user).told.push((*id, event.id));
                }
                _ => {}
            },
            Moment::Asked(_) | Moment::Returned(..) | Moment::Seen(_) => {}
        }
    }
    let deleted = facts.deprovisioned();
    let homes = facts.clusters_of_users();
    let mut families: BTreeMap<&Address, Vec<Stream<'_>>> = BTreeMap::new();
    streams.sort_unstable_keys();
    for stream in streams.into_values() {
        let stays = !deleted.contains(stream.user) && homes.get(stream.user).is_none_or(|at| at.len() == 1);
        let whole = stream.ready.is_some_and(|ready| ready < begins) && stream.ids.len() == 1;
        if stays && whole && stream.is_open {
            families.entry(stream.user).or_default().push(stream);
        }
    }
    families.into_values().filter(|family| family.len() > 1).collect()
}

/// The events that some of a family were told and `stream` was not: each with where it was told.
pub(super) fn missing<'a>(family: &'a [Stream<'_>], stream: &Stream<'_>) -> Vec<(Uuid, EventId, &'a str)> {
    let own: Set<Uuid> = stream.told.iter().map(|(id, _)| *id).collect();
    let mut seen = Set::default();
    let told = family.iter().flat_map(|other| other.told.iter().map(|(id, at)| (*id, *at, other.host)));
    told.filter(|(id, ..)| !own.contains(id) && seen.insert(*id)).collect()
}

fn act(facts: &Facts<'_>) -> Option<EventId> {
    facts
        .seen(Sight::Phase)
        .find(|event| event.body == Body::Phase { phase: Phase::Act })
        .map(|event| event.id)
}

fn of<'s, 'h>(
    streams: &'s mut Table<&'h str, Stream<'h>>,
    host: &'h str,
    user: &'h Address,
) -> &'s mut Stream<'h> {
    streams.entry(host).or_insert_with(|| Stream {
        host,
        user,
        told: Vec::new(),
        resyncs: Vec::new(),
        was_away: false,
        was_closed: false,
        is_open: false,
        ids: BTreeSet::new(),
        ready: None,
    })
}

impl Stream<'_> {
    fn socket(&mut self, at: EventId, what: SocketChange) {
        match what {
            SocketChange::Ready => {
                self.ready.get_or_insert(at);
                self.is_open = true;
            }
            SocketChange::Resync => self.resyncs.push(at),
            SocketChange::Closed => {
                self.is_open = false;
                self.was_away = true;
            }
        }
    }
}
