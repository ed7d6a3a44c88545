//! What SPEC says of the maps, shown by clusters in memory.

use fusion_protocol::{Code, Service, UserRef};
use http::StatusCode;
use serde_json::json;

use super::{resolve, resolve_again};
use crate::testing::*;

async fn code(world: &World, from: &str, user: &str) -> Result<String, Code> {
    let resolved = resolve(world.cluster(from), &address(user)).await;
    resolved.map(|resolution| resolution.record.cluster.to_string()).map_err(|problem| problem.code)
}

#[tokio::test(start_paused = true)]
async fn every_cluster_finds_the_same_user_in_the_same_cluster() {
    let world = World::new(&["a", "b", "c"]).await;
    world.user("a", "alice@a.example").await;
    world.user("c", "bob@mail.example").await;
    world.user("c", "old@a.example").await;
    for from in ["a", "b", "c"] {
        assert_eq!(code(&world, from, "Alice@A.EXAMPLE").await, Ok("a".into()), "step 2 from {from}");
        assert_eq!(code(&world, from, "old@a.example").await, Ok("c".into()), "step 3 from {from}");
        assert_eq!(code(&world, from, "bob@mail.example").await, Ok("c".into()), "step 4 from {from}");
        assert_eq!(code(&world, from, "nobody@mail.example").await, Err(Code::UserUnknown));
        assert_eq!(code(&world, from, "nobody@a.example").await, Err(Code::UserUnknown));
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_cannot_be_executed_is_never_an_unknown_user() {
    let world = World::new(&["a", "b", "c"]).await;
    world.user("b", "bob@b.example").await;
    world.cut("b");
    assert_eq!(code(&world, "a", "bob@b.example").await, Err(Code::ResolutionIncomplete));
    world.reconnect("b").await;
    assert_eq!(code(&world, "a", "bob@b.example").await, Ok("b".into()), "the failure is not remembered");
}

#[tokio::test(start_paused = true)]
async fn a_user_found_before_is_found_while_its_cluster_is_away() {
    let world = World::new(&["a", "b"]).await;
    world.user("b", "bob@b.example").await;
    assert_eq!(code(&world, "a", "bob@b.example").await, Ok("b".into()));
    world.cut("b");
    assert_eq!(code(&world, "a", "bob@b.example").await, Ok("b".into()));
    world.clock.sleep(std::time::Duration::from_secs(301)).await;
    assert_eq!(code(&world, "a", "bob@b.example").await, Err(Code::ResolutionIncomplete));
}

#[tokio::test(start_paused = true)]
async fn an_org_with_several_clusters_answers_for_all_of_them() {
    let mut world = World::new(&["a", "b", "d"]).await;
    world.claim("corp.example", &["a", "b"]).await;
    world.user("b", "bob@corp.example").await;
    for from in ["a", "b", "d"] {
        assert_eq!(code(&world, from, "bob@corp.example").await, Ok("b".into()), "from {from}");
        assert_eq!(code(&world, from, "nobody@corp.example").await, Err(Code::UserUnknown), "from {from}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_cluster_says_which_to_ask_and_nothing_else() {
    let world = World::new(&["a", "b"]).await;
    let alice = world.user("a", "alice@a.example").await;
    let token = world.token("a", &alice);
    let (status, body) = world.get("a", Service::Users, "/v1/users/bob%40b.example", &token).await;
    assert_eq!((status, &body["code"]), (StatusCode::MISDIRECTED_REQUEST, &json!("wrong-cluster")));
    assert_eq!(body["clusters"], json!(["b"]));
}

#[tokio::test(start_paused = true)]
async fn the_user_map_answers_clusters_and_its_own_users_only() {
    let world = World::new(&["a", "b"]).await;
    let alice = world.user("a", "alice@a.example").await;
    let bob = world.user("b", "bob@b.example").await;
    let path = "/v1/users/alice%40a.example";
    let (status, _) = world.get("a", Service::Users, path, "").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, _) = world.get("a", Service::Users, path, &world.guest_token("b", &bob, "a")).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "a guest asks at home");
    let (status, body) = world.get("a", Service::Users, path, &world.token("a", &alice)).await;
    assert_eq!((status, &body["cluster"]), (StatusCode::OK, &json!("a")));
    let (status, _) = world.get("a", Service::Users, "/v1/users", &world.token("a", &alice)).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "the map never lists");
}

#[tokio::test(start_paused = true)]
async fn login_discovery_tells_the_domain_and_never_the_user() {
    let world = World::new(&["a", "c"]).await;
    world.user("a", "alice@a.example").await;
    let (status, body) = world.get("c", Service::Users, "/v1/login?domain=A.example", "").await;
    assert_eq!(status, StatusCode::OK);
    let servers = ["https://a-auth.provider.example/", "https://c-auth.provider.example/"];
    assert_eq!(body, json!({ "authorizationServers": servers }));
    let (status, _) = world.get("c", Service::Users, "/v1/login?domain=alice@a.example", "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn the_replica_outlives_a_restart_and_never_goes_back() {
    let mut world = World::new(&["a", "b"]).await;
    world.claim("late.example", &["b"]).await;
    world.user("b", "bob@late.example").await;
    world.restart("a").await;
    let resolution = resolve(world.cluster("a"), &address("bob@late.example")).await.unwrap();
    assert_eq!((resolution.map_version.0, resolution.stale), (3, true));
    let cluster = world.cluster("a");
    let older = fusion_protocol::map::DomainFeed {
        version: fusion_protocol::Count(1),
        changes: Vec::new(),
        consumer_clusters: Vec::new(),
    };
    cluster.map.apply(&cluster.host, older).await.unwrap();
    assert_eq!(cluster.map.version().0, 3);
}

#[tokio::test(start_paused = true)]
async fn a_new_person_at_an_old_address_is_found_by_asking_again() {
    let world = World::new(&["a", "b"]).await;
    let bob = world.user("b", "bob@b.example").await;
    resolve(world.cluster("a"), &bob.user).await.unwrap();
    let cluster = world.cluster("b");
    let mut batch = fusion_runtime::store::Batch::default();
    super::remove(&mut batch, &super::served_here(cluster, &bob.user).await.unwrap());
    cluster.host.store.commit(batch).await.unwrap();
    let UserRef { incarnation, .. } = world.user("b", "bob@b.example").await;
    world.clock.sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(resolve(world.cluster("a"), &bob.user).await.unwrap().record.incarnation, bob.incarnation);
    let again = resolve_again(world.cluster("a"), &bob.user).await.unwrap();
    assert_eq!(again.record.incarnation, incarnation);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_refused_with_a_problem() {
    let world = World::new(&["a"]).await;
    let alice = world.user("a", "alice@a.example").await;
    let token = world.token("a", &alice);
    for (path, expected) in [
        ("/v1/users/%ff%fe", "bad-request"),
        ("/v1/users/alice", "unprocessable"),
        ("/v1/users/alice%40a.example?reach=x&reach=y", "bad-request"),
        ("/v1/nothing", "not-found"),
    ] {
        let (status, body) = world.get("a", Service::Users, path, &token).await;
        assert!(status.is_client_error() && body["code"] == expected, "{path} {status} {body}");
    }
}
