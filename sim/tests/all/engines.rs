//! The same plan on other networks than our own: what they play, what they refuse, and that they can be
//! believed.

use std::path::Path;
use std::process::Output;

use fusion_deployment::Hooks;
use fusion_history::{Ruling, first_difference};
use fusion_sim::compare::{Comparison, Engine, common};
use fusion_sim::engines::fabric::hosts;
use fusion_sim::engines::turmoil;
use fusion_sim::fabric::{Fault, Place, Shape};
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::scenario::{FAMILIES, Scenario};

use crate::{program_with_scenarios, scratch};

/// A chat across a line that is cut, and a home that crashes.
const CUT: &str = r#"
title = "A message over a line that is cut"
requirements = ["RDV-001"]
act = "12s"
settle = "20s"

[[topology.orgs]]
name = "acme"
domains = ["acme.example"]
clusters = [{ name = "a" }]

[[topology.orgs]]
name = "globex"
domains = ["globex.example"]
clusters = [{ name = "b", relays = 0 }]

[[topology.users]]
address = "alice@acme.example"
cluster = "a"

[[topology.users]]
address = "bob@globex.example"
cluster = "b"

[[step]]
id = "create"
by = "alice"
at = "100ms"
jitter = "1s"
do = "create"
chat = "ours"
with = ["bob"]

[[step]]
id = "say"
by = "alice"
after = ["create"]
delay = "500ms"
do = "say"
chat = "ours"
text = "hello over the cut line"

[[fault]]
id = "cut"
after = ["create"]
for = "3s"
fault = { kind = "partition", a = ["a"], b = ["b"] }

[[fault]]
id = "crash"
after = ["say"]
for = "2s"
fault = { kind = "crash", host = "b" }
"#;

fn plan(seed: u64, mode: Mode) -> Plan {
    let scenario = common(&Scenario::parse(Path::new("cut.toml"), CUT).unwrap());
    Plan::new(&scenario, &hosts(&scenario.topology).unwrap(), seed, mode)
}

/// The story of [`CUT`], where this goes wrong, too.
fn with(fault: Fault) -> Plan {
    let mut plan = plan(1, Mode::Story);
    plan.faults[0].fault = fault;
    plan
}

fn sim(arguments: &[&str]) -> Output {
    let file = scratch("cut.toml");
    std::fs::write(&file, CUT).unwrap();
    program_with_scenarios().arg(arguments[0]).arg(file).args(&arguments[1..]).output().unwrap()
}

#[test]
fn the_same_plan_gives_the_same_history_on_turmoil_here_and_in_another_process() {
    let plan = plan(3, Mode::Swarm);
    let [first, second] = [(); 2].map(|()| turmoil::judged(&plan, &Hooks::default()).unwrap());
    assert_eq!(first.ruling, Ruling::Holds, "{}", first.explain());
    let difference = first_difference(&first.history, &second.history);
    assert!(difference.is_none(), "{}", difference.unwrap());

    let there = sim(&["run", "--seed", "3", "--swarm", "--engine", "turmoil", "--json"]);
    let line: serde_json::Value = serde_json::from_slice(&there.stdout).unwrap();
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
    let output = sim(&["run", "--engine", "live"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("the live engine cannot express `partition` (fault cut)"), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_comparison_of_fewer_plans_than_wanted_says_so() {
    let output = sim(&["compare", "--seeds", "0", "--at-least", "2", "--json"]);
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(3), "{said}{told}");
    assert!(told.contains("1 pairs were compared; at least 2 are wanted"), "{told}");
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["engines"], serde_json::json!(["fabric", "turmoil"]));
    assert_eq!((&lines[1]["compared"], &lines[1]["equal"]), (&1.into(), &1.into()));
}
