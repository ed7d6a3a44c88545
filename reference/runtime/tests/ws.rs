//! WebSockets: both sides against each other, and against a peer that does not behave.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod support;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get as on_get;
use fusion_runtime::Host;
use fusion_runtime::http::{Client, ClientError, Serving, serve};
use fusion_runtime::ws::{self, Frame, Socket, WsError};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, StatusCode};
use support::{PipeNet, at, get, machine};
use tokio_tungstenite::tungstenite::Message;

/// A server whose `/ws` echoes, closes with 4001 on `bye`, and tells what went wrong on `/verdict`.
async fn server(host: &Host) -> Serving {
    let upgrade = {
        let host = host.clone();
        async move |request: Request<Body>| ws::accept(&host, request, echo)
    };
    let silent = {
        let host = host.clone();
        let clock = host.clock.clone();
        async move |request: Request<Body>| {
            ws::accept(&host, request, async move |socket| {
                clock.sleep(Duration::from_secs(3_600)).await;
                drop(socket);
            })
        }
    };
    let router = Router::new()
        .route("/ws", on_get(upgrade))
        .route("/silent", on_get(silent))
        .route("/locked", on_get(async || StatusCode::UNAUTHORIZED));
    serve(host, at(), router).await.unwrap()
}

async fn echo(mut socket: Socket) {
    while let Some(frame) = socket.recv().await {
        let answered = match frame {
            Ok(Frame::Text(text)) if text == "bye" => socket.close(4001, "as you wish").await,
            Ok(Frame::Text(text)) => socket.send(&text).await,
            Ok(_) => Ok(()),
            Err(error) => socket.close(1009, &error.to_string()).await,
        };
        if answered.is_err() {
            return;
        }
    }
}

async fn open(host: &Host, path: &str) -> Result<Socket, ClientError> {
    ws::connect(host, &format!("wss://a.test:8443{path}").parse().unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn texts_go_both_ways_and_pings_are_answered() {
    let host = machine(&PipeNet::default());
    server(&host).await;
    let mut socket = open(&host, "/ws").await.unwrap();
    let longest = "x".repeat(64 << 10);
    for text in ["", "Grüße", &longest] {
        socket.send(text).await.unwrap();
        assert_eq!(socket.recv().await, Some(Ok(Frame::Text(text.to_owned()))));
    }
    socket.ping().await.unwrap();
    assert_eq!(socket.recv().await, Some(Ok(Frame::Pong)));
}

#[tokio::test(start_paused = true)]
async fn a_close_arrives_with_its_code_and_is_the_last_thing() {
    let host = machine(&PipeNet::default());
    let serving = server(&host).await;
    let mut socket = open(&host, "/ws").await.unwrap();
    assert_eq!(serving.connections(), 1, "a WebSocket counts as a connection");
    socket.send("bye").await.unwrap();
    assert_eq!(socket.recv().await, Some(Ok(Frame::Close { code: 4001, reason: "as you wish".to_owned() })));
    assert_eq!(socket.recv().await, None);
    serving.drained().await;
}

#[tokio::test(start_paused = true)]
async fn two_tasks_use_the_two_halves() {
    const TEXTS: u64 = 500;
    let host = machine(&PipeNet::default());
    server(&host).await;
    let (mut sender, mut receiver) = open(&host, "/ws").await.unwrap().split();
    let sending = host.tasks.spawn(async move {
        for number in 0..TEXTS {
            sender.send(&format!("{number} {}", "x".repeat(500))).await.unwrap();
        }
        sender
    });
    for number in 0..TEXTS {
        match receiver.recv().await {
            Some(Ok(Frame::Text(text))) => assert!(text.starts_with(&format!("{number} ")), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(sending.join().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn giving_up_waiting_loses_no_frame() {
    let host = machine(&PipeNet::default());
    server(&host).await;
    let mut socket = open(&host, "/ws").await.unwrap();
    for number in 0..50 {
        socket.send(&format!("{number} {}", "x".repeat(30_000))).await.unwrap();
        let text = loop {
            // Polled once and dropped, again and again.
            tokio::select! {
                biased;
                received = socket.recv() => break received,
                () = tokio::task::yield_now() => {}
            }
        };
        assert!(matches!(text, Some(Ok(Frame::Text(text))) if text.starts_with(&format!("{number} "))));
    }
}

/// MER-004: a slow device never delays another.
#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_holds_up_its_own_sender_only() {
    let host = machine(&PipeNet::default());
    server(&host).await;
    let mut stuck = open(&host, "/silent").await.unwrap();
    let text = "x".repeat(60 << 10);
    let sending = async {
        for _ in 0..10 {
            stuck.send(&text).await.unwrap();
        }
    };
    assert!(host.clock.timeout(Duration::from_secs(5), sending).await.is_err(), "back-pressure, not memory");
    let mut other = open(&host, "/ws").await.unwrap();
    other.send("hello").await.unwrap();
    assert_eq!(other.recv_text().await, Some(Ok("hello".to_owned())));
}

/// SEC-007: frames of at most 64 KiB.
#[tokio::test(start_paused = true)]
async fn a_longer_frame_is_refused_on_both_sides() {
    let host = machine(&PipeNet::default());
    server(&host).await;
    let long = "x".repeat((64 << 10) + 1);
    let mut socket = open(&host, "/ws").await.unwrap();
    assert_eq!(socket.send(&long).await, Err(WsError::TooLarge));
    socket.send("still there").await.unwrap();
    assert_eq!(socket.recv_text().await, Some(Ok("still there".to_owned())));

    let mut rude = rude_peer(&host).await;
    // It may be cut off while it is still sending.
    let _ = rude.send(Message::text(long)).await;
    match rude.next().await {
        Some(Ok(Message::Close(Some(close)))) => assert_eq!(u16::from(close.code), 1009),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn binary_frames_are_not_spoken_here() {
    let host = machine(&PipeNet::default());
    server(&host).await;
    let mut rude = rude_peer(&host).await;
    rude.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    match rude.next().await {
        Some(Ok(Message::Close(Some(close)))) => assert!(close.reason.contains("binary"), "{close}"),
        other => panic!("{other:?}"),
    }
}

async fn rude_peer(host: &Host) -> tokio_tungstenite::WebSocketStream<fusion_runtime::net::Stream> {
    let stream = host.net.connect(at(), "a.test").await.unwrap();
    tokio_tungstenite::client_async("ws://a.test/ws", stream).await.unwrap().0
}

#[tokio::test(start_paused = true)]
async fn a_socket_whose_peer_has_crashed_says_so() {
    let net = PipeNet::default();
    let (near, far) = (machine(&net), machine(&net));
    server(&far).await;
    let mut socket = open(&near, "/ws").await.unwrap();
    far.tasks.abort_all();
    let heard = socket.recv().await;
    assert!(matches!(heard, None | Some(Err(WsError::Gone(_) | WsError::Invalid(_)))), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_websocket_is_refused_with_its_status() {
    let host = machine(&PipeNet::default());
    server(&host).await;
    assert_eq!(open(&host, "/locked").await.err(), Some(ClientError::Refused(401)));
    assert_eq!(open(&host, "/nowhere").await.err(), Some(ClientError::Refused(404)));
    let plain = get(&Client::new(&host), "https://a.test:8443/ws").await.unwrap();
    assert_eq!(plain.status(), StatusCode::UPGRADE_REQUIRED);
    let missing = ws::connect(&host, &"wss://missing.test/ws".parse().unwrap()).await;
    assert!(matches!(missing.err(), Some(ClientError::Unreachable { .. })));
}
