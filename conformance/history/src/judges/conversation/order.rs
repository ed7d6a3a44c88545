//! CNV-001: one order, seen by all.

use std::collections::BTreeMap;

use fusion_protocol::conversation::{Activity, ActivityId};
use fusion_protocol::{Address, Url};

use crate::event::{Answer, Call, EventId};
use crate::facts::{Asked, Facts, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::judges::session::{Known, Session};
use crate::table::Table;

/// CNV-001: the home gives each activity a gapless `seq`; all readers see that order; read-your-writes
/// and monotonic reads hold for every participant.
///
/// A case is a page with activities, and each reading after the reader's own writing or reading. While a
/// race is merging, the loser and the winner are two streams, each with an order of its own.
pub(crate) struct GaplessOrder;

impl Judge for GaplessOrder {
    fn name(&self) -> &'static str {
        "gapless-order"
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
        let mut seen = Seen::default();
        for (asked, back) in facts.returned() {
            if !matches!(asked.verb, Verb::Read | Verb::Post | Verb::ReadConversation) {
                continue;
            }
            match (asked.call, asked.answer()) {
                (
                    Call::Read { conversation, after },
                    Some(Answer::Activities { activities, last_seq, redirected_to }),
                ) => {
                    let stream = redirected_to.as_ref().unwrap_or(conversation);
                    judge_page(asked, stream, after.0, activities, last_seq.0, case);
                    for activity in activities {
                        seen.place(asked, back.id, stream, activity, case);
                    }
                    seen.reading(asked, back.id, stream, last_seq.0, case);
                }
                (
                    Call::Post { conversation, .. },
                    Some(Answer::Accepted { created, activity, redirected_to }),
                ) => {
                    let stream = redirected_to.as_ref().unwrap_or(conversation);
                    seen.place(asked, back.id, stream, activity, case);
                    seen.writing(asked, back.id, stream, activity, *created, case);
                }
                (Call::ReadConversation { .. }, Some(Answer::Conversation { conversation, .. })) => {
                    seen.reading(asked, back.id, &conversation.url, conversation.last_seq.0, case);
                }
                _ => {}
            }
        }
    }
}

/// A page starts right after `after`, has no gap, and ends at or before the last `seq`.
fn judge_page(
    asked: &Asked<'_>,
    stream: &Url,
    after: u64,
    activities: &[Activity],
    last_seq: u64,
    case: &mut Casebook,
) {
    if !activities.is_empty() {
        case.reached();
    }
    for (place, activity) in activities.iter().enumerate() {
        let due = after.saturating_add(1).saturating_add(place as u64);
        if activity.seq.0 != due {
            let found = activity.seq;
            let statement = format!("a page of {stream} after {after} has seq {found} where {due} is due");
            return case.violated("gap", statement, asked.events());
        }
    }
    let end = activities.last().map_or(after, |activity| activity.seq.0);
    if end > last_seq && !activities.is_empty() {
        let statement = format!("a page of {stream} goes to {end}, and the last is said to be {last_seq}");
        case.violated("beyond-the-last", statement, asked.events());
    }
    if activities.is_empty() && last_seq > after {
        let statement = format!("a page of {stream} after {after} is empty, and the last is {last_seq}");
        case.violated("page-missing", statement, asked.events());
    }
}

/// What all readers have seen so far.
#[derive(Default)]
struct Seen<'h> {
    streams: Table<&'h str, Stream>,
    /// By user and stream: the highest `seq` known to the user from then on.
    known_to: Session<(&'h Address, &'h str)>,
    /// By author and stream: the highest own `seq` from then on.
    own: Session<(&'h Address, &'h str)>,
}

#[derive(Default)]
struct Stream {
    by_seq: BTreeMap<u64, (ActivityId, EventId)>,
    by_id: Table<ActivityId, u64>,
}

impl<'h> Seen<'h> {
    fn place(
        &mut self,
        asked: &Asked<'h>,
        at: EventId,
        url: &'h Url,
        activity: &Activity,
        case: &mut Casebook,
    ) {
        let stream = self.streams.entry(url.as_str()).or_default();
        let seq = activity.seq.0;
        if let Some((id, before)) = stream.by_seq.get(&seq) {
            if *id != activity.id {
                let statement = format!("two readers of {url} have different activities at seq {seq}");
                case.violated("order-differs", statement, asked.events().chain([*before]));
            }
            return;
        }
        stream.by_seq.insert(seq, (activity.id, at));
        if let Some(other) = stream.by_id.insert(activity.id, seq) {
            let before = stream.by_seq.get(&other).map(|(_, event)| *event);
            let statement = format!("one activity of {url} stands at seq {other} and at seq {seq}");
            case.violated("twice", statement, asked.events().chain(before));
        }
    }

    fn reading(&mut self, asked: &Asked<'h>, at: EventId, url: &'h Url, last_seq: u64, case: &mut Casebook) {
        let key = (asked.actor, url.as_str());
        if let Some(Known { value: known, at: before }) = self.known_to.known(&key, asked) {
            case.reached();
            if last_seq < known {
                let who = asked.actor.as_str();
                let statement =
                    format!("{who} knew of seq {known} in {url} and then read only to {last_seq}");
                case.violated("went-back", statement, asked.events().chain([before]));
            }
        }
        self.known_to.learn(key, at, last_seq);
    }

    fn writing(
        &mut self,
        asked: &Asked<'h>,
        at: EventId,
        url: &'h Url,
        activity: &Activity,
        created: bool,
        case: &mut Casebook,
    ) {
        let seq = activity.seq.0;
        let key = (asked.actor, url.as_str());
        self.known_to.learn(key, at, seq);
        if !created {
            return;
        }
        if let Some(Known { value: own, at: before }) = self.own.known(&key, asked)
            && seq <= own
        {
            let who = asked.actor.as_str();
            let statement = format!("{who} wrote to {url} after the own seq {own} and got seq {seq}");
            case.violated("author-order", statement, asked.events().chain([before]));
        }
        self.own.learn(key, at, seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Ruling, Verdict};
    use crate::testing::{Story, accepted, conversation_url, message, page, page_at, post, read};
    use fusion_protocol::Count;

    fn kinds(story: &Story) -> Vec<String> {
        let verdict: Verdict = GaplessOrder.judge(story.told());
        let kind = |print: &str| print.rsplit('/').next().unwrap_or_default().to_owned();
        verdict.violations.iter().map(|violation| kind(&violation.fingerprint)).collect()
    }

    #[test]
    fn everybody_reads_the_same_order_without_gaps() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        let (one, two) = (message("alice", "one", 1), message("bob", "two", 2));
        story.posts("alice", &url, &one);
        story.reads("alice", &url, std::slice::from_ref(&one));
        story.posts("bob", &url, &two);
        story.reads("bob", &url, &[one, two.clone()]);
        story.does("alice", read(&url, 1), page(&[two]));
        let verdict = GaplessOrder.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 6));
    }

    #[test]
    fn a_gap_violates() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.reads("alice", &url, &[message("alice", "one", 1), message("bob", "three", 3)]);
        assert_eq!(kinds(&story), ["gap"]);
    }

    #[test]
    fn two_readers_with_two_orders_violate() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.reads("alice", &url, &[message("alice", "one", 1), message("bob", "two", 2)]);
        story.reads("bob", &url, &[message("bob", "two", 1), message("alice", "one", 2)]);
        assert!(kinds(&story).contains(&"order-differs".to_owned()));
    }

    #[test]
    fn one_activity_at_two_places_violates() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.reads("alice", &url, &[message("alice", "one", 1), message("alice", "one", 2)]);
        assert_eq!(kinds(&story), ["twice"]);
    }

    #[test]
    fn not_to_read_the_own_writing_violates() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.posts("alice", &url, &message("alice", "one", 1));
        story.reads("alice", &url, &[]);
        assert_eq!(kinds(&story), ["went-back"]);
    }

    #[test]
    fn to_read_less_than_before_violates() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.reads("bob", &url, &[message("alice", "one", 1), message("alice", "two", 2)]);
        story.reads("bob", &url, &[message("alice", "one", 1)]);
        assert_eq!(kinds(&story), ["went-back"]);
    }

    #[test]
    fn a_reading_that_began_before_the_writing_ended_may_miss_it() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        let asked = story.asks("alice", read(&url, 0));
        story.posts("alice", &url, &message("alice", "one", 1));
        story.answers(asked, page(&[]));
        assert!(kinds(&story).is_empty());
    }

    #[test]
    fn an_author_whose_activities_change_places_violates() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.posts("alice", &url, &message("alice", "one", 2));
        story.posts("alice", &url, &message("alice", "two", 1));
        assert_eq!(kinds(&story), ["author-order"]);
    }

    #[test]
    fn a_page_that_hides_what_there_is_violates() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        let answer = Answer::Activities { activities: vec![], last_seq: Count(4), redirected_to: None };
        story.does("alice", read(&url, 0), answer);
        assert_eq!(kinds(&story), ["page-missing"]);
    }

    #[test]
    fn loser_and_winner_are_two_streams() {
        let mut story = Story::new();
        let (lost, won) = (conversation_url("a", 1), conversation_url("b", 1));
        let (one, two) = (message("alice", "one", 1), message("alice", "two", 2));
        story.posts("alice", &lost, &one);
        story.does("alice", post(&lost, "k", "two"), accepted(&two));
        story.reads("alice", &lost, &[one, two]);
        let merged = [message("bob", "three", 1), message("alice", "one", 2), message("alice", "two", 3)];
        story.does("alice", read(&lost, 0), page_at(&won, &merged));
        let verdict = GaplessOrder.judge(story.told());
        assert_eq!((verdict.ruling, verdict.violated), (Ruling::Holds, 0));
    }
}
