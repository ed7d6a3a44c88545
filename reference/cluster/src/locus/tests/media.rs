//! Media legs: opened with a join, closed with the call, moved when a relay fails (MED).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, post};
use fusion_protocol::media::{Leg, Life, OpenLeg};
use fusion_protocol::{Url, Uuid};
use fusion_runtime::http as server;
use futures_util::stream::{self, StreamExt as _};
use http::StatusCode;

use super::calls::Stage;
use crate::reply::{JsonBody, json};
use crate::testing::World;

/// A relay's control interface that only keeps the books. It asks for no token.
#[derive(Clone, Default)]
struct Books(Arc<Mutex<BTreeMap<Uuid, OpenLeg>>>, Uuid);

async fn open(State(books): State<Books>, JsonBody(open): JsonBody<OpenLeg>) -> Response {
    let leg = Leg {
        id: open.id,
        udp_address: SocketAddr::from(([192, 0, 2, 1], 4_000)),
        token: format!("token of {}", open.id),
        ssrc: 7,
    };
    books.0.lock().unwrap().insert(open.id, open);
    json(StatusCode::CREATED, &leg)
}

async fn life(State(books): State<Books>) -> Response {
    json(StatusCode::OK, &Life { life: books.1 })
}

async fn close_leg(State(books): State<Books>, Path(id): Path<Uuid>) -> Response {
    books.0.lock().unwrap().remove(&id);
    StatusCode::NO_CONTENT.into_response()
}

async fn close_instance(State(books): State<Books>, Path((locus, instance)): Path<(Uuid, u64)>) -> Response {
    books.0.lock().unwrap().retain(|_, leg| leg.locus != locus || leg.instance.0 != instance);
    StatusCode::NO_CONTENT.into_response()
}

fn relay_url(number: u8) -> Url {
    format!("https://a-relay{number}.provider.example/").parse().unwrap()
}

impl Books {
    async fn serve(&self, world: &World, number: u8) {
        self.serve_with(world, number, get(life)).await;
    }

    async fn serve_with(&self, world: &World, number: u8, life: MethodRouter<Self>) {
        let at = SocketAddr::from(([10, 1, 0, number], 443));
        world.net.name(&format!("a-relay{number}.provider.example"), at);
        let routes = Router::new()
            .route("/v1/legs", post(open))
            .route("/v1/legs/{id}", delete(close_leg))
            .route("/v1/instances/{locus}/{instance}", delete(close_instance))
            .route("/v1/life", life)
            .with_state(self.clone());
        server::serve(&world.client, at, routes).await.unwrap();
    }

    fn legs(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

async fn world(relays: u8) -> World {
    let urls: Vec<Url> = (1..=relays).map(relay_url).collect();
    World::with_relays(&["a", "b"], &urls).await
}

#[tokio::test(start_paused = true)]
async fn a_join_opens_a_leg_and_the_end_closes_all() {
    let (world, books) = (world(1).await, Books::default());
    books.serve(&world, 1).await;
    let stage = Stage::pair_in(world).await;
    let leg = stage.join("alice", 0).await.leg.unwrap();
    let other = stage.join("bob", 0).await.leg.unwrap();
    assert_ne!(leg.id, other.id);
    assert_eq!(stage.join("alice", 0).await.leg, Some(leg), "joining again gives the leg again");
    assert_eq!(books.legs(), 2);
    stage.hang_up("bob", 1).await;
    stage.pass(1).await;
    assert_eq!(books.legs(), 0, "MED-001: within one second");
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_through_without_media_when_no_relay_is_up() {
    let stage = Stage::pair_in(world(2).await).await;
    assert_eq!(stage.join("alice", 0).await.leg, None);
    assert_eq!(stage.join("bob", 0).await.leg, None);
    stage.hang_up("alice", 1).await;
}

#[tokio::test(start_paused = true)]
async fn the_next_relay_takes_over_from_one_that_fails() {
    let (world, books) = (world(2).await, Books::default());
    books.serve(&world, 2).await;
    let stage = Stage::pair_in(world).await;
    assert!(stage.join("alice", 0).await.leg.is_some());
    assert!(stage.join("bob", 0).await.leg.is_some());
    assert_eq!(books.legs(), 2, "both are at the same relay");
    assert_eq!(stage.read().await.instance.0, 1, "MED-004: the call is the same");
}

#[tokio::test(start_paused = true)]
async fn a_call_leaves_a_relay_that_dies_without_anybodys_asking() {
    let (world, dead, alive) = (world(2).await, Books::default(), Books::default());
    dead.serve(&world, 1).await;
    alive.serve(&world, 2).await;
    let stage = Stage::pair_in(world).await;
    stage.join("alice", 0).await;
    stage.join("bob", 0).await;
    let before = stage.read().await;
    stage.world.net.unplug(SocketAddr::from(([10, 1, 0, 1], 443)));
    stage.pass(1).await;
    let after = stage.read().await;
    assert_eq!(after.instance, before.instance, "MED-004: the call is the same");
    assert!(after.rev > before.rev, "its devices are told");
    stage.join("alice", 0).await;
    assert_eq!(alive.legs(), 1);
}

/// Its connections stay open, and nothing comes over them any more.
#[tokio::test(start_paused = true)]
async fn a_call_leaves_a_relay_that_falls_silent() {
    let (world, alive, asked) = (world(2).await, Books::default(), Arc::new(AtomicU32::new(0)));
    let counted = asked.clone();
    let life = move |RawQuery(query): RawQuery| async move {
        let said = [Bytes::from(r#"{"life":"#), Bytes::from(format!(r#""{}"}}"#, Uuid::from_u128(1)))];
        let said = stream::iter(said.map(Ok::<_, std::io::Error>));
        match query.map(|_| counted.fetch_add(1, Ordering::Relaxed)) {
            // Whoever chooses a relay.
            None => Body::from_stream(said),
            Some(0) => Body::from_stream(said.chain(stream::pending())),
            Some(_) => std::future::pending().await,
        }
    };
    Books::default().serve_with(&world, 1, get(life)).await;
    alive.serve(&world, 2).await;
    let stage = Stage::pair_in(world).await;
    stage.join("alice", 0).await;
    let before = stage.read().await;
    stage.pass(2).await;
    let after = stage.read().await;
    assert_eq!((after.instance, after.rev), (before.instance, before.rev.next()), "MED-004");
    assert_eq!(asked.load(Ordering::Relaxed), 2, "once more, and not for ever");
    stage.join("alice", 0).await;
    assert_eq!(alive.legs(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_listens_for_ever_to_a_relay_that_says_too_much() {
    let (world, asked) = (world(1).await, Arc::new(AtomicU32::new(0)));
    let counted = asked.clone();
    let life = move |RawQuery(query): RawQuery| async move {
        let said = Bytes::from(format!(r#"{{"life":"{}"}}"#, Uuid::from_u128(1)));
        let said = stream::iter([Ok::<_, std::io::Error>(said)]);
        match query.map(|_| counted.fetch_add(1, Ordering::Relaxed)) {
            None => Body::from_stream(said),
            Some(_) => {
                Body::from_stream(said.chain(stream::repeat_with(|| Ok(Bytes::from_static(&[b'\n'; 100])))))
            }
        }
    };
    Books::default().serve_with(&world, 1, get(life)).await;
    let stage = Stage::pair_in(world).await;
    stage.join("alice", 0).await;
    stage.pass(10).await;
    let asked = asked.load(Ordering::Relaxed);
    assert!((20..=45).contains(&asked), "it is heard as one that does not beat: {asked}");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_stays_away_is_not_stormed() {
    let (world, books) = (world(1).await, Books::default());
    books.serve(&world, 1).await;
    let stage = Stage::pair_in(world).await;
    stage.join("alice", 0).await;
    let looks = Arc::new(AtomicU32::new(0));
    let counted = looks.clone();
    let refuse = move || async move {
        counted.fetch_add(1, Ordering::Relaxed);
        StatusCode::SERVICE_UNAVAILABLE
    };
    let at = SocketAddr::from(([10, 1, 0, 1], 443));
    stage.world.net.unplug(at);
    let routes = Router::new().route("/v1/life", get(refuse));
    server::serve(&stage.world.client, at, routes).await.unwrap();
    stage.pass(10).await;
    let looks = looks.load(Ordering::Relaxed);
    assert!((20..=45).contains(&looks), "it is looked at four times a second: {looks}");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_was_started_anew_gives_its_legs_again() {
    let world = world(1).await;
    Books::default().serve(&world, 1).await;
    let stage = Stage::pair_in(world).await;
    stage.join("alice", 0).await;
    stage.pass(1).await;
    let before = stage.read().await;
    stage.world.net.unplug(SocketAddr::from(([10, 1, 0, 1], 443)));
    Books(Arc::default(), Uuid::from_u128(1)).serve(&stage.world, 1).await;
    stage.pass(1).await;
    let after = stage.read().await;
    assert_eq!((after.instance, after.rev), (before.instance, before.rev.next()), "told, and told once");
}

#[tokio::test(start_paused = true)]
async fn a_dead_relay_does_not_keep_the_legs_of_another_open() {
    let (world, dead, alive) = (world(2).await, Books::default(), Books::default());
    dead.serve(&world, 1).await;
    alive.serve(&world, 2).await;
    let stage = Stage::pair_in(world).await;
    stage.join("alice", 0).await;
    stage.world.net.unplug(SocketAddr::from(([10, 1, 0, 1], 443)));
    stage.join("bob", 0).await;
    assert_eq!((dead.legs(), alive.legs()), (1, 1), "the second relay has taken over");
    stage.hang_up("alice", 1).await;
    stage.pass(1).await;
    assert_eq!((dead.legs(), alive.legs()), (1, 0), "MED-001: within one second");
}

#[tokio::test(start_paused = true)]
async fn legs_left_over_from_a_crash_are_closed_after_it() {
    let (world, books) = (world(1).await, Books::default());
    books.serve(&world, 1).await;
    let mut stage = Stage::pair_in(world).await;
    stage.join("alice", 0).await;
    stage.world.net.unplug(SocketAddr::from(([10, 1, 0, 1], 443)));
    stage.hang_up("alice", 1).await;
    stage.pass(1).await;
    assert_eq!(books.legs(), 1, "the relay could not be told");
    stage.world.restart("a").await;
    books.serve(&stage.world, 1).await;
    stage.pass(2).await;
    assert_eq!(books.legs(), 0);
}
