//! What SPEC says of tokens, shown by clusters in memory.

use std::time::Duration;

use fusion_protocol::auth::*;
use fusion_protocol::{Code, Incarnation, Service, UserRef, Uuid};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::peers;
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
    let assertion = assertion(world, sub, world.cluster(cluster).issuer(), scope);
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
    let for_b = assertion(&world, "alice@a.example", world.cluster("b").issuer(), None);
    let (status, _) = token(&world, "a", &[("grant_type", GRANT_ASSERTION), ("assertion", &for_b)]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, body) = token(&world, "a", &[("grant_type", "password")]).await;
    assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!("unsupported_grant_type")));
}

async fn user(world: &World, at: &str, token: &str) -> Result<String, Code> {
    let cluster = world.cluster(at);
    let caller = cluster.verifier.user(cluster, token).await;
    caller.map(|caller| caller.home.to_string()).map_err(|problem| problem.code)
}

async fn admin(world: &World, at: &str, token: &str) -> Result<String, Code> {
    let cluster = world.cluster(at);
    cluster.verifier.admin(cluster, token).await.map(|admin| admin.account).map_err(|problem| problem.code)
}

/// A call of `from` to `to`, as the token was made for and as it arrives.
async fn call(world: &World, to: &str, token: &str, arrives: (&str, &str, &[u8])) -> Result<String, Code> {
    let (cluster, (method, path, body)) = (world.cluster(to), arrives);
    let url = cluster.url(Service::Conv, path);
    let caller = cluster.verifier.cluster(cluster, token, method, url.as_str(), body).await;
    caller.map(|caller| caller.to_string()).map_err(|problem| problem.code)
}

fn signed(world: &World, from: &str, to: &str, method: Method, path: &str, body: &[u8]) -> String {
    let url = world.url(to, Service::Conv, path);
    peers::sign(world.cluster(from), &method, &url, body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_guest_comes_with_an_exchanged_token_of_the_own_cluster() {
    let world = World::new(&["a", "b"]).await;
    let alice = world.user("a", "alice@a.example").await;
    let (status, body) = exchange(&world, "a", &world.token("a", &alice), world.cluster("b").issuer()).await;
    assert_eq!((status, &body["expires_in"]), (StatusCode::OK, &json!(EXCHANGED_TOKEN_SECONDS)));
    assert_eq!(body["issued_token_type"], TOKEN_TYPE_ACCESS);
    let guest = body["access_token"].as_str().unwrap();
    assert_eq!(user(&world, "b", guest).await, Ok("a".into()));
    world.clock.sleep(Duration::from_secs(EXCHANGED_TOKEN_SECONDS + 5)).await;
    assert_eq!(user(&world, "b", guest).await, Err(Code::TokenExpired));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_good_for_one_cluster_only() {
    let world = World::new(&["a", "b", "d"]).await;
    let alice = world.user("a", "alice@a.example").await;
    assert_eq!(user(&world, "b", &world.token("a", &alice)).await, Err(Code::WrongAudience));
    let guest = world.guest_token("a", &alice, "b");
    assert_eq!(user(&world, "d", &guest).await, Err(Code::WrongAudience), "what b got is of no use to b");
    assert_eq!(user(&world, "a", &guest).await, Err(Code::WrongAudience));
}

#[tokio::test(start_paused = true)]
async fn a_foreign_token_is_never_exchanged_and_no_exchange_is_a_refresh() {
    let world = World::new(&["a", "b", "d"]).await;
    let alice = world.user("a", "alice@a.example").await;
    let d = world.cluster("d").issuer();
    let (status, body) = exchange(&world, "b", &world.guest_token("a", &alice, "b"), d).await;
    assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_grant")));
    let (status, _) = exchange(&world, "a", &world.guest_token("a", &alice, "b"), d).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "an exchanged token is not good at home");
    let own = world.token("a", &alice);
    world.clock.sleep(Duration::from_secs(ACCESS_TOKEN_SECONDS - 100)).await;
    let (_, body) = exchange(&world, "a", &own, d).await;
    assert_eq!(body["expires_in"], 100, "never longer than what it is made from");
    let evil = "https://a-auth.provider.example.evil.test";
    let (status, body) = exchange(&world, "a", &own, evil).await;
    assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_target")));
}

#[tokio::test(start_paused = true)]
async fn a_hostile_cluster_speaks_for_nobody_else() {
    let world = World::new(&["a", "b", "c"]).await;
    let alice = world.user("a", "alice@a.example").await;
    for at in ["a", "c"] {
        let forged = world.guest_token("b", &alice, at);
        assert_eq!(user(&world, at, &forged).await, Err(Code::WrongIssuer), "at {at}");
    }
    let nobody = UserRef { user: address("nobody@a.example"), ..alice };
    assert_eq!(user(&world, "c", &world.guest_token("b", &nobody, "c")).await, Err(Code::WrongIssuer));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_issuer_speaks_for_a_claimed_domain_only_after_its_org_said_no() {
    let world = World::new(&["a", "b", "c"]).await;
    let alice = world.user("a", "alice@a.example").await;
    let old = world.user("c", "old@a.example").await;
    assert_eq!(user(&world, "b", &world.guest_token("c", &old, "b")).await, Ok("c".into()));
    assert_eq!(user(&world, "b", &world.guest_token("c", &alice, "b")).await, Err(Code::WrongIssuer));
    let other = world.user("c", "older@a.example").await;
    world.cut("a");
    let unasked = user(&world, "b", &world.guest_token("c", &other, "b")).await;
    assert_eq!(unasked, Err(Code::ResolutionIncomplete), "never accepted unresolved");
}

#[tokio::test(start_paused = true)]
async fn rights_belong_to_a_person_not_to_an_address() {
    let world = World::new(&["a", "b"]).await;
    let alice = world.user("a", "alice@a.example").await;
    let another = UserRef { incarnation: Incarnation(Uuid::from_u128(1)), ..alice.clone() };
    assert_eq!(user(&world, "a", &world.token("a", &another)).await, Err(Code::Unauthorized));
    assert_eq!(user(&world, "b", &world.guest_token("a", &another, "b")).await, Err(Code::WrongIssuer));
    assert_eq!(user(&world, "b", &world.guest_token("a", &alice, "b")).await, Ok("a".into()));
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_token_opens_its_own_doors_only() {
    let world = World::new(&["a"]).await;
    let alice = world.user("a", "alice@a.example").await;
    let (user_token, admin_token) = (world.token("a", &alice), world.admin_token("a"));
    let cluster_token = signed(&world, "a", "a", Method::POST, "/x", b"{}");
    assert_eq!(admin(&world, "a", &admin_token).await, Ok("admin".into()));
    assert_eq!(admin(&world, "a", &user_token).await, Err(Code::Forbidden));
    assert_eq!(admin(&world, "a", &cluster_token).await, Err(Code::Forbidden));
    assert_eq!(user(&world, "a", &admin_token).await, Err(Code::Forbidden));
    assert_eq!(user(&world, "a", &cluster_token).await, Err(Code::Forbidden));
    assert_eq!(call(&world, "a", &user_token, ("POST", "/x", b"{}")).await, Err(Code::Forbidden));
    for nonsense in ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
        assert_eq!(user(&world, "a", nonsense).await, Err(Code::Unauthorized), "{nonsense}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_admins_assertion_gives_an_admins_token() {
    let world = World::new(&["a"]).await;
    let (status, body) = log_in(&world, "a", "root", Some(Scope::Admin)).await;
    assert_eq!((status, &body["scope"]), (StatusCode::OK, &json!("admin")));
    assert_eq!(admin(&world, "a", body["access_token"].as_str().unwrap()).await, Ok("root".into()));
}

#[tokio::test(start_paused = true)]
async fn a_clusters_call_is_bound_to_what_it_says() {
    let world = World::new(&["a", "b", "d"]).await;
    let token = || signed(&world, "a", "b", Method::POST, "/v1/x?y=1", b"{}");
    let unauthorized = Err(Code::Unauthorized);
    assert_eq!(call(&world, "b", &token(), ("PUT", "/v1/x?y=1", b"{}")).await, unauthorized);
    assert_eq!(call(&world, "b", &token(), ("POST", "/v1/x?y=2", b"{}")).await, unauthorized);
    assert_eq!(call(&world, "b", &token(), ("POST", "/v1/x?y=1", b"{ }")).await, unauthorized);
    assert_eq!(call(&world, "d", &token(), ("POST", "/v1/x?y=1", b"{}")).await, Err(Code::WrongAudience));
    assert_eq!(call(&world, "b", &token(), ("POST", "/v1/x?y=1", b"{}")).await, Ok("a".into()));
}

#[tokio::test(start_paused = true)]
async fn a_clusters_call_is_good_once_and_for_a_minute() {
    let world = World::new(&["a", "b"]).await;
    let arrives = ("POST", "/x", b"{}".as_slice());
    let token = signed(&world, "a", "b", Method::POST, "/x", b"{}");
    assert_eq!(call(&world, "b", &token, arrives).await, Ok("a".into()));
    assert_eq!(call(&world, "b", &token, arrives).await, Err(Code::Unauthorized), "a replay");
    let late = signed(&world, "a", "b", Method::POST, "/x", b"{}");
    world.clock.sleep(Duration::from_secs(CLUSTER_TOKEN_SECONDS + 5)).await;
    assert_eq!(call(&world, "b", &late, arrives).await, Err(Code::TokenExpired));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_cannot_give_itself_a_longer_token_or_another_name() {
    let world = World::new(&["a", "b"]).await;
    let now = world.clock.wall().seconds();
    let url = world.url("b", Service::Conv, "/x");
    let claims = ClusterClaims {
        iss: world.cluster("a").issuer().to_owned(),
        aud: world.cluster("b").issuer().to_owned(),
        exp: now + CLUSTER_TOKEN_SECONDS,
        iat: now,
        jti: "1".into(),
        htm: "POST".into(),
        htu: url.to_string(),
        digest: super::digest(b"{}"),
    };
    let key = &world.cluster("a").signing;
    let long = ClusterClaims { exp: now + CLUSTER_TOKEN_SECONDS + 1, ..claims.clone() };
    let others = ClusterClaims { iss: world.cluster("b").issuer().to_owned(), ..claims.clone() };
    let foreign = ClusterClaims { iss: "https://a-auth.provider.example.evil.test".into(), ..claims };
    let arrives = ("POST", "/x", b"{}".as_slice());
    for (claims, expected) in
        [(long, Code::Unauthorized), (others, Code::Unauthorized), (foreign, Code::WrongIssuer)]
    {
        assert_eq!(call(&world, "b", &key.sign(TYP_CLUSTER, &claims), arrives).await, Err(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn keys_of_peers_outlive_a_restart_with_the_peers_away() {
    let mut world = World::new(&["a", "b"]).await;
    let arrives = ("POST", "/x", b"{}".as_slice());
    let token = |world: &World| signed(world, "a", "b", Method::POST, "/x", b"{}");
    world.cut("a");
    assert_eq!(call(&world, "b", &token(&world), arrives).await, Err(Code::PeerUnreachable));
    world.reconnect("a").await;
    world.clock.sleep(Duration::from_secs(1)).await;
    assert_eq!(call(&world, "b", &token(&world), arrives).await, Ok("a".into()));
    world.cut("a");
    world.restart("b").await;
    assert_eq!(call(&world, "b", &token(&world), arrives).await, Ok("a".into()));
}

#[tokio::test(start_paused = true)]
async fn a_clusters_key_outlives_a_restart_and_follows_from_the_seed() {
    let mut world = World::new(&["a", "b"]).await;
    let kid = world.cluster("a").signing.kid().to_owned();
    assert_ne!(kid, world.cluster("b").signing.kid());
    world.restart("a").await;
    assert_eq!(world.cluster("a").signing.kid(), kid);
    assert_eq!(World::new(&["a"]).await.cluster("a").signing.kid(), kid, "the same world, the same key");
}

#[tokio::test(start_paused = true)]
async fn the_server_says_what_it_is_and_shows_its_key() {
    let world = World::new(&["a"]).await;
    let path = "/.well-known/oauth-authorization-server";
    let (_, metadata) = world.get("a", Service::Auth, path, "").await;
    assert_eq!(metadata["issuer"], world.cluster("a").issuer());
    let (_, jwks) = world.get("a", Service::Auth, "/v1/jwks", "").await;
    assert_eq!(jwks["keys"][0]["kid"], world.cluster("a").signing.kid());
}

#[tokio::test(start_paused = true)]
async fn no_token_is_401_and_nothing_of_a_token_is_logged() {
    let world = World::new(&["a"]).await;
    let alice = world.user("a", "alice@a.example").await;
    let path = "/v1/resolve/alice%40a.example";
    let (status, headers, body) =
        world.send(Method::GET, &world.url("a", Service::Users, path), "", None).await;
    assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthorized")));
    assert_eq!(headers["www-authenticate"], "Bearer");
    let token = world.token("a", &alice);
    world.get("a", Service::Users, path, &token).await;
    world.get("a", Service::Users, path, &token[..token.len() - 4]).await;
    let logged = world.probe("a").text();
    assert!(logged.contains("/v1/resolve/{user}"));
    assert!(!logged.contains(&token[..20]) && !logged.contains("alice"));
}
