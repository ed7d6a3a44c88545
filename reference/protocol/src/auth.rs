//! Tokens: what the authorisation server of a cluster is asked and answers, and what tokens say (SEC).
//!
//! | call | answer |
//! |---|---|
//! | `GET https://{c}-auth.{provider}/.well-known/oauth-authorization-server` | [`Metadata`] (RFC 8414) |
//! | `GET https://{c}-auth.{provider}/v1/jwks` | [`Jwks`] (RFC 7517) |
//! | `POST https://{c}-auth.{provider}/v1/token` (form) | [`TokenAnswer`] (RFC 6749, 7523, 8693) |
//!
//! An issuer is the URL `https://{c}-auth.{provider}` of its authorisation server, without a final
//! slash; an audience is the issuer URL of the cluster that the token is good for.

use serde::{Deserialize, Serialize};

use crate::{ClusterName, Incarnation, Service, Url, UrlTemplate};

/// `grant_type` of a log-in with an assertion of the org's identity provider (RFC 7523).
pub const GRANT_ASSERTION: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// `grant_type` of an exchange for a token of another cluster (RFC 8693).
pub const GRANT_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// `subject_token_type` and `issued_token_type` of an exchange.
pub const TOKEN_TYPE_ACCESS: &str = "urn:ietf:params:oauth:token-type:access_token";
/// `typ` of an access token (RFC 9068).
pub const TYP_ACCESS: &str = "at+jwt";
/// `typ` of a cluster's call to another (SEC-004).
pub const TYP_CLUSTER: &str = "sf-cluster+jwt";
/// How long a cluster's call to another is good, in seconds (SEC-004).
pub const CLUSTER_TOKEN_SECONDS: u64 = 60;
/// How long a user's token is good, in seconds.
pub const ACCESS_TOKEN_SECONDS: u64 = 3_600;
/// How long an exchanged token is good, in seconds (SEC-003).
pub const EXCHANGED_TOKEN_SECONDS: u64 = 600;

/// What a token may be used for (SEC-010).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// A user's own things and the objects that list the user.
    User,
    /// Provisioning in one cluster (PRO-003).
    Admin,
}

/// The claims of an access token (RFC 9068).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    /// The issuing authorisation server.
    pub iss: String,
    /// The user's address, or the admin's account name.
    pub sub: String,
    /// The issuer URL of the one cluster that the token is good for (SEC-003).
    pub aud: String,
    /// When it ends, in seconds since the epoch.
    pub exp: u64,
    /// When it was issued.
    pub iat: u64,
    /// Its own id.
    pub jti: String,
    /// Who asked for it.
    pub client_id: String,
    /// What it may be used for.
    pub scope: Scope,
    /// The user's incarnation; an admin has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
}

/// The claims of a cluster's call to another cluster (SEC-004).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterClaims {
    /// The calling cluster's issuer URL.
    pub iss: String,
    /// The called cluster's issuer URL, or the URL of the provider's host.
    pub aud: String,
    /// When it ends: at most [`CLUSTER_TOKEN_SECONDS`] after `iat`.
    pub exp: u64,
    /// When it was signed.
    pub iat: u64,
    /// Its own id; seen twice from two places, it is refused.
    pub jti: String,
    /// The HTTP method it is bound to.
    pub htm: String,
    /// The URL it is bound to.
    pub htu: String,
    /// Base64url of the SHA-256 of the body it is bound to.
    pub digest: String,
}

/// The claims of an assertion by an org's identity provider (RFC 7523).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssertionClaims {
    /// The identity provider.
    pub iss: String,
    /// The user's address, or the admin's account name.
    pub sub: String,
    /// The issuer URL of the authorisation server that it is meant for.
    pub aud: String,
    /// When it ends.
    pub exp: u64,
    /// When it was made.
    pub iat: u64,
    /// Its own id.
    pub jti: String,
    /// What it vouches for; [`Scope::User`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
}

/// What `POST /v1/token` is sent, as a form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// [`GRANT_ASSERTION`] or [`GRANT_EXCHANGE`].
    pub grant_type: String,
    /// The assertion, for [`GRANT_ASSERTION`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<String>,
    /// The token to exchange, for [`GRANT_EXCHANGE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_token: Option<String>,
    /// [`TOKEN_TYPE_ACCESS`], for [`GRANT_EXCHANGE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_token_type: Option<String>,
    /// The issuer URL of the cluster that the new token is for, for [`GRANT_EXCHANGE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

/// What `POST /v1/token` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// The token.
    pub access_token: String,
    /// `Bearer`.
    pub token_type: String,
    /// Seconds until it ends.
    pub expires_in: u64,
    /// [`TOKEN_TYPE_ACCESS`] after an exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_token_type: Option<String>,
    /// What it may be used for.
    pub scope: Scope,
}

/// What an authorisation server says of itself (RFC 8414).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Its issuer URL.
    pub issuer: String,
    /// Where tokens are asked for.
    pub token_endpoint: Url,
    /// Where its keys are.
    pub jwks_uri: Url,
    /// The grants it serves.
    pub grant_types_supported: Vec<String>,
    /// Required by RFC 8414; none, as there is no authorisation endpoint.
    pub response_types_supported: Vec<String>,
}

/// Keys (RFC 7517).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwks {
    /// The keys.
    pub keys: Vec<Jwk>,
}

/// An Ed25519 public key (RFC 8037).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// `EdDSA`.
    pub alg: String,
    /// `sig`.
    #[serde(rename = "use")]
    pub usage: String,
    /// The key's id.
    pub kid: String,
    /// The key, base64url.
    pub x: String,
}

impl Jwk {
    /// The JWK of a raw Ed25519 public key, base64url-encoded in `x`.
    #[must_use]
    pub fn ed25519(kid: String, x: String) -> Self {
        Self { kty: "OKP".into(), crv: "Ed25519".into(), alg: "EdDSA".into(), usage: "sig".into(), kid, x }
    }
}

/// The issuer URL of a cluster.
#[must_use]
pub fn issuer(template: &UrlTemplate, cluster: &ClusterName) -> String {
    template.url(cluster, Service::Auth, "").as_str().trim_end_matches('/').to_owned()
}

/// The cluster whose issuer URL this is, if it is one of this federation (NAM-005).
#[must_use]
pub fn issuer_cluster(template: &UrlTemplate, issuer: &str) -> Option<ClusterName> {
    let located = template.locate(&Url::parse(issuer).ok()?).ok()?;
    (located.service == Service::Auth && located.path == "/").then_some(located.cluster)
}
