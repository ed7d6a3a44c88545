//! Whose a domain is, and where it leads (MAP-002, MAP-003).

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::map::DomainRecord;
use fusion_protocol::{ClusterName, Code, Domain};

use crate::event::{Answer, Call};
use crate::facts::{Asked, CONSUMER, Facts, Verb};
use crate::judge::{Casebook, Evidence, Judge};

/// MAP-002: a domain is claimed by at most one org, of racing claims exactly one succeeds, and the
/// consumer org never claims.
///
/// A case is a domain that orgs contended for, once the map says whose it is, and each claim of the
/// consumer org that was answered.
pub(in crate::judges) struct OneOwner;

/// MAP-003: a claimed domain answers with all clusters of its claim.
///
/// A case is an answer of the map about a domain whose claim is known.
pub(in crate::judges) struct WholeSetOfClusters;

/// The claims of one domain.
#[derive(Default)]
struct Contest<'f, 'h> {
    claims: Vec<(&'h str, &'f Asked<'h>)>,
    told: Vec<(&'h DomainRecord, &'f Asked<'h>)>,
}

impl Judge for OneOwner {
    fn name(&self) -> &'static str {
        "one-owner"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MAP-002"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let owned = owned(facts);
        for (domain, contest) in contests(facts) {
            contest.claims.iter().for_each(|(org, asked)| judge_consumer(domain, org, asked, case));
            judge_owners(domain, &contest, owned.get(domain).copied(), case);
        }
    }
}

impl Judge for WholeSetOfClusters {
    fn name(&self) -> &'static str {
        "whole-set-of-clusters"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MAP-003"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        for (domain, contest) in contests(facts) {
            let sets = sets(facts, domain, &contest);
            for (record, asked) in &contest.told {
                let told: BTreeSet<&ClusterName> = record.clusters.iter().collect();
                match sets.get(record.org.as_str()) {
                    None => case.inconclusive("a domain of an org that nobody knows"),
                    Some(known) => {
                        case.reached();
                        if !known.contains(&told) {
                            let statement = format!("{domain} was answered with other clusters than claimed");
                            case.violated("not-the-whole-set", statement, asked.events());
                        }
                    }
                }
            }
        }
    }
}

/// No answer to the consumer org's claim may be a success, whatever else it is.
fn judge_consumer(domain: &Domain, org: &str, asked: &Asked<'_>, case: &mut Casebook) {
    if org != CONSUMER {
        return;
    }
    match (asked.answer(), asked.refusal()) {
        (Some(_), _) => {
            case.reached();
            let statement = format!("the consumer org has claimed {domain}");
            case.violated("consumer-claims", statement, asked.events());
        }
        (None, Some((status, _))) if status < 500 => case.reached(),
        _ => case.not_observed("the answer to a claim of the consumer org"),
    }
}

fn judge_owners(domain: &Domain, contest: &Contest<'_, '_>, first: Option<&str>, case: &mut Casebook) {
    let orgs: BTreeSet<&str> = contest.claims.iter().map(|(org, _)| *org).chain(first).collect();
    if orgs.iter().filter(|org| **org != CONSUMER).count() < 2 {
        return;
    }
    let told = contest.told.iter().map(|(record, asked)| (record.org.as_str(), *asked));
    let owners: BTreeMap<&str, &Asked<'_>> = told.collect();
    let refused = |asked: &Asked<'_>| matches!(asked.refusal(), Some((_, Some(Code::DomainClaimed))));
    let everybody_refused = contest.claims.iter().all(|(_, asked)| refused(asked));
    let events = || contest.claims.iter().flat_map(|(_, asked)| asked.events());
    match owners.len() {
        // Nobody had it, and everybody was told that somebody else has.
        0 if first.is_none() && everybody_refused => {
            case.reached();
            case.violated("nobody-won", format!("nobody got {domain}, which nobody had"), events());
        }
        0 => case.not_observed("whose a domain is that several orgs have claimed"),
        1 if first.is_some_and(|first| !owners.contains_key(first)) => {
            case.reached();
            case.violated("owner-replaced", format!("{domain} was taken from its owner"), events());
        }
        1 => case.reached(),
        _ => {
            case.reached();
            let shown = owners.values().flat_map(|asked| asked.events());
            let names: Vec<&str> = owners.keys().copied().collect();
            case.violated("two-owners", format!("{domain} is of {}", names.join(" and of ")), shown);
        }
    }
}

/// What was asked and answered about each domain.
fn contests<'f, 'h>(facts: &'f Facts<'h>) -> BTreeMap<&'h Domain, Contest<'f, 'h>> {
    let mut contests: BTreeMap<&Domain, Contest<'_, '_>> = BTreeMap::new();
    let asks = |asked: &&Asked<'_>| matches!(asked.verb, Verb::Claim | Verb::ReadDomain);
    for asked in facts.calls().iter().filter(asks) {
        let (Call::Claim { domain, .. } | Call::ReadDomain { domain }) = asked.call else { continue };
        let contest = contests.entry(domain).or_default();
        if let Call::Claim { org, clusters, .. } = asked.call {
            let consumer = clusters.iter().any(|cluster| facts.is_consumer(cluster));
            contest.claims.push((if consumer { CONSUMER } else { org }, asked));
        }
        if let Some(Answer::Domain(record)) = asked.answer() {
            contest.told.push((record, asked));
        }
    }
    contests
}

/// The orgs that have had domains since before the run.
fn owned<'h>(facts: &Facts<'h>) -> BTreeMap<&'h Domain, &'h str> {
    let domains = facts.world().into_iter().flat_map(|world| &world.domains);
    domains.map(|(domain, org)| (domain, org.as_str())).collect()
}

/// The sets of clusters that each org has given a domain: before the run, and by its claims.
fn sets<'h>(
    facts: &Facts<'h>,
    domain: &Domain,
    contest: &Contest<'_, 'h>,
) -> BTreeMap<&'h str, BTreeSet<BTreeSet<&'h ClusterName>>> {
    let mut sets: BTreeMap<&str, BTreeSet<BTreeSet<&ClusterName>>> = BTreeMap::new();
    if let Some(world) = facts.world() {
        for (_, org) in world.domains.iter().filter(|(known, _)| known == domain) {
            let clusters = world.clusters.iter().filter(|cluster| cluster.org == *org);
            sets.entry(org).or_default().insert(clusters.map(|cluster| &cluster.name).collect());
        }
    }
    for (_, asked) in &contest.claims {
        if let Call::Claim { org, clusters, .. } = asked.call {
            sets.entry(org).or_default().insert(clusters.iter().collect());
        }
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Outcome;
    use crate::judge::Ruling;
    use crate::testing::{Story, cluster};
    use fusion_protocol::Count;

    fn domain() -> Domain {
        "corp.example".parse().expect("a domain")
    }

    fn claim(org: &str, clusters: &[&str]) -> Call {
        let clusters = clusters.iter().map(|name| cluster(name)).collect();
        Call::Claim { domain: domain(), org: org.to_owned(), clusters }
    }

    fn record(org: &str, clusters: &[&str]) -> Answer {
        let clusters = clusters.iter().map(|name| cluster(name)).collect();
        let org = org.to_owned();
        Answer::Domain(DomainRecord { domain: domain(), org, clusters, version: Count(1), ttl_seconds: 300 })
    }

    fn kind(story: &Story) -> Option<String> {
        let verdict = OneOwner.judge(story.told());
        verdict.violations.first().map(|violation| violation.fingerprint.clone())
    }

    #[test]
    fn of_two_racing_claims_one_succeeds() {
        let mut story = Story::new();
        let (acme, bravo) =
            (story.asks("alice", claim("acme", &["a"])), story.asks("bob", claim("bravo", &["b"])));
        story.answers(bravo, record("bravo", &["b"]));
        story.refuses(acme, Code::DomainClaimed);
        story.does("carol", Call::ReadDomain { domain: domain() }, record("bravo", &["b"]));
        let verdict = OneOwner.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
        assert_eq!(WholeSetOfClusters.judge(story.told()).reached, 2);
    }

    #[test]
    fn two_who_were_both_told_that_it_is_theirs_violate() {
        let mut story = Story::new();
        story.does("alice", claim("acme", &["a"]), record("acme", &["a"]));
        story.does("bob", claim("bravo", &["b"]), record("bravo", &["b"]));
        assert_eq!(kind(&story).as_deref(), Some("one-owner/MAP-002/two-owners"));
    }

    #[test]
    fn a_domain_that_everybody_was_refused_and_nobody_has_violates() {
        let mut story = Story::new();
        story.is_refused("alice", claim("acme", &["a"]), Code::DomainClaimed);
        story.is_refused("bob", claim("bravo", &["b"]), Code::DomainClaimed);
        assert_eq!(kind(&story).as_deref(), Some("one-owner/MAP-002/nobody-won"));
    }

    #[test]
    fn an_owner_from_before_keeps_the_domain() {
        let mut story = Story::new();
        let acmes: Domain = "acme.example".parse().expect("a domain");
        let taken =
            Call::Claim { domain: acmes.clone(), org: "bravo".to_owned(), clusters: vec![cluster("b")] };
        let Answer::Domain(record) = record("bravo", &["b"]) else { unreachable!("a record") };
        story.does("bob", taken, Answer::Domain(DomainRecord { domain: acmes, ..record }));
        assert_eq!(kind(&story).as_deref(), Some("one-owner/MAP-002/owner-replaced"));
    }

    #[test]
    fn the_consumer_org_claims_nothing() {
        let mut story = Story::new();
        story.is_refused("carol", claim(CONSUMER, &["c"]), Code::Unauthorized);
        assert_eq!(OneOwner.judge(story.told()).ruling, Ruling::Holds);
        story.does("carol", claim(CONSUMER, &["c"]), record(CONSUMER, &["c"]));
        assert_eq!(kind(&story).as_deref(), Some("one-owner/MAP-002/consumer-claims"));
    }

    #[test]
    fn claims_whose_answers_are_lost_prove_nothing() {
        let mut story = Story::new();
        for (who, org) in [("alice", "acme"), ("bob", "bravo")] {
            let asked = story.asks(who, claim(org, &["a"]));
            story.returns(asked, Outcome::Unknown {});
        }
        let verdict = OneOwner.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached, verdict.unjudged), (Ruling::Unknown, 0, 1));
    }

    #[test]
    fn a_domain_that_leads_to_some_of_its_clusters_violates() {
        let mut story = Story::new();
        story.does("alice", claim("acme", &["a", "d"]), record("acme", &["a", "d"]));
        assert_eq!(WholeSetOfClusters.judge(story.told()).ruling, Ruling::Holds);
        story.does("bob", Call::ReadDomain { domain: domain() }, record("acme", &["a"]));
        let verdict = WholeSetOfClusters.judge(story.told());
        let kind = "whole-set-of-clusters/MAP-003/not-the-whole-set";
        assert_eq!((verdict.reached, verdict.violations[0].fingerprint.as_str()), (2, kind));
    }
}
