//! The authorisation server of a cluster, and who may call what (SEC).

use async_trait::async_trait;
use axum::Router;
use fusion_protocol::{ClusterName, Problem, UserRef};
use fusion_runtime::Host;

use crate::{Cluster, StartError};

/// The key that signs a cluster's tokens and calls.
pub struct SigningKey {}

impl SigningKey {
    /// Reads the key from the store, or makes one from the host's entropy and stores it.
    pub async fn load_or_make(host: &Host) -> Result<Self, StartError> {
        let _ = host;
        unimplemented!()
    }
}

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
    /// What it says.
    pub body: T,
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

/// The right judge of tokens.
pub struct Verifier;

#[async_trait]
impl Verify for Verifier {
    async fn user(&self, _: &Cluster, _: &str) -> Result<UserCaller, Problem> {
        unimplemented!()
    }
    async fn admin(&self, _: &Cluster, _: &str) -> Result<AdminCaller, Problem> {
        unimplemented!()
    }
    async fn cluster(
        &self,
        _: &Cluster,
        _: &str,
        _: &str,
        _: &str,
        _: &[u8],
    ) -> Result<ClusterName, Problem> {
        unimplemented!()
    }
}

impl axum::extract::FromRequestParts<Cluster> for UserCaller {
    type Rejection = crate::reply::Refusal;
    async fn from_request_parts(_: &mut http::request::Parts, _: &Cluster) -> Result<Self, Self::Rejection> {
        unimplemented!()
    }
}

impl axum::extract::FromRequestParts<Cluster> for AdminCaller {
    type Rejection = crate::reply::Refusal;
    async fn from_request_parts(_: &mut http::request::Parts, _: &Cluster) -> Result<Self, Self::Rejection> {
        unimplemented!()
    }
}

impl<T: serde::de::DeserializeOwned> axum::extract::FromRequest<Cluster> for ClusterCaller<T> {
    type Rejection = crate::reply::Refusal;
    async fn from_request(_: axum::extract::Request, _: &Cluster) -> Result<Self, Self::Rejection> {
        unimplemented!()
    }
}

pub(crate) fn routes() -> Router<Cluster> {
    Router::new()
}
