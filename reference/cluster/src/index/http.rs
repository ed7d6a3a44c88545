//! What users ask of their own index, and what other clusters write into it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use fusion_machines::index::Shown;
use fusion_machines::pair::Contender;
use fusion_protocol::index::{
    BatchAnswer, DigestAnswer, Hide, IndexBatch, IndexDigest, IndexPage, IndexWrite, RowResult,
};
use fusion_protocol::{Address, ClusterName, Code, Count, Problem, Service, Url, UserRef, limits};
use fusion_runtime::store::Batch;
use futures_util::future::join_all;
use http::StatusCode;
use serde::Deserialize;

use super::changes::{Changes, hold};
use super::{locus_url, repair, store, subject};
use crate::auth::{ClusterCaller, UserCaller};
use crate::reply::{Answer, JsonBody, json};
use crate::rows::{self, Committed};
use crate::{Cluster, conversation, outbox, users};

/// How long a reader waits for a cursor that is still to come: less than a client waits for an answer.
const WAIT: Duration = Duration::from_secs(8);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    after: Option<Count>,
    at_least: Option<Count>,
}

pub(super) fn routes() -> Router<Cluster> {
    Router::new()
        .route("/v1/users/{user}/index", get(read).patch(hide))
        .route("/v1/index", post(write))
        .route("/v1/index/digests", post(compare))
}

/// RDV-002: a read with the cursor of an event waits for what the event announced.
async fn read(
    State(cluster): State<Cluster>,
    Path(user): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
    caller: UserCaller,
) -> Answer {
    let user = own(&cluster, &user, caller)?;
    let Query(asked) = asked.map_err(|_| Code::BadRequest)?;
    let now = reached(&cluster, &user.user, asked.at_least.unwrap_or_default()).await?;
    let after = asked.after.unwrap_or_default();
    let entries = store::changed_after(&cluster, &user.user, after, limits::PAGE_MAX).await?;
    let more = entries.len() == limits::PAGE_MAX;
    let cursor = entries.last().map_or(now.max(after), |(place, _)| *place);
    let mut page = IndexPage { entries: Vec::with_capacity(entries.len()), cursor, more };
    outbox::look(&cluster, &entries.iter().map(|(_, entry)| &entry.home).collect()).await;
    for (_, entry) in entries {
        let preview = store::preview(&cluster, &user.user, &entry).await?;
        let mut seen = entry.with_preview(preview);
        seen.reachable = outbox::is_reachable(&cluster, &entry.home);
        page.entries.push(seen);
    }
    Ok(json(StatusCode::OK, &page))
}

async fn hide(
    State(cluster): State<Cluster>,
    Path(user): Path<String>,
    caller: UserCaller,
    JsonBody(change): JsonBody<Hide>,
) -> Answer {
    let user = own(&cluster, &user, caller)?.user;
    if change.hidden {
        conversation::free_pair(&cluster, &user, &change.url).await?;
    }
    let _held = hold(&cluster, [&user]).await;
    loop {
        let (mut batch, mut changes) = (Batch::default(), Changes::new(&cluster));
        changes.hide(&user, &change.url, change.hidden).await?;
        let notices = changes.finish(&mut batch);
        if rows::commit(&*cluster.host.store, batch).await? == Committed::Yes {
            notices.now(&cluster);
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
}

async fn write(State(cluster): State<Cluster>, caller: ClusterCaller<IndexBatch>) -> Answer<Response> {
    let ClusterCaller { cluster: home, body } = caller;
    if body.rows.len() > limits::BATCH_MAX {
        return Err(Problem::new(Code::Unprocessable).detail("too many rows in one batch").into());
    }
    outbox::contact(&cluster, &home);
    let results = apply(&cluster, &home, &body.rows).await;
    Ok(json(StatusCode::OK, &BatchAnswer { results }))
}

/// RDV-007: what the indexes here miss of what another home expects in them.
async fn compare(State(cluster): State<Cluster>, caller: ClusterCaller<IndexDigest>) -> Answer<Response> {
    let ClusterCaller { cluster: home, body } = caller;
    if body.rows.len() > limits::BATCH_MAX {
        return Err(Problem::new(Code::Unprocessable).detail("too many rows in one digest").into());
    }
    // SEC-005: nobody learns here what is known of somebody else's conversations.
    if !body.rows.iter().all(|row| is_conversation_of(&cluster, &home, &row.url)) {
        return Err(Code::NotYourObject.into());
    }
    outbox::contact(&cluster, &home);
    let differences = repair::differences(&cluster, &body.rows).await?;
    Ok(json(StatusCode::OK, &DigestAnswer { differences }))
}

/// Writes the rows of `home`, in their order for each user, a commit a user; nobody waits for another
/// user. Rows may come again (SEC-004).
pub(crate) async fn apply(cluster: &Cluster, home: &ClusterName, rows: &[IndexWrite]) -> Vec<RowResult> {
    let mut results: Vec<_> = rows
        .iter()
        .map(|row| RowResult { id: row.id, code: refused(cluster, home, row), clusters: Vec::new() })
        .collect();
    let mut by_user: BTreeMap<&Address, Vec<usize>> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate().filter(|(at, _)| results[*at].code.is_none()) {
        by_user.entry(&row.user).or_default().push(at);
    }
    let users = by_user.into_iter().map(|(user, places)| async move {
        let writes: Vec<_> = places.iter().map(|at| &rows[*at]).collect();
        let codes = apply_to_user(cluster, home, user, &writes).await;
        let codes = codes.unwrap_or_else(|problem| vec![Some(problem.code); places.len()]);
        let misrouted = codes.contains(&Some(Code::WrongCluster));
        let clusters = if misrouted { whereabouts(cluster, user).await } else { Vec::new() };
        (places, codes, clusters)
    });
    for (places, codes, clusters) in join_all(users).await {
        for (at, code) in places.into_iter().zip(codes) {
            results[at].code = code;
            if code == Some(Code::WrongCluster) {
                results[at].clusters.clone_from(&clusters);
            }
        }
    }
    results
}

/// All rows of one user in one commit: what became of each.
async fn apply_to_user(
    cluster: &Cluster,
    home: &ClusterName,
    user: &Address,
    writes: &[&IndexWrite],
) -> Result<Vec<Option<Code>>, Problem> {
    let _held = hold(cluster, [user]).await;
    loop {
        let (mut batch, mut changes) = (Batch::default(), Changes::new(cluster));
        let mut codes = Vec::with_capacity(writes.len());
        for write in writes {
            let written = match changes.write(&mut batch, home, write, Shown::Listed).await {
                Ok(()) => settle(cluster, &mut batch, &mut changes, write).await,
                refused => refused,
            };
            codes.push(match written {
                Ok(()) => None,
                Err(problem) if problem.status >= 500 => return Err(problem),
                Err(problem) => Some(problem.code),
            });
        }
        let notices = changes.finish(&mut batch);
        if batch.is_empty() {
            return Ok(codes);
        }
        if rows::commit(&*cluster.host.store, batch).await? == Committed::Yes {
            notices.now(cluster);
            return Ok(codes);
        }
    }
}

/// CNV-003: a loser whose creator has moved says here that it is merged: the slot and the winner's entry,
/// which waited for it, came with the creator (MAP-007).
async fn settle(
    cluster: &Cluster,
    batch: &mut Batch,
    changes: &mut Changes<'_>,
    write: &IndexWrite,
) -> Result<(), Problem> {
    let Some(url) = write.superseded_by.clone() else { return Ok(()) };
    let home = cluster.config.template.locate(&url).map_err(|_| Code::UntrustedUrl)?.cluster;
    let winner = Contender { rule: cluster.config.pair_rule, ..Contender::new(url, home) };
    if conversation::settle_slots(cluster, batch, &write.user, &write.url, &winner).await? {
        changes.rely_on(&write.user).await?;
        changes.show(batch, &write.user, &winner.url).await?;
    }
    Ok(())
}

/// SEC-005: a cluster writes only about conversations that its own URL names.
fn refused(cluster: &Cluster, home: &ClusterName, row: &IndexWrite) -> Option<Code> {
    if !is_conversation_of(cluster, home, &row.url) || row.locus_url != locus_url(&row.url) {
        return Some(Code::NotYourObject);
    }
    if row.superseded_by.as_ref().is_some_and(|winner| !is_conversation(cluster, winner)) {
        return Some(Code::UntrustedUrl);
    }
    let title_octets = row.title.as_ref().map_or(0, |title| title.expose().len());
    let sound = row.activities.len() <= limits::PREVIEW_MAX
        && row.activities.iter().all(|activity| activity.seq <= row.last_seq)
        && title_octets <= limits::TITLE_MAX;
    (!sound).then_some(Code::Unprocessable)
}

/// A winner may live anywhere, but a user's slot is never bound to what is no conversation (NAM-005).
fn is_conversation(cluster: &Cluster, url: &Url) -> bool {
    let located = cluster.config.template.locate(url);
    located.is_ok_and(|located| is_conversation_of(cluster, &located.cluster, url))
}

/// Whether `url` is the URL of a conversation of `home`, and nothing but that.
pub(crate) fn is_conversation_of(cluster: &Cluster, home: &ClusterName, url: &Url) -> bool {
    let Ok(located) = cluster.config.template.locate(url) else { return false };
    let id = located.path.strip_prefix("/v1/conversations/");
    let plain = url.query().is_none() && url.fragment().is_none();
    located.cluster == *home
        && located.service == Service::Conv
        && plain
        && id.is_some_and(|id| id.parse::<fusion_protocol::Uuid>().is_ok())
}

/// Whom to ask for a user who is not served here (MAP-005).
pub(crate) async fn whereabouts(cluster: &Cluster, user: &Address) -> Vec<ClusterName> {
    users::resolve(cluster, user).await.ok().map(|found| found.record.cluster).into_iter().collect()
}

/// Waits until the index has reached `at_least`, or long enough: where it is then.
async fn reached(cluster: &Cluster, user: &Address, at_least: Count) -> Result<Count, Problem> {
    let mut now = store::cursor(cluster, user).await?.value.unwrap_or_default().cursor;
    if now >= at_least {
        return Ok(now);
    }
    let mut growing = cluster.host.bus.subscribe(&subject(user));
    let deadline = cluster.host.clock.now() + WAIT;
    loop {
        // Looked at again after subscribing, so that nothing falls between.
        now = store::cursor(cluster, user).await?.value.unwrap_or_default().cursor;
        let left = deadline.saturating_sub(cluster.host.clock.now());
        if now >= at_least || left.is_zero() {
            return Ok(now);
        }
        let _ = cluster.host.clock.timeout(left, growing.next()).await;
    }
}

/// SEC-010: a user reads only the own index, and only where it is.
fn own(cluster: &Cluster, user: &str, caller: UserCaller) -> Result<UserRef, Problem> {
    let asked: Address = user.parse().map_err(|_| Code::BadRequest)?;
    if caller.user.user != asked {
        return Err(Code::Forbidden.into());
    }
    if caller.home != *cluster.name() {
        return Err(Problem::new(Code::WrongCluster).with("clusters", [caller.home]));
    }
    Ok(caller.user)
}
