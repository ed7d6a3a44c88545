//! A sweep in parts tells what the sweep in one piece tells, and what is missing or wrong in its files is
//! told by name; one that is stopped keeps what it has.
//!
//! Each test starts the program itself.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::stories::{CHAT, ONLY_LATENCY};
use crate::{Said, program};

/// The clusters are cut from each other to the end, and have no time to come to rest: this seldom holds.
const TO_THE_END: &str = r#"
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
        std::fs::write(folder.path().join("scenarios/chat.toml"), [scenario, ONLY_LATENCY].concat()).unwrap();
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

    fn said(&self, arguments: &[&str]) -> Said {
        Said::by(&mut self.sim(arguments))
    }

    /// The results of each of three shards of `seeds` seeds, `0.jsonl` to `2.jsonl`.
    fn shards(&self, seeds: &str) {
        for n in 0..3 {
            let (shard, file) = (format!("{n}/3"), format!("{n}.jsonl"));
            let Said { code, out: said, err: error } =
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
fn lasting(said: &Said) -> Vec<Value> {
    let mut lines = said.lines();
    for line in &mut lines {
        line.as_object_mut().unwrap().remove("wall_s");
    }
    lines
}

#[test]
fn shards_put_together_tell_what_one_sweep_tells() {
    let place = Place::with(CHAT);
    let whole = place.said(&["--json", "sweep", "chat", "--seeds", "7", "--swarm"]);
    assert_eq!(whole.code, 0, "{}", whole.out);
    place.shards("7");
    let merged = place.said(&["--json", "merge", "2.jsonl", "0.jsonl", "1.jsonl"]);
    assert_eq!(merged.code, 0, "{}{}", merged.out, merged.err);
    let whole = lasting(&whole);
    assert_eq!(lasting(&merged), whole);
    assert_eq!((&whole[0]["seeds"], &whole[0]["distinct"]), (&7.into(), &7.into()));

    let Said { code, out, err: error } = place.said(&["merge", "2.jsonl", "0.jsonl"]);
    assert_eq!(code, 3, "{out}{error}");
    assert!(error.contains("shard 1/3: 3 of its seeds are missing: 1, 4, 7"), "{error}");
}

#[test]
fn a_file_that_is_corrupt_is_told_with_line_and_offset() {
    let place = Place::with(CHAT);
    place.shards("3");
    place.change("1.jsonl", |text| text.replacen("\"events\":", "\"events\":x", 1));
    let Said { code, err: error, .. } = place.said(&["merge", "0.jsonl", "1.jsonl", "2.jsonl"]);
    let text = std::fs::read_to_string(place.file("1.jsonl")).unwrap();
    let offset = text.find("x").unwrap();
    assert_eq!(code, 2);
    assert!(error.contains(&format!("1.jsonl:2, offset {offset}: ")), "{error}");
    place.change("1.jsonl", |text| {
        text.replacen("\"events\":x", "\"events\":", 1)[..text.len() - 20].to_owned()
    });
    let Said { code, err: error, .. } = place.said(&["merge", "0.jsonl", "1.jsonl", "2.jsonl"]);
    assert!(code == 2 && error.contains("1.jsonl:2, offset ") && error.contains("within a line"), "{error}");
    place.change("1.jsonl", |_| String::new());
    let Said { code, err: error, .. } = place.said(&["merge", "0.jsonl", "1.jsonl", "2.jsonl"]);
    assert!(code == 2 && error.contains("the file is empty"), "{error}");
}

#[test]
fn files_of_other_sweeps_and_the_same_twice_are_refused() {
    let place = Place::with(CHAT);
    place.shards("3");
    let Said { code, err: error, .. } = place.said(&["merge", "0.jsonl", "1.jsonl", "0.jsonl"]);
    assert!(code == 2 && error.contains("shard 0/3 is in 0.jsonl and in 0.jsonl"), "{error}");
    for (from, to, what) in [
        ("\"seeds\":3", "\"seeds\":4", "the number of seeds is 3 from 1 on in the one and 4 from 1 on"),
        ("\"mode\":\"swarm\"", "\"mode\":\"story\"", "the mode is swarm in the one and story"),
        ("\"build\":\"", "\"build\":\"x", "the build is "),
        ("\"shard\":\"1/3\"", "\"shard\":\"1/5\"", "the number of shards is 3 in the one and 5"),
    ] {
        place.change("1.jsonl", |text| text.replacen(from, to, 1));
        let Said { code, err: error, .. } = place.said(&["merge", "0.jsonl", "1.jsonl", "2.jsonl"]);
        assert!(code == 2 && error.contains("0.jsonl and 1.jsonl are not of one sweep"), "{error}");
        assert!(error.contains(what), "{error}");
        place.change("1.jsonl", |text| text.replacen(to, from, 1));
    }
    let Said { code, err: error, .. } = place.said(&["sweep", "chat", "--seeds", "3", "--shard", "3/3"]);
    assert!(code == 2 && error.contains("such as 0/4"), "{error}");
}

#[test]
fn ctrl_c_keeps_what_a_sweep_has_found() {
    let place = Place::with(&(CHAT.replace("settle = \"30s\"", "settle = \"1ms\"") + TO_THE_END));
    let mut sweep = place.sim(&["sweep", "chat", "--seeds", "1000000", "--results", "all.jsonl"]);
    let sweep = sweep.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    await_violation(&place.file("all.jsonl"), &sweep);
    let interrupted = Command::new("kill").args(["-INT", &sweep.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let Said { code, out: said, err: error } = Said::of(sweep.wait_with_output().unwrap());
    assert_eq!(code, 1, "{said}{error}");
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
