//! RDV-003: both ways of finding a conversation.

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::Address;
use fusion_protocol::conversation::Kind;
use fusion_protocol::mercury::EventType;

use crate::event::{Call, EventId};
use crate::facts::{Facts, Known};
use crate::judge::{Casebook, Evidence, Judge, Scope};

/// RDV-003: the participant finds the conversation by the notification, and in the own index.
///
/// The cases are each participant's last reading of the own index, and each device that listened all the
/// time.
pub(crate) struct FoundBothWays;

impl Judge for FoundBothWays {
    fn name(&self) -> &'static str {
        "found-both-ways"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["RDV-003"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let deleted = facts.deprovisioned();
        let given_again = given_again(facts);
        let winners = facts.standing();
        for known in facts.conversations().iter() {
            let Some(creation) = known.created.and_then(|at| facts.calls().get(at)) else { continue };
            for member in &known.members {
                if deleted.contains(*member) || known.unreachable.contains(*member) {
                    continue;
                }
                if given_again.contains(*member) {
                    case.not_observed("which of the people who had an address is in a conversation");
                    continue;
                }
                judge_index(facts, known, member, case);
                if *member != creation.actor && winners.contains(known.url.as_str()) {
                    judge_notification(facts, known, member, creation.id, case);
                }
            }
        }
    }
}

/// Addresses that several orgs have given to somebody (MAP-004): who read the index at the end is perhaps not
/// who is in a conversation.
fn given_again<'h>(facts: &Facts<'h>) -> BTreeSet<&'h Address> {
    let mut given: BTreeMap<&Address, &str> = BTreeMap::new();
    let mut again = BTreeSet::new();
    for asked in facts.calls() {
        let Call::Provision { user, cluster } = asked.call else { continue };
        let org = facts.world().and_then(|world| world.clusters.iter().find(|known| known.name == *cluster));
        let org = org.map_or(cluster.as_str(), |known| known.org.as_str());
        if *given.entry(user).or_insert(org) != org {
            again.insert(user);
        }
    }
    again
}

fn judge_index(facts: &Facts<'_>, known: &Known<'_>, member: &Address, case: &mut Casebook) {
    let index = match facts.finals().indexes.get(member) {
        Some(index) if index.complete => index,
        Some(index) if index.failed => return case.inconclusive("an index at rest was not answered"),
        _ => return case.not_observed("nobody read a participant's index once nothing moved any more"),
    };
    let entry = |url: &&str| facts.conversations().named(url);
    let is_there = index.entries.contains_key(known.url.as_str())
        || index
            .entries
            .keys()
            .filter_map(entry)
            .any(|entry| entry.pair.is_some() && entry.pair == known.pair);
    // An entry does not say who the other is, so any 1:1 that nobody looked at may be the winner.
    let may_be_there = || {
        let one_to_one = |entry: &&Known<'_>| entry.kind == Some(Kind::OneToOne) && entry.pair.is_none();
        known.pair.is_some() && index.entries.keys().filter_map(entry).any(|entry| one_to_one(&entry))
    };
    if !is_there && may_be_there() {
        return case.not_observed("with whom a conversation in an index is");
    }
    case.reached();
    if !is_there {
        let statement = format!("{} is not in the index of its participant {}", known.url, member.as_str());
        case.violated("not-in-index", statement, index.events.iter().copied().chain([known.seen]));
    }
}

fn judge_notification(
    facts: &Facts<'_>,
    known: &Known<'_>,
    member: &Address,
    since: EventId,
    case: &mut Casebook,
) {
    for device in facts.devices().listening(member, since) {
        case.reached();
        let mut told = device.told_after(known.url.as_str(), since);
        if !told.any(|told| is_of_conversations(told.event_type)) && !device.resynced_after(since) {
            let (url, host) = (known.url, device.host);
            let statement = format!("{host} listened all the time and was never told of {url}");
            case.violated("not-notified", statement, [since, known.seen]);
        }
    }
}

fn is_of_conversations(event_type: EventType) -> bool {
    use EventType::{ConversationActivity, ConversationChanged, ConversationCreated};
    matches!(event_type, ConversationActivity | ConversationChanged | ConversationCreated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Answer, SocketChange};
    use crate::judge::{Ruling, WhyUnknown};
    use crate::testing::{self, Story, conversation_url};
    use fusion_protocol::conversation::ConversationState::{Bound, Provisional};

    #[test]
    fn bob_finds_it_by_the_notification_and_in_his_index() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.is_online("bob");
        story.creates("alice", "bob", &url, Provisional);
        story.is_told_of("bob", &url, 1);
        story.comes_to_rest();
        story.finds("bob", "alice", &url);
        story.has_in_index("alice", &[&url]);
        story.has_in_index("bob", &[&url]);
        let verdict = FoundBothWays.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached, verdict.unjudged), (Ruling::Holds, 3, 0));
    }

    #[test]
    fn an_index_that_was_not_written_violates() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.creates("alice", "bob", &url, Bound);
        story.comes_to_rest();
        story.has_in_index("bob", &[]);
        let verdict = FoundBothWays.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Violated, 1));
        assert_eq!(verdict.violations[0].fingerprint, "found-both-ways/RDV-003/not-in-index");
    }

    /// A cluster may still find the old one for a while.
    #[test]
    fn nobody_knows_which_of_two_people_who_had_an_address_is_in_a_conversation() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        for at in ["c", "b"] {
            let provision = Call::Provision { user: testing::user("bob"), cluster: testing::cluster(at) };
            story.does("admin", provision, Answer::Provisioned { incarnation: None });
        }
        story.creates("alice", "bob", &url, Bound);
        story.comes_to_rest();
        story.has_in_index("alice", &[&url]);
        story.has_in_index("bob", &[]);
        let verdict = FoundBothWays.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached, verdict.unjudged), (Ruling::Holds, 1, 1));
    }

    #[test]
    fn a_listening_device_that_is_told_nothing_violates() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.is_online("bob");
        story.creates("alice", "bob", &url, Bound);
        story.comes_to_rest();
        story.has_in_index("bob", &[&url]);
        let verdict = FoundBothWays.judge(story.told());
        assert_eq!(verdict.violations[0].fingerprint, "found-both-ways/RDV-003/not-notified");
    }

    #[test]
    fn a_device_that_was_told_to_re_sync_needs_no_notification() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.is_online("bob");
        story.creates("alice", "bob", &url, Bound);
        story.socket("bob", SocketChange::Resync);
        story.comes_to_rest();
        story.has_in_index("bob", &[&url]);
        assert_eq!(FoundBothWays.judge(story.told()).ruling, Ruling::Holds);
    }

    #[test]
    fn whoever_lost_the_race_is_found_by_the_winner() {
        let mut story = Story::new();
        let (lost, won) = (conversation_url("a", 1), conversation_url("b", 1));
        story.creates("alice", "bob", &lost, Provisional);
        story.creates("bob", "alice", &won, Bound);
        story.comes_to_rest();
        story.finds("alice", "bob", &won);
        story.finds("bob", "alice", &won);
        story.has_in_index("alice", &[&won]);
        story.has_in_index("bob", &[&won]);
        let verdict = FoundBothWays.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 4));
    }

    #[test]
    fn without_a_reading_at_rest_nothing_is_known() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.creates("alice", "bob", &url, Bound);
        story.has_in_index("bob", &[]);
        let verdict = FoundBothWays.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached, verdict.unjudged), (Ruling::Unknown, 0, 2));
        assert!(matches!(verdict.why_unknown, Some(WhyUnknown::NotObserved { .. })));
    }
}
