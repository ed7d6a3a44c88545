//! The rows of the domain map, and changes to them: every change is a new version of the feed, in one
//! commit that holds only if nobody else made that version (MAP-002).
//!
//! Rows: `map` the version; `claim/{domain}` what is held of a domain; `change/{version}` which domain
//! changed then, one for each domain: its last change.

use bytes::Bytes;
use fusion_machines::domain_claim::{Claim, Effect, Event, Refusal, Rules};
use fusion_protocol::map::{self as wire, DomainChange, DomainRecord};
use fusion_protocol::{Code, Count, Domain, Problem};
use fusion_runtime::probe::StateChange;
use fusion_runtime::store::{Batch, Key, Row, StoreError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Shared, feed};

/// What is held of one domain, and since which version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClaimRow {
    pub(crate) claim: Claim,
    pub(crate) version: Count,
}

/// MAP-002: claims a domain for an org, or changes the clusters of its claim.
pub(crate) async fn claim(provider: &Shared, claim: wire::Claim) -> Result<DomainRecord, Problem> {
    let wire::Claim { domain, org, clusters } = claim;
    let row = change(provider, &domain, Event::Claim { org, clusters }).await?;
    record(provider, &domain, &row).ok_or_else(|| Code::Internal.into())
}

/// Gives a domain up.
pub(crate) async fn release(provider: &Shared, domain: &Domain, org: &str) -> Result<(), Problem> {
    change(provider, domain, Event::Release { org: org.to_owned() }).await.map(drop)
}

/// As [`claim`], unless anybody has ever claimed the domain.
pub(crate) async fn claim_at_start(provider: &Shared, wanted: wire::Claim) -> Result<(), Problem> {
    if find(provider, &wanted.domain).await?.claim == Claim::None {
        claim(provider, wanted).await?;
    }
    Ok(())
}

/// What is held of a domain now.
pub(crate) async fn find(provider: &Shared, domain: &Domain) -> Result<ClaimRow, Problem> {
    let rows = get(provider, &[claim_key(domain)]).await?;
    Ok(rows.first().and_then(Option::as_ref).map(read).transpose()?.unwrap_or_default())
}

/// The version of the map now.
pub(crate) async fn version(provider: &Shared) -> Result<Count, Problem> {
    let rows = get(provider, &[version_key()]).await?;
    version_of(rows.first().and_then(Option::as_ref))
}

/// What changed after a version, in order, at most `limit`, and the version that a replica has then.
pub(crate) async fn changes(
    provider: &Shared,
    after: Count,
    limit: usize,
) -> Result<(Count, Vec<DomainChange>), Problem> {
    let now = version(provider).await?;
    let from = change_key(after.next());
    let rows = provider.host.store.scan(&from, &changes_prefix().end(), limit).await.map_err(refused)?;
    let full = rows.len() == limit;
    let (mut seen, mut keys) = (now, Vec::new());
    let mut domains = Vec::new();
    for (_, row) in &rows {
        let Change { domain, version } = read(row)?;
        seen = if full { version } else { seen.max(version) };
        keys.push(claim_key(&domain));
        domains.push((domain, version));
    }
    let claims = get(provider, &keys).await?;
    let mut changes = Vec::new();
    for ((domain, version), row) in domains.into_iter().zip(claims) {
        let claim: ClaimRow = row.as_ref().map(read).transpose()?.unwrap_or_default();
        // Changed again meanwhile: its newer change comes after all of these.
        if claim.version == version {
            changes.push(change_of(provider, domain, &claim));
        }
    }
    Ok((seen, changes))
}

/// The record of a claimed domain.
pub(crate) fn record(provider: &Shared, domain: &Domain, row: &ClaimRow) -> Option<DomainRecord> {
    match &row.claim {
        Claim::Claimed { org, clusters } => Some(DomainRecord {
            domain: domain.clone(),
            org: org.clone(),
            clusters: clusters.clone(),
            version: row.version,
            ttl_seconds: provider.config.ttl_seconds,
        }),
        Claim::None | Claim::Released => None,
    }
}

/// The last change of one domain.
#[derive(Serialize, Deserialize)]
struct Change {
    domain: Domain,
    version: Count,
}

async fn change(provider: &Shared, domain: &Domain, event: Event) -> Result<ClaimRow, Problem> {
    loop {
        let rows = get(provider, &[version_key(), claim_key(domain)]).await?;
        let [map, held] = &rows[..] else { return Err(Code::Internal.into()) };
        let version = version_of(map.as_ref())?;
        let before: ClaimRow = held.as_ref().map(read).transpose()?.unwrap_or_default();
        let mut after = before.clone();
        if step(provider, domain, &mut after.claim, event.clone())? == Effect::Nothing {
            return Ok(before);
        }
        after.version = version.next();
        let mut batch = Batch::default();
        batch.expect(&version_key(), map.as_ref()).expect(&claim_key(domain), held.as_ref());
        batch.put(version_key(), encode(&after.version)).put(claim_key(domain), encode(&after));
        batch.delete(change_key(before.version));
        let noted = Change { domain: domain.clone(), version: after.version };
        batch.put(change_key(after.version), encode(&noted));
        match provider.host.store.commit(batch).await {
            Ok(()) => {
                told(provider, domain, &after);
                return Ok(after);
            }
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(refused(error)),
        }
    }
}

fn step(provider: &Shared, domain: &Domain, claim: &mut Claim, event: Event) -> Result<Effect, Problem> {
    let (Event::Claim { org, .. } | Event::Release { org }) = &event;
    let account = provider.config.org(org).ok_or_else(|| {
        Problem::new(Code::Forbidden).detail("the organisation has no account at this provider")
    })?;
    let rules = Rules {
        domain,
        provider: provider.config.template.provider(),
        clusters_of_org: &account.clusters,
        consumer_clusters: &provider.config.consumer_clusters,
    };
    claim
        .step(&rules, event)
        .map_err(|refusal: Refusal| Problem::new(refusal.code()).detail(refusal.to_string()))
}

fn change_of(provider: &Shared, domain: Domain, row: &ClaimRow) -> DomainChange {
    match record(provider, &domain, row) {
        Some(record) => DomainChange::Claimed(record),
        None => DomainChange::Released { domain, version: row.version },
    }
}

fn told(provider: &Shared, domain: &Domain, row: &ClaimRow) {
    feed::wake(&provider.host);
    let probe = &provider.host.probe;
    if probe.watches_state() {
        let (state, org, clusters) = match &row.claim {
            Claim::Claimed { org, clusters } => ("CLAIMED", Some(org), &clusters[..]),
            Claim::None | Claim::Released => ("RELEASED", None, &[][..]),
        };
        probe.state(StateChange {
            concept: "domain",
            subject: domain.to_string(),
            state: state.to_owned(),
            detail: json!({ "org": org, "clusters": clusters, "version": row.version }),
        });
    }
}

/// The empty map is a version too: 0 is what a replica has that has never seen a map.
fn version_of(row: Option<&Row>) -> Result<Count, Problem> {
    row.map_or(Ok(Count(1)), read)
}

async fn get(provider: &Shared, keys: &[Key]) -> Result<Vec<Option<Row>>, Problem> {
    provider.host.store.get(keys).await.map_err(refused)
}

fn read<T: DeserializeOwned>(row: &Row) -> Result<T, Problem> {
    serde_json::from_slice(&row.value).map_err(|_| Code::Internal.into())
}

fn encode(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("rows are plain data: string keys, no failing Serialize").into()
}

fn refused(_: StoreError) -> Problem {
    Problem::new(Code::Unavailable).detail("the store cannot answer now")
}

fn version_key() -> Key {
    Key::of(&[b"map"])
}

fn claim_key(domain: &Domain) -> Key {
    Key::of(&[b"claim", domain.as_str().as_bytes()])
}

fn changes_prefix() -> Key {
    Key::of(&[b"change"])
}

/// Big-endian, so that the order of keys is the order of versions.
fn change_key(version: Count) -> Key {
    Key::of(&[b"change", &version.0.to_be_bytes()])
}
