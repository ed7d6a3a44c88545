//! Stepping through a run: looking changes nothing, going back is as true as going on, and scripts work.

use std::io::Write as _;
use std::process::Stdio;

use fusion_deployment::Hooks;
use fusion_history::{Body, EventId};
use fusion_sim::engines::fabric::{Options, stopped_at};
use fusion_sim::outcome::judged;
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::step::{self, Reply, Session, changes};

use crate::stories::{self, CHAT, WHILE_CUT};
use crate::{Said, program_with_scenarios, scratch};

/// A message that has to wait for a line that is cut.
fn story() -> String {
    [CHAT, WHILE_CUT].concat()
}

fn plan(mode: Mode) -> Plan {
    stories::plan(&stories::scenario("cut", &story()), 3, mode)
}

fn session() -> Session {
    Session::new(&plan(Mode::Story), Hooks::default()).unwrap()
}

fn said(session: &mut Session, line: &str) -> Result<Reply, String> {
    session.obey(&step::Command::parse(line).unwrap().unwrap())
}

fn script(arguments: &[&str], lines: &str) -> Said {
    let file = scratch("cut-step.toml");
    std::fs::write(&file, story()).unwrap();
    let mut child = program_with_scenarios()
        .args(["step", "--scenario", file.to_str().unwrap(), "--seed", "3"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    Said::of(child.wait_with_output().unwrap())
}

#[test]
fn looking_at_a_moment_changes_nothing_of_what_led_to_it() {
    for mode in [Mode::Story, Mode::Swarm] {
        let plan = plan(mode);
        let whole = judged(&plan, &Options::default()).history;
        let last = whole.len() as u64 - 1;
        for place in [0, 1, last / 3, last / 2, last - 1, last] {
            let stopped = stopped_at(&plan, &Hooks::default(), EventId(place)).unwrap();
            assert_eq!(stopped.history.events(), &whole.events()[..=place as usize], "{mode:?} at #{place}");
        }
    }
}

#[test]
fn there_is_no_moment_after_the_end() {
    let plan = plan(Mode::Story);
    let events = judged(&plan, &Options::default()).history.len() as u64;
    let why = stopped_at(&plan, &Hooks::default(), EventId(events)).unwrap_err();
    assert_eq!(why, format!("the run ends after {events} events"));
}

#[test]
fn going_back_shows_what_was_the_case_before() {
    let mut session = session();
    said(&mut session, "until fault").unwrap();
    let cut = session.at();
    let [before, rows] = [cut.0 - 1, cut.0].map(|place| session.moment(place).unwrap());
    assert!(before.world.faults.is_empty());
    assert_eq!(rows.world.faults.len(), 1);

    said(&mut session, "until fault").unwrap();
    let healed = session.at().0;
    assert!(session.moment(healed).unwrap().world.faults.is_empty());

    said(&mut session, &format!("back {}", healed - cut.0)).unwrap();
    assert_eq!(session.at(), cut);
    let again = said(&mut session, "show a").unwrap();
    assert!(again.text.contains(r#"in force: {"kind":"partition","a":["a"],"b":["b"]}"#), "{}", again.text);
}

#[test]
fn a_conversation_is_shown_as_its_host_holds_it_at_that_event() {
    let mut session = session();
    said(&mut session, "until text conversation.activity").unwrap();
    let shown = said(&mut session, "show conversation").unwrap();
    assert_eq!(shown.value["held"][0]["host"], "a");
    let id = shown.value["held"][0]["row"]["key"].as_str().unwrap().to_owned();
    let told = said(&mut session, &format!("show conversation {id}")).unwrap();
    assert!(told.text.contains(&id) && told.text.contains("last committed:"), "{}", told.text);

    let here = session.at().0;
    said(&mut session, &format!("back {here}")).unwrap();
    let too_early = said(&mut session, &format!("show conversation {id}")).unwrap_err();
    assert!(too_early.contains("there is no host `conversation` at #0"), "{too_early}");
}

#[test]
fn what_has_changed_between_two_events_is_what_was_written_between_them() {
    let mut session = session();
    said(&mut session, "until text say").unwrap();
    let (before, after) = (session.at().0, session.outcome().history.len() as u64 - 1);
    let (left, right) = (session.moment(before).unwrap(), session.moment(after).unwrap());
    let found = changes(&left, &right, Some("b"));
    assert!(found.iter().all(|change| change.host == "b"));
    assert!(
        found.iter().any(|change| change.what.starts_with("index ") && change.after.is_some()),
        "{found:?}"
    );
    assert!(changes(&left, &left, None).is_empty());
}

#[test]
fn why_goes_back_to_what_was_asked_and_tells_the_faults_in_force() {
    let mut session = session();
    said(&mut session, "until fault").unwrap();
    said(&mut session, "until return").unwrap();
    let why = said(&mut session, "why").unwrap();
    let causes = why.value["causes"].as_array().unwrap();
    assert_eq!(causes[0]["body"]["event"], "return");
    assert_eq!(causes[1]["body"]["event"], "invoke");
    let asked = EventId(causes[1]["id"].as_u64().unwrap());
    assert!(matches!(session.outcome().history.event(asked).unwrap().body, Body::Invoke { .. }));
    assert!(why.text.contains("meanwhile in force:") && why.text.contains("fault cut began"), "{}", why.text);
}

#[test]
fn what_is_not_ahead_is_said_so() {
    let mut session = session();
    said(&mut session, "next 5").unwrap();
    assert_eq!(said(&mut session, "until 2").unwrap_err(), "#2 is not ahead of #5: `back 3` goes there");
    let none = said(&mut session, "until text no such words").unwrap_err();
    assert!(none.starts_with("no event after #5 tells of \"no such words\"; the last is #"), "{none}");
    let host = said(&mut session, "show provder").unwrap_err();
    assert_eq!(host, "there is no host `provder` at #5; did you mean `provider`?");
    assert!(said(&mut session, "back 100").is_ok());
    assert_eq!(said(&mut session, "back").unwrap_err(), "#0 is the first event");
}

#[test]
fn a_script_is_read_from_a_pipe_and_answered_without_prompt_or_colour() {
    let Said { code, out: told, err } =
        script(&[], "# where the line is cut\nuntil fault\nshow\nquit\nnever read\n");
    assert_eq!((code, err.as_str()), (0, ""), "{told}");
    assert!(told.starts_with("cut-step, seed 3: "), "{told}");
    assert!(told.contains("fault cut began") && told.contains("on their way: "), "{told}");
    assert!(!told.contains('\u{1b}') && !told.contains(" > "), "{told}");
}

#[test]
fn a_script_with_an_unknown_command_goes_on_and_fails() {
    let said = script(&["--json"], "nxt\nnext\n");
    assert_eq!(said.code, 2);
    let lines = said.lines();
    assert_eq!(lines[1]["why"], "there is no `nxt`; did you mean `next`? `help` lists everything");
    assert_eq!(lines[2]["at"], 1);
    assert!(said.err.contains("1 lines could not be obeyed"));
}
