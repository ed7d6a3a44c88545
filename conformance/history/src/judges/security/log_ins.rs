//! Where people log in (SEC-002).

use fusion_protocol::Address;

use crate::event::{Call, EventId};
use crate::facts::{Facts, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::table::Table;

/// SEC-002: the provider never sees a user of a private org log in: not even its consumer clusters do.
///
/// A case is a log-in of somebody who, since before it, has an account of a private org and never had one
/// of the consumer org.
pub(in crate::judges) struct LogInsStayHome;

impl Judge for LogInsStayHome {
    fn name(&self) -> &'static str {
        "log-ins-stay-home"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["SEC-002"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let members = members(facts);
        for asked in facts.asked_to(Verb::LogIn) {
            let Call::LogIn { cluster } = asked.call else { continue };
            if members.get(asked.actor).is_none_or(|since| *since > asked.id) {
                continue;
            }
            case.reached();
            if facts.is_consumer(cluster) {
                let statement =
                    format!("{} of a private org was shown to {cluster} to log in", asked.actor.as_str());
                case.violated("shown-to-the-consumer-org", statement, asked.events());
            }
        }
    }
}

/// Who has an account of a private org, and none of the consumer org at any time: since when.
fn members<'h>(facts: &Facts<'h>) -> Table<&'h Address, EventId> {
    let mut members = Table::default();
    for asked in facts.asked_to(Verb::Provision) {
        if let (Call::Provision { user, cluster }, Some(_), Some(back)) =
            (asked.call, asked.answer(), asked.back)
            && facts.org_of(cluster).is_some()
            && !facts.is_consumer(cluster)
        {
            members.entry(user).or_insert(back.id);
        }
    }
    let deleted = facts.deprovisioned();
    let clusters = facts.clusters_of_users();
    let consumers = |user: &Address| {
        clusters.get(user).is_some_and(|clusters| clusters.iter().any(|it| facts.is_consumer(it)))
    };
    members.retain(|user, _| !deleted.contains(user) && !consumers(user));
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Answer;
    use crate::judge::Ruling;
    use crate::testing::{Story, cluster, user};
    use fusion_protocol::Code;

    fn log_in(at: &str) -> Call {
        Call::LogIn { cluster: cluster(at) }
    }

    fn provisioned(name: &str, at: &str) -> Story {
        let mut story = Story::new();
        let provision = Call::Provision { user: user(name), cluster: cluster(at) };
        story.does("admin", provision, Answer::Provisioned { incarnation: None });
        story
    }

    #[test]
    fn who_logs_in_at_the_own_org_is_seen_by_nobody_else() {
        let mut story = provisioned("alice", "a");
        story.does("alice", log_in("a"), Answer::Nothing {});
        let verdict = LogInsStayHome.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn who_is_shown_to_the_consumer_org_violates_even_when_it_refuses() {
        let mut story = provisioned("alice", "a");
        story.is_refused("alice", log_in("c"), Code::InvalidGrant);
        let verdict = LogInsStayHome.judge(story.told());
        let kind = "log-ins-stay-home/SEC-002/shown-to-the-consumer-org";
        assert_eq!((verdict.violated, verdict.violations[0].fingerprint.as_str()), (1, kind));
    }

    #[test]
    fn consumers_and_those_without_an_account_may_try() {
        let mut story = provisioned("carol", "c");
        story.does("carol", log_in("c"), Answer::Nothing {});
        story.is_refused("bob", log_in("c"), Code::InvalidGrant);
        let verdict = LogInsStayHome.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Unknown, 0));
    }
}
