//! CNV-003: the race of two who create at once.

use fusion_protocol::Url;
use fusion_protocol::conversation::PairKey;

use crate::event::{Answer, Call, EventId};
use crate::facts::{Conversations, Facts, Known, PairCase, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::rank::rank;

/// CNV-003: the lower rank wins unless the other had been bound before; a bound conversation is never
/// unseated; a sealed one takes nothing more.
///
/// A case is a conversation that raced another one of its pair.
pub(crate) struct LowerRankWins;

impl Judge for LowerRankWins {
    fn name(&self) -> &'static str {
        "lower-rank-wins"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["CNV-003"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let conversations = facts.conversations();
        for known in conversations.iter() {
            judge_bound(known, case);
        }
        judge_sealed(facts, conversations, case);
        for pair in conversations.pairs().iter().filter(|pair| pair.conversations.len() > 1) {
            judge_race(facts, conversations, pair, case);
        }
    }
}

fn judge_bound(known: &Known<'_>, case: &mut Casebook) {
    if let (Some(bound), Some(sealed)) = (known.bound, known.sealed) {
        let statement = format!("{} was bound, for ever, and gave way all the same", known.url);
        case.violated("bound-unseated", statement, [bound, sealed]);
    }
}

/// `SEALING` is taken under the lock that gives `seq`: nothing is accepted after.
fn judge_sealed(facts: &Facts<'_>, conversations: &Conversations<'_>, case: &mut Casebook) {
    for asked in facts.asked_to(Verb::Post) {
        if let Call::Post { conversation, .. } = asked.call
            && let Some(Answer::Accepted { created: true, redirected_to: None, .. }) = asked.answer()
            && let Some(sealed) = conversations.at(conversation).and_then(|known| known.sealed)
            && sealed < asked.id
        {
            let statement = format!("{conversation} took an activity after it was sealed");
            case.violated("written-after-sealing", statement, asked.events().chain([sealed]));
        }
    }
}

fn judge_race(
    facts: &Facts<'_>,
    conversations: &Conversations<'_>,
    pair: &PairCase<'_>,
    case: &mut Casebook,
) {
    let winner = facts.finals().winner_of(pair, conversations);
    for loser in pair.conversations.iter().filter_map(|url| conversations.named(url)) {
        let over = winner.or(loser.superseded_by.map(|(url, _)| url.as_str()));
        let Some(winner) = over.and_then(|url| conversations.named(url)) else {
            case.not_observed("which of a pair's conversations won");
            continue;
        };
        if winner.url == loser.url {
            continue;
        }
        match pair.key.and_then(|key| beats(facts, &key, winner.url, loser.url)) {
            None => case.not_observed("the incarnations of a pair that raced, which the rank needs"),
            Some(true) => case.reached(),
            Some(false) => judge_upset(winner, loser, case),
        }
    }
}

/// The higher rank won, which is right only when it had been bound before the other was made.
fn judge_upset(winner: &Known<'_>, loser: &Known<'_>, case: &mut Casebook) {
    case.reached();
    if winner.bound.is_some_and(|bound| bound < loser.exists_since()) {
        return;
    }
    let statement = format!("{} won over {}, whose rank is lower", winner.url, loser.url);
    let shown: Vec<EventId> = [Some(winner.seen), winner.bound, Some(loser.seen), loser.sealed]
        .into_iter()
        .flatten()
        .chain(loser.superseded_by.map(|(_, event)| event))
        .collect();
    case.violated("higher-rank-won", statement, shown);
}

/// Whether the rank of `one` is lower; `None` when a home is not known, or both are the same.
fn beats(facts: &Facts<'_>, key: &PairKey, one: &Url, other: &Url) -> Option<bool> {
    let (one, other) = (facts.cluster_of(one)?, facts.cluster_of(other)?);
    (one != other).then(|| rank(key, &one) < rank(key, &other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Ruling, WhyUnknown};
    use crate::rank::pair_key;
    use crate::testing::{
        Story, accepted, conversation, conversation_url, created, incarnation, message, page_at, post, read,
        user,
    };
    use fusion_protocol::conversation::ConversationState::{self, Bound, Provisional, Sealing};
    use fusion_protocol::{ClusterName, UserRef};

    /// The conversations of Alice and Bob that win and lose by rank.
    fn ranked() -> (Url, Url) {
        let person = |name| UserRef { user: user(name), incarnation: incarnation(name) };
        let key = pair_key(&person("alice"), &person("bob"));
        let [a, b] = ["a", "b"].map(|name| name.parse::<ClusterName>().expect("a name"));
        let (low, high) = if rank(&key, &a) < rank(&key, &b) { ("a", "b") } else { ("b", "a") };
        (conversation_url(low, 1), conversation_url(high, 1))
    }

    fn creates(story: &mut Story, url: &Url, state: ConversationState) -> EventId {
        let at_a = url.as_str().starts_with("https://a-");
        let (who, other) = if at_a { ("alice", "bob") } else { ("bob", "alice") };
        story.creates(who, other, url, state)
    }

    fn comes_to_rest_at(story: &mut Story, winner: &Url) {
        story.comes_to_rest();
        story.finds("alice", "bob", winner);
        story.finds("bob", "alice", winner);
    }

    #[test]
    fn of_two_who_create_at_once_the_lower_rank_wins() {
        let (low, high) = ranked();
        let mut story = Story::new();
        creates(&mut story, &low, Provisional);
        creates(&mut story, &high, Provisional);
        comes_to_rest_at(&mut story, &low);
        let verdict = LowerRankWins.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn the_higher_rank_that_wins_violates() {
        let (low, high) = ranked();
        let mut story = Story::new();
        creates(&mut story, &low, Provisional);
        creates(&mut story, &high, Provisional);
        comes_to_rest_at(&mut story, &high);
        let verdict = LowerRankWins.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Violated, 1));
        assert_eq!(verdict.violations[0].fingerprint, "lower-rank-wins/CNV-003/higher-rank-won");
    }

    #[test]
    fn the_higher_rank_wins_when_it_was_bound_before() {
        let (low, high) = ranked();
        let mut story = Story::new();
        creates(&mut story, &high, Bound);
        creates(&mut story, &low, Provisional);
        comes_to_rest_at(&mut story, &high);
        let verdict = LowerRankWins.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn the_supersession_that_a_reader_saw_is_judged_without_a_look_up() {
        let (low, high) = ranked();
        let mut story = Story::new();
        creates(&mut story, &low, Provisional);
        creates(&mut story, &high, Provisional);
        story.does("alice", read(&low, 0), page_at(&high, &[]));
        assert_eq!(LowerRankWins.judge(story.told()).ruling, Ruling::Violated);
    }

    #[test]
    fn a_bound_conversation_that_gives_way_violates() {
        let (low, high) = ranked();
        let mut story = Story::new();
        creates(&mut story, &high, Bound);
        creates(&mut story, &low, Provisional);
        story.state("b", "conversation", high.as_str(), "SEALING");
        let verdict = LowerRankWins.judge(story.told());
        assert_eq!(verdict.violations[0].fingerprint, "lower-rank-wins/CNV-003/bound-unseated");
    }

    #[test]
    fn writing_into_a_sealed_conversation_violates() {
        let (_, high) = ranked();
        let mut story = Story::new();
        let sealed = conversation(&high, &["alice", "bob"], Sealing);
        story.does("alice", Call::ReadConversation { conversation: high.clone() }, created(false, sealed));
        story.does("alice", post(&high, "k", "late"), accepted(&message("alice", "late", 1)));
        let verdict = LowerRankWins.judge(story.told());
        assert_eq!(verdict.violations[0].fingerprint, "lower-rank-wins/CNV-003/written-after-sealing");
    }

    #[test]
    fn without_a_race_there_is_no_case() {
        let mut story = Story::new();
        creates(&mut story, &ranked().0, Bound);
        let verdict = LowerRankWins.judge(story.told());
        assert_eq!((verdict.ruling, verdict.why_unknown), (Ruling::Unknown, Some(WhyUnknown::NoCase {})));
    }
}
