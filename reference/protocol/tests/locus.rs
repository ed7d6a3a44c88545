//! The wire messages of loci, as they are written (LOC). A changed snapshot is a changed protocol.

#![expect(clippy::unwrap_used, reason = "what a test sets up is right")]

use fusion_protocol::locus::*;
use fusion_protocol::media::Leg;
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Count, Incarnation, Url, Uuid};
use insta::assert_json_snapshot;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

fn url(path: &str) -> Url {
    format!("https://a-conv.provider.example/v1/conversations/{path}").parse().unwrap()
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// Reading back what is written gives the same message.
fn round_trips<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T) {
    let text = serde_json::to_string(message).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), *message);
}

fn locus() -> Locus {
    Locus {
        url: url("01/locus"),
        conversation_url: url("01"),
        state: LocusState::Active,
        instance: Count(3),
        rev: Count(17),
        participants: vec![
            LocusParticipant {
                id: id(1),
                user: "alice@a.example".parse().unwrap(),
                state: ParticipantState::Joined,
                reason: None,
                devices: vec!["a~phone".to_owned()],
            },
            LocusParticipant {
                id: id(2),
                user: "bob@c.example".parse().unwrap(),
                state: ParticipantState::Left,
                reason: Some(Reason::Missed),
                devices: vec![],
            },
        ],
        replaces: vec![],
    }
}

fn entry() -> ActiveLocus {
    ActiveLocus {
        locus_url: url("01/locus"),
        conversation_url: url("01"),
        instance: Count(3),
        rev: Count(17),
        state: LocusState::Initializing,
        participant_state: ParticipantState::Notified,
    }
}

#[test]
fn a_locus() {
    round_trips(&locus());
    assert_json_snapshot!(locus());
}

#[test]
fn a_locus_in_which_the_call_of_a_lost_conversation_goes_on() {
    let replaces = vec![Replaces { locus_url: url("02/locus"), instance: Count(1), joined: vec![] }];
    let locus = Locus { replaces, participants: vec![], ..locus() };
    round_trips(&locus);
    assert_json_snapshot!(locus);
}

#[test]
fn a_call_that_is_handed_to_the_winner() {
    let alice =
        MovedParticipant { user: "alice@a.example".parse().unwrap(), devices: vec!["a~phone".to_owned()] };
    let moved = Replaces { locus_url: url("02/locus"), instance: Count(1), joined: vec![alice] };
    round_trips(&moved);
    assert_json_snapshot!(moved);
}

#[test]
fn what_a_reader_with_since_gets() {
    let unchanged = LocusDelta::Unchanged { rev: Count(17) };
    let whole = LocusDelta::Whole(Box::new(Locus { participants: vec![], ..locus() }));
    round_trips(&unchanged);
    round_trips(&whole);
    assert_json_snapshot!([unchanged, whole]);
}

#[test]
fn a_join_and_its_answer() {
    let join = Join { expect: Count(2), device: "a~phone".to_owned() };
    let leg = Leg {
        id: id(9),
        udp_address: "192.0.2.1:4000".parse().unwrap(),
        token: "0123456789abcdef0123456789abcdef".to_owned(),
        ssrc: 4_000_000_000,
    };
    let joined =
        Joined { locus: locus(), participant: id(1), leg: Some(leg), keep_alive_seconds: KEEP_ALIVE_SECONDS };
    round_trips(&join);
    round_trips(&joined);
    assert_json_snapshot!(json!([join, joined]));
}

#[test]
fn the_own_state_and_a_lease() {
    let leaving =
        SetState { state: ParticipantState::Left, instance: Count(3), device: Some("a~phone".to_owned()) };
    let declining = SetState { state: ParticipantState::Declined, instance: Count(3), device: None };
    let lease = Lease { instance: Count(3), device: "a~phone".to_owned() };
    round_trips(&leaving);
    round_trips(&lease);
    assert_json_snapshot!(json!([leaving, declining, lease]));
}

#[test]
fn the_active_loci() {
    let active = ActiveLoci { loci: vec![entry()] };
    round_trips(&active);
    assert_json_snapshot!(active);
}

#[test]
fn what_one_cluster_writes_in_the_active_lists_of_another() {
    let ringing = ActiveWrite {
        id: id(5),
        user: "bob@c.example".parse().unwrap(),
        incarnation: Incarnation(id(6)),
        epoch: Count(1),
        entry: entry(),
        event: Some(EventType::LocusRinging),
    };
    let renewal = ActiveWrite { id: id(7), event: None, ..ringing.clone() };
    let batch = ActiveBatch { rows: vec![ringing, renewal] };
    round_trips(&batch);
    assert_json_snapshot!(batch);
}

#[test]
fn members_that_are_not_known_are_passed_over() {
    let join: Join = serde_json::from_value(json!({"expect": "2", "device": "x", "later": true})).unwrap();
    assert_eq!(join, Join { expect: Count(2), device: "x".to_owned() });
}
