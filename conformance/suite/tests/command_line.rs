//! The program as people and machines meet it: its exit codes, its complaints, its lists.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::path::Path;
use std::process::{Command, Output};

use fusion_runtime::tls::TestCa;

fn conformance(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fusion-conformance")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A target file for a cluster that nobody runs, in `folder`.
fn nobody(folder: &Path) -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    std::fs::write(folder.join("ca.pem"), TestCa::generate().unwrap().ca_pem()).unwrap();
    let file = folder.join("target.toml");
    let text = format!(
        "provider = \"provider.example\"\n\
         template = \"https://{{cluster}}-{{service}}.{{provider}}:{port}\"\nca = \"ca.pem\"\n\
         [resolve]\n\"a-*.provider.example\" = [\"127.0.0.1\"]\n\
         [[cluster]]\nname = \"a\"\norg = \"acme\"\n\
         [org.acme]\ndomains = [\"acme.example\"]\nissuer = \"https://idp.acme.example\"\nkey_seed = \"{}\"\n",
        "07".repeat(32)
    );
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_target_that_nobody_answers_for_ends_with_5_and_all_reports() {
    let folder = tempfile::tempdir().unwrap();
    let target = nobody(folder.path());
    let (junit, html) = (folder.path().join("report.xml"), folder.path().join("report.html"));
    let reports = ["--junit", junit.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let output = conformance(&[&["--target", &target, "--json"][..], &reports[..]].concat());
    assert_eq!(output.status.code(), Some(5), "{}", complained(&output));
    let said = said(&output);
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&last["kind"], &last["conclusion"]), (&"summary".into(), &"unreachable".into()));
    assert!(std::fs::read_to_string(junit).unwrap().contains("<testsuites"));
    assert!(std::fs::read_to_string(html).unwrap().contains("unreachable"));
}

#[test]
fn a_mistake_in_the_target_file_ends_with_2_and_says_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let target = nobody(folder.path());
    let text = std::fs::read_to_string(&target).unwrap().replace("[resolve]", "[resolv]");
    std::fs::write(&target, text).unwrap();
    let output = conformance(&["--target", &target]);
    assert_eq!(output.status.code(), Some(2));
    let complained = complained(&output);
    assert!(complained.contains("target.toml:4") && complained.contains("did you mean"), "{complained}");
}

#[test]
fn a_missing_target_file_and_an_unknown_check_end_with_2() {
    assert_eq!(conformance(&["--target", "nowhere.toml"]).status.code(), Some(2));
    assert_eq!(conformance(&[]).status.code(), Some(2));
    let folder = tempfile::tempdir().unwrap();
    let target = nobody(folder.path());
    let output = conformance(&["--target", &target, "--only", "XYZ"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(complained(&output).contains("--list"));
}

#[test]
fn the_list_has_one_line_a_check_for_people_and_for_machines() {
    let people = conformance(&["--list", "--only", "SEC-003"]);
    assert!(people.status.success());
    insta::assert_snapshot!(said(&people));
    let machines = conformance(&["--list", "--json"]);
    let rows: Vec<serde_json::Value> =
        said(&machines).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), fusion_conformance::catalogue::catalogue().checks.len());
    assert!(rows.iter().all(|row| row["level"] == "MUST"));
}

#[test]
fn the_explained_target_file_is_one() {
    let output = conformance(&["--explain-target"]);
    assert!(output.status.success());
    assert_eq!(said(&output), fusion_conformance::target::file::EXAMPLE);
}

#[test]
fn help_teaches_by_examples_and_lists_the_exit_codes() {
    let help = said(&conformance(&["--help"]));
    assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
}
