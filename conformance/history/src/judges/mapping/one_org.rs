//! Whose user somebody is (MAP-004).

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::{Address, ClusterName, Incarnation};

use crate::event::{Answer, Call, EventId};
use crate::facts::{Asked, Back, Facts, Verb};
use crate::judge::{Casebook, Evidence, Judge};

/// MAP-004: a user is in one org at a time, and in one cluster of it; an address that an org takes over
/// from the consumer org is somebody new, who gets nothing of the old.
///
/// A case is an address that was provisioned more than once: at two clusters of one org, of which one may
/// succeed; at the consumer org after its own org had it, which may not; and at its own org after the
/// consumer org had it, once it was resolved since. Addresses that were deleted in between are not judged.
pub(in crate::judges) struct OneOrgAtATime;

/// What is known of one address.
#[derive(Default)]
struct Life<'f, 'h> {
    provisioned: Vec<(&'h ClusterName, &'f Asked<'h>)>,
    /// Who was found there, where, and by whom, in the order of the answers.
    found: Vec<(&'h ClusterName, Incarnation, &'f Asked<'h>)>,
    /// Under which incarnations an object has listed it: object and first sight.
    listed: BTreeMap<&'h str, BTreeMap<Incarnation, EventId>>,
}

impl Judge for OneOrgAtATime {
    fn name(&self) -> &'static str {
        "one-org-at-a-time"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MAP-004"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let deleted = facts.deprovisioned();
        for (user, life) in lives(facts) {
            if !deleted.contains(user) {
                judge_places(facts, user, &life, case);
                judge_takeover(facts, user, &life, case);
            }
        }
    }
}

/// The addresses that were provisioned more than once, with what happened to them.
fn lives<'f, 'h>(facts: &'f Facts<'h>) -> BTreeMap<&'h Address, Life<'f, 'h>> {
    let mut lives: BTreeMap<&Address, Life<'_, '_>> = BTreeMap::new();
    for asked in facts.asked_to(Verb::Provision) {
        if let Call::Provision { user, cluster } = asked.call {
            lives.entry(user).or_default().provisioned.push((cluster, asked));
        }
    }
    lives.retain(|_, life| life.provisioned.len() > 1);
    if lives.is_empty() {
        return lives;
    }
    for (asked, back) in facts.returned() {
        take(&mut lives, asked, back);
    }
    lives
}

fn take<'f, 'h>(lives: &mut BTreeMap<&'h Address, Life<'f, 'h>>, asked: &'f Asked<'h>, back: Back<'h>) {
    match asked.answer() {
        Some(Answer::Resolved(found)) => {
            if let Some(life) = lives.get_mut(&found.record.user) {
                life.found.push((&found.record.cluster, found.record.incarnation, asked));
            }
        }
        Some(Answer::Conversation { conversation, .. }) => {
            for member in &conversation.participants {
                if let (Some(life), Some(incarnation)) = (lives.get_mut(&member.user), member.incarnation) {
                    let listed = life.listed.entry(conversation.url.as_str()).or_default();
                    listed.entry(incarnation).or_insert(back.id);
                }
            }
        }
        _ => {}
    }
}

/// Two places for one address.
fn judge_places(facts: &Facts<'_>, user: &Address, life: &Life<'_, '_>, case: &mut Casebook) {
    let name = user.as_str();
    for (at, (place, first)) in life.provisioned.iter().enumerate() {
        for (other, second) in life.provisioned[at + 1..].iter().filter(|(other, _)| other != place) {
            let events = || first.events().chain(second.events());
            let done = first.answer().is_some() && second.answer().is_some();
            let one_org = facts.org_of(place).is_some_and(|org| facts.org_of(other) == Some(org));
            // The consumer org came later: the address had an org already.
            let late = !facts.is_consumer(place)
                && facts.is_consumer(other)
                && first.answer().is_some()
                && first.ended_before(second.id);
            if !one_org && !late {
                continue;
            }
            if done {
                case.reached();
                let kind = if one_org { "two-clusters" } else { "taken-from-its-org" };
                case.violated(kind, format!("{name} was made at {place} and at {other}"), events());
            } else if first.back.is_some() && second.back.is_some() {
                case.reached();
            } else {
                case.not_observed("what became of the same user made at another cluster");
            }
        }
    }
}

/// An address that an org has taken over: whoever asks since finds the new person there, and no object
/// of the old one lists the new.
fn judge_takeover(facts: &Facts<'_>, user: &Address, life: &Life<'_, '_>, case: &mut Casebook) {
    let made = |consumer: bool| {
        let mut made = life
            .provisioned
            .iter()
            .filter(move |(place, asked)| facts.is_consumer(place) == consumer && asked.answer().is_some());
        made.next()
    };
    let (Some((_, old)), Some((place, new))) = (made(true), made(false)) else { return };
    if !old.ended_before(new.id) {
        return;
    }
    let at_rest = |asked: &Asked<'_>| facts.quiescent().is_some_and(|rest| asked.id > rest);
    let since: Vec<_> = life.found.iter().filter(|(.., asked)| at_rest(asked)).collect();
    if since.is_empty() {
        case.not_observed("where an address leads that an org has taken over");
    }
    let old_person = life.found.iter().find(|(.., asked)| asked.ended_before(new.id));
    for (found, incarnation, asked) in since {
        case.reached();
        let name = user.as_str();
        if found != place {
            let statement = format!("{name} is {place}'s and was found at {found}");
            case.violated("old-account-resolved", statement, new.events().chain(asked.events()));
        } else if let Some((.., before)) = old_person.filter(|(_, old, _)| old == incarnation) {
            let statement = format!("the new person at {name} has the incarnation of the old one");
            case.violated("same-incarnation", statement, before.events().chain(asked.events()));
        }
    }
    for (object, listed) in life.listed.iter().filter(|(_, listed)| listed.len() > 1) {
        let statement = format!("{object} lists both people that {} has been", user.as_str());
        case.violated("object-inherited", statement, listed.values().copied().collect::<BTreeSet<_>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Ruling;
    use crate::testing::{self, Story, cluster, conversation, conversation_url, created, user};
    use fusion_protocol::Code;
    use fusion_protocol::conversation::ConversationState::Bound;
    use fusion_protocol::map::{Resolution, UserRecord};
    use fusion_protocol::{Count, Uuid};

    fn provision(name: &str, at: &str) -> Call {
        Call::Provision { user: user(name), cluster: cluster(at) }
    }

    const MADE: Answer = Answer::Provisioned { incarnation: None };

    fn resolve(name: &str) -> Call {
        Call::Resolve { user: user(name), via: cluster("b") }
    }

    fn found(name: &str, at: &str, person: u128) -> Answer {
        let (user, incarnation) = (user(name), Incarnation(Uuid::from_u128(person)));
        let record = UserRecord { user, incarnation, cluster: cluster(at), version: Count(1) };
        Answer::Resolved(Resolution { record, stale: false, map_version: Count(1) })
    }

    fn kind(story: &Story) -> Option<String> {
        let verdict = OneOrgAtATime.judge(story.told());
        verdict.violations.first().map(|violation| violation.fingerprint.clone())
    }

    /// Ann had an account with the consumer org; then Acme came and gave the address to somebody.
    fn taken_over() -> Story {
        let mut story = Story::new();
        story.does("carol", provision("ann", "c"), MADE);
        story.does("bob", resolve("ann"), found("ann", "c", 1));
        story.does("alice", provision("ann", "a"), MADE);
        story
    }

    #[test]
    fn the_new_person_is_found_by_everybody_and_is_somebody_else() {
        let mut story = taken_over();
        story.comes_to_rest();
        story.does("bob", resolve("ann"), found("ann", "a", 2));
        let verdict = OneOrgAtATime.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn an_old_account_that_is_still_found_violates() {
        let mut story = taken_over();
        story.comes_to_rest();
        story.does("bob", resolve("ann"), found("ann", "c", 1));
        assert_eq!(kind(&story).as_deref(), Some("one-org-at-a-time/MAP-004/old-account-resolved"));
    }

    #[test]
    fn a_new_person_who_is_the_old_one_violates() {
        let mut story = taken_over();
        story.comes_to_rest();
        story.does("bob", resolve("ann"), found("ann", "a", 1));
        assert_eq!(kind(&story).as_deref(), Some("one-org-at-a-time/MAP-004/same-incarnation"));
    }

    #[test]
    fn an_object_of_the_old_person_that_lists_the_new_one_violates() {
        let mut story = taken_over();
        story.comes_to_rest();
        story.does("bob", resolve("ann"), found("ann", "a", 2));
        let url = conversation_url("c", 1);
        for person in [1, 2] {
            let mut read = conversation(&url, &["carol", "ann"], Bound);
            read.participants[1].incarnation = Some(Incarnation(Uuid::from_u128(person)));
            story.does("carol", Call::ReadConversation { conversation: url.clone() }, created(false, read));
        }
        assert_eq!(kind(&story).as_deref(), Some("one-org-at-a-time/MAP-004/object-inherited"));
    }

    #[test]
    fn the_consumer_org_takes_nobody_from_an_org() {
        let mut story = Story::new();
        story.does("alice", provision("ann", "a"), MADE);
        story.is_refused("carol", provision("ann", "c"), Code::Forbidden);
        assert_eq!(OneOrgAtATime.judge(story.told()).ruling, Ruling::Holds);
        story.does("carol", provision("ann", "c"), MADE);
        assert_eq!(kind(&story).as_deref(), Some("one-org-at-a-time/MAP-004/taken-from-its-org"));
    }

    #[test]
    fn one_address_at_two_clusters_of_one_org_violates() {
        let mut story = Story::new();
        let Some(crate::event::Body::World(mut world)) =
            story.told().events().first().map(|event| event.body.clone())
        else {
            unreachable!("the first event is the world")
        };
        world.clusters[1].org = "acme".to_owned();
        story.happens("engine", None, crate::event::Body::World(world));
        let (a, b) = (story.asks("alice", provision("ann", "a")), story.asks("alice", provision("ann", "b")));
        story.answers(a, MADE);
        let other = story.asks("alice", provision("ann", "b"));
        story.refuses(other, Code::AlreadyExists);
        assert_eq!(kind(&story), None);
        story.answers(b, MADE);
        assert_eq!(kind(&story).as_deref(), Some("one-org-at-a-time/MAP-004/two-clusters"));
    }

    #[test]
    fn a_takeover_that_nobody_looked_at_proves_nothing() {
        let verdict = OneOrgAtATime.judge(taken_over().told());
        assert_eq!((verdict.ruling, verdict.reached, verdict.unjudged), (Ruling::Unknown, 0, 1));
        assert_eq!(testing::home_of("ann"), cluster("a"));
    }
}
