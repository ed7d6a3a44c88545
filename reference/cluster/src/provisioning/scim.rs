//! SCIM's shapes: users, errors, and what the service says of itself (RFC 7643, RFC 7644).

use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fusion_protocol::provisioning::{MEDIA_TYPE, SCHEMA_ERROR, SCHEMA_USER, ScimError, ScimMeta, ScimUser};
use fusion_protocol::{Code, Pii, Problem, Service, limits};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::create::NewUser;
use crate::Cluster;
use crate::reply::{self, Refusal};
use crate::users::UserRow;

/// The schema of a list.
const SCHEMA_LIST: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
/// The schema of what a service says of itself.
const SCHEMA_CONFIG: &str = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig";
/// The schema of a schema.
const SCHEMA_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:Schema";

/// A refusal in SCIM's shape, with our code beside it.
#[derive(Debug)]
pub(super) struct ScimRefusal {
    problem: Problem,
    scim_type: Option<&'static str>,
}

impl ScimRefusal {
    /// 400 with SCIM's own word for what is wrong.
    pub(super) fn invalid(scim_type: &'static str, detail: impl Into<String>) -> Self {
        Self { problem: Problem::new(Code::BadRequest).detail(detail), scim_type: Some(scim_type) }
    }
}

impl From<Problem> for ScimRefusal {
    fn from(problem: Problem) -> Self {
        let scim_type = (problem.code == Code::AlreadyExists).then_some("uniqueness");
        Self { problem, scim_type }
    }
}

impl From<Code> for ScimRefusal {
    fn from(code: Code) -> Self {
        Problem::new(code).into()
    }
}

impl From<Refusal> for ScimRefusal {
    fn from(refusal: Refusal) -> Self {
        Self::from(*refusal.0)
    }
}

impl IntoResponse for ScimRefusal {
    fn into_response(self) -> Response {
        let Self { problem, scim_type } = self;
        let error = ScimError {
            schemas: vec![SCHEMA_ERROR.to_owned()],
            status: problem.status.to_string(),
            scim_type: scim_type.map(str::to_owned),
            detail: problem.detail.clone().unwrap_or_else(|| problem.title.clone()),
            code: problem.code,
        };
        let mut response = Refusal::from(problem).into_response();
        let (parts, body) = answer(response.status(), &error).into_parts();
        response.headers_mut().extend(parts.headers);
        *response.body_mut() = body;
        response
    }
}

/// An answer in SCIM's media type.
pub(super) fn answer(status: StatusCode, body: &impl serde::Serialize) -> Response {
    reply::with_type(status, MEDIA_TYPE, body)
}

/// A user's answer, with its place and its entity tag.
pub(super) fn user_answer(cluster: &Cluster, status: StatusCode, row: &UserRow) -> Response {
    let user = user(cluster, row);
    let mut response = answer(status, &user);
    if let Some(meta) = &user.meta {
        let mut set = |name, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(name, value);
            }
        };
        set(header::ETAG, &meta.version);
        if status == StatusCode::CREATED {
            set(header::LOCATION, meta.location.as_str());
        }
    }
    response
}

/// Reads what an admin says of a new user.
pub(super) fn new_user(scim: ScimUser) -> Result<NewUser, ScimRefusal> {
    if !scim.schemas.iter().any(|schema| schema == SCHEMA_USER) {
        return Err(ScimRefusal::invalid("invalidValue", format!("schemas must name {SCHEMA_USER}")));
    }
    let user = scim.user_name.expose().parse();
    let user = user.map_err(|error: fusion_protocol::address::AddressError| {
        ScimRefusal::invalid("invalidValue", error.to_string())
    })?;
    let too_long = |text: Option<&String>| text.is_some_and(|text| text.len() > limits::ADDRESS_MAX);
    if too_long(scim.display_name.as_ref().map(Pii::expose)) || too_long(scim.external_id.as_ref()) {
        let limit = limits::ADDRESS_MAX;
        return Err(ScimRefusal::invalid("invalidValue", format!("a value has at most {limit} octets")));
    }
    Ok(NewUser { user, display_name: scim.display_name, external_id: scim.external_id, active: scim.active })
}

/// The one filter that is served: `userName eq "..."`.
pub(super) fn user_name_filter(filter: &str) -> Option<String> {
    let mut words = filter.trim().splitn(3, ' ');
    let (name, operator, value) = (words.next()?, words.next()?, words.next()?);
    let asked = name.eq_ignore_ascii_case("userName") && operator.eq_ignore_ascii_case("eq");
    asked.then(|| serde_json::from_str(value.trim()).ok()).flatten()
}

/// A list of what was found.
pub(super) fn list(cluster: &Cluster, found: Option<&UserRow>) -> Value {
    let found: Vec<ScimUser> = found.into_iter().map(|row| user(cluster, row)).collect();
    json!({
        "schemas": [SCHEMA_LIST],
        "totalResults": found.len(),
        "startIndex": 1,
        "itemsPerPage": found.len(),
        "Resources": found,
    })
}

/// What is served, truly: no PATCH, no bulk, no sorting yet.
pub(super) fn service_provider_config() -> Value {
    json!({
        "schemas": [SCHEMA_CONFIG],
        "patch": { "supported": false },
        "bulk": { "supported": false, "maxOperations": 0, "maxPayloadSize": 0 },
        "filter": { "supported": true, "maxResults": 1 },
        "changePassword": { "supported": false },
        "sort": { "supported": false },
        "etag": { "supported": true },
        "authenticationSchemes": [{
            "type": "oauthbearertoken",
            "name": "Admin token",
            "description": "An access token of this cluster's authorisation server, scope admin",
        }],
    })
}

/// The schema of a user, as far as it is served.
pub(super) fn schemas() -> Value {
    let attribute = |name: &str, kind: &str, required: bool, mutability: &str, uniqueness: &str| {
        json!({
            "name": name, "type": kind, "multiValued": false, "required": required, "caseExact": false,
            "mutability": mutability, "returned": "default", "uniqueness": uniqueness,
        })
    };
    json!({
        "schemas": [SCHEMA_LIST],
        "totalResults": 1,
        "startIndex": 1,
        "itemsPerPage": 1,
        "Resources": [{
            "schemas": [SCHEMA_SCHEMA],
            "id": SCHEMA_USER,
            "name": "User",
            "attributes": [
                attribute("userName", "string", true, "immutable", "global"),
                attribute("displayName", "string", false, "immutable", "none"),
                attribute("externalId", "string", false, "immutable", "none"),
                attribute("active", "boolean", false, "immutable", "none"),
            ],
        }],
    })
}

fn user(cluster: &Cluster, row: &UserRow) -> ScimUser {
    let id = row.id.to_string();
    let meta = ScimMeta {
        resource_type: "User".to_owned(),
        location: cluster.url(Service::Provisioning, &format!("/scim/v2/Users/{id}")),
        version: entity_tag(row),
    };
    ScimUser {
        schemas: vec![SCHEMA_USER.to_owned()],
        id: Some(id),
        external_id: row.external_id.clone(),
        user_name: Pii::new(row.record.user.as_str().to_owned()),
        display_name: row.display_name.clone(),
        active: row.active,
        meta: Some(meta),
    }
}

/// Weak, and from the content: it changes with whatever an admin can see.
fn entity_tag(row: &UserRow) -> String {
    let content = serde_json::to_vec(row).unwrap_or_default();
    format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(&Sha256::digest(content)[..9]))
}

#[cfg(test)]
mod tests {
    use super::user_name_filter;

    #[test]
    fn the_filter_by_user_name_is_read_and_no_other() {
        assert_eq!(user_name_filter(r#"userName eq "a b@x.example""#).as_deref(), Some("a b@x.example"));
        assert_eq!(user_name_filter(r#"username EQ "a\"b""#).as_deref(), Some("a\"b"));
        for other in ["", "userName", r#"userName co "a""#, "userName eq a", r#"active eq "true""#] {
            assert_eq!(user_name_filter(other), None, "{other}");
        }
    }
}
