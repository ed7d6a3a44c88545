//! Stepping through a run: forwards, backwards, and a look at the state of any host on the way.
//!
//! The run is played and judged once; the cursor then moves over its events. What is the case at an event is
//! had by playing the plan once more and stopping just after it ([`stopped_at`]): the same plan makes the
//! same run, so going back is as true as going on, and looking changes nothing. The last few moments looked
//! at are kept.

mod change;
mod command;
mod look;
mod moment;
mod predicate;

use std::collections::VecDeque;
use std::rc::Rc;

use fusion_deployment::Hooks;
use fusion_history::{Body, Event, EventId};
use serde_json::{Value, json};

pub use change::{Change, changes};
pub use command::{Command, Unknown};
pub use moment::{Moment, StoredRow};
pub use predicate::Predicate;

use crate::engines::fabric::{Options, stopped_at};
use crate::outcome::{Outcome, judged};
use crate::plan::Plan;

/// How many moments are kept: those between which people go to and fro.
const MOMENTS_KEPT: usize = 16;
/// How many steps back a chain of causes is followed.
const CAUSES_MAX: usize = 100;
/// How many changes are told of one by one.
const CHANGES_TOLD: usize = 60;

/// A run that is stepped through.
pub struct Session {
    hooks: Hooks,
    outcome: Outcome,
    at: u64,
    moments: VecDeque<Rc<Moment>>,
}

/// What a command is answered with.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// For people; whole lines.
    pub text: String,
    /// For machines.
    pub value: Value,
}

impl Session {
    /// Plays `plan` and stands at its first event.
    ///
    /// # Errors
    /// When nothing happens in it, with the reason.
    pub fn new(plan: &Plan, hooks: Hooks) -> Result<Self, String> {
        let outcome = judged(plan, &Options { hooks: hooks.clone(), ..Options::default() });
        if outcome.history.is_empty() {
            return Err(format!("nothing happened: {}", outcome.failure.as_deref().unwrap_or("no event")));
        }
        Ok(Self { hooks, outcome, at: 0, moments: VecDeque::new() })
    }

    /// The run as a whole.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// The place of the event it stands at.
    #[must_use]
    pub fn at(&self) -> EventId {
        EventId(self.at)
    }

    /// What is told first: which run it is, and where it is wrong.
    #[must_use]
    pub fn greeting(&self) -> Reply {
        let Outcome { scenario, seed, events, ruling, hash, .. } = &self.outcome;
        let wrong: Vec<_> = self.violations().map(|violation| violation.requirement.as_str()).collect();
        let mut text = format!("{scenario}, seed {seed}: {events} events, {ruling}");
        if !wrong.is_empty() {
            text.push_str(&format!(" ({}; `until violation` goes there)", wrong.join(", ")));
        }
        let value = json!({"scenario": scenario, "seed": seed, "events": events, "verdict": ruling.to_string(), "hash": hash});
        Reply { text: format!("{text}\n{}", self.here().text), value }
    }

    /// Does what `command` says; none is changed but the place.
    ///
    /// # Errors
    /// Why it cannot be done, and what could be.
    pub fn obey(&mut self, command: &Command) -> Result<Reply, String> {
        match command {
            Command::Next(by) => self.go_on(*by),
            Command::Back(by) => self.go_back(*by),
            Command::Until(predicate) => self.go_until(predicate),
            Command::Where => Ok(self.here()),
            Command::Why => Ok(self.why()),
            Command::Violations => Ok(self.told_violations()),
            Command::Overview => Ok(look::overview(&*self.moment(self.at)?)),
            Command::Show { what, which } => {
                let moment = self.moment(self.at)?;
                look::look(&moment, self.past(), what, which.as_deref())
            }
            Command::Diff { from, to, host } => {
                let (from, to) = (self.place(*from), self.place(*to));
                self.diff(from, to, host.as_deref())
            }
            Command::Help => {
                Ok(Reply { text: command::HELP.to_owned(), value: json!({"help": command::HELP}) })
            }
            Command::Quit => Ok(Reply { text: String::new(), value: json!({"quit": true}) }),
        }
    }

    /// What was the case just after the event at `place`.
    ///
    /// # Errors
    /// When there is no such event, or the run takes another course when it is played again.
    pub fn moment(&mut self, place: u64) -> Result<Rc<Moment>, String> {
        if let Some(known) = self.moments.iter().find(|moment| moment.event == EventId(place)) {
            return Ok(known.clone());
        }
        self.known(place)?;
        let stopped = stopped_at(&self.outcome.plan, &self.hooks, EventId(place))?;
        let same = self.events().get(..stopped.history.len()) == Some(stopped.history.events());
        if !same {
            return Err(
                "played again, the run takes another course: `sim check-determinism` tells why".into()
            );
        }
        let moment = Rc::new(Moment::of(EventId(place), stopped));
        self.moments.push_back(moment.clone());
        if self.moments.len() > MOMENTS_KEPT {
            self.moments.pop_front();
        }
        Ok(moment)
    }

    fn events(&self) -> &[Event] {
        self.outcome.history.events()
    }

    /// The events up to here.
    fn past(&self) -> &[Event] {
        &self.events()[..=self.at as usize]
    }

    fn event(&self) -> &Event {
        &self.events()[self.at as usize]
    }

    fn last(&self) -> u64 {
        self.events().len() as u64 - 1
    }

    /// The place that was named, or here.
    fn place(&self, named: Option<u64>) -> u64 {
        named.unwrap_or(self.at)
    }

    fn known(&self, place: u64) -> Result<(), String> {
        match place <= self.last() {
            true => Ok(()),
            false => Err(format!("there is no event #{place}: the last is #{}", self.last())),
        }
    }

    fn violations(&self) -> impl Iterator<Item = &fusion_history::Violation> {
        self.outcome.verdicts.iter().flat_map(|verdict| &verdict.violations)
    }

    fn go_on(&mut self, by: u64) -> Result<Reply, String> {
        if self.at == self.last() {
            return Err(format!("#{} is the last event", self.at));
        }
        let to = self.at.saturating_add(by).min(self.last());
        Ok(self.walk(to))
    }

    fn go_back(&mut self, by: u64) -> Result<Reply, String> {
        if self.at == 0 {
            return Err("#0 is the first event".to_owned());
        }
        self.at = self.at.saturating_sub(by);
        Ok(self.here())
    }

    fn go_until(&mut self, predicate: &Predicate) -> Result<Reply, String> {
        if let Predicate::Event(place) = predicate
            && *place <= self.at
        {
            return Err(format!(
                "#{place} is not ahead of #{}: `back {}` goes there",
                self.at,
                self.at - place
            ));
        }
        let violations: Vec<_> = self.violations().collect();
        let ahead = &self.events()[self.at as usize + 1..];
        match ahead.iter().find(|event| predicate.is_met(event, &violations)).map(|event| event.id.0) {
            Some(place) => {
                self.at = place;
                Ok(self.here())
            }
            None => Err(format!("no event after #{} {predicate}; the last is #{}", self.at, self.last())),
        }
    }

    /// Tells every event on the way.
    fn walk(&mut self, to: u64) -> Reply {
        let passed = &self.events()[self.at as usize + 1..=to as usize];
        let text = passed.iter().map(|event| format!("{event}\n")).collect();
        let value = json!({"at": to, "passed": passed});
        self.at = to;
        Reply { text, value }
    }

    fn here(&self) -> Reply {
        let event = self.event();
        let mut text = format!("{event}\n");
        for violation in self.violations().filter(|violation| violation.excerpt.contains(&event.id)) {
            text.push_str(&format!("       {}: {}\n", violation.requirement, violation.statement));
        }
        Reply { text, value: json!({"at": self.at, "of": self.last(), "event": event}) }
    }

    /// The causes of this event, back to the root; and what was wrong meanwhile.
    fn why(&self) -> Reply {
        let history = &self.outcome.history;
        let mut chain = vec![self.event()];
        while let Some(cause) = chain[chain.len() - 1].cause.and_then(|id| history.event(id)) {
            if chain.len() > CAUSES_MAX {
                break;
            }
            chain.push(cause);
        }
        let mut text: String = chain.iter().map(|event| format!("{event}\n")).collect();
        let root = chain[chain.len() - 1];
        let before = self.before(root);
        match before {
            _ if chain.len() > 1 => text.push_str("nothing led to the last one: it is the root\n"),
            None => text.push_str("no cause of it was recorded\n"),
            Some(before) => text.push_str(&format!(
                "no cause of it was recorded; the last event before it about the same thing is\n{before}\n"
            )),
        }
        let faults = self.faults_in_force();
        faults.iter().for_each(|fault| text.push_str(&format!("meanwhile in force: {fault}\n")));
        let value = json!({"causes": chain, "before": before, "faults": faults});
        Reply { text, value }
    }

    /// The last event before `event` that is about the same thing.
    fn before(&self, event: &Event) -> Option<&Event> {
        let thing = predicate::thing(event)?;
        let past = &self.events()[..event.id.0 as usize];
        past.iter().rev().find(|earlier| predicate::thing(earlier).as_deref() == Some(&*thing))
    }

    /// The beginnings of the faults that have not ended by now.
    fn faults_in_force(&self) -> Vec<&Event> {
        let mut begun: Vec<&Event> = Vec::new();
        for event in self.past() {
            let Body::Fault { fault, phase, .. } = &event.body else { continue };
            begun.retain(|begun| !matches!(&begun.body, Body::Fault { fault: known, .. } if known == fault));
            if *phase == fusion_history::event::FaultPhase::Began {
                begun.push(event);
            }
        }
        begun
    }

    fn told_violations(&self) -> Reply {
        let all: Vec<_> = self.violations().collect();
        let rendered = all.iter().map(|violation| violation.render(&self.outcome.history));
        let text = match all.is_empty() {
            true => format!("nothing is violated: the run {}\n", self.outcome.ruling),
            false => rendered.collect(),
        };
        Reply { text, value: json!({"violations": all}) }
    }

    fn diff(&mut self, from: u64, to: u64, host: Option<&str>) -> Result<Reply, String> {
        let (left, right) = (self.moment(from)?, self.moment(to)?);
        if let Some(host) = host {
            left.known_host(host)?;
        }
        let changes = changes(&left, &right, host);
        let mut text = format!("from #{from} to #{to}: {} changes\n", changes.len());
        changes.iter().take(CHANGES_TOLD).for_each(|change| text.push_str(&format!("{change}\n")));
        if changes.len() > CHANGES_TOLD {
            let rest = changes.len() - CHANGES_TOLD;
            text.push_str(&format!("and {rest} more: `diff {from} {to} HOST` tells those of one host\n"));
        }
        Ok(Reply { text, value: json!({"from": from, "to": to, "changes": changes}) })
    }
}
