//! SCIM's routes.

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use fusion_protocol::provisioning::ScimUser;
use fusion_protocol::{Address, Code, Uuid};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use super::scim::{self, ScimRefusal};
use super::{create, erasure};
use crate::auth::AdminCaller;
use crate::reply::{JsonBody, Refusal};
use crate::rows::Committed;
use crate::{Cluster, users};

type ScimAnswer = Result<Response, ScimRefusal>;

/// An extractor's refusal is told in SCIM's shape too.
type Given<T> = Result<T, Refusal>;

pub(super) fn routes() -> Router<Cluster> {
    Router::new()
        .route("/scim/v2/Users", get(find).post(post))
        .route("/scim/v2/Users/{id}", get(read).delete(delete))
        .route("/scim/v2/ServiceProviderConfig", get(service_provider_config))
        .route("/scim/v2/Schemas", get(schemas))
}

#[derive(Deserialize)]
struct Find {
    filter: Option<String>,
}

/// PRO-001, PRO-003.
async fn post(
    State(cluster): State<Cluster>,
    admin: Given<AdminCaller>,
    body: Given<JsonBody<ScimUser>>,
) -> ScimAnswer {
    admin?;
    let new = scim::new_user(body?.0)?;
    let row = create::create(&cluster, new).await?;
    Ok(scim::user_answer(&cluster, StatusCode::CREATED, &row))
}

/// PRO-006.
async fn read(
    State(cluster): State<Cluster>,
    admin: Given<AdminCaller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ScimAnswer {
    admin?;
    let row = users::by_id(&cluster, uuid(&id)?).await?.and_then(|row| row.value);
    let answer = scim::user_answer(&cluster, StatusCode::OK, &row.ok_or(Code::UserUnknown)?);
    let known = headers.get(header::IF_NONE_MATCH);
    if known.is_some() && known == answer.headers().get(header::ETAG) {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    Ok(answer)
}

/// The user with a given `userName`. The map never lists (MAP-008).
async fn find(
    State(cluster): State<Cluster>,
    admin: Given<AdminCaller>,
    Query(find): Query<Find>,
) -> ScimAnswer {
    admin?;
    let Some(filter) = find.filter else {
        return Err(ScimRefusal::invalid("tooMany", "a filter is needed: userName eq \"...\""));
    };
    let Some(name) = scim::user_name_filter(&filter) else {
        return Err(ScimRefusal::invalid("invalidFilter", "the filter served is userName eq \"...\""));
    };
    let found = match name.parse::<Address>() {
        Ok(user) => users::served_here(&cluster, &user).await?.value,
        Err(_) => None,
    };
    Ok(scim::answer(StatusCode::OK, &scim::list(&cluster, found.as_ref())))
}

/// PRO-005.
async fn delete(
    State(cluster): State<Cluster>,
    admin: Given<AdminCaller>,
    Path(id): Path<String>,
) -> ScimAnswer {
    admin?;
    let id = uuid(&id)?;
    loop {
        let row = users::by_id(&cluster, id).await?.ok_or(Code::UserUnknown)?;
        let Some(user) = row.value.as_ref().map(|row| row.record.user.clone()) else {
            return Err(Code::UserUnknown.into());
        };
        let held = cluster.locks.hold(erasure::lock(&user)).await;
        let deleted = erasure::delete(&cluster, &row).await?;
        drop(held);
        if deleted == Committed::Yes {
            erasure::finish_soon(&cluster, user);
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
}

async fn service_provider_config() -> Response {
    scim::answer(StatusCode::OK, &scim::service_provider_config())
}

async fn schemas() -> Response {
    scim::answer(StatusCode::OK, &scim::schemas())
}

fn uuid(id: &str) -> Result<Uuid, ScimRefusal> {
    id.parse().map_err(|_| Code::UserUnknown.into())
}
