//! MAP-002: whose a domain is has one order, for everybody.

use fusion_protocol::map::DomainRecord;
use fusion_protocol::{Code, Domain};

use crate::event::{Answer, Call, EventId, Outcome};
use crate::facts::{Asked, Facts, Verb};
use crate::judge::{Casebook, Evidence, Judge};
use crate::judges::linear::{Impossible, Register, Span, What};
use crate::table::Table;

/// MAP-002: the map's entry of a domain is one register: once somebody has been told of a claim, nobody is
/// told any more of what was before, and nobody is told of what nobody has claimed.
///
/// A case is a domain that somebody claimed or asked for after another such call had been answered.
pub(in crate::judges) struct DomainMapInOneOrder;

/// What the map says of a domain: the org, and the version of the entry.
type Entry<'h> = (&'h str, u64);

impl Judge for DomainMapInOneOrder {
    fn name(&self) -> &'static str {
        "domain-map-in-one-order"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MAP-002"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let mut entries: Table<&Domain, Register<Entry<'_>>> = Table::default();
        for asked in facts.asked_to(Verb::Claim).chain(facts.asked_to(Verb::ReadDomain)) {
            if let Call::Claim { domain, .. } | Call::ReadDomain { domain } = asked.call {
                take(entries.entry(domain).or_default(), asked);
            }
        }
        // What was claimed before anybody could be asked.
        for (domain, _) in facts.world().into_iter().flat_map(|world| &world.domains) {
            if let Some(entry) = entries.get_mut(domain) {
                entry.wrote_something(Span { asked: EventId(0), back: None });
            }
        }
        entries.sort_unstable_keys();
        for (domain, entry) in &entries {
            if !entry.is_ordered() {
                continue;
            }
            case.reached();
            if let Err(impossible) = entry.judge() {
                accuse(domain, &impossible, case);
            }
        }
    }
}

fn take<'h>(entry: &mut Register<Entry<'h>>, asked: &Asked<'h>) {
    let span = Span { asked: asked.id, back: asked.back.map(|back| back.id) };
    let is_claim = asked.verb == Verb::Claim;
    match asked.back.map(|back| back.outcome) {
        Some(Outcome::Done { answer: Answer::Domain(DomainRecord { org, version, .. }) }) => match is_claim {
            true => entry.wrote((org.as_str(), version.0), span),
            false => entry.read(Some((org.as_str(), version.0)), span),
        },
        Some(Outcome::Refused { code: Some(Code::DomainUnclaimed), .. }) if !is_claim => {
            entry.read(None, span);
        }
        Some(Outcome::Refused { status: ..500, .. } | Outcome::Unreachable {}) => {}
        _ if is_claim => entry.wrote_something(Span { back: None, ..span }),
        _ => {}
    }
}

fn accuse(domain: &Domain, impossible: &Impossible<Entry<'_>>, case: &mut Casebook) {
    let said = |entry: Option<Entry<'_>>| match entry {
        Some((org, version)) => format!("{org}'s (version {version})"),
        None => "nobody's".to_owned(),
    };
    let (kind, statement) = match impossible.what {
        What::FromNowhere(entry) => {
            ("entry-from-nowhere", format!("{domain} is {} before anybody claims it", said(Some(entry))))
        }
        What::Again(one, other) => (
            "old-entry-again",
            format!("{domain} was {}, then {}, and then the first again", said(one), said(other)),
        ),
    };
    case.violated(kind, statement, impossible.spans.iter().flat_map(|span| span.events()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Ruling, Verdict};
    use crate::testing::{Story, cluster};
    use fusion_protocol::Count;

    fn domain() -> Domain {
        "corp.example".parse().expect("a domain")
    }

    fn claim(org: &str) -> Call {
        Call::Claim { domain: domain(), org: org.to_owned(), clusters: vec![cluster("a")] }
    }

    fn look() -> Call {
        Call::ReadDomain { domain: domain() }
    }

    fn entry(org: &str, version: u64) -> Answer {
        Answer::Domain(DomainRecord {
            domain: domain(),
            org: org.to_owned(),
            clusters: vec![cluster("a")],
            version: Count(version),
            ttl_seconds: 300,
        })
    }

    fn judged(story: &Story) -> Verdict {
        DomainMapInOneOrder.judge(story.told())
    }

    #[test]
    fn unclaimed_then_claimed_then_read_is_one_order() {
        let mut story = Story::new();
        story.is_refused("carol", look(), Code::DomainUnclaimed);
        story.does("alice", claim("acme"), entry("acme", 7));
        story.does("bob", look(), entry("acme", 7));
        story.does("alice", claim("acme"), entry("acme", 7));
        let verdict = judged(&story);
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn a_claim_that_is_forgotten_violates_by_three_calls() {
        let mut story = Story::new();
        story.does("alice", claim("acme"), entry("acme", 7));
        story.does("bob", look(), entry("acme", 7));
        story.is_refused("carol", look(), Code::DomainUnclaimed);
        let violation = &judged(&story).violations[0];
        assert_eq!(violation.fingerprint, "domain-map-in-one-order/MAP-002/old-entry-again");
        assert_eq!(violation.excerpt.len(), 6);
    }

    #[test]
    fn an_older_entry_after_a_newer_one_violates() {
        let mut story = Story::new();
        story.does("alice", claim("acme"), entry("acme", 7));
        story.does("alice", claim("acme"), entry("acme", 8));
        story.does("bob", look(), entry("acme", 7));
        assert_eq!(judged(&story).ruling, Ruling::Violated);
    }

    #[test]
    fn an_owner_who_never_claimed_violates() {
        let mut story = Story::new();
        story.does("bob", look(), entry("acme", 7));
        story.does("carol", look(), entry("acme", 7));
        let violation = &judged(&story).violations[0];
        assert_eq!(violation.fingerprint, "domain-map-in-one-order/MAP-002/entry-from-nowhere");
    }

    #[test]
    fn a_claim_whose_answer_is_lost_may_have_been_made_or_not() {
        let mut story = Story::new();
        let asked = story.asks("alice", claim("acme"));
        story.returns(asked, Outcome::Unknown {});
        story.is_refused("carol", look(), Code::DomainUnclaimed);
        assert_eq!(judged(&story).ruling, Ruling::Unknown, "nothing to compare it with");
        story.does("bob", look(), entry("acme", 7));
        assert_eq!(judged(&story).ruling, Ruling::Holds);
    }

    #[test]
    fn one_question_is_no_case() {
        let mut story = Story::new();
        story.does("bob", look(), entry("acme", 7));
        assert!(judged(&story).had_no_case());
    }
}
