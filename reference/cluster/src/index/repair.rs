//! Repair of indexes (RDV-007): as a home, tells every cluster what its indexes should hold; as a receiver,
//! says what is missing. The home then announces that again, through the outbox.
//!
//! A round reads the own conversations page by page and holds at most one batch for each cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fusion_machines::repair::{self, Schedule, Whom};
use fusion_protocol::index::{Difference, DigestAnswer, DigestRow, IndexDigest};
use fusion_protocol::{Address, ClusterName, Code, Incarnation, Problem, Service, limits};
use fusion_runtime::Clock;
use fusion_runtime::probe::Level;
use http::Method;
use serde_json::json;
use tokio::sync::Notify;

use super::store;
use crate::peers::{self, PeerError};
use crate::{Cluster, conversation, users};

/// How many conversations are read at once.
const PAGE: usize = 256;

/// When who is told, as this instance knows it.
pub(crate) struct Repair {
    schedule: Mutex<Schedule>,
    changed: Notify,
}

/// One reading of all conversations.
struct Round<'a> {
    cluster: &'a Cluster,
    whom: &'a Whom,
    waiting: BTreeMap<ClusterName, Vec<DigestRow>>,
    /// Who did not take a batch: told again later, from the start.
    failed: BTreeSet<ClusterName>,
}

impl Repair {
    /// Nobody has been told anything.
    pub(crate) fn new(clock: &Clock) -> Self {
        Self { schedule: Mutex::new(Schedule::start(clock.now())), changed: Notify::new() }
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        // Nothing under the lock can panic half-way through a change.
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `peer` was away and is back: it is told soon.
pub(crate) fn reconnected(cluster: &Cluster, peer: &ClusterName) {
    if cluster.repair.schedule().reconnected(peer, cluster.host.clock.now()) {
        cluster.repair.changed.notify_one();
    }
}

/// Starts telling.
pub(crate) fn start(cluster: &Cluster) {
    cluster.host.tasks.spawn(run(cluster.clone()));
}

async fn run(cluster: Cluster) {
    loop {
        let (whom, next) = {
            let mut schedule = cluster.repair.schedule();
            let whom = schedule.take(cluster.host.clock.now(), cluster.host.entropy.u64());
            (whom, schedule.next_due())
        };
        match whom {
            Some(whom) => tell(&cluster, &whom).await,
            None => {
                tokio::select! {
                    biased;
                    () = cluster.repair.changed.notified() => {}
                    () = cluster.host.clock.sleep_until(next) => {}
                }
            }
        }
    }
}

/// One round. A cluster that does not take its part is told later; so is everybody, when the own store
/// cannot be read.
async fn tell(cluster: &Cluster, whom: &Whom) {
    let mut round = Round { cluster, whom, waiting: BTreeMap::new(), failed: BTreeSet::new() };
    let mut after = None;
    loop {
        let Ok(page) = conversation::page(cluster, after, PAGE).await else {
            round.give_up();
            break;
        };
        for (peer, row) in page.iter().flat_map(|(_, conversation)| repair::rows(conversation)) {
            round.add(peer, row).await;
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => after = Some(*last),
            _ => break,
        }
    }
    round.finish().await;
}

impl Round<'_> {
    async fn add(&mut self, peer: &ClusterName, row: DigestRow) {
        if !self.whom.includes(peer) || self.failed.contains(peer) {
            return;
        }
        let waiting = self.waiting.entry(peer.clone()).or_default();
        waiting.push(row);
        if waiting.len() == limits::BATCH_MAX {
            let rows = std::mem::take(waiting);
            self.send(peer, rows).await;
        }
    }

    /// Nobody can be told everything.
    fn give_up(&mut self) {
        match self.whom {
            Whom::Everybody => {
                self.waiting.clear();
                let (now, jitter) = (self.cluster.host.clock.now(), self.cluster.host.entropy.u64());
                self.cluster.repair.schedule().broken_off(now, jitter);
            }
            Whom::These(these) => self.failed.extend(these.iter().cloned()),
        }
    }

    async fn finish(mut self) {
        for (peer, rows) in std::mem::take(&mut self.waiting) {
            if !self.failed.contains(&peer) {
                self.send(&peer, rows).await;
            }
            if !self.failed.contains(&peer) {
                self.cluster.repair.schedule().told(&peer);
            }
        }
        let (now, entropy) = (self.cluster.host.clock.now(), &self.cluster.host.entropy);
        for peer in &self.failed {
            self.cluster.repair.schedule().failed(peer, now, entropy.u64());
        }
    }

    async fn send(&mut self, peer: &ClusterName, rows: Vec<DigestRow>) {
        let taken = async {
            let answered = ask(self.cluster, peer, &rows).await?;
            for (row, last_seq) in repair::asked_for(&rows, answered) {
                conversation::announce_again(self.cluster, row, last_seq).await.ok()?;
            }
            Some(())
        };
        if taken.await.is_none() {
            self.failed.insert(peer.clone());
        }
    }
}

/// What the cluster misses; `None`: it cannot say now.
async fn ask(cluster: &Cluster, peer: &ClusterName, rows: &[DigestRow]) -> Option<Vec<Difference>> {
    if rows.is_empty() {
        return Some(Vec::new());
    }
    if peer == cluster.name() {
        return differences(cluster, rows).await.ok();
    }
    let url = cluster.config.template.url(peer, Service::Conv, "/v1/index/digests");
    let digest = IndexDigest { rows: rows.to_vec() };
    match peers::call(cluster, Method::POST, &url, &digest).await {
        Ok(body) => Some(serde_json::from_slice::<DigestAnswer>(&body).ok()?.differences),
        Err(PeerError::Unreachable) => None,
        Err(PeerError::Refused(problem)) => {
            cluster.host.probe.log(Level::Warn, "repair.refused", json!({ "code": problem.code }));
            None
        }
    }
}

/// The receiver's side: which of these entries miss something. Of users who are not served here, or are
/// somebody else now, nothing is said: whoever serves them is told by the next announcement.
///
/// # Errors
/// When the store cannot be read.
pub(super) async fn differences(cluster: &Cluster, rows: &[DigestRow]) -> Result<Vec<Difference>, Problem> {
    let mut served: BTreeMap<&Address, Option<Incarnation>> = BTreeMap::new();
    for row in rows {
        if !served.contains_key(&row.user) {
            let found = match users::served_here(cluster, &row.user).await {
                Ok(found) => found.value,
                Err(problem) if problem.code == Code::Fenced => None,
                Err(problem) => return Err(problem),
            };
            served.insert(&row.user, found.map(|found| found.record.incarnation));
        }
    }
    let here = |row: &DigestRow| served.get(&row.user) == Some(&Some(row.incarnation));
    let asked: Vec<(u32, &DigestRow)> = (0..).zip(rows).filter(|(_, row)| here(row)).collect();
    let entries = store::entries(cluster, asked.iter().map(|(_, row)| (&row.user, &row.url))).await?;
    let all = asked.into_iter().zip(&entries);
    Ok(all.filter_map(|((place, row), entry)| repair::difference(place, row, entry.as_ref())).collect())
}
