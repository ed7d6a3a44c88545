//! RDV-002: nobody waits for somebody else's dead cluster.

use fusion_protocol::conversation::ActivityId;
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, ClusterName, Url};
use serde::Deserialize as _;

use crate::event::{Answer, Body, Call};
use crate::facts::{Asked, Facts, Fault, Sight, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::table::Table;

/// RDV-002: there is no barrier across participants. What is accepted while nothing is wrong on the way to
/// a participant is told within [`PROMPT_US`], whatever is wrong with the others.
///
/// A case is a message and a device that listened, of a participant to whom the way was free.
pub(crate) struct PromptDelivery;

/// Two seconds: one hop of the outbox and one of the mercury need a commit at each end and two round trips
/// between far data centres, a third of a second in all; a call that fails takes five, and the first
/// back-off is over within half of one, so nothing that waits for somebody else comes in time.
pub(crate) const PROMPT_US: u64 = 2_000_000;
/// A fault that has been over for so long leaves no back-off behind.
const CALM_US: u64 = 60_000_000;

/// When each device was told of which message, for the first time.
type Told<'h> = Table<(&'h str, ActivityId), u64>;

impl Judge for PromptDelivery {
    fn name(&self) -> &'static str {
        "prompt-delivery"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["RDV-002"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let rule = Rule { kind: "late", counts: &|_| true, is_none: &|_, _| false };
        judge_deliveries(facts, &rule, case);
    }
}

/// A message on its way to a participant who was there from the beginning.
pub(crate) struct Delivery<'d, 'h> {
    pub(crate) asked: &'d Asked<'h>,
    pub(crate) conversation: &'h Url,
    pub(crate) home: &'d ClusterName,
    pub(crate) member: &'h Address,
    /// Who serves the participant.
    pub(crate) cluster: &'h ClusterName,
}

/// What is asked of deliveries.
pub(crate) struct Rule<'r, 'h> {
    /// What one that comes too late shows.
    pub(crate) kind: &'static str,
    /// Which deliveries are cases.
    pub(crate) counts: &'r dyn Fn(&Delivery<'_, 'h>) -> bool,
    /// Which faults are none on the way of a delivery.
    pub(crate) is_none: &'r dyn Fn(&Delivery<'_, 'h>, &Fault<'h>) -> bool,
}

/// Judges each message, for each device that listened and to which the way was free.
pub(crate) fn judge_deliveries<'h>(facts: &Facts<'h>, rule: &Rule<'_, 'h>, case: &mut Casebook) {
    let told = told(facts);
    let (served, deleted) = (facts.clusters_of_users(), facts.deprovisioned());
    let undisputed = super::undisputed(facts);
    for asked in facts.asked_to(Verb::Post) {
        let Call::Post { conversation, verb, .. } = asked.call else { continue };
        let Some(Answer::Accepted { created: true, activity, redirected_to: None }) = asked.answer() else {
            continue;
        };
        let (Some(home), Some(known)) =
            (facts.cluster_of(conversation), facts.conversations().at(conversation))
        else {
            continue;
        };
        if verb != "message" || !undisputed.contains(conversation.as_str()) {
            continue;
        }
        let Some(creation) = known.created.and_then(|at| facts.calls().get(at)) else { continue };
        let Some(Answer::Conversation { conversation: made, .. }) = creation.answer() else { continue };
        // Whether the home speaks for its creator is asked at their cluster, which may be another by now.
        let creators = served.get(creation.actor).into_iter().flatten().copied();
        let way: Vec<&str> = [&home].into_iter().chain(creators).map(ClusterName::as_str).collect();
        let founders = made.participants.iter().map(|one| &one.user);
        for member in founders.filter(|member| !deleted.contains(*member)) {
            let clusters = served.get(member).filter(|at| at.len() == 1).and_then(|at| at.first());
            if let Some(cluster) = clusters.filter(|_| !known.unreachable.contains(member)) {
                let delivery = Delivery { asked, conversation, home: &home, member, cluster };
                if (rule.counts)(&delivery) {
                    judge_delivery(facts, &delivery, activity.id, &way, &told, rule, case);
                }
            }
        }
    }
}

fn told<'h>(facts: &Facts<'h>) -> Told<'h> {
    let mut told = Told::default();
    for event in facts.seen(Sight::Device) {
        let Body::Deliver { event_type: EventType::ConversationActivity, data, .. } = &event.body else {
            continue;
        };
        let activity = data.get("activity").and_then(|activity| activity.get("id"));
        if let Some(activity) = activity.and_then(|id| ActivityId::deserialize(id).ok()) {
            told.entry((event.host.as_str(), activity)).or_insert(event.at_us);
        }
    }
    told
}

fn judge_delivery<'h>(
    facts: &Facts<'h>,
    delivery: &Delivery<'_, 'h>,
    activity: ActivityId,
    way: &[&str],
    told: &Told<'_>,
    rule: &Rule<'_, 'h>,
    case: &mut Casebook,
) {
    let Delivery { asked, member, cluster, home, .. } = *delivery;
    let Some(back) = asked.back else { return };
    let (since, due) = (asked.at_us.saturating_sub(CALM_US), back.at_us.saturating_add(PROMPT_US));
    for device in facts.devices().listening(member, asked.id) {
        let on_the_way = [way, &[cluster.as_str(), device.host]].concat();
        let is_none = |fault: &Fault<'h>| (rule.is_none)(delivery, fault);
        let free = facts.faults().spare_but(&on_the_way, since, due, is_none);
        if !free || device.resynced_after(asked.id) || device.closed_within(asked.at_us, due) {
            continue;
        }
        case.reached();
        let at = told.get(&(device.host, activity)).copied();
        if at.is_none_or(|at| at > due) {
            let (who, host) = (asked.actor.as_str(), device.host);
            let late = at.map_or("never".to_owned(), |at| format!("{} ms later", (at - back.at_us) / 1_000));
            let statement = format!(
                "nothing was wrong between {home} and {host}, which was told of a message of {who} {late}"
            );
            case.violated(rule.kind, statement, asked.events());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FaultPhase::Began;
    use crate::judge::{Ruling, Verdict};
    use crate::testing::{self, Story, conversation_url, message};
    use fusion_protocol::conversation::ConversationState::Bound;
    use serde_json::json;
    use std::time::Duration;

    /// Bob is told of what Alice said, so much later; `struck` is down all the time.
    fn told_after(wait: Duration, struck: &str) -> Verdict {
        in_story(Story::new(), wait, struck)
    }

    fn in_story(mut story: Story, wait: Duration, struck: &str) -> Verdict {
        let url = conversation_url("a", 1);
        story.is_online("bob");
        story.fault("f", "crash", Began, json!({ "kind": "crash", "host": struck }));
        story.creates("alice", "bob", &url, Bound);
        story.posts("alice", &url, &message("alice", "hello", 1));
        story.wait(wait);
        let data = json!({ "indexCursor": "1", "activity": message("alice", "hello", 1) });
        story.is_told("bob", EventType::ConversationActivity, &url, data);
        story.comes_to_rest();
        PromptDelivery.judge(story.told())
    }

    #[test]
    fn a_dead_cluster_delays_nobody_else() {
        let verdict = told_after(Duration::from_millis(200), "c");
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn whoever_waits_for_somebody_elses_cluster_violates() {
        let verdict = told_after(Duration::from_secs(5), "c");
        assert_eq!(verdict.violations[0].fingerprint, "prompt-delivery/RDV-002/late");
    }

    #[test]
    fn who_has_moved_is_asked_for_where_they_are_now() {
        let mut story = Story::new();
        let [from, to] = ["a", "c"].map(|name| name.parse().unwrap());
        story.does("admin", Call::Move { user: testing::user("alice"), from, to }, Answer::Nothing {});
        assert!(in_story(story, Duration::from_secs(5), "c").had_no_case());
    }

    #[test]
    fn what_is_late_for_a_fault_on_the_way_accuses_nobody() {
        for struck in ["a", "b"] {
            assert!(told_after(Duration::from_secs(5), struck).had_no_case());
        }
    }
}
