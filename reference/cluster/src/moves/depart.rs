//! The old cluster's side: the fence, the carrying, and what is left to do once the user has gone.

use std::time::Duration;

use fusion_machines::moving::{Asks, Decision, Origin, OriginEvent, OriginRefusal};
use fusion_protocol::map::UserRecord;
use fusion_protocol::moving::{Arrival, Decided, Move, Part, Standing};
use fusion_protocol::{Address, ClusterName, Code, Count, Incarnation, Problem, Service, Url};
use fusion_runtime::probe::Level;
use fusion_runtime::store::Batch;
use http::Method;
use serde::Serialize;
use serde_json::json;

use super::carry;
use super::store::{self, Departure};
use crate::peers::{self, PeerError};
use crate::provisioning::{self, place};
use crate::rows::{self, Committed, Loaded};
use crate::users::{self, UserRow};
use crate::{Cluster, StartError, index, locus, mercury};

/// The pause after the first attempt that failed: the user waits, so it is short. It doubles,
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// up to this: a new cluster that stays away is not stormed with everything that a whole org's users have.
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// Works off what an earlier life left.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn start(cluster: &Cluster) -> Result<(), StartError> {
    let users = store::all_open(cluster).await.map_err(|_| StartError::Row("departing".to_owned()))?;
    users.into_iter().for_each(|user| drive(cluster, user));
    Ok(())
}

/// Orders a move.
///
/// # Errors
/// `user-unknown`, `wrong-cluster` for who is elsewhere, `conflict` during another move, `unprocessable` for
/// a cluster that is not of the org; what the new cluster says when it takes nobody, and `peer-unreachable`
/// while nobody answers there: a user is not fenced for a cluster that is away.
pub(super) async fn order(cluster: &Cluster, user: &Address, to: &ClusterName) -> Result<Move, Problem> {
    let clusters = users::clusters_of(cluster, &user.domain());
    if to == cluster.name() || !clusters.contains(to) {
        return Err(Problem::new(Code::Unprocessable).detail("not another cluster of the organisation"));
    }
    let event = OriginEvent::Order { to: to.clone() };
    let (_, before) = Record::load(cluster, user).await?.known()?;
    let after = before.step(&event).map_err(refused)?;
    if after != before {
        ask_first(cluster, user, to).await?;
    }
    let moved = step(cluster, user, &event).await?;
    drive(cluster, user.clone());
    Ok(moved)
}

/// Calls a move off.
///
/// # Errors
/// `conflict` when it is done, or there is none.
pub(super) async fn call_off(cluster: &Cluster, user: &Address) -> Result<Move, Problem> {
    step(cluster, user, &OriginEvent::CallOff).await
}

/// How far a user's move is.
///
/// # Errors
/// `user-unknown`.
pub(super) async fn look(cluster: &Cluster, user: &Address) -> Result<Move, Problem> {
    let (_, origin) = Record::load(cluster, user).await?.known()?;
    Ok(told(user, &origin))
}

/// Finishes what a user who went has left to do here, before anybody else gets the address. Under
/// [`provisioning::lock`].
///
/// # Errors
/// When the store or the registrar cannot.
pub(crate) async fn clear(cluster: &Cluster, user: &Address) -> Result<(), Problem> {
    let departure = store::departure(cluster, user).await?;
    let Some(Departure { origin: Origin::Gone { to, .. }, .. }) = &departure.value else { return Ok(()) };
    if !store::is_open(cluster, user).await? {
        return Ok(());
    }
    index::erase(cluster, user).await?;
    locus::erase(cluster, user).await?;
    mercury::erase(cluster, user).await?;
    carry::erase_slots(cluster, user).await?;
    place::hand_over(cluster, user, to).await?;
    let mut batch = Batch::default();
    departure.unchanged(&mut batch);
    store::close(&mut batch, user);
    match rows::commit(&*cluster.host.store, batch).await? {
        Committed::Yes => Ok(()),
        Committed::Again => Err(Code::Unavailable.into()),
    }
}

/// Asks until it is decided, then clears, in the background.
pub(super) fn drive(cluster: &Cluster, user: Address) {
    let here = cluster.clone();
    cluster.host.tasks.spawn(async move {
        let _held = here.locks.hold(format!("departure/{}", user.as_str())).await;
        let mut pause = PAUSE_MIN;
        loop {
            match advance(&here, &user).await {
                Ok(true) => return,
                Ok(false) => pause = PAUSE_MIN,
                Err(problem) => {
                    here.host.probe.log(Level::Warn, "moves.later", json!({ "code": problem.code }));
                    here.host.clock.sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    });
}

/// Does the next thing; answers whether nothing is left to do.
async fn advance(cluster: &Cluster, user: &Address) -> Result<bool, Problem> {
    let Some(Departure { incarnation, origin }) = store::departure(cluster, user).await?.value else {
        return Ok(true);
    };
    let Some(asks) = origin.asks() else {
        let _held = cluster.locks.hold(provisioning::lock(user)).await;
        clear(cluster, user).await?;
        return Ok(true);
    };
    let decided = match &asks {
        Asks::Commit { to, epoch } => carry_over(cluster, user, incarnation, to, *epoch).await,
        Asks::Withdraw { to, epoch } => {
            let url = arrival_url(cluster, to, user, &format!("/{}/{epoch}", incarnation.0));
            call(cluster, Method::DELETE, &url, &()).await
        }
    };
    let (Asks::Commit { epoch, .. } | Asks::Withdraw { epoch, .. }) = asks;
    match decided {
        Ok(Decided { committed }) => {
            let decision = if committed { Decision::Committed } else { Decision::Refused };
            step(cluster, user, &OriginEvent::Decided { epoch, decision }).await?;
            Ok(false)
        }
        // It will not be taken, whoever asks how often: but only a refusal for ever ends the fence.
        Err(problem) if matches!(problem.status, 403 | 413 | 422) => {
            cluster.host.probe.log(Level::Warn, "moves.called-off", json!({ "code": problem.code }));
            step(cluster, user, &OriginEvent::CallOff).await?;
            Err(problem)
        }
        Err(problem) => Err(problem),
    }
}

/// Sends everything, then asks for the commit.
async fn carry_over(
    cluster: &Cluster,
    user: &Address,
    incarnation: Incarnation,
    to: &ClusterName,
    epoch: Count,
) -> Result<Decided, Problem> {
    let row = users::held(cluster, user).await?.value.ok_or(Code::UserUnknown)?;
    let attempt = cluster.host.entropy.uuid();
    let parts = carry::collect(cluster, user).await?;
    let below = format!("/{}/{epoch}", incarnation.0);
    let count = parts.len() as u32;
    for (number, rows) in (0_u32..).zip(parts) {
        let url = arrival_url(cluster, to, user, &format!("{below}/{number}"));
        send(cluster, Method::PUT, &url, &Part { attempt, rows }).await?;
    }
    let arrival = Arrival {
        attempt,
        parts: count,
        id: row.id,
        display_name: row.display_name,
        external_id: row.external_id,
        active: row.active,
    };
    call(cluster, Method::POST, &arrival_url(cluster, to, user, &below), &arrival).await
}

async fn ask_first(cluster: &Cluster, user: &Address, to: &ClusterName) -> Result<(), Problem> {
    send(cluster, Method::GET, &arrival_url(cluster, to, user, ""), &()).await.map(drop)
}

async fn call(
    cluster: &Cluster,
    method: Method,
    url: &Url,
    body: &impl Serialize,
) -> Result<Decided, Problem> {
    let answer = send(cluster, method, url, body).await?;
    serde_json::from_slice(&answer).map_err(|_| Code::PeerUnreachable.into())
}

async fn send(
    cluster: &Cluster,
    method: Method,
    url: &Url,
    body: &impl Serialize,
) -> Result<bytes::Bytes, Problem> {
    peers::call(cluster, method, url, body).await.map_err(|error| match error {
        PeerError::Refused(problem) => *problem,
        PeerError::Unreachable => Code::PeerUnreachable.into(),
    })
}

fn arrival_url(cluster: &Cluster, to: &ClusterName, user: &Address, below: &str) -> Url {
    let path = format!("/v1/arrivals/{}{below}", user.path_segment());
    cluster.config.template.url(to, Service::Users, &path)
}

/// A user's row and departure as loaded.
struct Record {
    user: Loaded<UserRow>,
    departure: Loaded<Departure>,
}

impl Record {
    async fn load(cluster: &Cluster, user: &Address) -> Result<Self, Problem> {
        Ok(Self {
            user: users::held(cluster, user).await?,
            departure: store::departure(cluster, user).await?,
        })
    }

    /// Who that is, and what this cluster holds of them.
    fn known(&self) -> Result<(Incarnation, Origin), Problem> {
        match (&self.user.value, &self.departure.value) {
            (_, Some(Departure { incarnation, origin: origin @ Origin::Fenced { .. } })) => {
                Ok((*incarnation, origin.clone()))
            }
            // A row that is not fenced is somebody who is here, whoever has gone before.
            (Some(UserRow { record, fenced: false, .. }), _) => {
                Ok((record.incarnation, Origin::Active { epoch: record.version }))
            }
            (_, Some(departure)) => Ok((departure.incarnation, departure.origin.clone())),
            (_, None) => Err(Code::UserUnknown.into()),
        }
    }
}

/// One step of the machine, durable with what it does to the user's row.
pub(super) async fn step(cluster: &Cluster, user: &Address, event: &OriginEvent) -> Result<Move, Problem> {
    loop {
        let record = Record::load(cluster, user).await?;
        let (incarnation, before) = record.known()?;
        let after = before.step(event).map_err(refused)?;
        if after == before {
            return Ok(told(user, &after));
        }
        let mut batch = Batch::default();
        let reported = enter(&record, &mut batch, user, incarnation, &after);
        if rows::commit(&*cluster.host.store, batch).await? == Committed::Yes {
            if let Some((record, state)) = reported {
                users::report(cluster, &record, state);
            }
            return Ok(told(user, &after));
        }
    }
}

/// Writes the new state, and what it means for the user's row.
fn enter(
    record: &Record,
    batch: &mut Batch,
    user: &Address,
    incarnation: Incarnation,
    origin: &Origin,
) -> Option<(UserRecord, &'static str)> {
    let departure = Departure { incarnation, origin: origin.clone() };
    let mut row = record.user.value.clone()?;
    match origin {
        Origin::Fenced { .. } => {
            row.fenced = true;
            record.user.save(batch, &row);
            record.departure.save(batch, &departure);
            store::open(batch, user);
            Some((row.record, "FENCED"))
        }
        Origin::Gone { .. } => {
            users::remove(batch, &record.user);
            record.departure.save(batch, &departure);
            Some((row.record, "GONE"))
        }
        Origin::Active { epoch } => {
            row.fenced = false;
            row.record.version = *epoch;
            record.user.save(batch, &row);
            record.departure.remove(batch);
            store::close(batch, user);
            Some((row.record, "ACTIVE"))
        }
    }
}

fn told(user: &Address, origin: &Origin) -> Move {
    let (epoch, to, state) = match origin {
        Origin::Active { epoch } => (epoch, None, Standing::Active),
        Origin::Fenced { epoch, to, .. } => (epoch, Some(to.clone()), Standing::Fenced),
        Origin::Gone { epoch, to } => (epoch, Some(to.clone()), Standing::Gone),
    };
    Move { user: user.clone(), epoch: *epoch, to, state }
}

fn refused(refusal: OriginRefusal) -> Problem {
    Problem::new(Code::Conflict).detail(refusal.to_string())
}
