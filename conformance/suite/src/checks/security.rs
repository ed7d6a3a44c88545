//! Identity and authority (SEC).

use fusion_protocol::auth::{
    AccessClaims, AssertionClaims, EXCHANGED_TOKEN_SECONDS, GRANT_ASSERTION, Jwks, Metadata, Scope,
    TYP_ACCESS, issuer,
};
use fusion_protocol::conversation::Act;
use fusion_protocol::index::IndexEntry;
use fusion_protocol::{ClusterName, Code, Service, Url, limits};
use http::Method;
use serde_json::json;

use crate::check::{Check, Checked, Need, Stop};
use crate::device::{Ask, Device, exchange_form};
use crate::jws::{self, SigningKey};
use crate::stage::{Judged as _, Stage};
use crate::target;

pub(super) const CHECKS: &[Check] = &[
    Check::new("SEC-002.own-server", &[Need::Cluster], |stage| Box::pin(own_server(stage))).users_only(),
    Check::new("SEC-002.forged-assertion", &[Need::Cluster, Need::Keys], |stage| {
        Box::pin(forged_assertion(stage))
    }),
    Check::new("SEC-003.one-audience", &[Need::TwoOrgs], |stage| Box::pin(one_audience(stage))),
    Check::new("SEC-003.no-second-exchange", &[Need::TwoOrgs], |stage| Box::pin(no_second_exchange(stage)))
        .users_only(),
    Check::new("SEC-005.foreign-pointer", &[Need::TwoOrgs], |stage| Box::pin(foreign_pointer(stage))),
    Check::new("SEC-006.participants-only", &[Need::TwoOrgs], |stage| Box::pin(participants_only(stage))),
    Check::new("SEC-006.leave-takes-effect", &[Need::TwoOrgs], |stage| Box::pin(leave_takes_effect(stage))),
    Check::new("SEC-007.limits", &[Need::Cluster], |stage| Box::pin(limits_hold(stage))),
    Check::new("SEC-010.own-things-only", &[Need::Cluster], |stage| Box::pin(own_things_only(stage))),
];

async fn own_server(stage: &Stage) -> Checked {
    let here = stage.here()?;
    let template = &stage.target().template;
    let (name, auth) = (issuer(template, &here), |path: &str| template.url(&here, Service::Auth, path));
    let alice = stage.user("alice", &here).await?;

    let ask = Ask::new(Method::GET, auth("/.well-known/oauth-authorization-server"));
    let reply = alice.send(&ask).await.and_then(|reply| reply.json());
    let metadata: Metadata = reply.must(stage, "no-metadata")?;
    stage.require(metadata.issuer == name, "wrong-issuer", format!("the issuer is {name}"))?;
    for url in [&metadata.token_endpoint, &metadata.jwks_uri] {
        let own = stage.target().cluster_of(url).as_ref() == Some(&here);
        stage.require(own, "foreign-endpoint", format!("{url} is of the cluster itself"))?;
    }
    let grant = metadata.grant_types_supported.iter().any(|grant| grant == GRANT_ASSERTION);
    stage.require(grant, "no-assertion-grant", "assertions are listed among the grants")?;

    let keys: Jwks = alice
        .send(&Ask::new(Method::GET, metadata.jwks_uri))
        .await
        .and_then(|reply| reply.json())
        .must(stage, "no-keys")?;
    let token = alice.token_for(&here).await.set_up(stage, "getting a token")?;
    let parts = jws::parts(&token).map_err(|error| stage.fail("no-jwt", error.to_string()))?;
    let kid = parts.header.get("kid").and_then(|kid| kid.as_str()).unwrap_or_default();
    let typed = parts.header.get("typ").is_some_and(|typ| typ == TYP_ACCESS);
    stage.require(typed, "wrong-type", format!("the token's type is {TYP_ACCESS}"))?;
    let signed = keys.keys.iter().any(|key| key.kid == kid && jws::is_signed_by(&token, &key.x));
    stage.require(signed, "wrong-signature", "the token is signed by the published key that it names")?;
    let claims: AccessClaims =
        jws::claims(&token).map_err(|_| stage.fail("wrong-claims", "the claims are not RFC 9068's"))?;
    let right = claims.iss == name && claims.aud == name && claims.sub == alice.user().as_str();
    stage.require(
        right,
        "wrong-claims",
        "the token is of this issuer, for this audience, of this subject",
    )?;
    let person = claims.scope == Scope::User && claims.incarnation.is_some();
    stage.require(person, "no-incarnation", "the token names the person's incarnation")
}

async fn forged_assertion(stage: &Stage) -> Checked {
    let here = stage.here()?;
    let alice = stage.user("alice", &here).await?;
    stage.saw("right-assertion-accepted", crate::check::Verdict::Pass, "a right assertion logs in");

    let target = stage.target();
    let Some(provider) = target.org_of(&here).and_then(|(_, org)| org.identity.as_ref()) else {
        return Err(stage.inconclusive("not-set-up", "the target has no key of the org"));
    };
    let mut seed = [0; 32];
    stage.host().entropy.fill(&mut seed);
    let stolen =
        SigningKey::from_seed(seed).map_err(|error| stage.inconclusive("not-set-up", error.to_string()))?;
    let audience = issuer(&target.template, &here);
    let genuine =
        target::claims(stage.host(), provider, audience.clone(), alice.user().as_str(), Scope::User);
    let yesterday = genuine.iat.saturating_sub(86_400);
    let old = AssertionClaims { iat: yesterday, exp: yesterday + 300, ..genuine.clone() };
    let elsewhere = AssertionClaims { aud: format!("{audience}.evil.test"), ..genuine.clone() };
    let stranger = AssertionClaims { iss: "https://idp.evil.test".to_owned(), ..genuine.clone() };
    for (what, assertion) in [
        ("an assertion signed by somebody else", stolen.sign(&genuine)),
        ("an assertion of yesterday", provider.key.sign(&old)),
        ("an assertion for another server", provider.key.sign(&elsewhere)),
        ("an assertion of another identity provider", stolen.sign(&stranger)),
    ] {
        let form = [("grant_type", GRANT_ASSERTION), ("assertion", &assertion)];
        let ask = Ask::new(Method::POST, target.template.url(&here, Service::Auth, "/v1/token")).form(&form);
        stage.must_refuse(&alice, what, &[Code::InvalidGrant], &ask, "forged-assertion-accepted").await?;
    }
    Ok(())
}

async fn one_audience(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.user("bob", &there).await?;
    let made = bob.one_to_one(alice.user()).await.set_up(stage, "creating a conversation")?.into_it();
    alice.read_conversation(&made.url).await.must(stage, "exchanged-token-refused")?;

    let own = alice.token_for(&here).await.set_up(stage, "getting a token")?;
    let ask = Ask::new(Method::GET, made.url.clone()).token(own);
    let what = "using a token of another cluster";
    stage.must_refuse(&alice, what, &[Code::WrongAudience], &ask, "foreign-audience-accepted").await?;

    let guest = alice.token_for(&there).await.set_up(stage, "exchanging the token")?;
    let path = format!("/v1/users/{}/index?after=0", alice.user().path_segment());
    let ask = Ask::new(Method::GET, stage.target().template.url(&here, Service::Conv, &path)).token(guest);
    let what = "using a token for another cluster at home";
    stage.must_refuse(&alice, what, &[Code::WrongAudience], &ask, "foreign-audience-accepted").await
}

async fn no_second_exchange(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let exchanged = alice.exchange(&there).await.must(stage, "exchange-refused")?;
    let short = exchanged.expires_in <= EXCHANGED_TOKEN_SECONDS;
    let text = format!("an exchanged token lives {} s", exchanged.expires_in);
    stage.require(short, "long-lived", text)?;
    let claims: AccessClaims = jws::claims(&exchanged.access_token)
        .map_err(|_| stage.fail("wrong-claims", "the exchanged token is no RFC 9068 token"))?;
    let template = &stage.target().template;
    let right = claims.aud == issuer(template, &there) && claims.sub == alice.user().as_str();
    stage.require(right, "wrong-audience", "the exchanged token is for the other cluster only")?;

    for (what, at, resource) in [
        ("exchanging it again where it is good", &there, &here),
        ("exchanging it again at home", &here, &there),
    ] {
        let resource = issuer(template, resource);
        let form = exchange_form(&exchanged.access_token, &resource);
        let ask = Ask::new(Method::POST, template.url(at, Service::Auth, "/v1/token")).form(&form);
        let codes = [Code::InvalidGrant, Code::WrongIssuer, Code::WrongAudience];
        stage.must_refuse(&alice, what, &codes, &ask, "exchanged-again").await?;
    }
    Ok(())
}

async fn foreign_pointer(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    alice.read_index().await.must(stage, "own-index-unreadable")?;

    let template = &stage.target().template;
    let resolved = alice.resolve(alice.user()).await.set_up(stage, "resolving oneself")?.record;
    let foreign =
        template.url(&there, Service::Conv, "/v1/conversations/00000000-0000-4000-8000-000000000000");
    let locus = format!("{foreign}/locus");
    let person = json!({
        "id": "00000000-0000-4000-8000-000000000001", "user": resolved.user,
        "incarnation": resolved.incarnation, "epoch": resolved.version,
    });
    let entry = json!({
        "url": foreign, "locusUrl": locus, "kind": "group", "membership": "member", "membershipSeq": "1",
        "lastSeq": "0", "activities": [],
    });
    let active = json!({ "entry": {
        "locusUrl": locus, "conversationUrl": foreign, "instance": "1", "rev": "1", "state": "ACTIVE",
        "participantState": "NOTIFIED",
    }});
    let row = |more: &serde_json::Value| {
        let mut row = person.clone();
        if let (Some(row), Some(more)) = (row.as_object_mut(), more.as_object()) {
            row.extend(more.clone());
        }
        json!({ "rows": [row] })
    };
    let token = alice.token_for(&here).await.set_up(stage, "getting a token")?;
    for (what, service, path, body) in [
        ("writing an index entry as a user", Service::Conv, "/v1/index", row(&entry)),
        ("writing an active call as a user", Service::Locus, "/v1/loci", row(&active)),
    ] {
        let ask = Ask::new(Method::POST, template.url(&here, service, path)).token(&token).json(&body);
        // Whole, or row by row.
        let codes = [Code::Forbidden, Code::Unauthorized, Code::NotYourObject];
        stage.must_refuse(&alice, what, &codes, &ask, "foreign-pointer-accepted").await?;
    }
    let index: Vec<IndexEntry> = alice.read_index().await.must(stage, "own-index-unreadable")?;
    let clean = index.iter().all(|entry| entry.url != foreign);
    stage.require(clean, "foreign-pointer-accepted", "the index has no entry that nobody may have written")
}

async fn participants_only(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.user("bob", &there).await?;
    let made = alice.one_to_one(bob.user()).await.set_up(stage, "creating a conversation")?.into_it();
    for member in [&alice, &bob] {
        member.say(&made.url, "for us").await.must(stage, "participant-refused")?;
        member.read(&made.url).await.must(stage, "participant-refused")?;
        member.read_locus(&made.locus_url).await.must(stage, "participant-refused")?;
    }
    for cluster in [&here, &there] {
        let stranger = stage.user("stranger", cluster).await?;
        try_everything(stage, &stranger, &here, &made.url, "stranger-let-in").await?;
    }
    Ok(())
}

async fn leave_takes_effect(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.user("bob", &there).await?;
    let made = alice.group(&[bob.user().clone()], "short company").await;
    let made = made.set_up(stage, "creating a group")?.into_it();
    bob.say(&made.url, "hello").await.must(stage, "participant-refused")?;
    bob.read(&made.url).await.must(stage, "participant-refused")?;
    bob.post(&made.url, Act::Leave {}).await.must(stage, "leave-refused")?;
    try_everything(stage, &bob, &here, &made.url, "still-let-in").await
}

/// Reads and writes that only participants may do.
async fn try_everything(
    stage: &Stage,
    who: &Device,
    home: &ClusterName,
    conversation: &Url,
    code: &str,
) -> Result<(), Stop> {
    let token = who.token_for(home).await.set_up(stage, "getting a token")?;
    let below = |rest: &str| -> Url {
        let text = format!("{conversation}{rest}");
        text.parse().unwrap_or_else(|_| conversation.clone())
    };
    let message = json!({ "verb": "message", "text": "let me in" });
    let join = json!({ "expect": "0", "device": "intruder" });
    for (what, ask) in [
        ("reading the conversation", Ask::new(Method::GET, below(""))),
        ("reading its activities", Ask::new(Method::GET, below("/activities"))),
        ("writing into it", Ask::new(Method::POST, below("/activities")).key("intruder").json(&message)),
        ("reading its locus", Ask::new(Method::GET, below("/locus"))),
        (
            "joining its call",
            Ask::new(Method::POST, below("/locus/participants")).key("intruder").json(&join),
        ),
    ] {
        let what = format!("{what} as {}", who.name());
        let ask = ask.token(&token);
        stage.must_refuse(who, &what, &[Code::NotParticipant], &ask, code).await?;
    }
    Ok(())
}

async fn limits_hold(stage: &Stage) -> Checked {
    let here = stage.here()?;
    let alice = stage.user("alice", &here).await?;
    let bob = stage.person("bob", &here).await?.user;
    let made = alice.one_to_one(&bob).await.set_up(stage, "creating a conversation")?.into_it();
    alice.say(&made.url, "short enough").await.must(stage, "message-refused")?;

    let token = alice.token_for(&here).await.set_up(stage, "getting a token")?;
    let url: Url = format!("{}/activities", made.url)
        .parse()
        .map_err(|_| stage.inconclusive("not-set-up", "the conversation's URL has no place below it"))?;
    let post = |body: String| {
        let ask = Ask::new(Method::POST, url.clone()).token(&token).key("limits");
        ask.body("application/json", body)
    };
    let message = |length: usize| json!({ "verb": "message", "text": "x".repeat(length) }).to_string();
    let too_large = [Code::TooLarge];
    let out_of_range = [Code::Unprocessable, Code::TooLarge];
    let malformed = [Code::BadRequest, Code::Unprocessable];
    for (what, ask, codes) in [
        ("a body above 1 MiB", post(message(limits::BODY_MAX)), &too_large[..]),
        ("a text above its limit", post(message(limits::TEXT_MAX + 1)), &out_of_range),
        ("half a JSON text", post("{\"verb\": \"message\", \"te".to_owned()), &malformed),
        ("JSON of another shape", post("[1, 2, 3]".to_owned()), &malformed),
        ("an unknown verb", post("{\"verb\": \"explode\"}".to_owned()), &malformed),
    ] {
        stage.must_refuse(&alice, what, codes, &ask, "limit-exceeded").await?;
    }
    let reply = alice.send(&post("{".to_owned())).await.must(stage, "limit-exceeded")?;
    let problem = reply.media_type() == fusion_protocol::problem::MEDIA_TYPE;
    stage.require(problem, "no-problem-type", "a refusal is of the media type of problems")?;
    alice.say(&made.url, "still here").await.must(stage, "message-refused").map(drop)
}

async fn own_things_only(stage: &Stage) -> Checked {
    let here = stage.here()?;
    let alice = stage.online("alice", &here).await?;
    let mallory = stage.user("mallory", &here).await?;
    alice.read_index().await.must(stage, "own-index-unreadable")?;
    alice.list_loci().await.must(stage, "own-calls-unreadable")?;
    let device = alice.registration().ok_or_else(|| stage.inconclusive("not-set-up", "no registration"))?;

    let template = &stage.target().template;
    let of_alice = |service, rest: &str| {
        template.url(&here, service, &format!("/v1/users/{}/{rest}", alice.user().path_segment()))
    };
    let token = mallory.token_for(&here).await.set_up(stage, "getting a token")?;
    let things = [
        ("the index", Ask::new(Method::GET, of_alice(Service::Conv, "index?after=0"))),
        ("the list of calls", Ask::new(Method::GET, of_alice(Service::Locus, "loci"))),
        ("the registration of a device", Ask::new(Method::DELETE, device.url.clone())),
    ];
    for (what, ask) in things {
        let codes = [Code::Unauthorized];
        let tried = format!("opening {what} without a token");
        stage.must_refuse(&mallory, &tried, &codes, &ask, "open-to-all").await?;
        let codes = [Code::Forbidden, Code::NotFound];
        let tried = format!("opening {what} of somebody else");
        stage.must_refuse(&mallory, &tried, &codes, &ask.token(&token), "open-to-others").await?;
    }
    Ok(())
}
