//! The authorisation server of a cluster, and who may call what (SEC).
//!
//! Handlers name who may call them by an extractor: [`UserCaller`], [`AdminCaller`], [`ClusterCaller`]
//! or [`Caller`]. No token is ever logged or quoted.

mod http;
mod issue;
mod keyring;
mod keys;
mod replays;
#[cfg(test)]
mod tests;
mod tokens;
mod verifier;

use ::http::{HeaderMap, Uri, header, request};
use async_trait::async_trait;
use axum::Router;
use axum::extract::{FromRequest, FromRequestParts, OriginalUri, Request};
use fusion_protocol::auth::TYP_ACCESS;
use fusion_protocol::{ClusterName, Code, Problem, UserRef};
use fusion_runtime::{Host, http as runtime_http};
use serde::de::DeserializeOwned;

#[cfg(test)]
pub(crate) use issue::{admin_token, user_token};
pub use keyring::{Call, Keyring, digest};
pub use keys::SigningKey;
pub use verifier::Verifier;

use crate::reply::{self, Refusal};
use crate::{Cluster, ClusterConfig};

/// A user, by a token that holds here: of this cluster, or a guest from `home` (SEC-009).
#[derive(Clone, Debug)]
pub struct UserCaller {
    /// Who.
    pub user: UserRef,
    /// The cluster whose authorisation server vouches for them.
    pub home: ClusterName,
}

/// An admin of this cluster's org (PRO-003).
#[derive(Clone, Debug)]
pub struct AdminCaller {
    /// The account, for the audit log only.
    pub account: String,
}

/// Another cluster (or this one), by a call that it signed (SEC-004), with the call's JSON body.
#[derive(Clone, Debug)]
pub struct ClusterCaller<T> {
    /// Which.
    pub cluster: ClusterName,
    /// What it says. An empty body is JSON's `null`.
    pub body: T,
}

/// A user or a cluster, where both may call (MAP-008). The request's body is ignored.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A user.
    User(UserCaller),
    /// A cluster.
    Cluster(ClusterName),
}

/// Decides which tokens hold. One implementation is right; a faulty deployment has another.
#[async_trait]
pub trait Verify: Send + Sync + 'static {
    /// The user of an access token.
    async fn user(&self, cluster: &Cluster, token: &str) -> Result<UserCaller, Problem>;
    /// The admin of an access token.
    async fn admin(&self, cluster: &Cluster, token: &str) -> Result<AdminCaller, Problem>;
    /// The cluster that signed a call.
    async fn cluster(
        &self,
        cluster: &Cluster,
        token: &str,
        method: &str,
        url: &str,
        body: &[u8],
    ) -> Result<ClusterName, Problem>;
}

/// What the authorisation side of a cluster keeps in memory.
pub(crate) struct Memory {
    pub(crate) keyring: Keyring,
    proved: verifier::Proved,
}

impl Memory {
    pub(crate) fn new(
        host: &Host,
        http: &runtime_http::Client,
        config: &ClusterConfig,
        signing: &SigningKey,
    ) -> Self {
        let keyring = Keyring::new(host, http, &config.template).with_own(&config.name, &signing.jwk());
        Self { keyring, proved: verifier::Proved::default() }
    }
}

pub(crate) fn routes() -> Router<Cluster> {
    http::routes()
}

impl FromRequestParts<Cluster> for UserCaller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut request::Parts, cluster: &Cluster) -> Result<Self, Refusal> {
        Ok(cluster.verifier.user(cluster, bearer(&parts.headers)?).await?)
    }
}

impl FromRequestParts<Cluster> for AdminCaller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut request::Parts, cluster: &Cluster) -> Result<Self, Refusal> {
        Ok(cluster.verifier.admin(cluster, bearer(&parts.headers)?).await?)
    }
}

impl<T: DeserializeOwned> FromRequest<Cluster> for ClusterCaller<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, cluster: &Cluster) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let token = bearer(&parts.headers)?;
        let body = reply::read_body(body).await?;
        let (method, url) = (parts.method.as_str(), absolute(&parts)?);
        let caller = cluster.verifier.cluster(cluster, token, method, &url, &body).await?;
        let body = reply::parse(if body.is_empty() { b"null" } else { &body })?;
        Ok(Self { cluster: caller, body })
    }
}

impl FromRequest<Cluster> for Caller {
    type Rejection = Refusal;

    async fn from_request(request: Request, cluster: &Cluster) -> Result<Self, Refusal> {
        if tokens::Token::read(bearer(request.headers())?)?.typ() == TYP_ACCESS {
            let (mut parts, _) = request.into_parts();
            return UserCaller::from_request_parts(&mut parts, cluster).await.map(Self::User);
        }
        let caller = ClusterCaller::<serde::de::IgnoredAny>::from_request(request, cluster).await?;
        Ok(Self::Cluster(caller.cluster))
    }
}

/// The token of a request's `Authorization` header.
///
/// # Errors
/// `unauthorized` when there is none.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, token) = value.and_then(|value| value.split_once(' ')).ok_or(Code::Unauthorized)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(Code::Unauthorized.into()) }
}

/// The URL that the caller asked for, from the `Host` header and the path before any routing.
///
/// # Errors
/// `bad-request` without a `Host` header.
pub fn absolute(parts: &request::Parts) -> Result<String, Problem> {
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).ok_or(Code::BadRequest)?;
    let uri: &Uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(format!("https://{host}{path}"))
}
