//! What the token endpoint decides: assertions in, tokens out; tokens in, tokens for elsewhere out.

use fusion_protocol::auth::{
    self as wire, ACCESS_TOKEN_SECONDS, AccessClaims, AssertionClaims, EXCHANGED_TOKEN_SECONDS, Scope,
    TOKEN_TYPE_ACCESS, TYP_ACCESS, TYP_CLUSTER, TokenAnswer, TokenRequest,
};
use fusion_protocol::{Address, ClusterName, Code, Incarnation, Problem, UserRef, limits};
use jsonwebtoken::DecodingKey;

use super::tokens::{self, Token};
use super::verifier;
use crate::{Cluster, moves, users};

/// The longest life of an assertion, in seconds: it is handed over at once.
const ASSERTION_SECONDS_MAX: u64 = 3_600;

/// SEC-002: an assertion of one of the org's identity providers becomes a token for this cluster.
pub(super) async fn by_assertion(cluster: &Cluster, request: &TokenRequest) -> Result<TokenAnswer, Problem> {
    let assertion = request.assertion.as_deref().ok_or_else(|| incomplete("assertion"))?;
    let claims = asserted(cluster, assertion)?;
    let scope = claims.scope.unwrap_or(Scope::User);
    let (sub, incarnation) = match scope {
        Scope::User => {
            let user = local_user(cluster, &claims.sub).await?;
            (user.user.as_str().to_owned(), Some(user.incarnation))
        }
        Scope::Admin if claims.sub.is_empty() || claims.sub.len() > limits::ADDRESS_MAX => {
            return Err(invalid_grant("the subject is no account name"));
        }
        Scope::Admin => (claims.sub, None),
    };
    let minted = Minted {
        sub,
        incarnation,
        scope,
        audience: cluster.issuer().to_owned(),
        client_id: claims.iss,
        seconds: ACCESS_TOKEN_SECONDS,
    };
    Ok(mint(cluster, minted, None))
}

/// SEC-003: a user's own token becomes a short one for another cluster. Never for a foreign token, and
/// never longer than the token it is made from, so that an exchange is no refresh.
pub(super) async fn by_exchange(cluster: &Cluster, request: &TokenRequest) -> Result<TokenAnswer, Problem> {
    let token = request.subject_token.as_deref().ok_or_else(|| incomplete("subject_token"))?;
    if request.subject_token_type.as_deref() != Some(TOKEN_TYPE_ACCESS) {
        return Err(incomplete("subject_token_type"));
    }
    let audience = resource(cluster, request.resource.as_deref())?;
    let access = verifier::access(cluster, token).await.map_err(in_a_grant)?;
    let claims = &access.claims;
    let (Scope::User, Some(incarnation), true) =
        (claims.scope, claims.incarnation, access.issuer == *cluster.name())
    else {
        return Err(invalid_grant("only a token that this server gave to a user can be exchanged"));
    };
    let user: Address = claims.sub.parse().map_err(|_| invalid_grant("the subject is no address"))?;
    verifier::served(cluster, &UserRef { user, incarnation }).await.map_err(in_a_grant)?;
    let left = claims.exp.saturating_sub(cluster.host.clock.wall().seconds());
    let minted = Minted {
        sub: claims.sub.clone(),
        incarnation: Some(incarnation),
        scope: Scope::User,
        audience: wire::issuer(&cluster.config.template, &audience),
        client_id: claims.client_id.clone(),
        seconds: EXCHANGED_TOKEN_SECONDS.min(left),
    };
    Ok(mint(cluster, minted, Some(TOKEN_TYPE_ACCESS)))
}

/// An access token for a user of this cluster, as an exchange for `audience` would give it.
#[cfg(test)]
pub(crate) fn user_token(cluster: &Cluster, user: &UserRef, audience: &ClusterName) -> String {
    let minted = Minted {
        sub: user.user.as_str().to_owned(),
        incarnation: Some(user.incarnation),
        scope: Scope::User,
        audience: wire::issuer(&cluster.config.template, audience),
        client_id: "test".to_owned(),
        seconds: ACCESS_TOKEN_SECONDS,
    };
    mint(cluster, minted, None).access_token
}

/// An admin's token of this cluster.
#[cfg(test)]
pub(crate) fn admin_token(cluster: &Cluster, account: &str) -> String {
    let minted = Minted {
        sub: account.to_owned(),
        incarnation: None,
        scope: Scope::Admin,
        audience: cluster.issuer().to_owned(),
        client_id: "test".to_owned(),
        seconds: ACCESS_TOKEN_SECONDS,
    };
    mint(cluster, minted, None).access_token
}

struct Minted {
    sub: String,
    incarnation: Option<Incarnation>,
    scope: Scope,
    audience: String,
    client_id: String,
    seconds: u64,
}

fn mint(cluster: &Cluster, minted: Minted, issued_token_type: Option<&str>) -> TokenAnswer {
    let now = cluster.host.clock.wall().seconds();
    let scope = minted.scope;
    let claims = AccessClaims {
        iss: cluster.issuer().to_owned(),
        sub: minted.sub,
        aud: minted.audience,
        exp: now + minted.seconds,
        iat: now,
        jti: cluster.host.entropy.uuid().to_string(),
        client_id: minted.client_id,
        scope,
        incarnation: minted.incarnation,
    };
    let access_token = cluster.signing.sign(TYP_ACCESS, &claims);
    verifier::made_here(cluster, &access_token, claims);
    TokenAnswer {
        access_token,
        token_type: "Bearer".to_owned(),
        expires_in: minted.seconds,
        issued_token_type: issued_token_type.map(str::to_owned),
        scope,
    }
}

/// The claims of an assertion that a configured identity provider made for this server, good now.
fn asserted(cluster: &Cluster, assertion: &str) -> Result<AssertionClaims, Problem> {
    let assertion = Token::read(assertion).map_err(in_a_grant)?;
    if [TYP_ACCESS, TYP_CLUSTER].contains(&assertion.typ()) {
        return Err(invalid_grant("a token is no assertion"));
    }
    let claims: AssertionClaims = assertion.claims().map_err(in_a_grant)?;
    let provider = cluster.config.identity_providers.iter().find(|provider| provider.issuer == claims.iss);
    let provider = provider.ok_or_else(|| invalid_grant("the assertion's issuer is not known here"))?;
    assertion.signed_by(&DecodingKey::from_ed_der(&provider.public_key)).map_err(in_a_grant)?;
    if claims.aud != cluster.issuer() {
        return Err(invalid_grant("the assertion is for another server"));
    }
    tokens::in_time(cluster.host.clock.wall(), claims.iat, claims.exp).map_err(in_a_grant)?;
    if claims.exp.saturating_sub(claims.iat) > ASSERTION_SECONDS_MAX {
        return Err(invalid_grant("the assertion is good for too long"));
    }
    Ok(claims)
}

async fn local_user(cluster: &Cluster, sub: &str) -> Result<UserRef, Problem> {
    let user: Address = sub.parse().map_err(|_| invalid_grant("the subject is no address"))?;
    let row = users::served_here(cluster, &user).await?.value;
    if row.is_none()
        && let Some(to) = moves::gone_to(cluster, &user).await?
    {
        return Err(Problem::new(Code::WrongCluster).with("clusters", [to]));
    }
    let row = row
        .filter(|row| row.active)
        .ok_or_else(|| invalid_grant("the subject has no active account here"))?;
    Ok(UserRef { user, incarnation: row.record.incarnation })
}

/// NAM-005: a `resource` is the issuer URL of a cluster of this federation.
fn resource(cluster: &Cluster, resource: Option<&str>) -> Result<ClusterName, Problem> {
    let resource = resource.ok_or_else(|| incomplete("resource"))?;
    wire::issuer_cluster(&cluster.config.template, resource).ok_or_else(|| {
        invalid_grant("the resource is no cluster of this federation").with("error", "invalid_target")
    })
}

/// Inside a grant, a token that does not hold is an invalid grant; a 503 stays one, and so does the hint where
/// the user is served now (MAP-007).
fn in_a_grant(problem: Problem) -> Problem {
    if problem.status >= 500 || problem.code == Code::WrongCluster {
        return problem;
    }
    invalid_grant(problem.detail.as_deref().unwrap_or(&problem.title))
}

fn invalid_grant(detail: &str) -> Problem {
    Problem::new(Code::InvalidGrant).detail(detail)
}

fn incomplete(parameter: &str) -> Problem {
    Problem::new(Code::BadRequest).detail(format!("the parameter {parameter} is needed"))
}
