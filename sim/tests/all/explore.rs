//! Generated worlds on the command line: what is explored is told, and what is told can be played again.

use serde_json::Value;

use crate::{Said, program_with_scenarios, scratch};

fn sim(arguments: &[&str]) -> Said {
    Said::by(program_with_scenarios().args(arguments))
}

fn explored(jobs: &str) -> (i32, Vec<Value>) {
    let said = sim(&["--json", "--jobs", jobs, "explore", "--seeds", "6", "--clusters-max", "2"]);
    (said.code, said.lines())
}

#[test]
fn an_expedition_is_the_same_on_one_core_and_on_two() {
    let ((code, one), (_, two)) = (explored("1"), explored("2"));
    assert_eq!((code, &one[0]["seeds"], &one[0]["verdict"]), (0, &Value::from(6), &Value::from("holds")));
    assert_eq!(one[0]["hash"], two[0]["hash"]);
    assert_eq!(one.last(), two.last());
    let told = one.last().unwrap();
    assert!(told["fingerprints"].as_u64().unwrap() > 100, "{told}");
    assert!(told["clusters"][1].as_u64().unwrap() <= 2, "{told}");
    let missing = told["never_reached"].as_array().unwrap().len() as u64;
    assert!(missing > 0 && missing < told["marks"].as_u64().unwrap(), "{told}");
}

#[test]
fn every_mark_is_listed_with_its_count() {
    let said = sim(&["--json", "explore", "--seeds", "1", "--clusters-max", "2", "--marks"]);
    let marks: Vec<Value> = said.lines().into_iter().filter(|line| line.get("mark").is_some()).collect();
    assert_eq!(marks.len(), fusion_sim::coverage::marks().len());
    let judged = marks.iter().find(|mark| mark["mark"] == "judged same-resolution-everywhere").unwrap();
    assert_eq!((&judged["runs"], &judged["exempt"]), (&Value::from(1), &Value::Null));
}

/// What explore tells of a run is what `run` plays.
#[test]
fn a_generated_world_is_played_by_its_name() {
    let told = explored("2").1;
    let mut hashes = String::new();
    for seed in 1..=6 {
        let (name, seed) = (format!("generated-{seed}-of-2"), seed.to_string());
        let said = sim(&["--json", "run", &name, "--seed", &seed, "--swarm"]);
        assert_eq!(said.code, 0, "{}", said.out);
        hashes.push_str(said.lines()[0]["hash"].as_str().unwrap());
    }
    let all = <sha2::Sha256 as sha2::Digest>::digest(hashes.as_bytes());
    let all: String = all.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(told[0]["hash"], Value::from(all));
}

#[test]
fn a_generated_scenario_is_printed_as_the_file_that_plays_the_same() {
    let file = scratch("generated-7-of-3.toml");
    let Said { code, out: text, .. } = sim(&["scenario", "generated-7-of-3"]);
    assert_eq!(code, 0);
    std::fs::write(&file, text).unwrap();
    let plan = |scenario: &str| {
        let mut plan: Value = serde_json::from_str(&sim(&["plan", scenario, "--seed", "7"]).out).unwrap();
        // A plan says which file it was made from.
        plan.as_object_mut().unwrap().remove("file");
        plan
    };
    assert_eq!(plan(file.to_str().unwrap()), plan("generated-7-of-3"));
    assert!(sim(&["scenario", "7"]).out.starts_with("# Generated from seed 7: "));
}

#[test]
fn no_worlds_and_too_many_clusters_are_refused() {
    assert_eq!(sim(&["explore", "--seeds", "0"]).code, 2);
    assert_eq!(sim(&["explore", "--clusters-max", "31"]).code, 2);
    assert_eq!(sim(&["explore", "--for", "soon"]).code, 2);
    assert_eq!(sim(&["run", "generated-1-of-31"]).code, 2);
}
