//! Goal: whoever follows a history by the command line, a person or a machine, learns from the exit code and
//! from what is said whether it is a path. Method: the program itself, on histories in files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fusion_history::{Body, History};
use fusion_sim::plan::Mode;
use serde_json::Value;

use crate::path::{history, states};

/// What the program said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn line(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{}", self.out);
        serde_json::from_str(&self.out).unwrap()
    }
}

fn model(arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_fusion-model")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn follow(file: &Path, more: &[&str]) -> Said {
    model(&[&["--path", file.to_str().unwrap()], more].concat())
}

fn file(name: &str, content: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, content).unwrap();
    file
}

fn race() -> History {
    history("one-to-one-race", 1, Mode::Story)
}

/// The same events, each as `change` makes it.
fn changed(history: &History, change: impl Fn(usize, &Body) -> Option<Body>) -> History {
    let mut spoiled = History::new();
    for (place, event) in history.events().iter().enumerate() {
        if let Some(body) = change(place, &event.body) {
            spoiled.append(Duration::from_micros(event.at_us), &event.host, None, body);
        }
    }
    spoiled
}

#[test]
fn a_history_that_is_a_path_is_told_with_the_events_that_show_it_and_exits_with_0() {
    let race = race();
    let file = file("race.jsonl", &race.to_lines());
    let said = follow(&file, &["--json"]);
    let told = said.line();
    assert_eq!((said.code, &told["verdict"]), (0, &Value::from("holds")), "{}", said.err);
    let steps = told["path"].as_array().unwrap();
    let events: Vec<u64> = steps.iter().filter_map(|step| step["event"].as_u64()).collect();
    assert!(!events.is_empty() && events.is_sorted());
    let reported: BTreeSet<u64> =
        states(race.events()).iter().map(|place| race.events()[*place].id.0).collect();
    assert!(events.iter().all(|event| reported.contains(event)), "{events:?} of {reported:?}");
    let people = follow(&file, &[]);
    assert_eq!(people.code, 0);
    assert!(people.out.starts_with("holds"), "{}", people.out);
}

#[test]
fn a_history_that_is_none_is_told_with_the_event_where_it_parts_and_exits_with_1() {
    let race = race();
    let (first, last) = {
        let places = states(race.events());
        (places[0], places[places.len() - 1])
    };
    let exchanged = changed(&race, |place, body| match place {
        place if place == first => Some(race.events()[last].body.clone()),
        place if place == last => Some(race.events()[first].body.clone()),
        _ => Some(body.clone()),
    });
    let file = file("exchanged.jsonl", &exchanged.to_lines());
    let said = follow(&file, &["--json"]);
    let told = said.line();
    assert_eq!((said.code, &told["verdict"]), (1, &Value::from("violated")));
    assert_eq!(told["event"], Value::from(exchanged.events()[first].id.0));
    assert!(!told["possible"].as_array().unwrap().is_empty(), "what could have been there: {told}");
    let people = follow(&file, &[]);
    assert_eq!(people.code, 1);
    assert!(people.out.starts_with("violated"), "{}", people.out);
}

#[test]
fn what_cannot_be_followed_is_told_with_its_file_and_exits_with_2() {
    let no_pair = changed(&race(), |_, body| match body {
        Body::State { .. } => None,
        other => Some(other.clone()),
    });
    let cut = race().to_lines();
    let files = [
        ("no-pair.jsonl", no_pair.to_lines(), "has no pair to follow"),
        ("no-history.jsonl", "Dear diary\n".to_owned(), "is no history"),
        ("cut.jsonl", cut[..cut.len() / 2].to_owned(), "is no history"),
        ("empty.jsonl", History::new().to_lines(), "no beginning"),
    ];
    for (name, content, why) in files {
        let said = follow(&file(name, &content), &["--json"]);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{name}");
        assert!(said.err.contains(name) && said.err.contains(why), "{name}: {}", said.err);
    }
    let said = model(&["--path", "nowhere.jsonl"]);
    assert!(said.code == 2 && said.err.contains("cannot open nowhere.jsonl"), "{}", said.err);
}

#[test]
fn a_path_and_a_search_are_not_asked_for_at_once() {
    for more in [["locus"].as_slice(), &["--clusters", "2"], &["--plant", "blind-write"]] {
        let said = follow(Path::new("race.jsonl"), more);
        assert!(said.code == 2 && said.err.contains("cannot be used with"), "{}", said.err);
    }
}

#[test]
fn a_search_says_by_its_exit_code_what_it_found() {
    let code = |arguments: &[&str]| model(&[arguments, &["--clusters", "2", "--json"]].concat()).code;
    assert_eq!(code(&["domain-claim"]), 0);
    assert_eq!(code(&["--plant", "blind-write"]), 1);
    assert_eq!(code(&["domain-claims"]), 2);
    assert_eq!(code(&["pair", "--max-states", "1000"]), 3);
}
