//! The HTTP client against servers that are not ours: each says word by word what it is told to say.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use fusion_runtime::Host;
use fusion_runtime::http::{Client, ClientError, RESPONSE_MAX};
use http::{Method, Request, Response, StatusCode};
use proptest::prelude::*;
use support::{PipeNet, at, get, machine};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const URL: &str = "https://a.test:8443/x?y=1";
const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// What a server does with each request that it reads.
#[derive(Clone, Copy)]
enum Then {
    ReadsOn,
    Closes,
}

/// A server that answers whatever it reads with `answers`, one after the other and cut in `pieces`. A
/// request is over when nothing more comes for a moment; what was read is what it gives back.
async fn scripted(host: &Host, pieces: usize, answers: &[String], then: Then) -> support::Heard {
    let mut listener = host.net.listen(at()).await.unwrap();
    let (answers, heard, tasks) = (answers.to_vec(), support::Heard::default(), host.tasks.clone());
    let (clock, hears) = (host.clock.clone(), heard.clone());
    host.tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answers, clock, hears) = (answers.clone(), clock.clone(), hears.clone());
            tasks.spawn(async move {
                for answer in answers {
                    let mut request = vec![0; 64 << 10];
                    let Ok(len @ 1..) = stream.read(&mut request).await else { return };
                    hears.hear(&request[..len]);
                    for piece in answer.as_bytes().chunks(pieces) {
                        if stream.write_all(piece).await.is_err() {
                            return;
                        }
                        clock.sleep(Duration::from_millis(1)).await;
                    }
                }
                if matches!(then, Then::ReadsOn) {
                    clock.sleep(Duration::from_secs(3_600)).await;
                }
            });
        }
    });
    heard
}

/// What comes of one request to a server that says `answer`.
async fn answered(answer: &str, pieces: usize, then: Then) -> Result<Response<Bytes>, ClientError> {
    let host = machine(&PipeNet::default());
    scripted(&host, pieces, &[answer.to_owned()], then).await;
    get(&Client::new(&host), URL).await
}

async fn told(answer: &str) -> Result<Response<Bytes>, ClientError> {
    answered(answer, usize::MAX, Then::Closes).await
}

#[tokio::test(start_paused = true)]
async fn requests_go_over_the_line_as_rfc_9112_wants_them() {
    let host = machine(&PipeNet::default());
    let heard = scripted(&host, usize::MAX, &[HELLO; 6].map(str::to_owned), Then::ReadsOn).await;
    let client = Client::new(&host);
    for (method, body) in [
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::POST, ""),
        (Method::PUT, "{}"),
        (Method::PATCH, "{}"),
        (Method::DELETE, "{}"),
    ] {
        let request =
            Request::builder().method(method).uri(URL).header("x-a", "b").body(body.into()).unwrap();
        assert_eq!(client.send(request).await.unwrap().body(), "hello");
    }
    let get = "GET /x?y=1 HTTP/1.1\r\nx-a: b\r\nhost: a.test:8443\r\n\r\n";
    let with_body = |method: &str, body: &str| {
        let len = body.len();
        format!(
            "{method} /x?y=1 HTTP/1.1\r\nx-a: b\r\nhost: a.test:8443\r\ncontent-length: {len}\r\n\r\n{body}"
        )
    };
    let expected = [
        get.to_owned(),
        get.replace("GET", "DELETE"),
        with_body("POST", ""),
        with_body("PUT", "{}"),
        with_body("PATCH", "{}"),
        with_body("DELETE", "{}"),
    ];
    assert_eq!(heard.all(), expected);
}

#[tokio::test(start_paused = true)]
async fn bodies_end_by_length_by_a_last_chunk_or_with_the_connection() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n";
    for answer in [HELLO, chunked, "HTTP/1.0 200 OK\r\n\r\nhello"] {
        for pieces in [1, 2, 7, usize::MAX] {
            let response = answered(answer, pieces, Then::Closes).await.unwrap();
            assert_eq!(
                (response.status(), &response.body()[..]),
                (StatusCode::OK, &b"hello"[..]),
                "{answer}"
            );
        }
    }
    for status in [204, 304] {
        let none = told(&format!("HTTP/1.1 {status} None\r\n\r\n")).await.unwrap();
        assert_eq!((none.status().as_u16(), none.body().len()), (status, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_interim_response_is_none_and_a_redirect_is_not_followed() {
    let interim = format!("HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n{HELLO}");
    assert_eq!(told(&interim).await.unwrap().body(), "hello");
    let elsewhere = "HTTP/1.1 302 Found\r\nlocation: https://b.test/\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(told(elsewhere).await.unwrap().status(), StatusCode::FOUND);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_again_only_when_nothing_is_left_on_it() {
    let with = |line: &str| HELLO.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"));
    for (answer, then, connections) in [
        (HELLO.to_owned(), Then::ReadsOn, 1),
        (with("x: y"), Then::ReadsOn, 1),
        // Said to be the last, was the last, HTTP/1.0, more than was asked for.
        (with("connection: close"), Then::ReadsOn, 3),
        (HELLO.to_owned(), Then::Closes, 3),
        (HELLO.replace("1.1", "1.0"), Then::ReadsOn, 3),
        (format!("{HELLO}and more"), Then::ReadsOn, 3),
    ] {
        let net = PipeNet::default();
        let host = machine(&net);
        let times = if matches!(then, Then::Closes) { 1 } else { 3 };
        scripted(&host, usize::MAX, &vec![answer.clone(); times], then).await;
        let client = Client::new(&host);
        for _ in 0..3 {
            assert_eq!(get(&client, URL).await.unwrap().body(), "hello", "{answer}");
            host.clock.sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(net.connections(), connections, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_though_not_all_of_the_request_was_read() {
    let net = PipeNet::default();
    let host = machine(&net);
    let refusal = "HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n".to_owned();
    scripted(&host, usize::MAX, &[refusal], Then::ReadsOn).await;
    let client = Client::new(&host);
    for connections in [1, 2] {
        let request = Request::post(URL).body(vec![0; 1 << 20].into()).unwrap();
        assert_eq!(client.send(request).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(net.connections(), connections, "one that is still sending is not used again");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_response_or_not_all_of_one_is_an_error_that_says_so() {
    let interrupted = ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello"];
    for answer in interrupted {
        assert!(matches!(told(answer).await, Err(ClientError::Interrupted(_))), "{answer}");
    }
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for answer in [
        "SSH-2.0-x\r\n\r\n".to_owned(),
        "HTTP/1.1 099 Low\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\nhello".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello".to_owned(),
        format!("{chunked}5 hello\r\n"),
        format!("{chunked}xyz\r\nhello\r\n"),
    ] {
        assert!(matches!(told(&answer).await, Err(ClientError::Invalid(_))), "{answer}");
    }
    let field = format!("x: {}\r\n", "y".repeat(20 << 10));
    for answer in [
        HELLO.replace("Content", &format!("{field}Content")),
        HELLO.replace("Content", &format!("{}Content", "x: y\r\n".repeat(200))),
        HELLO.replace('5', &(RESPONSE_MAX + 1).to_string()),
        // A line between chunks that never ends.
        format!("{chunked}{}", "1".repeat(1 << 20)),
        format!("{chunked}5\rX{}", "y".repeat(1 << 20)),
        format!("{chunked}0\r\n{}", "y".repeat(1 << 20)),
    ] {
        let short = &answer[..answer.len().min(80)];
        assert_eq!(told(&answer).await.unwrap_err(), ClientError::TooLarge, "{short}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_said_unasked_on_an_idle_connection_answers_no_request() {
    let net = PipeNet::default();
    let host = machine(&net);
    scripted(&host, HELLO.len(), &[format!("{HELLO}{HELLO}")], Then::ReadsOn).await;
    let client = Client::new(&host);
    for connections in [1, 2] {
        assert_eq!(get(&client, URL).await.unwrap().body(), "hello");
        assert_eq!(net.connections(), connections);
        host.clock.sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_not_asked_for() {
    let host = machine(&PipeNet::default());
    scripted(&host, usize::MAX, &[HELLO.to_owned()], Then::ReadsOn).await;
    let request = Request::builder().method(Method::CONNECT).uri(URL).body(Bytes::new()).unwrap();
    assert!(matches!(Client::new(&host).send(request).await, Err(ClientError::Invalid(_))));
}

proptest! {
    /// Whatever a server says, the client answers its caller, and in the same way however it comes.
    #[test]
    fn nothing_that_a_server_says_makes_the_client_panic(
        start in prop_oneof![Just(""), Just("HTTP/1.1 200 OK\r\n"), Just("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")],
        rest in "[ -~\r\n]{0,60}",
        pieces in 1_usize..9,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let answer = format!("{start}{rest}");
        prop_assume!(!answer.is_empty());
        let [whole, cut] = runtime.block_on(async {
            let mut seen = Vec::new();
            for pieces in [usize::MAX, pieces] {
                let response = answered(&answer, pieces, Then::Closes).await;
                seen.push(response.map(|response| (response.status(), response.into_body())).map_err(|error| error.to_string()));
            }
            <[_; 2]>::try_from(seen).unwrap()
        });
        prop_assert_eq!(whole, cut);
    }
}
