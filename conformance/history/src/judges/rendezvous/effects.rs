//! RDV-005: what was accepted arrives, once.

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::conversation::{ActivityId, Kind};
use fusion_protocol::index::Membership;
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, Uuid};
use serde::Deserialize as _;

use crate::event::{Answer, Body, Call, EventId};
use crate::facts::{Asked, Facts, FinalRead, Known, Sight, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::table::{Set, Table};

/// RDV-005: no effect of one cluster on another is lost or doubled, whatever crashes or parts them.
///
/// The cases are each participant's index entry of a conversation that was read to its end at rest, and
/// each message, for each device of a participant that listened all the time.
pub(crate) struct EffectsArriveOnce;

/// By device, conversation and activity: the notifications of it, each with one delivery.
type Told<'h> = Table<(&'h str, &'h str, ActivityId), BTreeMap<Uuid, EventId>>;

impl Judge for EffectsArriveOnce {
    fn name(&self) -> &'static str {
        "effects-arrive-once"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["RDV-005"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let standing = facts.standing();
        let deleted = facts.deprovisioned();
        let lost = facts.faults().had("lose_rows");
        let ends = ends(facts);
        for known in facts.conversations().iter().filter(|known| standing.contains(known.url.as_str())) {
            let Some(last) = ends.get(known.url.as_str()).copied() else { continue };
            let reached =
                |member: &&&Address| !deleted.contains(**member) && !known.unreachable.contains(**member);
            for member in known.members.iter().filter(reached) {
                judge_index(facts, known, member, last, lost, case);
            }
        }
        judge_notifications(facts, standing, deleted, case);
    }
}

/// Where each conversation ends that somebody read to its end at rest.
fn ends<'h>(facts: &Facts<'h>) -> Table<&'h str, u64> {
    let reads = facts.finals().reads.values().filter(|read| read.complete);
    let end = |read: &FinalRead<'h>| read.activities.last().map_or(0, |last| last.seq.0);
    reads.map(|read| (read.stream.as_str(), end(read))).collect()
}

/// The index knows of everything that the home has, and its preview has no hole.
fn judge_index(
    facts: &Facts<'_>,
    known: &Known<'_>,
    member: &Address,
    last: u64,
    lost: bool,
    case: &mut Casebook,
) {
    let url = known.url.as_str();
    let Some(index) = facts.finals().indexes.get(member).filter(|index| index.complete) else { return };
    let Some(entry) = index.entries.get(url).filter(|entry| entry.membership == Membership::Member) else {
        return;
    };
    case.reached();
    let who = member.as_str();
    let events = || index.events.iter().copied();
    if entry.last_seq.0 < last {
        let statement = format!("{url} is at {last}, and the index of {who} at {}", entry.last_seq);
        case.violated("lost-on-the-way", statement, events());
    }
    // A table that was lost takes its previews along: what comes back is the pointer, and what is new.
    let hole = entry.preview.windows(2).any(|two| two[0].seq.next() != two[1].seq);
    let short = entry.preview.last().is_some_and(|shown| shown.seq != entry.last_seq);
    if (hole || short) && !lost {
        let statement = format!("the index of {who} has an activity of {url} and not those around it");
        case.violated("hole-in-preview", statement, events());
    }
}

/// Each message is told once to each device that listened, in conversations that never raced: the winner
/// of a race is shown as a whole.
fn judge_notifications(
    facts: &Facts<'_>,
    standing: &Set<&str>,
    deleted: &BTreeSet<&Address>,
    case: &mut Casebook,
) {
    let told = told(facts);
    let undisputed = super::undisputed(facts);
    for asked in facts.asked_to(Verb::Post) {
        let Call::Post { conversation, verb, .. } = asked.call else { continue };
        let Some(Answer::Accepted { activity, redirected_to: None, .. }) = asked.answer() else { continue };
        let url = conversation.as_str();
        let Some(known) = facts.conversations().at(conversation) else { continue };
        if verb != "message" || !undisputed.contains(url) || !standing.contains(url) {
            continue;
        }
        for member in founders(facts, known) {
            if deleted.contains(member)
                || known.unreachable.contains(member)
                || has_left(facts, known, member)
            {
                continue;
            }
            for device in facts.devices().listening(member, asked.id) {
                if !device.resynced_after(asked.id) {
                    let events = told.get(&(device.host, url, activity.id));
                    judge_told(asked, device.host, events, case);
                }
            }
        }
    }
}

/// Who was in it from the start, as its creator was answered; a 1:1 has no others.
fn founders<'h>(facts: &Facts<'h>, known: &Known<'h>) -> Vec<&'h Address> {
    let creation = known.created.and_then(|at| facts.calls().get(at));
    match creation.and_then(Asked::answer) {
        Some(Answer::Conversation { conversation, .. }) => {
            conversation.participants.iter().map(|participant| &participant.user).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether a member of a group may have gone.
fn has_left(facts: &Facts<'_>, known: &Known<'_>, member: &Address) -> bool {
    let entry = facts.finals().indexes.get(member).and_then(|index| index.entries.get(known.url.as_str()));
    known.kind == Some(Kind::Group) && entry.is_none_or(|entry| entry.membership != Membership::Member)
}

fn told<'h>(facts: &Facts<'h>) -> Told<'h> {
    let mut told = Told::default();
    for event in facts.seen(Sight::Device) {
        let Body::Deliver { id, event_type: EventType::ConversationActivity, resource, data, .. } =
            &event.body
        else {
            continue;
        };
        let activity = data.get("activity").and_then(|activity| activity.get("id"));
        let Some(activity) = activity.and_then(|id| ActivityId::deserialize(id).ok()) else {
            continue;
        };
        let of_activity = told.entry((event.host.as_str(), resource.as_str(), activity)).or_default();
        of_activity.entry(*id).or_insert(event.id);
    }
    told
}

fn judge_told(asked: &Asked<'_>, device: &str, told: Option<&BTreeMap<Uuid, EventId>>, case: &mut Casebook) {
    case.reached();
    let who = asked.actor.as_str();
    match told.map_or(0, BTreeMap::len) {
        0 => {
            let statement =
                format!("{device} listened all the time and was never told of a message of {who}");
            case.violated("never-told", statement, asked.events());
        }
        1 => {}
        times => {
            let statement = format!("{device} was told of one message of {who} by {times} events");
            let events = told.into_iter().flat_map(BTreeMap::values).copied();
            case.violated("told-again", statement, asked.events().chain(events));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Ruling, Verdict};
    use crate::testing::{Story, conversation_url, index_entry, message};
    use fusion_protocol::conversation::ConversationState::Bound;
    use fusion_protocol::index::IndexEntry;
    use fusion_protocol::{Count, Url};
    use serde_json::json;

    /// Alice says one thing to Bob, who listens.
    fn said() -> (Story, Url) {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.is_online("bob");
        story.creates("alice", "bob", &url, Bound);
        story.posts("alice", &url, &message("alice", "hello", 1));
        (story, url)
    }

    fn is_told(story: &mut Story, url: &Url) {
        let data = json!({ "indexCursor": "1", "activity": message("alice", "hello", 1) });
        story.is_told("bob", EventType::ConversationActivity, url, data);
    }

    fn ends(mut story: Story, url: &Url, entry: IndexEntry) -> Verdict {
        story.comes_to_rest();
        story.finds("alice", "bob", url);
        story.reads("alice", url, &[message("alice", "hello", 1)]);
        let answer = Answer::Index { entries: vec![entry], cursor: Count(1) };
        story.does("bob", Call::ReadIndex { after: Count(0) }, answer);
        EffectsArriveOnce.judge(story.told())
    }

    fn right(url: &Url) -> IndexEntry {
        let preview = vec![message("alice", "hello", 1)];
        IndexEntry { last_seq: Count(1), preview, ..index_entry(url, 1) }
    }

    fn kinds(verdict: &Verdict) -> Vec<&str> {
        verdict.violations.iter().filter_map(|found| found.fingerprint.rsplit('/').next()).collect()
    }

    #[test]
    fn a_message_that_arrives_once_holds() {
        let (mut story, url) = said();
        is_told(&mut story, &url);
        let verdict = ends(story, &url, right(&url));
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 2));
    }

    #[test]
    fn a_message_that_never_arrives_violates() {
        let (story, url) = said();
        let verdict = ends(story, &url, IndexEntry { last_seq: Count(0), ..index_entry(&url, 1) });
        assert_eq!(kinds(&verdict), ["lost-on-the-way", "never-told"]);
    }

    #[test]
    fn a_message_that_arrives_twice_violates() {
        let (mut story, url) = said();
        is_told(&mut story, &url);
        is_told(&mut story, &url);
        assert_eq!(kinds(&ends(story, &url, right(&url))), ["told-again"]);
    }

    #[test]
    fn an_entry_that_misses_something_in_between_violates() {
        let (mut story, url) = said();
        is_told(&mut story, &url);
        let preview = vec![message("alice", "hello", 1), message("alice", "later", 3)];
        let entry = IndexEntry { last_seq: Count(3), preview, ..index_entry(&url, 1) };
        assert_eq!(kinds(&ends(story, &url, entry)), ["hole-in-preview"]);
    }

    #[test]
    fn without_a_rest_nothing_is_known() {
        let (story, _) = said();
        assert!(EffectsArriveOnce.judge(story.told()).had_no_case());
    }
}
