//! Devices are registered here, and notifications arrive here.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::IntoResponse as _;
use axum::routing::{delete, get, post};
use fusion_protocol::mercury::{Device, Notification, RegisterDevice};
use fusion_protocol::{Address, ClusterName, Code, Problem, Service, Url, UserRef, Uuid, limits};
use fusion_runtime::store::Batch;
use fusion_runtime::ws;
use http::{HeaderMap, StatusCode};
use sha2::{Digest as _, Sha256};

use super::store::{self, DeviceRow};
use super::{Hint, Wake, socket};
use crate::auth::{ClusterCaller, UserCaller};
use crate::reply::{Answer, JsonBody, json};
use crate::rows::{self, Committed};
use crate::{Cluster, users};

/// The longest name of a device, in octets.
const NAME_MAX: usize = 256;

pub(crate) fn routes() -> Router<Cluster> {
    Router::new()
        .route("/v1/devices", post(register))
        .route("/v1/devices/{device}", delete(unregister))
        .route("/v1/devices/{device}/socket", get(open))
        .route("/v1/devices/{device}/notifications", post(notify_device))
        .route("/v1/users/{user}/notifications", post(notify_user))
}

/// SEC-007: at most [`limits::DEVICES_MAX`] devices of one user.
async fn register(
    State(cluster): State<Cluster>,
    caller: UserCaller,
    headers: HeaderMap,
    JsonBody(body): JsonBody<RegisterDevice>,
) -> Answer {
    let owner = own_user(&cluster, caller)?;
    if body.name.as_ref().is_some_and(|name| name.expose().len() > NAME_MAX) {
        return Err(Problem::new(Code::Unprocessable).detail("a name has at most 256 octets").into());
    }
    let device = device_id(&cluster, &owner, &headers)?;
    let row = DeviceRow { owner: owner.clone(), name: body.name };
    let _held = cluster.locks.hold(format!("device-list/{}", owner.user.as_str())).await;
    loop {
        let vacant = store::device(&cluster, device).await?;
        if vacant.value.is_some() {
            return Ok(json(StatusCode::OK, &described(&cluster, device)));
        }
        if store::devices(&cluster, &owner.user).await?.len() >= limits::DEVICES_MAX {
            return Err(Problem::new(Code::TooMany).detail("a user has at most 100 devices").into());
        }
        let mut batch = Batch::default();
        let user = users::served_here(&cluster, &owner.user).await?;
        if user.value.as_ref().is_none_or(|user| user.record.incarnation != owner.incarnation) {
            return Err(Code::UserUnknown.into());
        }
        user.unchanged(&mut batch);
        store::insert(&mut batch, &vacant, device, &row);
        if rows::commit(&*cluster.host.store, batch).await? == Committed::Yes {
            return Ok(json(StatusCode::CREATED, &described(&cluster, device)));
        }
    }
}

async fn unregister(
    State(cluster): State<Cluster>,
    caller: UserCaller,
    Path(device): Path<String>,
) -> Answer {
    let owner = own_user(&cluster, caller)?;
    let device = parse_device(&cluster, &device)?;
    let row = store::device(&cluster, device).await?.value;
    if row.is_none_or(|row| row.owner != owner) {
        return Err(Code::NotFound.into());
    }
    store::remove(&cluster, &owner.user, device).await?;
    Hint::Removed { device }.publish(&cluster, &owner.user);
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The socket says by itself who it is, in its first frame.
async fn open(State(cluster): State<Cluster>, Path(device): Path<String>, request: Request) -> Answer {
    let device = parse_device(&cluster, &device)?;
    if store::device(&cluster, device).await?.value.is_none() {
        return Err(Code::NotFound.into());
    }
    let host = cluster.host.clone();
    Ok(ws::accept(&host, request, move |channel| socket::serve(cluster, device, channel)))
}

/// MER-001: the notification URL of one device.
async fn notify_device(
    State(cluster): State<Cluster>,
    Path(device): Path<String>,
    caller: ClusterCaller<Notification>,
) -> Answer {
    let device = parse_device(&cluster, &device)?;
    announces_its_own(&cluster, &caller.cluster, &caller.body.resource)?;
    let row = store::device(&cluster, device).await?.value.ok_or(Code::NotFound)?;
    notify(&cluster, &row.owner.user, Some(device), &caller.body).await
}

/// MER-001: all devices of a user.
async fn notify_user(
    State(cluster): State<Cluster>,
    Path(user): Path<String>,
    caller: ClusterCaller<Notification>,
) -> Answer {
    let user: Address = user.parse().map_err(|_| Code::BadRequest)?;
    announces_its_own(&cluster, &caller.cluster, &caller.body.resource)?;
    if users::served_here(&cluster, &user).await?.value.is_none() {
        return Err(elsewhere(&cluster, &user).await.into());
    }
    notify(&cluster, &user, None, &caller.body).await
}

async fn notify(
    cluster: &Cluster,
    user: &Address,
    only: Option<Uuid>,
    notification: &Notification,
) -> Answer {
    loop {
        let mut batch = Batch::default();
        // A queue that is being carried elsewhere takes nothing (MAP-007).
        users::served_here(cluster, user).await?.unchanged(&mut batch);
        let added = store::enqueue(cluster, &mut batch, user, only, notification).await?;
        if !added {
            return Ok(StatusCode::ACCEPTED.into_response());
        }
        if rows::commit(&*cluster.host.store, batch).await? == Committed::Yes {
            let users = std::iter::once(user.clone()).collect();
            Wake { users }.now(cluster);
            return Ok(StatusCode::ACCEPTED.into_response());
        }
    }
}

/// SEC-005: a cluster notifies only of its own objects; SEC-010: guests have no devices here.
fn announces_its_own(cluster: &Cluster, caller: &ClusterName, resource: &Url) -> Result<(), Problem> {
    let located = cluster.config.template.locate(resource).map_err(|_| Code::UntrustedUrl)?;
    if located.cluster == *caller { Ok(()) } else { Err(Code::NotYourObject.into()) }
}

fn own_user(cluster: &Cluster, caller: UserCaller) -> Result<UserRef, Problem> {
    if caller.home == *cluster.name() { Ok(caller.user) } else { Err(Code::Forbidden.into()) }
}

/// MAP-005: where else the user is, if that is known.
async fn elsewhere(cluster: &Cluster, user: &Address) -> Problem {
    match users::resolve(cluster, user).await {
        Ok(found) if found.record.cluster != *cluster.name() => {
            Problem::new(Code::WrongCluster).with("clusters", [found.record.cluster])
        }
        Ok(_) => Code::Unavailable.into(),
        Err(problem) => problem,
    }
}

/// The id of a new device; the same for the same `Idempotency-Key` of the same person.
fn device_id(cluster: &Cluster, owner: &UserRef, headers: &HeaderMap) -> Result<Uuid, Problem> {
    let Some(key) = headers.get(fusion_protocol::headers::IDEMPOTENCY_KEY) else {
        return Ok(cluster.host.entropy.uuid());
    };
    if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_MAX {
        return Err(Problem::new(Code::BadRequest).detail("an Idempotency-Key has 1 to 128 octets"));
    }
    let digest = Sha256::new()
        .chain_update("device\0")
        .chain_update(owner.octets())
        .chain_update([0])
        .chain_update(key)
        .finalize();
    let bytes = digest.first_chunk::<16>().expect("a digest has 32 octets");
    Ok(uuid::Builder::from_custom_bytes(*bytes).into_uuid())
}

/// NAM-003: `{cluster}~{uuid}`.
fn parse_device(cluster: &Cluster, id: &str) -> Result<Uuid, Problem> {
    let (name, device) = id.split_once('~').ok_or(Code::NotFound)?;
    if name != cluster.name().as_str() {
        return Err(Code::NotFound.into());
    }
    device.parse().map_err(|_| Code::NotFound.into())
}

fn described(cluster: &Cluster, device: Uuid) -> Device {
    let id = format!("{}~{device}", cluster.name());
    let url = |below: &str| cluster.url(Service::Mercury, &format!("/v1/devices/{id}{below}"));
    let mut web_socket_url = url("/socket");
    web_socket_url.set_scheme("wss").expect("https and wss are of one kind");
    Device { url: url(""), web_socket_url, notification_url: url("/notifications"), id }
}
