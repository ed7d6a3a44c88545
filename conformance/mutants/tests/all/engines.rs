//! A faulty deployment is found out on whichever network it runs.

use fusion_history::Ruling;
use fusion_mutants::MUTANTS;
use fusion_sim::compare::{Comparison, Engine};
use fusion_sim::engines::fabric::hosts;
use fusion_sim::library::Library;
use fusion_sim::plan::{Mode, Plan};

#[test]
fn a_faulty_deployment_is_caught_on_fabric_and_on_turmoil() {
    let faulty = [
        ("answers-before-durable", "killed-after-every-word", "acknowledged-activity-lost"),
        ("asks-provider-first", "provider-unreachable", "failed-without-the-provider"),
    ];
    for (mutant, scenario, kind) in faulty {
        let scenario = Library::nearest().unwrap().find(scenario).unwrap();
        let plan = Plan::new(&scenario, &hosts(&scenario.topology).unwrap(), 1, Mode::Story);
        let hooks = MUTANTS.iter().find(|known| known.name == mutant).unwrap().hooks;
        let compared = Comparison::of(&plan, &[Engine::Fabric, Engine::Turmoil], &hooks());
        assert_eq!((compared.outcomes.len(), compared.ruling()), (2, Ruling::Violated), "{mutant}");
        for outcome in &compared.outcomes {
            let mut violations = outcome.verdicts.iter().flat_map(|verdict| &verdict.violations);
            let found = violations.any(|violation| violation.fingerprint.ends_with(kind));
            assert!(found, "{mutant} is not caught on {}: {}", outcome.engine, outcome.explain());
        }
    }
}
