//! Tokens gone wrong: who is believed, and what is issued.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use axum::response::Response;
use fusion_cluster::Cluster;
use fusion_cluster::auth::{AdminCaller, SigningKey, UserCaller, Verifier, Verify};
use fusion_deployment::Hooks;
use fusion_protocol::auth::{
    AccessClaims, AssertionClaims, ClusterClaims, Scope, TOKEN_TYPE_ACCESS, TYP_ACCESS, TokenAnswer,
    TokenRequest, issuer_cluster,
};
use fusion_protocol::{ClusterName, Code, Incarnation, Problem, UserRef};
use http::Method;
use serde_json::Value;

use crate::Mutant;
use crate::wrap::{self, Call, claims, json};

/// SEC-003: a token that was meant for another cluster is good here, too.
pub(crate) const FOREIGN_TOKEN: Mutant =
    Mutant { name: "foreign-token-accepted", hooks: || believing(Belief::AnyAudience) };

/// SEC-003: a token of an own user is good here, whatever cluster it was meant for.
pub(crate) const OWN_USERS_ANYHOW: Mutant =
    Mutant { name: "own-users-token-from-elsewhere", hooks: || believing(Belief::OwnUsers) };

/// PRO-003: an admin of any org is an admin here.
pub(crate) const FOREIGN_ADMIN: Mutant =
    Mutant { name: "foreign-admin-accepted", hooks: || believing(Belief::AnyAdmin) };

/// SEC-010: a user is an admin.
pub(crate) const USER_AS_ADMIN: Mutant =
    Mutant { name: "user-is-admin", hooks: || believing(Belief::UserAsAdmin) };

/// SEC-005: whoever writes to an index is believed to be the home of what is written.
pub(crate) const FOREIGN_POINTER: Mutant =
    Mutant { name: "foreign-pointer-accepted", hooks: || believing(Belief::AnyCluster) };

/// SEC-004: what a call was signed for is not looked at.
pub(crate) const ANY_CALL: Mutant =
    Mutant { name: "call-used-for-another", hooks: || believing(Belief::AnyCall) };

/// SEC-005: whoever calls is taken for the home of what it calls about.
pub(crate) const ANY_HOME: Mutant =
    Mutant { name: "anybody-speaks-for-the-home", hooks: || believing(Belief::AnyHome) };

/// RDV-002: a call that was signed in the future, by this cluster's own clock, is refused, and has to wait.
pub(crate) const OWN_CLOCK_ONLY: Mutant =
    Mutant { name: "own-clock-only", hooks: || believing(Belief::OwnClock) };

/// OPS-003: a cluster makes a new key for itself whenever it starts.
pub(crate) const KEY_NOT_KEPT: Mutant = Mutant {
    name: "own-key-not-kept",
    hooks: || wrap::stores(|store| wrap::not_kept(store, &["signing-key"])),
};

/// OPS-001: a cluster that starts has to ask its peers for their keys again.
pub(crate) const PEER_KEYS_NOT_KEPT: Mutant = Mutant {
    name: "keys-of-peers-not-kept",
    hooks: || wrap::stores(|store| wrap::not_kept(store, &["jwks"])),
};

/// SEC-003: whoever was let in once is not let in again, though what they got has run out.
pub(crate) const LET_IN_ONCE: Mutant = Mutant { name: "let-in-once", hooks: let_in_once };

/// SEC-009: whatever a cluster signs about a user is believed, whoever serves the user.
pub(crate) const ANY_ISSUER: Mutant =
    Mutant { name: "any-issuer-believed", hooks: || believing(Belief::AnyIssuer) };

/// SEC-002: the signature of an assertion is not looked at.
pub(crate) const FORGED_ASSERTION: Mutant = Mutant {
    name: "forged-assertion-accepted",
    hooks: || wrap::calls(is_token, |call| Box::pin(without_signature(call))),
};

/// SEC-003: a token got by exchange is exchanged again.
pub(crate) const EXCHANGED_AGAIN: Mutant = Mutant {
    name: "second-exchange-accepted",
    hooks: || wrap::calls(is_token, |call| Box::pin(async move { exchanged(call, genuine).await })),
};

/// NAM-005: a host that begins like one of the federation counts as one.
pub(crate) const LOOK_ALIKE: Mutant = Mutant {
    name: "look-alike-trusted",
    hooks: || {
        wrap::calls(is_token, |call| {
            Box::pin(async move { exchanged(call, |resource| !genuine(resource)).await })
        })
    },
};

/// SEC-002: the server's description names another server's keys.
pub(crate) const FOREIGN_KEYS: Mutant = Mutant {
    name: "metadata-names-foreign-keys",
    hooks: || {
        wrap::answers(
            |_, path| path.ends_with("/oauth-authorization-server"),
            |call, answer| {
                let other = if call.cluster() == "b" { "a" } else { "b" };
                let keys = answer["jwks_uri"].as_str().unwrap_or_default();
                let foreign = keys.replacen(&format!("//{}", call.cluster()), &format!("//{other}"), 1);
                answer["jwks_uri"] = foreign.into();
            },
        )
    },
};

/// SEC-002: a private org's cluster sends whoever logs in for the first time to the consumer org.
pub(crate) const SENT_AWAY: Mutant = Mutant { name: "log-in-sent-away", hooks: sent_away };

/// SEC-003: a token got by exchange is good for a day.
pub(crate) const LONG_EXCHANGE: Mutant = Mutant {
    name: "exchanged-token-lives-long",
    hooks: || {
        wrap::answers(is_token, |_, answer| {
            if answer.get("issued_token_type").is_some() {
                answer["expires_in"] = 86_400.into();
            }
        })
    },
};

/// What is believed wrongly.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Belief {
    AnyAudience,
    OwnUsers,
    AnyAdmin,
    UserAsAdmin,
    AnyCluster,
    AnyCall,
    AnyHome,
    AnyIssuer,
    OwnClock,
}

struct Believer(Belief);

fn believing(belief: Belief) -> Hooks {
    Hooks { verifier: Some(Arc::new(Believer(belief))), ..Hooks::default() }
}

#[async_trait]
impl Verify for Believer {
    async fn user(&self, cluster: &Cluster, token: &str) -> Result<UserCaller, Problem> {
        match Verifier.user(cluster, token).await {
            Err(problem) if self.0 == Belief::AnyAudience && problem.code == Code::WrongAudience => {
                believed(cluster, token).ok_or(problem)
            }
            Err(problem) if self.0 == Belief::OwnUsers && problem.code == Code::WrongAudience => {
                believed(cluster, token).filter(|caller| caller.home == *cluster.name()).ok_or(problem)
            }
            Err(problem) if self.0 == Belief::AnyIssuer && problem.code == Code::WrongIssuer => {
                believed(cluster, token).ok_or(problem)
            }
            judged => judged,
        }
    }

    async fn admin(&self, cluster: &Cluster, token: &str) -> Result<AdminCaller, Problem> {
        let judged = Verifier.admin(cluster, token).await;
        let (Err(problem), Some(claims)) = (&judged, claims(token)) else { return judged };
        let own = problem.code != Code::WrongAudience;
        let fooled = match self.0 {
            Belief::AnyAdmin => claims.scope == Scope::Admin,
            Belief::UserAsAdmin => claims.scope == Scope::User && own,
            _ => false,
        };
        if fooled { Ok(AdminCaller { account: claims.sub }) } else { judged }
    }

    async fn cluster(
        &self,
        cluster: &Cluster,
        token: &str,
        method: &str,
        url: &str,
        body: &[u8],
    ) -> Result<ClusterName, Problem> {
        let judged = Verifier.cluster(cluster, token, method, url, body).await;
        match judged {
            Err(problem) if self.0 == Belief::AnyCluster => home_of(cluster, body).ok_or(problem),
            Err(problem) if self.0 == Belief::AnyCall && problem.code == Code::Unauthorized => {
                caller_of(cluster, token).ok_or(problem)
            }
            Ok(_) if self.0 == Belief::OwnClock && is_of_tomorrow(cluster, token) => {
                Err(Code::TokenExpired.into())
            }
            Ok(caller) if self.0 == Belief::AnyHome => Ok(home_of(cluster, body).unwrap_or(caller)),
            judged => judged,
        }
    }
}

/// Whoever the token says it is.
fn believed(cluster: &Cluster, token: &str) -> Option<UserCaller> {
    let claims = claims(token)?;
    let home = issuer_cluster(&cluster.config.template, &claims.iss)?;
    Some(UserCaller {
        user: UserRef { user: claims.sub.parse().ok()?, incarnation: claims.incarnation? },
        home,
    })
}

/// Whichever cluster the token says it is of.
fn caller_of(cluster: &Cluster, token: &str) -> Option<ClusterName> {
    let claims: ClusterClaims = wrap::payload(token)?;
    issuer_cluster(&cluster.config.template, &claims.iss)
}

/// Whether a cluster's own clock has not come to when a call was signed.
fn is_of_tomorrow(cluster: &Cluster, token: &str) -> bool {
    let now = cluster.host.clock.wall().seconds();
    wrap::payload::<ClusterClaims>(token).is_some_and(|claims| claims.iat > now)
}

/// The cluster in which the first row's object lives.
fn home_of(cluster: &Cluster, body: &[u8]) -> Option<ClusterName> {
    let batch: Value = serde_json::from_slice(body).ok()?;
    let row = batch.get("rows")?.get(0)?;
    let url = row.get("url").or_else(|| row.get("entry")?.get("locusUrl"))?;
    let url = url.as_str()?.parse().ok()?;
    Some(cluster.config.template.locate(&url).ok()?.cluster)
}

fn is_token(method: &Method, path: &str) -> bool {
    method == Method::POST && path.ends_with("/v1/token")
}

fn genuine(resource: &str) -> bool {
    let host = resource.strip_prefix("https://").unwrap_or("");
    host.split_once('.')
        .is_some_and(|(name, rest)| name.len() == "a-auth".len() && rest == "provider.example")
}

fn sent_away() -> Hooks {
    let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    wrap::calls(is_token, move |call| {
        let seen = seen.clone();
        Box::pin(async move {
            let assertion = request_of(&call).and_then(|request| request.assertion);
            let claims = assertion.and_then(|assertion| wrap::payload::<AssertionClaims>(&assertion));
            let user = claims.filter(|claims| call.cluster() != "c" && claims.scope != Some(Scope::Admin));
            let first = user
                .is_some_and(|claims| seen.lock().unwrap_or_else(PoisonError::into_inner).insert(claims.sub));
            match first {
                true => wrap::refusal_of(&Problem::new(Code::WrongCluster).with("clusters", ["c"])),
                false => call.play().await,
            }
        })
    })
}

fn let_in_once() -> Hooks {
    let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    wrap::calls(is_token, move |call| {
        let seen = seen.clone();
        Box::pin(async move {
            let assertion = request_of(&call).and_then(|request| request.assertion);
            let claims = assertion.and_then(|assertion| wrap::payload::<AssertionClaims>(&assertion));
            let user = claims.filter(|claims| claims.scope != Some(Scope::Admin));
            let again = user.is_some_and(|claims| {
                !seen.lock().unwrap_or_else(PoisonError::into_inner).insert(claims.sub)
            });
            match again {
                true => wrap::refusal(Code::InvalidGrant),
                false => call.play().await,
            }
        })
    })
}

fn request_of(call: &Call) -> Option<TokenRequest> {
    let text = std::str::from_utf8(&call.body).ok()?;
    let mut form: BTreeMap<String, String> =
        fusion_protocol::Url::parse(&format!("https://form.example/?{text}"))
            .ok()?
            .query_pairs()
            .into_owned()
            .collect();
    Some(TokenRequest {
        grant_type: form.remove("grant_type")?,
        assertion: form.remove("assertion"),
        subject_token: form.remove("subject_token"),
        subject_token_type: form.remove("subject_token_type"),
        resource: form.remove("resource"),
    })
}

/// What is refused because of its signature is believed.
async fn without_signature(call: Call) -> Response {
    let response = call.play().await;
    let assertion = request_of(&call).and_then(|request| request.assertion);
    let read = |assertion: String| {
        use base64::Engine as _;
        let payload = assertion.split('.').nth(1)?.to_owned();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
        serde_json::from_slice::<AssertionClaims>(&bytes).ok()
    };
    let asserted = assertion.and_then(read).filter(|_| !response.status().is_success());
    match asserted {
        Some(asserted) => {
            let own = format!("https://{}", call.authority());
            let scope = asserted.scope.unwrap_or(Scope::User);
            minted(&call, asserted.sub, own, scope, None).await.unwrap_or(response)
        }
        None => response,
    }
}

/// A refused exchange for a `resource` that pleases is granted after all.
async fn exchanged(call: Call, pleases: fn(&str) -> bool) -> Response {
    let response = call.play().await;
    let request = request_of(&call).filter(|_| !response.status().is_success());
    let Some((token, resource)) = request.and_then(|it| Some((claims(&it.subject_token?)?, it.resource?)))
    else {
        return response;
    };
    if !pleases(&resource) {
        return response;
    }
    minted(&call, token.sub, resource, token.scope, token.incarnation).await.unwrap_or(response)
}

/// A token that this server signs.
async fn minted(
    call: &Call,
    sub: String,
    aud: String,
    scope: Scope,
    incarnation: Option<Incarnation>,
) -> Option<Response> {
    let now = call.host.clock.wall().seconds();
    let signing = SigningKey::load_or_make(&call.host).await.ok()?;
    let claims = AccessClaims {
        iss: format!("https://{}", call.authority()),
        sub,
        aud,
        exp: now + 600,
        iat: now,
        jti: call.host.entropy.uuid().to_string(),
        client_id: "anybody".to_owned(),
        scope,
        incarnation,
    };
    Some(json(&TokenAnswer {
        access_token: signing.sign(TYP_ACCESS, &claims),
        token_type: "Bearer".to_owned(),
        expires_in: 600,
        issued_token_type: Some(TOKEN_TYPE_ACCESS.to_owned()),
        scope,
    }))
}
