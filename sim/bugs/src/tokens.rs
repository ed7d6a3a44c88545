//! Who is believed, and who somebody is.

use std::sync::Arc;

use async_trait::async_trait;
use fusion_cluster::Cluster;
use fusion_cluster::auth::{AdminCaller, UserCaller, Verifier, Verify};
use fusion_deployment::Hooks;
use fusion_mutants::wrap;
use fusion_protocol::auth::{ClusterClaims, issuer_cluster};
use fusion_protocol::{ClusterName, Code, Problem, UserRef};
use fusion_sim::plant::Plant;

use crate::disk::{Forgetful, Misreading, kept_by};

pub(crate) const ACCEPTS_WHOM_IT_CANNOT_RESOLVE: Plant = Plant {
    name: "accepts-whom-it-cannot-resolve",
    requirement: "SEC-009",
    wrong: "a guest whose cluster cannot be asked is believed, so that an outage locks nobody out: whoever \
            can make an outage can be anybody",
    held_out: false,
    hooks: || believing(Lenient::Unresolved),
};

pub(crate) const NO_LEEWAY: Plant = Plant {
    name: "no-leeway-for-clocks",
    requirement: "SEC-004",
    wrong: "a call that was signed more than a second in the future is refused: a cluster whose clock is \
            behind hears nothing from the others",
    held_out: false,
    hooks: || believing(Lenient::NotAtAll),
};

pub(crate) const PEER_KEYS_FORGOTTEN: Plant = Plant {
    name: "peer-keys-in-memory-only",
    requirement: "OPS-001",
    wrong: "the keys of peers are cached in memory only: after a restart nobody is believed whose cluster \
            does not answer at that moment",
    held_out: false,
    hooks: || kept_by(|| Forgetful::of(&["jwks"])),
};

pub(crate) const RIGHTS_BY_ADDRESS: Plant = Plant {
    name: "rights-by-address-only",
    requirement: "NAM-004",
    wrong: "who is in a conversation is decided by the address: a new person at an old address reads what \
            the old one could",
    held_out: false,
    hooks: || {
        kept_by(|| Misreading {
            concept: "conversation",
            edit: |conversation| {
                for member in conversation["participants"].as_array_mut().into_iter().flatten() {
                    if let Some(member) = member.as_object_mut() {
                        member.remove("incarnation");
                    }
                }
            },
        })
    },
};

pub(crate) const SIGNING_KEY_ANEW: Plant = Plant {
    name: "signing-key-made-anew-at-restart",
    requirement: "OPS-003",
    wrong: "a cluster makes itself a new key at each start: after a crash nobody believes what it signs \
            until all have forgotten the old one, and its users have to log in anew",
    held_out: false,
    hooks: || kept_by(|| Forgetful::of(&["signing-key"])),
};

/// Where a judge of tokens is wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lenient {
    /// About who cannot be asked for.
    Unresolved,
    /// About clocks that differ.
    NotAtAll,
}

fn believing(lenient: Lenient) -> Hooks {
    Hooks { verifier: Some(Arc::new(lenient)), ..Hooks::default() }
}

#[async_trait]
impl Verify for Lenient {
    async fn user(&self, cluster: &Cluster, token: &str) -> Result<UserCaller, Problem> {
        match Verifier.user(cluster, token).await {
            Err(problem) if *self == Self::Unresolved && problem.code == Code::ResolutionIncomplete => {
                as_it_says(cluster, token).ok_or(problem)
            }
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
        let claims: Option<ClusterClaims> = wrap::payload(token);
        let now = cluster.host.clock.wall().seconds();
        if *self == Self::NotAtAll && claims.is_some_and(|claims| claims.iat > now + 1) {
            return Err(Code::TokenExpired.into());
        }
        Verifier.cluster(cluster, token, method, url, body).await
    }
}

/// Whoever the token says it is.
fn as_it_says(cluster: &Cluster, token: &str) -> Option<UserCaller> {
    let claims = wrap::claims(token)?;
    let home = issuer_cluster(&cluster.config.template, &claims.iss)?;
    Some(UserCaller {
        user: UserRef { user: claims.sub.parse().ok()?, incarnation: claims.incarnation? },
        home,
    })
}
