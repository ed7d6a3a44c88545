//! MAP-001: whoever was found stays found.

use std::collections::BTreeSet;

use fusion_protocol::{Address, Code};

use crate::event::{Answer, Call, EventId};
use crate::facts::{Facts, Verb};
use crate::judge::{Casebook, Evidence, Judge};
use crate::judges::set_once::{Seen, SetOnce};
use crate::table::Table;

/// MAP-001: a user who was found once is never `user-unknown` later, and never somebody else: what cannot
/// be asked for is `resolution-incomplete`, not unknown. So it is said to whoever wants to write to somebody,
/// too.
///
/// A case is a resolution after the same address was found by anybody, and the making of a conversation with
/// users who all had been found or provisioned before.
pub(crate) struct FoundStaysFound;

impl Judge for FoundStaysFound {
    fn name(&self) -> &'static str {
        "found-stays-found"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MAP-001"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let excused = made_anew(facts);
        judge_creations(facts, &excused, case);
        let mut found: SetOnce<&Address, fusion_protocol::Incarnation> = SetOnce::default();
        for (asked, back) in facts.returned().filter(|(asked, _)| asked.verb == Verb::Resolve) {
            let Call::Resolve { user, .. } = asked.call else { continue };
            if excused.contains(user) {
                continue;
            }
            match (asked.answer(), asked.refusal()) {
                (Some(Answer::Resolved(answer)), _) => {
                    match found.see(user, answer.record.incarnation, asked.id, back.id) {
                        Seen::First => {}
                        Seen::Same => case.reached(),
                        Seen::Changed(before) => {
                            case.reached();
                            let statement =
                                format!("{} was found as another person than before", user.as_str());
                            case.violated("another-person", statement, asked.events().chain([before.at]));
                        }
                    }
                }
                (_, Some((_, Some(Code::UserUnknown)))) => {
                    if let Some(before) = found.value(&user).filter(|before| before.at < asked.id) {
                        case.reached();
                        let statement =
                            format!("{} had been found, and is said to be unknown", user.as_str());
                        case.violated("found-then-unknown", statement, asked.events().chain([before.at]));
                    }
                }
                _ => {}
            }
        }
    }
}

/// Nobody who is there is unknown to whoever makes a conversation with them.
fn judge_creations(facts: &Facts<'_>, excused: &BTreeSet<&Address>, case: &mut Casebook) {
    let there = there(facts);
    for asked in facts.asked_to(Verb::Create) {
        let Call::Create { others, .. } = asked.call else { continue };
        let since =
            |user: &Address| there.get(user).copied().filter(|at| *at < asked.id && !excused.contains(user));
        let Some(seen) = others.iter().map(since).collect::<Option<Vec<EventId>>>() else { continue };
        match (asked.answer(), asked.refusal()) {
            (Some(_), _) => case.reached(),
            (_, Some((_, Some(Code::UserUnknown)))) => {
                case.reached();
                let who = asked.actor.as_str();
                let statement = format!(
                    "{who} makes a conversation, and one of those who are there is said to be unknown"
                );
                case.violated("there-and-unknown", statement, asked.events().chain(seen));
            }
            _ => {}
        }
    }
}

/// Who is known to be there, and since when: found, or provisioned.
fn there<'h>(facts: &Facts<'h>) -> Table<&'h Address, EventId> {
    let mut there = Table::default();
    for (asked, back) in facts.returned() {
        if let (Call::Provision { user, .. } | Call::Resolve { user, .. }, Some(_)) =
            (asked.call, asked.answer())
        {
            there.entry(user).or_insert(back.id);
        }
    }
    there
}

/// Addresses that somebody gave up, or gave to another person, or tried to: deleted, or provisioned more
/// than once (MAP-004).
fn made_anew<'h>(facts: &Facts<'h>) -> BTreeSet<&'h Address> {
    let mut excused = facts.deprovisioned().clone();
    let several = facts.clusters_of_users().iter().filter(|(_, clusters)| clusters.len() > 1);
    excused.extend(several.map(|(user, _)| user));
    excused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Ruling, Verdict};
    use crate::testing::{Story, cluster, conversation_url, create, resolved, user};
    use fusion_protocol::conversation::ConversationState::Bound;

    fn resolve(via: &str) -> Call {
        Call::Resolve { user: user("bob"), via: cluster(via) }
    }

    fn kinds(verdict: &Verdict) -> Vec<&str> {
        verdict.violations.iter().filter_map(|found| found.fingerprint.rsplit('/').next()).collect()
    }

    #[test]
    fn a_user_who_is_found_again_holds_and_an_incomplete_resolution_proves_nothing() {
        let mut story = Story::new();
        story.is_refused("carol", resolve("c"), Code::UserUnknown);
        story.does("alice", resolve("a"), resolved("bob", "b"));
        story.is_refused("alice", resolve("a"), Code::ResolutionIncomplete);
        story.does("carol", resolve("c"), resolved("bob", "b"));
        let verdict = FoundStaysFound.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn a_user_who_was_found_and_is_unknown_later_violates() {
        let mut story = Story::new();
        story.does("alice", resolve("a"), resolved("bob", "b"));
        story.is_refused("carol", resolve("c"), Code::UserUnknown);
        assert_eq!(kinds(&FoundStaysFound.judge(story.told())), ["found-then-unknown"]);
    }

    #[test]
    fn a_creation_is_tried_again_or_done_when_everybody_is_there() {
        let mut story = Story::new();
        story.does("alice", resolve("a"), resolved("bob", "b"));
        story.is_refused("carol", create("carol", "bob"), Code::ResolutionIncomplete);
        assert!(FoundStaysFound.judge(story.told()).had_no_case(), "nothing was said of Bob");
        story.creates("carol", "bob", &conversation_url("c", 1), Bound);
        let verdict = FoundStaysFound.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn a_creation_with_somebody_who_is_there_and_said_to_be_unknown_violates() {
        let mut story = Story::new();
        let provision = Call::Provision { user: user("bob"), cluster: cluster("b") };
        story.does("admin", provision, Answer::Provisioned { incarnation: None });
        story.is_refused("carol", create("carol", "bob"), Code::UserUnknown);
        assert_eq!(kinds(&FoundStaysFound.judge(story.told())), ["there-and-unknown"]);
    }

    #[test]
    fn a_creation_with_somebody_of_whom_nothing_is_known_may_be_refused() {
        let mut story = Story::new();
        story.is_refused("carol", create("carol", "bob"), Code::UserUnknown);
        assert!(FoundStaysFound.judge(story.told()).had_no_case());
    }

    #[test]
    fn a_user_who_was_deleted_may_be_unknown() {
        let mut story = Story::new();
        story.does("alice", resolve("a"), resolved("bob", "b"));
        story.asks("admin", Call::Deprovision { user: user("bob"), cluster: cluster("b") });
        story.is_refused("carol", resolve("c"), Code::UserUnknown);
        assert!(FoundStaysFound.judge(story.told()).had_no_case());
    }

    #[test]
    fn what_was_asked_before_the_user_was_found_proves_nothing() {
        let mut story = Story::new();
        let asked = story.asks("carol", resolve("c"));
        story.does("alice", resolve("a"), resolved("bob", "b"));
        story.refuses(asked, Code::UserUnknown);
        assert!(FoundStaysFound.judge(story.told()).had_no_case());
    }
}
