//! Alice and Bob create their conversation at the same moment in two clusters, and each calls in the own
//! one: at the end there is one call, and both are in it (LOC-004).

use std::time::Duration;

use fusion_protocol::locus::*;
use fusion_protocol::{Service, Url, UserRef};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::testing::World;

struct Person {
    home: &'static str,
    user: UserRef,
}

struct Race {
    world: World,
    alice: Person,
    bob: Person,
}

impl Race {
    async fn new() -> Self {
        let world = World::new(&["a", "b"]).await;
        let alice = Person { home: "a", user: world.user("a", "alice@a.example").await };
        let bob = Person { home: "b", user: world.user("b", "bob@b.example").await };
        let race = Self { world, alice, bob };
        race.knows(&race.alice, &race.bob).await;
        race.knows(&race.bob, &race.alice).await;
        race
    }

    /// The cluster of one has resolved the other: it can go on in a partition.
    async fn knows(&self, who: &Person, other: &Person) {
        let path = format!("/v1/resolve/{}", other.user.user.path_segment());
        let token = self.world.token(who.home, &who.user);
        let (status, body) = self.world.get(who.home, Service::Users, &path, &token).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }

    /// Creates the conversation with `other` in the own cluster; answers its locus.
    async fn create(&self, who: &Person, other: &str) -> Url {
        let body = json!({"kind": "oneToOne", "participants": [other]});
        let token = self.world.token(who.home, &who.user);
        let (status, body) =
            self.world.post(who.home, Service::Conv, "/v1/conversations", &token, body).await;
        assert!(status.is_success(), "{body}");
        body["locusUrl"].as_str().unwrap().parse().unwrap()
    }

    /// Asks once, with a token for wherever the URL leads.
    async fn ask(
        &self,
        who: &Person,
        method: Method,
        url: &str,
        body: Option<Value>,
    ) -> (StatusCode, HeaderMap, Value) {
        let url: Url = url.parse().unwrap();
        let there = self.world.template.locate(&url).unwrap().cluster;
        let token = self.world.guest_token(who.home, &who.user, there.as_str());
        self.world.send(method, &url, &token, body).await
    }

    /// As [`Race::ask`], led on once.
    async fn ask_on(
        &self,
        who: &Person,
        method: Method,
        url: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let (status, headers, answer) = self.ask(who, method.clone(), url, body.clone()).await;
        if !status.is_redirection() {
            return (status, answer);
        }
        let next = headers[header::LOCATION].to_str().unwrap().to_owned();
        let (status, _, answer) = self.ask(who, method, &next, body).await;
        (status, answer)
    }

    async fn join(&self, who: &Person, locus: &Url) -> Joined {
        let body = json!({"expect": "0", "device": "phone"});
        let (status, body) =
            self.ask_on(who, Method::POST, &format!("{locus}/participants"), Some(body)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_value(body).unwrap()
    }

    async fn read(&self, who: &Person, locus: &Url) -> Locus {
        let (status, body) = self.ask_on(who, Method::GET, locus.as_str(), None).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_value(body).unwrap()
    }

    async fn pass(&self, seconds: u64) {
        self.world.clock.sleep(Duration::from_secs(seconds)).await;
    }
}

fn everybody_is_in(locus: &Locus) -> bool {
    locus.state == LocusState::Active
        && locus.participants.len() == 2
        && locus.participants.iter().all(|participant| participant.state == ParticipantState::Joined)
}

#[tokio::test(start_paused = true)]
async fn the_calls_of_both_conversations_end_as_one() {
    let race = Race::new().await;
    // Neither cluster hears of the other before both have called.
    race.world.cut("a");
    race.world.cut("b");
    race.world.reconnect("a").await;
    let by_alice = race.create(&race.alice, "bob@b.example").await;
    let alice = race.join(&race.alice, &by_alice).await;
    race.world.cut("a");
    race.world.reconnect("b").await;
    let by_bob = race.create(&race.bob, "alice@a.example").await;
    let bob = race.join(&race.bob, &by_bob).await;
    assert_ne!(alice.locus.url, bob.locus.url, "the race is on");
    race.world.reconnect("a").await;
    race.pass(30).await;

    let seen_by_alice = race.read(&race.alice, &by_alice).await;
    let seen_by_bob = race.read(&race.bob, &by_bob).await;
    assert_eq!(seen_by_alice, seen_by_bob, "both old URLs lead to one locus");
    assert!(everybody_is_in(&seen_by_alice), "{seen_by_alice:?}");
    assert_eq!(seen_by_alice.replaces.len(), 1);

    // Both go on to renew where they joined, and the call lasts.
    for _ in 0..6 {
        for (who, joined) in [(&race.alice, &alice), (&race.bob, &bob)] {
            let url = format!("{}/participants/{}/lease", joined.locus.url, joined.participant);
            let lease = json!({"instance": joined.locus.instance, "device": "phone"});
            let (status, body) = race.ask_on(who, Method::POST, &url, Some(lease)).await;
            assert_eq!(status, StatusCode::NO_CONTENT, "{body}");
        }
        race.pass(KEEP_ALIVE_SECONDS).await;
    }
    assert!(everybody_is_in(&race.read(&race.alice, &by_alice).await));
}

#[tokio::test(start_paused = true)]
async fn a_join_at_the_loser_is_led_to_the_winner() {
    let race = Race::new().await;
    race.world.cut("b");
    let by_alice = race.create(&race.alice, "bob@b.example").await;
    race.world.cut("a");
    race.world.reconnect("b").await;
    let by_bob = race.create(&race.bob, "alice@a.example").await;
    race.world.reconnect("a").await;
    race.pass(30).await;
    let alice = race.join(&race.alice, &by_alice).await;
    let bob = race.join(&race.bob, &by_bob).await;
    assert_eq!(alice.locus.url, bob.locus.url);
    assert!(everybody_is_in(&bob.locus), "{bob:?}");
}
