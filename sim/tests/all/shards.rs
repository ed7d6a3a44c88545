//! A sweep in parts tells what the sweep in one piece tells, and what is missing or wrong in its files is
//! told by name; one that is stopped keeps what it has.
//!
//! Each test starts the program itself.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::program;

/// Alice writes to Bob, who lives elsewhere.
const CHAT: &str = r#"
title = "A message to another org"
requirements = ["CNV-001"]
act = "4s"
settle = "30s"
swarm = { families = ["latency"] }

[[topology.orgs]]
name = "acme"
domains = ["acme.example"]
clusters = [{ name = "a", relays = 0 }]

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
do = "say"
chat = "ours"
text = "hello"
"#;

/// The clusters are cut from each other to the end, and have no time to come to rest: this seldom holds.
const CUT: &str = r#"
[[fault]]
after = ["create"]
for = "10s"
fault = { kind = "partition", a = ["a"], b = ["b"] }
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn with(scenario: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("scenarios")).unwrap();
        std::fs::write(folder.path().join("scenarios/chat.toml"), scenario).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn sim(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.arg("--scenarios").arg(self.file("scenarios")).args(arguments).current_dir(self.0.path());
        command
    }

    fn said(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.sim(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    /// The results of each of three shards of `seeds` seeds, `0.jsonl` to `2.jsonl`.
    fn shards(&self, seeds: &str) {
        for n in 0..3 {
            let (shard, file) = (format!("{n}/3"), format!("{n}.jsonl"));
            let (code, said, error) =
                self.said(&["sweep", "chat", "--seeds", seeds, "--shard", &shard, "--results", &file]);
            assert_eq!(code, 0, "{said}{error}");
        }
    }

    fn change(&self, file: &str, change: impl FnOnce(String) -> String) {
        let path = self.file(file);
        let text = change(std::fs::read_to_string(&path).unwrap());
        std::fs::write(path, text).unwrap();
    }
}

/// The lines that machines read, without what depends on the hour.
fn lines(said: &str) -> Vec<Value> {
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("wall_s");
        line
    };
    said.lines().map(line).collect()
}

#[test]
fn shards_put_together_tell_what_one_sweep_tells() {
    let place = Place::with(CHAT);
    let (code, whole, _) = place.said(&["--json", "sweep", "chat", "--seeds", "7"]);
    assert_eq!(code, 0, "{whole}");
    place.shards("7");
    let (code, merged, error) = place.said(&["--json", "merge", "2.jsonl", "0.jsonl", "1.jsonl"]);
    assert_eq!(code, 0, "{merged}{error}");
    assert_eq!(lines(&merged), lines(&whole));
    assert_eq!((&lines(&whole)[0]["seeds"], &lines(&whole)[0]["distinct"]), (&7.into(), &7.into()));

    let (code, merged, error) = place.said(&["merge", "2.jsonl", "0.jsonl"]);
    assert_eq!(code, 3, "{merged}{error}");
    assert!(error.contains("shard 1/3: 3 of its seeds are missing: 1, 4, 7"), "{error}");
}

#[test]
fn a_file_that_is_corrupt_is_told_with_line_and_offset() {
    let place = Place::with(CHAT);
    place.shards("3");
    place.change("1.jsonl", |text| text.replacen("\"events\":", "\"events\":x", 1));
    let (code, _, error) = place.said(&["merge", "0.jsonl", "1.jsonl", "2.jsonl"]);
    let text = std::fs::read_to_string(place.file("1.jsonl")).unwrap();
    let offset = text.find("x").unwrap();
    assert_eq!(code, 2);
    assert!(error.contains(&format!("1.jsonl:2, offset {offset}: ")), "{error}");
    place.change("1.jsonl", |text| {
        text.replacen("\"events\":x", "\"events\":", 1)[..text.len() - 20].to_owned()
    });
    let (code, _, error) = place.said(&["merge", "0.jsonl", "1.jsonl", "2.jsonl"]);
    assert!(code == 2 && error.contains("1.jsonl:2, offset ") && error.contains("within a line"), "{error}");
    place.change("1.jsonl", |_| String::new());
    let (code, _, error) = place.said(&["merge", "0.jsonl", "1.jsonl", "2.jsonl"]);
    assert!(code == 2 && error.contains("the file is empty"), "{error}");
}

#[test]
fn files_of_other_sweeps_and_the_same_twice_are_refused() {
    let place = Place::with(CHAT);
    place.shards("3");
    let (code, _, error) = place.said(&["merge", "0.jsonl", "1.jsonl", "0.jsonl"]);
    assert!(code == 2 && error.contains("shard 0/3 is in 0.jsonl and in 0.jsonl"), "{error}");
    for (from, to, what) in [
        ("\"seeds\":3", "\"seeds\":4", "the number of seeds is 3 from 1 on in the one and 4 from 1 on"),
        ("\"mode\":\"swarm\"", "\"mode\":\"story\"", "the mode is swarm in the one and story"),
        ("\"build\":\"", "\"build\":\"x", "the build is "),
        ("\"shard\":\"1/3\"", "\"shard\":\"1/5\"", "the number of shards is 3 in the one and 5"),
    ] {
        place.change("1.jsonl", |text| text.replacen(from, to, 1));
        let (code, _, error) = place.said(&["merge", "0.jsonl", "1.jsonl", "2.jsonl"]);
        assert!(code == 2 && error.contains("0.jsonl and 1.jsonl are not of one sweep"), "{error}");
        assert!(error.contains(what), "{error}");
        place.change("1.jsonl", |text| text.replacen(to, from, 1));
    }
    let (code, _, error) = place.said(&["sweep", "chat", "--seeds", "3", "--shard", "3/3"]);
    assert!(code == 2 && error.contains("such as 0/4"), "{error}");
}

#[test]
fn ctrl_c_keeps_what_a_sweep_has_found() {
    let place = Place::with(&(CHAT.replace("settle = \"30s\"", "settle = \"1ms\"") + CUT));
    let mut sweep = place.sim(&["sweep", "chat", "--seeds", "1000000", "--results", "all.jsonl"]);
    let sweep = sweep.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    await_violation(&place.file("all.jsonl"), &sweep);
    let interrupted = Command::new("kill").args(["-INT", &sweep.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let ended = sweep.wait_with_output().unwrap();
    let (said, error) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
    assert_eq!(ended.status.code(), Some(1), "{said}{error}");
    assert!(said.starts_with("violated chat"), "{said}");
    let kept = std::fs::read_to_string(place.file("all.jsonl")).unwrap().lines().count() - 1;
    assert!(error.contains(&format!("stopped after {kept} of 1000000 seeds")), "{error}");
    let bundles: Vec<_> = std::fs::read_dir(place.file("target/bundles")).unwrap().collect();
    assert!(!bundles.is_empty() && bundles.len() == error.matches("  bundle ").count(), "{error}");
}

/// The runs of a sweep are in the file as soon as they have ended.
#[expect(clippy::disallowed_methods, reason = "another process is waited for, outside of every world")]
fn await_violation(file: &Path, sweep: &Child) {
    for _ in 0..1_200 {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if text.contains("\"verdict\":\"violated\"") {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the sweep of process {} has shown no violation in two minutes", sweep.id());
}
