//! What devices ask of a locus, and clusters of the active lists.

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use fusion_machines::locus::{self as machine, Effect, Event, Locus, Place, participant_id};
use fusion_protocol::conversation::ConversationState;
use fusion_protocol::index::{BatchAnswer, RowResult};
use fusion_protocol::locus::{
    ActiveBatch, ActiveLoci, ActiveWrite, Join, Joined, KEEP_ALIVE_SECONDS, Lease, LocusDelta,
    ParticipantState, Replaces, SetState,
};
use fusion_protocol::media::{Leg, OpenLeg};
use fusion_protocol::{Address, ClusterName, Code, Count, Problem, Service, Url, Uuid, limits};
use http::StatusCode;
use serde::Deserialize;

use super::store::{Home, Stepped, locus_url, setting};
use super::{active, relays};
use crate::auth::{ClusterCaller, UserCaller};
use crate::conversation::{self, Membership};
use crate::peers::PeerError;
use crate::reply::{Answer, JsonBody, json, redirect};
use crate::{Cluster, media};

/// How long a device's own name for itself may be, in octets.
const DEVICE_MAX: usize = 128;

/// `{conversation}/locus` and below, on the conversation's host.
pub(crate) fn call_routes() -> Router<Cluster> {
    Router::new()
        .route("/v1/conversations/{id}/locus", get(read))
        .route("/v1/conversations/{id}/locus/participants", post(join))
        .route("/v1/conversations/{id}/locus/participants/{participant}", put(set_state))
        .route("/v1/conversations/{id}/locus/participants/{participant}/lease", post(renew_lease))
}

/// The active lists, on the locus host.
pub(crate) fn list_routes() -> Router<Cluster> {
    Router::new().route("/v1/users/{user}/loci", get(list)).route("/v1/loci", post(write))
}

/// What may follow `GET {locus}`.
#[derive(Debug, Default, Deserialize)]
struct Since {
    since: Option<String>,
}

/// Who asks, as a member of the conversation (SEC-006).
struct Member {
    membership: Membership,
    user: Address,
}

async fn read(
    State(cluster): State<Cluster>,
    Path(id): Path<String>,
    Query(query): Query<Since>,
    caller: UserCaller,
) -> Answer {
    let home = Home::of(&cluster, parse_id(&id)?);
    let member = Member::admit(&home, caller).await?;
    if let Some(elsewhere) = member.superseded("") {
        return Ok(elsewhere);
    }
    let since: Option<Count> =
        query.since.map(|since| since.parse()).transpose().map_err(|_| Code::BadRequest)?;
    let locus = home.read().await?;
    let view = view(&home, &locus, &member);
    Ok(match since {
        None => json(StatusCode::OK, &view),
        Some(since) if since >= locus.rev => json(StatusCode::OK, &LocusDelta::Unchanged { rev: locus.rev }),
        Some(_) => json(StatusCode::OK, &LocusDelta::Whole(Box::new(view))),
    })
}

async fn join(
    State(cluster): State<Cluster>,
    Path(id): Path<String>,
    caller: UserCaller,
    JsonBody(join): JsonBody<Join>,
) -> Answer {
    if join.device.is_empty() || join.device.len() > DEVICE_MAX {
        return Err(Problem::new(Code::Unprocessable).detail("a device has 1 to 128 octets").into());
    }
    let home = Home::hold(&cluster, parse_id(&id)?).await;
    let member = Member::admit(&home, caller).await?;
    if let Some(elsewhere) = member.moved("/participants") {
        return Ok(elsewhere);
    }
    let device = join.device.clone();
    let Stepped { locus, effects } = home.step(member.joining(&home, join).await?).await?;
    cluster.leases.renew(&cluster, home.id, locus.instance, &member.user, &device);
    let joined = Joined {
        participant: participant_id(&home.url, &member.user),
        locus: view(&home, &locus, &member),
        leg: None,
        keep_alive_seconds: KEEP_ALIVE_SECONDS,
    };
    // The others may act on the locus while this one waits for a relay.
    let home = home.release();
    let opened = effects.iter().find_map(|effect| match effect {
        Effect::OpenLeg(leg) => Some(*leg),
        _ => None,
    });
    let leg = match opened {
        Some(leg) => open_leg(&home, &member, &locus, leg, &device).await,
        None => None,
    };
    Ok(json(StatusCode::OK, &Joined { leg, ..joined }))
}

async fn set_state(
    State(cluster): State<Cluster>,
    Path((id, participant)): Path<(String, String)>,
    caller: UserCaller,
    JsonBody(change): JsonBody<SetState>,
) -> Answer {
    let home = Home::hold(&cluster, parse_id(&id)?).await;
    let member = Member::admit(&home, caller).await?;
    if let Some(elsewhere) = member.superseded(&format!("/participants/{participant}")) {
        return Ok(elsewhere);
    }
    let locus = home.read().await?;
    let instance = member.seat(&home, &locus, &participant, change.instance)?;
    let user = member.user.clone();
    let event = match change.state {
        ParticipantState::Left => Event::Leave { user, instance, device: change.device },
        ParticipantState::Declined => Event::Decline { user, instance },
        ParticipantState::Idle | ParticipantState::Notified | ParticipantState::Joined => {
            return Err(Problem::new(Code::Unprocessable).detail("only DECLINED or LEFT can be put").into());
        }
    };
    let stepped = home.step(event).await?;
    Ok(json(StatusCode::OK, &view(&home, &stepped.locus, &member)))
}

async fn renew_lease(
    State(cluster): State<Cluster>,
    Path((id, participant)): Path<(String, String)>,
    caller: UserCaller,
    JsonBody(lease): JsonBody<Lease>,
) -> Answer {
    // Held, so that a lease cannot run out between the look and the renewal.
    let home = Home::hold(&cluster, parse_id(&id)?).await;
    let member = Member::admit(&home, caller).await?;
    if let Some(elsewhere) = member.superseded(&format!("/participants/{participant}/lease")) {
        return Ok(elsewhere);
    }
    let locus = home.read().await?;
    let instance = member.seat(&home, &locus, &participant, lease.instance)?;
    if !locus.holds(&member.user, instance, &lease.device) {
        return Err(Code::CallOver.into());
    }
    cluster.leases.renew(&cluster, home.id, instance, &member.user, &lease.device);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn list(State(cluster): State<Cluster>, Path(user): Path<String>, caller: UserCaller) -> Answer {
    let own = user.parse::<Address>().is_ok_and(|user| user == caller.user.user);
    if !own || caller.home != *cluster.name() {
        return Err(Code::Forbidden.into());
    }
    let loci = active::list(&cluster, &caller.user).await?;
    Ok(json(StatusCode::OK, &ActiveLoci { loci }))
}

async fn write(State(cluster): State<Cluster>, caller: ClusterCaller<ActiveBatch>) -> Answer {
    if caller.body.rows.len() > limits::BATCH_MAX {
        return Err(Problem::new(Code::Unprocessable).detail("at most 256 rows a batch").into());
    }
    let writes = caller.body.rows.iter().map(|row| write_row(&cluster, &caller.cluster, row));
    let results: Result<Vec<RowResult>, Problem> =
        futures_util::future::join_all(writes).await.into_iter().collect();
    Ok(json(StatusCode::OK, &BatchAnswer { results: results? }))
}

/// SEC-005: a cluster writes of its own loci only.
async fn write_row(cluster: &Cluster, caller: &ClusterName, row: &ActiveWrite) -> Result<RowResult, Problem> {
    let entry = &row.entry;
    let located = cluster.config.template.locate(&entry.conversation_url);
    let own = located.is_ok_and(|at| at.cluster == *caller && at.service == Service::Conv);
    if !own || entry.locus_url != locus_url(&entry.conversation_url) {
        return Ok(active::refused(row, Code::NotYourObject, vec![]));
    }
    active::write_active(cluster, row).await
}

impl Member {
    async fn admit(home: &Home<'_>, caller: UserCaller) -> Result<Self, Problem> {
        let membership = conversation::membership(home.cluster, home.id).await?;
        let user = caller.user;
        // NAM-004: rights belong to the person, not to the address.
        let same = |is: &fusion_protocol::conversation::Participant| {
            is.user == user.user && is.incarnation.is_none_or(|incarnation| incarnation == user.incarnation)
        };
        if !conversation::is_member(&membership, &user.user) || !membership.members.iter().any(same) {
            return Err(Code::NotParticipant.into());
        }
        Ok(Self { membership, user: user.user })
    }

    /// 308 for ever, once the conversation's activities are in the winner (CNV-003).
    fn superseded(&self, below: &str) -> Option<Response> {
        let superseded = self.membership.state == ConversationState::Superseded;
        superseded.then(|| self.at_winner(StatusCode::PERMANENT_REDIRECT, below))
    }

    /// The same, or 307 while they are moving: calls take place at the winner's already (LOC-004).
    fn moved(&self, below: &str) -> Option<Response> {
        let sealing = self.membership.state == ConversationState::Sealing;
        let moving = sealing.then(|| self.at_winner(StatusCode::TEMPORARY_REDIRECT, below));
        moving.or_else(|| self.superseded(below))
    }

    fn at_winner(&self, status: StatusCode, below: &str) -> Response {
        let Some(winner) = &self.membership.superseded_by else {
            return crate::reply::Refusal::from(Code::Sealing).into_response();
        };
        let mut url: Url = locus_url(winner);
        url.set_path(&format!("{}{below}", url.path()));
        redirect(status, &url)
    }

    /// The call that is meant by somebody who names the own part in it: a participant puts only itself.
    ///
    /// LOC-004: who came with a call that was taken over may go on to use the names it had before.
    fn seat(
        &self,
        home: &Home<'_>,
        locus: &Locus,
        participant: &str,
        instance: Count,
    ) -> Result<Count, Problem> {
        if let Place::Moved { call: Some(call), .. } = locus.place
            && call == instance
        {
            // On its way to the winner, who does not know of it yet perhaps.
            return Err(Code::Sealing.into());
        }
        let participant: Uuid = participant.parse().map_err(|_| Code::NotFound)?;
        if participant == participant_id(&home.url, &self.user) {
            return Ok(instance);
        }
        let own_before = |call: &&Replaces| participant == participant_id(&call.locus_url, &self.user);
        if let Some(call) = locus.taken_over.iter().find(own_before) {
            let goes_on = call.instance == instance && locus.replaces.contains(call);
            return if goes_on { Ok(locus.instance) } else { Err(Code::CallOver.into()) };
        }
        let mut others = self.membership.members.iter();
        let known = others.any(|other| participant == participant_id(&home.url, &other.user));
        Err(if known { Code::Forbidden.into() } else { Code::NotFound.into() })
    }

    async fn joining(&self, home: &Home<'_>, join: Join) -> Result<Event, Problem> {
        Ok(Event::Join(machine::Join {
            user: self.user.clone(),
            device: join.device,
            expect: join.expect,
            leg: home.cluster.host.entropy.uuid(),
            setting: setting(home, &self.membership).await?,
        }))
    }
}

/// The leg of a device that has joined: at the relay that carries the call, at the next one when that
/// fails (MED-004), nowhere when none is up. A device that has left meanwhile gets none.
async fn open_leg(home: &Home<'_>, member: &Member, joined: &Locus, leg: Uuid, device: &str) -> Option<Leg> {
    let (cluster, instance) = (home.cluster, joined.instance);
    let bounds = media::bounds(cluster, &member.membership.members);
    let open = OpenLeg { id: leg, locus: home.id, instance };
    let mut relay = joined.relay()?.clone();
    for _ in 0..media::candidates(cluster, bounds).len() {
        match media::open_leg(cluster, &relay, &open).await {
            Ok(opened) => {
                let still = home.read().await.is_ok_and(|locus| locus.holds(&member.user, instance, device));
                if !still {
                    media::close_leg(cluster, &relay, leg).await;
                }
                return still.then_some(opened);
            }
            Err(PeerError::Refused(problem)) if problem.code == Code::CallOver => return None,
            Err(_) => relay = relays::replace(home, bounds, instance, &relay).await?,
        }
    }
    None
}

fn view(home: &Home<'_>, locus: &Locus, member: &Member) -> fusion_protocol::locus::Locus {
    let members = member.membership.members.iter().map(|member| &member.user);
    locus.view(&home.url, &home.conversation, members)
}

fn parse_id(id: &str) -> Result<Uuid, Problem> {
    id.parse().map_err(|_| Code::NotFound.into())
}
