//! From when to when what was wrong, and with whom.

use std::collections::BTreeMap;

use fusion_history::event::FaultPhase;
use fusion_history::{Body, Event, EventId, History};
use serde::Serialize;
use serde_json::Value;

use super::Lane;

/// A fault, from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Band {
    /// Its id and family.
    pub(crate) name: String,
    /// The event with which it began, and that with which it ended.
    #[serde(skip)]
    pub(crate) events: (EventId, Option<EventId>),
    /// When it began, microseconds.
    pub(crate) from: u64,
    /// When it ended, or the run did.
    pub(crate) to: u64,
    /// Its parameters, for people.
    pub(crate) detail: String,
    /// The lanes that it is about.
    pub(crate) lanes: Vec<usize>,
}

impl Band {
    /// Whether it lasts at an event, its own two included.
    pub(crate) fn lasts_at(&self, event: EventId) -> bool {
        self.events.0 <= event && self.events.1.is_none_or(|end| event <= end)
    }
}

/// The faults of a run, in the order in which they began.
pub(crate) fn bands(history: &History, lanes: &[Lane]) -> Vec<Band> {
    let end = history.events().last().map_or(0, |event| event.at_us);
    let mut bands: Vec<Band> = Vec::new();
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    for event in history.events() {
        let Body::Fault { fault, family, phase, detail } = &event.body else { continue };
        match phase {
            FaultPhase::Began => {
                open.insert(fault, bands.len());
                bands.push(Band {
                    name: format!("{family} ({fault})"),
                    events: (event.id, None),
                    from: event.at_us,
                    to: end,
                    detail: in_words(detail),
                    lanes: touched(detail, lanes),
                });
            }
            FaultPhase::Ended => {
                if let Some(band) = open.remove(fault.as_str()).and_then(|at| bands.get_mut(at)) {
                    band.to = event.at_us;
                    band.events.1 = Some(event.id);
                }
            }
        }
    }
    bands
}

/// What a fault's event says, without JSON.
pub(crate) fn told(event: &Event) -> Option<String> {
    let Body::Fault { fault, family, phase, detail } = &event.body else { return None };
    Some(match phase {
        FaultPhase::Began => format!("fault {fault} begins: {family} {}", in_words(detail)),
        FaultPhase::Ended => format!("fault {fault} ends"),
    })
}

/// `from=a to=b+c add_ms=120`.
fn in_words(detail: &Value) -> String {
    let Some(members) = detail.as_object() else { return String::new() };
    let said = members.iter().filter(|(name, _)| *name != "kind").map(|(name, value)| {
        let value = match value {
            Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join("+"),
            other => plain(other),
        };
        format!("{name}={value}")
    });
    said.collect::<Vec<_>>().join(" ")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The lanes of the places that a fault's parameters name.
fn touched(detail: &Value, lanes: &[Lane]) -> Vec<usize> {
    let members = detail.as_object().into_iter().flat_map(|members| members.values());
    let places: Vec<&str> = members
        .flat_map(|value| match value {
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
            other => Vec::from_iter(other.as_str()),
        })
        .collect();
    let is_at = |lane: &Lane| {
        places.iter().any(|place| match place.split_once(':') {
            Some(("datacenter", name)) => lane.place == name && !lane.cluster.is_empty(),
            Some(("group", name)) => lane.cluster == name,
            _ => *place == "*" || lane.host == *place,
        })
    };
    lanes.iter().enumerate().filter(|(_, lane)| is_at(lane)).map(|(at, _)| at).collect()
}
