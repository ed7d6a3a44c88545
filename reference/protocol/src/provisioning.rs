//! Provisioning: SCIM 2.0 users (PRO-001; RFC 7643, RFC 7644).
//!
//! | call at `https://{c}-provisioning.{provider}/scim/v2` | answer |
//! |---|---|
//! | `POST /Users` | 201 [`ScimUser`]; 409 when the user is there already |
//! | `GET /Users/{id}` | [`ScimUser`] |
//! | `DELETE /Users/{id}` | 204 |
//!
//! Errors have SCIM's shape ([`ScimError`]) with our stable code beside it.

use serde::{Deserialize, Serialize};

use crate::{Code, Pii, Url};

/// The media type of SCIM.
pub const MEDIA_TYPE: &str = "application/scim+json";
/// The schema of a user.
pub const SCHEMA_USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
/// The schema of an error.
pub const SCHEMA_ERROR: &str = "urn:ietf:params:scim:api:messages:2.0:Error";

/// A user as SCIM carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScimUser {
    /// [`SCHEMA_USER`].
    pub schemas: Vec<String>,
    /// The service's id of the user; absent in a POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The identity provider's id of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// The user's address.
    pub user_name: Pii<String>,
    /// The user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<Pii<String>>,
    /// Whether the user may log in.
    #[serde(default = "active")]
    pub active: bool,
    /// What the service says of the record; ignored in a POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<ScimMeta>,
}

/// What a SCIM service says of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScimMeta {
    /// `User`.
    pub resource_type: String,
    /// The record's URL.
    pub location: Url,
    /// The record's entity tag.
    pub version: String,
}

/// A SCIM error (RFC 7644, 3.12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScimError {
    /// [`SCHEMA_ERROR`].
    pub schemas: Vec<String>,
    /// The HTTP status, as a string.
    pub status: String,
    /// `uniqueness`, `invalidValue` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scim_type: Option<String>,
    /// The code in words.
    pub detail: String,
    /// Our stable code.
    pub code: Code,
}

fn active() -> bool {
    true
}
