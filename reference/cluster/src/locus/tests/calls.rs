//! Alice, served by `a`, and Bob, served by `b`, call each other in a conversation that lives in `a`.

use std::time::Duration;

use fusion_machines::locus::participant_id;
use fusion_protocol::locus::*;
use fusion_protocol::{Count, Service, Url, UserRef, Uuid};
use fusion_runtime::store::Key;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::locus;
use crate::testing::World;

const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];

/// The people, their conversation's locus, and the world they are in.
pub(super) struct Stage {
    pub(super) world: World,
    people: Vec<(&'static str, UserRef)>,
    pub(super) locus: Url,
}

impl Stage {
    /// Alice has begun a 1:1 conversation with Bob, and his cluster knows of it.
    async fn pair() -> Self {
        Self::pair_in(World::new(&["a", "b"]).await).await
    }

    pub(super) async fn pair_in(world: World) -> Self {
        Self::begin(world, json!({"kind": "oneToOne", "participants": ["bob@b.example"]})).await
    }

    async fn group() -> Self {
        let others = json!(["bob@b.example", "carol@b.example"]);
        let body = json!({"kind": "group", "participants": others, "title": "three"});
        Self::begin(World::new(&["a", "b"]).await, body).await
    }

    async fn begin(world: World, conversation: Value) -> Self {
        let people = vec![
            ("a", world.user("a", "alice@a.example").await),
            ("b", world.user("b", "bob@b.example").await),
            ("b", world.user("b", "carol@b.example").await),
        ];
        let token = world.token("a", &people[0].1);
        let (status, body) = world.post("a", Service::Conv, "/v1/conversations", &token, conversation).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        let locus = body["locusUrl"].as_str().unwrap().parse().unwrap();
        let stage = Self { world, people, locus };
        stage.pass(1).await;
        stage
    }

    pub(super) async fn pass(&self, seconds: u64) {
        self.world.clock.sleep(Duration::from_secs(seconds)).await;
    }

    fn conversation(&self) -> Uuid {
        self.locus.path_segments().unwrap().rev().nth(1).unwrap().parse().unwrap()
    }

    fn person(&self, who: &str) -> &(&'static str, UserRef) {
        &self.people[PEOPLE.iter().position(|name| *name == who).unwrap()]
    }

    /// A request to the locus, with a token for its home.
    async fn ask(
        &self,
        who: &str,
        method: Method,
        below: impl Into<String>,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let (home, user) = self.person(who);
        let token = self.world.guest_token(home, user, "a");
        let url: Url = (self.locus.to_string() + &below.into()).parse().unwrap();
        let (status, _, body) = self.world.send(method, &url, &token, body).await;
        (status, body)
    }

    async fn try_join(&self, who: &str, expect: u64, device: &str) -> (StatusCode, Value) {
        let body = json!({"expect": expect.to_string(), "device": device});
        self.ask(who, Method::POST, "/participants", Some(body)).await
    }

    pub(super) async fn join(&self, who: &str, expect: u64) -> Joined {
        let (status, body) = self.try_join(who, expect, "phone").await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_value(body).unwrap()
    }

    pub(super) async fn read(&self) -> Locus {
        let (status, body) = self.ask("alice", Method::GET, "", None).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_value(body).unwrap()
    }

    async fn put(&self, who: &str, state: &str, instance: u64) -> (StatusCode, Value) {
        let id = self.seat(who).await;
        let body = json!({"state": state, "instance": instance.to_string()});
        self.ask(who, Method::PUT, format!("/participants/{id}"), Some(body)).await
    }

    pub(super) async fn hang_up(&self, who: &str, instance: u64) -> Locus {
        let (status, body) = self.put(who, "LEFT", instance).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_value(body).unwrap()
    }

    async fn renew(&self, who: &str, instance: u64) -> (StatusCode, Value) {
        let id = self.seat(who).await;
        let body = json!({"instance": instance.to_string(), "device": "phone"});
        self.ask(who, Method::POST, format!("/participants/{id}/lease"), Some(body)).await
    }

    async fn seat(&self, who: &str) -> String {
        self.part(&self.read().await, who).id.to_string()
    }

    fn part<'a>(&self, locus: &'a Locus, who: &str) -> &'a LocusParticipant {
        let user = &self.person(who).1.user;
        locus.participants.iter().find(|participant| participant.user == *user).unwrap()
    }

    async fn state_of(&self, who: &str) -> (ParticipantState, Option<Reason>) {
        let locus = self.read().await;
        let part = self.part(&locus, who);
        (part.state, part.reason)
    }

    /// The active list of somebody, from their own cluster.
    async fn list(&self, who: &str) -> Vec<ActiveLocus> {
        let (home, user) = self.person(who);
        let path = format!("/v1/users/{}/loci", user.user.path_segment());
        let token = self.world.token(home, user);
        let (status, body) = self.world.get(home, Service::Locus, &path, &token).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_value::<ActiveLoci>(body).unwrap().loci
    }

    /// A device of somebody, so that there is a queue to look into.
    async fn device(&self, who: &str) {
        let (home, user) = self.person(who);
        let token = self.world.token(home, user);
        let (status, body) = self.world.post(home, Service::Mercury, "/v1/devices", &token, json!({})).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }

    /// How often an event of this type waits in a cluster's device queues.
    fn queued(&self, cluster: &str, event: &str) -> usize {
        let rows = self.world.store(cluster).snapshot();
        let events = rows.iter().filter(|(key, _)| is_queue(key));
        let texts = events.map(|(_, row)| String::from_utf8_lossy(&row.value).into_owned());
        texts.map(|text| text.matches(event).count()).sum()
    }
}

fn is_queue(key: &Key) -> bool {
    key.parts().first().is_some_and(|concept| concept.starts_with(b"device"))
}

#[tokio::test(start_paused = true)]
async fn a_call_rings_is_answered_and_ends() {
    let stage = Stage::pair().await;
    let joined = stage.join("alice", 0).await;
    assert_eq!((joined.locus.state, joined.locus.instance.0), (LocusState::Initializing, 1));
    assert_eq!(joined.keep_alive_seconds, KEEP_ALIVE_SECONDS);
    stage.pass(1).await;
    let ringing = stage.list("bob").await;
    assert_eq!(ringing.len(), 1, "LOC-002: the callee finds the ringing call in the own list");
    assert_eq!(ringing[0].locus_url, stage.locus, "LOC-001: both see the same URL");
    assert_eq!(ringing[0].participant_state, ParticipantState::Notified);
    let answered = stage.join("bob", 0).await;
    assert_eq!((answered.locus.state, answered.locus.url), (LocusState::Active, stage.locus.clone()));
    stage.pass(1).await;
    assert_eq!(stage.list("alice").await[0].participant_state, ParticipantState::Joined);
    let ended = stage.hang_up("bob", 1).await;
    assert_eq!(ended.state, LocusState::Inactive);
    assert_eq!(stage.state_of("alice").await, (ParticipantState::Left, Some(Reason::Alone)));
    stage.pass(1).await;
    assert!(stage.list("alice").await.is_empty() && stage.list("bob").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn calling_each_other_at_once_ends_in_one_call() {
    let stage = Stage::pair().await;
    let (alice, bob) = tokio::join!(stage.join("alice", 0), stage.join("bob", 0));
    assert_eq!((alice.locus.instance.0, bob.locus.instance.0), (1, 1));
    let locus = stage.read().await;
    assert_eq!(locus.state, LocusState::Active);
    assert!(locus.participants.iter().all(|participant| participant.state == ParticipantState::Joined));
}

#[tokio::test(start_paused = true)]
async fn devices_are_woken_by_ringing_answering_and_ending() {
    let stage = Stage::pair().await;
    stage.device("bob").await;
    stage.join("alice", 0).await;
    stage.pass(1).await;
    assert_eq!(stage.queued("b", "locus.ringing"), 1);
    stage.join("bob", 0).await;
    stage.pass(1).await;
    assert_eq!(stage.queued("b", "locus.answeredElsewhere"), 1);
    stage.hang_up("alice", 1).await;
    stage.pass(1).await;
    assert_eq!(stage.queued("b", "locus.ended"), 1);
}

#[tokio::test(start_paused = true)]
async fn declining_ends_a_one_to_one_call() {
    let stage = Stage::pair().await;
    stage.join("alice", 0).await;
    let (status, body) = stage.put("bob", "DECLINED", 1).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(stage.read().await.state, LocusState::Inactive);
    assert_eq!(stage.state_of("bob").await.0, ParticipantState::Declined);
    stage.pass(1).await;
    assert!(stage.list("alice").await.is_empty() && stage.list("bob").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_answers_is_missed() {
    let stage = Stage::pair().await;
    stage.join("alice", 0).await;
    for _ in 0..2 {
        stage.pass(KEEP_ALIVE_SECONDS).await;
        assert_eq!(stage.renew("alice", 1).await.0, StatusCode::NO_CONTENT);
    }
    stage.pass(RING_SECONDS - 2 * KEEP_ALIVE_SECONDS - 1).await;
    assert_eq!(stage.state_of("bob").await.0, ParticipantState::Notified);
    stage.pass(2).await;
    assert_eq!(stage.state_of("bob").await, (ParticipantState::Left, Some(Reason::Missed)));
    assert_eq!(stage.read().await.state, LocusState::Inactive);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_client_leaves_by_its_lease() {
    let stage = Stage::pair().await;
    stage.join("alice", 0).await;
    stage.join("bob", 0).await;
    for _ in 0..3 {
        stage.pass(KEEP_ALIVE_SECONDS - 1).await;
        assert_eq!(stage.renew("alice", 1).await.0, StatusCode::NO_CONTENT);
    }
    assert_eq!(stage.read().await.state, LocusState::Active);
    stage.pass(LEASE_SECONDS - 3 * (KEEP_ALIVE_SECONDS - 1) + 1).await;
    assert_eq!(stage.state_of("bob").await, (ParticipantState::Left, Some(Reason::Lease)));
    let (status, body) = stage.renew("alice", 1).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("call-over")));
}

#[tokio::test(start_paused = true)]
async fn the_home_gives_a_full_lease_after_its_recovery() {
    let mut stage = Stage::pair().await;
    stage.join("alice", 0).await;
    stage.join("bob", 0).await;
    stage.pass(LEASE_SECONDS - 5).await;
    stage.world.restart("a").await;
    stage.pass(LEASE_SECONDS - 5).await;
    assert_eq!(stage.read().await.state, LocusState::Active, "nobody loses a lease for the home's fault");
    assert_eq!(stage.renew("alice", 1).await.0, StatusCode::NO_CONTENT);
    stage.pass(6).await;
    assert_eq!(stage.state_of("bob").await, (ParticipantState::Left, Some(Reason::Lease)));
}

#[tokio::test(start_paused = true)]
async fn a_long_call_stays_in_the_lists_and_a_lost_end_leaves_no_ghost() {
    let stage = Stage::pair().await;
    stage.join("alice", 0).await;
    stage.join("bob", 0).await;
    for _ in 0..2 * ACTIVE_HIDE_SECONDS / KEEP_ALIVE_SECONDS {
        stage.pass(KEEP_ALIVE_SECONDS).await;
        stage.renew("alice", 1).await;
        stage.renew("bob", 1).await;
    }
    assert_eq!(stage.list("bob").await.len(), 1);
    // The home goes silent for ever.
    stage.world.cluster("a").host.tasks.abort_all();
    stage.pass(ACTIVE_HIDE_SECONDS + 1).await;
    assert!(stage.list("bob").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_retried_join_never_rings_again() {
    let stage = Stage::pair().await;
    let first = stage.join("alice", 0).await;
    let again = stage.join("alice", 0).await;
    assert_eq!(first, again);
    stage.hang_up("alice", 1).await;
    let (status, body) = stage.try_join("alice", 0, "phone").await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("call-over")));
    assert_eq!(stage.join("alice", 1).await.locus.instance.0, 2, "the next call is a new instance");
}

#[tokio::test(start_paused = true)]
async fn a_reader_with_since_gets_what_is_new() {
    let stage = Stage::pair().await;
    let rev = stage.join("alice", 0).await.locus.rev;
    let since = format!("?since={rev}");
    let (_, body) = stage.ask("bob", Method::GET, &since, None).await;
    assert_eq!(body, json!({"type": "unchanged", "rev": rev}));
    stage.join("bob", 0).await;
    let (_, body) = stage.ask("bob", Method::GET, &since, None).await;
    let delta: LocusDelta = serde_json::from_value(body).unwrap();
    let LocusDelta::Whole(locus) = delta else { panic!("there is something new") };
    assert!(locus.rev > rev);
    let (status, body) = stage.ask("bob", Method::GET, "?since=new", None).await;
    assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &json!("bad-request")));
}

#[tokio::test(start_paused = true)]
async fn only_participants_take_part_and_only_for_themselves() {
    let stage = Stage::pair().await;
    let (status, body) = stage.try_join("carol", 0, "phone").await;
    assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("not-participant")));
    let (status, _) = stage.ask("carol", Method::GET, "", None).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    stage.join("alice", 0).await;
    let alice = stage.seat("alice").await;
    let leaving = json!({"state": "LEFT", "instance": "1"});
    let (status, body) = stage.ask("bob", Method::PUT, format!("/participants/{alice}"), Some(leaving)).await;
    assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")));
    let (status, body) = stage.put("alice", "JOINED", 1).await;
    assert_eq!((status, &body["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("unprocessable")));
    let (status, _) = stage.try_join("bob", 0, "").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(stage.state_of("alice").await.0, ParticipantState::Joined);
}

#[tokio::test(start_paused = true)]
async fn a_group_call_rings_everybody_and_goes_on_without_its_caller() {
    let stage = Stage::group().await;
    stage.join("alice", 0).await;
    stage.pass(1).await;
    assert_eq!((stage.list("bob").await.len(), stage.list("carol").await.len()), (1, 1));
    stage.join("bob", 0).await;
    stage.hang_up("alice", 1).await;
    assert_eq!(stage.state_of("carol").await.0, ParticipantState::Notified);
    assert_eq!(stage.join("carol", 0).await.locus.state, LocusState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_callee_whose_cluster_is_away_finds_the_call_when_it_is_back() {
    let stage = Stage::pair().await;
    stage.world.cut("b");
    let joined = stage.join("alice", 0).await;
    assert_eq!(joined.locus.state, LocusState::Initializing, "the caller waits for nobody");
    stage.pass(5).await;
    stage.world.reconnect("b").await;
    stage.pass(20).await;
    assert_eq!(stage.list("bob").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_loses_a_lease_while_the_home_stands_still() {
    let stage = Stage::pair().await;
    stage.join("alice", 0).await;
    stage.join("bob", 0).await;
    let home = stage.world.cluster("a").host.tasks.clone();
    home.pause();
    stage.pass(2 * LEASE_SECONDS).await;
    home.resume();
    stage.pass(LEASE_SECONDS - 5).await;
    assert_eq!(stage.read().await.state, LocusState::Active);
    stage.pass(10).await;
    assert_eq!(stage.read().await.state, LocusState::Inactive, "then leases are counted again");
}

#[tokio::test(start_paused = true)]
async fn the_call_of_a_lost_conversation_is_handed_to_the_winner() {
    let stage = Stage::pair().await;
    stage.join("alice", 0).await;
    stage.join("bob", 0).await;
    let (home, id) = (stage.world.cluster("a"), stage.conversation());
    let calls = locus::move_away(home, id).await.unwrap();
    let moved =
        |user: &str| MovedParticipant { user: user.parse().unwrap(), devices: vec!["phone".to_owned()] };
    let joined = vec![moved("alice@a.example"), moved("bob@b.example")];
    assert_eq!(calls, [Replaces { locus_url: stage.locus.clone(), instance: Count(1), joined }]);
    let (status, body) = stage.renew("alice", 1).await;
    assert_eq!((status, &body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("sealing")));
    assert_eq!(locus::move_away(home, id).await.unwrap(), calls, "asked again, it says the same");
    assert_eq!(stage.read().await.state, LocusState::Inactive);
    stage.pass(1).await;
    assert!(stage.list("alice").await.is_empty() && stage.list("bob").await.is_empty());
}

/// Alice was in call 4 of the conversation that lost the race.
fn moved_call(stage: &Stage) -> Replaces {
    let alice =
        MovedParticipant { user: stage.person("alice").1.user.clone(), devices: vec!["phone".into()] };
    let locus_url = stage.world.url("b", Service::Conv, "/v1/conversations/1/locus");
    Replaces { locus_url, instance: Count(4), joined: vec![alice] }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_moved_goes_on_at_the_winner_with_those_who_were_in_it() {
    let stage = Stage::pair().await;
    let call = moved_call(&stage);
    stage.join("bob", 0).await;
    for _ in 0..2 {
        let calls = vec![call.clone()];
        locus::take_over(stage.world.cluster("a"), stage.conversation(), calls).await.unwrap();
    }
    let locus = stage.read().await;
    assert_eq!((locus.state, locus.instance), (LocusState::Active, Count(1)));
    assert!(locus.participants.iter().all(|participant| participant.state == ParticipantState::Joined));
    assert_eq!(locus.replaces, [Replaces { joined: vec![], ..call }]);
    stage.hang_up("bob", 1).await;
    assert_eq!(stage.read().await.replaces, []);
}

#[tokio::test(start_paused = true)]
async fn who_moved_with_a_call_may_go_on_to_use_the_old_names() {
    let stage = Stage::pair().await;
    let call = moved_call(&stage);
    let old_seat = participant_id(&call.locus_url, &stage.person("alice").1.user);
    locus::take_over(stage.world.cluster("a"), stage.conversation(), vec![call]).await.unwrap();
    let lease = json!({"instance": "4", "device": "phone"});
    let renew = || {
        let below = format!("/participants/{old_seat}/lease");
        stage.ask("alice", Method::POST, below, Some(lease.clone()))
    };
    assert_eq!(renew().await.0, StatusCode::NO_CONTENT);
    let leaving = json!({"instance": "4", "state": "LEFT"});
    let (status, body) =
        stage.ask("alice", Method::PUT, format!("/participants/{old_seat}"), Some(leaving)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(stage.read().await.state, LocusState::Inactive);
    let (status, body) = renew().await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("call-over")));
}
