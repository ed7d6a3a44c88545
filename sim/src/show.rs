//! A run to look at: who stood where, who told whom, and what of it is asked for.
//!
//! | file | what |
//! |---|---|
//! | `lanes` | one lane for each host, and the messages between them |
//! | `faults` | from when to when what was wrong, and with whom |
//! | `names` | short names for long ones |
//! | `pick` | which part of a run is shown |
//! | `entries` | events and messages in one order |
//! | `columns` | text, a column for each host |
//! | `messages` | what services say to each other, read from packets |
//! | `mermaid` | a sequence diagram, for documentation |
//! | `pcapng` | packets, for an analyser |
//!
//! Not here: how a run came about. What is shown was read from its history.

pub mod columns;
mod entries;
mod faults;
mod lanes;
pub mod mermaid;
pub mod messages;
mod names;
pub mod pcapng;
pub mod pick;

use fusion_history::{Body, Call, Event, EventId, History, Outcome, Ruling, Verdict, Violation};
use serde::Serialize;

use entries::{Entry, merged};
use messages::Message;
use pick::{Pick, Unshown};

pub(crate) use faults::{Band, bands};
pub(crate) use lanes::{Arrow, Lane, Lanes};
pub(crate) use names::Names;

/// A run to look at.
#[derive(Clone, Copy, Debug)]
pub struct Run<'r> {
    /// The scenario.
    pub scenario: &'r str,
    /// The seed.
    pub seed: u64,
    /// What all judges say together; violated, where it could not be played to its end.
    pub ruling: Ruling,
    /// Why it could not, if so.
    pub failure: Option<&'r str>,
    /// Everything observed.
    pub history: &'r History,
    /// What each judge says.
    pub verdicts: &'r [Verdict],
    /// What services said to each other; nothing, where the packets were not kept.
    pub said: &'r [Message],
}

/// An event, or what a service said, for machines.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Messages between services are no events.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<EventId>,
    at_us: u64,
    host: String,
    kind: Kind,
    #[serde(skip_serializing_if = "str::is_empty")]
    area: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    text: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    violates: Vec<String>,
}

/// What `pick` asks for of a run, for machines.
///
/// # Errors
/// When nothing is asked for that is there.
pub fn lines(run: Run<'_>, pick: &Pick) -> Result<Vec<Line>, Unshown> {
    let lanes = Lanes::of(run.history);
    let names = Names::of(run.history, &lanes);
    let event = |event: &Event| {
        let arrow = lanes.arrow(event, run.history);
        let host = |lane: usize| lanes.all().get(lane).map(|lane| lane.host.clone());
        let shows = run.violations().filter(|found| found.excerpt.contains(&event.id));
        Line {
            id: Some(event.id),
            at_us: event.at_us,
            host: event.host.clone(),
            kind: Kind::of(&event.body),
            area: area(event, run.history),
            from: arrow.and_then(|arrow| host(arrow.from)),
            to: arrow.and_then(|arrow| host(arrow.to)),
            text: columns::words(event),
            violates: shows.map(|found| found.requirement.clone()).collect(),
        }
    };
    let message = |message: &Message| Line {
        id: None,
        at_us: message.at_us,
        host: message.from.to_string(),
        kind: Kind::Said,
        area: "",
        from: Some(message.from.to_string()),
        to: Some(message.to.to_string()),
        text: message.text.clone(),
        violates: Vec::new(),
    };
    let entries = merged(&pick.of(run, &lanes, &names)?, &pick.messages(run, &lanes, &names)?);
    let line = |entry: &Entry<'_>| match entry {
        Entry::Event(of) => event(of),
        Entry::Message(of, _) => message(of),
    };
    Ok(entries.iter().map(line).collect())
}

impl<'r> Run<'r> {
    /// What is wrong with it.
    pub fn violations(&self) -> impl Iterator<Item = &'r Violation> + use<'r> {
        self.verdicts.iter().flat_map(|verdict| &verdict.violations)
    }

    /// The violation that shows itself by an event.
    fn shown_by(&self, event: EventId) -> Option<&'r Violation> {
        self.violations().find(|violation| violation.excerpt.contains(&event))
    }
}

/// Whether an event has a place in a picture of hosts; packets and phases have others.
pub(crate) fn is_drawn(event: &Event) -> bool {
    !matches!(event.body, Body::World(_) | Body::Phase { .. } | Body::Wire { .. })
}

/// What kind of thing happens, for a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Call,
    Answer,
    Refused,
    Told,
    State,
    Fault,
    Log,
    Media,
    /// What a service says to another.
    Said,
    Other,
}

impl Kind {
    pub(crate) fn of(body: &Body) -> Self {
        match body {
            Body::Invoke { .. } => Self::Call,
            Body::Return { outcome: Outcome::Done { .. } } => Self::Answer,
            Body::Return { .. } => Self::Refused,
            Body::Deliver { .. } | Body::Socket { .. } => Self::Told,
            Body::State { .. } => Self::State,
            Body::Fault { .. } => Self::Fault,
            Body::Log { .. } => Self::Log,
            Body::Media(_) | Body::Leg(_) => Self::Media,
            _ => Self::Other,
        }
    }
}

/// The area of SPEC that an event speaks of; an answer speaks of what its call does. Empty for what belongs
/// to none.
pub(crate) fn area(event: &Event, history: &History) -> &'static str {
    match &event.body {
        Body::Invoke { call, .. } => area_of(call),
        Body::Return { .. } => match event.cause.and_then(|id| history.event(id)).map(|event| &event.body) {
            Some(Body::Invoke { call, .. }) => area_of(call),
            _ => "",
        },
        Body::Deliver { .. } | Body::Socket { .. } => "MER",
        Body::State { concept, .. } => match concept.as_str() {
            "conversation" | "slot" => "CNV",
            "index" => "RDV",
            "locus" => "LOC",
            "leg" => "MED",
            "token" => "SEC",
            _ => "MAP",
        },
        Body::Media(_) | Body::Leg(_) => "MED",
        Body::Sink(_) => "PRI",
        _ => "",
    }
}

fn area_of(call: &Call) -> &'static str {
    match call {
        Call::Provision { .. } | Call::Deprovision { .. } => "PRO",
        Call::LogIn { .. } | Call::Exchange { .. } | Call::Trespass { .. } => "SEC",
        Call::Connect { .. } | Call::Disconnect { .. } => "MER",
        Call::Create { .. } | Call::Post { .. } | Call::Read { .. } | Call::ReadConversation { .. } => "CNV",
        Call::LookUp { .. } | Call::ReadIndex { .. } => "RDV",
        Call::Talk { .. } => "MED",
        Call::ReadLocus { .. }
        | Call::ReadLocusSince { .. }
        | Call::Join { .. }
        | Call::SetState { .. }
        | Call::Renew { .. }
        | Call::ListLoci {} => "LOC",
        Call::Move { .. } | Call::Claim { .. } | Call::ReadDomain { .. } | Call::Resolve { .. } => "MAP",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::engines::fabric::{Options, hosts};
    use crate::library::Library;
    use crate::outcome::{self, judged};
    use crate::plan::{Mode, Plan};
    use std::time::Duration;

    /// A run with faults and all.
    pub(crate) fn race() -> outcome::Outcome {
        let scenario = Library::nearest().unwrap().find("one-to-one-race").unwrap();
        let plan = Plan::new(&scenario, &hosts(&scenario.topology).unwrap(), 3, Mode::Swarm);
        judged(&plan, &Options::default())
    }

    /// The same with a history that no system should have: a device is told its events out of order.
    pub(crate) fn wrong_race() -> outcome::Outcome {
        let mut outcome = race();
        let mut history = History::new();
        for event in outcome.history.events() {
            let mut body = event.body.clone();
            if let Body::Deliver { seq, .. } = &mut body {
                seq.0 = 9 - seq.0.min(8);
            }
            history.append(Duration::from_micros(event.at_us), &event.host, event.cause, body);
        }
        outcome.verdicts = fusion_history::judge_all(&history);
        outcome.ruling = fusion_history::ruling_of(&outcome.verdicts);
        outcome.history = history;
        assert_eq!(outcome.ruling, Ruling::Violated);
        outcome
    }

    #[test]
    fn machines_are_told_who_told_whom_and_what_is_violated() {
        let outcome = wrong_race();
        let lines = lines(outcome.run(), &Pick::default()).unwrap();
        assert!(lines.iter().any(|line| line.from.as_deref() == Some("alice/phone")));
        let violations = outcome.run().violations().flat_map(|found| &found.excerpt);
        for id in violations {
            let line = lines.iter().find(|line| line.id == Some(*id)).expect("it is shown");
            assert!(!line.violates.is_empty());
        }
    }
}
