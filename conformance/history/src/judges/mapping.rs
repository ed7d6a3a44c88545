//! Mapping: where a user is (MAP).

mod claims;
mod found;
mod moving;
mod one_org;
mod register;
mod replica;

use fusion_protocol::{Address, ClusterName, Code, Incarnation};

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
/// (`resolution-incomplete`) is no answer.
pub(super) struct SameResolutionEverywhere;

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
        for asked in facts.final_calls() {
            let Call::Resolve { user, .. } = asked.call else { continue };
            match found(asked) {
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
    use crate::judge::{Ruling, WhyUnknown};
    use crate::testing::{Story, cluster, resolved, user};

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
