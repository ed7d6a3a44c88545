//! Bob of an org with two clusters moves from a to b while Alice, of another org, writes to him.

use std::time::Duration;

use fusion_machines::moving::OriginEvent;
use fusion_protocol::mercury::{ClientFrame, Device, ServerFrame};
use fusion_protocol::moving::{Arrival, Carried, Move, Standing};
use fusion_protocol::{Code, Count, Pii, Service, Url, UserRef, Uuid};
use fusion_runtime::store::Batch;
use fusion_runtime::ws;
use http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};

use super::{carry, depart};
use crate::conversation::testing::{below, texts, url_in};
use crate::testing::*;
use crate::users;

struct Story {
    world: World,
    alice: UserRef,
    bob: UserRef,
}

impl Story {
    async fn new() -> Self {
        let mut world = World::new(&["a", "b", "e"]).await;
        world.claim("corp.example", &["a", "b"]).await;
        let alice = world.user("e", "alice@e.example").await;
        let bob = world.user("a", "bob@corp.example").await;
        Self { world, alice, bob }
    }

    /// Who serves whom, as far as the story has come.
    fn at<'s>(&self, user: &UserRef, bob_is_at: &'s str) -> &'s str {
        if *user == self.alice { "e" } else { bob_is_at }
    }

    async fn order(&self) -> (StatusCode, Value) {
        let admin = self.world.admin_token("a");
        self.world.post("a", Service::Users, &self.moves(), &admin, json!({ "to": "b" })).await
    }

    fn moves(&self) -> String {
        format!("/v1/moves/{}", self.bob.user.path_segment())
    }

    async fn look(&self) -> Move {
        let (status, body) =
            self.world.get("a", Service::Users, &self.moves(), &self.world.admin_token("a")).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_value(body).unwrap()
    }

    async fn until(&self, state: Standing) -> Move {
        for _ in 0..400 {
            let moved = self.look().await;
            if moved.state == state {
                return moved;
            }
            self.world.clock.sleep(Duration::from_millis(50)).await;
        }
        panic!("the move never came to {state:?}");
    }

    /// The fence without the first question, as when b dies just after it has answered it.
    async fn fence(&self) {
        let (cluster, to) = (self.world.cluster("a"), name("b"));
        depart::step(cluster, &self.bob.user, &OriginEvent::Order { to }).await.unwrap();
        depart::drive(cluster, self.bob.user.clone());
    }

    /// A conversation that `by` has made with the other.
    async fn create(&self, by: &UserRef, bob_is_at: &str) -> Url {
        let with = if by == &self.alice { &self.bob } else { &self.alice };
        let (at, body) = (self.at(by, bob_is_at), json!({ "participants": [with.user], "kind": "oneToOne" }));
        let token = self.world.token(at, by);
        let (status, made) = self.world.post(at, Service::Conv, "/v1/conversations", &token, body).await;
        assert!(status.is_success(), "{made}");
        url_in(&made, "url")
    }

    async fn say(&self, by: &UserRef, bob_is_at: &str, conversation: &Url, text: &str) -> StatusCode {
        let url = below(conversation, "activities");
        let at = self.world.template.locate(&url).unwrap().cluster;
        let token = self.world.guest_token(self.at(by, bob_is_at), by, at.as_str());
        let request = Request::post(url.as_str())
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(fusion_protocol::headers::IDEMPOTENCY_KEY, text)
            .body(json!({ "verb": "message", "text": text }).to_string().into());
        self.world.send_raw(request.unwrap()).await.0
    }

    async fn texts(&self, by: &UserRef, bob_is_at: &str, conversation: &Url) -> Vec<String> {
        let at = self.world.template.locate(conversation).unwrap().cluster;
        let token = self.world.guest_token(self.at(by, bob_is_at), by, at.as_str());
        let url = below(conversation, "activities");
        let (status, headers, page) = self.world.send(Method::GET, &url, &token, None).await;
        if let Some(winner) = headers.get(header::LOCATION) {
            let winner: Url = winner.to_str().unwrap().parse().unwrap();
            let winner: Url = winner.as_str().trim_end_matches("/activities").parse().unwrap();
            return Box::pin(self.texts(by, bob_is_at, &winner)).await;
        }
        assert_eq!(status, StatusCode::OK, "{page}");
        texts(&page["activities"])
    }

    async fn index(&self, of: &UserRef, bob_is_at: &str) -> (StatusCode, Vec<Value>) {
        let (at, path) = (self.at(of, bob_is_at), format!("/v1/users/{}/index", of.user.path_segment()));
        let (status, page) = self.world.get(at, Service::Conv, &path, &self.world.token(at, of)).await;
        (status, page["entries"].as_array().cloned().unwrap_or_default())
    }

    async fn index_until(&self, of: &UserRef, at: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        for _ in 0..4_000 {
            let (_, entries) = self.index(of, at).await;
            if wanted(&entries) {
                return entries;
            }
            self.world.clock.sleep(Duration::from_millis(20)).await;
        }
        panic!("the index never became so: {:?}", self.index(of, at).await);
    }

    async fn look_up(&self, user: &UserRef, other: &UserRef, bob_is_at: &str) -> Value {
        let path = format!("/v1/users/{}/peers/{}", user.user.path_segment(), other.user.path_segment());
        let at = self.at(user, bob_is_at);
        self.world.get(at, Service::Conv, &path, &self.world.token(at, user)).await.1
    }

    /// Bob's phone, registered at `at`: the same phone whenever it is registered.
    async fn phone(&self, at: &str) -> (StatusCode, Device) {
        let request = Request::post(self.world.url(at, Service::Mercury, "/v1/devices").as_str())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.world.token(at, &self.bob)))
            .header(fusion_protocol::headers::IDEMPOTENCY_KEY, "bob's phone")
            .body(json!({ "name": "phone" }).to_string().into());
        let (status, _, body) = self.world.send_raw(request.unwrap()).await;
        (status, serde_json::from_value(body).unwrap())
    }

    /// What the phone is owed after `resume`, by number and text.
    async fn owed(&self, at: &str, phone: &Device, resume: u64, count: usize) -> Vec<(u64, Value)> {
        let mut socket = ws::connect(&self.world.client, &phone.web_socket_url).await.unwrap();
        let token = self.world.token(at, &self.bob);
        let first = ClientFrame::Authenticate { token, resume: Some(Count(resume)) };
        socket.send(&serde_json::to_string(&first).unwrap()).await.unwrap();
        let mut owed = Vec::new();
        while owed.len() < count {
            let text = self.world.clock.timeout(Duration::from_secs(30), socket.recv_text()).await;
            let text = text.unwrap_or_else(|_| panic!("nothing comes after {owed:?}"));
            let text = text.expect("a frame").expect("no error");
            match serde_json::from_str(&text).unwrap() {
                ServerFrame::Event(event) => {
                    owed.push((event.seq.0, event.data["activity"]["text"].clone()));
                }
                ServerFrame::Ready { base, .. } => assert_eq!(base, Count(resume)),
                other => panic!("{other:?}"),
            }
        }
        owed
    }

    /// Exactly one cluster serves Bob: this one, with everything.
    async fn is_served_by(&self, at: &str, epoch: u64) {
        let here = |cluster: &str| users::served_here(self.world.cluster(cluster), &self.bob.user);
        let other = if at == "a" { "b" } else { "a" };
        assert_eq!(here(other).await.unwrap().value, None, "not served at {other}");
        let row = here(at).await.unwrap().value.expect("served");
        assert_eq!((row.record.incarnation, row.record.version), (self.bob.incarnation, Count(epoch)));
        // What was learned this moment is believed.
        self.world.clock.sleep(Duration::from_secs(2)).await;
        for from in ["a", "b", "e"] {
            let found = users::resolve_again(self.world.cluster(from), &self.bob.user).await.unwrap();
            assert_eq!((found.record.cluster.as_str(), found.record.version.0), (at, epoch), "from {from}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_moves_with_index_slots_devices_and_queues_and_stays_the_same_person() {
    let story = Story::new().await;
    let (_, phone) = story.phone("a").await;
    let url = story.create(&story.alice, "a").await;
    story.say(&story.alice, "a", &url, "before").await;
    story.index_until(&story.bob, "a", |entries| entries.iter().any(|one| one["lastSeq"] == "1")).await;
    let (status, moved) = story.order().await;
    assert_eq!((status, &moved["state"]), (StatusCode::ACCEPTED, &json!("FENCED")));
    let moved = story.until(Standing::Gone).await;
    assert_eq!((moved.epoch, moved.to), (Count(1), Some(name("b"))));
    story.is_served_by("b", 2).await;
    story.say(&story.alice, "b", &url, "after").await;
    let entries =
        story.index_until(&story.bob, "b", |entries| entries.iter().any(|one| one["lastSeq"] == "2")).await;
    assert_eq!(texts(&entries[0]["preview"]), ["before", "after"]);
    assert_eq!(story.look_up(&story.bob, &story.alice, "b").await["url"], url.as_str());
    assert_eq!(story.texts(&story.bob, "b", &url).await, ["before", "after"], "the old URL is the URL");
    let (status, same) = story.phone("b").await;
    assert_eq!(
        (status, same.id.split_once('~').unwrap().1),
        (StatusCode::OK, phone.id.split_once('~').unwrap().1)
    );
    let owed = story.owed("b", &same, 0, 3).await;
    assert_eq!(owed.iter().map(|one| one.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((&owed[1].1, &owed[2].1), (&json!("before"), &json!("after")));
    let leftovers = story.world.store("a").snapshot();
    let of_bob = leftovers.keys().filter(|key| {
        let parts = key.parts();
        parts.get(1).is_some_and(|whose| whose == story.bob.user.as_str().as_bytes())
    });
    let of_bob: Vec<String> = of_bob.map(|key| String::from_utf8(key.parts().remove(0)).unwrap()).collect();
    // a is the org's registrar, too.
    assert_eq!(of_bob, ["departure", "index-cursor", "place"], "nothing else is left behind");
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_the_old_cluster_is_told_the_new_one() {
    let story = Story::new().await;
    let url = story.create(&story.bob, "a").await;
    assert_eq!(story.order().await.0, StatusCode::ACCEPTED);
    story.until(Standing::Gone).await;
    let bob = story.bob.user.path_segment();
    let old = story.world.token("a", &story.bob);
    for path in [format!("/v1/users/{bob}/index"), url.path().to_owned()] {
        let (status, body) = story.world.get("a", Service::Conv, &path, &old).await;
        assert_eq!((status, &body["clusters"]), (StatusCode::MISDIRECTED_REQUEST, &json!(["b"])), "{path}");
    }
    let before = story.world.guest_token("b", &story.bob, "a");
    let (status, body) = story.world.get("a", Service::Conv, url.path(), &before).await;
    assert_eq!(status, StatusCode::OK, "his conversation stays where it was made: {body}");
    let write = json!({ "rows": [{
        "id": Uuid::from_u128(1), "user": story.bob.user, "incarnation": story.bob.incarnation,
        "epoch": "1", "url": story.world.url("e", Service::Conv, "/v1/conversations/00000000-0000-0000-0000-000000000001"),
        "locusUrl": story.world.url("e", Service::Conv, "/v1/conversations/00000000-0000-0000-0000-000000000001/locus"),
        "kind": "oneToOne", "membership": "member", "membershipSeq": "1", "lastSeq": "0", "activities": [],
    }] });
    for at in ["a", "b"] {
        let target = story.world.url(at, Service::Conv, "/v1/index");
        let answer = crate::peers::call(story.world.cluster("e"), Method::POST, &target, &write).await;
        let answer: Value = serde_json::from_slice(&answer.unwrap()).unwrap();
        let refused = &answer["results"][0];
        assert_eq!(
            (&refused["code"], &refused["clusters"]),
            (&json!("wrong-cluster"), &json!(["b"])),
            "{at}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_writes_to_a_fenced_user_and_nothing_is_lost_by_it() {
    let story = Story::new().await;
    let url = story.create(&story.alice, "a").await;
    story.index_until(&story.bob, "a", |entries| !entries.is_empty()).await;
    story.world.cut("b");
    story.fence().await;
    assert_eq!(story.say(&story.alice, "a", &url, "are you there?").await, StatusCode::CREATED);
    story.world.clock.sleep(Duration::from_secs(5)).await;
    assert_eq!(story.look().await.state, Standing::Fenced);
    assert_eq!(story.index(&story.bob, "a").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let asked = users::resolve_again(story.world.cluster("e"), &story.bob.user).await;
    assert_eq!(asked.unwrap_err().code, Code::ResolutionIncomplete, "nobody can say before it is decided");
    story.world.reconnect("b").await;
    story.until(Standing::Gone).await;
    story.is_served_by("b", 2).await;
    story.index_until(&story.bob, "b", |entries| entries[0]["lastSeq"] == "1").await;
}

#[tokio::test(start_paused = true)]
async fn a_move_that_is_called_off_ends_only_when_the_new_cluster_has_refused_it() {
    let story = Story::new().await;
    let url = story.create(&story.alice, "a").await;
    story.world.cut("b");
    story.fence().await;
    let (status, _, body) = {
        let admin = story.world.admin_token("a");
        let at = story.world.url("a", Service::Users, &story.moves());
        story.world.send(Method::DELETE, &at, &admin, None).await
    };
    assert_eq!((status, &body["state"]), (StatusCode::ACCEPTED, &json!("FENCED")));
    story.world.clock.sleep(Duration::from_secs(30)).await;
    assert_eq!(story.look().await.state, Standing::Fenced, "b may have committed, for all a knows");
    story.world.reconnect("b").await;
    assert_eq!(story.until(Standing::Active).await.epoch, Count(2));
    story.is_served_by("a", 2).await;
    story.say(&story.alice, "a", &url, "still here").await;
    story.index_until(&story.bob, "a", |entries| entries.iter().any(|one| one["lastSeq"] == "1")).await;
    assert_eq!(story.order().await.0, StatusCode::ACCEPTED, "and he can be moved again");
    story.until(Standing::Gone).await;
    story.is_served_by("b", 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_either_end_at_any_step_only_repeats_it() {
    let mut reached = std::collections::BTreeSet::new();
    for crashed in ["a", "b"] {
        for steps in (0..150).step_by(5) {
            let mut story = Story::new().await;
            story.phone("a").await;
            let url = story.create(&story.alice, "a").await;
            story.say(&story.alice, "a", &url, "one").await;
            story
                .index_until(&story.bob, "a", |entries| entries.iter().any(|one| one["lastSeq"] == "1"))
                .await;
            story.fence().await;
            for _ in 0..steps {
                tokio::task::yield_now().await;
            }
            let at_the_crash =
                super::store::departure(story.world.cluster("a"), &story.bob.user).await.unwrap();
            reached.insert(format!("{crashed} {:?}", at_the_crash.value.map(|row| row.origin)));
            story.world.restart(crashed).await;
            story.say(&story.alice, "a", &url, "two").await;
            story.until(Standing::Gone).await;
            story.is_served_by("b", 2).await;
            let has_both = |entries: &[Value]| entries.iter().any(|one| one["lastSeq"] == "2");
            let entries = story.index_until(&story.bob, "b", has_both).await;
            assert_eq!(texts(&entries[0]["preview"]), ["one", "two"], "{crashed} after {steps} steps");
            let (status, phone) = story.phone("b").await;
            assert_eq!(status, StatusCode::OK);
            let owed = story.owed("b", &phone, 0, 3).await;
            assert_eq!(owed.iter().map(|one| one.0).collect::<Vec<_>>(), [1, 2, 3]);
            // Worlds that go on would slow the next ones down.
            ["a", "b", "e"].iter().for_each(|name| story.world.cluster(name).host.tasks.abort_all());
        }
    }
    assert_eq!(reached.len(), 4, "each end died before and after the commit: {reached:?}");
}

#[tokio::test(start_paused = true)]
async fn a_user_who_comes_back_finds_everything_again() {
    let story = Story::new().await;
    let url = story.create(&story.alice, "a").await;
    story.say(&story.alice, "a", &url, "one").await;
    story.index_until(&story.bob, "a", |entries| entries.iter().any(|one| one["lastSeq"] == "1")).await;
    story.order().await;
    story.until(Standing::Gone).await;
    story.say(&story.alice, "b", &url, "two").await;
    let admin = story.world.admin_token("b");
    let (status, _) =
        story.world.post("b", Service::Users, &story.moves(), &admin, json!({ "to": "a" })).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    story.until(Standing::Active).await;
    story.is_served_by("a", 3).await;
    story.say(&story.alice, "a", &url, "three").await;
    let has_all = |entries: &[Value]| entries.iter().any(|one| one["lastSeq"] == "3");
    let entries = story.index_until(&story.bob, "a", has_all).await;
    assert_eq!(texts(&entries[0]["preview"]), ["one", "two", "three"]);
}

#[tokio::test(start_paused = true)]
async fn a_race_whose_author_moves_ends_with_one_conversation() {
    for first in ["alice", "bob", "both"] {
        let story = Story::new().await;
        users::resolve(story.world.cluster("a"), &story.alice.user).await.unwrap();
        users::resolve(story.world.cluster("e"), &story.bob.user).await.unwrap();
        story.world.cut("e");
        let mut made = Vec::new();
        if first != "alice" {
            let url = story.create(&story.bob, "a").await;
            assert_eq!(story.say(&story.bob, "a", &url, "bob's").await, StatusCode::CREATED);
            made.push((story.bob.clone(), url));
        }
        story.fence().await;
        story.until(Standing::Gone).await;
        story.world.cut("a");
        story.world.cut("b");
        story.world.reconnect("e").await;
        if first != "bob" {
            let url = story.create(&story.alice, "b").await;
            assert_eq!(story.say(&story.alice, "b", &url, "alice's").await, StatusCode::CREATED);
            made.push((story.alice.clone(), url));
        }
        story.world.reconnect("a").await;
        story.world.reconnect("b").await;
        story.world.clock.sleep(Duration::from_secs(120)).await;
        let (one, other) = (
            story.look_up(&story.alice, &story.bob, "b").await,
            story.look_up(&story.bob, &story.alice, "b").await,
        );
        assert_eq!((&one["url"], &one["state"]), (&other["url"], &json!("live")), "{first}: {one} {other}");
        for (by, url) in &made {
            let said = story.texts(by, "b", url).await;
            assert_eq!(said.len(), made.len(), "{first}: {said:?}");
        }
        let (_, entries) = story.index(&story.bob, "b").await;
        assert!(entries.iter().any(|entry| entry["url"] == one["url"]), "{first}: {entries:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_an_admin_of_the_old_cluster_moves_users_and_only_within_the_org() {
    let story = Story::new().await;
    let orders = [
        (story.world.admin_token("b"), "b", StatusCode::UNAUTHORIZED),
        (story.world.token("a", &story.bob), "b", StatusCode::FORBIDDEN),
        (story.world.admin_token("a"), "e", StatusCode::UNPROCESSABLE_ENTITY),
        (story.world.admin_token("a"), "a", StatusCode::UNPROCESSABLE_ENTITY),
    ];
    for (token, to, expected) in orders {
        let (status, body) =
            story.world.post("a", Service::Users, &story.moves(), &token, json!({ "to": to })).await;
        assert_eq!(status, expected, "{body}");
    }
    story.world.cut("b");
    let (status, body) = story.order().await;
    assert_eq!((status, &body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("peer-unreachable")));
    story.is_served_by_a_alone().await;
    let foreign = story.world.url("a", Service::Users, "/v1/arrivals/x%40corp.example");
    let answer = crate::peers::call(story.world.cluster("e"), Method::GET, &foreign, &()).await;
    assert!(
        matches!(answer, Err(crate::peers::PeerError::Refused(problem)) if problem.code == Code::Forbidden)
    );
}

impl Story {
    async fn is_served_by_a_alone(&self) {
        let row = users::served_here(self.world.cluster("a"), &self.bob.user).await.unwrap();
        assert_eq!(row.value.map(|row| row.record.version), Some(Count(1)), "no fence for who is away");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_brings_anything_for_others() {
    let story = Story::new().await;
    let (_, phone) = story.phone("a").await;
    let phone = phone.id.split_once('~').unwrap().1.to_owned();
    let mallory = story.world.user("a", "mallory@corp.example").await;
    let row = |key: &[&str]| Carried {
        key: Pii::new(key.iter().map(|part| (*part).to_owned()).collect()),
        row: Pii::new(json!({})),
    };
    let own_tail = row(&["device-tail", mallory.user.as_str(), &phone]);
    let spelled = phone.to_uppercase();
    assert_ne!(spelled, phone);
    let spelled_tail = row(&["device-tail", mallory.user.as_str(), &spelled]);
    for carried in [
        vec![row(&["index", story.bob.user.as_str(), "x"])],
        vec![row(&["user", mallory.user.as_str()])],
        vec![row(&["outbox", "0"])],
        vec![row(&["device", &phone])],
        vec![own_tail, row(&["device", &phone])],
        vec![spelled_tail, row(&["device", &spelled])],
    ] {
        let mut batch = Batch::default();
        let refused = carry::unpack(story.world.cluster("a"), &mut batch, &mallory, &carried).await;
        assert_eq!(
            refused.map_err(|problem| problem.code),
            Err(Code::Forbidden),
            "{:?}",
            carried[0].key.expose()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_comes_with_somebody_elses_id_or_at_the_end_of_all_epochs() {
    let story = Story::new().await;
    let bobs = users::held(story.world.cluster("a"), &story.bob.user).await.unwrap().value.unwrap().id;
    let arrive = async |epoch: u64, id: Uuid| {
        let path = format!("/v1/arrivals/mallory%40corp.example/{}/{epoch}", Uuid::from_u128(7));
        let url = story.world.url("a", Service::Users, &path);
        let arrival = Arrival {
            attempt: Uuid::from_u128(8),
            parts: 0,
            id,
            display_name: None,
            external_id: None,
            active: true,
        };
        let answer = crate::peers::call(story.world.cluster("b"), Method::POST, &url, &arrival).await;
        answer.map(drop).map_err(|error| match error {
            crate::peers::PeerError::Refused(problem) => problem.code,
            crate::peers::PeerError::Unreachable => panic!("nobody answers"),
        })
    };
    assert_eq!(arrive(2, bobs).await, Err(Code::Forbidden));
    assert_eq!(arrive(u64::MAX, Uuid::from_u128(9)).await, Err(Code::Unprocessable));
    let bob = users::by_id(story.world.cluster("a"), bobs).await.unwrap().expect("still Bob's");
    assert_eq!(bob.value.map(|row| row.record.user), Some(story.bob.user.clone()));
    assert_eq!(arrive(2, Uuid::from_u128(9)).await, Ok(()));
}
