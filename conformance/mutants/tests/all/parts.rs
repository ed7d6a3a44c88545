//! Whoever hears a history circle by circle judges as one who hears it as a whole.

use std::collections::BTreeSet;

use fusion_conformance::catalogue::{Proof, catalogue};
use fusion_deployment::Hooks;
use fusion_history::{Ruling, Verdict, judge_all, judge_in_parts};
use fusion_mutants::MUTANTS;
use fusion_sim::engines::fabric::{Options, hosts};
use fusion_sim::library::Library;
use fusion_sim::outcome::{Outcome, judged};
use fusion_sim::plan::{Mode, Plan};

/// What one judge says, as far as it is the same in any order.
type Said = (String, Ruling, u64, u64, BTreeSet<String>);

fn said(verdicts: &[Verdict]) -> Vec<Said> {
    let said = verdicts.iter().map(|verdict| {
        let kinds = verdict.violations.iter().map(|violation| violation.fingerprint.clone()).collect();
        (verdict.judge.clone(), verdict.ruling, verdict.reached, verdict.violated, kinds)
    });
    said.collect()
}

fn story(scenario: &str, hooks: Hooks) -> Outcome {
    let scenario = Library::nearest().unwrap().find(scenario).unwrap();
    let plan = Plan::new(&scenario, &hosts(&scenario.topology).unwrap(), 1, Mode::Story);
    judged(&plan, &Options { hooks, wire: false })
}

#[test]
fn every_scenario_is_judged_the_same_in_parts() {
    for scenario in Library::nearest().unwrap().all().unwrap() {
        let outcome = story(&scenario.name, Hooks::default());
        let (whole, parts) = (judge_all(&outcome.history), judge_in_parts(&outcome.history, 1));
        assert_eq!(said(&parts), said(&whole), "{}", scenario.name);
    }
}

#[test]
fn what_a_judge_finds_in_a_faulty_deployment_it_finds_in_parts() {
    let mut violated = 0;
    for entry in &catalogue().mutants {
        let Proof::Judge { scenario, .. } = &entry.proof else { continue };
        let hooks = MUTANTS.iter().find(|mutant| mutant.name == entry.name).unwrap().hooks;
        let outcome = story(scenario, hooks());
        let (whole, parts) = (judge_all(&outcome.history), judge_in_parts(&outcome.history, 1));
        assert_eq!(said(&parts), said(&whole), "{} in {scenario}", entry.name);
        violated += usize::from(whole.iter().any(|verdict| verdict.ruling == Ruling::Violated));
    }
    assert!(violated > 40, "only {violated} are seen in the story");
}
