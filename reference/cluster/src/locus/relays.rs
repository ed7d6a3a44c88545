//! Looks after the relays that carry calls, and gives up those that fail (MED-004).
//!
//! A relay is listened to only while it carries a call. One that misses a beat and does not answer then, or
//! that lives another life and has forgotten its legs, carries its calls no more: each gets another relay in
//! one step of its locus, and the devices in it are told, who join again and are given a leg there.
//!
//! The two seconds of MED-004, at worst: a beat that is 300 ms late after [`BEAT`], 400 ms in which it does
//! not answer, the choice of another relay, then the notification, the join and the binding.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fusion_machines::locus::{Event, Locus};
use fusion_protocol::media::BEAT;
use fusion_protocol::{Count, Problem, Url, Uuid};
use fusion_runtime::probe::Level;
use futures_util::future::{join, join_all};
use serde_json::json;

use super::store::Home;
use crate::media::{self, Bounds, Heart};
use crate::{Cluster, conversation};

/// How soon a relay that did not answer is looked at again.
const AGAIN: Duration = Duration::from_millis(50);
/// How often in a row a relay that carries calls may fail to answer.
const MISSES_MAX: u32 = 2;

/// The calls that go on, by the relay that carries each.
#[derive(Default)]
pub(crate) struct Relays(Mutex<BTreeMap<Url, Calls>>);

/// By conversation.
type Calls = BTreeMap<Uuid, Call>;

#[derive(Clone, Copy)]
struct Call {
    instance: Count,
    /// Whether this process has seen the relay alive since the call came to it. After a crash of this one
    /// the relay may have lost the call's legs meanwhile.
    sure: bool,
}

impl Relays {
    /// The locus is now so. A relay that carries its first call is looked after from now on.
    pub(super) fn follow(&self, cluster: &Cluster, conversation: Uuid, locus: &Locus) {
        self.carry(cluster, conversation, locus, true);
    }

    /// The same for a call that was going on when this process started.
    pub(super) fn resume(&self, cluster: &Cluster, conversation: Uuid, locus: &Locus) {
        self.carry(cluster, conversation, locus, false);
    }

    fn carry(&self, cluster: &Cluster, conversation: Uuid, locus: &Locus, sure: bool) {
        let relay = locus.relay().filter(|_| locus.is_active());
        let mut relays = self.relays();
        for (_, calls) in relays.iter_mut().filter(|(other, _)| Some(*other) != relay) {
            calls.remove(&conversation);
        }
        let Some(relay) = relay else { return };
        let is_new = !relays.contains_key(relay);
        let calls = relays.entry(relay.clone()).or_default();
        let known = calls.get(&conversation).filter(|call| call.instance == locus.instance);
        let sure = known.map_or(sure, |call| call.sure);
        calls.insert(conversation, Call { instance: locus.instance, sure });
        drop(relays);
        if is_new {
            let (cluster, relay) = (cluster.clone(), relay.clone());
            cluster.clone().host.tasks.spawn(async move { look_after(&cluster, &relay).await });
        }
    }

    /// The calls at a relay; none any more: nobody looks after it.
    fn calls_at(&self, relay: &Url) -> Option<Calls> {
        let mut relays = self.relays();
        let calls = relays.get(relay).filter(|calls| !calls.is_empty()).cloned();
        if calls.is_none() {
            relays.remove(relay);
        }
        calls
    }

    /// The relay lives. Answers the calls whose legs it may have lost without anybody's having noticed.
    fn lives(&self, relay: &Url) -> Calls {
        let mut relays = self.relays();
        let Some(calls) = relays.get_mut(relay) else { return Calls::new() };
        let unsure = calls.iter().filter(|(_, call)| !call.sure).map(|(id, call)| (*id, *call)).collect();
        calls.values_mut().for_each(|call| call.sure = true);
        unsure
    }

    fn relays(&self) -> MutexGuard<'_, BTreeMap<Url, Calls>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The relay after one that failed, agreed upon by all of the call's devices.
pub(super) async fn replace(home: &Home<'_>, bounds: Bounds, instance: Count, failed: &Url) -> Option<Url> {
    let to = media::next_choice(home.cluster, bounds, failed).await?;
    let locus = give_up(home.cluster, home.id, instance, failed, to).await.ok()?;
    locus.relay().filter(|relay| locus.instance == instance && *relay != failed).cloned()
}

async fn look_after(cluster: &Cluster, relay: &Url) {
    let clock = &cluster.host.clock;
    let (mut life, mut misses) = (None, 0);
    while let Some(calls) = cluster.relays.calls_at(relay) {
        let Some(mut heart) = media::listen(cluster, relay).await else {
            misses += 1;
            if misses < MISSES_MAX {
                clock.sleep(AGAIN).await;
                continue;
            }
            fail(cluster, relay, &calls, misses).await;
            // It may stay away for long, and there may be no other.
            clock.sleep(BEAT).await;
            continue;
        };
        if life.is_some_and(|life| life != heart.life) {
            cluster.relays.lives(relay);
            give_up_all(cluster, relay, &calls, |_| Some(relay.clone())).await;
        }
        life = Some(heart.life);
        misses = if hear(cluster, relay, &mut heart).await { 0 } else { 1 };
    }
}

/// Listens as long as the relay carries calls. Answers whether it lived to the last.
async fn hear(cluster: &Cluster, relay: &Url, heart: &mut Heart) -> bool {
    loop {
        let unsure = cluster.relays.lives(relay);
        give_up_all(cluster, relay, &unsure, |_| Some(relay.clone())).await;
        match heart.beats().await {
            Some(true) if cluster.relays.calls_at(relay).is_some() => {}
            Some(true) => return true,
            Some(false) => {
                // One that does not tell of its life by itself is asked as often as others tell.
                cluster.host.clock.sleep(BEAT).await;
                return true;
            }
            None => return false,
        }
    }
}

/// The relay is gone: its calls go to the next one, if there is any.
async fn fail(cluster: &Cluster, relay: &Url, calls: &Calls, misses: u32) {
    let choice = |bounds| media::next_choice(cluster, bounds, relay);
    let (of_org, by_policy) = join(choice(Bounds::Org), choice(Bounds::Policy)).await;
    if of_org.is_none() && by_policy.is_none() {
        // Said once, however long that lasts.
        if misses == MISSES_MAX {
            log(cluster, relay, calls, 0);
        }
        return;
    }
    let next = |bounds| match bounds {
        Bounds::Org => of_org.clone(),
        Bounds::Policy => by_policy.clone(),
    };
    give_up_all(cluster, relay, calls, next).await;
}

async fn give_up_all(cluster: &Cluster, relay: &Url, calls: &Calls, next: impl Fn(Bounds) -> Option<Url>) {
    if calls.is_empty() {
        return;
    }
    let moved = calls.iter().map(async |(conversation, call)| {
        let membership = conversation::membership(cluster, *conversation).await.ok()?;
        let to = next(media::bounds(cluster, &membership.members))?;
        give_up(cluster, *conversation, call.instance, relay, to).await.ok()
    });
    let moved = join_all(moved).await.into_iter().flatten().count();
    log(cluster, relay, calls, moved);
}

fn log(cluster: &Cluster, relay: &Url, calls: &Calls, moved: usize) {
    let fields = json!({ "relay": relay.host_str(), "calls": calls.len(), "moved": moved });
    cluster.host.probe.log(Level::Warn, "media.relay-failed", fields);
}

/// One step: the call is at `to` from now on, and its devices are told.
async fn give_up(
    cluster: &Cluster,
    conversation: Uuid,
    instance: Count,
    from: &Url,
    to: Url,
) -> Result<Locus, Problem> {
    let home = Home::hold(cluster, conversation).await;
    let event = Event::RelayFailed { instance, from: from.clone(), to };
    home.step(event).await.map(|stepped| stepped.locus)
}
