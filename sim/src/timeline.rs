//! A run as one page: lanes of hosts, arrows of messages, bands of faults, states of objects over time.
//!
//! The page is complete in itself and asks nobody for anything; `timeline/page.html` draws what is
//! gathered here.

use std::collections::BTreeMap;

use fusion_history::{Body, Event, EventId, History};
use serde::Serialize;

use crate::show::{Arrow, Band, Kind, Lane, Lanes, Run, area, bands, is_drawn};

const PAGE: &str = include_str!("timeline/page.html");
/// How many characters of an object's name are shown.
const OBJECT_NAME_CHARS: usize = 28;
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
    arrows: Vec<Message>,
    faults: Vec<Band>,
    objects: Vec<Object>,
    phases: Vec<Mark>,
    violations: Vec<Wrong>,
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
    body: String,
}

/// A message: it leaves one lane and arrives at another with an event.
#[derive(Serialize)]
struct Message {
    event: u64,
    #[serde(flatten)]
    arrow: Arrow,
    kind: Kind,
}

/// An object's states, as its service committed them.
#[derive(Serialize)]
struct Object {
    name: String,
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
            events: drawn().map(|event| shown(event, &lanes, history)).collect(),
            arrows: drawn().filter_map(|event| message(event, &lanes, history)).collect(),
            faults: bands(history, lanes.all()),
            objects: objects(history),
            phases: phases(history),
            violations: violations(run),
            lanes: lanes.all().to_vec(),
        }
    }
}

fn shown(event: &Event, lanes: &Lanes<'_>, history: &History) -> Shown {
    let body = serde_json::to_string_pretty(&event.body).unwrap_or_default();
    Shown {
        id: event.id.0,
        at: event.at_us,
        lane: lanes.at(&event.host).and_then(|lane| i64::try_from(lane).ok()).unwrap_or(-1),
        kind: Kind::of(&event.body),
        area: area(event, history),
        text: event.to_string(),
        body: body.chars().take(BODY_MAX_CHARS).collect(),
    }
}

fn message(event: &Event, lanes: &Lanes<'_>, history: &History) -> Option<Message> {
    let arrow = lanes.arrow(event, history)?;
    Some(Message { event: event.id.0, arrow, kind: Kind::of(&event.body) })
}

fn objects(history: &History) -> Vec<Object> {
    let mut objects: BTreeMap<(&str, &str, &str), Vec<Stated>> = BTreeMap::new();
    for event in history.events() {
        let Body::State { concept, subject, state, .. } = &event.body else { continue };
        if matches!(concept.as_str(), "conversation" | "locus" | "slot") {
            let states = objects.entry((concept, subject, &event.host)).or_default();
            states.push(Stated { at: event.at_us, state: state.clone() });
        }
    }
    let named = |((concept, subject, host), states): ((&str, &str, &str), Vec<Stated>)| {
        // Of a URL what tells it from others: the path after the service.
        let short = subject.rsplit_once("/v1/").map_or(subject, |(_, path)| path);
        let short = short.strip_prefix("conversations/").unwrap_or(short);
        let short: String = short.chars().take(OBJECT_NAME_CHARS).collect();
        Object { name: format!("{concept} at {host}: {short}"), states }
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

fn violations(run: Run<'_>) -> Vec<Wrong> {
    let shown = |id: &&EventId| run.history.event(**id).is_some_and(is_drawn);
    let wrong = run.violations().map(|violation| Wrong {
        requirement: violation.requirement.clone(),
        statement: violation.statement.clone(),
        excerpt: violation.excerpt.iter().filter(shown).map(|id| id.0).collect(),
    });
    wrong.collect()
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
        let slots = data.objects.iter().filter(|object| object.name.starts_with("slot at"));
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
