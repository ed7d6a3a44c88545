//! Stories of tokens: somebody has one, something happens, and they ask for another.

use fusion_protocol::Code;
use serde_json::json;
use std::time::Duration;

use crate::event::{Answer, Body, Call, FaultPhase, Outcome};
use crate::testing::{Story, cluster, conversation_url, message, user};

pub(super) fn token() -> Answer {
    Answer::Token { audience: "https://a-auth.provider.example".to_owned() }
}

pub(super) fn log_in() -> Call {
    Call::LogIn { cluster: cluster("a") }
}

/// Something strikes a cluster for a second.
pub(super) fn strikes(story: &mut Story, family: &str, host: &str) {
    for phase in [FaultPhase::Began, FaultPhase::Ended] {
        story.wait(Duration::from_secs(1)).fault(family, family, phase, json!({ "host": host }));
    }
}

/// Alice, who has logged in, says something, and asks for a token for its sake: what comes of both.
pub(super) fn asks_again(story: &mut Story, again: Outcome, said: Outcome) {
    let url = conversation_url("a", 1);
    let saying = story.asks("alice", crate::testing::post(&url, "again", "hello"));
    let operation = "alice1#9".to_owned();
    let asking = Body::Invoke { operation, actor: user("alice"), call: log_in() };
    let asking = story.happens("alice1", Some(saying), asking);
    story.returns(asking, again);
    story.returns(saying, said);
}

pub(super) fn is_let_in_anew(story: &mut Story) {
    let said = crate::testing::accepted(&message("alice", "hello", 1));
    asks_again(story, Outcome::Done { answer: token() }, Outcome::Done { answer: said });
}

pub(super) fn refused(status: u16, code: Code) -> Outcome {
    Outcome::Refused { status, code: Some(code) }
}

pub(super) fn logged_in() -> Story {
    let mut story = Story::new();
    story.does("alice", log_in(), token());
    story
}

pub(super) fn old_enough(story: &mut Story) -> &mut Story {
    story.wait(Duration::from_secs(600))
}
