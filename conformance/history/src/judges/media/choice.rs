//! Where the media of a call go (MED-002, MED-003).

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::Url;

use super::legs::{self, Opened, Part};
use crate::event::{Call, WorldCluster};
use crate::facts::{Facts, Verb};
use crate::judge::{Casebook, Evidence, Judge};

/// A relay that nothing has hindered for so long was there to be chosen.
const CALM_US: u64 = 10_000_000;

/// MED-002: a call between users of one org, who were never anybody else's, has its locus and its legs in
/// that org's data centres.
///
/// A case is a leg of such a call in a world with other data centres.
pub(in crate::judges) struct OwnCallsStayHome;

impl Judge for OwnCallsStayHome {
    fn name(&self) -> &'static str {
        "own-calls-stay-home"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MED-002"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client, Evidence::State]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let Some(world) = facts.world() else { return };
        let (parts, users) = (legs::parts(facts), facts.clusters_of_users());
        for opened in legs::opened(facts) {
            let Some(part) = parts.get(&opened.leg) else { continue };
            let Some(members) = members(facts, part.locus) else { continue };
            let serving = members.iter().map(|member| users.get(member));
            let Some(serving) = serving.collect::<Option<Vec<_>>>() else { continue };
            let serving: BTreeSet<_> = serving.into_iter().flatten().copied().collect();
            let of_org = world.clusters.iter().filter(|cluster| serving.contains(&cluster.name));
            let orgs: BTreeSet<&str> = of_org.map(|cluster| cluster.org.as_str()).collect();
            let mut orgs = orgs.into_iter();
            let (Some(org), None) = (orgs.next(), orgs.next()) else { continue };
            let is_own = |cluster: &&WorldCluster| cluster.org == org;
            let own: BTreeSet<&str> =
                world.clusters.iter().filter(is_own).map(|cluster| cluster.data_center.as_str()).collect();
            if world.clusters.iter().all(|cluster| own.contains(cluster.data_center.as_str())) {
                continue;
            }
            case.reached();
            let excerpt = [opened.seen, part.joined];
            if !own.contains(opened.of.data_center.as_str()) {
                let statement = format!(
                    "a call among {org}'s own users has a leg at {}, in {}",
                    opened.relay, opened.of.data_center
                );
                case.violated("media-left-the-org", statement, excerpt);
            }
            let home = legs::home(facts, part.locus);
            if home.is_some_and(|home| !own.contains(home.data_center.as_str())) {
                let statement = format!("a call among {org}'s own users is at {}", part.locus);
                case.violated("signalling-left-the-org", statement, excerpt);
            }
        }
    }
}

/// Everybody in the conversation of a locus, when at least two are known.
fn members<'h>(facts: &Facts<'h>, locus: &Url) -> Option<BTreeSet<&'h fusion_protocol::Address>> {
    let conversation = locus.as_str().strip_suffix("/locus")?;
    let known = facts.conversations().named(conversation)?;
    (known.members.len() >= 2).then(|| known.members.clone())
}

/// MED-003: a call begins at a relay of its home's org while one can be reached, at one in the home's data
/// centre while one can, and at another org's only if policy says so. Which of several is nearest beyond
/// that is for the home to measure, and nothing that clients see tells.
///
/// A case is the first leg of a call at a relay, where there is one farther away or of another org.
pub(in crate::judges) struct NearestOwnRelay;

impl Judge for NearestOwnRelay {
    fn name(&self) -> &'static str {
        "nearest-own-relay"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MED-003"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client, Evidence::State]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let (parts, called) = (legs::parts(facts), called(facts));
        let mut begun: BTreeSet<(&Url, u64, &str)> = BTreeSet::new();
        for opened in legs::opened(facts) {
            let Some(part) = parts.get(&opened.leg) else { continue };
            let Some(home) = legs::home(facts, part.locus) else { continue };
            if begun.insert((part.locus, part.instance, opened.relay)) {
                let called_us = called.get(&(part.locus, part.instance)).copied().unwrap_or(opened.at_us);
                judge_choice(facts, home, &opened, part, called_us, case);
            }
        }
    }
}

/// When each call was first asked for. Its relay is chosen then, however late the first leg can be opened there.
fn called<'h>(facts: &Facts<'h>) -> BTreeMap<(&'h Url, u64), u64> {
    let mut called = BTreeMap::new();
    for asked in facts.asked_to(Verb::Join) {
        if let Call::Join { locus, expect, .. } = asked.call {
            called.entry((locus, expect.0 + 1)).or_insert(asked.at_us);
        }
    }
    called
}

fn judge_choice(
    facts: &Facts<'_>,
    home: &WorldCluster,
    opened: &Opened<'_>,
    part: &Part<'_>,
    called_us: u64,
    case: &mut Casebook,
) {
    let clusters = facts.world().map(|world| world.clusters.as_slice()).unwrap_or_default();
    let of_org = || clusters.iter().filter(|cluster| cluster.org == home.org);
    let own = || of_org().flat_map(|cluster| legs::relays_of(cluster).map(move |relay| (cluster, relay)));
    let centers: BTreeSet<&str> = own().map(|(cluster, _)| cluster.data_center.as_str()).collect();
    if centers.len() > 1 || !home.overflow.is_empty() {
        case.reached();
    }
    let since = called_us.min(opened.at_us).saturating_sub(CALM_US);
    let was_there = |relay: &str| facts.faults().spare(&[home.name.as_str(), relay], since, opened.at_us);
    let near = || own().filter(|(cluster, _)| cluster.data_center == home.data_center);
    let relay = opened.relay;
    let (kind, statement) = if opened.of.org != home.org {
        if !home.overflow.contains(&opened.of.name) {
            (
                "foreign-without-policy",
                format!("a call of {} is at {relay}, which nobody lends it", home.name),
            )
        } else if let Some((_, other)) = own().find(|(_, other)| was_there(other)) {
            ("foreign-relay-chosen", format!("a call of {} is at {relay}, and {other} was there", home.name))
        } else {
            return;
        }
    } else if opened.of.data_center != home.data_center
        && let Some((_, other)) = near().find(|(_, other)| was_there(other))
    {
        ("farther-relay-chosen", format!("a call of {} is at {relay}, and {other} was nearer", home.name))
    } else {
        return;
    };
    case.violated(kind, statement, [opened.seen, part.joined]);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answered_leg, call, lone_call, opens, world_with};
    use super::*;
    use crate::event::{FaultPhase, WorldCluster};
    use crate::judge::{Ruling, Verdict};
    use crate::testing::Story;
    use fusion_protocol::problem::Code;
    use serde_json::json;

    fn kinds(verdict: &Verdict) -> Vec<&str> {
        let prints = verdict.violations.iter().map(|violation| &violation.fingerprint);
        prints.filter_map(|print| print.rsplit('/').next()).collect()
    }

    /// Cluster a of acme lends from b; a2 is acme's, too, far away.
    fn world(clusters: &mut Vec<WorldCluster>) {
        let overflow = vec!["b".parse().unwrap()];
        let sibling = WorldCluster {
            name: "a2".parse().unwrap(),
            data_center: "far-away".to_owned(),
            hosts: vec!["a2".to_owned(), "a2-relay".to_owned()],
            ..clusters[0].clone()
        };
        clusters[0].overflow = overflow;
        clusters.push(sibling);
    }

    fn at(relay: &str) -> Story {
        let mut story = world_with(world);
        story.wait(std::time::Duration::from_secs(30));
        opens(&mut story, relay, 1);
        answered_leg(&mut story, "alice", &call(), 1);
        story
    }

    #[test]
    fn the_own_relay_in_the_own_data_centre_is_taken() {
        let verdict = NearestOwnRelay.judge(at("a-relay").told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
        assert_eq!(kinds(&NearestOwnRelay.judge(at("a2-relay").told())), ["farther-relay-chosen"]);
        assert_eq!(kinds(&NearestOwnRelay.judge(at("b-relay").told())), ["foreign-relay-chosen"]);
        assert_eq!(kinds(&NearestOwnRelay.judge(at("c-relay").told())), ["foreign-without-policy"]);
    }

    #[test]
    fn a_relay_that_could_not_be_reached_could_not_be_chosen() {
        for (down, relay) in [("a-relay", "a2-relay"), ("*", "b-relay")] {
            let mut story = world_with(world);
            story.wait(std::time::Duration::from_secs(30));
            story.fault("down", "crash", FaultPhase::Began, json!({ "host": down }));
            opens(&mut story, relay, 1);
            answered_leg(&mut story, "alice", &call(), 1);
            let verdict = NearestOwnRelay.judge(story.told());
            assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1), "{relay}");
        }
    }

    /// The caller is answered that there is no relay, and joins again when there has been one for long.
    #[test]
    fn a_relay_that_could_not_be_reached_when_the_call_began_could_not_be_chosen() {
        let mut story = world_with(world);
        story.wait(std::time::Duration::from_secs(30));
        story.fault("down", "crash", FaultPhase::Began, json!({ "host": "a-relay" }));
        story.is_refused("alice", crate::testing::join(&call().url, 0, "alice"), Code::Unavailable);
        story.fault("down", "crash", FaultPhase::Ended, json!({ "host": "a-relay" }));
        story.wait(std::time::Duration::from_secs(30));
        opens(&mut story, "a2-relay", 1);
        answered_leg(&mut story, "alice", &call(), 1);
        let verdict = NearestOwnRelay.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn a_call_among_ones_own_has_its_legs_in_ones_own_data_centres() {
        for (relay, expected) in
            [("a-relay", &[][..]), ("a2-relay", &[]), ("b-relay", &["media-left-the-org"])]
        {
            let mut story = world_with(world);
            let locus = lone_call(&mut story, "a");
            opens(&mut story, relay, 1);
            answered_leg(&mut story, "alice", &locus, 1);
            let verdict = OwnCallsStayHome.judge(story.told());
            assert_eq!(kinds(&verdict), expected, "{relay}");
            assert_eq!(verdict.reached, 1);
        }
    }

    #[test]
    fn a_call_among_ones_own_is_at_home() {
        let mut story = world_with(world);
        let locus = lone_call(&mut story, "b");
        opens(&mut story, "a-relay", 1);
        answered_leg(&mut story, "alice", &locus, 1);
        assert_eq!(kinds(&OwnCallsStayHome.judge(story.told())), ["signalling-left-the-org"]);
    }

    #[test]
    fn a_call_with_somebody_elses_user_may_leave_the_org() {
        let mut story = world_with(world);
        let url = crate::testing::conversation_url("a", 1);
        story.creates("alice", "bob", &url, fusion_protocol::conversation::ConversationState::Bound);
        opens(&mut story, "b-relay", 1);
        answered_leg(&mut story, "alice", &call(), 1);
        assert!(OwnCallsStayHome.judge(story.told()).had_no_case());
    }
}
