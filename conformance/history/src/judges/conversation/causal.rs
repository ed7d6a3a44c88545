//! CNV-001: what somebody knew of stands before what they then said.

use fusion_protocol::Address;
use fusion_protocol::mercury::EventType;

use crate::event::{Answer, Body, Call, Event, EventId};
use crate::facts::{Asked, Back, Facts, Moment, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::judges::rendezvous::count;
use crate::judges::session::{Known, Session};
use crate::table::Table;

/// CNV-001: the order of a conversation is one of causes: whatever an author had read, been told of on any
/// device or written before they began to write stands before it, and so does whatever anybody had.
///
/// A case is an activity whose author, or anybody else, knew of an earlier one of the same stream. While a
/// race is merging, the loser and the winner are two streams.
pub(crate) struct CausalOrder;

#[derive(Default)]
struct Heard<'h> {
    /// By user and stream, and by stream alone: the highest `seq` known from then on.
    by_user: Session<(&'h Address, &'h str)>,
    by_anybody: Session<&'h str>,
    /// When each activity was first posted: a repeated one is the first.
    first: Table<(&'h Address, &'h str, &'h str), EventId>,
}

impl Judge for CausalOrder {
    fn name(&self) -> &'static str {
        "causal-order"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["CNV-001"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        // Rows that a fault destroys are lost by the fault, and their numbers with them.
        if facts.faults().had("lose_rows") {
            return;
        }
        let mut heard = Heard::default();
        for moment in facts.moments() {
            match moment {
                Moment::Asked(asked) if asked.verb == Verb::Post => heard.begins(asked),
                Moment::Returned(asked, back) => heard.answered(asked, back, case),
                Moment::Seen(event) => heard.told(event),
                Moment::Asked(_) => {}
            }
        }
    }
}

impl<'h> Heard<'h> {
    fn begins(&mut self, asked: &Asked<'h>) {
        if let Call::Post { conversation, key, .. } = asked.call {
            self.first.entry((asked.actor, conversation.as_str(), key)).or_insert(asked.id);
        }
    }

    fn answered(&mut self, asked: &Asked<'h>, back: Back<'h>, case: &mut Casebook) {
        match (asked.call, asked.answer()) {
            (Call::Read { conversation, .. }, Some(Answer::Activities { activities, redirected_to, .. })) => {
                let stream = redirected_to.as_ref().unwrap_or(conversation).as_str();
                if let Some(last) = activities.iter().map(|activity| activity.seq.0).max() {
                    self.learn(asked.actor, stream, back.id, last);
                }
            }
            (
                Call::Post { conversation, key, .. },
                Some(Answer::Accepted { created, activity, redirected_to }),
            ) => {
                let stream = redirected_to.as_ref().unwrap_or(conversation).as_str();
                let begun = self.first.get(&(asked.actor, conversation.as_str(), key.as_str()));
                // What was led elsewhere may have been written there by an import.
                if let (true, None, Some(&begun)) = (created, redirected_to, begun) {
                    self.judge(asked, back, stream, begun, activity.seq.0, case);
                }
                self.learn(asked.actor, stream, back.id, activity.seq.0);
            }
            _ => {}
        }
    }

    fn told(&mut self, event: &'h Event) {
        if let Body::Deliver { user, event_type: EventType::ConversationActivity, resource, data, .. } =
            &event.body
            && let Some(seq) = data.get("seq").and_then(count)
        {
            self.learn(user, resource.as_str(), event.id, seq);
        }
    }

    fn learn(&mut self, user: &'h Address, stream: &'h str, at: EventId, seq: u64) {
        self.by_user.learn((user, stream), at, seq);
        self.by_anybody.learn(stream, at, seq);
    }

    fn judge(
        &self,
        asked: &Asked<'h>,
        back: Back<'h>,
        stream: &'h str,
        begun: EventId,
        seq: u64,
        case: &mut Casebook,
    ) {
        let Some(anybody) = self.by_anybody.known_at(&stream, begun) else { return };
        case.reached();
        let who = asked.actor.as_str();
        let author = self.by_user.known_at(&(asked.actor, stream), begun).filter(|known| known.value >= seq);
        let (kind, Known { value, at }, knew) = match author {
            Some(known) => ("before-its-cause", known, who),
            None if anybody.value >= seq => ("before-what-was-there", anybody, "somebody"),
            None => return,
        };
        let statement = format!("{knew} knew number {value} of {stream} when {who} wrote number {seq}");
        case.violated(kind, statement, [at, begun, asked.id, back.id]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Outcome;
    use crate::judge::{Ruling, Verdict};
    use crate::testing::{Story, accepted, conversation_url, message, post};
    use fusion_protocol::Url;

    fn judged(story: &Story) -> Verdict {
        CausalOrder.judge(story.told())
    }

    fn url() -> Url {
        conversation_url("a", 1)
    }

    fn is_told(story: &mut Story, who: &str, seq: u64) {
        let data = serde_json::json!({ "seq": seq.to_string() });
        story.is_told(who, EventType::ConversationActivity, &url(), data);
    }

    fn kind(story: &Story) -> String {
        judged(story).violations[0].fingerprint.clone()
    }

    #[test]
    fn an_answer_after_what_it_answers_holds() {
        let mut story = Story::new();
        story.posts("alice", &url(), &message("alice", "one", 1));
        is_told(&mut story, "bob", 1);
        story.posts("bob", &url(), &message("bob", "two", 2));
        let verdict = judged(&story);
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn an_answer_before_what_it_answers_violates_and_is_shown_by_its_cause() {
        let mut story = Story::new();
        story.posts("alice", &url(), &message("alice", "one", 3));
        story.reads("bob", &url(), &[message("alice", "one", 3)]);
        story.posts("bob", &url(), &message("bob", "two", 2));
        assert_eq!(kind(&story), "causal-order/CNV-001/before-its-cause");
        let last = story.told().len() as u64 - 1;
        let excerpt = &judged(&story).violations[0].excerpt;
        assert_eq!((excerpt.len(), excerpt.last()), (4, Some(&EventId(last))));
    }

    #[test]
    fn what_one_device_was_told_counts_for_the_other() {
        let mut story = Story::new();
        is_told(&mut story, "bob", 5);
        story.posts("bob", &url(), &message("bob", "two", 5));
        assert_eq!(kind(&story), "causal-order/CNV-001/before-its-cause");
    }

    #[test]
    fn what_somebody_else_had_been_answered_stands_before_it_too() {
        let mut story = Story::new();
        story.posts("alice", &url(), &message("alice", "one", 3));
        story.posts("bob", &url(), &message("bob", "two", 2));
        assert_eq!(kind(&story), "causal-order/CNV-001/before-what-was-there");
    }

    #[test]
    fn two_who_write_at_once_are_in_any_order() {
        let mut story = Story::new();
        story.posts("alice", &url(), &message("alice", "zero", 1));
        let alice = story.asks("alice", post(&url(), "1", "one"));
        let bob = story.asks("bob", post(&url(), "2", "two"));
        story.answers(bob, accepted(&message("bob", "two", 3)));
        story.answers(alice, accepted(&message("alice", "one", 2)));
        assert_eq!((judged(&story).ruling, judged(&story).reached), (Ruling::Holds, 2));
    }

    #[test]
    fn what_is_sent_again_is_as_old_as_it_was() {
        let mut story = Story::new();
        let key = message("bob", "two", 1).id.to_string();
        let lost = story.asks("bob", post(&url(), &key, "two"));
        story.returns(lost, Outcome::Unknown {});
        story.posts("alice", &url(), &message("alice", "one", 2));
        story.reads("bob", &url(), &[message("bob", "two", 1), message("alice", "one", 2)]);
        story.posts("bob", &url(), &message("bob", "two", 1));
        assert_ne!(judged(&story).ruling, Ruling::Violated);
    }

    #[test]
    fn the_first_word_is_no_case() {
        let mut story = Story::new();
        story.posts("alice", &url(), &message("alice", "one", 1));
        assert!(judged(&story).had_no_case());
    }
}
