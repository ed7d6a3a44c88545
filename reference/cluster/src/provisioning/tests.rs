//! What SPEC says of provisioning, shown by clusters in memory.

use fusion_protocol::provisioning::SCHEMA_USER;
use fusion_protocol::{Service, Url};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::testing::*;
use crate::users;

const USERS: &str = "/scim/v2/Users";

fn user(name: &str) -> Value {
    json!({ "schemas": [SCHEMA_USER], "userName": name, "displayName": "Somebody" })
}

async fn add(world: &World, cluster: &str, name: &str) -> (StatusCode, Value) {
    world.post(cluster, Service::Provisioning, USERS, &world.admin_token(cluster), user(name)).await
}

async fn incarnation(world: &World, cluster: &str, name: &str) -> fusion_protocol::Incarnation {
    users::resolve(world.cluster(cluster), &address(name)).await.unwrap().record.incarnation
}

#[tokio::test(start_paused = true)]
async fn an_admin_adds_finds_and_deletes_a_user() {
    let world = World::new(&["a"]).await;
    let admin = world.admin_token("a");
    let (status, made) = add(&world, "a", "Alice@A.example").await;
    assert_eq!((status, &made["userName"]), (StatusCode::CREATED, &json!("alice@a.example")));
    let location: Url = made["meta"]["location"].as_str().unwrap().parse().unwrap();
    let (status, headers, read) = world.send(Method::GET, &location, &admin, None).await;
    assert_eq!((status, &read), (StatusCode::OK, &made));
    assert_eq!(headers["etag"], made["meta"]["version"].as_str().unwrap());
    let filter = format!("{USERS}?filter=userName%20eq%20%22ALICE@a.example%22");
    let (_, found) = world.get("a", Service::Provisioning, &filter, &admin).await;
    assert_eq!((&found["totalResults"], &found["Resources"][0]), (&json!(1), &made));
    let (status, ..) = world.send(Method::DELETE, &location, &admin, None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, _, body) = world.send(Method::GET, &location, &admin, None).await;
    assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!("user-unknown")));
}

#[tokio::test(start_paused = true)]
async fn an_address_is_added_once_however_it_is_spelt() {
    let world = World::new(&["a"]).await;
    add(&world, "a", "alice@a.example").await;
    let (status, body) = add(&world, "a", "ALICE@A.Example").await;
    assert_eq!((status, &body["scimType"]), (StatusCode::CONFLICT, &json!("uniqueness")));
    assert_eq!(body["code"], "already-exists");
}

#[tokio::test(start_paused = true)]
async fn a_new_person_at_an_old_address_inherits_nothing() {
    let world = World::new(&["a"]).await;
    let (_, first) = add(&world, "a", "alice@a.example").await;
    let alice = fusion_protocol::UserRef {
        user: address("alice@a.example"),
        incarnation: incarnation(&world, "a", "alice@a.example").await,
    };
    let token = world.token("a", &alice);
    let location: Url = first["meta"]["location"].as_str().unwrap().parse().unwrap();
    world.send(Method::DELETE, &location, &world.admin_token("a"), None).await;
    let (status, second) = add(&world, "a", "alice@a.example").await;
    assert_eq!(status, StatusCode::CREATED);
    assert_ne!(first["id"], second["id"]);
    assert_ne!(incarnation(&world, "a", "alice@a.example").await, alice.incarnation);
    let path = "/v1/resolve/alice%40a.example";
    let (status, _) = world.get("a", Service::Users, path, &token).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "the old token died with the old person");
}

#[tokio::test(start_paused = true)]
async fn only_an_admin_of_the_org_that_owns_the_domain_adds_users() {
    let world = World::new(&["a", "b", "c"]).await;
    let (status, body) = add(&world, "a", "bob@b.example").await;
    assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")));
    let (status, _) = add(&world, "a", "bob@mail.example").await;
    assert_eq!(status, StatusCode::FORBIDDEN, "nobody's domain is the consumer org's");
    let alice = world.user("a", "alice@a.example").await;
    let refused = [
        (String::new(), StatusCode::UNAUTHORIZED),
        (world.token("a", &alice), StatusCode::FORBIDDEN),
        (world.admin_token("b"), StatusCode::UNAUTHORIZED),
    ];
    for (token, expected) in refused {
        let body = user("eve@a.example");
        let (status, body) = world.post("a", Service::Provisioning, USERS, &token, body).await;
        assert_eq!(status, expected, "{body}");
        assert_eq!(body["schemas"], json!(["urn:ietf:params:scim:api:messages:2.0:Error"]));
    }
}

#[tokio::test(start_paused = true)]
async fn the_consumer_org_takes_whom_no_org_serves() {
    let world = World::new(&["a", "c"]).await;
    world.user("a", "alice@a.example").await;
    assert_eq!(add(&world, "c", "bob@mail.example").await.0, StatusCode::CREATED);
    assert_eq!(add(&world, "c", "old@a.example").await.0, StatusCode::CREATED);
    assert_eq!(add(&world, "c", "alice@a.example").await.0, StatusCode::FORBIDDEN);
    world.cut("a");
    let (status, body) = add(&world, "c", "new@a.example").await;
    assert_eq!((status, &body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("resolution-incomplete")));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_its_org_takes_over_leads_to_somebody_new() {
    let world = World::new(&["a", "b", "c"]).await;
    let old = world.user("c", "eve@a.example").await;
    let asked = world.url("c", Service::Users, "/v1/users/eve%40a.example");
    let ask = || crate::peers::call(world.cluster("b"), Method::GET, &asked, &());
    assert!(ask().await.is_ok(), "nobody else has the address yet");
    assert_eq!(add(&world, "a", "eve@a.example").await.0, StatusCode::CREATED);
    for from in ["a", "b", "c"] {
        let found = users::resolve(world.cluster(from), &address("eve@a.example")).await.unwrap().record;
        assert_eq!(found.cluster.as_str(), "a");
        assert_ne!(found.incarnation, old.incarnation, "from {from}");
    }
    let Err(crate::peers::PeerError::Refused(problem)) = ask().await else { panic!("still answered for") };
    assert_eq!(problem.code, fusion_protocol::Code::WrongCluster);
    assert_eq!(problem.member::<Vec<String>>("clusters"), Some(vec!["a".to_owned()]));
    let index = "/v1/users/eve%40a.example/index";
    let (status, _) = world.get("c", Service::Conv, index, &world.token("c", &old)).await;
    assert_eq!(status, StatusCode::OK, "who had the account can still take out what is in it");
    world.cut("a");
    let Err(crate::peers::PeerError::Refused(problem)) = ask().await else { panic!("answered unasked") };
    assert_eq!(problem.code, fusion_protocol::Code::ResolutionIncomplete);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_user_is_refused_with_a_reason() {
    let world = World::new(&["a"]).await;
    let admin = world.admin_token("a");
    for (body, code) in [
        (json!({ "schemas": [SCHEMA_USER], "userName": "alice" }), "bad-request"),
        (json!({ "schemas": [], "userName": "alice@a.example" }), "bad-request"),
        (json!({ "schemas": [SCHEMA_USER] }), "unprocessable"),
    ] {
        let (status, body) = world.post("a", Service::Provisioning, USERS, &admin, body).await;
        assert!(status.is_client_error() && body["code"] == code, "{status} {body}");
        assert!(!body.to_string().contains("alice"));
    }
    assert!(!world.probe("a").text().contains("alice"), "PRI-005");
}

#[tokio::test(start_paused = true)]
async fn the_service_says_what_it_serves() {
    let world = World::new(&["a"]).await;
    let (status, body) = world.get("a", Service::Provisioning, "/scim/v2/ServiceProviderConfig", "").await;
    assert_eq!((status, &body["patch"]["supported"]), (StatusCode::OK, &json!(false)));
    let (_, body) = world.get("a", Service::Provisioning, "/scim/v2/Schemas", "").await;
    assert_eq!(body["Resources"][0]["id"], SCHEMA_USER);
}

#[tokio::test(start_paused = true)]
async fn one_address_added_to_two_clusters_at_once_is_in_one() {
    let mut world = World::new(&["a", "b", "d"]).await;
    world.claim("corp.example", &["a", "b", "d"]).await;
    for round in 0..10 {
        let name = format!("user{round}@corp.example");
        let (b, d) = tokio::join!(add(&world, "b", &name), add(&world, "d", &name));
        assert_eq!(
            [b.0, d.0].iter().filter(|status| **status == StatusCode::CREATED).count(),
            1,
            "{b:?} {d:?}"
        );
        let (won, lost) = if b.0 == StatusCode::CREATED { ("b", d) } else { ("d", b) };
        assert_eq!(lost.1["code"], "already-exists");
        let home = users::resolve(world.cluster("a"), &address(&name)).await.unwrap().record.cluster;
        assert_eq!(home.as_str(), won);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_users_address_is_free_for_any_cluster_of_the_org() {
    let mut world = World::new(&["a", "b"]).await;
    world.claim("corp.example", &["a", "b"]).await;
    let (_, made) = add(&world, "b", "alice@corp.example").await;
    let location: Url = made["meta"]["location"].as_str().unwrap().parse().unwrap();
    world.cut("a");
    let (status, ..) = world.send(Method::DELETE, &location, &world.admin_token("b"), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "with the registrar away");
    world.reconnect("a").await;
    world.clock.sleep(std::time::Duration::from_secs(20)).await;
    assert_eq!(add(&world, "a", "alice@corp.example").await.0, StatusCode::CREATED);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_cluster_takes_no_place() {
    let mut world = World::new(&["a", "b", "d"]).await;
    world.claim("corp.example", &["a", "b"]).await;
    let url = world.url("a", Service::Users, "/v1/places/alice%40corp.example");
    let answer = crate::peers::call(world.cluster("d"), Method::PUT, &url, &()).await;
    let Err(crate::peers::PeerError::Refused(problem)) = answer else { panic!("{answer:?}") };
    assert_eq!(problem.code, fusion_protocol::Code::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn an_erasure_that_a_crash_broke_off_is_finished_after_the_restart() {
    let mut world = World::new(&["a"]).await;
    let (_, made) = add(&world, "a", "alice@a.example").await;
    let cluster = world.cluster("a").clone();
    let id = made["id"].as_str().unwrap().parse().unwrap();
    let row = users::by_id(&cluster, id).await.unwrap().unwrap();
    assert_eq!(super::erasure::delete(&cluster, &row).await.unwrap(), crate::rows::Committed::Yes);
    let left =
        |world: &World| world.store("a").snapshot().keys().filter(|key| key.parts()[0] == b"erasing").count();
    assert_eq!(left(&world), 1);
    world.restart("a").await;
    world.clock.sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(left(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_users_index_is_empty_for_the_next_person() {
    let world = World::new(&["a"]).await;
    let alice = world.user("a", "alice@a.example").await;
    let (_, made) = add(&world, "a", "bob@a.example").await;
    let person = |incarnation| fusion_protocol::UserRef { user: address("bob@a.example"), incarnation };
    let old = person(incarnation(&world, "a", "bob@a.example").await);
    let create = json!({ "participants": ["bob@a.example"], "kind": "oneToOne" });
    let token = world.token("a", &alice);
    let (status, body) = world.post("a", Service::Conv, "/v1/conversations", &token, create).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let index = "/v1/users/bob%40a.example/index";
    let (status, body) = world.get("a", Service::Conv, index, &world.token("a", &old)).await;
    assert_eq!((status, body["entries"].as_array().map(Vec::len)), (StatusCode::OK, Some(1)), "{body}");
    let location: Url = made["meta"]["location"].as_str().unwrap().parse().unwrap();
    world.send(Method::DELETE, &location, &world.admin_token("a"), None).await;
    add(&world, "a", "bob@a.example").await;
    let new = person(incarnation(&world, "a", "bob@a.example").await);
    let (status, body) = world.get("a", Service::Conv, index, &world.token("a", &new)).await;
    assert_eq!((status, body["entries"].as_array().map(Vec::len)), (StatusCode::OK, Some(0)), "{body}");
}
