//! The wire messages of indexes, as they are written (RDV). A changed snapshot is a changed protocol.

#![expect(clippy::unwrap_used, reason = "what a test sets up is right")]

use fusion_protocol::conversation::{Act, Activity, ActivityId, Kind};
use fusion_protocol::index::*;
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Code, Count, Incarnation, Url, Uuid};
use insta::assert_json_snapshot;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

fn url(rest: &str) -> Url {
    let id = Uuid::from_u128(1);
    format!("https://a-conv.provider.example/v1/conversations/{id}{rest}").parse().unwrap()
}

/// Reading back what is written gives the same message.
fn round_trips<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T) {
    let text = serde_json::to_string(message).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), *message);
}

fn activity() -> Activity {
    Activity {
        id: ActivityId([1; 32]),
        seq: Count(4),
        author: "alice@a.example".parse().unwrap(),
        incarnation: Incarnation(Uuid::from_u128(7)),
        published: "2027-01-15T08:00:00.000Z".into(),
        act: Act::Message { text: "hi".into() },
        attested_by: None,
    }
}

fn entry() -> IndexEntry {
    IndexEntry {
        url: url(""),
        locus_url: url("/locus"),
        kind: Kind::Group,
        home: "a".parse().unwrap(),
        title: Some("tea".into()),
        membership: Membership::Member,
        membership_seq: Count(2),
        last_seq: Count(4),
        preview: vec![activity()],
        hidden: false,
        superseded_by: None,
        cursor: Count(9),
        reachable: true,
    }
}

fn write() -> IndexWrite {
    IndexWrite {
        id: Uuid::from_u128(2),
        user: "bob@b.example".parse().unwrap(),
        incarnation: Incarnation(Uuid::from_u128(8)),
        epoch: Count(1),
        url: url(""),
        locus_url: url("/locus"),
        kind: Kind::OneToOne,
        title: None,
        membership: Membership::Member,
        membership_seq: Count(1),
        last_seq: Count(4),
        activities: vec![activity()],
        superseded_by: None,
        event: Some(EventType::ConversationActivity),
    }
}

#[test]
fn a_page_of_an_index() {
    let winner = "https://b-conv.provider.example/v1/conversations/1".parse().unwrap();
    let lost = IndexEntry {
        title: None,
        kind: Kind::OneToOne,
        membership: Membership::Left,
        preview: vec![],
        hidden: true,
        superseded_by: Some(winner),
        reachable: false,
        ..entry()
    };
    let page = IndexPage { entries: vec![entry(), lost], cursor: Count(u64::MAX), more: true };
    round_trips(&page);
    assert_json_snapshot!(page);
}

#[test]
fn hiding() {
    let hide = Hide { url: url(""), hidden: true };
    round_trips(&hide);
    assert_json_snapshot!(hide);
}

#[test]
fn a_batch_of_one_cluster_for_another_and_its_answer() {
    let silent = IndexWrite { event: None, activities: vec![], ..write() };
    let batch = IndexBatch { rows: vec![write(), silent] };
    let result = |code, clusters| RowResult { id: Uuid::from_u128(2), code, clusters };
    let moved = result(Some(Code::WrongCluster), vec!["c".parse().unwrap()]);
    let answer = BatchAnswer { results: vec![result(None, vec![]), moved] };
    round_trips(&batch);
    round_trips(&answer);
    assert_json_snapshot!(json!({ "batch": batch, "answer": answer }));
}

#[test]
fn an_entry_of_an_earlier_version_counts_as_reachable_and_shown() {
    let mut text = serde_json::to_value(entry()).unwrap();
    let members = text.as_object_mut().unwrap();
    members.remove("reachable");
    members.remove("hidden");
    assert_eq!(serde_json::from_value::<IndexEntry>(text).unwrap(), entry());
}
