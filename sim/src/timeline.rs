//! A run as one page: lanes of hosts, arrows of messages, bands of faults, states of objects over time.
//!
//! The page is complete in itself and asks nobody for anything; `timeline/page.html` draws what is
//! gathered here.

use std::collections::BTreeMap;

use fusion_history::{Body, Event, EventId, History, Ruling};
use serde::Serialize;
use serde_json::Value;

use crate::show::columns::words;
use crate::show::messages::Message;
use crate::show::{Arrow, Band, Kind, Lane, Lanes, Names, Run, area, bands, is_drawn};

const PAGE: &str = include_str!("timeline/page.html");
/// How many characters are said beside a dot.
const LABEL_CHARS: usize = 80;
/// How many characters of the history's hash are shown.
const HASH_CHARS: usize = 16;
/// How many characters of an event's body the page carries.
const BODY_MAX_CHARS: usize = 2_000;

/// The page of a run.
#[must_use]
pub fn page(run: Run<'_>) -> String {
    let data = Data::of(run);
    // Within a script element nothing but `</` could end it.
    let json = serde_json::to_string(&data).unwrap_or_default().replace("</", "<\\/");
    PAGE.replace("/*DATA*/", &json)
}

#[derive(Serialize)]
struct Data {
    title: String,
    verdict: String,
    about: String,
    lanes: Vec<Lane>,
    events: Vec<Shown>,
    arrows: Vec<Sent>,
    said: Vec<Said>,
    faults: Vec<Band>,
    objects: Vec<Object>,
    phases: Vec<Mark>,
    violations: Vec<Wrong>,
    requirements: Vec<Requirement>,
    failure: Option<String>,
}

/// An event; `lane` is -1 for one of no host.
#[derive(Serialize)]
struct Shown {
    id: u64,
    at: u64,
    lane: i64,
    kind: Kind,
    area: &'static str,
    text: String,
    /// The same in a few words, for beside its dot.
    label: String,
    body: Value,
}

/// A message: it leaves one lane and arrives at another with an event.
#[derive(Serialize)]
struct Sent {
    event: u64,
    #[serde(flatten)]
    arrow: Arrow,
    kind: Kind,
}

/// What a service said to another.
#[derive(Serialize)]
struct Said {
    at: u64,
    #[serde(flatten)]
    arrow: Arrow,
    text: String,
}

/// An object's states, as its service committed them.
#[derive(Serialize)]
struct Object {
    name: String,
    title: String,
    states: Vec<Stated>,
}

#[derive(Serialize)]
struct Stated {
    at: u64,
    state: String,
}

#[derive(Serialize)]
struct Mark {
    at: u64,
    name: String,
}

/// A requirement that was judged, so that the page can be narrowed to it.
#[derive(Serialize)]
struct Requirement {
    id: String,
    ruling: String,
}

#[derive(Serialize)]
struct Wrong {
    requirement: String,
    statement: String,
    excerpt: Vec<u64>,
}

impl Data {
    fn of(run: Run<'_>) -> Self {
        let history = run.history;
        let lanes = Lanes::of(history);
        let names = Names::of(history, &lanes);
        let end = history.events().last().map_or(0, |event| event.at_us);
        let drawn = || history.events().iter().filter(|event| is_drawn(event));
        Self {
            title: format!("{}, seed {}", run.scenario, run.seed),
            verdict: run.ruling.to_string(),
            about: format!(
                "{} events in {:.1} s, history {}",
                history.len(),
                end as f64 / 1e6,
                &history.hash()[..HASH_CHARS]
            ),
            events: drawn().map(|event| shown(event, &lanes, &names, history)).collect(),
            arrows: drawn().filter_map(|event| sent(event, &lanes, history)).collect(),
            said: run.said.iter().filter_map(|message| said(message, &lanes, &names)).collect(),
            faults: bands(history, lanes.all()),
            objects: objects(history, &names),
            phases: phases(history),
            violations: violations(run, &names),
            requirements: requirements(run),
            failure: run.failure.map(str::to_owned),
            lanes: lanes.all().to_vec(),
        }
    }
}

fn shown(event: &Event, lanes: &Lanes<'_>, names: &Names, history: &History) -> Shown {
    let body = serde_json::to_value(&event.body).unwrap_or_default();
    let long = body.to_string();
    let is_long = long.len() > BODY_MAX_CHARS;
    let label: String = names.shorten(&words(event)).chars().take(LABEL_CHARS).collect();
    Shown {
        id: event.id.0,
        at: event.at_us,
        lane: lanes.at(&event.host).and_then(|lane| i64::try_from(lane).ok()).unwrap_or(-1),
        kind: Kind::of(&event.body),
        area: area(event, history),
        text: event.to_string().chars().take(BODY_MAX_CHARS).collect(),
        label,
        body: if is_long { long.chars().take(BODY_MAX_CHARS).collect::<String>().into() } else { body },
    }
}

fn sent(event: &Event, lanes: &Lanes<'_>, history: &History) -> Option<Sent> {
    let arrow = lanes.arrow(event, history)?;
    Some(Sent { event: event.id.0, arrow, kind: Kind::of(&event.body) })
}

/// What devices say is shown by their events.
fn said(message: &Message, lanes: &Lanes<'_>, names: &Names) -> Option<Said> {
    let (from, to) = (lanes.at(&message.from)?, lanes.at(&message.to)?);
    let between_services = lanes.all()[from].serves() && lanes.all()[to].serves();
    let text = names.shorten(&message.text);
    between_services.then_some(Said { at: message.at_us, arrow: Arrow { from, to }, text })
}

/// By what they are of, so that a conversation, its slots and its locus stand together.
fn objects(history: &History, names: &Names) -> Vec<Object> {
    let mut objects: BTreeMap<(&str, &str, &str), Vec<Stated>> = BTreeMap::new();
    for event in history.events() {
        let Body::State { concept, subject, state, .. } = &event.body else { continue };
        if matches!(concept.as_str(), "conversation" | "locus" | "slot") {
            let states = objects.entry((subject, concept, &event.host)).or_default();
            states.push(Stated { at: event.at_us, state: state.clone() });
        }
    }
    let named = |((subject, concept, host), states): ((&str, &str, &str), Vec<Stated>)| {
        let short = names.shorten(subject);
        let name = if concept == "slot" { format!("slot {short}") } else { short };
        Object { name, title: format!("{concept} {subject} at {host}"), states }
    };
    objects.into_iter().map(named).collect()
}

fn phases(history: &History) -> Vec<Mark> {
    let events = history.events().iter();
    let marks = events.filter_map(|event| match &event.body {
        Body::Phase { .. } => Some(Mark { at: event.at_us, name: event.body.to_string() }),
        _ => None,
    });
    marks.collect()
}

fn violations(run: Run<'_>, names: &Names) -> Vec<Wrong> {
    let shown = |id: &&EventId| run.history.event(**id).is_some_and(is_drawn);
    let wrong = run.violations().map(|violation| Wrong {
        requirement: violation.requirement.clone(),
        statement: names.shorten(&violation.statement),
        excerpt: violation.excerpt.iter().filter(shown).map(|id| id.0).collect(),
    });
    wrong.collect()
}

/// Those that had a case.
fn requirements(run: Run<'_>) -> Vec<Requirement> {
    let mut found: BTreeMap<&str, Ruling> = BTreeMap::new();
    for verdict in run.verdicts.iter().filter(|verdict| !verdict.had_no_case()) {
        for id in &verdict.requirements {
            let ruling = found.entry(id).or_insert(verdict.ruling);
            *ruling = verdict.ruling.max(*ruling);
        }
    }
    let shown = |(id, ruling): (&str, Ruling)| Requirement { id: id.to_owned(), ruling: ruling.to_string() };
    found.into_iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::tests::race;

    #[test]
    fn a_page_holds_every_event_lane_fault_and_state_of_its_run() {
        let outcome = race();
        let data = Data::of(outcome.run());
        let shown = outcome.history.events().iter().filter(|event| is_drawn(event)).count();
        assert_eq!(data.events.len(), shown);
        assert_eq!(data.faults.len(), outcome.plan.faults.len());
        for host in ["provider", "a", "b", "alice/phone", "bob/phone"] {
            assert!(data.lanes.iter().any(|lane| lane.host == host), "{host}");
        }
        let slots = data.objects.iter().filter(|object| object.name.starts_with("slot "));
        assert!(slots.count() >= 2);
        assert!(data.arrows.iter().all(|arrow| arrow.arrow.from != arrow.arrow.to));
    }

    #[test]
    fn nothing_in_a_run_ends_the_script_that_carries_it() {
        let mut outcome = race();
        outcome.scenario = "</script><script>alert(1)</script>".to_owned();
        let page = page(outcome.run());
        assert_eq!(page.matches("</script>").count(), PAGE.matches("</script>").count());
    }
}
