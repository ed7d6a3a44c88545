//! What participants ask of conversations, and what clusters ask of pairs.

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{OriginalUri, Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use fusion_machines::conversation::Conversation;
use fusion_machines::pair::pair_key;
use fusion_protocol::conversation::{
    ActivityPage, ConversationState, CreateConversation, Import, PeerClaim, PeerLookup, PeerState,
    PostActivity,
};
use fusion_protocol::{Address, Code, Count, Problem, Url, UserRef, Uuid, limits};
use http::StatusCode;
use serde::Deserialize;

use super::create::{self, Created};
use super::post::{self, Answered};
use super::store::{self, Pair, SlotRow};
use super::{merge, race, view};
use crate::auth::{ClusterCaller, UserCaller};
use crate::reply::{Answer, IdempotencyKey, JsonBody, json, redirect};
use crate::{Cluster, index, outbox, users};

#[derive(Debug, Default, Deserialize)]
struct Asked {
    after: Option<Count>,
    limit: Option<usize>,
}

pub(super) fn routes() -> Router<Cluster> {
    Router::new()
        .route("/v1/conversations", post(create))
        .route("/v1/conversations/{id}", get(read))
        .route("/v1/conversations/{id}/activities", get(activities).post(act))
        .route("/v1/conversations/{id}/imports", post(import))
        .route("/v1/users/{user}/peers/{other}", get(look_up).put(claim))
}

/// RDV-001: at the creator's own cluster.
async fn create(
    State(cluster): State<Cluster>,
    caller: UserCaller,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(asked): JsonBody<CreateConversation>,
) -> Answer {
    let creator = of_this_cluster(&cluster, caller)?;
    Ok(match create::create(&cluster, &creator, &key, asked).await? {
        Created::New(made) => json(StatusCode::CREATED, &made),
        Created::Known(known) => json(StatusCode::OK, &known),
    })
}

async fn read(State(cluster): State<Cluster>, Path(id): Path<String>, caller: UserCaller) -> Answer {
    let id = parse_id(&id)?;
    let conversation = admit(&cluster, id, &caller.user).await?;
    if let Some(elsewhere) = superseded(&conversation, "", None) {
        return Ok(elsewhere);
    }
    Ok(json(StatusCode::OK, &view(&cluster, id, &conversation)))
}

async fn act(
    State(cluster): State<Cluster>,
    Path(id): Path<String>,
    caller: UserCaller,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(asked): JsonBody<PostActivity>,
) -> Answer {
    Ok(match post::post(&cluster, parse_id(&id)?, &caller.user, &key, &asked.act).await? {
        Answered::New(activity) => json(StatusCode::CREATED, &activity),
        Answered::Known(activity) => json(StatusCode::OK, &activity),
        Answered::Elsewhere(winner) => {
            redirect(StatusCode::PERMANENT_REDIRECT, &below(&winner, "/activities", None))
        }
    })
}

async fn activities(
    State(cluster): State<Cluster>,
    Path(id): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
    OriginalUri(uri): OriginalUri,
    caller: UserCaller,
) -> Answer {
    let (id, Query(asked)) = (parse_id(&id)?, asked.map_err(|_| Code::BadRequest)?);
    let conversation = admit(&cluster, id, &caller.user).await?;
    if let Some(elsewhere) = superseded(&conversation, "/activities", uri.query()) {
        return Ok(elsewhere);
    }
    let limit = asked.limit.unwrap_or(limits::PAGE_MAX).clamp(1, limits::PAGE_MAX);
    let activities = store::activities(&cluster, id, asked.after.unwrap_or_default(), limit).await?;
    // The page may have seen what came after the conversation was loaded.
    let last = activities.last().map_or(Count(0), |activity| activity.seq);
    let last_seq = conversation.last_seq.max(last);
    let next = (last != Count(0) && last < last_seq).then_some(last);
    Ok(json(StatusCode::OK, &ActivityPage { activities, next, last_seq }))
}

async fn look_up(
    State(cluster): State<Cluster>,
    Path((user, other)): Path<(String, String)>,
    caller: UserCaller,
) -> Answer {
    let (asked, other) = (parse_address(&user)?, parse_address(&other)?);
    if asked != caller.user.user {
        return Err(Code::Forbidden.into());
    }
    let user = of_this_cluster(&cluster, caller)?;
    let known = slot_of(&cluster, &user, &other).await?.ok_or(Code::NotFound)?;
    let url = known.slot.answer().clone();
    let state = match known.slot.merging_from {
        Some(_) => PeerState::Merging,
        None => PeerState::Live,
    };
    Ok(json(StatusCode::OK, &PeerLookup { locus_url: index::locus_url(&url), url, state }))
}

/// CNV-003: another cluster claims a pair for its conversation.
async fn claim(
    State(cluster): State<Cluster>,
    Path((user, other)): Path<(String, String)>,
    caller: ClusterCaller<PeerClaim>,
) -> Answer {
    let (callee, creator) = (parse_address(&user)?, parse_address(&other)?);
    outbox::contact(&cluster, &caller.cluster);
    if caller.body.preview.len() > limits::PREVIEW_MAX {
        return Err(Code::Unprocessable.into());
    }
    let grant = race::claimed(&cluster, &caller.cluster, &callee, &creator, &caller.body).await?;
    Ok(json(StatusCode::OK, &grant))
}

/// CNV-003: the home of a loser hands over what was said there.
async fn import(
    State(cluster): State<Cluster>,
    Path(id): Path<String>,
    caller: ClusterCaller<Import>,
) -> Answer {
    outbox::contact(&cluster, &caller.cluster);
    let imported = merge::import(&cluster, parse_id(&id)?, &caller.cluster, caller.body).await?;
    Ok(json(StatusCode::OK, &imported))
}

/// SEC-006: the conversation, for whoever is in it.
async fn admit(cluster: &Cluster, id: Uuid, user: &UserRef) -> Result<Conversation, Problem> {
    let (_, conversation) = store::existing(cluster, id).await?;
    if conversation.is_participant(user) { Ok(conversation) } else { Err(Code::NotParticipant.into()) }
}

/// CNV-004: one hop leads to the winner, below which everything is as it was here.
fn superseded(conversation: &Conversation, rest: &str, query: Option<&str>) -> Option<Response> {
    let winner = conversation.life.winner()?;
    let gone = conversation.life.state() == ConversationState::Superseded;
    gone.then(|| redirect(StatusCode::PERMANENT_REDIRECT, &below(&winner.url, rest, query)))
}

fn below(url: &Url, rest: &str, query: Option<&str>) -> Url {
    let mut to = url.clone();
    to.set_path(&format!("{}{rest}", url.path()));
    to.set_query(query);
    to
}

/// The slot of a user's pair with whoever is at an address now.
async fn slot_of(cluster: &Cluster, user: &UserRef, other: &Address) -> Result<Option<SlotRow>, Problem> {
    match users::resolve(cluster, other).await {
        Ok(found) => {
            let incarnation = found.record.incarnation;
            let key = pair_key(user, &UserRef { user: other.clone(), incarnation });
            Ok(store::slot(cluster, Pair { user: &user.user, other, key: &key }).await?.value)
        }
        Err(problem) if matches!(problem.code, Code::ResolutionIncomplete | Code::UserUnknown) => {
            let known = store::any_slot(cluster, &user.user, other).await?;
            if known.is_none() { Err(problem) } else { Ok(known) }
        }
        Err(problem) => Err(problem),
    }
}

/// SEC-010, MAP-005: some things a user asks only of the own cluster.
fn of_this_cluster(cluster: &Cluster, caller: UserCaller) -> Result<UserRef, Problem> {
    if caller.home != *cluster.name() {
        return Err(Problem::new(Code::WrongCluster).with("clusters", [caller.home]));
    }
    Ok(caller.user)
}

fn parse_id(text: &str) -> Result<Uuid, Problem> {
    text.parse().map_err(|_| Code::NotFound.into())
}

fn parse_address(text: &str) -> Result<Address, Problem> {
    text.parse().map_err(|_| Code::BadRequest.into())
}
