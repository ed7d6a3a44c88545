//! Bundles that are damaged, of another build, or made by somebody who means no good: each is answered with
//! file and place, none is played, nothing panics.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fusion_sim::bundle::{self, Bundle};
use fusion_sim::engines::fabric::{Options, hosts};
use fusion_sim::outcome::judged;
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::scenario::Scenario;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::{Said, program, root, scratch};

const STORY: &str = r#"
title = "Two neighbours"
requirements = ["RDV-001"]
act = "3s"
settle = "20s"

[[topology.orgs]]
name = "acme"
domains = ["acme.example"]
clusters = [{ name = "a", relays = 0 }]

[[topology.users]]
address = "alice@acme.example"
cluster = "a"

[[topology.users]]
address = "bob@acme.example"
cluster = "a"

[[step]]
id = "create"
by = "alice"
at = "100ms"
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

[[fault]]
id = "slow"
at = "1s"
for = "1s"
fault = { kind = "slow_disk", host = "a", add_ms = 20 }
"#;

/// The files of a bundle, as they were written.
struct Written {
    plan: Plan,
    files: [(&'static str, String); 3],
}

fn written() -> &'static Written {
    static WRITTEN: OnceLock<Written> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let file = folder("story").join("neighbours.toml");
        std::fs::write(&file, STORY).unwrap();
        let scenario = Scenario { file: Some(file.clone()), ..Scenario::read(&file).unwrap() };
        let plan = Plan::new(&scenario, &hosts(&scenario.topology).unwrap(), 1, Mode::Story);
        let outcome = judged(&plan, &Options::default());
        let written = bundle::write(&outcome, &folder("good"), "").unwrap();
        let text = |name| (name, std::fs::read_to_string(written.join(name)).unwrap());
        Written { plan, files: ["about.json", "plan.json", "history.jsonl"].map(text) }
    })
}

fn folder(name: &str) -> PathBuf {
    let folder = scratch(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The bundle in a folder of its own, one file of it changed.
fn changed(case: &str, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> PathBuf {
    let folder = folder(case);
    let mut change = Some(change);
    for (name, text) in &written().files {
        let bytes = text.clone().into_bytes();
        let bytes = if *name == file { change.take().unwrap()(bytes) } else { bytes };
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    folder
}

fn replaced(case: &str, file: &str, from: &str, to: &str) -> PathBuf {
    changed(case, file, |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(from), "{case}: {from}");
        text.replacen(from, to, 1).into_bytes()
    })
}

/// A bundle whose plan says something else, signed as though it had been played.
fn forged(case: &str, from: &str, to: &str) -> PathBuf {
    let folder = replaced(case, "plan.json", from, to);
    let hash =
        |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (before, after) =
        (hash(written().files[1].1.as_bytes()), hash(&std::fs::read(folder.join("plan.json")).unwrap()));
    let about = written().files[0].1.replace(&before, &after);
    std::fs::write(folder.join("about.json"), about).unwrap();
    folder
}

fn mistake(folder: &Path) -> String {
    format!("{:#}", Bundle::read(folder).unwrap_err())
}

fn sim(arguments: &[&str], folder: &Path) -> Said {
    let mut command = program();
    command.arg(arguments[0]).arg(folder).args(&arguments[1..]);
    Said::by(command.current_dir(root()))
}

#[test]
fn what_was_written_is_read_and_is_the_same_plan() {
    let folder = changed("same", "none", |_| unreachable!("no file has that name"));
    assert_eq!(Bundle::read(&folder).unwrap().plan, written().plan);
    assert!(written().plan.check().is_ok());
}

#[test]
fn a_file_that_is_damaged_is_answered_with_file_line_column_and_offset() {
    let plan = &written().files[1].1;
    let cut = plan.len() / 2;
    let damages: [(&str, PathBuf, &str); 6] = [
        ("cut", changed("cut", "plan.json", |bytes| bytes[..cut].to_vec()), &format!("(offset {cut})")),
        (
            "wrong type",
            replaced("type", "plan.json", "\"seed\": 1", "\"seed\": \"one\""),
            "plan.json, line 4, column 15 (offset ",
        ),
        (
            "unknown member",
            replaced("member", "plan.json", "\"seed\": 1", "\"sead\": 1"),
            "unknown field `sead`",
        ),
        (
            "no JSON",
            changed("about", "about.json", |_| b"{\n  !".to_vec()),
            "about.json, line 2, column 3 (offset 4)",
        ),
        (
            "an event that is none",
            replaced("event", "history.jsonl", "\"id\":3,", "\"id\":\"x\","),
            "history.jsonl: line 5, column 9 (offset ",
        ),
        (
            "empty",
            changed("empty", "history.jsonl", |_| Vec::new()),
            "line 1, column 1 (offset 0): there is nothing",
        ),
    ];
    for (what, folder, place) in damages {
        let said = mistake(&folder);
        assert!(said.contains(place), "{what}: {said}");
    }
}

#[test]
fn what_was_changed_without_breaking_its_form_is_found_out() {
    for (folder, said) in [
        (
            replaced("seed", "about.json", "\"seed\": 1", "\"seed\": 2"),
            "plan.json is of another run than about.json",
        ),
        (replaced("text", "plan.json", "hello", "hallo"), "plan.json was changed since it was written"),
        (
            replaced("host", "history.jsonl", "\"host\":\"engine\"", "\"host\":\"engine2\""),
            "the events are not those that the header's hash was made of",
        ),
        (
            changed("lines", "history.jsonl", |bytes| {
                let text = String::from_utf8(bytes).unwrap();
                text.lines().take(5).map(|line| format!("{line}\n")).collect::<String>().into_bytes()
            }),
            "line 6, column 1 (offset ",
        ),
        (
            replaced("form", "about.json", "fusion-bundle-2", "fusion-bundle-9"),
            "the format is \"fusion-bundle-9\"",
        ),
    ] {
        let told = mistake(&folder);
        assert!(told.contains(said), "{told}");
    }
}

#[test]
fn a_plan_that_cannot_be_played_is_answered_with_what_and_where() {
    let many: String = (0..20_001)
        .map(|n| {
            format!(
                r#"{{"id":"f{n}","start":{{"at":"1s"}},"lasts":"1s","fault":{{"kind":"pause","host":"a"}}}},"#
            )
        })
        .collect();
    let all = format!("\"faults\": [\n    {many}");
    for (case, from, to, said) in [
        ("fault-host", "\"host\": \"a\"", "\"host\": \"mars\"", "fault \"slow\": no host matches `mars`"),
        ("fault-group", "\"host\": \"a\"", "\"host\": \"group:b\"", "no host matches `group:b`"),
        (
            "fault-number",
            "\"add_ms\": 20",
            "\"add_ms\": 18446744073709551615",
            "is more than any world lasts or holds",
        ),
        ("fault-kind", "\"slow_disk\"", "\"slow_desk\"", "unknown variant `slow_desk`"),
        ("negative", "\"lasts\": \"1s\"", "\"lasts\": \"-1s\"", "\"-1s\" is no duration"),
        ("for-ever", "\"act\": \"3s\"", "\"act\": \"900h\"", "longer than a simulated day"),
        ("user", "\"user\": \"alice\"", "\"user\": \"mallory\"", "the topology has no user \"mallory\""),
        ("cycle", "\"create\"\n          ]", "\"say\"\n          ]", "no earlier step has the id \"say\""),
        ("hesitates", "\"hesitation\": 0.0", "\"hesitation\": 7.0", "`hesitation` is between 0 and 1, not 7"),
        (
            "budget",
            "\"hesitation\": 0.0",
            "\"hesitation\": 0.0, \"budget\": {\"events\": 0}",
            "a budget of 0 events",
        ),
        ("crowd", "\"faults\": [", &all, "20002 faults: at most 20000 are played"),
    ] {
        let told = mistake(&forged(case, from, to));
        assert!(told.contains(said) && told.contains("plan.json, line "), "{case}: {told}");
        assert!(told.contains("--anew` makes its plan anew"), "{case}: {told}");
    }
}

#[test]
fn a_name_that_would_lead_elsewhere_is_no_scenarios_name() {
    let folder = forged("name", "\"scenario\": \"neighbours\"", "\"scenario\": \"../../neighbours\"");
    let about = std::fs::read_to_string(folder.join("about.json")).unwrap();
    let about = about.replacen("\"scenario\": \"neighbours\"", "\"scenario\": \"../../neighbours\"", 1);
    std::fs::write(folder.join("about.json"), about).unwrap();
    let told = mistake(&folder);
    assert!(told.contains("\"../../neighbours\" is no name of a scenario"), "{told}");
}

#[test]
fn a_bundle_of_another_build_says_so_and_is_made_anew_when_asked() {
    let folder = replaced("build", "about.json", "\"build\": \"", "\"build\": \"9.9.9-");
    let Said { out, err: said, .. } = sim(&["replay"], &folder);
    assert!(
        said.contains("another build: made by 9.9.9-") && said.contains("`replay --anew` makes it anew"),
        "{said}"
    );
    assert!(out.contains("the same history, event by event"), "{out}");

    let damaged = changed("damaged", "plan.json", |_| b"{}".to_vec());
    let Said { code, err: said, .. } = sim(&["replay"], &damaged);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("--anew` makes its plan anew from scenario and seed"), "{said}");

    let told = sim(&["replay", "--anew"], &damaged).out;
    let Bundle { about, .. } = Bundle::read(&changed("whole", "none", |_| unreachable!())).unwrap();
    assert!(told.contains(&format!("made anew from scenario and seed: {}", about.hash)), "{told}");
}

#[test]
fn a_bug_that_is_not_known_here_is_said_so() {
    let plan = Plan { planted: Some("no-such-bug".to_owned()), ..written().plan.clone() };
    let folder = bundle::write(&judged(&plan, &Options::default()), &folder("planted"), "").unwrap();
    for command in ["replay", "shrink", "step"] {
        let Said { code, err: said, .. } = sim(&[command], &folder);
        assert_eq!(code, 2, "{command}: {said}");
        assert!(said.contains("no-such-bug") || said.contains("shows no violation"), "{command}: {said}");
    }
}

#[test]
fn the_line_that_reproduces_a_run_does_so_where_the_scenario_is_a_file() {
    let outcome = judged(&written().plan, &Options::default());
    let line = outcome.reproduce();
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[..4], ["cargo", "xtask", "sim", "run"]);
    let mut command = program();
    let again = Said::by(command.args(&words[3..]).arg("--json").current_dir(env!("CARGO_MANIFEST_DIR")));
    assert_eq!(again.lines()[0]["hash"], outcome.hash.as_str());
}

#[test]
fn where_two_bundles_part_it_is_told_what_is_the_case_on_one_side_only() {
    let other = Plan { seed: 2, ..written().plan.clone() };
    let other = bundle::write(&judged(&other, &Options::default()), &folder("other"), "").unwrap();
    let one = changed("one", "none", |_| unreachable!("no file has that name"));
    let Said { code, out: told, .. } = sim(&["diff", other.to_str().unwrap()], &one);
    assert_eq!(code, 1, "{told}");
    assert!(told.starts_with("the first difference is event "), "{told}");
    assert!(
        told.contains("  what is the case at #") && told.contains(" on the right and not on the left: "),
        "{told}"
    );
    let same = sim(&["diff", one.to_str().unwrap()], &one);
    assert!(same.code == 0 && same.out.starts_with("equal, event by event: "), "{}", same.out);
    let parted = sim(&["diff", other.to_str().unwrap(), "--json"], &one);
    assert_eq!((parted.code, &parted.lines()[0]["equal"]), (1, &false.into()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Wherever a byte is flipped, cut away or put in: an error, or the plan that was played.
    #[test]
    fn no_damage_goes_unseen(file in 0..3_usize, at in any::<prop::sample::Index>(), how in 0..3_u8, byte in any::<u8>()) {
        let (name, text) = &written().files[file];
        let folder = changed("fuzzed", name, |mut bytes| {
            let at = at.index(text.len());
            match how {
                0 => bytes[at] ^= byte,
                1 => bytes.truncate(at),
                _ => bytes.insert(at, byte),
            }
            bytes
        });
        if let Ok(read) = Bundle::read(&folder) {
            prop_assert_eq!(&read.plan, &written().plan);
        }
    }
}
