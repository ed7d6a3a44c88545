//! The active lists: a register ordered by (instance, rev), written by a locus's home only (LOC-007).

use fusion_protocol::index::BatchAnswer;
use fusion_protocol::locus::*;
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Code, Count, Incarnation, Service, UserRef, Uuid};
use http::{Method, StatusCode};
use serde_json::json;
use std::time::Duration;

use crate::peers;
use crate::testing::World;

/// Alice, served by `a`, and loci that live in `b`.
struct Lists {
    world: World,
    alice: UserRef,
}

impl Lists {
    async fn new() -> Self {
        let world = World::new(&["a", "b"]).await;
        let alice = world.user("a", "alice@a.example").await;
        Self { world, alice }
    }

    fn write(&self, home: &str, instance: u64, rev: u64, state: LocusState) -> ActiveWrite {
        let conversation_url = self.world.url(home, Service::Conv, "/v1/conversations/1");
        let entry = ActiveLocus {
            locus_url: self.world.url(home, Service::Conv, "/v1/conversations/1/locus"),
            conversation_url,
            instance: Count(instance),
            rev: Count(rev),
            state,
            participant_state: ParticipantState::Notified,
        };
        ActiveWrite {
            id: Uuid::from_u128(u128::from(rev)),
            user: self.alice.user.clone(),
            incarnation: self.alice.incarnation,
            epoch: Count(1),
            entry,
            event: None,
        }
    }

    /// What becomes of `write` when `b` sends it.
    async fn send(&self, write: ActiveWrite) -> Option<Code> {
        let url = self.world.url("a", Service::Locus, "/v1/loci");
        let batch = ActiveBatch { rows: vec![write.clone()] };
        let answer = peers::call(self.world.cluster("b"), Method::POST, &url, &batch).await.unwrap();
        let answer: BatchAnswer = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer.results.len(), 1);
        assert_eq!(answer.results[0].id, write.id);
        answer.results[0].code
    }

    /// The revisions of the calls that alice is shown.
    async fn shown(&self) -> Vec<u64> {
        let token = self.world.token("a", &self.alice);
        let (status, body) =
            self.world.get("a", Service::Locus, "/v1/users/alice%40a.example/loci", &token).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let active: ActiveLoci = serde_json::from_value(body).unwrap();
        active.loci.iter().map(|entry| entry.rev.0).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_is_shown_while_the_call_goes_on() {
    let lists = Lists::new().await;
    assert_eq!(lists.send(lists.write("b", 1, 1, LocusState::Initializing)).await, None);
    assert_eq!(lists.shown().await, [1]);
    assert_eq!(lists.send(lists.write("b", 1, 3, LocusState::Inactive)).await, None);
    assert_eq!(lists.shown().await, [0_u64; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_late_word_of_an_ended_call_does_not_bring_it_back() {
    let lists = Lists::new().await;
    lists.send(lists.write("b", 1, 3, LocusState::Inactive)).await;
    let late = ActiveWrite {
        event: Some(EventType::LocusRinging),
        ..lists.write("b", 1, 1, LocusState::Initializing)
    };
    assert_eq!(lists.send(late).await, None, "it is taken note of, and changes nothing");
    assert_eq!(lists.shown().await, [0_u64; 0]);
    lists.send(lists.write("b", 2, 4, LocusState::Initializing)).await;
    assert_eq!(lists.shown().await, [4]);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_not_renewed_is_hidden() {
    let lists = Lists::new().await;
    let write = lists.write("b", 1, 1, LocusState::Active);
    lists.send(write.clone()).await;
    lists.world.clock.sleep(Duration::from_secs(ACTIVE_RENEW_SECONDS)).await;
    lists.send(write).await;
    lists.world.clock.sleep(Duration::from_secs(ACTIVE_HIDE_SECONDS - 1)).await;
    assert_eq!(lists.shown().await, [1]);
    lists.world.clock.sleep(Duration::from_secs(2)).await;
    assert_eq!(lists.shown().await, [0_u64; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_writes_of_its_own_loci_only() {
    let lists = Lists::new().await;
    let foreign = lists.write("a", 1, 1, LocusState::Active);
    assert_eq!(lists.send(foreign).await, Some(Code::NotYourObject));
    let mut crossed = lists.write("b", 1, 1, LocusState::Active);
    crossed.entry.locus_url = lists.world.url("a", Service::Conv, "/v1/conversations/1/locus");
    assert_eq!(lists.send(crossed).await, Some(Code::NotYourObject));
    let mut outside = lists.write("b", 1, 1, LocusState::Active);
    outside.entry.conversation_url = "https://b-conv.provider.example.evil.test/v1/x".parse().unwrap();
    assert_eq!(lists.send(outside).await, Some(Code::NotYourObject));
    assert_eq!(lists.shown().await, [0_u64; 0]);
}

#[tokio::test(start_paused = true)]
async fn another_person_or_a_moved_one_is_not_written_to() {
    let lists = Lists::new().await;
    let write = lists.write("b", 1, 1, LocusState::Active);
    let other = ActiveWrite { incarnation: Incarnation(Uuid::from_u128(9)), ..write.clone() };
    assert_eq!(lists.send(other).await, Some(Code::IncarnationGone));
    let old = ActiveWrite { epoch: Count(0), ..write.clone() };
    assert_eq!(lists.send(old).await, Some(Code::WrongCluster));
    let unknown = ActiveWrite { user: "nobody@a.example".parse().unwrap(), ..write };
    assert!(lists.send(unknown).await.is_some());
    assert_eq!(lists.shown().await, [0_u64; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_list_is_its_owners_alone() {
    let lists = Lists::new().await;
    let bob = lists.world.user("b", "bob@b.example").await;
    let path = "/v1/users/alice%40a.example/loci";
    let (status, _) = lists.world.get("a", Service::Locus, path, "").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let carol = lists.world.user("a", "carol@a.example").await;
    let (status, body) = lists.world.get("a", Service::Locus, path, &lists.world.token("a", &carol)).await;
    assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")));
    let token = lists.world.token("b", &bob);
    let (status, _) = lists.world.post("a", Service::Locus, "/v1/loci", &token, json!({"rows": []})).await;
    assert!(status.is_client_error(), "a user's token writes in no list");
}

#[tokio::test(start_paused = true)]
async fn what_is_erased_is_gone() {
    let lists = Lists::new().await;
    lists.send(lists.write("b", 1, 1, LocusState::Active)).await;
    crate::locus::erase(lists.world.cluster("a"), &lists.alice.user).await.unwrap();
    assert_eq!(lists.shown().await, [0_u64; 0]);
    let left = lists.world.store("a").snapshot();
    let named = |key: &fusion_runtime::store::Key| key.parts().iter().any(|part| part == b"alice@a.example");
    let lists_left = left.keys().filter(|key| key.parts()[0].starts_with(b"active") && named(key));
    assert_eq!(lists_left.count(), 0);
}
