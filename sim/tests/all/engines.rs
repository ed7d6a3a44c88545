//! The same plan on other networks than our own: what they play, what they refuse, and that they can be
//! believed.

use fusion_deployment::Hooks;
use fusion_history::{Ruling, first_difference};
use fusion_sim::compare::{Comparison, Engine, common};
use fusion_sim::engines::turmoil;
use fusion_sim::fabric::{Fault, Place, Shape};
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::scenario::FAMILIES;

use crate::stories::{self, CHAT, WHILE_CUT};
use crate::{Said, program_with_scenarios, scratch};

/// Bob's cluster crashes besides.
const AND_CRASH: &str = r#"
[[fault]]
id = "crash"
after = ["say"]
for = "2s"
fault = { kind = "crash", host = "b" }
"#;

/// A chat across a line that is cut, and a cluster that crashes.
fn story() -> String {
    [CHAT, WHILE_CUT, AND_CRASH].concat()
}

fn plan(seed: u64, mode: Mode) -> Plan {
    stories::plan(&common(&stories::scenario("cut", &story())), seed, mode)
}

/// The story, where this goes wrong instead of the cut.
fn with(fault: Fault) -> Plan {
    let mut plan = plan(1, Mode::Story);
    plan.faults[0].fault = fault;
    plan
}

fn sim(arguments: &[&str]) -> Said {
    let file = scratch("cut.toml");
    std::fs::write(&file, story()).unwrap();
    Said::by(program_with_scenarios().arg(arguments[0]).arg(file).args(&arguments[1..]))
}

#[test]
fn the_same_plan_gives_the_same_history_on_turmoil_here_and_in_another_process() {
    let plan = plan(3, Mode::Swarm);
    let [first, second] = [(); 2].map(|()| turmoil::judged(&plan, &Hooks::default()).unwrap());
    assert_eq!(first.ruling, Ruling::Holds, "{}", first.explain());
    let difference = first_difference(&first.history, &second.history);
    assert!(difference.is_none(), "{}", difference.unwrap());

    let there = sim(&["run", "--seed", "3", "--swarm", "--engine", "turmoil", "--json"]);
    let line = &there.lines()[0];
    assert_eq!((&line["engine"], &line["hash"]), (&"turmoil".into(), &first.hash.into()));
}

#[test]
fn other_seeds_are_other_runs_on_turmoil() {
    let [one, other] =
        [1, 2].map(|seed| turmoil::judged(&plan(seed, Mode::Swarm), &Hooks::default()).unwrap());
    assert_ne!(one.hash, other.hash);
}

#[test]
fn a_partition_and_a_crash_are_judged_alike_on_fabric_and_turmoil() {
    let engines = [Engine::Fabric, Engine::Turmoil, Engine::Live];
    let compared = Comparison::of(&plan(1, Mode::Story), &engines, &Hooks::default());
    assert_eq!(compared.ruling(), Ruling::Holds, "{:?}", compared.differences);
    let engines: Vec<_> = compared.outcomes.iter().map(|outcome| outcome.engine).collect();
    assert_eq!(engines, ["fabric", "turmoil"]);
    let refused = (Engine::Live, "the live engine cannot express `partition` (fault cut)".to_owned());
    assert_eq!(compared.refused, [refused]);
    for outcome in &compared.outcomes {
        let effective = |family| outcome.faults[family].effective;
        assert_eq!((effective("partition"), effective("crash")), (1, 1), "on {}", outcome.engine);
    }
}

#[test]
fn what_turmoil_cannot_express_is_refused_by_name() {
    let everywhere = || vec![Place::Everywhere];
    let refused = [
        (Fault::SlowDisk { host: Place::Host("a".into()), add_ms: 5 }, "`slow_disk`"),
        (Fault::Pause { host: Place::Host("a".into()) }, "`pause`"),
        (Fault::Duplicate { from: everywhere(), to: everywhere(), probability: 0.5 }, "`duplicate`"),
        (Fault::ResetConnections { a: everywhere(), b: everywhere() }, "`reset_connections`"),
        (Fault::Mtu { from: everywhere(), to: everywhere(), bytes: 576 }, "`mtu`"),
        (
            Fault::Latency {
                from: everywhere(),
                to: everywhere(),
                add_ms: 5,
                jitter_ms: 5,
                shape: Shape::Tail,
            },
            "`latency` with a `shape` of its own",
        ),
        (
            Fault::Partition { a: vec![Place::Host("alice/phone".into())], b: everywhere() },
            "`partition` of `alice/phone`, for all devices share one machine",
        ),
        (
            Fault::Crash { host: Place::Everywhere },
            "`crash` of `*`, for all devices share one machine that must stay",
        ),
    ];
    for (fault, what) in refused {
        let plan = with(fault);
        let said = turmoil::judged(&plan, &Hooks::default()).unwrap_err().to_string();
        assert_eq!(said, format!("turmoil cannot express {what} (fault cut)"));
    }
}

#[test]
fn a_swarm_on_turmoil_draws_only_what_it_can_express() {
    let families: Vec<_> = FAMILIES.iter().filter(|family| turmoil::FAMILIES.contains(*family)).collect();
    assert_eq!(families, [&"crash", &"latency", &"loss", &"partition", &"partition_one_way"]);
    for seed in 1..=200 {
        assert_eq!(turmoil::refusal(&plan(seed, Mode::Swarm)), None, "seed {seed}");
    }
}

#[test]
fn a_refused_plan_is_an_error_before_anything_is_played() {
    let Said { code, out, err } = sim(&["run", "--engine", "live"]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("the live engine cannot express `partition` (fault cut)"), "{err}");
}

#[test]
fn a_comparison_of_fewer_plans_than_wanted_says_so() {
    let said = sim(&["compare", "--seeds", "0", "--at-least", "2", "--json"]);
    assert_eq!(said.code, 3, "{}{}", said.out, said.err);
    assert!(said.err.contains("1 pairs were compared; at least 2 are wanted"), "{}", said.err);
    let lines = said.lines();
    assert_eq!(lines[0]["engines"], serde_json::json!(["fabric", "turmoil"]));
    assert_eq!((&lines[1]["compared"], &lines[1]["equal"]), (&1.into(), &1.into()));
}
