//! Alice and Bob on two clusters: what tests of conversations, indexes and the outbox begin with.

use std::time::Duration;

use fusion_protocol::{Service, Url, UserRef};
use http::{HeaderMap, Method, Request, StatusCode, header};
use serde_json::{Value, json};

use crate::testing::World;

/// Alice on cluster a and Bob on cluster b.
pub(crate) struct Chat {
    pub(crate) world: World,
    pub(crate) alice: UserRef,
    pub(crate) bob: UserRef,
}

impl Chat {
    pub(crate) async fn new() -> Self {
        let world = World::new(&["a", "b"]).await;
        let alice = world.user("a", "alice@a.example").await;
        let bob = world.user("b", "bob@b.example").await;
        Self { world, alice, bob }
    }

    pub(crate) fn home<'u>(&self, user: &'u UserRef) -> &'u str {
        &user.user.as_str()[user.user.local_part().len() + 1..][..1]
    }

    /// A token of `user` that is good where `url` is.
    pub(crate) fn token(&self, user: &UserRef, url: &Url) -> String {
        let at = self.world.template.locate(url).expect("a URL of the federation").cluster;
        self.world.guest_token(self.home(user), user, at.as_str())
    }

    /// Creates a 1:1 at the creator's own cluster.
    pub(crate) async fn create(&self, by: &UserRef, with: &UserRef) -> (StatusCode, Value) {
        let body = json!({ "participants": [with.user], "kind": "oneToOne" });
        self.create_as(by, body).await
    }

    pub(crate) async fn create_as(&self, by: &UserRef, body: Value) -> (StatusCode, Value) {
        let at = self.home(by);
        let token = self.world.token(at, by);
        self.world.post(at, Service::Conv, "/v1/conversations", &token, body).await
    }

    pub(crate) async fn get(&self, by: &UserRef, url: &Url) -> (StatusCode, HeaderMap, Value) {
        self.world.send(Method::GET, url, &self.token(by, url), None).await
    }

    /// Posts an act with its own `Idempotency-Key`.
    pub(crate) async fn act(
        &self,
        by: &UserRef,
        conversation: &Url,
        key: &str,
        act: Value,
    ) -> (StatusCode, HeaderMap, Value) {
        let url = below(conversation, "activities");
        let request = Request::post(url.as_str())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token(by, &url)))
            .header(fusion_protocol::headers::IDEMPOTENCY_KEY, key)
            .body(act.to_string().into());
        self.world.send_raw(request.expect("a request")).await
    }

    pub(crate) async fn say(&self, by: &UserRef, conversation: &Url, text: &str) -> (StatusCode, Value) {
        let act = json!({ "verb": "message", "text": text });
        let (status, _, body) = self.act(by, conversation, text, act).await;
        (status, body)
    }

    /// What is said in a conversation, in order. A 503 is asked again, as clients do.
    pub(crate) async fn texts(&self, by: &UserRef, conversation: &Url) -> Vec<String> {
        for _ in 0..10 {
            let (status, _, page) = self.get(by, &below(conversation, "activities")).await;
            if status != StatusCode::SERVICE_UNAVAILABLE {
                assert_eq!(status, StatusCode::OK, "{page}");
                return texts(&page["activities"]);
            }
            self.world.clock.sleep(Duration::from_secs(1)).await;
        }
        panic!("the conversation cannot be read");
    }

    /// The entries of a user's index.
    pub(crate) async fn index(&self, of: &UserRef) -> Vec<Value> {
        let path = format!("/v1/users/{}/index", of.user.path_segment());
        let at = self.home(of);
        let (status, page) = self.world.get(at, Service::Conv, &path, &self.world.token(at, of)).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        page["entries"].as_array().cloned().unwrap_or_default()
    }

    pub(crate) async fn look_up(&self, user: &UserRef, other: &UserRef) -> (StatusCode, Value) {
        let path = format!("/v1/users/{}/peers/{}", user.user.path_segment(), other.user.path_segment());
        let at = self.home(user);
        self.world.get(at, Service::Conv, &path, &self.world.token(at, user)).await
    }

    /// Waits for a user's index to be as `wanted`; simulated time costs nothing.
    pub(crate) async fn index_until(&self, of: &UserRef, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        for _ in 0..4_000 {
            let entries = self.index(of).await;
            if wanted(&entries) {
                return entries;
            }
            self.world.clock.sleep(Duration::from_millis(10)).await;
        }
        panic!("the index never became so: {:?}", self.index(of).await);
    }
}

/// The URL in a member of a body.
pub(crate) fn url_in(body: &Value, member: &str) -> Url {
    body[member].as_str().expect("a URL").parse().expect("a URL")
}

pub(crate) fn below(conversation: &Url, rest: &str) -> Url {
    format!("{conversation}/{rest}").parse().expect("a URL")
}

pub(crate) fn texts(activities: &Value) -> Vec<String> {
    let activities = activities.as_array().cloned().unwrap_or_default();
    activities.iter().filter_map(|activity| Some(activity["text"].as_str()?.to_owned())).collect()
}
