//! MAP-007: a move has one commit point, loses nothing and breaks no URL.

mod carried;

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::{Address, ClusterName, Count, Incarnation};

use crate::event::{Answer, Call, EventId};
use crate::facts::{Asked, Facts, FinalIndex, Verb};
use crate::judge::{Casebook, Evidence, Judge};

/// MAP-007: once a move is done the old cluster answers for the user no more; the user is the same person,
/// has every entry and every write in the index, as soon as anybody looks, is told what others said, and reads
/// what was read before.
///
/// The cases are, for each user of whom an admin saw that the move was done: each question to the old cluster
/// afterwards, the incarnation before and after, each entry that was listed before, each whole reading of the
/// index after it, each conversation that was written to, each device that listened, and each conversation
/// that was read before.
pub(crate) struct MovedWhole;

/// A user's only move, seen to be done.
struct Moved<'f, 'h> {
    user: &'h Address,
    from: &'h ClusterName,
    ordered: EventId,
    done: EventId,
    asked: &'f Asked<'h>,
}

impl Judge for MovedWhole {
    fn name(&self) -> &'static str {
        "moved-whole"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MAP-007"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let moves = moves(facts, case);
        if moves.is_empty() {
            return;
        }
        for moved in moves.values() {
            carried::judge(facts, moved, case);
        }
        judge_calls(facts, &moves, case);
        judge_writes(facts, &moves, case);
    }
}

/// Who moved once and was seen to have come. Who moved twice, was made anew or deleted, proves nothing.
fn moves<'f, 'h>(facts: &'f Facts<'h>, case: &mut Casebook) -> BTreeMap<&'h Address, Moved<'f, 'h>> {
    let deleted = facts.deprovisioned();
    let mut tries: BTreeMap<&Address, Vec<&Asked<'_>>> = BTreeMap::new();
    let mut made: BTreeMap<&Address, u32> = BTreeMap::new();
    for asked in facts.calls().iter().filter(|asked| matches!(asked.verb, Verb::Move | Verb::Provision)) {
        match asked.call {
            Call::Move { user, .. } => tries.entry(user).or_default().push(asked),
            Call::Provision { user, .. } => *made.entry(user).or_default() += 1,
            _ => {}
        }
    }
    let mut moves = BTreeMap::new();
    for (user, tries) in tries {
        let made_anew = made.get(user).is_some_and(|times| *times > 1);
        if deleted.contains(user) || made_anew {
            continue;
        }
        // Several tries are one move as long as they say the same.
        let same = tries.iter().all(|asked| asked.call == tries[0].call);
        let done = tries.iter().find(|asked| asked.answer().is_some());
        match (same, done, tries[0].call) {
            (true, Some(asked), Call::Move { from, .. }) => {
                let Some(back) = asked.back else { continue };
                let (ordered, done) = (tries[0].id, back.id);
                moves.insert(user, Moved { user, from, ordered, done, asked });
            }
            _ => case.not_observed("whether a user's move was done"),
        }
    }
    moves
}

/// One look at every call: who is answered by the old cluster, and as whom the user is found.
fn judge_calls<'h>(facts: &Facts<'h>, moves: &BTreeMap<&'h Address, Moved<'_, 'h>>, case: &mut Casebook) {
    let mut before: BTreeMap<&Address, (Incarnation, &Asked<'_>)> = BTreeMap::new();
    let mut read: BTreeSet<(&Address, &str)> = BTreeSet::new();
    for asked in facts.calls() {
        match asked.call {
            Call::Resolve { user, via } => {
                let (Some(moved), Some(Answer::Resolved(found))) = (moves.get(user), asked.answer()) else {
                    continue;
                };
                let found = &found.record;
                if asked.ended_before(moved.ordered) {
                    before.entry(user).or_insert((found.incarnation, asked));
                } else if asked.id > moved.done {
                    if via == moved.from {
                        case.reached();
                        old_answers(moved, asked, found.cluster == *moved.from, case);
                    }
                    same_person(moved, before.get(user), found.incarnation, asked, case);
                }
            }
            Call::LogIn { cluster } | Call::Create { at: cluster, .. } => {
                let Some(moved) = moves.get(asked.actor) else { continue };
                if cluster == moved.from && asked.id > moved.done && asked.back.is_some() {
                    case.reached();
                    old_answers(moved, asked, asked.answer().is_some(), case);
                }
            }
            Call::Read { conversation, .. } => {
                let Some(moved) = moves.get(asked.actor) else { continue };
                if asked.ended_before(moved.ordered)
                    && asked.answer().is_some()
                    && read.insert((asked.actor, conversation.as_str()))
                {
                    judge_url(facts, moved, conversation.as_str(), asked, case);
                }
            }
            _ => {}
        }
    }
}

fn old_answers(moved: &Moved<'_, '_>, asked: &Asked<'_>, served: bool, case: &mut Casebook) {
    if served {
        let (user, from) = (moved.user.as_str(), moved.from);
        let statement = format!("{user} has moved, and {from} still answers as if it served them");
        case.violated("old-answers", statement, moved.asked.events().chain(asked.events()));
    }
}

fn same_person(
    moved: &Moved<'_, '_>,
    before: Option<&(Incarnation, &Asked<'_>)>,
    now: Incarnation,
    asked: &Asked<'_>,
    case: &mut Casebook,
) {
    let Some((was, first)) = before else { return };
    case.reached();
    if *was != now {
        let statement = format!("{} is another person since the move", moved.user.as_str());
        case.violated("another-person", statement, first.events().chain(asked.events()));
    }
}

/// What was read before the move is read at rest by the same URL.
fn judge_url(facts: &Facts<'_>, moved: &Moved<'_, '_>, url: &str, before: &Asked<'_>, case: &mut Casebook) {
    let Some(last) = facts.finals().reads.get(&(moved.user, url)) else { return };
    let refusal = last.failed.as_ref().and_then(Asked::refusal);
    match refusal {
        None if last.complete => case.reached(),
        Some((status @ (403 | 404 | 410 | 421), _)) => {
            case.reached();
            let statement =
                format!("{} read {url} before moving, and is answered {status} now", moved.user.as_str());
            case.violated("url-lost", statement, before.events().chain(last.events.iter().copied()));
        }
        _ => case.not_observed("whether what was read before a move can be read after it"),
    }
}

/// What others said is in the index at rest, and the devices that listened were told of it, or of
/// something later in the same conversation.
fn judge_writes<'h>(facts: &Facts<'h>, moves: &BTreeMap<&'h Address, Moved<'_, 'h>>, case: &mut Casebook) {
    // The last word in each conversation, by who did not say it.
    let mut last: BTreeMap<(&Address, &str), (Count, &Asked<'_>)> = BTreeMap::new();
    for asked in facts.asked_to(Verb::Post) {
        let (Call::Post { conversation, .. }, Some(Answer::Accepted { activity, redirected_to: None, .. })) =
            (asked.call, asked.answer())
        else {
            continue;
        };
        let Some(known) = facts.conversations().named(conversation.as_str()) else { continue };
        if known.is_superseded() {
            continue;
        }
        for user in known.members.iter().filter(|member| moves.contains_key(**member)) {
            if *user != asked.actor {
                let place = last.entry((user, conversation.as_str())).or_insert((activity.seq, asked));
                if activity.seq > place.0 {
                    *place = (activity.seq, asked);
                }
            }
        }
    }
    for ((user, url), (seq, said)) in last {
        if let Some(index) = final_index(facts, user) {
            judge_entry(user, url, seq, said, index, case);
        }
        for device in facts.devices().listening(user, said.id) {
            case.reached();
            let recent = device.told.get(url).into_iter().flatten().rev();
            let told = recent.take_while(|told| told.id > said.id).any(|told| at_least(told.data, seq));
            if !told && !device.resynced_after(said.id) {
                let host = device.host;
                let statement = format!("{host} was never told of number {seq} in {url}, across the move");
                case.violated("notification-lost", statement, said.events());
            }
        }
    }
}

fn judge_entry(
    user: &Address,
    url: &str,
    seq: Count,
    said: &Asked<'_>,
    index: &FinalIndex<'_>,
    case: &mut Casebook,
) {
    let Some(entry) = index.entries.get(url) else { return };
    case.reached();
    if entry.last_seq < seq && entry.superseded_by.is_none() {
        let (name, last) = (user.as_str(), entry.last_seq);
        let statement =
            format!("the index of {name} knows {url} up to {last} only, and {seq} was said there");
        case.violated("write-lost", statement, said.events().chain(index.events.iter().copied()));
    }
}

fn final_index<'f, 'h>(facts: &'f Facts<'h>, user: &Address) -> Option<&'f FinalIndex<'h>> {
    facts.finals().indexes.get(user).filter(|index| index.complete)
}

/// A notification without a number only says: look.
fn at_least(data: &serde_json::Value, seq: Count) -> bool {
    let told = data.get("seq").and_then(|told| serde_json::from_value::<Count>(told.clone()).ok());
    told.is_none_or(|told| told >= seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Ruling, Verdict};
    use crate::testing::{Story, cluster, conversation_url, message, resolved, user};
    use fusion_protocol::Code;
    use fusion_protocol::conversation::ConversationState::Bound;

    pub(super) fn move_of(name: &str) -> Call {
        Call::Move { user: user(name), from: cluster("b"), to: cluster("d") }
    }

    fn resolve(name: &str, via: &str) -> Call {
        Call::Resolve { user: user(name), via: cluster(via) }
    }

    /// Alice and Bob have a conversation, and Bob has read it and his index; then he moves from b to d.
    pub(super) fn story() -> Story {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.is_online("bob");
        story.creates("alice", "bob", &url, Bound);
        story.is_told_of("bob", &url, 1);
        story.has_in_index("bob", &[&url]);
        story.reads("bob", &url, &[]);
        story.does("alice", resolve("bob", "a"), resolved("bob", "b"));
        story.does("admin", move_of("bob"), Answer::Nothing {});
        story
    }

    pub(super) fn comes_to_rest(story: &mut Story) {
        let url = conversation_url("a", 1);
        story.comes_to_rest();
        story.has_in_index("bob", &[&url]);
        story.reads("bob", &url, &[]);
    }

    pub(super) fn judged(story: &Story) -> Verdict {
        MovedWhole.judge(story.told())
    }

    pub(super) fn kind(verdict: &Verdict) -> &str {
        verdict.violations[0].fingerprint.rsplit('/').next().unwrap()
    }

    #[test]
    fn a_move_that_keeps_everything_holds() {
        let mut story = story();
        story.is_refused("bob", Call::LogIn { cluster: cluster("b") }, Code::WrongCluster);
        story.does("bob", Call::LogIn { cluster: cluster("d") }, Answer::Nothing {});
        story.does("carl", resolve("bob", "b"), resolved("bob", "d"));
        comes_to_rest(&mut story);
        let verdict = judged(&story);
        assert_eq!((verdict.ruling, verdict.violated), (Ruling::Holds, 0));
        assert!(verdict.reached >= 5, "{verdict:?}");
    }

    #[test]
    fn an_old_cluster_that_logs_the_user_in_violates() {
        let mut story = story();
        story.does("bob", Call::LogIn { cluster: cluster("b") }, Answer::Nothing {});
        comes_to_rest(&mut story);
        assert_eq!(kind(&judged(&story)), "old-answers");
    }

    #[test]
    fn an_old_cluster_whose_map_still_names_itself_violates_and_another_s_memory_does_not() {
        let mut story = story();
        story.does("alice", resolve("bob", "a"), resolved("bob", "b"));
        assert_eq!(judged(&story).violated, 0, "others may remember for a while");
        story.does("carl", resolve("bob", "b"), resolved("bob", "b"));
        comes_to_rest(&mut story);
        assert_eq!(kind(&judged(&story)), "old-answers");
    }

    #[test]
    fn somebody_else_at_the_new_place_violates() {
        let mut story = story();
        let Answer::Resolved(mut other) = resolved("bob", "d") else { unreachable!("it is one") };
        other.record.incarnation = crate::testing::incarnation("mallory");
        story.does("alice", resolve("bob", "a"), Answer::Resolved(other));
        comes_to_rest(&mut story);
        assert_eq!(kind(&judged(&story)), "another-person");
    }

    #[test]
    fn a_write_that_the_new_index_does_not_know_violates() {
        let mut story = story();
        let url = conversation_url("a", 1);
        story.posts("alice", &url, &message("alice", "over there?", 9));
        story.is_told_of("bob", &url, 2);
        comes_to_rest(&mut story);
        assert_eq!(kind(&judged(&story)), "write-lost");
    }

    #[test]
    fn a_device_that_is_never_told_violates() {
        let mut story = story();
        let url = conversation_url("a", 1);
        story.posts("alice", &url, &message("alice", "over there?", 0));
        comes_to_rest(&mut story);
        assert_eq!(kind(&judged(&story)), "notification-lost");
    }

    #[test]
    fn a_url_that_leads_nowhere_any_more_violates() {
        let mut story = story();
        let url = conversation_url("a", 1);
        story.comes_to_rest();
        story.has_in_index("bob", &[&url]);
        story.is_refused("bob", crate::testing::read(&url, 0), Code::NotFound);
        assert_eq!(kind(&judged(&story)), "url-lost");
    }

    #[test]
    fn a_move_that_nobody_saw_done_proves_nothing() {
        let mut story = Story::new();
        let asked = story.asks("admin", move_of("bob"));
        story.returns(asked, crate::event::Outcome::Unknown {});
        story.does("carl", resolve("bob", "b"), resolved("bob", "b"));
        let verdict = judged(&story);
        assert_eq!((verdict.ruling, verdict.reached, verdict.unjudged), (Ruling::Unknown, 0, 1));
    }

    #[test]
    fn who_does_not_move_is_no_case() {
        let mut story = Story::new();
        story.does("carl", resolve("bob", "b"), resolved("bob", "b"));
        assert!(judged(&story).had_no_case());
    }
}
