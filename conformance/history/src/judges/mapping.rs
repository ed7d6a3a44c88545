//! Mapping: where a user is (MAP).

mod alike;
mod claims;
mod found;
mod moving;
mod one_org;
mod register;
mod replica;

use fusion_protocol::{Address, ClusterName, Code, Incarnation};

pub(super) use alike::UnknownTakesAsLong;
pub(super) use claims::{OneOwner, WholeSetOfClusters};
pub(super) use found::FoundStaysFound;
pub(super) use moving::MovedWhole;
pub(super) use one_org::OneOrgAtATime;
pub(super) use register::DomainMapInOneOrder;
pub(super) use replica::ReplicaOutlivesTheProvider;

use crate::event::{Answer, Call};
use crate::facts::{Asked, Facts, Verb};
use crate::judge::{Casebook, Evidence, Judge};
use crate::table::{Set, Table};

/// MAP-001: the four steps give the same answer whichever cluster or client asks, at quiescence.
///
/// A case is a user who was resolved at rest, more than once or with a place known beforehand. A 503
/// (`resolution-incomplete`) is no answer, nor is what a third cluster has found out before a move and may
/// remember for `ttlSeconds`.
pub(super) struct SameResolutionEverywhere;

/// SPEC's `ttlSeconds`, where nobody has read a domain's own.
const TTL_SECONDS: u32 = 300;
/// How long an answer that was right when it was given may have been on its way to whoever remembers it.
const ON_ITS_WAY_US: u64 = 15_000_000;

/// What a resolution found; `None`: no such user.
type Found<'h> = Option<(&'h ClusterName, Incarnation)>;

impl Judge for SameResolutionEverywhere {
    fn name(&self) -> &'static str {
        "same-resolution-everywhere"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MAP-001"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let mut asked_for = Table::<&Address, Vec<(&Asked<'_>, Found<'_>)>>::default();
        for asked in facts.asked_to(Verb::Resolve) {
            if let (Call::Resolve { user, .. }, Some(Answer::Resolved(found))) = (asked.call, asked.answer())
                && found.record.user != *user
            {
                let statement = format!("{} was asked for, and somebody else was answered", user.as_str());
                case.violated("somebody-else", statement, asked.events());
            }
        }
        let moves = moves(facts);
        for asked in facts.final_calls() {
            let Call::Resolve { user, .. } = asked.call else { continue };
            match found(asked) {
                Some(found) if may_be_remembered(asked, found, moves.get(user)) => {
                    case.not_observed(
                        "what is answered when nobody remembers where a user was before a move",
                    );
                }
                Some(found) => asked_for.entry(user).or_default().push((asked, found)),
                None => case.inconclusive("a resolution at rest was not answered"),
            }
        }
        asked_for.sort_unstable_keys();
        let places = places(facts);
        for (user, answers) in asked_for {
            let place = places.get(user).copied();
            if answers.len() > 1 || place.is_some() {
                case.reached();
                judge_user(user, &answers, place, case);
            }
        }
        let resolves = |asked: &Asked<'_>| asked.verb == Verb::Resolve;
        if !facts.final_calls().any(resolves) && facts.asked_to(Verb::Resolve).next().is_some() {
            case.not_observed("nobody resolved a user once nothing moved any more");
        }
    }
}

fn judge_user(
    user: &Address,
    answers: &[(&Asked<'_>, Found<'_>)],
    place: Option<&ClusterName>,
    case: &mut Casebook,
) {
    let name = user.as_str();
    let (first, expected) = &answers[0];
    for (asked, found) in answers {
        if found != expected {
            let (one, other) = (describe(*expected), describe(*found));
            let statement = format!("{name} was found {one} by one asker and {other} by another");
            case.violated("answers-differ", statement, first.events().chain(asked.events()));
            return;
        }
    }
    let found = expected.map(|(cluster, _)| cluster);
    if let Some(place) = place
        && found != Some(place)
    {
        let statement = format!("{name} is served by {place} and was found {}", describe(*expected));
        case.violated("wrong-answer", statement, first.events());
    }
}

/// `None`: this was no answer.
fn found<'h>(asked: &Asked<'h>) -> Option<Found<'h>> {
    match (asked.answer(), asked.refusal()) {
        (Some(Answer::Resolved(found)), _) => Some(Some((&found.record.cluster, found.record.incarnation))),
        (_, Some((_, Some(Code::UserUnknown)))) => Some(None),
        _ => None,
    }
}

/// What may be remembered of a user who was moved.
struct Moved<'h> {
    /// The clusters that had part in a move, and remember nothing.
    between: Set<&'h ClusterName>,
    /// When the last of what others may remember is too old, in microseconds since the run began.
    forgotten_us: u64,
}

/// The users who were moved, or may have been. A move that nobody saw to be done may be done at any time.
fn moves<'h>(facts: &Facts<'h>) -> Table<&'h Address, Moved<'h>> {
    // Several tries of one move are done when one of them is.
    let mut done: Table<(&Address, &ClusterName, &ClusterName), u64> = Table::default();
    for asked in facts.asked_to(Verb::Move) {
        if let Call::Move { user, from, to } = asked.call {
            let done_us = asked.back.filter(|_| asked.answer().is_some()).map_or(u64::MAX, |back| back.at_us);
            let known = done.entry((user, from, to)).or_insert(done_us);
            *known = done_us.min(*known);
        }
    }
    let mut moves: Table<&Address, Moved<'_>> = Table::default();
    for ((user, from, to), done_us) in done {
        let empty = || Moved { between: Set::default(), forgotten_us: 0 };
        let moved = moves.entry(user).or_insert_with(empty);
        moved.between.extend([from, to]);
        let forgotten_us = done_us.saturating_add(ttl_us(facts, user)).saturating_add(ON_ITS_WAY_US);
        moved.forgotten_us = moved.forgotten_us.max(forgotten_us);
    }
    moves
}

fn ttl_us(facts: &Facts<'_>, user: &Address) -> u64 {
    let domain = user.domain();
    let told = facts.asked_to(Verb::ReadDomain).filter_map(|asked| match asked.answer() {
        Some(Answer::Domain(record)) if record.domain == domain => Some(record.ttl_seconds),
        _ => None,
    });
    u64::from(told.max().unwrap_or(TTL_SECONDS)) * 1_000_000
}

/// MAP-004, MAP-006: a cluster that had no part in a move may answer from memory for a while, and no longer.
fn may_be_remembered(asked: &Asked<'_>, found: Found<'_>, moved: Option<&Moved<'_>>) -> bool {
    let (Some(moved), Call::Resolve { via, .. }, Some((cluster, _))) = (moved, asked.call, found) else {
        return false;
    };
    moved.between.contains(cluster) && !moved.between.contains(via) && asked.at_us <= moved.forgotten_us
}

/// Where each user must be: those who were at one cluster all the time, and are not deleted.
fn places<'h>(facts: &Facts<'h>) -> Table<&'h Address, &'h ClusterName> {
    let deleted = facts.deprovisioned();
    let beforehand = facts.world().into_iter().flat_map(|world| &world.users);
    let mut sure: Set<&Address> = beforehand.map(|known| &known.user).collect();
    for asked in facts.asked_to(Verb::Provision) {
        if let (Call::Provision { user, .. }, Some(_)) = (asked.call, asked.answer()) {
            sure.insert(user);
        }
    }
    let mut places = Table::default();
    for (user, clusters) in facts.clusters_of_users() {
        if let (1, Some(cluster)) = (clusters.len(), clusters.first())
            && sure.contains(user)
            && !deleted.contains(user)
        {
            places.insert(*user, *cluster);
        }
    }
    places
}

fn describe(found: Found<'_>) -> String {
    found.map_or_else(|| "nowhere".to_owned(), |(cluster, _)| format!("at {cluster}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Ruling, Verdict, WhyUnknown};
    use crate::testing::{Story, cluster, resolved, user};
    use std::time::Duration;

    fn resolve(name: &str, via: &str) -> Call {
        Call::Resolve { user: user(name), via: cluster(via) }
    }

    #[test]
    fn everybody_finds_bob_at_the_same_cluster() {
        let mut story = Story::new();
        story.comes_to_rest();
        story.does("alice", resolve("bob", "a"), resolved("bob", "b"));
        story.does("carol", resolve("bob", "c"), resolved("bob", "b"));
        let verdict = SameResolutionEverywhere.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn two_askers_with_two_answers_violate() {
        let mut story = Story::new();
        story.comes_to_rest();
        story.does("alice", resolve("dave", "a"), resolved("dave", "b"));
        story.does("carol", resolve("dave", "c"), resolved("dave", "c"));
        story.is_refused("bob", resolve("dave", "b"), Code::UserUnknown);
        let verdict = SameResolutionEverywhere.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Violated, 1));
        assert_eq!(verdict.violations[0].fingerprint, "same-resolution-everywhere/MAP-001/answers-differ");
    }

    #[test]
    fn a_known_user_who_is_unknown_to_the_resolver_violates() {
        let mut story = Story::new();
        story.comes_to_rest();
        story.is_refused("alice", resolve("bob", "a"), Code::UserUnknown);
        assert_eq!(SameResolutionEverywhere.judge(story.told()).ruling, Ruling::Violated);
    }

    #[test]
    fn an_answer_about_somebody_else_violates_at_any_time() {
        let mut story = Story::new();
        story.does("alice", resolve("bob", "a"), resolved("ann", "a"));
        assert_eq!(SameResolutionEverywhere.judge(story.told()).violated, 1);
    }

    /// Ann is moved from a to b; after `waiting`, everybody resolves her at rest, and `via` still finds her at a.
    fn moved(waiting: Duration, via: &str) -> Verdict {
        let mut story = Story::new();
        let (from, to) = (cluster("a"), cluster("b"));
        let call = Call::Move { user: user("ann"), from, to };
        story.does("admin", call, Answer::Nothing {});
        story.wait(waiting);
        story.comes_to_rest();
        for asked in ["a", "b", "c"] {
            let at = if asked == via { "a" } else { "b" };
            story.does("carol", resolve("ann", asked), resolved("ann", at));
        }
        SameResolutionEverywhere.judge(story.told())
    }

    #[test]
    fn a_third_cluster_may_remember_for_a_while_where_somebody_was_and_no_longer() {
        assert_eq!(moved(Duration::from_secs(200), "c").ruling, Ruling::Holds);
        let verdict = moved(Duration::from_secs(320), "c");
        assert_eq!(verdict.violations[0].fingerprint, "same-resolution-everywhere/MAP-001/answers-differ");
    }

    #[test]
    fn a_cluster_that_had_part_in_a_move_remembers_nothing() {
        assert_eq!(moved(Duration::ZERO, "a").ruling, Ruling::Violated);
    }

    #[test]
    fn what_was_asked_before_rest_proves_nothing() {
        let mut story = Story::new();
        story.does("alice", resolve("bob", "a"), resolved("bob", "c"));
        let verdict = SameResolutionEverywhere.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached, verdict.unjudged), (Ruling::Unknown, 0, 1));
        assert!(matches!(verdict.why_unknown, Some(WhyUnknown::NotObserved { .. })));
    }

    #[test]
    fn an_incomplete_resolution_is_no_answer() {
        let mut story = Story::new();
        story.comes_to_rest();
        story.does("carol", resolve("bob", "c"), resolved("bob", "b"));
        story.is_refused("alice", resolve("bob", "a"), Code::ResolutionIncomplete);
        let verdict = SameResolutionEverywhere.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Unknown, 1));
    }

    #[test]
    fn without_clients_nothing_is_known() {
        let verdict = SameResolutionEverywhere.judge(Story::new().told());
        let evidence = vec![Evidence::Client];
        assert_eq!(verdict.why_unknown, Some(WhyUnknown::MissingEvidence { evidence }));
    }
}
