//! The wire messages of maps, tokens, provisioning and problems, as they are written. A changed snapshot
//! is a changed protocol.

#![expect(clippy::unwrap_used, reason = "what a test sets up is right")]

use fusion_protocol::auth::*;
use fusion_protocol::map::*;
use fusion_protocol::provisioning::*;
use fusion_protocol::{Code, Count, Incarnation, Pii, Problem, Uuid};
use insta::assert_json_snapshot;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Reading back what is written gives the same message, and so does reading it with a member that a
/// later version added.
fn round_trips<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T) {
    let mut value = serde_json::to_value(message).unwrap();
    assert_eq!(serde_json::from_value::<T>(value.clone()).unwrap(), *message);
    value.as_object_mut().unwrap().insert("ofALaterVersion".to_owned(), json!({"x": 1}));
    assert_eq!(serde_json::from_value::<T>(value).unwrap(), *message);
}

fn domain_record() -> DomainRecord {
    DomainRecord {
        domain: "acme.example".parse().unwrap(),
        org: "acme".to_owned(),
        clusters: vec!["a".parse().unwrap(), "b".parse().unwrap()],
        version: Count(17),
        ttl_seconds: 300,
    }
}

fn user_record() -> UserRecord {
    UserRecord {
        user: "alice@acme.example".parse().unwrap(),
        incarnation: Incarnation(Uuid::from_u128(7)),
        cluster: "a".parse().unwrap(),
        version: Count(1),
    }
}

#[test]
fn the_domain_map() {
    let feed = DomainFeed {
        version: Count(18),
        changes: vec![
            DomainChange::Claimed(domain_record()),
            DomainChange::Released { domain: "old.example".parse().unwrap(), version: Count(18) },
        ],
        consumer_clusters: vec!["c".parse().unwrap()],
    };
    let claim = Claim {
        domain: "acme.example".parse().unwrap(),
        org: "acme".to_owned(),
        clusters: vec!["a".parse().unwrap()],
    };
    round_trips(&domain_record());
    round_trips(&feed);
    round_trips(&claim);
    assert_json_snapshot!(json!({ "record": domain_record(), "feed": feed, "claim": claim }));
}

#[test]
fn the_user_map() {
    let resolution = Resolution { record: user_record(), stale: false, map_version: Count(18) };
    let login =
        LoginDiscovery { authorization_servers: vec!["https://a-auth.provider.example/".parse().unwrap()] };
    round_trips(&user_record());
    round_trips(&resolution);
    round_trips(&login);
    assert_json_snapshot!(json!({ "record": user_record(), "resolution": resolution, "login": login }));
}

#[test]
fn tokens() {
    let access = AccessClaims {
        iss: "https://a-auth.provider.example".to_owned(),
        sub: "alice@acme.example".to_owned(),
        aud: "https://b-auth.provider.example".to_owned(),
        exp: 1_800_000_600,
        iat: 1_800_000_000,
        jti: "1".to_owned(),
        client_id: "app".to_owned(),
        scope: Scope::User,
        incarnation: Some(Incarnation(Uuid::from_u128(7))),
    };
    let admin =
        AccessClaims { sub: "admin".to_owned(), scope: Scope::Admin, incarnation: None, ..access.clone() };
    let cluster = ClusterClaims {
        iss: "https://a-auth.provider.example".to_owned(),
        aud: "https://b-auth.provider.example".to_owned(),
        exp: 1_800_000_060,
        iat: 1_800_000_000,
        jti: "1".to_owned(),
        htm: "POST".to_owned(),
        htu: "https://b-conv.provider.example/v1/index".to_owned(),
        digest: "RBNvo1WzZ4oRRq0W9-hknpT7T8If536DEMBg9hyq_4o".to_owned(),
    };
    let assertion = AssertionClaims {
        iss: "https://idp.example".to_owned(),
        sub: "alice@acme.example".to_owned(),
        aud: "https://a-auth.provider.example".to_owned(),
        exp: 1_800_000_060,
        iat: 1_800_000_000,
        jti: "1".to_owned(),
        scope: None,
    };
    round_trips(&access);
    round_trips(&admin);
    round_trips(&cluster);
    round_trips(&assertion);
    assert_json_snapshot!(json!({
        "access": access, "admin": admin, "cluster": cluster, "assertion": assertion,
    }));
}

#[test]
fn the_authorisation_server() {
    let request = TokenRequest {
        grant_type: GRANT_EXCHANGE.to_owned(),
        subject_token: Some("x.y.z".to_owned()),
        subject_token_type: Some(TOKEN_TYPE_ACCESS.to_owned()),
        resource: Some("https://b-auth.provider.example".to_owned()),
        ..TokenRequest::default()
    };
    let answer = TokenAnswer {
        access_token: "x.y.z".to_owned(),
        token_type: "Bearer".to_owned(),
        expires_in: EXCHANGED_TOKEN_SECONDS,
        issued_token_type: Some(TOKEN_TYPE_ACCESS.to_owned()),
        scope: Scope::User,
    };
    let jwks = Jwks {
        keys: vec![Jwk::ed25519("1".to_owned(), "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".to_owned())],
    };
    let metadata = Metadata {
        issuer: "https://a-auth.provider.example".to_owned(),
        token_endpoint: "https://a-auth.provider.example/v1/token".parse().unwrap(),
        jwks_uri: "https://a-auth.provider.example/v1/jwks".parse().unwrap(),
        grant_types_supported: vec![GRANT_ASSERTION.to_owned(), GRANT_EXCHANGE.to_owned()],
        response_types_supported: Vec::new(),
    };
    round_trips(&request);
    round_trips(&answer);
    round_trips(&jwks);
    round_trips(&metadata);
    assert_json_snapshot!(json!({
        "request": request, "answer": answer, "jwks": jwks, "metadata": metadata,
    }));
}

#[test]
fn provisioning() {
    let user = ScimUser {
        schemas: vec![SCHEMA_USER.to_owned()],
        id: Some(Uuid::from_u128(3).to_string()),
        external_id: Some("42".to_owned()),
        user_name: Pii::from("alice@acme.example"),
        display_name: Some(Pii::from("Alice")),
        active: true,
        meta: Some(ScimMeta {
            resource_type: "User".to_owned(),
            location: "https://a-provisioning.provider.example/scim/v2/Users/3".parse().unwrap(),
            version: "W/\"1\"".to_owned(),
        }),
    };
    let error = ScimError {
        schemas: vec![SCHEMA_ERROR.to_owned()],
        status: "409".to_owned(),
        scim_type: Some("uniqueness".to_owned()),
        detail: "It exists already".to_owned(),
        code: Code::AlreadyExists,
    };
    round_trips(&user);
    round_trips(&error);
    assert_json_snapshot!(json!({ "user": user, "error": error }));
    let least: ScimUser = serde_json::from_value(json!({ "schemas": [], "userName": "x" })).unwrap();
    assert!(least.active, "who is added without a word about it may log in");
}

#[test]
fn problems() {
    let problem = Problem::new(Code::WrongCluster).detail("ask them").with("clusters", ["b"]);
    let text = serde_json::to_string(&problem).unwrap();
    assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
    assert_eq!(problem.member::<Vec<String>>("clusters").unwrap(), ["b"]);
    assert_json_snapshot!(problem);
}

/// A code is never renamed and never reused: this list only grows.
#[test]
fn the_codes() {
    let codes: Vec<_> = Code::ALL
        .iter()
        .map(|code| format!("{} {} {}", code.status(), code.as_str(), code.title()))
        .collect();
    let distinct: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(distinct.len(), Code::ALL.len());
    assert_json_snapshot!(codes);
}

#[test]
fn a_code_of_a_later_version_is_a_problem_all_the_same() {
    let later = json!({"type": "urn:x", "title": "X", "status": 418, "code": "teapot", "pot": "small"});
    let problem: Problem = serde_json::from_value(later).unwrap();
    assert_eq!((problem.status, problem.code), (418, Code::Unknown));
}

proptest! {
    /// JSON numbers lose bits above 2^53; counters do not.
    #[test]
    fn a_counter_keeps_all_its_bits(number: u64) {
        let written = serde_json::to_value(Count(number)).unwrap();
        prop_assert_eq!(&written, &Value::String(number.to_string()));
        prop_assert_eq!(serde_json::from_value::<Count>(written).unwrap(), Count(number));
    }

    #[test]
    fn what_is_no_counter_is_refused(text in "\\PC{0,25}") {
        let read = serde_json::from_value::<Count>(Value::String(text.clone()));
        prop_assert_eq!(read.ok().map(|count| count.0), text.parse::<u64>().ok());
    }

    /// Whatever arrives, reading a message ends with a message or an error.
    #[test]
    fn nothing_makes_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = serde_json::from_slice::<Problem>(&bytes);
        let _ = serde_json::from_slice::<DomainFeed>(&bytes);
        let _ = serde_json::from_slice::<Resolution>(&bytes);
        let _ = serde_json::from_slice::<AccessClaims>(&bytes);
        let _ = serde_json::from_slice::<ScimUser>(&bytes);
    }
}
