//! Whatever is wrong with a scenario is answered with place, expectation and suggestion; never a panic.

use std::path::Path;

use fusion_sim::library::Library;
use fusion_sim::scenario::Scenario;
use proptest::prelude::*;

const GOOD: &str = r#"
title = "Two people"
requirements = ["RDV-001"]

[[topology.orgs]]
name = "acme"
domains = ["acme.example"]
clusters = [{ name = "a" }]

[[topology.users]]
address = "alice@acme.example"
cluster = "a"

[[topology.users]]
address = "bob@acme.example"
cluster = "a"

[[step]]
id = "create"
by = "alice"
at = "1s"
do = "create"
chat = "ours"
with = ["bob"]

[[fault]]
after = ["create"]
for = "2s"
fault = { kind = "crash", host = "a" }
"#;

fn mistake(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    Scenario::parse(Path::new("two.toml"), &GOOD.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn the_good_one_is_good() {
    let scenario = Scenario::parse(Path::new("two.toml"), GOOD).unwrap();
    assert_eq!((scenario.steps.len(), scenario.faults.len()), (1, 1));
}

#[test]
fn a_scenario_is_found_by_its_name_and_its_folders_name_and_no_others() {
    let library = Library::nearest().unwrap();
    assert_eq!(library.find("one-to-one-race").unwrap().name, "one-to-one-race");
    assert_eq!(library.find("conversation/one-to-one-race").unwrap().name, "one-to-one-race");
    let mistake = library.find("locus/one-to-one-race").unwrap_err().to_string();
    assert!(mistake.contains("there is no scenario \"locus/one-to-one-race\""), "{mistake}");
}

#[test]
fn an_unknown_key() {
    insta::assert_snapshot!(mistake("at = \"1s\"", "att = \"1s\""));
}

#[test]
fn a_wrong_unit() {
    insta::assert_snapshot!(mistake("at = \"1s\"", "at = \"1 sec0nd\""));
}

#[test]
fn a_number_without_unit() {
    insta::assert_snapshot!(mistake("at = \"1s\"", "at = 1"));
}

#[test]
fn an_unknown_verb() {
    insta::assert_snapshot!(mistake("do = \"create\"", "do = \"craete\""));
}

#[test]
fn a_missing_key() {
    insta::assert_snapshot!(mistake("chat = \"ours\"\n", ""));
}

#[test]
fn an_unknown_user() {
    insta::assert_snapshot!(mistake("with = [\"bob\"]", "with = [\"bop\"]"));
}

#[test]
fn an_unknown_step() {
    insta::assert_snapshot!(mistake("after = [\"create\"]", "after = [\"creates\"]"));
}

#[test]
fn an_impossible_topology() {
    insta::assert_snapshot!(mistake("cluster = \"a\"", "cluster = \"b\""));
}

#[test]
fn an_unknown_fault() {
    insta::assert_snapshot!(mistake("kind = \"crash\"", "kind = \"crush\""));
}

#[test]
fn a_fault_of_a_host_that_is_not_there() {
    let said = mistake("host = \"a\"", "host = \"provder\"");
    assert!(said.starts_with("two.toml:29: no host matches `provder`"), "{said}");
    assert!(said.contains("did you mean \"provider\"?"), "{said}");
}

#[test]
fn a_fault_between_hosts_that_are_not_there() {
    let fault = "kind = \"partition\", a = [\"a\"], b = [\"datacenter:mars\"]";
    let said = mistake("kind = \"crash\", host = \"a\"", fault);
    assert!(said.contains("no host matches `datacenter:mars`"), "{said}");
}

#[test]
fn a_probability_above_one() {
    let said = mistake("kind = \"crash\", host = \"a\"", "kind = \"loss\", probability = 7.0");
    assert!(said.contains("a probability is between 0 and 1, not 7"), "{said}");
}

#[test]
fn a_misspelt_family() {
    let swarm = "fault = { kind = \"crash\", host = \"a\" }\n[swarm]\nfamilies = [\"partitoin\"]";
    insta::assert_snapshot!(mistake("fault = { kind = \"crash\", host = \"a\" }", swarm));
}

#[test]
fn a_missing_file() {
    let said = Scenario::read(Path::new("no-such-folder/two.toml")).unwrap_err().to_string();
    assert!(said.starts_with("no-such-folder/two.toml: cannot be read"), "{said}");
}

proptest! {
    #[test]
    fn no_change_of_a_scenario_makes_it_panic(at in 0..GOOD.len(), cut in 0_usize..20, put in "[ -~\n]{0,12}") {
        let mut text: Vec<u8> = GOOD.as_bytes().to_vec();
        let end = (at + cut).min(text.len());
        text.splice(at..end, put.bytes());
        let _ = Scenario::parse(Path::new("two.toml"), &String::from_utf8_lossy(&text));
    }
}

#[test]
fn an_unknown_requirement() {
    insta::assert_snapshot!(mistake("\"RDV-001\"", "\"RDV-0001\""));
}
