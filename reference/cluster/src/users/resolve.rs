//! Resolution, as this cluster does it: the machine of `fusion_machines::resolution`, its questions
//! answered by the replica, by the own user map and by other clusters'.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fusion_machines::domain_claim::is_public_mail;
use fusion_machines::resolution::{Answer, Next, Resolver};
use fusion_protocol::map::{DomainRecord, Resolution, UserRecord};
use fusion_protocol::{Address, ClusterName, Code, Count, Domain, Problem, Service};
use http::Method;

use super::replica::View;
use super::served_here;
use crate::peers::{self, PeerError};
use crate::{Cluster, OrgRole, moves};

/// How many found users are remembered.
const REMEMBERED_MAX: usize = 64 << 10;
/// How long a user of an unclaimed domain is remembered; a claimed domain's record says it by itself.
const CONSUMER_TTL: Duration = Duration::from_secs(300);
/// [`resolve_again`] believes what was learned this moment, so that nobody can drive others into asking
/// without end.
const JUST_NOW: Duration = Duration::from_secs(1);

/// Users found of late. A user who is not found, or could not be looked for, is never remembered.
#[derive(Default)]
pub(crate) struct Remembered(Mutex<Found>);

#[derive(Default)]
struct Found {
    users: BTreeMap<Address, Entry>,
    order: VecDeque<Address>,
}

#[derive(Clone)]
struct Entry {
    record: UserRecord,
    learned: Duration,
    until: Duration,
    /// The version of the domain's claim that led here; another claim, another search.
    claim: Option<Count>,
}

/// The four steps of SPEC, from this cluster.
///
/// # Errors
/// `user-unknown` when every step said so; `resolution-incomplete` (503) when one could not be executed.
pub(crate) async fn resolve(cluster: &Cluster, user: &Address) -> Result<Resolution, Problem> {
    resolve_after(cluster, user, None).await
}

/// As [`resolve`], believing nothing that was learned more than a second ago: for when somebody's answer
/// shows that what we remember is wrong (MAP-005).
///
/// # Errors
/// As [`resolve`].
pub(crate) async fn resolve_again(cluster: &Cluster, user: &Address) -> Result<Resolution, Problem> {
    let learned_after = cluster.host.clock.now().saturating_sub(JUST_NOW);
    resolve_after(cluster, user, Some(learned_after)).await
}

async fn resolve_after(
    cluster: &Cluster,
    user: &Address,
    learned_after: Option<Duration>,
) -> Result<Resolution, Problem> {
    let now = cluster.host.clock.now();
    let view = cluster.map.view(&user.domain(), now);
    if let Some(record) = cluster.found.recall(user, &view, now, learned_after) {
        return Ok(resolution(record, &view));
    }
    let record = search(cluster, user, &view).await?;
    // The own user map is a row away; remembering it would only make it old.
    if record.cluster != *cluster.name() {
        cluster.found.remember(user, &record, &view, now);
    }
    Ok(resolution(record, &view))
}

async fn search(cluster: &Cluster, user: &Address, view: &View) -> Result<UserRecord, Problem> {
    let public_mail = view.record.is_none() && is_public_mail(&user.domain());
    let (mut resolver, mut next) = Resolver::start(user.clone(), view.consumer.clone(), public_mail);
    loop {
        let answer = match next {
            Next::AskDomain(_) => claim(cluster, view),
            Next::AskUser(asked) if asked == *cluster.name() => here(cluster, user).await?,
            Next::AskUser(asked) => ask(cluster, &asked, user, Reach::Org).await,
            Next::Found(record) => return Ok(record),
            Next::Unknown => return Err(Code::UserUnknown.into()),
            Next::Incomplete => return Err(Code::ResolutionIncomplete.into()),
        };
        next = resolver.step(answer);
    }
}

/// Step 1. A private cluster that has never seen the map still knows that it serves its own users.
fn claim(cluster: &Cluster, view: &View) -> Answer {
    match &view.record {
        Some(record) => Answer::Claimed(record.clusters.clone()),
        None if view.version > Count(0) => Answer::Unclaimed,
        None if cluster.config.role == OrgRole::Private => Answer::Claimed(vec![cluster.name().clone()]),
        None => Answer::Silent,
    }
}

/// The own user map, for its whole org.
async fn here(cluster: &Cluster, user: &Address) -> Result<Answer, Problem> {
    match own(cluster, user).await? {
        Answer::Unknown => {}
        answer => return Ok(answer),
    }
    let view = cluster.map.view(&user.domain(), cluster.host.clock.now());
    if view.version == Count(0) {
        return Ok(Answer::Silent);
    }
    let siblings = siblings(cluster, &user.domain());
    Ok(among(cluster, user, &siblings).await)
}

/// What this cluster itself knows of a user: that it serves them, or where they went (MAP-007).
pub(super) async fn own(cluster: &Cluster, user: &Address) -> Result<Answer, Problem> {
    match served_here(cluster, user).await {
        Ok(row) => match row.value {
            Some(row) => Ok(Answer::Found(row.record)),
            None => {
                let gone_to = moves::gone_to(cluster, user).await?;
                Ok(gone_to.map_or(Answer::Unknown, |to| Answer::Elsewhere(vec![to])))
            }
        },
        // Nobody can say before the move is decided.
        Err(problem) if problem.code == Code::Fenced => Ok(Answer::Silent),
        Err(problem) => Err(problem),
    }
}

/// Whether an org that has users of a domain has both clusters, as far as the domain map says: the org that
/// claims it, or the consumer org, where people were before the claim and are still (MAP-004).
pub(crate) fn of_one_org(cluster: &Cluster, domain: &Domain, both: [&ClusterName; 2]) -> bool {
    let view = cluster.map.view(domain, cluster.host.clock.now());
    let has_both = |clusters: &[ClusterName]| both.iter().all(|name| clusters.contains(name));
    has_both(&view.consumer) || view.record.is_some_and(|record| has_both(&record.clusters))
}

/// The clusters of the own org that may hold a user of a domain, as the map lists them.
pub(crate) fn clusters_of(cluster: &Cluster, domain: &Domain) -> Vec<ClusterName> {
    let view = cluster.map.view(domain, cluster.host.clock.now());
    match (cluster.config.role, view.record) {
        (OrgRole::Consumer, _) => view.consumer,
        (OrgRole::Private, Some(record)) => record.clusters.clone(),
        (OrgRole::Private, None) => Vec::new(),
    }
}

/// Those of them that are not this one.
pub(crate) fn siblings(cluster: &Cluster, domain: &Domain) -> Vec<ClusterName> {
    let mut clusters = clusters_of(cluster, domain);
    clusters.retain(|other| other != cluster.name());
    clusters
}

/// Which of the own org's other clusters holds the user: each is asked for itself only, so that nobody
/// asks in circles. One that is silent makes the answer silence. Where one says that the user has gone, is
/// asked again: it may have been asked just before the user came (MAP-007).
pub(crate) async fn among(cluster: &Cluster, user: &Address, siblings: &[ClusterName]) -> Answer {
    let mut waiting: VecDeque<(ClusterName, bool)> =
        siblings.iter().map(|sibling| (sibling.clone(), false)).collect();
    let (mut silent, mut hinted) = (false, BTreeSet::new());
    while let Some((asked, by_hint)) = waiting.pop_front() {
        if !by_hint && hinted.contains(&asked) {
            continue;
        }
        let answer = match asked == *cluster.name() {
            true => own(cluster, user).await.unwrap_or(Answer::Silent),
            false => ask(cluster, &asked, user, Reach::Cluster).await,
        };
        match answer {
            Answer::Found(record) => return Answer::Found(record),
            Answer::Unknown => {}
            Answer::Elsewhere(hints) => {
                let ours = |hint: &ClusterName| siblings.contains(hint) || hint == cluster.name();
                for hint in hints.into_iter().filter(ours) {
                    match hinted.insert(hint.clone()) {
                        true => waiting.push_front((hint, true)),
                        // The user is on the way while this is asked.
                        false => silent = true,
                    }
                }
            }
            _ => silent = true,
        }
    }
    if silent { Answer::Silent } else { Answer::Unknown }
}

/// What was found of a user before is not to be believed any more.
pub(crate) fn forget(cluster: &Cluster, user: &Address) {
    cluster.found.found().users.remove(user);
}

/// What the org that has claimed a domain says of a user: the first of its clusters that says anything.
pub(crate) async fn at_its_org(cluster: &Cluster, user: &Address, claim: &DomainRecord) -> Answer {
    for asked in &claim.clusters {
        match ask(cluster, asked, user, Reach::Org).await {
            Answer::Silent => {}
            answer => return answer,
        }
    }
    Answer::Silent
}

/// For whom the asked user map is to answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// For its whole org.
    Org,
    /// For its own cluster.
    Cluster,
}

/// The user map in another cluster.
pub(crate) async fn ask(cluster: &Cluster, asked: &ClusterName, user: &Address, reach: Reach) -> Answer {
    let query = if reach == Reach::Cluster { "?reach=cluster" } else { "" };
    let path = format!("/v1/users/{}{query}", user.path_segment());
    let url = cluster.config.template.url(asked, Service::Users, &path);
    match peers::call(cluster, Method::GET, &url, &()).await {
        Ok(body) => serde_json::from_slice(&body).map_or(Answer::Silent, Answer::Found),
        Err(PeerError::Refused(problem)) => match problem.code {
            Code::UserUnknown => Answer::Unknown,
            Code::WrongCluster => problem.member("clusters").map_or(Answer::Silent, Answer::Elsewhere),
            _ => Answer::Silent,
        },
        Err(PeerError::Unreachable) => Answer::Silent,
    }
}

fn resolution(record: UserRecord, view: &View) -> Resolution {
    Resolution { record, stale: view.stale, map_version: view.version }
}

impl Remembered {
    fn recall(
        &self,
        user: &Address,
        view: &View,
        now: Duration,
        learned_after: Option<Duration>,
    ) -> Option<UserRecord> {
        let found = self.found();
        let entry = found.users.get(user)?;
        let recent = learned_after.is_none_or(|after| entry.learned >= after);
        // Somebody else's domain now, or nobody's: whatever was found there is to be found anew.
        let same_claim = entry.claim == view.record.as_ref().map(|record| record.version);
        (recent && same_claim && now < entry.until).then(|| entry.record.clone())
    }

    fn remember(&self, user: &Address, record: &UserRecord, view: &View, now: Duration) {
        let ttl =
            view.record.as_ref().map_or(CONSUMER_TTL, |claim| Duration::from_secs(claim.ttl_seconds.into()));
        let entry = Entry {
            record: record.clone(),
            learned: now,
            until: now + ttl,
            claim: view.record.as_ref().map(|record| record.version),
        };
        let mut found = self.found();
        while found.order.len() >= REMEMBERED_MAX {
            let Some(oldest) = found.order.pop_front() else { break };
            found.users.remove(&oldest);
        }
        if found.users.insert(user.clone(), entry).is_none() {
            found.order.push_back(user.clone());
        }
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
