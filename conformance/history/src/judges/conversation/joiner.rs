//! CNV-006: whoever joins later.

use fusion_protocol::conversation::{Act, Kind};
use fusion_protocol::{Address, Code};

use crate::event::{Answer, Call, EventId};
use crate::facts::{Asked, Facts, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::table::{Set, Table};

/// CNV-006: any participant of a group may add others; a late joiner is in it from the moment in which that
/// is said, reads the whole history at the home, and the own index starts at the join.
///
/// A case is an attempt of a participant to add somebody, and whatever the joiner does then: says something,
/// reads the conversation, or the own index.
pub(crate) struct LateJoiners;

/// Who joined which conversation later: the place of the join, and the answer that said so.
type Joins<'h> = Table<(&'h Address, &'h str), (u64, EventId)>;

impl Judge for LateJoiners {
    fn name(&self) -> &'static str {
        "late-joiners"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["CNV-006"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let founders = founders(facts);
        let (joins, gone) = joins(facts, &founders);
        for asked in facts.calls().iter().filter(|asked| is_read_or_said(asked.verb)) {
            judge_refusal(facts, asked, &joins, &gone, case);
            match (asked.call, asked.answer()) {
                (Call::Post { conversation, verb, .. }, answer) if verb == "add" => {
                    let known = facts.conversations().at(conversation);
                    let is_group = known.is_some_and(|known| known.kind == Some(Kind::Group));
                    let is_in = founders.contains(&(asked.actor, conversation.as_str()))
                        && !gone.contains(&(asked.actor, conversation.as_str()));
                    if is_group && is_in {
                        judge_adding(asked, answer.is_some(), case);
                    }
                }
                (Call::Read { conversation, after }, Some(Answer::Activities { activities, .. }))
                    if after.0 == 0 =>
                {
                    let key = (asked.actor, conversation.as_str());
                    let joined = joins.get(&key).filter(|_| !gone.contains(&key));
                    if let Some((seq, at)) = joined.filter(|(_, at)| *at < asked.id) {
                        case.reached();
                        if activities.first().is_none_or(|first| first.seq.0 != 1) {
                            let who = asked.actor.as_str();
                            let statement = format!(
                                "{who} joined {conversation} at {seq} and cannot read what came before"
                            );
                            case.violated("history-hidden", statement, asked.events().chain([*at]));
                        }
                    }
                }
                (Call::ReadIndex { .. }, Some(Answer::Index { entries, .. })) => {
                    for entry in entries {
                        let key = (asked.actor, entry.url.as_str());
                        let Some((seq, at)) = joins.get(&key).filter(|_| !gone.contains(&key)) else {
                            continue;
                        };
                        case.reached();
                        if entry.preview.first().is_some_and(|first| first.seq.0 < *seq) {
                            let (who, url) = (asked.actor.as_str(), &entry.url);
                            let statement = format!(
                                "{who} joined {url} at {seq}, and the own index shows what came before"
                            );
                            case.violated("index-before-the-join", statement, asked.events().chain([*at]));
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

/// Who was in a conversation from its start.
fn founders<'h>(facts: &Facts<'h>) -> Set<(&'h Address, &'h str)> {
    let mut founders = Set::default();
    for asked in facts.asked_to(Verb::Create) {
        if let (Call::Create { .. }, Some(Answer::Conversation { conversation, .. })) =
            (asked.call, asked.answer())
        {
            let url = conversation.url.as_str();
            founders.extend(conversation.participants.iter().map(|one| (&one.user, url)));
        }
    }
    founders
}

/// Who joined later, once; and who left or was removed, or may have been.
fn joins<'h>(
    facts: &Facts<'h>,
    founders: &Set<(&'h Address, &'h str)>,
) -> (Joins<'h>, Set<(&'h Address, &'h str)>) {
    let (mut joins, mut gone) = (Joins::default(), Set::default());
    for asked in facts.asked_to(Verb::Post) {
        let Call::Post { conversation, verb, text, .. } = asked.call else { continue };
        let url = conversation.as_str();
        match (verb.as_str(), asked.answer()) {
            ("add", Some(Answer::Accepted { activity, .. })) => {
                if let (Act::Add { user }, Some(back)) = (&activity.act, asked.back)
                    && !founders.contains(&(user, url))
                {
                    joins.entry((user, url)).or_insert((activity.seq.0, back.id));
                }
            }
            ("leave", _) => drop(gone.insert((asked.actor, url))),
            ("remove", _) => {
                let everybody = facts.conversations().at(conversation).map(|known| &known.members);
                let meant =
                    everybody.into_iter().flatten().filter(|one| text.as_deref() == Some(one.as_str()));
                gone.extend(meant.map(|one| (*one, url)));
            }
            _ => {}
        }
    }
    (joins, gone)
}

/// Whoever was told to be in it is not told anything else. A new person at an old address is not in it.
fn judge_refusal(
    facts: &Facts<'_>,
    asked: &Asked<'_>,
    joins: &Joins<'_>,
    gone: &Set<(&Address, &str)>,
    case: &mut Casebook,
) {
    let (Call::Post { conversation, .. } | Call::Read { conversation, .. }) = asked.call else { return };
    let key = (asked.actor, conversation.as_str());
    let made_anew = facts.deprovisioned().contains(asked.actor)
        || facts.clusters_of_users().get(asked.actor).is_some_and(|clusters| clusters.len() > 1);
    let joined = joins.get(&key).filter(|(_, at)| *at < asked.id && !gone.contains(&key) && !made_anew);
    let Some((seq, at)) = joined else { return };
    match (asked.call, asked.refusal()) {
        (_, Some((_, Some(Code::NotParticipant)))) => {
            case.reached();
            let who = asked.actor.as_str();
            let statement =
                format!("{who} was added to {conversation} at {seq}, and is refused as if that were not so");
            case.violated("joiner-refused", statement, asked.events().chain([*at]));
        }
        (Call::Post { .. }, _) if asked.answer().is_some() => case.reached(),
        _ => {}
    }
}

fn is_read_or_said(verb: Verb) -> bool {
    matches!(verb, Verb::Post | Verb::Read | Verb::ReadIndex)
}

fn judge_adding(asked: &Asked<'_>, done: bool, case: &mut Casebook) {
    let forbidden = matches!(asked.refusal(), Some((_, Some(Code::Forbidden | Code::NotParticipant))));
    if done || forbidden {
        case.reached();
    }
    if forbidden {
        let statement = format!("{} is in a group and may not add anybody", asked.actor.as_str());
        case.violated("adding-refused", statement, asked.events());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Ruling, Verdict};
    use crate::testing::{
        Story, accepted, conversation, conversation_url, created, index_entry, message, user,
    };
    use fusion_protocol::conversation::Activity;
    use fusion_protocol::conversation::ConversationState::Bound;
    use fusion_protocol::index::IndexEntry;
    use fusion_protocol::{Count, Url};

    fn adds(url: &Url) -> Call {
        let (conversation, key) = (url.clone(), "add".to_owned());
        Call::Post { conversation, key, verb: "add".into(), text: Some(user("dave").as_str().into()) }
    }

    /// Alice, Bob and Carol talk; Bob adds Dave, third.
    fn joined() -> (Story, Url) {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        let others = vec![user("bob"), user("carol")];
        let at = crate::testing::cluster("a");
        let call = Call::Create { kind: Kind::Group, others, at, key: "g".into() };
        story.does("alice", call, created(true, conversation(&url, &["alice", "bob", "carol"], Bound)));
        story.posts("alice", &url, &message("alice", "one", 1));
        story.posts("alice", &url, &message("alice", "two", 2));
        let add = Activity { act: Act::Add { user: user("dave") }, ..message("bob", "add", 3) };
        story.does("bob", adds(&url), accepted(&add));
        (story, url)
    }

    fn shows(story: &mut Story, url: &Url, preview: Vec<Activity>) {
        let entry = IndexEntry { preview, ..index_entry(url, 1) };
        let answer = Answer::Index { entries: vec![entry], cursor: Count(1) };
        story.does("dave", Call::ReadIndex { after: Count(0) }, answer);
    }

    fn kinds(verdict: &Verdict) -> Vec<&str> {
        verdict.violations.iter().filter_map(|found| found.fingerprint.rsplit('/').next()).collect()
    }

    #[test]
    fn a_late_joiner_reads_everything_at_the_home_and_the_own_index_starts_at_the_join() {
        let (mut story, url) = joined();
        story.reads("dave", &url, &[message("alice", "one", 1), message("alice", "two", 2)]);
        shows(&mut story, &url, vec![message("bob", "add", 3)]);
        let verdict = LateJoiners.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 3));
    }

    #[test]
    fn a_history_that_is_hidden_from_the_joiner_violates() {
        let (mut story, url) = joined();
        story.reads("dave", &url, &[message("bob", "add", 3)]);
        assert_eq!(kinds(&LateJoiners.judge(story.told())), ["history-hidden"]);
    }

    #[test]
    fn an_index_that_goes_back_before_the_join_violates() {
        let (mut story, url) = joined();
        shows(&mut story, &url, vec![message("alice", "two", 2), message("bob", "add", 3)]);
        assert_eq!(kinds(&LateJoiners.judge(story.told())), ["index-before-the-join"]);
    }

    fn says(url: &Url) -> Call {
        crate::testing::post(url, "d", "Here I am.")
    }

    #[test]
    fn a_late_joiner_writes_at_once() {
        let (mut story, url) = joined();
        story.does("dave", says(&url), accepted(&message("dave", "Here I am.", 4)));
        let verdict = LateJoiners.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 2));
    }

    #[test]
    fn a_late_joiner_who_is_refused_violates_whether_reading_or_writing() {
        let (mut story, url) = joined();
        story.is_refused("dave", says(&url), Code::NotParticipant);
        story.is_refused("dave", crate::testing::read(&url, 0), Code::NotParticipant);
        assert_eq!(kinds(&LateJoiners.judge(story.told())), ["joiner-refused", "joiner-refused"]);
    }

    #[test]
    fn who_asks_before_it_is_said_that_they_are_in_it_may_be_refused() {
        let (mut story, url) = joined();
        let asked = story.asks("eve", says(&url));
        let add = Activity { act: Act::Add { user: user("eve") }, ..message("bob", "add eve", 4) };
        let text = Some(user("eve").as_str().to_owned());
        let call = Call::Post { conversation: url, key: "eve".into(), verb: "add".into(), text };
        story.does("bob", call, accepted(&add));
        story.refuses(asked, Code::NotParticipant);
        assert_eq!(LateJoiners.judge(story.told()).ruling, Ruling::Holds);
    }

    #[test]
    fn a_participant_who_may_not_add_anybody_violates() {
        let (mut story, url) = joined();
        story.is_refused("carol", adds(&url), Code::Forbidden);
        assert_eq!(kinds(&LateJoiners.judge(story.told())), ["adding-refused"]);
    }

    #[test]
    fn whoever_has_left_may_not_add_anybody_and_that_is_right() {
        let (mut story, url) = joined();
        let leave =
            Call::Post { conversation: url.clone(), key: "l".into(), verb: "leave".into(), text: None };
        story.does("carol", leave, accepted(&message("carol", "left", 4)));
        story.is_refused("carol", adds(&url), Code::NotParticipant);
        assert_eq!(LateJoiners.judge(story.told()).ruling, Ruling::Holds);
    }
}
