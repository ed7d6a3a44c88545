//! Which leg was opened at which relay for whose part in which call, as services and clients tell it.

use std::collections::BTreeMap;

use fusion_protocol::{Address, Url, Uuid};

use crate::event::{Answer, Body, EventId, WorldCluster};
use crate::facts::{Facts, Sight, Verb};
use crate::table::Table;

/// A leg that a relay opened.
pub(super) struct Opened<'h> {
    pub(super) leg: Uuid,
    /// The relay's host.
    pub(super) relay: &'h str,
    /// The cluster that the relay belongs to.
    pub(super) of: &'h WorldCluster,
    pub(super) at_us: u64,
    pub(super) seen: EventId,
}

/// A device's part in a call, as it was answered.
#[derive(Clone, Copy)]
pub(super) struct Part<'h> {
    /// The device's host.
    pub(super) device: &'h str,
    pub(super) user: &'h Address,
    pub(super) locus: &'h Url,
    pub(super) instance: u64,
    /// When the device first had it.
    pub(super) at_us: u64,
    pub(super) joined: EventId,
}

/// Every opening of a leg at a relay of the world, in order. The same leg is opened anew at another relay.
pub(super) fn opened<'h>(facts: &Facts<'h>) -> Vec<Opened<'h>> {
    let clusters = facts.world().map(|world| world.clusters.as_slice()).unwrap_or_default();
    let of: BTreeMap<&str, &WorldCluster> = clusters
        .iter()
        .flat_map(|cluster| cluster.hosts.iter().map(move |host| (&**host, cluster)))
        .collect();
    let opening = facts.seen(Sight::State).filter_map(|event| {
        let Body::State { concept, subject, state, .. } = &event.body else { return None };
        if concept != "leg" || state != "OPEN" {
            return None;
        }
        let (relay, of) = of.get_key_value(event.host.as_str())?;
        Some(Opened { leg: subject.parse().ok()?, relay, of, at_us: event.at_us, seen: event.id })
    });
    opening.collect()
}

/// By leg: whose it is.
pub(super) fn parts<'h>(facts: &Facts<'h>) -> Table<Uuid, Part<'h>> {
    let mut parts = Table::default();
    for asked in facts.asked_to(Verb::Join) {
        let (Some(Answer::Joined { locus, leg: Some(leg) }), Some(back)) = (asked.answer(), asked.back)
        else {
            continue;
        };
        parts.entry(*leg).or_insert(Part {
            device: asked.host,
            user: asked.actor,
            locus: &locus.url,
            instance: locus.instance.0,
            at_us: back.at_us,
            joined: back.id,
        });
    }
    parts
}

/// The relays among a cluster's hosts.
pub(super) fn relays_of(cluster: &WorldCluster) -> impl Iterator<Item = &str> {
    let hosts = cluster.hosts.iter().map(String::as_str);
    hosts.filter(|host| *host != cluster.name.as_str())
}

/// The cluster that a locus lives in.
pub(super) fn home<'h>(facts: &Facts<'h>, locus: &Url) -> Option<&'h WorldCluster> {
    let name = facts.cluster_of(locus)?;
    facts.world()?.clusters.iter().find(|cluster| cluster.name == name)
}
