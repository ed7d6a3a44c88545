//! Time in calls: leases, rings, renewals, and legs still to be closed (LOC-006, LOC-007).
//!
//! Counted in memory and only while this instance serves: after a restart, and after a time in which it
//! did not run, everything gets its full time again. One task sleeps until the next thing is due; with
//! no call going on it does not wake at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fusion_machines::locus::{Event, Locus};
use fusion_protocol::locus::{ACTIVE_RENEW_SECONDS, LEASE_SECONDS, RING_SECONDS};
use fusion_protocol::{Address, Code, Count, Problem, Uuid};
use fusion_runtime::probe::Level;
use fusion_runtime::store::Key;
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::Notify;

use super::effects;
use super::store::{self, Home};
use crate::{Cluster, StartError, media};

const LEASE: Duration = Duration::from_secs(LEASE_SECONDS);
const RING: Duration = Duration::from_secs(RING_SECONDS);
const RENEW: Duration = Duration::from_secs(ACTIVE_RENEW_SECONDS);
/// While anything is counted the task wakes at least this often, to notice that it did not run.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Waking this much too late means that the machine stood still.
const LATE: Duration = Duration::from_secs(1);
/// The pause before something that failed is tried again; doubles up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How many loci are looked at in one go at the start.
const PAGE: usize = 1_000;

/// The leases and ring time-outs that this instance counts.
#[derive(Default)]
pub(crate) struct Leases {
    agenda: Mutex<Agenda>,
    changed: Notify,
}

/// Something that will be due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    conversation: Uuid,
    instance: Count,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// The call has rung long enough.
    Ring,
    /// The entries of the active lists are renewed.
    Renew,
    /// The legs of the ended call are closed; so many tries have failed.
    Close,
    /// The device has not renewed its lease.
    Lease { user: Address, device: String },
}

/// What is due when, found by either.
#[derive(Default)]
struct Agenda {
    when: BTreeMap<Due, Duration>,
    order: BTreeSet<(Duration, Due)>,
    /// What is being done now.
    taken: BTreeSet<Due>,
    /// How often in a row something has failed; absent is never.
    failed: BTreeMap<Due, u32>,
}

/// Scans what goes on, then counts.
pub(super) async fn start(cluster: &Cluster) -> Result<(), StartError> {
    let mut after: Option<Key> = None;
    loop {
        let page = store::live(cluster, after.as_ref(), PAGE).await.map_err(unreadable)?;
        for (_, live) in &page {
            let locus = Home::of(cluster, live.conversation).read().await.map_err(unreadable)?;
            cluster.leases.resume(cluster, *live, &locus);
        }
        match page.into_iter().last() {
            Some((key, _)) => after = Some(key),
            None => break,
        }
    }
    let counting = cluster.clone();
    cluster.host.tasks.spawn(async move { counting.leases.count(&counting).await });
    Ok(())
}

impl Leases {
    /// LOC-007: the device is alive: a full lease from now on.
    pub(super) fn renew(
        &self,
        cluster: &Cluster,
        conversation: Uuid,
        instance: Count,
        user: &Address,
        device: &str,
    ) {
        let what = What::Lease { user: user.clone(), device: device.to_owned() };
        self.set(Due { conversation, instance, what }, cluster.host.clock.now() + LEASE);
    }

    /// Counts for a locus what its state asks for, and nothing else.
    pub(super) fn follow(&self, cluster: &Cluster, conversation: Uuid, locus: &Locus) {
        let now = cluster.host.clock.now();
        let due = |what| Due { conversation, instance: locus.instance, what };
        let mut agenda = self.agenda();
        if locus.rings() {
            agenda.set_if_new(due(What::Ring), now + RING);
        } else {
            agenda.clear(&due(What::Ring));
        }
        if locus.is_active() {
            agenda.set_if_new(due(What::Renew), now + RENEW);
        }
        agenda.retain_devices(conversation, locus);
        for (user, device) in devices(locus) {
            agenda.set_if_new(due(What::Lease { user, device }), now + LEASE);
        }
        drop(agenda);
        self.changed.notify_one();
    }

    /// MED-001: the legs of the ended call are to be closed now.
    pub(super) fn close(&self, cluster: &Cluster, conversation: Uuid, instance: Count) {
        let due = Due { conversation, instance, what: What::Close };
        self.set(due, cluster.host.clock.now());
    }

    fn resume(&self, cluster: &Cluster, live: store::Live, locus: &Locus) {
        if locus.is_active() {
            self.follow(cluster, live.conversation, locus);
            cluster.relays.resume(cluster, live.conversation, locus);
            // The lists may have hidden the call while this cluster was away.
            let what = What::Renew;
            let due = Due { conversation: live.conversation, instance: locus.instance, what };
            self.set(due, cluster.host.clock.now());
        } else {
            self.close(cluster, live.conversation, live.instance);
        }
    }

    async fn count(&self, cluster: &Cluster) {
        let clock = &cluster.host.clock;
        loop {
            let Some(until) = self.next_wake(clock.now()) else {
                self.changed.notified().await;
                continue;
            };
            tokio::select! {
                biased;
                () = clock.sleep_until(until) => {}
                () = self.changed.notified() => continue,
            }
            let now = clock.now();
            if now > until + LATE {
                self.agenda().excuse(now);
            }
            let taken = self.agenda().take(now);
            for due in taken {
                let cluster = cluster.clone();
                // Each by itself: one slow locus does not hold up the others.
                cluster.clone().host.tasks.spawn(async move { fire(&cluster, due).await });
            }
        }
    }

    fn next_wake(&self, now: Duration) -> Option<Duration> {
        let agenda = self.agenda();
        let (next, _) = agenda.order.first()?;
        Some((*next).min(now + HEARTBEAT))
    }

    fn set(&self, due: Due, at: Duration) {
        self.agenda().set(due, at);
        self.changed.notify_one();
    }

    fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agenda {
    fn set(&mut self, due: Due, at: Duration) {
        self.clear(&due);
        self.taken.remove(&due);
        self.order.insert((at, due.clone()));
        self.when.insert(due, at);
    }

    fn set_if_new(&mut self, due: Due, at: Duration) {
        if !self.when.contains_key(&due) && !self.taken.contains(&due) {
            self.set(due, at);
        }
    }

    fn clear(&mut self, due: &Due) {
        if let Some(at) = self.when.remove(due) {
            self.order.remove(&(at, due.clone()));
        }
    }

    /// Forgets whatever is no longer to be counted for a locus; the closing of legs stays.
    fn retain_devices(&mut self, conversation: Uuid, locus: &Locus) {
        let from = Due { conversation, instance: Count(0), what: What::Ring };
        let until = Due { conversation, instance: Count(u64::MAX), what: What::Ring };
        let counted = |due: &Due| match &due.what {
            What::Close => true,
            What::Ring | What::Renew => locus.is_active() && due.instance == locus.instance,
            What::Lease { user, device } => locus.holds(user, due.instance, device),
        };
        let gone: Vec<Due> =
            self.when.range(from..until).map(|(due, _)| due).filter(|due| !counted(due)).cloned().collect();
        for due in gone {
            self.clear(&due);
        }
    }

    /// Everything due by `now`, taken out.
    fn take(&mut self, now: Duration) -> Vec<Due> {
        let mut taken = Vec::new();
        while self.order.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, due)) = self.order.pop_first() {
                self.when.remove(&due);
                self.taken.insert(due.clone());
                taken.push(due);
            }
        }
        taken
    }

    /// LOC-007: nobody could renew while this machine stood still, and nobody could answer.
    fn excuse(&mut self, now: Duration) {
        let all: Vec<Due> = self.when.keys().cloned().collect();
        for due in all {
            match due.what {
                What::Lease { .. } => self.set(due, now + LEASE),
                What::Ring => self.set(due, now + RING),
                What::Renew | What::Close => {}
            }
        }
    }

    /// The pause before the next try of something that has just failed.
    fn pause_after_failure(&mut self, due: &Due) -> Duration {
        let failed = self.failed.entry(due.clone()).or_default();
        *failed = (*failed + 1).min(16);
        (RETRY * 2_u32.pow(*failed - 1)).min(RETRY_MAX)
    }
}

fn devices(locus: &Locus) -> impl Iterator<Item = (Address, String)> + '_ {
    let parties = locus.parties.iter();
    parties.flat_map(|(user, party)| party.devices.keys().map(|device| (user.clone(), device.clone())))
}

/// Does what is due; when it cannot, tries again later.
async fn fire(cluster: &Cluster, due: Due) {
    let done = match due.what {
        What::Ring | What::Lease { .. } => expire(cluster, &due).await,
        What::Renew => renew(cluster, &due).await,
        What::Close => close(cluster, &due).await,
    };
    let mut agenda = cluster.leases.agenda();
    let still_taken = agenda.taken.remove(&due);
    if done.is_ok() {
        agenda.failed.remove(&due);
        return;
    }
    let pause = agenda.pause_after_failure(&due);
    if still_taken {
        agenda.set(due, cluster.host.clock.now() + pause);
    }
    drop(agenda);
    cluster.leases.changed.notify_one();
    cluster.host.probe.log(Level::Warn, "locus.retry", json!({"pauseMs": pause.as_millis() as u64}));
}

async fn expire(cluster: &Cluster, due: &Due) -> Result<(), Problem> {
    let home = Home::hold(cluster, due.conversation).await;
    if !cluster.leases.agenda().taken.contains(due) {
        // Renewed while this waited for the locus.
        return Ok(());
    }
    let instance = due.instance;
    let event = match &due.what {
        What::Lease { user, device } => {
            Event::LeaseExpired { user: user.clone(), instance, device: device.clone() }
        }
        What::Ring | What::Renew | What::Close => Event::RingTimeout { instance },
    };
    home.step(event).await.map(drop)
}

async fn renew(cluster: &Cluster, due: &Due) -> Result<(), Problem> {
    let home = Home::of(cluster, due.conversation);
    let locus = home.read().await?;
    if locus.is_active() && locus.instance == due.instance {
        effects::renew(&home, &locus).await;
        cluster.leases.set(due.clone(), cluster.host.clock.now() + RENEW);
    }
    Ok(())
}

/// MED-001: every relay that has carried the call hears of its end, until each has confirmed it.
async fn close(cluster: &Cluster, due: &Due) -> Result<(), Problem> {
    let home = Home::of(cluster, due.conversation);
    let locus = home.read().await?;
    // The next call may have begun: its relays are not the ones to ask then, so all are.
    let relays = if locus.instance == due.instance { locus.relays } else { media::all(cluster) };
    // All at once: a relay that is dead must not keep the others forwarding.
    let asked =
        relays.iter().map(|relay| media::close_instance(cluster, relay, due.conversation, due.instance));
    if join_all(asked).await.iter().any(Result::is_err) {
        return Err(Problem::from(Code::PeerUnreachable));
    }
    home.mark_quiet(due.instance).await
}

fn unreadable(problem: Problem) -> StartError {
    StartError::Row(problem.detail.unwrap_or(problem.title))
}
