//! Names and addresses (NAM).

use fusion_protocol::auth::issuer;
use fusion_protocol::conversation::{Conversation, Kind};
use fusion_protocol::map::Resolution;
use fusion_protocol::provisioning::{MEDIA_TYPE, SCHEMA_USER};
use fusion_protocol::{Code, Service, Url, Uuid};
use http::Method;
use serde_json::json;

use crate::check::{Check, Checked, Need};
use crate::device::{Ask, exchange_form};
use crate::stage::{Judged as _, Stage};

pub(super) const CHECKS: &[Check] = &[
    Check::new("NAM-003.full-urls", &[Need::TwoOrgs], |stage| Box::pin(full_urls(stage))),
    Check::new("NAM-004.spellings", &[Need::Cluster, Need::Keys], |stage| Box::pin(spellings(stage))),
    Check::new("NAM-005.look-alike-host", &[Need::TwoOrgs], |stage| Box::pin(look_alike_host(stage)))
        .users_only(),
];

async fn full_urls(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.online("bob", &there).await?;
    let made = alice.one_to_one(bob.user()).await.must(stage, "create-refused")?.into_it();

    let locus = alice.read_locus(&made.locus_url).await.must(stage, "locus-unreadable")?;
    let device = bob.registration().ok_or_else(|| stage.inconclusive("not-set-up", "no registration"))?;
    let entry = stage
        .eventually("not-in-index", "the conversation is in the participant's index", || async {
            bob.read_index().await.ok()?.into_iter().find(|entry| entry.url == made.url)
        })
        .await?;

    for (what, url, cluster) in [
        ("the conversation", &made.url, &here),
        ("its locus", &made.locus_url, &here),
        ("the locus itself", &locus.url, &here),
        ("the locus' conversation", &locus.conversation_url, &here),
        ("the index entry", &entry.url, &here),
        ("the index entry's locus", &entry.locus_url, &here),
        ("the device", &device.url, &there),
        ("the device's notifications", &device.notification_url, &there),
    ] {
        let of = stage.target().cluster_of(url);
        let text = format!("{what} is named by a URL of cluster {cluster}: {url}");
        stage.require(of.as_ref() == Some(cluster), "not-a-full-url", text)?;
    }
    for (what, id, cluster) in [("the conversation", &made.id, &here), ("the device", &device.id, &there)] {
        let uuid = id.strip_prefix(&format!("{cluster}~")).and_then(|rest| rest.parse::<Uuid>().ok());
        stage.require(uuid.is_some(), "bare-id", format!("{what} shows an id that names {cluster}: {id}"))?;
    }
    stage.require(entry.home == here, "wrong-home", "the index entry names the conversation's home")
}

async fn spellings(stage: &Stage) -> Checked {
    let here = stage.here()?;
    let alice = stage.user("alice", &here).await?;
    let zoe = stage.person("zoë.o'neil+tag", &here).await?.user;
    // Capitals, and the ë as an e with a diaeresis after it.
    let spelt = zoe.as_str().replace('ë', "e\u{308}").to_uppercase();

    let admin = stage.admin(&here)?;
    let again = json!({ "schemas": [SCHEMA_USER], "userName": spelt });
    let token = admin.token().await.set_up(stage, "logging the admin in")?;
    let ask = admin.scim(Method::POST, "/scim/v2/Users").token(token).json(&again).media_type(MEDIA_TYPE);
    let answer = admin.send(&ask).await.and_then(|reply| reply.success());
    let what = "provisioning another spelling of a user";
    stage.refused(answer, what, &[Code::AlreadyExists], "second-user")?;

    let token = alice.token_for(&here).await.set_up(stage, "getting a token")?;
    let known = alice.resolve(&zoe).await.must(stage, "spelling-unknown")?;
    let mut url = stage.target().template.url(&here, Service::Users, "/v1/resolve");
    if let Ok(mut path) = url.path_segments_mut() {
        path.push(&spelt);
    }
    let answer = alice.send(&Ask::new(Method::GET, url).token(&token)).await;
    let found: Resolution = answer.and_then(|reply| reply.json()).must(stage, "spelling-unknown")?;
    let same = found.record.user == zoe && found.record.incarnation == known.record.incarnation;
    stage.require(same, "another-user", "another spelling resolves to the same person")?;

    let made = alice.one_to_one(&zoe).await.must(stage, "create-refused")?.into_it();
    let body = json!({ "kind": Kind::OneToOne, "participants": [spelt] });
    let url = stage.target().template.url(&here, Service::Conv, "/v1/conversations");
    let ask = Ask::new(Method::POST, url).token(token).key("another-spelling").json(&body);
    let answer = alice.send(&ask).await;
    let again: Conversation = answer.and_then(|reply| reply.json()).must(stage, "create-refused")?;
    stage.require(again.url == made.url, "second-conversation", "another spelling has the same conversation")
}

async fn look_alike_host(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    alice.exchange(&there).await.must(stage, "exchange-refused")?;

    let (template, provider) = (&stage.target().template, stage.target().template.provider());
    let genuine = issuer(template, &there);
    let subject = alice.token_for(&here).await.set_up(stage, "getting a token")?;
    let url: Url = template.url(&here, Service::Auth, "/v1/token");
    for look_alike in [
        genuine.replace(provider.as_str(), &format!("{provider}.evil.test")),
        genuine.replace(provider.as_str(), &format!("evil-{provider}")),
        genuine.replacen("https://", "https://x.", 1),
        genuine.replacen("https://", "http://", 1),
        genuine.replacen("https://", "https://evil.test@", 1),
        "https://169.254.169.254".to_owned(),
    ] {
        let ask = Ask::new(Method::POST, url.clone()).form(&exchange_form(&subject, &look_alike));
        let what = format!("exchanging a token for {look_alike}");
        let codes = [Code::InvalidGrant, Code::UntrustedUrl, Code::BadRequest];
        stage.must_refuse(&alice, &what, &codes, &ask, "look-alike-trusted").await?;
    }
    Ok(())
}
