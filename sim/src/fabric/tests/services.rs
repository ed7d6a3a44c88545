//! Real services over the fabric: an axum router, the pooled client, WebSockets.

use axum::Router;
use axum::http::Request;
use axum::routing::get;
use bytes::Bytes;
use fusion_runtime::http::{Client, serve};
use fusion_runtime::ws;

use super::*;

async fn get_hello(client: &Client) -> Option<Bytes> {
    let request = Request::get("https://b.example/hello").body(Bytes::new()).unwrap();
    Some(client.send(request).await.ok()?.into_body())
}

#[test]
fn a_router_answers_through_faults_that_heal() {
    let pair = Pair::new(1);
    pair.world.publish("b.example", [ip(2)]);
    pair.world.run(async {
        let router = || Router::new().route("/hello", get(|| async { "hello" }));
        serve(&pair.b, at(2), router()).await.unwrap();
        let client = Client::new(&pair.a);
        for _ in 0..10 {
            assert_eq!(get_hello(&client).await.unwrap(), "hello");
        }
        assert_eq!(pair.world.wire_counts().connections_opened, 1, "the client keeps its connection");

        let id = pair.world.inject(&pair.partition()).await.unwrap();
        let heal = async {
            pair.world.clock().sleep(ms(3_000)).await;
            pair.world.heal(id).await.unwrap();
        };
        assert_eq!(tokio::join!(get_hello(&client), heal).0.unwrap(), "hello");

        pair.world.crash("b").await.unwrap();
        assert_eq!(get_hello(&client).await, None);
        let again = pair.world.restart("b").await.unwrap();
        serve(&again, at(2), router()).await.unwrap();
        assert_eq!(get_hello(&client).await.unwrap(), "hello");
    });
}

#[test]
fn a_web_socket_stays_open_through_a_partition_and_closes_with_its_machine() {
    let pair = Pair::new(1);
    pair.world.publish("b.example", [ip(2)]);
    pair.world.run(async {
        let machine = pair.b.clone();
        let upgrade = move |request: Request<axum::body::Body>| async move {
            ws::accept(&machine, request, |mut socket: ws::Socket| async move {
                while let Some(Ok(text)) = socket.recv_text().await {
                    let _ = socket.send(&text).await;
                }
            })
        };
        serve(&pair.b, at(2), Router::new().route("/socket", get(upgrade))).await.unwrap();
        let mut socket = ws::connect(&pair.a, &"wss://b.example/socket".parse().unwrap()).await.unwrap();
        let id = pair.world.inject(&pair.partition()).await.unwrap();
        socket.send("hello").await.unwrap();
        pair.world.clock().sleep(ms(5_000)).await;
        pair.world.heal(id).await.unwrap();
        assert_eq!(socket.recv_text().await.unwrap().unwrap(), "hello");
        pair.world.crash("b").await.unwrap();
        assert!(!matches!(socket.recv_text().await, Some(Ok(_))));
    });
}
