//! CNV-002: one live 1:1 conversation per pair of users.

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::conversation::{Conversation, ConversationState, Kind, PeerLookup, PeerState};
use fusion_protocol::{Address, ClusterName};

use crate::event::{Answer, Call, EventId};
use crate::facts::{Asked, Facts, Known, Pair, PairCase, Verb, pair_of};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::table::Table;

/// CNV-002: one live 1:1 conversation per pair; creating again returns the one that is; fixed members.
///
/// A case is a pair that created more than once, or was looked at when nothing moved any more, and each
/// attempt at what a 1:1 does not allow.
pub(crate) struct OnePerPair;

impl Judge for OnePerPair {
    fn name(&self) -> &'static str {
        "one-per-pair"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["CNV-002"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let mut creations: Table<Pair<'_>, Vec<&Asked<'_>>> = Table::default();
        for asked in facts.calls().iter().filter(|asked| matches!(asked.verb, Verb::Create | Verb::Post)) {
            match asked.call {
                Call::Create { kind: Kind::OneToOne, others, .. } => {
                    judge_members(asked, others, case);
                    if let [other] = others.as_slice() {
                        creations.entry(pair_of(asked.actor, other)).or_default().push(asked);
                    }
                }
                Call::Post { conversation, verb, .. } if matches!(&**verb, "add" | "leave" | "remove") => {
                    let known = facts.conversations().at(conversation);
                    if known.and_then(|known| known.kind) == Some(Kind::OneToOne) {
                        judge_fixed(asked, verb, case);
                    }
                }
                _ => {}
            }
        }
        let deleted = facts.deprovisioned();
        for pair in facts.conversations().pairs() {
            let may_be_others = deleted.contains(pair.pair.0) || deleted.contains(pair.pair.1);
            if may_be_others && !all_keys_known(facts, pair) {
                case.not_observed("whether it is the same people as before at a pair's addresses");
                continue;
            }
            let creations = creations.get(&pair.pair).map(Vec::as_slice).unwrap_or_default();
            let live = live(facts, pair);
            if creations.iter().filter(|asked| asked.answer().is_some()).count() > 1 || !live.is_empty() {
                case.reached();
            }
            judge_live(pair, &live, case);
            judge_one_cluster(facts, pair, case);
            judge_again(facts, pair, creations, case);
            judge_beside_bound(facts, pair, creations, case);
        }
    }
}

fn judge_members(asked: &Asked<'_>, others: &[Address], case: &mut Casebook) {
    let Some(Answer::Conversation { conversation, .. }) = asked.answer() else { return };
    if others == std::slice::from_ref(asked.actor) {
        case.reached();
        let statement = format!("{} has a 1:1 conversation with nobody else", asked.actor.as_str());
        return case.violated("same-person", statement, asked.events());
    }
    let expected: BTreeSet<&Address> = others.iter().chain([asked.actor]).collect();
    let found: BTreeSet<&Address> = conversation.participants.iter().map(|member| &member.user).collect();
    if expected != found {
        let statement = format!("{} has other members than its creator asked for", conversation.url);
        case.violated("other-members", statement, asked.events());
    }
}

fn judge_fixed(asked: &Asked<'_>, verb: &str, case: &mut Casebook) {
    case.reached();
    if asked.answer().is_some() {
        let statement = format!("{verb} was accepted by a 1:1 conversation, whose members are fixed");
        case.violated(&format!("members-changed-by-{verb}"), statement, asked.events());
    }
}

fn all_keys_known(facts: &Facts<'_>, pair: &PairCase<'_>) -> bool {
    let mut known = pair.conversations.iter().filter_map(|url| facts.conversations().named(url));
    known.all(|known| known.pair_key.is_some())
}

/// Each live conversation of a pair when nothing moves any more, and where that was seen.
fn live<'h>(facts: &Facts<'h>, pair: &PairCase<'h>) -> BTreeMap<&'h str, EventId> {
    let finals = facts.finals();
    let (one, other) = pair.pair;
    let mut live = BTreeMap::new();
    for members in [(one, other), (other, one)] {
        if let Some(lookup) = finals.lookups.get(&members)
            && let Some(Answer::Peer(PeerLookup { url, state: PeerState::Live, .. })) = lookup.answer()
        {
            live.insert(url.as_str(), lookup.id);
        }
        let entries = finals.indexes.get(members.0).map(|index| (index, index.entries.values()));
        for (index, entry) in entries.into_iter().flat_map(|(index, list)| list.map(move |e| (index, e))) {
            let is_of_pair = pair.conversations.contains(&entry.url.as_str());
            if entry.superseded_by.is_none() && is_of_pair {
                live.extend(index.events.last().map(|event| (entry.url.as_str(), *event)));
            }
        }
    }
    for read in pair.conversations.iter().flat_map(|url| finals.conversations_at(url)) {
        if let Some(Answer::Conversation { conversation, .. }) = read.answer()
            && is_live(conversation)
        {
            live.insert(conversation.url.as_str(), read.id);
        }
    }
    live
}

fn is_live(conversation: &Conversation) -> bool {
    matches!(conversation.state, ConversationState::Provisional | ConversationState::Bound)
}

fn judge_live(pair: &PairCase<'_>, live: &BTreeMap<&str, EventId>, case: &mut Casebook) {
    if live.len() > 1 {
        let urls: Vec<&str> = live.keys().copied().collect();
        let statement =
            format!("{} have {} live conversations: {}", names(pair), live.len(), urls.join(", "));
        case.violated("two-live", statement, live.values().copied());
    }
}

/// A cluster ever holds at most one 1:1 object per pair, superseded ones included (CNV-003).
fn judge_one_cluster(facts: &Facts<'_>, pair: &PairCase<'_>, case: &mut Casebook) {
    let mut first: BTreeMap<ClusterName, &Known<'_>> = BTreeMap::new();
    for known in pair.conversations.iter().filter_map(|url| facts.conversations().named(url)) {
        let Some(home) = facts.cluster_of(known.url) else { continue };
        if let Some(other) = first.get(&home) {
            let statement = format!("{home} holds two conversations of {}", names(pair));
            case.violated("two-at-one-cluster", statement, [other.seen, known.seen]);
        } else {
            first.insert(home, known);
        }
    }
}

/// Creating again returns the one that is, or the winner it gave way to.
fn judge_again(facts: &Facts<'_>, pair: &PairCase<'_>, creations: &[&Asked<'_>], case: &mut Casebook) {
    let winner = facts.finals().winner_of(pair, facts.conversations());
    let mut last: BTreeMap<&Address, (&Asked<'_>, &str)> = BTreeMap::new();
    for asked in creations {
        let Some(Answer::Conversation { conversation, .. }) = asked.answer() else { continue };
        let url = conversation.url.as_str();
        if !pair.conversations.contains(&url) {
            continue;
        }
        if let Some((before, old)) = last.insert(asked.actor, (asked, url))
            && before.ended_before(asked.id)
            && old != url
        {
            let lost = facts.conversations().named(old).is_some_and(Known::is_superseded);
            match winner {
                Some(winner) if winner == old || !(lost || winner == url) => {
                    let who = asked.actor.as_str();
                    let statement = format!("{who} created again and got {url} instead of {old}");
                    case.violated(
                        "created-again-elsewhere",
                        statement,
                        before.events().chain(asked.events()),
                    );
                }
                Some(_) => {}
                None => case.not_observed("which of a pair's conversations won"),
            }
        }
    }
}

/// Once a conversation is known to be bound, both slots hold it, so that nobody can make another.
fn judge_beside_bound(facts: &Facts<'_>, pair: &PairCase<'_>, creations: &[&Asked<'_>], case: &mut Casebook) {
    let known = |url: &&str| facts.conversations().named(url);
    let made = |known: &Known<'_>| known.created.and_then(|at| facts.calls().get(at)).map(|asked| asked.id);
    let of_pair: Vec<&Known<'_>> = pair.conversations.iter().filter_map(known).collect();
    let Some((bound, since)) =
        of_pair.iter().filter_map(|known| Some((*known, known.bound?))).min_by_key(|(_, since)| *since)
    else {
        return;
    };
    // A creation whose end nobody saw may have made the other conversation earlier.
    let open = |before: EventId| {
        creations.iter().any(|asked| asked.id < before && asked.answer().is_none() && !is_definite(asked))
    };
    for other in of_pair {
        if let Some(creation) = made(other)
            && other.url != bound.url
            && since < creation
            && other.exists_since() > creation
            && !open(creation)
        {
            let statement = format!("{} was made beside {}, which was bound before", other.url, bound.url);
            case.violated("second-beside-bound", statement, [since, creation, other.seen]);
        }
    }
}

/// Refused for good: nothing was made.
fn is_definite(asked: &Asked<'_>) -> bool {
    asked.refusal().is_some_and(|(status, _)| status < 500)
}

fn names(pair: &PairCase<'_>) -> String {
    format!("{} and {}", pair.pair.0.as_str(), pair.pair.1.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Ruling;
    use crate::testing::{Story, conversation, conversation_url, create, created, post, user};
    use fusion_protocol::Code;
    use fusion_protocol::conversation::ConversationState::{Bound, Provisional};

    fn kinds(story: &Story) -> Vec<String> {
        let verdict = OnePerPair.judge(story.told());
        let kind = |print: &str| print.rsplit('/').next().unwrap_or_default().to_owned();
        verdict.violations.iter().map(|violation| kind(&violation.fingerprint)).collect()
    }

    #[test]
    fn creating_again_returns_the_one_that_is() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.creates("alice", "bob", &url, Bound);
        let found = conversation(&url, &["alice", "bob"], Bound);
        story.does("bob", create("bob", "alice"), created(false, found));
        let verdict = OnePerPair.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn two_conversations_of_a_pair_at_one_cluster_violate() {
        let mut story = Story::new();
        story.creates("alice", "ann", &conversation_url("a", 1), Bound);
        story.creates("ann", "alice", &conversation_url("a", 2), Bound);
        assert!(kinds(&story).contains(&"two-at-one-cluster".to_owned()));
    }

    #[test]
    fn a_second_conversation_made_beside_a_bound_one_violates() {
        let mut story = Story::new();
        story.creates("alice", "bob", &conversation_url("a", 1), Bound);
        story.creates("bob", "alice", &conversation_url("b", 1), Provisional);
        assert_eq!(kinds(&story), ["second-beside-bound"]);
    }

    #[test]
    fn two_provisional_ones_are_a_race_and_no_violation() {
        let mut story = Story::new();
        story.creates("alice", "bob", &conversation_url("a", 1), Provisional);
        story.creates("bob", "alice", &conversation_url("b", 1), Provisional);
        assert_eq!(OnePerPair.judge(story.told()).ruling, Ruling::Holds);
    }

    #[test]
    fn two_live_ones_at_rest_violate() {
        let mut story = Story::new();
        let (one, other) = (conversation_url("a", 1), conversation_url("b", 1));
        story.creates("alice", "bob", &one, Provisional);
        story.creates("bob", "alice", &other, Provisional);
        story.comes_to_rest();
        story.finds("alice", "bob", &one);
        story.finds("bob", "alice", &other);
        let verdict = OnePerPair.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Violated, 1));
        assert_eq!(verdict.violations[0].fingerprint, "one-per-pair/CNV-002/two-live");
    }

    #[test]
    fn to_get_the_winner_after_the_loser_is_right_and_the_reverse_is_not() {
        let (lost, won) = (conversation_url("a", 1), conversation_url("b", 1));
        let history = |first: &fusion_protocol::Url, second: &fusion_protocol::Url| {
            let mut story = Story::new();
            story.creates("bob", "alice", &won, Provisional);
            story.creates("alice", "bob", first, Provisional);
            let again = conversation(second, &["alice", "bob"], Provisional);
            story.does("alice", create("alice", "bob"), created(false, again));
            story.comes_to_rest();
            story.finds("alice", "bob", &won);
            story
        };
        assert!(kinds(&history(&lost, &won)).is_empty());
        assert_eq!(kinds(&history(&won, &lost)), ["created-again-elsewhere"]);
    }

    #[test]
    fn a_new_person_at_an_old_address_is_another_pair() {
        let mut story = Story::new();
        let url = conversation_url("a", 2);
        story.creates("alice", "ann", &conversation_url("a", 1), Bound);
        let mut later = conversation(&url, &["alice", "ann"], Bound);
        later.participants[1].incarnation = Some(crate::testing::incarnation("somebody new"));
        story.does("alice", create("alice", "ann"), created(true, later));
        assert!(kinds(&story).is_empty());
    }

    #[test]
    fn the_members_of_a_pair_are_fixed_and_two() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.creates("alice", "bob", &url, Bound);
        let Call::Post { conversation: at, key, text, .. } = post(&url, "k", "") else { return };
        let add = Call::Post { conversation: at, key, text, verb: "add".into() };
        story.is_refused("alice", add.clone(), Code::FixedMembership);
        assert_eq!(OnePerPair.judge(story.told()).ruling, Ruling::Holds);
        story.does("alice", add, Answer::Nothing {});
        assert_eq!(kinds(&story), ["members-changed-by-add"]);
    }

    #[test]
    fn a_conversation_with_oneself_violates() {
        let mut story = Story::new();
        let alone = conversation(&conversation_url("a", 1), &["alice"], Bound);
        let (kind, others, at) = (Kind::OneToOne, vec![user("alice")], crate::testing::cluster("a"));
        let call = Call::Create { kind, others, at, key: "k".into() };
        story.does("alice", call, created(true, alone));
        assert_eq!(kinds(&story), ["same-person"]);
    }
}
