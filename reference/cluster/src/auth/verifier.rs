//! The right judge of tokens: who may speak for whom (SEC-003, SEC-009, SEC-010).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use fusion_protocol::auth::{self as wire, AccessClaims, Scope};
use fusion_protocol::{Address, ClusterName, Code, Problem, UserRef};
use sha2::{Digest as _, Sha256};

use super::keyring::Call;
use super::tokens::{self, Token};
use super::{AdminCaller, UserCaller, Verify};
use crate::{Cluster, moves, users};

/// How many tokens are remembered with their signature proved.
const PROVED_MAX: usize = 16 << 10;

/// The right judge of tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verifier;

/// Tokens whose signature has been proved, so that it is proved once. Everything else about them is
/// asked anew each time.
#[derive(Default)]
pub(crate) struct Proved(Mutex<ProvedTokens>);

#[derive(Default)]
struct ProvedTokens {
    tokens: BTreeMap<[u8; 32], Arc<Access>>,
    order: VecDeque<[u8; 32]>,
}

/// An access token that its issuer has signed for this cluster.
pub(super) struct Access {
    pub(super) issuer: ClusterName,
    pub(super) claims: AccessClaims,
}

#[async_trait]
impl Verify for Verifier {
    async fn user(&self, cluster: &Cluster, token: &str) -> Result<UserCaller, Problem> {
        let access = access(cluster, token).await?;
        let claims = &access.claims;
        let (Scope::User, Some(incarnation)) = (claims.scope, claims.incarnation) else {
            return Err(Code::Forbidden.into());
        };
        let user: Address = claims.sub.parse().map_err(|_| Code::Unauthorized)?;
        let user = UserRef { user, incarnation };
        if access.issuer == *cluster.name() {
            served(cluster, &user).await?;
        } else {
            vouched(cluster, &access.issuer, &user).await?;
        }
        Ok(UserCaller { user, home: access.issuer.clone() })
    }

    async fn admin(&self, cluster: &Cluster, token: &str) -> Result<AdminCaller, Problem> {
        let access = access(cluster, token).await?;
        if access.issuer != *cluster.name() {
            return Err(Code::WrongIssuer.into());
        }
        match access.claims.scope {
            Scope::Admin => Ok(AdminCaller { account: access.claims.sub.clone() }),
            Scope::User => Err(Code::Forbidden.into()),
        }
    }

    async fn cluster(
        &self,
        cluster: &Cluster,
        token: &str,
        method: &str,
        url: &str,
        body: &[u8],
    ) -> Result<ClusterName, Problem> {
        cluster.auth.keyring.caller(cluster.issuer(), token, Call { method, url, body }).await
    }
}

/// A token of any issuer of the federation, signed by it, for this cluster, good now.
pub(super) async fn access(cluster: &Cluster, token: &str) -> Result<Arc<Access>, Problem> {
    let mark: [u8; 32] = Sha256::digest(token).into();
    let now = cluster.host.clock.wall();
    if let Some(access) = cluster.auth.proved.find(&mark) {
        tokens::in_time(now, access.claims.iat, access.claims.exp)?;
        return Ok(access);
    }
    let token = Token::of_type(token, wire::TYP_ACCESS)?;
    let claims: AccessClaims = token.claims()?;
    let issuer = wire::issuer_cluster(&cluster.config.template, &claims.iss);
    let issuer = issuer.ok_or(Code::WrongIssuer)?;
    if claims.aud != cluster.issuer() {
        return Err(Code::WrongAudience.into());
    }
    tokens::in_time(now, claims.iat, claims.exp)?;
    cluster.auth.keyring.signed(&issuer, &token).await?;
    let access = Arc::new(Access { issuer, claims });
    cluster.auth.proved.keep(mark, &access);
    Ok(access)
}

/// Remembers a token that this cluster has just signed, if it is for itself: nobody need prove that again.
pub(super) fn made_here(cluster: &Cluster, token: &str, claims: AccessClaims) {
    if claims.aud == cluster.issuer() {
        let access = Access { issuer: cluster.name().clone(), claims };
        cluster.auth.proved.keep(Sha256::digest(token).into(), &Arc::new(access));
    }
}

/// A user of this cluster: still served here, still the same person, still active.
pub(super) async fn served(cluster: &Cluster, user: &UserRef) -> Result<(), Problem> {
    let row = users::served_here(cluster, &user.user).await?.value;
    let same = row.as_ref().is_some_and(|row| row.active && row.record.incarnation == user.incarnation);
    if same {
        return Ok(());
    }
    if row.is_none()
        && let Some(to) = moves::gone_to(cluster, &user.user).await?
    {
        return Err(Problem::new(Code::WrongCluster).with("clusters", [to]));
    }
    Err(Problem::new(Code::Unauthorized).detail("the account has ended"))
}

/// SEC-009: a guest, if our own resolution says that this issuer serves this very person. A consumer
/// issuer passes for a claimed domain only after the org's map said 404, which resolution has asked.
async fn vouched(cluster: &Cluster, issuer: &ClusterName, user: &UserRef) -> Result<(), Problem> {
    let speaks = |record: &fusion_protocol::map::UserRecord| {
        record.cluster == *issuer && record.incarnation == user.incarnation
    };
    if speaks(&home(users::resolve(cluster, &user.user).await)?) {
        return Ok(());
    }
    // What we remember may be older than the person: ask once more before refusing.
    if speaks(&home(users::resolve_again(cluster, &user.user).await)?) {
        return Ok(());
    }
    Err(Code::WrongIssuer.into())
}

/// An unknown user has no issuer; a resolution that cannot be completed stays one (503, never accept).
fn home(
    resolution: Result<fusion_protocol::map::Resolution, Problem>,
) -> Result<fusion_protocol::map::UserRecord, Problem> {
    resolution.map(|resolution| resolution.record).map_err(|problem| match problem.code {
        Code::UserUnknown => Code::WrongIssuer.into(),
        _ => problem,
    })
}

impl Proved {
    fn find(&self, mark: &[u8; 32]) -> Option<Arc<Access>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).tokens.get(mark).cloned()
    }

    fn keep(&self, mark: [u8; 32], access: &Arc<Access>) {
        let mut proved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while proved.order.len() >= PROVED_MAX {
            let Some(oldest) = proved.order.pop_front() else { break };
            proved.tokens.remove(&oldest);
        }
        if proved.tokens.insert(mark, access.clone()).is_none() {
            proved.order.push_back(mark);
        }
    }
}
