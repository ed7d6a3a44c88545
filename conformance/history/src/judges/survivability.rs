//! What goes on while something else is down (OPS-001, OPS-002), and what is there after (OPS-003).

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::{Address, ClusterName, Code, Url};

use crate::event::{Call, Outcome, World, WorldCluster};
use crate::facts::{Asked, Back, Facts, Fault};
use crate::judge::{Casebook, Evidence, Judge};

/// What nobody has hindered is done within this time.
const DONE_MAX_US: u64 = 5_000_000;
/// So long after a fault something may still be slow because of it: back-off, caches that are filled anew.
const AFTERMATH_US: u64 = 30_000_000;
/// Families of faults that take machines out of the world.
const OUTAGES: [&str; 4] = ["crash", "partition", "pause", "power_off"];

/// OPS-001: while the provider is cut off or down, users of private orgs log in, chat and call, among
/// themselves and with users of other private orgs, as if it were there.
///
/// A case is a call of a private org's user, all along whose path nothing was wrong but that the provider
/// was out from its beginning to its end.
pub(super) struct GoesOnWithoutTheProvider;

/// OPS-002: while one cluster is out, nobody notices who does not use it.
///
/// A case is a call during the outage of a cluster that is not on its path, along which nothing else was
/// wrong.
pub(super) struct OthersAreUnaffected;

impl Judge for GoesOnWithoutTheProvider {
    fn name(&self) -> &'static str {
        "goes-on-without-the-provider"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["OPS-001"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let Some(world) = facts.world() else { return };
        let is_provider = |place: &str| world.provider_hosts.iter().any(|host| host == place);
        let outages: Vec<&Fault<'_>> = outages(facts, |fault| takes_out(fault, is_provider));
        if outages.is_empty() {
            return;
        }
        let paths = Paths::of(facts, world);
        for (asked, back) in returned(facts) {
            let outage = outages.iter().find(|it| it.from_us < asked.at_us && it.until_us > back.at_us);
            let Some(outage) = outage else { continue };
            if let Some(path) = paths.of_call(asked)
                && path.iter().all(|cluster| cluster.org != "consumer")
                && is_calm(facts, asked, back, &path)
            {
                judge_call(
                    facts,
                    asked,
                    back,
                    outage,
                    ("failed-without-the-provider", "slow-without-the-provider"),
                    case,
                );
            }
        }
    }
}

impl Judge for OthersAreUnaffected {
    fn name(&self) -> &'static str {
        "others-are-unaffected"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["OPS-002"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let Some(world) = facts.world() else { return };
        let out: Vec<(&Fault<'_>, &WorldCluster)> = facts
            .faults()
            .iter()
            .filter(|fault| OUTAGES.contains(&fault.family))
            .filter_map(|fault| Some((fault, victim(fault, world)?)))
            .collect();
        if out.is_empty() {
            return;
        }
        let paths = Paths::of(facts, world);
        for (asked, back) in returned(facts) {
            let during = |fault: &Fault<'_>| fault.from_us < asked.at_us && fault.until_us > asked.at_us;
            let Some((outage, victim)) = out.iter().find(|(fault, _)| during(fault)) else { continue };
            if let Some(path) = paths.of_call(asked)
                && path.iter().all(|cluster| cluster.name != victim.name)
                && is_calm(facts, asked, back, &path)
            {
                judge_call(facts, asked, back, outage, ("failed-with-another", "slow-with-another"), case);
            }
        }
    }
}

fn judge_call(
    facts: &Facts<'_>,
    asked: &Asked<'_>,
    back: Back<'_>,
    outage: &Fault<'_>,
    (failed, slow): (&str, &str),
    case: &mut Casebook,
) {
    let excerpt = [outage.began, asked.id, back.id];
    let took_ms = (back.at_us - asked.at_us) / 1_000;
    let what = || {
        let invoked = facts.history().event(asked.id);
        invoked.map(ToString::to_string).unwrap_or_default()
    };
    match back.outcome {
        // A race of the pair is being settled, which may take the other home.
        Outcome::Refused { code: Some(Code::Sealing), .. } => return,
        Outcome::Refused { status, .. } if *status < 500 && *status != 429 => {}
        Outcome::Done { .. } => {}
        outcome => {
            let statement = format!("{} came to {outcome:?} while only others were out", what());
            case.violated(failed, statement, excerpt);
        }
    }
    if back.at_us > asked.at_us + DONE_MAX_US {
        let statement = format!("{} took {took_ms} ms while only others were out", what());
        case.violated(slow, statement, excerpt);
    }
    case.reached();
}

fn returned<'f, 'h>(facts: &'f Facts<'h>) -> impl Iterator<Item = (&'f Asked<'h>, Back<'h>)> {
    facts.calls().iter().filter_map(|asked| Some((asked, asked.back?)))
}

fn outages<'f, 'h>(facts: &'f Facts<'h>, which: impl Fn(&Fault<'h>) -> bool) -> Vec<&'f Fault<'h>> {
    facts.faults().iter().filter(|fault| OUTAGES.contains(&fault.family) && which(fault)).collect()
}

/// Whether all that one side of a fault names is of a kind: the fault takes that out of the world.
fn takes_out(fault: &Fault<'_>, is_meant: impl Fn(&str) -> bool) -> bool {
    let sides = ["host", "a", "b"].iter().filter_map(|side| fault.member(side));
    sides.into_iter().any(|side| match side.as_array() {
        Some(places) => !places.is_empty() && places.iter().all(|it| it.as_str().is_some_and(&is_meant)),
        None => side.as_str().is_some_and(&is_meant),
    })
}

/// The cluster that a fault takes out: its services, not one of its relays only.
fn victim<'w>(fault: &Fault<'_>, world: &'w World) -> Option<&'w WorldCluster> {
    world.clusters.iter().find(|cluster| {
        takes_out(fault, |place| {
            place == cluster.name.as_str() || place.strip_prefix("group:") == Some(cluster.name.as_str())
        })
    })
}

/// Whether nothing was wrong with anything along the path, and had not been of late.
fn is_calm(facts: &Facts<'_>, asked: &Asked<'_>, back: Back<'_>, path: &[&WorldCluster]) -> bool {
    let hosts = path.iter().flat_map(|cluster| cluster.hosts.iter().map(String::as_str));
    let machines: Vec<&str> = hosts.chain([asked.host]).collect();
    facts.faults().spare(&machines, asked.at_us.saturating_sub(AFTERMATH_US), back.at_us)
}

/// Which clusters a call needs.
struct Paths<'f, 'h> {
    facts: &'f Facts<'h>,
    clusters: BTreeMap<&'h ClusterName, &'h WorldCluster>,
    /// Where each user is served; `None`: at several clusters at different times.
    homes: BTreeMap<&'h Address, Option<&'h ClusterName>>,
    world: &'h World,
}

impl<'f, 'h> Paths<'f, 'h> {
    fn of(facts: &'f Facts<'h>, world: &'h World) -> Self {
        let only = |(user, clusters): (&&'h Address, &BTreeSet<&'h ClusterName>)| {
            let mut clusters = clusters.iter().copied();
            (*user, clusters.next().filter(|_| clusters.next().is_none()))
        };
        let homes = facts.clusters_of_users().iter().map(only).collect();
        let clusters = world.clusters.iter().map(|cluster| (&cluster.name, cluster)).collect();
        Self { facts, clusters, homes, world }
    }

    /// `None`: it is not known, or the call may well have to wait for somebody.
    fn of_call(&self, asked: &Asked<'h>) -> Option<Vec<&'h WorldCluster>> {
        let home = self.home(asked.actor)?;
        let mut path = vec![home];
        match asked.call {
            Call::LogIn { cluster } => path.push(self.clusters.get(cluster)?),
            Call::Create { others, at, .. } => {
                path.push(self.clusters.get(at)?);
                for other in others {
                    path.extend(self.resolvers(other)?);
                }
            }
            Call::Post { conversation, verb, .. } if verb == "message" => {
                path.extend(self.object(asked.actor, home, conversation)?);
            }
            Call::Read { conversation, .. } | Call::ReadConversation { conversation } => {
                path.extend(self.object(asked.actor, home, conversation)?);
            }
            Call::ReadLocus { locus } | Call::Join { locus, .. } | Call::SetState { locus, .. } => {
                path.extend(self.object(asked.actor, home, locus)?);
            }
            Call::Exchange { .. } | Call::LookUp { .. } | Call::ReadIndex { .. } | Call::ListLoci {} => {}
            Call::Resolve { user, via } => {
                path.push(self.clusters.get(via)?);
                path.extend(self.resolvers(user)?);
            }
            _ => return None,
        }
        Some(path)
    }

    fn home(&self, user: &Address) -> Option<&'h WorldCluster> {
        self.clusters.get((*self.homes.get(user)?)?).copied()
    }

    /// The clusters that are asked for a user: those of the org that has claimed the domain, or of the
    /// consumer org, and the one that serves the user.
    fn resolvers(&self, user: &Address) -> Option<Vec<&'h WorldCluster>> {
        let domain = user.domain();
        let claimed = self.world.domains.iter().find(|(claimed, _)| *claimed == domain);
        let org = claimed.map_or("consumer", |(_, org)| org.as_str());
        let mut asked: Vec<&WorldCluster> =
            self.world.clusters.iter().filter(|cluster| cluster.org == org).collect();
        asked.push(self.home(user)?);
        Some(asked)
    }

    /// Where an object lives, and whom its home asks who a guest is (SEC-009). A conversation that lost its
    /// race sends its callers elsewhere.
    fn object(&self, actor: &Address, home: &WorldCluster, url: &Url) -> Option<Vec<&'h WorldCluster>> {
        let conversation = url.as_str().trim_end_matches("/locus");
        let known = self.facts.conversations().named(conversation);
        if known.is_some_and(|known| known.sealed.is_some()) {
            return None;
        }
        let at = *self.clusters.get(&self.facts.cluster_of(url)?)?;
        let mut path = if at.name == home.name { Vec::new() } else { self.resolvers(actor)? };
        path.push(at);
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Answer, FaultPhase};
    use crate::judge::Ruling;
    use crate::testing::{self, Story, conversation_url};
    use serde_json::{Value, json};
    use std::time::Duration;

    /// Something is out; then somebody logs in within `ms`, or is refused.
    fn during(detail: Value, who: &str, ms: u64, outcome: Outcome) -> Story {
        let mut story = Story::new();
        let family = if detail.get("host").is_some() { "crash" } else { "partition" };
        story.fault("out", family, FaultPhase::Began, detail.clone());
        let asked = story.asks(who, Call::LogIn { cluster: testing::home_of(who) });
        story.wait(Duration::from_millis(ms));
        story.returns(asked, outcome);
        story.wait(Duration::from_secs(1)).fault("out", family, FaultPhase::Ended, detail);
        story
    }

    fn done() -> Outcome {
        Outcome::Done { answer: Answer::Nothing {} }
    }

    fn unavailable() -> Outcome {
        Outcome::Refused { status: 503, code: Some(Code::Unavailable) }
    }

    fn judged(judge: &dyn Judge, story: &Story) -> (Ruling, u64, Vec<String>) {
        let verdict = judge.judge(story.told());
        let prints = verdict.violations.into_iter().map(|violation| violation.fingerprint);
        (verdict.ruling, verdict.reached, prints.collect())
    }

    fn cut_off() -> Value {
        json!({ "a": ["provider"], "b": ["*"] })
    }

    #[test]
    fn alice_logs_in_without_the_provider() {
        let story = during(cut_off(), "alice", 100, done());
        assert_eq!(judged(&GoesOnWithoutTheProvider, &story), (Ruling::Holds, 1, vec![]));
    }

    #[test]
    fn who_is_refused_or_kept_waiting_without_the_provider_shows_a_violation() {
        let prints =
            |ms, outcome| judged(&GoesOnWithoutTheProvider, &during(cut_off(), "alice", ms, outcome)).2;
        let print = |kind| vec![format!("goes-on-without-the-provider/OPS-001/{kind}")];
        assert_eq!(prints(100, unavailable()), print("failed-without-the-provider"));
        assert_eq!(prints(100, Outcome::Unknown {}), print("failed-without-the-provider"));
        assert_eq!(prints(6_000, done()), print("slow-without-the-provider"));
    }

    #[test]
    fn a_consumer_user_is_no_case_and_neither_is_a_cluster_that_is_out_itself() {
        assert_eq!(judged(&GoesOnWithoutTheProvider, &during(cut_off(), "carol", 100, unavailable())).1, 0);
        let everybody = json!({ "a": ["*"], "b": ["*"] });
        assert_eq!(judged(&GoesOnWithoutTheProvider, &during(everybody, "alice", 100, unavailable())).1, 0);
    }

    #[test]
    fn alice_does_not_notice_that_bobs_cluster_is_down() {
        let down = || json!({ "host": "b" });
        let prints = |ms, outcome| judged(&OthersAreUnaffected, &during(down(), "alice", ms, outcome));
        assert_eq!(prints(100, done()), (Ruling::Holds, 1, vec![]));
        let print = |kind| vec![format!("others-are-unaffected/OPS-002/{kind}")];
        assert_eq!(prints(100, unavailable()).2, print("failed-with-another"));
        assert_eq!(prints(6_000, done()).2, print("slow-with-another"));
        assert_eq!(judged(&OthersAreUnaffected, &during(down(), "bob", 100, unavailable())).1, 0);
    }

    #[test]
    fn whoever_needs_the_cluster_that_is_out_is_no_case() {
        let mut story = Story::new();
        story.fault("out", "crash", FaultPhase::Began, json!({ "host": "b" }));
        let url = conversation_url("b", 1);
        story.is_refused("alice", testing::read(&url, 0), Code::Unavailable);
        story.is_refused("alice", testing::create("alice", "bob"), Code::ResolutionIncomplete);
        assert_eq!(judged(&OthersAreUnaffected, &story).1, 0);
        story.is_refused("alice", testing::create("alice", "ann"), Code::Unavailable);
        assert_eq!(judged(&OthersAreUnaffected, &story).1, 1);
    }
}
