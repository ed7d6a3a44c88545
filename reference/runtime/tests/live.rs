//! The same server, client and WebSockets on real sockets of this machine, under TLS.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod support;

use std::io::{Read as _, Write as _};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get as on_get;
use fusion_runtime::Host;
use fusion_runtime::http::{Client, ClientError, Serving, serve};
use fusion_runtime::net::LiveConfig;
use fusion_runtime::tls::{Identity, TestCa};
use fusion_runtime::ws;
use http::Request;
use support::{LOOPBACK, get, real_machine, real_machine_with};

async fn server(host: &Host) -> Serving {
    let upgrade = {
        let host = host.clone();
        async move |request: Request<Body>| {
            ws::accept(&host, request, async |mut socket| {
                while let Some(Ok(text)) = socket.recv_text().await {
                    if socket.send(&text).await.is_err() {
                        return;
                    }
                }
            })
        }
    };
    let router = Router::new().route("/", on_get("hello")).route("/ws", on_get(upgrade));
    serve(host, LOOPBACK, router).await.unwrap()
}

/// A server, and another machine that finds `*.provider.test` there.
async fn pair(ca: &TestCa) -> (Serving, Host) {
    let serving = server(&real_machine(ca, &[])).await;
    let address = serving.local_addr.to_string();
    (serving, real_machine(ca, &[("*.provider.test", &address), ("other.test", &address)]))
}

fn unreachable(answer: Result<http::Response<bytes::Bytes>, ClientError>) -> String {
    match answer {
        Err(ClientError::Unreachable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_websockets_work_under_tls() {
    let ca = TestCa::generate().unwrap();
    let (_, host) = pair(&ca).await;
    let client = Client::new(&host);
    for name in ["a.provider.test", "b-conv.provider.test"] {
        assert_eq!(get(&client, &format!("https://{name}/")).await.unwrap().body(), "hello");
    }
    let mut socket = ws::connect(&host, &"wss://a.provider.test/ws".parse().unwrap()).await.unwrap();
    socket.send("through TLS").await.unwrap();
    assert_eq!(socket.recv_text().await, Some(Ok("through TLS".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_at_once_are_all_answered() {
    let ca = TestCa::generate().unwrap();
    let (serving, host) = pair(&ca).await;
    let client = Client::new(&host);
    for _ in 0..3 {
        let burst = (0..50).map(|_| get(&client, "https://a.provider.test/"));
        let answers = futures_util::future::join_all(burst).await;
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.body() == "hello")));
    }
    assert!(serving.connections() <= 50);
}

#[tokio::test]
async fn nobody_is_believed_who_has_no_certificate_for_the_name() {
    let ca = TestCa::generate().unwrap();
    let (_, host) = pair(&ca).await;
    let reason = unreachable(get(&Client::new(&host), "https://other.test/").await);
    assert!(!reason.is_empty());

    let (serving, _) = pair(&TestCa::generate().unwrap()).await;
    let trusting_another = real_machine(&ca, &[("a.provider.test", &serving.local_addr.to_string())]);
    let reason = unreachable(get(&Client::new(&trusting_another), "https://a.provider.test/").await);
    assert!(reason.contains("certificate"), "{reason}");
}

/// NAM-005.
#[tokio::test]
async fn an_address_inside_is_reached_only_when_an_operator_has_named_it() {
    let ca = TestCa::generate().unwrap();
    let (serving, host) = pair(&ca).await;
    let port = serving.local_addr.port();
    let client = Client::new(&host);
    for inside in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"] {
        let reason = unreachable(get(&client, &format!("https://{inside}:{port}/")).await);
        assert!(reason.contains("not public") && reason.contains("allow"), "{inside}: {reason}");
    }
    let mut config = LiveConfig { trust_pem: ca.ca_pem().to_owned(), ..LiveConfig::default() };
    config.allow.push("127.0.0.0/8".parse().unwrap());
    let allowing = Client::new(&real_machine_with(config));
    let reason = unreachable(get(&allowing, &format!("https://127.0.0.1:{port}/")).await);
    assert!(reason.contains("certificate"), "reached, and not believed: {reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_finishes_a_handshake_holds_up_nobody() {
    let ca = TestCa::generate().unwrap();
    let (serving, host) = pair(&ca).await;
    let silent: Vec<_> = (0..50).map(|_| std::net::TcpStream::connect(serving.local_addr).unwrap()).collect();
    let mut rude = std::net::TcpStream::connect(serving.local_addr).unwrap();
    rude.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let client = Client::new(&host).with_timeout(Duration::from_secs(3));
    assert_eq!(get(&client, "https://a.provider.test/").await.unwrap().body(), "hello");
    let mut answer = Vec::new();
    // A TLS alert or a reset, as the kernel pleases; never a response in clear (SEC-001).
    let _ = rude.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    drop(silent);
}

/// SEC-001.
#[tokio::test]
async fn clear_text_is_spoken_on_loopback_only_and_only_when_asked_for() {
    let without_certificate = real_machine_with(LiveConfig::default());
    let refused = serve(&without_certificate, LOOPBACK, Router::new()).await.err().unwrap();
    assert!(refused.to_string().contains("no certificate"), "{refused}");

    let mut config = LiveConfig { insecure_loopback: true, ..LiveConfig::default() };
    config.resolve.insert("a.test", "127.0.0.1").unwrap();
    let insecure = real_machine_with(config);
    let serving = server(&insecure).await;
    let url = format!("https://a.test:{}/", serving.local_addr.port());
    assert_eq!(get(&Client::new(&insecure), &url).await.unwrap().body(), "hello");
    let everywhere = serve(&insecure, "0.0.0.0:0".parse().unwrap(), Router::new()).await.err().unwrap();
    assert!(everywhere.to_string().contains("no certificate"), "{everywhere}");
}

#[tokio::test]
async fn datagrams_arrive() {
    let host = real_machine_with(LiveConfig::default());
    let (a, b) = (host.net.udp(LOOPBACK).await.unwrap(), host.net.udp(LOOPBACK).await.unwrap());
    a.send_to(b"hello", b.local_addr()).await.unwrap();
    let mut bytes = [0; 100];
    assert_eq!(b.recv_from(&mut bytes).await.unwrap(), (5, a.local_addr()));
    assert_eq!(&bytes[..5], b"hello");
}

#[tokio::test]
async fn an_authority_and_its_certificates_survive_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let ca = TestCa::generate().unwrap();
    let again = TestCa::from_pem(ca.ca_pem(), &ca.key_pem()).unwrap();
    let identity = again.issue(&["a.provider.test", "*.b.test", "127.0.0.1"]).unwrap();
    std::fs::write(&cert, &identity.cert_pem).unwrap();
    std::fs::write(&key, &identity.key_pem).unwrap();
    let identity = Identity::read(&cert, &key).unwrap();
    let serving =
        server(&real_machine_with(LiveConfig { identities: vec![identity], ..LiveConfig::default() })).await;

    let port = serving.local_addr.port();
    let mut config = LiveConfig { trust_pem: ca.ca_pem().to_owned(), ..LiveConfig::default() };
    for name in ["a.provider.test", "x.b.test"] {
        config.resolve.insert(name, "127.0.0.1").unwrap();
    }
    config.allow.push("127.0.0.1".parse().unwrap());
    let client = Client::new(&real_machine_with(config));
    for name in ["a.provider.test", "x.b.test", "127.0.0.1"] {
        assert_eq!(get(&client, &format!("https://{name}:{port}/")).await.unwrap().body(), "hello", "{name}");
    }
    let missing = Identity::read(&folder.path().join("none.pem"), &key).unwrap_err().to_string();
    assert!(missing.contains("none.pem"), "{missing}");
    assert!(!format!("{:?}", Identity::read(&cert, &key).unwrap()).contains("PRIVATE"));
}
