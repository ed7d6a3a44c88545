//! The domain map as each cluster keeps it (MAP-006).

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::map::Resolution;
use fusion_protocol::{Address, ClusterName, Code, Count, Domain};

use crate::event::{Answer, Call, EventId};
use crate::facts::{Asked, Back, Facts, Moment, Verb};
use crate::judge::{Casebook, Evidence, Judge};
use crate::table::Table;

/// How long the provider must have been silent before a cluster is expected to say so: more than any
/// poll's length and any time that a cluster may reasonably believe that all is well.
const SURELY_STALE_US: u64 = 120_000_000;
/// How long what was hindered by something else may still be late.
const GRACE_US: u64 = 15_000_000;

/// MAP-006: a resolver never goes back to an older version of the domain map; with the provider
/// unreachable, known domains still resolve, marked stale.
///
/// A case is an answer of a resolver that has answered before, and a resolution asked for while the
/// provider could not be reached and nothing else was in the way, by a cluster that knew the domain.
pub(in crate::judges) struct ReplicaOutlivesTheProvider;

/// What one resolver has told so far.
#[derive(Default)]
struct Told<'h> {
    newest: Option<(Count, EventId)>,
    domains: BTreeSet<Domain>,
    homes: Table<&'h Address, &'h ClusterName>,
}

impl Judge for ReplicaOutlivesTheProvider {
    fn name(&self) -> &'static str {
        "replica-outlives-the-provider"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MAP-006"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let mut told: BTreeMap<&ClusterName, Told<'_>> = BTreeMap::new();
        // What each resolver had told when a question to it began.
        let mut before: Table<EventId, Option<(Count, EventId)>> = Table::default();
        for moment in facts.moments() {
            match moment {
                Moment::Asked(asked) if asked.verb == Verb::Resolve => {
                    if let Call::Resolve { via, .. } = asked.call {
                        before.insert(asked.id, told.get(via).and_then(|told| told.newest));
                    }
                }
                Moment::Returned(asked, back) if asked.verb == Verb::Resolve => {
                    let Call::Resolve { user, via } = asked.call else { continue };
                    let told = told.entry(via).or_default();
                    let newest = before.swap_remove(&asked.id).flatten();
                    match asked.answer() {
                        Some(Answer::Resolved(found)) => {
                            judge_version(asked, found, newest, case);
                            judge_mark(facts, via, asked, back, found, case);
                            told.take(user, found, back.id);
                        }
                        _ => judge_refusal(facts, (user, via), told, asked, back, case),
                    }
                }
                Moment::Asked(_) | Moment::Returned(..) | Moment::Seen(_) => {}
            }
        }
    }
}

impl<'h> Told<'h> {
    fn take(&mut self, user: &'h Address, found: &'h Resolution, at: EventId) {
        if self.newest.is_none_or(|(newest, _)| newest < found.map_version) {
            self.newest = Some((found.map_version, at));
        }
        self.domains.insert(user.domain());
        self.homes.insert(user, &found.record.cluster);
    }
}

/// Whatever was told before a question began is known when it is answered.
fn judge_version(
    asked: &Asked<'_>,
    found: &Resolution,
    newest: Option<(Count, EventId)>,
    case: &mut Casebook,
) {
    let Some((newest, at)) = newest else { return };
    case.reached();
    if found.map_version < newest {
        let (now, user) = (found.map_version, found.record.user.as_str());
        let statement = format!("{user} was resolved with version {now} of the map after version {newest}");
        case.violated("went-back", statement, asked.events().chain([at]));
    }
}

fn judge_mark(
    facts: &Facts<'_>,
    via: &ClusterName,
    asked: &Asked<'_>,
    back: Back<'_>,
    found: &Resolution,
    case: &mut Casebook,
) {
    let Some(long_ago) = asked.at_us.checked_sub(SURELY_STALE_US) else { return };
    if !is_cut_off(facts, via, long_ago, back.at_us) {
        return;
    }
    case.reached();
    if !found.stale {
        let user = found.record.user.as_str();
        let statement = format!("{user} was resolved from an old map as if it were of now");
        case.violated("not-marked", statement, asked.events());
    }
}

/// A resolution that fails though everybody whom it needs was there, but for the provider.
fn judge_refusal(
    facts: &Facts<'_>,
    (user, via): (&Address, &ClusterName),
    told: &Told<'_>,
    asked: &Asked<'_>,
    back: Back<'_>,
    case: &mut Casebook,
) {
    let Some((_, Some(Code::ResolutionIncomplete))) = asked.refusal() else { return };
    let Some(home) = told.homes.get(user).filter(|_| told.domains.contains(&user.domain())) else { return };
    if !is_cut_off(facts, via, asked.at_us, back.at_us) {
        return;
    }
    let from = asked.at_us.saturating_sub(GRACE_US);
    if facts.faults().spare(&[asked.host, via.as_str(), home.as_str()], from, back.at_us) {
        case.reached();
        let statement = format!("{via} cannot resolve {} any more, without the provider", user.as_str());
        case.violated("forgotten", statement, asked.events());
    }
}

/// Whether the provider could not be reached from a cluster all the time.
fn is_cut_off(facts: &Facts<'_>, via: &ClusterName, from_us: u64, until_us: u64) -> bool {
    let provider = facts.world().map(|world| world.provider_hosts.as_slice()).unwrap_or_default();
    !provider.is_empty()
        && provider.iter().all(|host| facts.faults().part(via.as_str(), host, from_us, until_us))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FaultPhase;
    use crate::judge::Ruling;
    use crate::testing::{Story, cluster, resolved, user};
    use serde_json::json;
    use std::time::Duration;

    fn resolve(name: &str) -> Call {
        Call::Resolve { user: user(name), via: cluster("a") }
    }

    fn found(version: u64, stale: bool) -> Answer {
        let Answer::Resolved(found) = resolved("bob", "b") else { unreachable!("a resolution") };
        Answer::Resolved(Resolution { stale, map_version: Count(version), ..found })
    }

    fn kind(story: &Story) -> Option<String> {
        let verdict = ReplicaOutlivesTheProvider.judge(story.told());
        verdict.violations.first().map(|violation| violation.fingerprint.clone())
    }

    /// Bob is found, then the provider is gone.
    fn without_provider() -> Story {
        let mut story = Story::new();
        story.does("alice", resolve("bob"), found(3, false));
        let detail = json!({ "a": ["provider"], "b": ["*"] });
        story.fault("f", "partition", FaultPhase::Began, detail);
        story.wait(Duration::from_secs(30));
        story
    }

    #[test]
    fn a_resolver_that_stays_where_it_was_holds() {
        let mut story = without_provider();
        story.does("alice", resolve("bob"), found(3, false));
        story.wait(Duration::from_secs(130));
        story.does("alice", resolve("bob"), found(3, true));
        let verdict = ReplicaOutlivesTheProvider.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 3));
    }

    #[test]
    fn a_resolver_that_goes_back_violates() {
        let mut story = Story::new();
        story.does("alice", resolve("bob"), found(3, false));
        story.does("alice", resolve("bob"), found(2, false));
        assert_eq!(kind(&story).as_deref(), Some("replica-outlives-the-provider/MAP-006/went-back"));
    }

    #[test]
    fn answers_that_overtake_each_other_prove_nothing() {
        let mut story = Story::new();
        let (early, late) = (story.asks("alice", resolve("bob")), story.asks("alice", resolve("bob")));
        story.answers(late, found(3, false));
        story.answers(early, found(2, false));
        assert_eq!(ReplicaOutlivesTheProvider.judge(story.told()).ruling, Ruling::Unknown);
    }

    #[test]
    fn an_old_map_that_is_not_marked_violates() {
        let mut story = without_provider();
        story.wait(Duration::from_secs(130));
        story.does("alice", resolve("bob"), found(3, false));
        assert_eq!(kind(&story).as_deref(), Some("replica-outlives-the-provider/MAP-006/not-marked"));
    }

    #[test]
    fn a_known_domain_that_cannot_be_resolved_violates_unless_its_cluster_is_away() {
        let mut story = without_provider();
        let mut other = without_provider();
        story.is_refused("alice", resolve("bob"), Code::ResolutionIncomplete);
        assert_eq!(kind(&story).as_deref(), Some("replica-outlives-the-provider/MAP-006/forgotten"));
        other.fault("g", "crash", FaultPhase::Began, json!({ "host": "b" }));
        other.is_refused("alice", resolve("bob"), Code::ResolutionIncomplete);
        assert_eq!(kind(&other), None);
    }
}
