//! What was acknowledged is there after a kill (OPS-003).

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::conversation::ActivityId;
use fusion_protocol::{Address, ClusterName, Code};

use crate::event::{Answer, Call, EventId};
use crate::facts::{Asked, Facts, FinalRead};
use crate::judge::{Casebook, Evidence, Judge, Scope};

/// OPS-003: whatever a cluster has acknowledged before it was killed is there after: users, conversations,
/// activities. State is in the store only, and the store had it when it was acknowledged.
///
/// A case is an acknowledged write, the home of which was killed after that, and of which somebody looked
/// what has become when nothing moved any more.
pub(super) struct AcknowledgedIsKept;

/// Families of faults that kill processes.
const KILLS: [&str; 3] = ["crash", "power_off", "restart"];

impl Judge for AcknowledgedIsKept {
    fn name(&self) -> &'static str {
        "acknowledged-is-kept"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["OPS-003"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let kills = kills(facts);
        // Rows that a fault destroys are lost by the fault.
        if kills.is_empty() || facts.faults().had("lose_rows") {
            return;
        }
        let after = After::of(facts);
        for asked in facts.calls() {
            let (Some(answer), Some(back)) = (asked.answer(), asked.back) else { continue };
            let killed = |home: &ClusterName| kills.get(home).copied().filter(|kill| *kill > back.id);
            match (asked.call, answer) {
                (Call::Provision { user, cluster }, _) => {
                    if let Some(kill) = killed(cluster) {
                        after.judge_user(asked, user, kill, case);
                    }
                }
                (Call::Create { .. }, Answer::Conversation { created: true, conversation }) => {
                    if let Some(kill) = facts.cluster_of(&conversation.url).and_then(|home| killed(&home)) {
                        after.judge_object(asked, conversation.url.as_str(), kill, case);
                    }
                }
                (Call::Post { conversation, .. }, Answer::Accepted { activity, redirected_to, .. }) => {
                    let at = redirected_to.as_ref().unwrap_or(conversation);
                    if let Some(kill) = facts.cluster_of(at).and_then(|home| killed(&home)) {
                        after.judge_activity(asked, at.as_str(), activity.id, kill, case);
                    }
                }
                _ => {}
            }
        }
    }
}

/// By cluster: when it was last killed.
fn kills(facts: &Facts<'_>) -> BTreeMap<ClusterName, EventId> {
    let clusters = facts.world().map(|world| world.clusters.as_slice()).unwrap_or_default();
    let mut kills = BTreeMap::new();
    for fault in facts.faults().iter().filter(|fault| KILLS.contains(&fault.family)) {
        for cluster in clusters.iter().filter(|cluster| facts.faults().strikes(fault, cluster.name.as_str()))
        {
            let last = kills.entry(cluster.name.clone()).or_insert(fault.began);
            *last = fault.began.max(*last);
        }
    }
    kills
}

/// What was there when nothing moved any more.
struct After<'f, 'h> {
    /// By conversation as it was asked: the reading to its end, or else one that failed.
    reads: BTreeMap<&'h str, &'f FinalRead<'h>>,
    /// The activities that were read, of each conversation that answered.
    activities: BTreeSet<(&'h str, ActivityId)>,
    /// By user: the last resolution.
    users: BTreeMap<&'h Address, &'f Asked<'h>>,
    deleted: BTreeSet<&'h Address>,
}

impl<'f, 'h> After<'f, 'h> {
    fn of(facts: &'f Facts<'h>) -> Self {
        let mut reads: BTreeMap<&str, &FinalRead<'_>> = BTreeMap::new();
        let mut activities = BTreeSet::new();
        for ((_, url), read) in &facts.finals().reads {
            if read.complete || !reads.contains_key(url) {
                reads.insert(url, read);
            }
            if read.complete {
                activities.extend(read.activities.iter().map(|it| (read.stream.as_str(), it.id)));
            }
        }
        let resolved = facts.final_calls().filter_map(|asked| match asked.call {
            Call::Resolve { user, .. } => Some((user, asked)),
            _ => None,
        });
        Self { reads, activities, users: resolved.collect(), deleted: facts.deprovisioned().clone() }
    }

    fn judge_user(&self, asked: &Asked<'_>, user: &Address, kill: EventId, case: &mut Casebook) {
        if self.deleted.contains(user) {
            return;
        }
        let Some(resolved) = self.users.get(user) else { return case.not_observed("who is still known") };
        match (resolved.answer(), resolved.refusal()) {
            (Some(_), _) => case.reached(),
            (_, Some((_, Some(Code::UserUnknown)))) => {
                case.reached();
                let statement = "a user whose record was acknowledged is unknown after a kill".to_owned();
                case.violated("acknowledged-user-lost", statement, [asked.id, kill, resolved.id]);
            }
            _ => case.not_observed("who is still known"),
        }
    }

    fn judge_object(&self, asked: &Asked<'_>, url: &str, kill: EventId, case: &mut Casebook) {
        match self.reads.get(url) {
            Some(read) if read.complete => case.reached(),
            Some(FinalRead { failed: Some(failed), .. }) if is_not_found(failed) => {
                case.reached();
                let statement = format!("{url} was made, its home was killed, and it is not there");
                case.violated("acknowledged-object-lost", statement, [asked.id, kill, failed.id]);
            }
            _ => case.not_observed("what is left of a conversation"),
        }
    }

    fn judge_activity(
        &self,
        asked: &Asked<'_>,
        url: &str,
        id: ActivityId,
        kill: EventId,
        case: &mut Casebook,
    ) {
        let Some(read) = self.reads.get(url).filter(|read| read.complete) else {
            return self.judge_object(asked, url, kill, case);
        };
        case.reached();
        if !self.activities.contains(&(read.stream.as_str(), id)) {
            let statement =
                format!("an activity was accepted in {url}, its home was killed, and it is not there");
            let excerpt = [asked.id, kill].into_iter().chain(read.events.iter().copied());
            case.violated("acknowledged-activity-lost", statement, excerpt);
        }
    }
}

fn is_not_found(asked: &Asked<'_>) -> bool {
    matches!(asked.refusal(), Some((404, _)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FaultPhase;
    use crate::judge::Ruling;
    use crate::testing::{self, Story, conversation_url, message, resolved};
    use fusion_protocol::conversation::ConversationState::Bound;
    use serde_json::json;

    /// Alice makes a conversation and says one thing at a, which is then killed.
    fn killed() -> Story {
        let url = conversation_url("a", 1);
        let mut story = Story::new();
        let provision = Call::Provision { user: testing::user("alice"), cluster: testing::cluster("a") };
        story.does("alice", provision, Answer::Provisioned { incarnation: None });
        story.creates("alice", "ann", &url, Bound);
        story.posts("alice", &url, &message("alice", "one", 1));
        story.fault("kill", "crash", FaultPhase::Began, json!({ "host": "a" }));
        story.fault("kill", "crash", FaultPhase::Ended, json!({ "host": "a" }));
        story.comes_to_rest();
        story
    }

    fn judged(story: &Story) -> (Ruling, u64, Vec<String>) {
        let verdict = AcknowledgedIsKept.judge(story.told());
        let kind = |print: String| print.rsplit('/').next().unwrap_or_default().to_owned();
        let prints = verdict.violations.into_iter().map(|violation| kind(violation.fingerprint));
        (verdict.ruling, verdict.reached, prints.collect())
    }

    fn resolve() -> Call {
        Call::Resolve { user: testing::user("alice"), via: testing::cluster("a") }
    }

    #[test]
    fn what_was_acknowledged_is_there_after_the_kill() {
        let mut story = killed();
        story.does("alice", resolve(), resolved("alice", "a"));
        story.reads("ann", &conversation_url("a", 1), &[message("alice", "one", 1)]);
        assert_eq!(judged(&story), (Ruling::Holds, 3, vec![]));
    }

    #[test]
    fn what_is_not_there_was_lost() {
        let mut story = killed();
        story.is_refused("alice", resolve(), Code::UserUnknown);
        story.reads("ann", &conversation_url("a", 1), &[]);
        assert_eq!(judged(&story).2, ["acknowledged-user-lost", "acknowledged-activity-lost"]);
    }

    #[test]
    fn a_conversation_that_is_not_there_was_lost() {
        let mut story = killed();
        story.is_refused("ann", testing::read(&conversation_url("a", 1), 0), Code::NotFound);
        let lost = ["acknowledged-object-lost", "acknowledged-object-lost"];
        assert_eq!(judged(&story).2, lost, "the object, and what was said in it");
    }

    #[test]
    fn what_nobody_looked_at_accuses_nobody() {
        assert_eq!(judged(&killed()), (Ruling::Unknown, 0, vec![]));
    }

    #[test]
    fn without_a_kill_after_it_there_is_no_case() {
        let mut story = Story::new();
        story.fault("kill", "crash", FaultPhase::Began, json!({ "host": "a" }));
        story.fault("kill", "crash", FaultPhase::Ended, json!({ "host": "a" }));
        story.creates("alice", "ann", &conversation_url("a", 1), Bound);
        story.comes_to_rest();
        story.reads("ann", &conversation_url("a", 1), &[]);
        assert_eq!(judged(&story).1, 0);
    }
}
