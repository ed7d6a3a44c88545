//! CNV-004: at rest there is one conversation, and everything is in it, once.

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::conversation::{Act, Activity, ActivityId, Kind, PeerLookup, PeerState};
use fusion_protocol::{Address, Url};

use crate::event::{Answer, Call, EventId};
use crate::facts::{Asked, Facts, FinalRead, PairCase, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::table::{Set, Table};

/// CNV-004: at quiescence both slots are equal and every accepted activity is in the winner exactly
/// once, in each author's order; every URL ever handed out still leads there; a writer finds the own
/// writing also across a merge.
///
/// The cases are the pairs that were looked up, and the conversations that were read to the end, when
/// nothing moved any more.
pub(crate) struct Convergence;

/// What was accepted in the conversations that must end as one.
#[derive(Default)]
struct Accepted<'f, 'h> {
    /// By stream, in the order of the answers.
    by_stream: BTreeMap<&'h str, Vec<(&'f Asked<'h>, &'h Activity)>>,
    /// By author and text: under how many keys it was posted, answered or not.
    keys: BTreeMap<(&'h Address, &'h str), BTreeSet<&'h str>>,
}

impl Judge for Convergence {
    fn name(&self) -> &'static str {
        "convergence"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["CNV-004"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let conversations = facts.conversations();
        let pairs = conversations.pairs();
        let mut group_of: Table<&str, usize> = Table::default();
        for (group, pair) in pairs.iter().enumerate() {
            group_of.extend(pair.conversations.iter().map(|url| (*url, group)));
        }
        let groups: Vec<&str> = conversations
            .iter()
            .filter(|known| known.kind == Some(Kind::Group))
            .map(|known| known.url.as_str())
            .collect();
        group_of.extend(groups.iter().zip(pairs.len()..).map(|(url, group)| (*url, group)));
        let accepted = accepted(facts, &group_of, pairs.len() + groups.len(), case);
        let deleted = facts.deprovisioned();
        for (pair, accepted) in pairs.iter().zip(&accepted) {
            if deleted.contains(pair.pair.0) || deleted.contains(pair.pair.1) {
                case.not_observed("what is left of a pair of which one is deleted");
                continue;
            }
            judge_slots(facts, pair, case);
            if let Some(winner) = facts.finals().winner_of(pair, conversations) {
                judge_urls(facts, pair, winner, case);
                judge_content(facts, winner, accepted, case);
            }
        }
        for (url, accepted) in groups.iter().zip(&accepted[pairs.len()..]) {
            judge_content(facts, url, accepted, case);
        }
        judge_across_merge(facts, &accepted, &group_of, case);
    }
}

/// Sorts what was accepted by the conversations that must end as one; a key is one activity, for ever.
fn accepted<'f, 'h>(
    facts: &'f Facts<'h>,
    group_of: &Table<&str, usize>,
    groups: usize,
    case: &mut Casebook,
) -> Vec<Accepted<'f, 'h>> {
    let mut all: Vec<Accepted<'f, 'h>> = (0..groups).map(|_| Accepted::default()).collect();
    let mut by_key: Table<(usize, &Address, &str), (ActivityId, EventId)> = Table::default();
    for asked in facts.asked_to(Verb::Post) {
        let Call::Post { conversation, key, text, .. } = asked.call else { continue };
        let Some(&group) = group_of.get(conversation.as_str()) else { continue };
        if let Some(text) = text {
            all[group].keys.entry((asked.actor, text)).or_default().insert(key);
        }
        let Some(Answer::Accepted { activity, redirected_to, .. }) = asked.answer() else { continue };
        let stream = redirected_to.as_ref().unwrap_or(conversation).as_str();
        all[group].by_stream.entry(stream).or_default().push((asked, activity));
        let (id, before) = *by_key.entry((group, asked.actor, key)).or_insert((activity.id, asked.id));
        if id != activity.id {
            let statement =
                format!("{} repeated a post and it became another activity", asked.actor.as_str());
            case.violated("retry-is-another-activity", statement, asked.events().chain([before]));
        }
    }
    all
}

/// Both slots are equal, and at rest.
fn judge_slots(facts: &Facts<'_>, pair: &PairCase<'_>, case: &mut Casebook) {
    let (one, other) = pair.pair;
    let lookups = &facts.finals().lookups;
    let (Some(first), Some(second)) = (lookups.get(&(one, other)), lookups.get(&(other, one))) else {
        return case.not_observed("nobody looked up a pair from both sides once nothing moved any more");
    };
    let (Some(left), Some(right)) = (slot(first, pair, case), slot(second, pair, case)) else { return };
    case.reached();
    let events = || first.events().chain(second.events());
    let (one, other) = (one.as_str(), other.as_str());
    if left.url != right.url {
        let statement = format!("{one} and {other} have two conversations: {} and {}", left.url, right.url);
        return case.violated("slots-differ", statement, events());
    }
    if left.state == PeerState::Merging || right.state == PeerState::Merging {
        let statement = format!("the conversation of {one} and {other} never ends to merge");
        case.violated("still-merging", statement, events());
    }
}

fn slot<'h>(lookup: &Asked<'h>, pair: &PairCase<'_>, case: &mut Casebook) -> Option<&'h PeerLookup> {
    match (lookup.answer(), lookup.refusal()) {
        (Some(Answer::Peer(found)), _) => return Some(found),
        (_, Some((404, _))) if !pair.conversations.is_empty() => {
            case.reached();
            let who = lookup.actor.as_str();
            let statement = format!("{who} has a conversation with somebody and cannot look it up");
            case.violated("slot-empty", statement, lookup.events());
        }
        _ => case.inconclusive("a look-up at rest was not answered"),
    }
    None
}

/// Every URL of the pair leads to the winner in one hop.
fn judge_urls<'h>(facts: &Facts<'h>, pair: &PairCase<'h>, winner: &str, case: &mut Casebook) {
    let finals = facts.finals();
    let others = pair.conversations.iter().filter(|url| **url != winner);
    for (url, read) in others.flat_map(|url| finals.reads_at(url).map(move |read| (url, read))) {
        match &read.failed {
            Some(asked) if asked.refusal().is_some_and(|(status, _)| (300..500).contains(&status)) => {
                case.reached();
                let statement = format!("{url} was handed out and leads nowhere");
                case.violated("dead-url", statement, asked.events());
            }
            Some(_) => case.inconclusive("a reading at rest was not answered"),
            None if read.stream.as_str() != winner => {
                case.reached();
                let statement = format!("{url} lost to {winner} and does not lead there");
                case.violated("not-superseded", statement, read.events.iter().copied());
            }
            None => case.reached(),
        }
    }
}

fn judge_content(facts: &Facts<'_>, url: &str, accepted: &Accepted<'_, '_>, case: &mut Casebook) {
    let finals = facts.finals();
    let Some(read) = finals.read_of(url) else {
        return if finals.failed_at(url) {
            case.inconclusive("a reading at rest was not answered");
        } else {
            case.not_observed("nobody read a conversation to its end once nothing moved any more");
        };
    };
    case.reached();
    let mut places: BTreeMap<ActivityId, usize> = BTreeMap::new();
    for (place, activity) in read.activities.iter().enumerate() {
        if places.insert(activity.id, place).is_some() {
            let statement = format!("an activity is in {url} twice");
            case.violated("twice", statement, read.events.iter().copied());
        }
    }
    for (stream, activities) in &accepted.by_stream {
        judge_accepted(read, url, stream, activities, &places, case);
    }
    judge_texts(read, url, accepted, case);
}

/// What was accepted is there, and each author's activities in the order that they had in their stream.
fn judge_accepted<'f>(
    read: &FinalRead<'_>,
    url: &str,
    stream: &str,
    activities: &[(&'f Asked<'_>, &Activity)],
    places: &BTreeMap<ActivityId, usize>,
    case: &mut Casebook,
) {
    let mut by_seq: Vec<&(&'f Asked<'_>, &Activity)> = activities.iter().collect();
    by_seq.sort_by_key(|(_, activity)| activity.seq);
    let mut last: BTreeMap<&Address, (usize, &Asked<'_>)> = BTreeMap::new();
    for (asked, activity) in by_seq {
        let events = asked.events().chain(read.events.iter().copied());
        let who = asked.actor.as_str();
        let Some(&place) = places.get(&activity.id) else {
            let statement = format!("an activity of {who}, accepted by {stream}, is not in {url}");
            case.violated("lost", statement, events);
            continue;
        };
        if let Some((before, earlier)) = last.insert(asked.actor, (place, asked))
            && place < before
        {
            let statement = format!("two activities of {who}, accepted by {stream}, changed places in {url}");
            case.violated("author-order", statement, events.chain(earlier.events()));
        }
    }
}

/// A text stands there at most as often as its author posted it under a key of its own.
fn judge_texts(read: &FinalRead<'_>, url: &str, accepted: &Accepted<'_, '_>, case: &mut Casebook) {
    let mut found: BTreeMap<(&Address, &str), usize> = BTreeMap::new();
    for activity in &read.activities {
        if let Act::Message { text } = &activity.act {
            *found.entry((&activity.author, text.expose().as_str())).or_default() += 1;
        }
    }
    for ((author, text), times) in found {
        let posted = accepted.keys.get(&(author, text)).map(BTreeSet::len);
        if posted.is_some_and(|posted| times > posted) {
            let who = author.as_str();
            let statement = format!("a message that {who} posted once is in {url} {times} times");
            case.violated("doubled", statement, read.events.iter().copied());
        }
    }
}

/// Read-your-writes across a merge: whoever is led from the loser to the winner finds there what they
/// had written at the loser.
fn judge_across_merge(
    facts: &Facts<'_>,
    accepted: &[Accepted<'_, '_>],
    group_of: &Table<&str, usize>,
    case: &mut Casebook,
) {
    let mut judged: Set<(&Address, &Url)> = Set::default();
    for asked in facts.asked_to(Verb::Read) {
        let Call::Read { conversation, after } = asked.call else { continue };
        let Some(Answer::Activities { activities, last_seq, redirected_to: Some(winner) }) = asked.answer()
        else {
            continue;
        };
        let end = activities.last().map_or(0, |activity| activity.seq.0);
        let whole = after.0 == 0 && end == last_seq.0;
        if !whole || winner == conversation || !judged.insert((asked.actor, conversation)) {
            continue;
        }
        let group = group_of.get(conversation.as_str()).and_then(|&group| accepted.get(group));
        let written = group.and_then(|group| group.by_stream.get(conversation.as_str()));
        let there: BTreeSet<ActivityId> = activities.iter().map(|activity| activity.id).collect();
        for (write, activity) in written.into_iter().flatten() {
            let own = write.actor == asked.actor && write.ended_before(asked.id);
            if own && !there.contains(&activity.id) {
                let who = asked.actor.as_str();
                let statement =
                    format!("{who} was led from {conversation} to {winner} before the own writing");
                case.violated("write-not-read", statement, write.events().chain(asked.events()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Ruling, WhyUnknown};
    use crate::testing::{
        Story, accepted, conversation, conversation_url, create, created, message, page_at, peer, post, read,
        user,
    };
    use fusion_protocol::Code;
    use fusion_protocol::conversation::ConversationState::{Bound, Provisional};

    fn kinds(story: &Story) -> Vec<String> {
        let verdict = Convergence.judge(story.told());
        let kind = |print: &str| print.rsplit('/').next().unwrap_or_default().to_owned();
        verdict.violations.iter().map(|violation| kind(&violation.fingerprint)).collect()
    }

    fn urls() -> (Url, Url) {
        (conversation_url("a", 1), conversation_url("b", 1))
    }

    /// Both create at once, each says something, and `a` wins.
    fn race() -> Story {
        let (won, lost) = urls();
        let mut story = Story::new();
        story.creates("alice", "bob", &won, Provisional);
        story.creates("bob", "alice", &lost, Provisional);
        story.posts("alice", &won, &message("alice", "one", 1));
        story.posts("bob", &lost, &message("bob", "two", 1));
        story.posts("bob", &lost, &message("bob", "three", 2));
        story
    }

    fn comes_to_rest(story: &mut Story, activities: &[(&str, &str)]) {
        let (won, lost) = urls();
        let activities: Vec<Activity> =
            activities.iter().zip(1..).map(|((author, text), seq)| message(author, text, seq)).collect();
        story.comes_to_rest();
        story.finds("alice", "bob", &won);
        story.finds("bob", "alice", &won);
        story.reads("alice", &won, &activities);
        story.does("bob", read(&lost, 0), page_at(&won, &activities));
    }

    #[test]
    fn after_the_race_everything_is_in_the_winner_once() {
        let mut story = race();
        comes_to_rest(&mut story, &[("alice", "one"), ("bob", "two"), ("bob", "three")]);
        let verdict = Convergence.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached, verdict.unjudged), (Ruling::Holds, 3, 0));
    }

    #[test]
    fn a_message_of_the_loser_that_is_dropped_violates() {
        let mut story = race();
        comes_to_rest(&mut story, &[("alice", "one"), ("bob", "three")]);
        assert_eq!(kinds(&story), ["lost", "write-not-read"]);
    }

    #[test]
    fn a_message_that_is_imported_twice_violates() {
        let mut story = race();
        comes_to_rest(&mut story, &[("alice", "one"), ("bob", "two"), ("bob", "three"), ("bob", "two")]);
        assert_eq!(kinds(&story), ["twice", "author-order", "doubled"]);
    }

    #[test]
    fn an_author_whose_messages_change_places_violates() {
        let mut story = race();
        comes_to_rest(&mut story, &[("bob", "three"), ("alice", "one"), ("bob", "two")]);
        assert_eq!(kinds(&story), ["author-order"]);
    }

    #[test]
    fn two_slots_that_differ_violate() {
        let (won, lost) = urls();
        let mut story = race();
        story.comes_to_rest();
        story.finds("alice", "bob", &won);
        story.finds("bob", "alice", &lost);
        assert_eq!(kinds(&story), ["slots-differ"]);
    }

    #[test]
    fn a_merge_without_end_and_an_empty_slot_violate() {
        let (won, _) = urls();
        let look_up = |other| Call::LookUp { other: user(other) };
        let mut story = race();
        story.comes_to_rest();
        story.does("alice", look_up("bob"), peer(&won, PeerState::Merging));
        story.does("bob", look_up("alice"), peer(&won, PeerState::Live));
        assert_eq!(kinds(&story), ["still-merging"]);
        story.is_refused("alice", look_up("bob"), Code::NotFound);
        assert_eq!(kinds(&story), ["slot-empty"]);
    }

    #[test]
    fn a_loser_that_leads_nowhere_violates() {
        let (_, lost) = urls();
        let mut story = race();
        comes_to_rest(&mut story, &[("alice", "one"), ("bob", "two"), ("bob", "three")]);
        story.is_refused("alice", read(&lost, 0), Code::Gone);
        assert_eq!(kinds(&story), ["dead-url"]);
        story.reads("alice", &lost, &[message("bob", "two", 1), message("bob", "three", 2)]);
        assert_eq!(kinds(&story), ["not-superseded"]);
    }

    #[test]
    fn a_retry_that_becomes_another_activity_violates() {
        let (won, _) = urls();
        let mut story = race();
        story.does("alice", post(&won, "k", "four"), accepted(&message("alice", "four", 2)));
        story.does("alice", post(&won, "k", "four"), accepted(&message("alice", "4", 3)));
        assert_eq!(kinds(&story), ["retry-is-another-activity"]);
    }

    #[test]
    fn a_post_without_an_answer_may_be_there_once_or_not_at_all() {
        let (won, _) = urls();
        let mut story = race();
        let cut = story.asks("alice", post(&won, "k", "four"));
        story.returns(cut, crate::event::Outcome::Unknown {});
        let all = [("alice", "one"), ("bob", "two"), ("bob", "three")];
        comes_to_rest(&mut story, &all);
        assert!(kinds(&story).is_empty());
        comes_to_rest(&mut story, &[all.as_slice(), &[("alice", "four")]].concat());
        assert!(kinds(&story).is_empty());
    }

    #[test]
    fn a_group_loses_nothing_either() {
        let url = conversation_url("a", 9);
        let history = |kept: &[Activity]| {
            let mut story = Story::new();
            let group = conversation(&url, &["alice", "ann", "bob"], Bound);
            let Call::Create { at, key, .. } = create("alice", "bob") else { return story };
            let call = Call::Create { kind: Kind::Group, others: vec![user("ann"), user("bob")], at, key };
            story.does("alice", call, created(true, group));
            story.posts("bob", &url, &message("bob", "one", 1));
            story.comes_to_rest();
            story.reads("ann", &url, kept);
            story
        };
        assert_eq!(Convergence.judge(history(&[message("bob", "one", 1)]).told()).ruling, Ruling::Holds);
        assert_eq!(kinds(&history(&[])), ["lost"]);
    }

    #[test]
    fn without_readings_at_rest_nothing_is_known() {
        let verdict = Convergence.judge(race().told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Unknown, 0));
        assert!(matches!(verdict.why_unknown, Some(WhyUnknown::NotObserved { .. })));
    }

    #[test]
    fn a_reading_that_is_not_answered_leaves_doubt() {
        let (won, _) = urls();
        let mut story = race();
        story.comes_to_rest();
        story.finds("alice", "bob", &won);
        story.finds("bob", "alice", &won);
        story.is_refused("alice", read(&won, 0), Code::Unavailable);
        assert!(matches!(Convergence.judge(story.told()).why_unknown, Some(WhyUnknown::Inconclusive { .. })));
    }
}
