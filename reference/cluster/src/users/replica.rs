//! The cluster's replica of the domain map (MAP-006): followed by long poll, kept in the store, never
//! going back to an older version, marked stale when the provider has not been heard of late.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fusion_protocol::map::{DomainChange, DomainFeed, DomainRecord};
use fusion_protocol::{ClusterName, Code, Count, Domain, Problem};
use fusion_runtime::probe::Level;
use fusion_runtime::store::{Batch, Key};
use fusion_runtime::{Entropy, Host, Latch};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::peers::{self, PeerError};
use crate::rows::{self, Loaded};
use crate::{Cluster, StartError};

/// How long the provider is asked to hold a poll with nothing to tell, in seconds.
pub(super) const WAIT_SECONDS: u64 = 20;
/// The replica is stale when the feed has not answered for so long.
pub(super) const STALE_AFTER: Duration = Duration::from_secs(60);
/// How much longer than [`WAIT_SECONDS`] a poll may take.
const GRACE: Duration = Duration::from_secs(5);
/// The first pause after a failed poll; doubles up to [`PAUSE_MAX`], each with jitter.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause, short enough that a healed cut is noticed at once by human measure.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How many rows of the replica are read at once at the start.
const LOAD_PAGE: usize = 1_000;

/// The cluster's replica of the domain map.
pub(crate) struct Replica {
    map: Mutex<Map>,
    /// Whether it has ever seen the map.
    known: Latch,
}

/// What the replica says of one domain, with the version it read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// The claim, if there is one.
    pub(crate) record: Option<Arc<DomainRecord>>,
    /// The consumer org's clusters.
    pub(crate) consumer: Vec<ClusterName>,
    /// The feed's version; 0 means that the cluster has never seen the map.
    pub(crate) version: Count,
    /// Whether the feed has been silent of late.
    pub(crate) stale: bool,
}

#[derive(Default)]
struct Map {
    version: Count,
    domains: BTreeMap<Domain, Arc<DomainRecord>>,
    consumer: Vec<ClusterName>,
    heard: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionRow {
    version: Count,
    consumer_clusters: Vec<ClusterName>,
}

impl Replica {
    /// Reads what an earlier life knew.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn load(host: &Host) -> Result<Self, StartError> {
        let unreadable = |_: Problem| StartError::Row("domain-map".to_owned());
        let row = rows::load::<VersionRow>(&*host.store, version_key()).await.map_err(unreadable)?;
        let known = row.value.unwrap_or_default();
        let mut map = Map { version: known.version, consumer: known.consumer_clusters, ..Map::default() };
        let all = rows::key("domain", &[]);
        let mut from = all.clone();
        loop {
            let page: Vec<Loaded<DomainRecord>> =
                rows::list_range(&*host.store, &from, &all.end(), LOAD_PAGE).await.map_err(unreadable)?;
            let Some(last) = page.last() else { break };
            from = last.key().end();
            for record in page.into_iter().filter_map(|row| row.value) {
                map.domains.insert(record.domain.clone(), Arc::new(record));
            }
        }
        let replica = Self { map: Mutex::new(map), known: Latch::new() };
        replica.tell_known();
        Ok(replica)
    }

    /// What is known of `domain` now.
    pub(crate) fn view(&self, domain: &Domain, now: Duration) -> View {
        let map = self.map();
        View {
            record: map.domains.get(domain).cloned(),
            consumer: map.consumer.clone(),
            version: map.version,
            stale: map.heard.is_none_or(|heard| now > heard + STALE_AFTER),
        }
    }

    /// Whether it has ever seen the map, in this life or an earlier one.
    pub(crate) fn is_known(&self) -> bool {
        self.known.is_open()
    }

    /// Waits until it has seen the map.
    pub(crate) async fn known(&self) {
        self.known.opened().await;
    }

    /// The feed's version that this replica has.
    pub(crate) fn version(&self) -> Count {
        self.map().version
    }

    /// Takes in what the feed said: durable first, then visible. Older news than what is known are not
    /// news.
    pub(crate) async fn apply(&self, host: &Host, feed: DomainFeed) -> Result<(), Problem> {
        let row = rows::load::<VersionRow>(&*host.store, version_key()).await?;
        let stored = row.value.clone().unwrap_or_default();
        let told = VersionRow { version: feed.version, consumer_clusters: feed.consumer_clusters.clone() };
        if told.version > stored.version || (told.version == stored.version && told != stored) {
            let mut batch = Batch::default();
            row.save(&mut batch, &told);
            write(&mut batch, &feed.changes);
            // Somebody else of this cluster was faster: the next poll starts from what they wrote.
            if rows::commit(&*host.store, batch).await? == rows::Committed::Again {
                return Err(Code::Conflict.into());
            }
        }
        self.map().take(feed, host.clock.now());
        self.tell_known();
        Ok(())
    }

    fn tell_known(&self) {
        if self.version() > Count(0) {
            self.known.open();
        }
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    fn take(&mut self, feed: DomainFeed, now: Duration) {
        if feed.version < self.version {
            return;
        }
        self.heard = Some(now);
        self.version = feed.version;
        self.consumer = feed.consumer_clusters;
        for change in feed.changes {
            match change {
                DomainChange::Claimed(record) => {
                    self.domains.insert(record.domain.clone(), Arc::new(record));
                }
                DomainChange::Released { domain, .. } => {
                    self.domains.remove(&domain);
                }
            }
        }
    }
}

/// Follows the provider's feed for as long as the machine lives.
pub(super) async fn follow(cluster: Cluster) {
    let entropy = cluster.host.entropy.stream("domain-feed");
    let mut pause = PAUSE_MIN;
    loop {
        let started = cluster.host.clock.now();
        let before = cluster.map.version();
        match poll(&cluster, before).await {
            Ok(()) => {
                pause = PAUSE_MIN;
                // A feed that neither waits nor tells anything is not asked in a tight loop.
                let idle = cluster.map.version() == before;
                if idle && cluster.host.clock.now() < started + PAUSE_MIN {
                    cluster.host.clock.sleep(jitter(&entropy, PAUSE_MIN)).await;
                }
            }
            Err(reason) => {
                cluster.host.probe.log(Level::Debug, "domain-map.feed", json!({ "failed": reason }));
                cluster.host.clock.sleep(jitter(&entropy, pause)).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

async fn poll(cluster: &Cluster, after: Count) -> Result<(), &'static str> {
    // A replica that has never heard asks at once: nothing can be resolved before.
    let wait = if after == Count(0) { 0 } else { WAIT_SECONDS };
    let mut url = cluster.config.template.provider_url(peers::PROVIDER_HOST, "/v1/domains");
    url.set_query(Some(&format!("after={after}&wait={wait}")));
    let limit = Duration::from_secs(wait) + GRACE;
    let answer = peers::call_within(cluster, limit, Method::GET, &url, Bytes::new()).await;
    let answer = answer.map_err(|error| match error {
        PeerError::Unreachable => "unreachable",
        PeerError::Refused(problem) => problem.code.as_str(),
    })?;
    let feed: DomainFeed = serde_json::from_slice(&answer).map_err(|_| "malformed")?;
    if feed.version < after {
        return Err("older");
    }
    cluster.map.apply(&cluster.host, feed).await.map_err(|problem| problem.code.as_str())
}

/// Between half of `pause` and one and a half of it, so that clusters do not come back in step.
fn jitter(entropy: &Entropy, pause: Duration) -> Duration {
    let whole_us = pause.as_micros() as u64;
    Duration::from_micros(whole_us / 2 + entropy.below(whole_us))
}

fn write(batch: &mut Batch, changes: &[DomainChange]) {
    // The last word on a domain is the one that is written: a batch must not name a row twice.
    let mut last: BTreeMap<&Domain, Option<&DomainRecord>> = BTreeMap::new();
    for change in changes {
        match change {
            DomainChange::Claimed(record) => last.insert(&record.domain, Some(record)),
            DomainChange::Released { domain, .. } => last.insert(domain, None),
        };
    }
    for (domain, record) in last {
        match record {
            Some(record) => rows::put(batch, domain_key(domain), record),
            None => drop(batch.delete(domain_key(domain))),
        }
    }
}

fn version_key() -> Key {
    rows::key("domain-map", &[])
}

fn domain_key(domain: &Domain) -> Key {
    rows::key("domain", &[domain.as_str()])
}
