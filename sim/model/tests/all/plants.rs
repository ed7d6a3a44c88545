//! Goal: a search finds what is wrong, by a shortest story, and finds nothing where nothing is. Method: each
//! bug is planted in its model with two clusters; the length of its story is known.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fusion_model::model::Kind;
use fusion_model::{ALL, Limits, Named, Report, Verdict};

/// Each bug, what it violates, and after how many steps. A shorter story is a better search, or a wider
/// model; a longer one is none of the shortest.
const FOUND: [(&str, &str, usize); 15] = [
    ("rank-backwards", "no two clusters compute different winners", 5),
    ("claim-forgotten", "at rest both have one conversation, with each activity once", 2),
    ("grant-forgotten", "whoever wrote something reads it, in order", 5),
    ("import-doubled", "whoever wrote something reads it, in order", 9),
    ("row-forgotten", "what is not answered stays in the outbox", 2),
    ("row-removed-early", "what is not answered stays in the outbox", 4),
    ("late-overwrites", "an index never goes back", 11),
    ("answered-before-kept", "what is not answered stays in the outbox", 7),
    ("leases-forgotten", "at rest there is no ghost in the call", 8),
    ("late-join-calls", "a call begins only for somebody who saw the last one end", 4),
    ("list-goes-back", "no active list goes back", 6),
    ("telling-forgotten", "at rest each list says what the locus says", 4),
    ("blind-write", "at most one org has been granted the domain", 6),
    ("commit-forgotten", "whoever was granted the domain has it until they give it up", 4),
    ("foreign-clusters", "a claim names clusters of the org that has it", 3),
];

fn limits(states_max: usize) -> Limits {
    Limits { states_max, stop: Arc::new(AtomicBool::new(false)) }
}

fn searched(model: Named, plant: Option<&str>, states_max: usize) -> Report {
    searched_in(2, model, plant, states_max)
}

fn searched_in(clusters: usize, model: Named, plant: Option<&str>, states_max: usize) -> Report {
    model.search(clusters, plant, &limits(states_max), |_, _| {}).unwrap()
}

#[test]
fn each_planted_bug_is_found_by_a_shortest_story() {
    let plants: Vec<_> = ALL.into_iter().flat_map(Named::plants).map(|plant| plant.name).collect();
    assert_eq!(plants, FOUND.map(|(name, _, _)| name), "each bug has its row");
    for (name, property, steps) in FOUND {
        let report = searched(Named::with_plant(name).unwrap(), Some(name), 2_000_000);
        let (judged, story) = report.violated().unwrap_or_else(|| panic!("{name} is not found"));
        assert_eq!((judged.words, story.steps.len()), (property, steps), "{name}");
        assert_eq!(report.verdict(), Verdict::Violated, "{name}");
    }
}

/// Whole searches are CI's step `model`; here as far as the longest story of a planted bug, and further.
#[test]
fn without_a_bug_nothing_is_found_as_far_as_the_bugs_lie() {
    for model in ALL {
        let report = searched(model, None, 60_000);
        let violated = report.properties.iter().find(|judged| judged.verdict == Verdict::Violated);
        assert_eq!(violated.map(|judged| judged.words), None, "{}", model.name());
    }
}

#[test]
fn the_race_of_a_pair_is_searched_wholly_and_is_not_empty() {
    let report = searched(Named::Pair, None, 2_000_000);
    assert!(report.whole && report.missing.is_empty());
    assert_eq!(report.verdict(), Verdict::Holds);
    let seen = report.properties.iter().filter(|judged| judged.kind == Kind::Sometimes);
    assert!(seen.clone().count() >= 3);
    assert!(seen.clone().all(|judged| judged.verdict == Verdict::Seen));
}

#[test]
fn the_same_search_visits_the_same_worlds() {
    let places = ALL.into_iter().flat_map(|model| [(model, 2), (model, 3)]);
    for (model, clusters) in places {
        let counts = || {
            let Report { worlds, transitions, depth, steps, .. } = searched_in(clusters, model, None, 50_000);
            (worlds, transitions, depth, steps)
        };
        assert_eq!(counts(), counts(), "{} in {clusters} clusters", model.name());
    }
}

#[test]
fn a_call_of_two_is_searched_wholly_and_is_not_empty() {
    let report = searched(Named::Locus, None, 2_000_000);
    assert!(report.whole && report.missing.is_empty());
    assert_eq!(report.verdict(), Verdict::Holds);
    assert_eq!(report.worlds, 43_728, "another machine, another model, or worlds taken for one that are not");
}

#[test]
fn a_search_that_is_cut_short_says_that_it_is_open() {
    let report = searched(Named::Pair, None, 3_000);
    assert!(!report.whole);
    assert_eq!(report.verdict(), Verdict::Open);
    let stop = Limits { stop: Arc::new(AtomicBool::new(true)), ..limits(usize::MAX) };
    let report = Named::Pair.search(2, None, &stop, |_, _| {}).unwrap();
    assert_eq!(report.verdict(), Verdict::Open);
}

#[test]
fn an_unknown_name_is_told_with_what_there_is() {
    let unknown = Named::find("pears").unwrap_err().to_string();
    assert!(unknown.contains("do you mean pair?") && unknown.contains("domain-claim"), "{unknown}");
    let unknown = Named::with_plant("rank-backward").unwrap_err().to_string();
    assert!(unknown.contains("do you mean rank-backwards?"), "{unknown}");
    assert!(Named::Locus.search(2, Some("rank-backwards"), &limits(1), |_, _| {}).is_err());
}
