//! Provisioning (PRO).

use fusion_protocol::provisioning::{MEDIA_TYPE, SCHEMA_USER};
use fusion_protocol::{Address, Code, Service};
use http::Method;
use serde_json::json;

use crate::check::{Check, Checked, Need};
use crate::device::Ask;
use crate::stage::{Judged as _, Person, Stage};

pub(super) const CHECKS: &[Check] = &[
    Check::new("PRO-001.life-of-a-user", &[Need::Cluster, Need::Keys], |stage| {
        Box::pin(life_of_a_user(stage))
    }),
    Check::new("PRO-003.foreign-admin", &[Need::TwoOrgs, Need::Private, Need::Keys], |stage| {
        Box::pin(foreign_admin(stage))
    }),
];

async fn life_of_a_user(stage: &Stage) -> Checked {
    let here = stage.here()?;
    let admin = stage.admin(&here)?;
    let user = stage.nobody("short-lived", &here)?;

    let id = stage.crew.provision(&admin, &user, "Short Lived").await.must(stage, "not-provisioned")?;
    let record = admin.read(&id).await.must(stage, "not-readable")?;
    stage.require(
        record.id.as_ref() == Some(&id),
        "another-record",
        "the record has the id it was made with",
    )?;
    let same = record.user_name.expose().parse::<Address>().as_ref() == Ok(&user);
    stage.require(same, "another-user", "the record has the address it was made with")?;
    let schema = record.schemas.iter().any(|schema| schema == SCHEMA_USER);
    stage.require(schema && record.active, "no-scim-user", "the record is a SCIM user, and active")?;
    let located = record.meta.and_then(|meta| stage.target().template.locate(&meta.location).ok());
    let at_home = located.is_some_and(|at| at.cluster == here && at.service == Service::Provisioning);
    stage.require(
        at_home,
        "wrong-location",
        "the record's location is at the cluster's provisioning service",
    )?;

    let again = admin.provision(&user, None).await;
    stage.refused(again, "provisioning the same address again", &[Code::AlreadyExists], "second-user")?;

    let person = Person { user: user.clone(), role: "short-lived".to_owned() };
    let phone = stage.stranger(&person, "phone");
    phone.log_in().await.must(stage, "log-in-refused")?;
    phone.read_index().await.must(stage, "index-unreadable")?;

    admin.deprovision(&user, &id).await.must(stage, "not-deleted")?;
    stage.crew.forget(&user);
    let gone = [Code::UserUnknown, Code::NotFound, Code::Gone];
    stage.refused(admin.read(&id).await, "reading a deleted user", &gone, "still-readable")?;
    let late = stage.stranger(&person, "late-phone");
    let codes = [Code::InvalidGrant, Code::UserUnknown];
    stage.refused(late.log_in().await, "logging a deleted user in", &codes, "still-logs-in")?;
    let codes = [Code::Unauthorized, Code::UserUnknown, Code::InvalidGrant, Code::Gone];
    stage.refused(phone.read_index().await, "using a deleted user's token", &codes, "token-outlives-user")
}

async fn foreign_admin(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let (ours, theirs) = (stage.admin(&here)?, stage.admin(&there)?);
    let alice = stage.user("alice", &here).await?;
    let post = |user: &Address, token: String| -> Ask {
        let body = json!({ "schemas": [SCHEMA_USER], "userName": user.as_str() });
        ours.scim(Method::POST, "/scim/v2/Users").token(token).json(&body).media_type(MEDIA_TYPE)
    };
    let our_token = ours.token().await.set_up(stage, "logging the admin in")?;
    let their_token = theirs.token().await.set_up(stage, "logging the other admin in")?;
    let user_token = alice.token_for(&here).await.set_up(stage, "getting a token")?;
    stage.saw("own-admin-accepted", crate::check::Verdict::Pass, "the own org's admin provisions here");

    let wanted = stage.nobody("wanted", &here)?;
    let ask = post(&wanted, their_token);
    let codes = [Code::WrongAudience, Code::WrongIssuer, Code::Unauthorized, Code::Forbidden];
    stage.must_refuse(&alice, "provisioning as another org's admin", &codes, &ask, "foreign-admin").await?;
    let ask = post(&wanted, user_token);
    let codes = [Code::Forbidden, Code::Unauthorized];
    stage.must_refuse(&alice, "provisioning as a user", &codes, &ask, "user-as-admin").await?;
    let elsewhere = stage.nobody("elsewhere", &there)?;
    let ask = post(&elsewhere, our_token);
    let codes = [Code::Forbidden, Code::WrongCluster];
    stage.must_refuse(&alice, "provisioning for another org's domain", &codes, &ask, "foreign-domain").await
}
