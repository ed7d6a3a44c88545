//! What a cluster that has turned hostile does to others: everything of it must be refused, and each
//! refusal is judged by its reason.
//!
//! Whoever runs a cluster has its signing key: [`Stage::sign`](crate::stage::Stage::sign) lends it.

use fusion_conformance::Device;
use fusion_conformance::device::Ask;
use fusion_protocol::auth::{
    AccessClaims, CLUSTER_TOKEN_SECONDS, ClusterClaims, EXCHANGED_TOKEN_SECONDS, Scope, TYP_ACCESS,
    TYP_CLUSTER, issuer,
};
use fusion_protocol::map::UserRecord;
use fusion_protocol::{ClusterName, Code, Service, Url};
use http::Method;
use serde_json::{Value, json};

use super::acts::persistent;
use super::cast::{Cast, Chat};
use crate::scenario::Deed;
use crate::stage::Stage;

/// The longest token that a hostile cluster dreams of, in seconds.
const AN_HOUR: u64 = 3_600;

/// What is changed of a call's claims.
type Edit<'a> = &'a dyn Fn(&mut ClusterClaims);

/// Whom a deed is done to.
#[derive(Clone, Copy)]
pub(super) struct Victim<'a> {
    pub(super) at: Option<&'a str>,
    pub(super) who: Option<&'a str>,
    pub(super) chat: Option<&'a str>,
}

/// A cluster with its key, and the device of one of its users to speak with.
struct Hostile<'a> {
    stage: &'a dyn Stage,
    device: &'a Device,
    home: ClusterName,
}

impl Cast<'_> {
    /// Does what must be refused, in all its variants. Scenarios name everything that the deed needs.
    pub(super) async fn trespass(&self, device: &Device, deed: Deed, victim: Victim<'_>) {
        let Some(home) = device.home() else { return };
        let hostile = Hostile { stage: self.stage, device, home };
        let at = victim.at.and_then(|at| at.parse::<ClusterName>().ok());
        match (deed, at) {
            (Deed::ReplayGuest, Some(at)) => self.replay_guest(&hostile, &at, victim).await,
            (Deed::ReplayCall, Some(at)) => self.replay_call(&hostile, &at).await,
            (Deed::ForeignObject, Some(at)) => self.foreign_object(&hostile, &at, victim).await,
            (Deed::MintToken, _) => self.mint_token(&hostile, victim).await,
            (Deed::Intrude, _) => self.intrude(&hostile, victim).await,
            (_, None) => {}
        }
    }

    /// SEC-003: what a guest has shown here is shown elsewhere, and at the guest's own home.
    async fn replay_guest(&self, hostile: &Hostile<'_>, at: &ClusterName, victim: Victim<'_>) {
        let Some(guest) = victim.who.and_then(|who| self.device_of(who)) else { return };
        let Some(guests_home) = guest.home() else { return };
        let Ok(token) = guest.token_for(&hostile.home).await else { return };
        let path = format!("/v1/users/{}/index", guest.user().path_segment());
        for (what, to) in
            [("the token of a guest", at), ("a guest's token at the guest's home", &guests_home)]
        {
            let ask = || Some(Ask::new(Method::GET, hostile.url(to, Service::Conv, &path)).token(&token));
            hostile.tries(what, "SEC-003", Code::WrongAudience, ask).await;
        }
    }

    /// SEC-004: calls that were signed for something else.
    async fn replay_call(&self, hostile: &Hostile<'_>, at: &ClusterName) {
        let body = json!({ "rows": [] });
        let (digests, index) = ("/v1/index/digests", "/v1/index");
        let url = hostile.url(at, Service::Conv, digests);
        let signed = |edit: Edit<'_>| {
            let mut claims = hostile.claims(&hostile.home, at, &Method::POST, &url, &body);
            edit(&mut claims);
            let token = hostile.stage.sign(&hostile.home, TYP_CLUSTER, &json!(claims))?;
            Some(Ask::new(Method::POST, url.clone()).token(token).json(&body))
        };
        let other_url = hostile.url(at, Service::Conv, index).to_string();
        let other_body = fusion_cluster::auth::digest(b"{}");
        let bound_elsewhere: [(&str, Edit<'_>); 4] = [
            ("a call of another method", &|claims| claims.htm = Method::PUT.to_string()),
            ("a call to another URL", &|claims| claims.htu.clone_from(&other_url)),
            ("a call with another body", &|claims| claims.digest.clone_from(&other_body)),
            ("a call good for an hour", &|claims| claims.exp = claims.iat + AN_HOUR),
        ];
        for (what, edit) in bound_elsewhere {
            hostile.tries(what, "SEC-004", Code::Unauthorized, || signed(edit)).await;
        }
        // What an honest cluster has said to this one, repeated to a third.
        let others = || self.target.clusters.iter().map(|known| &known.name);
        let Some(honest) = others().find(|name| **name != hostile.home && *name != at) else { return };
        let said_here = hostile.url(&hostile.home, Service::Conv, digests);
        let overheard = || {
            let claims = hostile.claims(honest, &hostile.home, &Method::POST, &said_here, &body);
            let token = hostile.stage.sign(honest, TYP_CLUSTER, &json!(claims))?;
            Some(Ask::new(Method::POST, url.clone()).token(token).json(&body))
        };
        let what = "a call that somebody made to another cluster";
        hostile.tries(what, "SEC-004", Code::WrongAudience, overheard).await;
    }

    /// SEC-005: an index entry, an active call, a notification and a digest about somebody else's object.
    async fn foreign_object(&self, hostile: &Hostile<'_>, at: &ClusterName, victim: Victim<'_>) {
        let (Some(who), Some(chat)) = (victim.who, self.chat_of(victim)) else { return };
        let Ok(found) = hostile.device.resolve(&self.address(who)).await else { return };
        let UserRecord { user, incarnation, version, .. } = found.record;
        let id = || hostile.device.host().entropy.uuid();
        let row = |more: Value| {
            let mut row = json!({ "id": id(), "user": user, "incarnation": incarnation, "epoch": version });
            if let (Some(row), Value::Object(more)) = (row.as_object_mut(), more) {
                row.extend(more);
            }
            json!({ "rows": [row] })
        };
        let entry = || {
            row(json!({
                "url": chat.url, "locusUrl": chat.locus_url, "kind": "group", "membership": "left",
                "membershipSeq": "1000", "lastSeq": "0", "activities": [],
            }))
        };
        let call = || {
            row(json!({ "entry": {
                "locusUrl": chat.locus_url, "conversationUrl": chat.url, "instance": "1000", "rev": "1000",
                "state": "ACTIVE", "participantState": "NOTIFIED",
            }}))
        };
        let digest = || row(json!({ "url": chat.url, "membershipSeq": "1000", "lastSeq": "1000" }));
        let notification =
            || json!({ "id": id(), "eventType": "conversation.activity", "resource": chat.url, "data": {} });
        let bell = format!("/v1/users/{}/notifications", user.path_segment());
        let deeds: [(&str, Service, &str, &dyn Fn() -> Value); 4] = [
            ("an entry about somebody else's conversation", Service::Conv, "/v1/index", &entry),
            ("a call of somebody else's locus", Service::Locus, "/v1/loci", &call),
            ("a digest of somebody else's conversation", Service::Conv, "/v1/index/digests", &digest),
            ("a notification about somebody else's conversation", Service::Mercury, &bell, &notification),
        ];
        for (what, service, path, body) in deeds {
            let ask = || hostile.call(at, service, path, &body());
            hostile.tries(what, "SEC-005", Code::NotYourObject, ask).await;
        }
    }

    /// SEC-006: a pointer gives no right.
    async fn intrude(&self, hostile: &Hostile<'_>, victim: Victim<'_>) {
        let Some(chat) = self.chat_of(victim) else { return };
        let Some(home) = hostile.device.target().cluster_of(&chat.url) else { return };
        let message = json!({ "verb": "message", "text": "let me in" });
        let join = json!({ "expect": "0", "device": "intruder" });
        let below = |rest: &str| format!("{}{rest}", chat.url).parse::<Url>().ok();
        let deeds = [
            ("reading somebody else's conversation", Method::GET, "", None),
            ("reading somebody else's activities", Method::GET, "/activities", None),
            ("writing to somebody else's conversation", Method::POST, "/activities", Some(&message)),
            ("reading somebody else's locus", Method::GET, "/locus", None),
            ("joining somebody else's call", Method::POST, "/locus/participants", Some(&join)),
        ];
        for (what, method, path, body) in deeds {
            let Ok(token) = hostile.device.token_for(&home).await else { return };
            let key = hostile.device.host().entropy.uuid().to_string();
            let ask = || {
                let ask = Ask::new(method.clone(), below(path)?).token(&token);
                Some(match body {
                    Some(body) => ask.key(&key).json(body),
                    None => ask,
                })
            };
            hostile.tries(what, "SEC-006", Code::NotParticipant, ask).await;
        }
    }

    /// SEC-009: a token of the hostile cluster for somebody who lives elsewhere, shown where that person
    /// is in a conversation.
    async fn mint_token(&self, hostile: &Hostile<'_>, victim: Victim<'_>) {
        let (Some(who), Some(chat)) = (victim.who, self.chat_of(victim)) else { return };
        let Some(at) = hostile.device.target().cluster_of(&chat.url) else { return };
        let Ok(found) = hostile.device.resolve(&self.address(who)).await else { return };
        let ask =
            || Some(Ask::new(Method::GET, chat.url.clone()).token(hostile.as_user(&at, &found.record)?));
        hostile.tries("a token minted for somebody else's user", "SEC-009", Code::WrongIssuer, ask).await;
    }

    /// Any device of somebody's.
    fn device_of(&self, who: &str) -> Option<&Device> {
        self.devices.iter().find(|((user, _), _)| user == who).map(|(_, player)| &player.device)
    }

    /// A conversation as its own people call it: pointers leak.
    fn chat_of(&self, victim: Victim<'_>) -> Option<Chat> {
        self.devices.values().find_map(|player| player.chat(victim.chat?))
    }
}

impl Hostile<'_> {
    /// Tries it until somebody has decided about it; each try is signed anew, so that it is refused for
    /// what it is and not for coming twice.
    async fn tries(&self, what: &str, requirement: &str, expect: Code, ask: impl Fn() -> Option<Ask>) {
        let _ = persistent(self.device, async || match ask() {
            Some(ask) => self.device.trespass(what, requirement, expect, &ask).await.map(drop),
            None => Ok(()),
        })
        .await;
    }

    /// A call that this cluster signs.
    fn call(&self, at: &ClusterName, service: Service, path: &str, body: &Value) -> Option<Ask> {
        let url = self.url(at, service, path);
        let claims = self.claims(&self.home, at, &Method::POST, &url, body);
        let token = self.stage.sign(&self.home, TYP_CLUSTER, &json!(claims))?;
        Some(Ask::new(Method::POST, url).token(token).json(body))
    }

    /// A token for somebody, signed by this cluster.
    fn as_user(&self, at: &ClusterName, who: &UserRecord) -> Option<String> {
        let template = &self.device.target().template;
        let now = self.device.host().clock.wall().seconds();
        let claims = AccessClaims {
            iss: issuer(template, &self.home),
            sub: who.user.as_str().to_owned(),
            aud: issuer(template, at),
            exp: now + EXCHANGED_TOKEN_SECONDS,
            iat: now,
            jti: self.device.host().entropy.uuid().to_string(),
            client_id: "anybody".to_owned(),
            scope: Scope::User,
            incarnation: Some(who.incarnation),
        };
        self.stage.sign(&self.home, TYP_ACCESS, &json!(claims))
    }

    fn claims(
        &self,
        by: &ClusterName,
        to: &ClusterName,
        method: &Method,
        url: &Url,
        body: &Value,
    ) -> ClusterClaims {
        let template = &self.device.target().template;
        let iat = self.device.host().clock.wall().seconds();
        ClusterClaims {
            iss: issuer(template, by),
            aud: issuer(template, to),
            exp: iat + CLUSTER_TOKEN_SECONDS,
            iat,
            jti: self.device.host().entropy.uuid().to_string(),
            htm: method.to_string(),
            htu: url.to_string(),
            digest: fusion_cluster::auth::digest(body.to_string().as_bytes()),
        }
    }

    fn url(&self, at: &ClusterName, service: Service, path: &str) -> Url {
        self.device.target().template.url(at, service, path)
    }
}
