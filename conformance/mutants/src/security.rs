//! Tokens gone wrong.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fusion_cluster::Cluster;
use fusion_cluster::auth::{AdminCaller, UserCaller, Verifier, Verify};
use fusion_deployment::Hooks;
use fusion_protocol::auth::{AccessClaims, issuer_cluster};
use fusion_protocol::{ClusterName, Code, Problem, UserRef};

use crate::Mutant;

/// SEC-003: a token that was meant for another cluster is good here, too.
pub(crate) const FOREIGN_TOKEN: Mutant = Mutant {
    name: "foreign-token-accepted",
    hooks: || Hooks { verifier: Some(Arc::new(AnyAudience)), ..Hooks::default() },
};

struct AnyAudience;

#[async_trait]
impl Verify for AnyAudience {
    async fn user(&self, cluster: &Cluster, token: &str) -> Result<UserCaller, Problem> {
        match Verifier.user(cluster, token).await {
            Err(problem) if problem.code == Code::WrongAudience => believed(cluster, token).ok_or(problem),
            judged => judged,
        }
    }

    async fn admin(&self, cluster: &Cluster, token: &str) -> Result<AdminCaller, Problem> {
        Verifier.admin(cluster, token).await
    }

    async fn cluster(
        &self,
        cluster: &Cluster,
        token: &str,
        method: &str,
        url: &str,
        body: &[u8],
    ) -> Result<ClusterName, Problem> {
        Verifier.cluster(cluster, token, method, url, body).await
    }
}

/// Whoever the token says it is.
fn believed(cluster: &Cluster, token: &str) -> Option<UserCaller> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: AccessClaims = serde_json::from_slice(&payload).ok()?;
    let home = issuer_cluster(&cluster.config.template, &claims.iss)?;
    Some(UserCaller {
        user: UserRef { user: claims.sub.parse().ok()?, incarnation: claims.incarnation? },
        home,
    })
}
