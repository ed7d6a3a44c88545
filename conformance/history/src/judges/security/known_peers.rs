//! OPS-001: who is known is believed, though nobody can be asked about them.

use fusion_protocol::Service;

use crate::facts::{Facts, Fault};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::judges::rendezvous::prompt::{Delivery, Rule, judge_deliveries};

/// OPS-001: a cluster keeps the keys of its peers. What a peer tells it arrives as ever, while the
/// peer's authorisation server cannot be found and though the cluster was started anew meanwhile.
///
/// A case is a message, and a device of a participant that had been told of the conversation before the
/// server was out of reach and their cluster was killed, where nothing else was wrong on the way.
pub(in crate::judges) struct KnownPeersAreBelieved;

/// Families of faults that kill processes.
const KILLS: [&str; 3] = ["crash", "power_off", "restart"];

impl Judge for KnownPeersAreBelieved {
    fn name(&self) -> &'static str {
        "known-peers-are-believed"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["OPS-001"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let hidden: Vec<&Fault<'_>> = facts.faults().iter().filter(|it| name_hidden(it).is_some()).collect();
        if hidden.is_empty() {
            return;
        }
        let counts = |delivery: &Delivery<'_, '_>| {
            hidden
                .iter()
                .any(|fault| hides_keys(facts, fault, delivery) && was_known_before(facts, fault, delivery))
        };
        let is_none = |delivery: &Delivery<'_, '_>, fault: &Fault<'_>| hides_keys(facts, fault, delivery);
        judge_deliveries(facts, &Rule { kind: "not-believed", counts: &counts, is_none: &is_none }, case);
    }
}

/// The name that a fault takes out of DNS.
fn name_hidden<'f>(fault: &'f Fault<'_>) -> Option<&'f str> {
    (fault.family == "dns_missing").then(|| fault.member("name")?.as_str()).flatten()
}

/// Whether a fault hides the authorisation server of a delivery's home, and nothing that delivers.
fn hides_keys(facts: &Facts<'_>, fault: &Fault<'_>, delivery: &Delivery<'_, '_>) -> bool {
    let is_name_of = |service| facts.name_of(delivery.home, service).as_deref() == name_hidden(fault);
    name_hidden(fault).is_some() && is_name_of(Service::Auth) && !is_name_of(Service::Conv)
}

/// Whether the participant had heard of the conversation, and so their cluster of its home, before the
/// home's keys were hidden, and their cluster was killed since and before the message.
fn was_known_before(facts: &Facts<'_>, hides: &Fault<'_>, delivery: &Delivery<'_, '_>) -> bool {
    let Delivery { asked, conversation, member, cluster, .. } = *delivery;
    let (from, until) = (hides.from_us, asked.at_us);
    let mut told = facts.devices().told(member, conversation.as_str());
    let killed = |fault: &Fault<'_>| {
        KILLS.contains(&fault.family)
            && (from..until).contains(&fault.from_us)
            && facts.faults().strikes(fault, cluster.as_str())
    };
    hides.until_us > until && facts.faults().iter().any(killed) && told.any(|told| told.id < hides.began)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FaultPhase::{self, Began, Ended};
    use crate::judge::{Ruling, Verdict};
    use crate::testing::{Story, conversation_url, message};
    use fusion_protocol::conversation::ConversationState::Bound;
    use fusion_protocol::mercury::EventType;
    use serde_json::json;
    use std::time::Duration;

    /// Bob, who knows Alice, is told of what she said so much later. Before that a name has been missing and
    /// his cluster was killed.
    fn told_after(wait: Duration, missing: &str, killed: &str) -> Verdict {
        let (mut story, url) = (Story::new(), conversation_url("a", 1));
        story.is_online("bob");
        story.creates("alice", "bob", &url, Bound);
        story.is_told_of("bob", &url, 1);
        story.wait(Duration::from_secs(1));
        story.fault("name", "dns_missing", Began, json!({ "name": missing }));
        let mut kill = |phase: FaultPhase| {
            story.wait(Duration::from_secs(1)).fault("kill", "crash", phase, json!({ "host": killed }));
        };
        kill(Began);
        kill(Ended);
        story.wait(Duration::from_secs(90));
        story.posts("alice", &url, &message("alice", "hello", 1));
        story.wait(wait);
        let data = json!({ "indexCursor": "2", "activity": message("alice", "hello", 1) });
        story.is_told("bob", EventType::ConversationActivity, &url, data);
        story.comes_to_rest();
        KnownPeersAreBelieved.judge(story.told())
    }

    const KEYS: &str = "a-auth.provider.example";
    const SOON: Duration = Duration::from_millis(200);
    const LATE: Duration = Duration::from_secs(30);

    #[test]
    fn a_peer_is_believed_though_its_keys_cannot_be_asked_for() {
        let verdict = told_after(SOON, KEYS, "b");
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn who_waits_for_the_keys_of_a_peer_violates() {
        let verdict = told_after(LATE, KEYS, "b");
        assert_eq!(verdict.violations[0].fingerprint, "known-peers-are-believed/OPS-001/not-believed");
    }

    #[test]
    fn another_name_and_another_cluster_are_no_case() {
        for (missing, killed) in
            [("a-conv.provider.example", "b"), ("b-auth.provider.example", "b"), (KEYS, "c")]
        {
            assert!(told_after(LATE, missing, killed).had_no_case());
        }
    }
}
