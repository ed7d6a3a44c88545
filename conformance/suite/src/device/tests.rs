//! The device against a scripted peer: one server that plays every host and answers from a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use fusion_history::{Body as Event, Call, Outcome, Recorder};
use fusion_protocol::{Code, Count, Problem};
use serde_json::{Value, json};

use super::{Device, Failure, Patience, lock};
use crate::testing;

/// A request as the peer saw it.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    token: Option<String>,
    key: Option<String>,
    body: String,
}

/// What the peer does about a request.
enum Act {
    Answer(u16, Value),
    Redirect(u16, &'static str),
    RetryAfter(u16, Code),
    Silence,
}

type Script = Vec<(&'static str, VecDeque<Act>)>;

#[derive(Clone, Default)]
struct Peer {
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Acts for requests whose line starts with the text, in order; the last one is repeated.
    script: Arc<Mutex<Script>>,
}

impl Peer {
    fn on(self, line: &'static str, acts: Vec<Act>) -> Self {
        lock(&self.script).push((line, acts.into()));
        self
    }

    fn seen(&self, line: &str) -> Vec<Seen> {
        lock(&self.seen).iter().filter(|seen| seen.line.starts_with(line)).cloned().collect()
    }

    async fn device(&self, user: &str) -> (Device, Recorder) {
        let net = testing::Pipes::default();
        let host = testing::host(&net);
        let peer = self.clone();
        let router = Router::new().fallback(move |request: Request| peer.clone().answer(request));
        testing::serve_everything(&host, router).await;
        let recorder = Recorder::new();
        let target = Arc::new(testing::target());
        let device = Device::new(host, target, user.parse().unwrap(), "alice/phone", recorder.clone());
        (device, recorder)
    }

    async fn answer(self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let header = |name: &str| Some(parts.headers.get(name)?.to_str().unwrap().to_owned());
        let host = header("host").unwrap();
        let label = host.split('.').next().unwrap();
        let line = format!("{} {label} {}", parts.method, parts.uri);
        let body = String::from_utf8_lossy(&body).into_owned();
        let token = header("authorization");
        lock(&self.seen).push(Seen { line: line.clone(), token, key: header("idempotency-key"), body });
        let act = {
            let mut script = lock(&self.script);
            let acts = script.iter_mut().find(|(start, _)| line.starts_with(start));
            let (_, acts) = acts.unwrap_or_else(|| panic!("the script has nothing for {line}"));
            if acts.len() > 1 { acts.pop_front() } else { acts.pop_front().map(|act| again(acts, act)) }
        };
        match act.unwrap() {
            Act::Answer(status, body) => respond(status, body, &[]),
            Act::Redirect(status, to) => respond(status, json!({}), &[("location", to)]),
            Act::RetryAfter(status, code) => {
                respond(status, json!(Problem::new(code)), &[("retry-after", "2")])
            }
            Act::Silence => std::future::pending().await,
        }
    }
}

fn again(acts: &mut VecDeque<Act>, act: Act) -> Act {
    let copy = match &act {
        Act::Answer(status, body) => Act::Answer(*status, body.clone()),
        Act::Redirect(status, to) => Act::Redirect(*status, to),
        Act::RetryAfter(status, code) => Act::RetryAfter(*status, *code),
        Act::Silence => Act::Silence,
    };
    acts.push_back(copy);
    act
}

fn respond(status: u16, body: Value, headers: &[(&str, &str)]) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Body::from(body.to_string())).unwrap()
}

fn token(text: &str) -> Act {
    let answer = json!({"access_token": text, "token_type": "Bearer", "expires_in": 600, "scope": "user"});
    Act::Answer(200, answer)
}

fn refusal(code: Code) -> Act {
    Act::Answer(code.status(), json!(Problem::new(code)))
}

fn acme() -> Act {
    let record = json!({"domain": "acme.example", "org": "acme", "clusters": ["a"], "version": "1", "ttlSeconds": 300});
    Act::Answer(200, record)
}

fn activity(seq: u64) -> Value {
    json!({
        "id": "00".repeat(32), "seq": seq.to_string(), "author": "alice@acme.example",
        "incarnation": "00000000-0000-4000-8000-000000000000", "published": "x", "verb": "message", "text": "hi",
    })
}

fn outcomes(recorder: &Recorder) -> Vec<Outcome> {
    let history = recorder.snapshot();
    let returned = history.events().iter().filter_map(|event| match &event.body {
        Event::Return { outcome } => Some(outcome.clone()),
        _ => None,
    });
    returned.collect()
}

#[tokio::test(start_paused = true)]
async fn before_login_the_provider_is_given_the_domain_only() {
    let peer =
        Peer::default().on("GET clustermap", vec![acme()]).on("POST a-auth /v1/token", vec![token("home")]);
    let (alice, _) = peer.device("alice@acme.example").await;
    assert_eq!(alice.log_in().await.unwrap().as_str(), "a");
    let asked = peer.seen("GET clustermap");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].line, "GET clustermap /v1/domains/acme.example");
    assert!(asked[0].body.is_empty() && asked[0].token.is_none());
}

#[tokio::test(start_paused = true)]
async fn with_the_provider_away_users_still_log_in() {
    let peer = Peer::default()
        .on("GET clustermap", vec![Act::Silence])
        .on("POST a-auth /v1/token", vec![token("home")]);
    let (alice, _) = peer.device("alice@acme.example").await;
    assert_eq!(alice.log_in().await.unwrap().as_str(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_claimed_domain_may_still_have_consumer_users_but_a_silent_cluster_is_no_answer() {
    let peer = Peer::default()
        .on("GET clustermap", vec![acme()])
        .on("POST a-auth /v1/token", vec![refusal(Code::InvalidGrant)])
        .on("POST c-auth /v1/token", vec![token("home")]);
    let (alice, _) = peer.device("alice@acme.example").await;
    assert_eq!(alice.log_in().await.unwrap().as_str(), "c");

    let peer = Peer::default()
        .on("GET clustermap", vec![acme()])
        .on("POST a-auth /v1/token", vec![Act::Silence])
        .on("POST c-auth /v1/token", vec![token("home")]);
    let (alice, _) = peer.device("alice@acme.example").await;
    assert!(matches!(alice.log_in().await, Err(Failure::Unknown(_))));
    assert!(peer.seen("POST c-auth").is_empty());
}

/// A peer at which alice is logged in and has a token for cluster `b`.
fn logged_in() -> Peer {
    Peer::default()
        .on("GET clustermap", vec![acme()])
        .on("POST a-auth /v1/token", vec![token("home"), token("for-b"), token("for-b-anew")])
}

#[tokio::test(start_paused = true)]
async fn a_token_is_exchanged_before_another_cluster_is_spoken_to_and_again_when_it_no_longer_holds() {
    let peer = logged_in().on(
        "POST b-conv /v1/conversations/1/activities",
        vec![refusal(Code::TokenExpired), Act::Answer(201, activity(1))],
    );
    let (alice, recorder) = peer.device("alice@acme.example").await;
    let conversation = "https://b-conv.provider.example/v1/conversations/1".parse().unwrap();
    assert!(alice.say(&conversation, "hi").await.unwrap().is_new());
    let tokens = peer.seen("POST a-auth /v1/token");
    assert!(tokens[1].body.contains("resource=https%3A%2F%2Fb-auth.provider.example"), "{tokens:?}");
    let posts = peer.seen("POST b-conv");
    let used: Vec<_> = posts.iter().map(|post| post.token.clone().unwrap()).collect();
    assert_eq!(used, ["Bearer for-b", "Bearer for-b-anew"]);
    assert_eq!(posts[0].key, posts[1].key);
    let calls = recorder
        .snapshot()
        .events()
        .iter()
        .filter(|event| matches!(event.body, Event::Invoke { .. }))
        .count();
    assert_eq!(calls, 4, "a log-in, two exchanges and a post");
}

#[tokio::test(start_paused = true)]
async fn no_token_goes_to_a_host_outside_the_federation() {
    let peer = logged_in();
    let (alice, recorder) = peer.device("alice@acme.example").await;
    for foreign in [
        "https://a-conv.provider.example.evil.test/v1/conversations/1",
        "https://a-conv.provider.example:8444/v1/conversations/1",
        "https://10.0.0.1/v1/conversations/1",
        "https://x.a-conv.provider.example/v1/conversations/1",
        "http://a-conv.provider.example/v1/conversations/1",
    ] {
        let refused = alice.say(&foreign.parse().unwrap(), "hi").await;
        assert!(matches!(refused, Err(Failure::Unreachable(_))), "{foreign}");
    }
    assert!(lock(&peer.seen).is_empty());
    assert!(outcomes(&recorder).iter().all(|outcome| *outcome == Outcome::Unreachable {}));
}

#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_is_sent_again_with_the_same_key_and_then_unknown() {
    let peer = logged_in().on("POST a-conv /v1/conversations/1/activities", vec![Act::Silence]);
    let (alice, recorder) = peer.device("alice@acme.example").await;
    let conversation = "https://a-conv.provider.example/v1/conversations/1".parse().unwrap();
    assert!(matches!(alice.say(&conversation, "hi").await, Err(Failure::Unknown(_))));
    let posts = peer.seen("POST a-conv");
    assert_eq!(posts.len(), Patience::default().tries_max as usize);
    assert!(posts.iter().all(|post| post.key == posts[0].key));
    assert_eq!(outcomes(&recorder).last(), Some(&Outcome::Unknown {}));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_silence_is_told_to_the_caller_and_unknown_to_the_history() {
    let acts = vec![Act::Silence, refusal(Code::NotParticipant)];
    let peer = logged_in().on("POST a-conv /v1/conversations/1/activities", acts);
    let (alice, recorder) = peer.device("alice@acme.example").await;
    let conversation = "https://a-conv.provider.example/v1/conversations/1".parse().unwrap();
    let failure = alice.say(&conversation, "hi").await.unwrap_err();
    assert_eq!(failure.code(), Some(Code::NotParticipant));
    assert_eq!(outcomes(&recorder).last(), Some(&Outcome::Unknown {}));
}

#[tokio::test(start_paused = true)]
async fn one_redirect_is_followed_within_the_federation_and_no_second_one() {
    let to_b = "https://b-conv.provider.example/v1/conversations/2/activities";
    let peer = logged_in()
        .on("POST a-conv", vec![Act::Redirect(308, to_b)])
        .on("POST b-conv", vec![Act::Answer(201, activity(5)), Act::Redirect(308, to_b)]);
    let (alice, recorder) = peer.device("alice@acme.example").await;
    let conversation = "https://a-conv.provider.example/v1/conversations/1".parse().unwrap();
    assert_eq!(alice.say(&conversation, "hi").await.unwrap().into_it().seq, Count(5));
    assert_eq!(peer.seen("POST b-conv")[0].token.as_deref(), Some("Bearer for-b"));
    let said = serde_json::to_value(outcomes(&recorder).last().unwrap()).unwrap();
    assert_eq!(said["answer"]["redirectedTo"], "https://b-conv.provider.example/v1/conversations/2");
    let twice = alice.say(&conversation, "hi").await.unwrap_err();
    assert_eq!(twice.refused().unwrap().status, 308);

    let evil = logged_in().on("POST a-conv", vec![Act::Redirect(308, "https://evil.test/")]);
    let (alice, _) = evil.device("alice@acme.example").await;
    assert_eq!(alice.say(&conversation, "hi").await.unwrap_err().refused().unwrap().status, 308);
}

#[tokio::test(start_paused = true)]
async fn hints_are_followed_to_a_cluster_not_asked_yet() {
    let hint = |to: &str| Act::Answer(421, json!(Problem::new(Code::WrongCluster).with("clusters", [to])));
    let peer = Peer::default()
        .on("GET clustermap", vec![acme()])
        .on("POST a-auth /v1/token", vec![hint("b")])
        .on("POST b-auth /v1/token", vec![token("home")])
        .on("GET b-conv", vec![hint("b")]);
    let (alice, _) = peer.device("alice@acme.example").await;
    assert_eq!(alice.log_in().await.unwrap().as_str(), "b");
    let failure = alice.read_index().await.unwrap_err();
    assert_eq!(failure.code(), Some(Code::WrongCluster), "a hint to the asked cluster itself leads nowhere");
    assert_eq!(peer.seen("GET b-conv").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_merging_conversation_is_waited_for_as_long_as_patience_lasts() {
    let sealing = || Act::RetryAfter(503, Code::Sealing);
    let path = "POST a-conv /v1/conversations/1/activities";
    let peer = logged_in().on(path, vec![sealing(), sealing(), Act::Answer(201, activity(1))]);
    let (alice, _) = peer.device("alice@acme.example").await;
    let conversation = "https://a-conv.provider.example/v1/conversations/1".parse().unwrap();
    let started = alice.host().clock.now();
    alice.say(&conversation, "hi").await.unwrap();
    assert_eq!(alice.host().clock.now() - started, Duration::from_secs(4));

    let peer = logged_in().on(path, vec![sealing()]);
    let (alice, _) = peer.device("alice@acme.example").await;
    let failure = alice.say(&conversation, "hi").await.unwrap_err();
    assert_eq!(failure.code(), Some(Code::Sealing));
    assert_eq!(peer.seen("POST a-conv").len() as u32, Patience::default().waits_max + 1);
}

#[tokio::test(start_paused = true)]
async fn a_success_that_cannot_be_read_is_no_success() {
    let peer = logged_in().on("POST a-conv", vec![Act::Answer(201, json!({}))]);
    let (alice, recorder) = peer.device("alice@acme.example").await;
    let made = alice.one_to_one(&"bob@bravo.example".parse().unwrap()).await;
    assert!(matches!(made, Err(Failure::Garbled { status: 201, .. })));
    assert_eq!(outcomes(&recorder).last(), Some(&Outcome::Unknown {}));
}

#[tokio::test(start_paused = true)]
async fn an_operation_keeps_the_name_and_the_key_that_it_is_given() {
    let peer = logged_in().on("POST a-conv", vec![Act::Answer(201, activity(1))]);
    let (alice, recorder) = peer.device("alice@acme.example").await;
    let conversation = "https://a-conv.provider.example/v1/conversations/1".parse().unwrap();
    alice.log_in().await.unwrap();
    alice.named("op-7").keyed("k-7").say(&conversation, "hi").await.unwrap();
    assert_eq!(peer.seen("POST a-conv")[0].key.as_deref(), Some("k-7"));
    let history = recorder.snapshot();
    let posted = history.events().iter().find_map(|event| match &event.body {
        Event::Invoke { operation, call: Call::Post { key, .. }, .. } => {
            Some((operation.clone(), key.clone()))
        }
        _ => None,
    });
    assert_eq!(posted, Some(("op-7".to_owned(), "k-7".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn pages_that_never_end_are_given_up() {
    let page = json!({"activities": [activity(1)], "next": "1", "lastSeq": "9"});
    let peer = logged_in().on("GET a-conv", vec![Act::Answer(200, page)]);
    let (alice, _) = peer.device("alice@acme.example").await;
    let conversation = "https://a-conv.provider.example/v1/conversations/1".parse().unwrap();
    assert!(matches!(alice.read(&conversation).await, Err(Failure::Garbled { .. })));
    assert_eq!(peer.seen("GET a-conv").len(), 2);
}
