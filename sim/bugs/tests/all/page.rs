//! The timeline in a real browser: a headless Chromium draws it, and what it says of itself is read.
//!
//! Where there is no browser nothing is tested, and a line says so. `TIMELINE_SHOTS=FOLDER` also keeps a
//! picture of each page, in light, to be looked at.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fusion_history::{Body, Event, EventId, History, Ruling};
use fusion_mutants::MUTANTS;
use fusion_sim::engines::fabric::{Options, captured, hosts};
use fusion_sim::library::Library;
use fusion_sim::outcome::{Outcome, judged};
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::show::Run;
use fusion_sim::show::messages::messages;
use fusion_sim::timeline;

/// Where browsers are called so.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// Switches of a browser that draws a page and asks nobody for anything.
const SWITCHES: [&str; 8] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--window-size=1500,900",
    "--virtual-time-budget=8000",
];
/// A mouse that comes to rest: on the event that is chosen, or beside everything.
const MOUSE: &str = r#"
<script>{
  const surface = document.getElementById("canvas").getBoundingClientRect(), event = events[chosen];
  const [over, down] = MOUSE_ON_CHOSEN ? [x(place[chosen]), laneY(event.lane)] : [1, 1];
  const at = { clientX: surface.left + over, clientY: surface.top + down, bubbles: true };
  document.getElementById("canvas").dispatchEvent(new PointerEvent("pointermove", at));
}</script>
"#;
/// What a run must have for its page to be a large one.
const LARGE_EVENTS: usize = 10_000;

fn browser() -> Option<&'static str> {
    let found = BROWSERS.into_iter().find(|name| Command::new(name).arg("--version").output().is_ok());
    if found.is_none() {
        eprintln!(
            "skipped: there is no browser to open the timeline with (Debian: apt-get install chromium)"
        );
    }
    found
}

/// A page in a file, and the browser that opens it.
struct Page {
    browser: &'static str,
    file: PathBuf,
}

impl Page {
    fn of(run: Run<'_>, name: &str, browser: &'static str) -> Self {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.html"));
        fs::write(&file, timeline::page(run)).expect("a folder to write to");
        Self { browser, file }
    }

    /// What the page says of itself once it is drawn, and its whole document.
    fn opened_at(&self, hash: &str) -> (BTreeMap<String, String>, String) {
        let document = self.run(hash, &["--dump-dom"]);
        let document = String::from_utf8(document).expect("a document is text");
        if let Some(folder) = std::env::var_os("TIMELINE_SHOTS") {
            let shot = Path::new(&folder).join(format!("{}{}.png", self.name(), hash.replace('#', "-")));
            self.run(hash, &[&format!("--screenshot={}", shot.display())]);
        }
        let body = document.split("<body ").nth(1).and_then(|rest| rest.split('>').next());
        let said = body.expect("the script has run to its end").split("data-").filter_map(|member| {
            let (name, value) = member.trim().split_once('=')?;
            Some((name.to_owned(), value.trim_matches('"').to_owned()))
        });
        (said.collect(), document)
    }

    /// What the page tells where the mouse rests, if anything: HTML.
    fn hovered(&self, hash: &str, is_on_chosen: bool) -> Option<String> {
        let page = fs::read_to_string(&self.file).expect("it was written");
        let moved = page + &MOUSE.replace("MOUSE_ON_CHOSEN", &is_on_chosen.to_string());
        let page = Self { browser: self.browser, file: self.file.with_extension("moved.html") };
        fs::write(&page.file, moved).expect("a folder to write to");
        let (_, document) = page.opened_at(hash);
        let (_, tip) = document.split_once("<div id=\"tip\"").expect("the page has one");
        let (attributes, rest) = tip.split_once('>').expect("it is well-formed");
        let told = rest.split("</div>").next().unwrap_or_default();
        (!attributes.contains("hidden")).then(|| told.to_owned())
    }

    fn run(&self, hash: &str, more: &[&str]) -> Vec<u8> {
        let profile = self.file.with_extension("profile");
        let output = Command::new(self.browser)
            .args(SWITCHES)
            .arg(format!("--user-data-dir={}", profile.display()))
            .args(more)
            .arg(format!("file://{}{hash}", self.file.display()))
            .output()
            .expect("it was there before");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn name(&self) -> String {
        self.file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }
}

fn plan(scenario: &str, mode: Mode) -> Plan {
    let scenario = Library::nearest().and_then(|all| all.find(scenario)).expect("a scenario of the library");
    Plan::new(&scenario, &hosts(&scenario.topology).expect("a topology that can be"), 3, mode)
}

fn drawn(outcome: &Outcome) -> usize {
    let is_drawn = |body: &Body| !matches!(body, Body::World(_) | Body::Phase { .. } | Body::Wire { .. });
    outcome.history.events().iter().filter(|event| is_drawn(&event.body)).count()
}

/// Two call each other at once and both calls are answered: the deployment has this one thing wrong.
fn glare() -> Outcome {
    let mutant =
        MUTANTS.iter().find(|mutant| mutant.name == "glare-makes-two-calls").expect("one of the catalogue");
    let outcome =
        judged(&plan("glare", Mode::Swarm), &Options { hooks: (mutant.hooks)(), ..Options::default() });
    assert_eq!(outcome.ruling, Ruling::Violated, "{}", outcome.explain());
    outcome
}

#[test]
fn a_page_opens_at_what_is_wrong_and_goes_where_its_address_says() {
    let Some(browser) = browser() else { return };
    let outcome = glare();
    let page = Page::of(outcome.run(), "glare", browser);
    let violation = outcome.run().violations().find(|found| !found.excerpt.is_empty()).unwrap();
    let last = |excerpt: &[EventId]| excerpt.last().unwrap().0.to_string();

    let (said, document) = page.opened_at("");
    assert_eq!(said["events"], drawn(&outcome).to_string());
    assert_eq!(said["faults"], outcome.plan.faults.len().to_string());
    assert_eq!(said["violation"], violation.requirement, "the first violation is shown unasked");
    assert_eq!(said["chosen"], last(&violation.excerpt));
    for host in ["provider", "a", "b", "alice/phone", "bob/phone"] {
        assert!(document.contains(&format!(">{host}</li>")), "a lane for {host}");
    }
    let lanes = document.matches("class=\"host\"").count();
    assert_eq!(said["lanes"], lanes.to_string());
    assert_eq!(document.matches("class=\"violation\"").count(), outcome.run().violations().count());
    assert!(said["drawn"].parse::<usize>().unwrap() > 0);

    let (said, document) = page.opened_at("#event-3");
    assert_eq!(said["chosen"], "3");
    assert!(document.contains(&outcome.history.event(EventId(3)).unwrap().host));

    let (said, _) = page.opened_at("#LOC");
    let shown: usize = said["shown"].parse().unwrap();
    assert!(shown > 0 && shown < drawn(&outcome), "one area alone: {shown}");

    let (said, _) = page.opened_at(&format!("#{}", violation.requirement));
    assert_eq!(said["violation"], violation.requirement);
}

#[test]
fn what_services_said_to_each_other_is_drawn_where_it_is_known() {
    let Some(browser) = browser() else { return };
    let outcome = glare();
    let said = messages(&captured(&outcome.plan, &Options::default()).1);
    let page = Page::of(Run { said: &said, ..outcome.run() }, "glare-wire", browser);
    let (told, document) = page.opened_at("#all");
    assert!(told["messages"].parse::<usize>().unwrap() > 20, "{told:?}");
    assert!(told["said"].parse::<usize>().unwrap() > 0, "some have a pixel of their own: {told:?}");
    assert!(!document.contains("id=\"wire\" hidden"), "they can be switched off");
    let (told, document) = Page::of(outcome.run(), "glare-plain", browser).opened_at("#all");
    assert_eq!((told["messages"].as_str(), told["said"].as_str()), ("0", "0"));
    assert!(document.contains("id=\"wire\" hidden"));
}

#[test]
fn an_event_under_the_mouse_tells_its_payload() {
    let Some(browser) = browser() else { return };
    let outcome = glare();
    let page = Page::of(outcome.run(), "hover", browser);
    let asks = |event: &&Event| matches!(event.body, Body::Invoke { .. });
    let event = outcome.history.events().iter().find(asks).unwrap();
    let chosen = format!("#event-{}", event.id.0);

    let told = page.hovered(&chosen, true).expect("the mouse is on an event");
    assert!(told.contains(&event.to_string()), "{told}");
    let payload = serde_json::to_value(&event.body).unwrap();
    assert!(told.contains(&format!("{payload:#}")), "{told}");

    assert_eq!(page.hovered(&chosen, false), None, "there is nothing in the corner");
}

#[test]
fn ten_thousand_events_are_drawn() {
    let Some(browser) = browser() else { return };
    let outcome = long();
    assert!(outcome.history.len() >= LARGE_EVENTS);
    let page = Page::of(outcome.run(), "large", browser);
    let (said, _) = page.opened_at("#all");
    assert_eq!(said["events"], drawn(&outcome).to_string());
    let of_hosts = outcome.history.events().iter().filter(|event| event.host != "engine").count();
    assert_eq!(said["drawn"], of_hosts.to_string(), "every host is on the screen, with every event");
    let size = fs::metadata(&page.file).unwrap().len();
    println!("{} events: {size} B, drawn first after {} ms", outcome.history.len(), said["loaded-ms"]);
    let (said, _) = page.opened_at("#event-9000");
    assert_eq!(said["chosen"], "9000");
}

/// A run that goes on and on: what happened in a short one happens again, later.
fn long() -> Outcome {
    let mut outcome = glare();
    let once = outcome.history.clone();
    let lasts_us = once.events().last().map_or(0, |event| event.at_us);
    let mut history = History::new();
    for round in 0.. {
        let before = history.len() as u64;
        if before >= LARGE_EVENTS as u64 {
            break;
        }
        for event in once.events() {
            let at = Duration::from_micros(event.at_us + round * lasts_us);
            let cause = event.cause.map(|cause| EventId(cause.0 + before));
            history.append(at, &event.host, cause, event.body.clone());
        }
    }
    outcome.history = history;
    outcome
}
