//! The wire messages of conversations, as they are written (CNV). A changed snapshot is a changed protocol.

#![expect(clippy::unwrap_used, reason = "what a test sets up is right")]

use fusion_protocol::conversation::*;
use fusion_protocol::locus::Replaces;
use fusion_protocol::{Address, ClusterName, Code, Count, Incarnation, Url, Uuid};
use insta::assert_json_snapshot;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

fn url(rest: &str) -> Url {
    let id = Uuid::from_u128(1);
    format!("https://a-conv.provider.example/v1/conversations/{id}{rest}").parse().unwrap()
}

fn alice() -> Address {
    "alice@a.example".parse().unwrap()
}

fn bob() -> Address {
    "bob@b.example".parse().unwrap()
}

fn incarnation(number: u128) -> Incarnation {
    Incarnation(Uuid::from_u128(number))
}

/// Reading back what is written gives the same message.
fn round_trips<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T) {
    let text = serde_json::to_string(message).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), *message);
}

fn activity(seq: u64, act: Act) -> Activity {
    Activity {
        id: ActivityId([seq as u8; 32]),
        seq: Count(seq),
        author: alice(),
        incarnation: incarnation(7),
        published: "2027-01-15T08:00:00.000Z".into(),
        act,
        attested_by: None,
    }
}

fn acts() -> Vec<Act> {
    let activity = ActivityId([1; 32]);
    vec![
        Act::Message { text: "hi".into() },
        Act::Add { user: bob() },
        Act::Leave {},
        Act::Remove { user: bob() },
        Act::Title { title: "tea".into() },
        Act::Share { file: url("/files/1") },
        Act::Delete { activity },
        Act::Acknowledge { activity },
    ]
}

#[test]
fn a_creation_and_what_it_makes() {
    let create = CreateConversation { participants: vec![bob()], kind: Kind::OneToOne, title: None };
    let participant = |user: Address, cluster: &str| Participant {
        user,
        incarnation: Some(incarnation(7)),
        cluster: Some(cluster.parse().unwrap()),
        joined_seq: Count(0),
        unreachable: None,
    };
    let gone = Participant {
        incarnation: None,
        cluster: None,
        unreachable: Some(Code::UserUnknown),
        ..participant(bob(), "b")
    };
    let conversation = Conversation {
        id: format!("a~{}", Uuid::from_u128(1)),
        url: url(""),
        locus_url: url("/locus"),
        kind: Kind::Group,
        state: ConversationState::Bound,
        participants: vec![participant(alice(), "a"), gone],
        title: Some("tea".into()),
        last_seq: Count(u64::MAX),
        membership_seq: Count(3),
        created: "2027-01-15T08:00:00.000Z".into(),
        superseded_by: None,
    };
    round_trips(&create);
    round_trips(&conversation);
    assert_json_snapshot!(json!({ "create": create, "conversation": conversation }));
}

#[test]
fn every_act() {
    let posts: Vec<_> = acts().into_iter().map(|act| PostActivity { act }).collect();
    posts.iter().for_each(round_trips);
    assert_json_snapshot!(posts);
}

#[test]
fn a_page_of_activities() {
    let activities = acts().into_iter().zip(1..).map(|(act, seq)| activity(seq, act)).collect();
    let page = ActivityPage { activities, next: Some(Count(8)), last_seq: Count(9) };
    round_trips(&page);
    assert_json_snapshot!(page);
}

#[test]
fn the_states_of_the_race() {
    let states = [
        ConversationState::Provisional,
        ConversationState::Bound,
        ConversationState::Sealing,
        ConversationState::Superseded,
    ];
    let look_ups = [PeerState::Live, PeerState::Merging].map(|state| PeerLookup {
        url: url(""),
        locus_url: url("/locus"),
        state,
    });
    look_ups.iter().for_each(round_trips);
    assert_json_snapshot!(json!({ "states": states, "lookUps": look_ups }));
}

#[test]
fn a_claim_and_its_grant() {
    let home: ClusterName = "a".parse().unwrap();
    let claim = PeerClaim {
        id: Uuid::from_u128(2),
        url: url(""),
        locus_url: url("/locus"),
        home,
        pair_key: PairKey([0xab; 32]),
        rule: RULE.into(),
        creator: incarnation(7),
        other: incarnation(8),
        epoch: Count(1),
        preview: vec![],
        last_seq: Count(0),
        made: None,
    };
    let grant = PeerGrant { url: url("") };
    round_trips(&claim);
    round_trips(&grant);
    assert_json_snapshot!(json!({ "claim": claim, "grant": grant }));
}

#[test]
fn an_import_and_its_acknowledgement() {
    let attested = Activity {
        attested_by: Some("a".parse().unwrap()),
        ..activity(1, Act::Message { text: "hi".into() })
    };
    let replaces = Replaces { locus_url: url("/locus"), instance: Count(4), joined: vec![] };
    let import = Import {
        from: url(""),
        pair_key: PairKey([0xab; 32]),
        activities: vec![attested],
        first_seq: Count(1),
        complete: true,
        replaces: vec![replaces],
    };
    let imported = Imported { through: Count(1) };
    round_trips(&import);
    round_trips(&imported);
    assert_json_snapshot!(json!({ "import": import, "imported": imported }));
}

#[test]
fn members_of_later_versions_are_ignored() {
    let post: PostActivity =
        serde_json::from_value(json!({ "verb": "message", "text": "hi", "mood": "sunny" })).unwrap();
    assert_eq!(post.act, Act::Message { text: "hi".into() });
}

#[test]
fn what_is_no_hash_is_refused() {
    for text in ["", "ab", &"g".repeat(64), &"ab".repeat(33)] {
        assert_eq!(text.parse::<PairKey>(), Err(NotHex), "{text:?}");
    }
    let key = PairKey([0xab; 32]);
    assert_eq!(key.to_string().parse(), Ok(key));
}
