//! CNV-005: what the literal rules of the race would let happen, and the shipped one does not.

use fusion_protocol::conversation::{Kind, PeerLookup, PeerState};
use fusion_protocol::{Address, Url};

use crate::event::{Answer, Call, EventId};
use crate::facts::{Asked, Facts, Known, PairCase, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::judges::set_once::{Before, Seen, SetOnce};
use crate::rank::rank;
use crate::table::Table;

/// CNV-005: neither a clock nor a lucky identifier decides a race; the conversation of a pair that was
/// bound once is the pair's for ever; whoever follows a redirect is not redirected again.
///
/// The cases are races whose outcome is known, pairs that were looked up again, and conversations that
/// gave way.
pub(crate) struct RacesAreSettled;

impl Judge for RacesAreSettled {
    fn name(&self) -> &'static str {
        "races-are-settled"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["CNV-005"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let stamps = stamps(facts);
        for pair in facts.conversations().pairs().iter().filter(|pair| pair.conversations.len() > 1) {
            judge_race(facts, pair, &stamps, case);
        }
        judge_seats(facts, case);
        judge_redirects(facts, case);
    }
}

/// What each conversation says of when it was made, as somebody first saw it.
fn stamps<'h>(facts: &Facts<'h>) -> Table<&'h str, &'h str> {
    let mut stamps = Table::default();
    for asked in facts.calls() {
        if let Some(Answer::Conversation { conversation, .. }) = asked.answer() {
            stamps.entry(conversation.url.as_str()).or_insert(conversation.created.as_str());
        }
    }
    stamps
}

/// The home of the higher rank won though nothing was settled: then it was something else that decided.
fn judge_race(facts: &Facts<'_>, pair: &PairCase<'_>, stamps: &Table<&str, &str>, case: &mut Casebook) {
    let conversations = facts.conversations();
    for loser in pair.conversations.iter().filter_map(|url| conversations.named(url)) {
        let Some(winner) = loser.superseded_by.and_then(|(url, _)| conversations.at(url)) else { continue };
        let (Some(key), Some(won), Some(lost)) =
            (pair.key, facts.cluster_of(winner.url), facts.cluster_of(loser.url))
        else {
            case.not_observed("the homes and the persons of a pair that raced, which the rank needs");
            continue;
        };
        case.reached();
        let settled_before = winner.bound.is_some_and(|bound| bound < loser.exists_since());
        if won == lost || settled_before || rank(&key, &won) < rank(&key, &lost) {
            continue;
        }
        let made = |known: &Known<'_>| known.created.and_then(|at| facts.calls().get(at));
        let (Some(of_winner), Some(of_loser)) = (made(winner), made(loser)) else { continue };
        let stamp = |known: &Known<'_>| stamps.get(known.url.as_str()).copied();
        let events = || of_winner.events().chain(of_loser.events());
        if of_loser.ended_before(of_winner.id) && stamp(winner) < stamp(loser) {
            let statement =
                format!("{} was made after {} and won by a clock that is behind", winner.url, loser.url);
            case.violated("clock-decides", statement, events());
        }
        if identifier(winner.url) < identifier(loser.url) {
            let statement = format!("{} won over {} by a lower identifier", winner.url, loser.url);
            case.violated("identifier-decides", statement, events());
        }
    }
}

/// What a user is told of the pair, at rest from a merge: set once it is known to be bound.
fn judge_seats(facts: &Facts<'_>, case: &mut Casebook) {
    let deleted = facts.deprovisioned();
    let mut seats: SetOnce<(&Address, &Address), &Url> = SetOnce::default();
    let seats_told = facts.returned().filter(|(asked, _)| matches!(asked.verb, Verb::LookUp | Verb::Create));
    for (asked, back) in seats_told {
        let Some((other, url)) = seat(asked) else { continue };
        let known = facts.conversations().at(url);
        let is_bound = known.is_some_and(|known| known.bound.is_some_and(|bound| bound < back.id));
        let key = (asked.actor, other);
        // Whoever comes to an old address is another pair's.
        if deleted.contains(asked.actor) || deleted.contains(other) {
            continue;
        }
        if !is_bound && seats.value(&key).is_none() {
            continue;
        }
        match seats.see(key, url, asked.id, back.id) {
            Seen::First => {}
            Seen::Same => case.reached(),
            Seen::Changed(before) => judge_change(asked, url, before, case),
        }
    }
}

/// The pair's conversation, as somebody was answered who asked for it.
fn seat<'h>(asked: &Asked<'h>) -> Option<(&'h Address, &'h Url)> {
    match (asked.call, asked.answer()?) {
        (Call::LookUp { other }, Answer::Peer(PeerLookup { url, state: PeerState::Live, .. })) => {
            Some((other, url))
        }
        (Call::Create { kind: Kind::OneToOne, others, .. }, Answer::Conversation { conversation, .. }) => {
            let usable = conversation.superseded_by.is_none();
            others.first().filter(|_| usable).map(|other| (other, &conversation.url))
        }
        _ => None,
    }
}

fn judge_change(asked: &Asked<'_>, url: &Url, before: Before<&Url>, case: &mut Casebook) {
    case.reached();
    let (who, old) = (asked.actor.as_str(), before.value);
    let statement = format!("{who} had {old}, which was bound for ever, and is told of {url} instead");
    case.violated("unseated", statement, asked.events().chain([before.at]));
}

/// Every URL resolves in at most one hop (CNV-004), so whatever took over is never taken over.
fn judge_redirects(facts: &Facts<'_>, case: &mut Casebook) {
    let conversations = facts.conversations();
    for known in conversations.iter() {
        let Some((winner, at)) = known.superseded_by else { continue };
        case.reached();
        let next = conversations.at(winner).and_then(|winner| winner.superseded_by);
        if let Some((further, again)) = next {
            let (url, back) = (known.url, if further == known.url { " again" } else { "" });
            let statement = format!("{url} leads to {winner}, which leads to {further}{back}");
            let events: [EventId; 2] = [at, again];
            case.violated("redirects-again", statement, events);
        }
    }
}

fn identifier(url: &Url) -> &str {
    url.path().rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Ruling, Verdict};
    use crate::rank::pair_key;
    use crate::testing::{
        Story, conversation, conversation_url, create, created, incarnation, page_at, read, user,
    };
    use fusion_protocol::conversation::ConversationState::{self, Bound, Provisional};
    use fusion_protocol::{ClusterName, UserRef};

    /// Where the conversation of the lower rank lives, and where the other.
    fn ranked() -> [&'static str; 2] {
        let person = |name| UserRef { user: user(name), incarnation: incarnation(name) };
        let key = pair_key(&person("alice"), &person("bob"));
        let [a, b] = ["a", "b"].map(|name| name.parse::<ClusterName>().expect("a name"));
        if rank(&key, &a) < rank(&key, &b) { ["a", "b"] } else { ["b", "a"] }
    }

    fn makes(story: &mut Story, url: &Url, state: ConversationState, stamp: &str) {
        let at_a = url.as_str().starts_with("https://a-");
        let (who, other) = if at_a { ("alice", "bob") } else { ("bob", "alice") };
        let mut made = conversation(url, &[who, other], state);
        stamp.clone_into(&mut made.created);
        story.does(who, create(who, other), created(true, made));
    }

    /// A race that the second URL wins.
    fn raced(first: (&Url, &str), second: (&Url, &str)) -> Verdict {
        let mut story = Story::new();
        makes(&mut story, first.0, Provisional, first.1);
        makes(&mut story, second.0, Provisional, second.1);
        story.does("alice", read(first.0, 0), page_at(second.0, &[]));
        RacesAreSettled.judge(story.told())
    }

    fn kinds(verdict: &Verdict) -> Vec<&str> {
        verdict.violations.iter().filter_map(|found| found.fingerprint.rsplit('/').next()).collect()
    }

    #[test]
    fn where_the_rank_decides_neither_clock_nor_identifier_matters() {
        let [low, high] = ranked();
        let verdict = raced((&conversation_url(high, 9), "12:00"), (&conversation_url(low, 1), "11:00"));
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 2));
    }

    #[test]
    fn a_clock_that_decides_violates() {
        let [low, high] = ranked();
        let verdict = raced((&conversation_url(low, 1), "12:00"), (&conversation_url(high, 9), "11:00"));
        assert_eq!(kinds(&verdict), ["clock-decides"]);
    }

    #[test]
    fn an_identifier_that_decides_violates() {
        let [low, high] = ranked();
        let verdict = raced((&conversation_url(low, 9), "11:00"), (&conversation_url(high, 1), "12:00"));
        assert_eq!(kinds(&verdict), ["identifier-decides"]);
    }

    #[test]
    fn a_bound_conversation_that_is_replaced_violates() {
        let mut story = Story::new();
        let (old, new) = (conversation_url("a", 1), conversation_url("b", 2));
        story.creates("alice", "bob", &old, Bound);
        story.finds("bob", "alice", &old);
        story.finds("bob", "alice", &old);
        makes(&mut story, &new, Bound, "");
        let verdict = RacesAreSettled.judge(story.told());
        assert_eq!(kinds(&verdict), ["unseated"]);
        assert_eq!(verdict.reached, 2);
    }

    #[test]
    fn what_was_not_bound_yet_may_give_way() {
        let mut story = Story::new();
        let (lost, won) = (conversation_url("a", 1), conversation_url("b", 2));
        story.creates("alice", "bob", &lost, Provisional);
        story.finds("alice", "bob", &lost);
        makes(&mut story, &won, Bound, "");
        story.finds("alice", "bob", &won);
        assert!(kinds(&RacesAreSettled.judge(story.told())).is_empty());
    }

    #[test]
    fn a_redirect_that_leads_to_a_redirect_violates() {
        let mut story = Story::new();
        let (one, two) = (conversation_url("a", 1), conversation_url("b", 2));
        story.does("alice", read(&one, 0), page_at(&two, &[]));
        assert!(kinds(&RacesAreSettled.judge(story.told())).is_empty());
        story.does("bob", read(&two, 0), page_at(&one, &[]));
        assert_eq!(kinds(&RacesAreSettled.judge(story.told())), ["redirects-again", "redirects-again"]);
    }
}
