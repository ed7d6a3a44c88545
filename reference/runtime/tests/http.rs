//! The HTTP server and client against each other, in time that passes by itself.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::routing::{get as on_get, post as on_post};
use bytes::Bytes;
use fusion_runtime::Host;
use fusion_runtime::http::{
    Client, ClientError, HEADER_TIMEOUT, PeerAddr, RESPONSE_MAX, Serving, TIMEOUT, serve,
};
use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, Request, StatusCode, Uri};
use support::{PORT, PipeNet, at, get, machine};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const HELLO: &str = "https://a.test:8443/hello";

/// A server on `host`, and how often its `/slow` has been called.
async fn server(host: &Host) -> (Serving, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let (clock, counted) = (host.clock.clone(), calls.clone());
    let slow = move || async move {
        counted.fetch_add(1, Ordering::Relaxed);
        clock.sleep(Duration::from_secs(60)).await;
        "done"
    };
    let counted = calls.clone();
    let broken = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        async { if true { panic!("a bug in a handler") } else { "never" } }
    };
    let router = Router::new()
        .route("/hello", on_get("hello"))
        .route("/slow", on_get(slow))
        .route("/broken", on_get(broken))
        .route("/echo", on_post(async |body: Bytes| body))
        .route("/large", on_get(async || vec![0; RESPONSE_MAX + 1]))
        .route("/largest", on_get(async || vec![0; RESPONSE_MAX]))
        .route("/drips", on_get(drips))
        .route("/request", on_get(describe));
    (serve(host, at(), router).await.unwrap(), calls)
}

/// Two pieces at once, and then never a third.
async fn drips() -> Body {
    let pieces = ["one", "two"].map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
    Body::from_stream(stream::iter(pieces).chain(stream::pending()))
}

async fn describe(Extension(PeerAddr(peer)): Extension<PeerAddr>, headers: HeaderMap, uri: Uri) -> String {
    format!("{peer} {} {uri}", headers["host"].to_str().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_request_says_where_it_comes_from_and_which_host_it_is_for() {
    let net = PipeNet::default();
    let host = machine(&net);
    server(&host).await;
    let response = get(&Client::new(&host), "https://A.test:8443/request?q=1").await.unwrap();
    assert_eq!(response.body(), "192.0.2.2:50000 a.test:8443 /request?q=1");
    assert!(!response.headers().contains_key("date"), "a wall clock in a response");
}

#[tokio::test(start_paused = true)]
async fn requests_one_after_the_other_share_a_connection() {
    let net = PipeNet::default();
    let host = machine(&net);
    server(&host).await;
    let client = Client::new(&host);
    for _ in 0..5 {
        assert_eq!(get(&client.clone(), HELLO).await.unwrap().body(), "hello");
    }
    assert_eq!(net.connections(), 1);
    get(&client, "https://b.test:8443/hello").await.unwrap();
    assert_eq!(net.connections(), 2, "a connection is for one name only");
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_requests_leaves_a_few_idle_connections() {
    let net = PipeNet::default();
    let host = machine(&net);
    let (serving, _) = server(&host).await;
    let client = Client::new(&host);
    let burst = (0..20).map(|_| get(&client, HELLO));
    assert!(futures_util::future::join_all(burst).await.iter().all(Result::is_ok));
    host.clock.sleep(Duration::from_millis(1)).await;
    assert_eq!(net.connections(), 20);
    assert_eq!(serving.connections(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_not_kept_for_ever() {
    let net = PipeNet::default();
    let host = machine(&net);
    server(&host).await;
    let client = Client::new(&host);
    get(&client, HELLO).await.unwrap();
    host.clock.sleep(Duration::from_secs(19)).await;
    get(&client, HELLO).await.unwrap();
    assert_eq!(net.connections(), 1);
    host.clock.sleep(Duration::from_secs(21)).await;
    get(&client, HELLO).await.unwrap();
    assert_eq!(net.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_server_is_not_noticed_by_who_held_a_connection() {
    let net = PipeNet::default();
    let (near, far) = (machine(&net), machine(&net));
    server(&far).await;
    let client = Client::new(&near);
    get(&client, HELLO).await.unwrap();
    far.tasks.abort_all();
    near.clock.sleep(Duration::from_millis(1)).await;
    server(&machine(&net)).await;
    assert_eq!(get(&client, HELLO).await.unwrap().body(), "hello");
    assert_eq!(net.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_handler_costs_its_own_connection_and_is_not_repeated() {
    let net = PipeNet::default();
    let (near, far) = (machine(&net), machine(&net));
    let (_, calls) = server(&far).await;
    let client = Client::new(&near);
    get(&client, HELLO).await.unwrap();
    let failed = get(&client, "https://a.test:8443/broken").await;
    assert!(matches!(failed, Err(ClientError::Interrupted(_))), "{failed:?}");
    assert_eq!(calls.load(Ordering::Relaxed), 1, "what may have been carried out is not repeated");
    assert_eq!(far.tasks.panics(), 1);
    assert_eq!(get(&client, HELLO).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_time_out_closes_the_connection_and_leaves_the_others() {
    let net = PipeNet::default();
    let host = machine(&net);
    let (serving, calls) = server(&host).await;
    let client = Client::new(&host);
    let began = host.clock.now();
    assert_eq!(get(&client, "https://a.test:8443/slow").await.unwrap_err(), ClientError::TimedOut);
    assert_eq!(host.clock.now() - began, TIMEOUT);
    let patient = client.with_timeout(Duration::from_secs(61));
    assert_eq!(get(&patient, "https://a.test:8443/slow").await.unwrap().body(), "done");
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert_eq!(serving.connections(), 1, "only the patient one's is left");
}

#[tokio::test(start_paused = true)]
async fn a_response_can_be_read_as_it_comes() {
    let net = PipeNet::default();
    let host = machine(&net);
    let (serving, _) = server(&host).await;
    let request = Request::get("https://a.test:8443/drips").body(Bytes::new()).unwrap();
    let mut coming = Client::new(&host).begin(request).await.unwrap().into_body();
    let (mut said, soon) = (Vec::new(), Duration::from_secs(1));
    while said.len() < "onetwo".len() {
        said.extend(coming.next(soon).await.unwrap().unwrap());
    }
    assert_eq!(said, b"onetwo");
    assert_eq!(coming.next(soon).await, Err(ClientError::TimedOut));
    drop(coming);
    serving.drained().await;
    let request = Request::get("https://a.test:8443/slow").body(Bytes::new()).unwrap();
    let begun = Client::new(&host).with_timeout(soon).begin(request).await;
    assert!(begun.is_err(), "a time-out is that of the beginning");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_to_who_cannot_be_reached() {
    let net = PipeNet::default();
    let client = Client::new(&machine(&net));
    for (url, authority) in [("https://missing.test/", "missing.test"), (HELLO, "a.test:8443")] {
        match get(&client, url).await {
            Err(ClientError::Unreachable { authority: named, .. }) => assert_eq!(named, authority),
            other => panic!("{other:?}"),
        }
    }
    for url in ["http://a.test/", "/path", "ftp://a.test/"] {
        assert!(matches!(get(&client, url).await, Err(ClientError::Invalid(_))), "{url}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_beyond_the_limit_is_not_read() {
    let net = PipeNet::default();
    let host = machine(&net);
    server(&host).await;
    let client = Client::new(&host);
    assert_eq!(get(&client, "https://a.test:8443/large").await.unwrap_err(), ClientError::TooLarge);
    let largest = get(&client, "https://a.test:8443/largest").await.unwrap();
    assert_eq!(largest.body().len(), RESPONSE_MAX);
}

/// SEC-007.
#[tokio::test(start_paused = true)]
async fn a_body_beyond_one_mebibyte_is_answered_413_with_a_problem() {
    let net = PipeNet::default();
    let host = machine(&net);
    server(&host).await;
    let client = Client::new(&host);
    let send = async |len: usize| {
        let request = Request::post("https://a.test:8443/echo").body(vec![b'x'; len].into()).unwrap();
        client.send(request).await
    };
    assert_eq!(send(1 << 20).await.unwrap().body().len(), 1 << 20);
    let refused = raw(&host, "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1048577\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    assert!(refused.contains(r#""code":"too-large""#), "{refused}");

    let chunk = format!("{:x}\r\n{}\r\n", 64 << 10, "x".repeat(64 << 10)).repeat(17);
    let unannounced =
        format!("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
    let refused = raw(&host, &unannounced).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
}

/// SEC-007.
#[tokio::test(start_paused = true)]
async fn headers_beyond_16_kibibytes_are_answered_431() {
    let net = PipeNet::default();
    let host = machine(&net);
    server(&host).await;
    for (len, status) in [(15 << 10, "200"), (17 << 10, "431"), (200 << 10, "431")] {
        let request = format!("GET /hello HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(len));
        let answer = raw(&host, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{len}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_sends_its_header_too_slowly_is_cut_off_and_holds_up_nobody() {
    let net = PipeNet::default();
    let host = machine(&net);
    let (serving, _) = server(&host).await;
    let mut slow = host.net.connect(at(), "a.test").await.unwrap();
    slow.write_all(b"GET /hello HTTP/1.1\r\nhost:").await.unwrap();
    assert_eq!(get(&Client::new(&host), HELLO).await.unwrap().status(), StatusCode::OK);
    let began = host.clock.now();
    let mut rest = Vec::new();
    // Ends when the server closes.
    let _ = slow.read_to_end(&mut rest).await;
    assert_eq!((host.clock.now() - began).as_secs(), HEADER_TIMEOUT.as_secs());
    host.clock.sleep(Duration::from_secs(1)).await;
    assert_eq!(serving.connections(), 0);
}

/// OPS-004: drain before stop.
#[tokio::test(start_paused = true)]
async fn a_server_that_stops_finishes_what_it_has_begun() {
    let net = PipeNet::default();
    let host = machine(&net);
    let (serving, _) = server(&host).await;
    let client = Client::new(&host).with_timeout(Duration::from_secs(100));
    get(&client, HELLO).await.unwrap();
    let running = {
        let client = client.clone();
        host.tasks.spawn(async move { get(&client, "https://a.test:8443/slow").await })
    };
    host.clock.sleep(Duration::from_secs(1)).await;
    let began = host.clock.now();
    serving.drained().await;
    assert_eq!((host.clock.now() - began).as_secs(), 59, "it waited for the request that was running");
    assert_eq!(running.join().await.unwrap().unwrap().body(), "done");
    assert!(matches!(get(&client, HELLO).await, Err(ClientError::Unreachable { .. })));
}

/// What a server answers to these bytes until it closes or has nothing more to say for a second.
async fn raw(host: &Host, request: &str) -> String {
    let stream = host.net.connect(([192, 0, 2, 1], PORT).into(), "a.test").await.unwrap();
    let (mut from, mut to) = tokio::io::split(stream);
    let request = request.to_owned();
    let writing = host.tasks.spawn(async move {
        // The server may close before it has read everything.
        let _ = to.write_all(request.as_bytes()).await;
        to
    });
    let mut answer = Vec::new();
    let _ = host.clock.timeout(Duration::from_secs(1), from.read_to_end(&mut answer)).await;
    writing.abort();
    String::from_utf8_lossy(&answer).into_owned()
}
