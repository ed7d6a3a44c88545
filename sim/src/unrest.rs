//! What had not come to rest when a run was over: told beside what is wrong, because somebody who was never
//! told is often one whose message still waits somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use fusion_history::event::{Answer, Outcome, Phase, SocketChange};
use fusion_history::{Body, Event, EventId, History};
use fusion_protocol::locus::{Locus, LocusState, ParticipantState};
use fusion_runtime::store::{Key, Row};
use serde_json::Value;

/// How many of each kind are told.
const TOLD_MAX: usize = 6;

/// What waits in the outbox of a cluster: something that it has not made known to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// The machine.
    pub host: String,
    /// What kind of thing, in the outbox's own word.
    pub effect: String,
    /// Who, or which cluster, was to be told.
    pub whom: String,
    /// About which object.
    pub object: String,
}

/// The outbox among the rows of a machine.
#[must_use]
pub fn unsent(host: &str, rows: &[(Key, Row)]) -> Vec<Unsent> {
    let outbox = rows.iter().filter(|(key, _)| key.parts().first().is_some_and(|part| part == b"outbox"));
    let row = |value: &Value| {
        let word = |names: &[&str]| {
            let found = names.iter().find_map(|name| value.pointer(name)?.as_str());
            found.unwrap_or("?").to_owned()
        };
        Unsent {
            host: host.to_owned(),
            effect: word(&["/effect"]),
            whom: word(&["/user", "/to"]),
            object: word(&["/conversation", "/entry/conversation", "/entry/locusUrl"]),
        }
    };
    outbox.filter_map(|(_, value)| Some(row(&serde_json::from_slice(&value.value).ok()?))).collect()
}

/// Everything that had not come to rest, with the last that was seen of it; empty when nothing is known of.
#[must_use]
pub fn explain(history: &History, unsent: &[Unsent]) -> String {
    let over =
        history.events().iter().position(|event| matches!(event.body, Body::Phase { phase: Phase::End }));
    let events = &history.events()[..over.unwrap_or(history.len())];
    let mut text = String::new();
    let told = [waiting(unsent, events), without_socket(events), calls(events), unanswered(events)];
    for things in told {
        for (what, last) in things.iter().take(TOLD_MAX) {
            let _ = writeln!(text, "  {what}");
            if let Some(event) = last {
                let _ = writeln!(text, "    {event}");
            }
        }
        if things.len() > TOLD_MAX {
            let _ = writeln!(text, "  and {} more of this kind", things.len() - TOLD_MAX);
        }
    }
    if text.is_empty() { text } else { format!("what had not come to rest at the end:\n{text}") }
}

/// What is said of a thing, and the last event about it.
type Told<'h> = Vec<(String, Option<&'h Event>)>;

fn waiting<'h>(unsent: &[Unsent], events: &'h [Event]) -> Told<'h> {
    let rows: BTreeSet<_> =
        unsent.iter().map(|row| (&row.host, &row.whom, &row.object, &row.effect)).collect();
    let told = |(host, whom, object, effect): (&String, &String, &String, &String)| {
        let about = |event: &&Event| event.to_string().contains(object.as_str());
        // The last event of all would mostly be somebody's reading it in the end.
        let last = events.iter().rev().find(about);
        (format!("the outbox of {host} still holds for {whom}: {effect} {object}"), last)
    };
    rows.into_iter().map(told).collect()
}

fn without_socket(events: &[Event]) -> Told<'_> {
    let mut last: BTreeMap<&str, &Event> = BTreeMap::new();
    for event in events.iter().filter(|event| matches!(event.body, Body::Socket { .. })) {
        last.insert(&event.host, event);
    }
    let closed = |event: &&Event| matches!(event.body, Body::Socket { what: SocketChange::Closed, .. });
    let closed = last.into_values().filter(closed);
    closed.map(|event| (format!("{} has no socket since", event.host), Some(event))).collect()
}

/// Calls that somebody has last seen going on.
fn calls(events: &[Event]) -> Told<'_> {
    let mut last: BTreeMap<String, (&Locus, &Event)> = BTreeMap::new();
    for event in events {
        if let Body::Return { outcome: Outcome::Done { answer: Answer::Locus { locus } } } = &event.body {
            last.insert(locus.url.to_string(), (locus, event));
        }
    }
    let going_on = last.into_values().filter(|(locus, _)| locus.state != LocusState::Inactive);
    let told = |(locus, event): (&Locus, _)| {
        let who = |state| {
            let people = locus.participants.iter().filter(|participant| participant.state == state);
            let people: Vec<_> = people.map(|participant| participant.user.as_str().to_owned()).collect();
            if people.is_empty() { "nobody".to_owned() } else { people.join(", ") }
        };
        let (joined, rung) = (who(ParticipantState::Joined), who(ParticipantState::Notified));
        let (url, state) = (&locus.url, locus.state);
        (format!("the call at {url} has not ended: {state:?}, in it {joined}, ringing {rung}"), Some(event))
    };
    going_on.map(told).collect()
}

/// What was asked before everything was healed and never answered, nor given up.
fn unanswered(events: &[Event]) -> Told<'_> {
    let answered: BTreeSet<EventId> = events
        .iter()
        .filter(|event| matches!(event.body, Body::Return { .. }))
        .filter_map(|event| event.cause)
        .collect();
    let open = |event: &&Event| matches!(event.body, Body::Invoke { .. }) && !answered.contains(&event.id);
    let open = events.iter().filter(open);
    open.map(|event| (format!("{} was never answered", event.host), Some(event))).collect()
}
