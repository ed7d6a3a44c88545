//! The wire messages of mercury, as they are written (MER). A changed snapshot is a changed protocol.

#![expect(clippy::unwrap_used, reason = "what a test sets up is right")]

use fusion_protocol::mercury::*;
use fusion_protocol::{Code, Count, Incarnation, Pii, Url, Uuid};
use insta::assert_json_snapshot;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

fn url(scheme: &str, below: &str) -> Url {
    format!("{scheme}://a-mercury.provider.example/v1/devices/a~01{below}").parse().unwrap()
}

fn resource() -> Url {
    "https://a-conv.provider.example/v1/conversations/01".parse().unwrap()
}

fn events() -> [EventType; 7] {
    [
        EventType::ConversationCreated,
        EventType::ConversationActivity,
        EventType::ConversationChanged,
        EventType::LocusRinging,
        EventType::LocusChanged,
        EventType::LocusAnsweredElsewhere,
        EventType::LocusEnded,
    ]
}

/// Reading back what is written gives the same message.
fn round_trips<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T) {
    let text = serde_json::to_string(message).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), *message);
}

#[test]
fn a_device_is_registered() {
    let register = RegisterDevice { name: Some(Pii::from("Alice's phone")) };
    let device = Device {
        id: "a~01".to_owned(),
        url: url("https", ""),
        web_socket_url: url("wss", "/socket"),
        notification_url: url("https", "/notifications"),
    };
    round_trips(&register);
    round_trips(&device);
    assert_json_snapshot!("register", register);
    assert_json_snapshot!("device", device);
}

#[test]
fn a_notification_names_an_object_and_the_person_it_is_for() {
    let notification = Notification {
        id: Uuid::from_u128(7),
        event_type: EventType::LocusRinging,
        resource: resource(),
        incarnation: Some(Incarnation(Uuid::from_u128(9))),
        data: json!({"instance": "3", "rev": "17"}),
    };
    round_trips(&notification);
    assert_json_snapshot!("notification", notification);
}

#[test]
fn every_kind_of_event_has_its_word() {
    events().iter().for_each(round_trips);
    assert_json_snapshot!("event-types", events());
}

#[test]
fn a_device_says_who_it_is_and_what_it_has_taken() {
    let frames = [
        ClientFrame::Authenticate { token: "e30.e30.e30".to_owned(), resume: None },
        ClientFrame::Authenticate { token: "e30.e30.e30".to_owned(), resume: Some(Count(41)) },
        ClientFrame::Ack { seq: Count(42) },
    ];
    frames.iter().for_each(round_trips);
    assert_json_snapshot!("client-frames", frames);
}

#[test]
fn a_connection_server_says_where_the_stream_is() {
    let event = Event {
        id: Uuid::from_u128(7),
        seq: Count(42),
        event_type: EventType::ConversationActivity,
        resource: resource(),
        data: json!({"indexCursor": "5"}),
    };
    let frames = [
        ServerFrame::Ready { session: Count(2), base: Count(41) },
        ServerFrame::Event(event),
        ServerFrame::Resync { base: Count(9_000) },
        ServerFrame::Closing { code: Code::Conflict },
    ];
    frames.iter().for_each(round_trips);
    assert_json_snapshot!("server-frames", frames);
}

#[test]
fn an_event_of_a_later_version_is_read_and_not_refused() {
    let text = json!({"type": "event", "id": Uuid::from_u128(7), "seq": "1", "eventType": "robot.danced",
        "resource": resource(), "data": null, "later": true});
    let frame: ServerFrame = serde_json::from_value(text).unwrap();
    assert!(matches!(frame, ServerFrame::Event(Event { event_type: EventType::Unknown, .. })));
}

#[test]
fn a_seq_beyond_what_json_numbers_hold_is_kept() {
    let frame = ClientFrame::Ack { seq: Count(u64::MAX) };
    round_trips(&frame);
    assert_eq!(serde_json::to_value(&frame).unwrap()["seq"], u64::MAX.to_string());
}
