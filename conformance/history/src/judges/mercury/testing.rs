//! Two devices of one user's, for the tests of the judges.

use fusion_protocol::mercury::EventType;
use fusion_protocol::{Count, Uuid};
use serde_json::Value;

use crate::event::{Answer, Body, Call, Phase, SocketChange};
use crate::testing::{Story, conversation_url, user};

/// Something that happens to Bob's tablet.
#[derive(Clone, Copy)]
pub(super) enum Told {
    /// It is told the event of this number.
    Event(u64),
    /// It is told to re-sync.
    Resync,
    /// It loses its socket and has another one at once.
    Away,
    /// It is closed on purpose and stays so.
    Closed,
}

/// Bob's phone is told events 1 and 2, his tablet this; then everything comes to rest.
pub(super) fn family(tablet: &[Told]) -> Story {
    let mut story = Story::new();
    for host in ["bob/phone", "bob/tablet"] {
        let call = Call::Connect { device: host.to_owned() };
        let body = Body::Invoke { operation: host.to_owned(), actor: user("bob"), call };
        let asked = story.happens(host, None, body);
        socket(&mut story, host, SocketChange::Ready);
        story.answers(asked, Answer::Connected { id: format!("b~{host}") });
    }
    story.happens("engine", None, Body::Phase { phase: Phase::Act });
    for event in [1, 2] {
        told(&mut story, "bob/phone", event);
    }
    for what in tablet {
        match what {
            Told::Event(event) => told(&mut story, "bob/tablet", *event),
            Told::Resync => socket(&mut story, "bob/tablet", SocketChange::Resync),
            Told::Away => {
                socket(&mut story, "bob/tablet", SocketChange::Closed);
                socket(&mut story, "bob/tablet", SocketChange::Ready);
            }
            Told::Closed => socket(&mut story, "bob/tablet", SocketChange::Closed),
        }
    }
    story.comes_to_rest();
    story
}

fn socket(story: &mut Story, host: &str, what: SocketChange) {
    let body = Body::Socket { user: user("bob"), what, base: Count(0), session: Count(1) };
    story.happens(host, None, body);
}

fn told(story: &mut Story, host: &str, event: u64) {
    let body = Body::Deliver {
        user: user("bob"),
        session: Count(1),
        id: Uuid::from_u128(event.into()),
        seq: Count(event),
        event_type: EventType::ConversationActivity,
        resource: conversation_url("a", 1),
        data: Value::Null,
    };
    story.happens(host, None, body);
}
