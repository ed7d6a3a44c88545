//! What SPEC says of tokens, shown by clusters in memory.

use fusion_protocol::Service;
use fusion_protocol::auth::*;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::testing::*;

fn assertion(world: &World, sub: &str, audience: &str, scope: Option<Scope>) -> String {
    let now = world.clock.wall().seconds();
    let claims = AssertionClaims {
        iss: IDENTITY_PROVIDER.to_owned(),
        sub: sub.to_owned(),
        aud: audience.to_owned(),
        exp: now + 60,
        iat: now,
        jti: "1".to_owned(),
        scope,
    };
    identity_provider_key().sign("JWT", &claims)
}

async fn token(world: &World, cluster: &str, form: &[(&str, &str)]) -> (StatusCode, Value) {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = Request::post(world.url(cluster, Service::Auth, "/v1/token").as_str());
    let (status, _, body) = world.send_raw(request.body(body.into()).unwrap()).await;
    (status, body)
}

async fn log_in(world: &World, cluster: &str, sub: &str, scope: Option<Scope>) -> (StatusCode, Value) {
    let assertion = assertion(world, sub, &world.cluster(cluster).issuer(), scope);
    token(world, cluster, &[("grant_type", GRANT_ASSERTION), ("assertion", &assertion)]).await
}

async fn exchange(world: &World, cluster: &str, subject: &str, resource: &str) -> (StatusCode, Value) {
    let form = [
        ("grant_type", GRANT_EXCHANGE),
        ("subject_token", subject),
        ("subject_token_type", TOKEN_TYPE_ACCESS),
        ("resource", resource),
    ];
    token(world, cluster, &form).await
}

#[tokio::test(start_paused = true)]
async fn an_assertion_of_the_orgs_identity_provider_logs_a_user_in() {
    let world = World::new(&["a"]).await;
    world.user("a", "alice@a.example").await;
    let (status, body) = log_in(&world, "a", "Alice@A.example", None).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let caller = world.cluster("a").verifier.user(world.cluster("a"), body["access_token"].as_str().unwrap());
    assert_eq!(caller.await.unwrap().user.user, address("alice@a.example"));
}

#[tokio::test(start_paused = true)]
async fn nobody_else_logs_in() {
    let world = World::new(&["a", "b"]).await;
    world.user("a", "alice@a.example").await;
    let (status, body) = log_in(&world, "a", "bob@a.example", None).await;
    assert_eq!(
        (status, &body["code"], &body["error"]),
        (StatusCode::BAD_REQUEST, &json!("invalid-grant"), &json!("invalid_grant"))
    );
    let for_b = assertion(&world, "alice@a.example", &world.cluster("b").issuer(), None);
    let (status, _) = token(&world, "a", &[("grant_type", GRANT_ASSERTION), ("assertion", &for_b)]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, body) = token(&world, "a", &[("grant_type", "password")]).await;
    assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!("unsupported_grant_type")));
}
