//! The traits of a history: one pass over its events.

use std::collections::{BTreeMap, BTreeSet};

use fusion_history::event::{FaultPhase, Phase, SocketChange};
use fusion_history::{Answer, Body, Call, EventId, History, Outcome};
use fusion_protocol::mercury::EventType;
use serde_json::Value;

/// Tells `see` the name of everything that was seen, again and again.
pub(super) fn of_history(history: &History, see: &mut dyn FnMut(String)) {
    let mut watcher = Watcher::default();
    for event in history.events() {
        let mut seen = Vec::new();
        watcher.watch(event, &mut seen);
        for name in seen {
            for family in &watcher.faults {
                see(format!("{name}, under {family}"));
            }
            see(name);
        }
    }
}

/// What has to be remembered of earlier events.
#[derive(Default)]
struct Watcher<'h> {
    /// The last state of each object.
    states: BTreeMap<(&'h str, &'h str), String>,
    /// What each device was told last.
    told: BTreeMap<&'h str, &'static str>,
    sockets: BTreeMap<&'h str, &'static str>,
    /// Calls without an answer yet: what, and about which object.
    open: BTreeMap<EventId, (&'static str, Option<String>)>,
    /// The families of the faults that are on, by fault.
    on: BTreeMap<&'h str, &'h str>,
    faults: BTreeSet<&'h str>,
    /// Nothing is drawn from what is read when all is over.
    over: bool,
}

impl<'h> Watcher<'h> {
    fn watch(&mut self, event: &'h fusion_history::Event, seen: &mut Vec<String>) {
        match &event.body {
            Body::State { concept, subject, state, detail } => {
                let now = format!("{state}{}", shape(concept, detail));
                let before = self.states.insert((concept, subject), now.clone());
                let before = before.unwrap_or_else(|| "-".to_owned());
                if before != now {
                    seen.push(format!("{concept} {before} > {now}"));
                }
            }
            Body::Invoke { call, .. } => self.asked(event.id, call, seen),
            Body::Return { outcome } => self.answered(event.cause, outcome, seen),
            Body::Deliver { event_type, .. } => {
                let now = told(*event_type);
                let before = self.told.insert(&event.host, now).unwrap_or("-");
                seen.push(format!("told {before} > {now}"));
            }
            Body::Socket { what, .. } => {
                let now = match what {
                    SocketChange::Ready => "ready",
                    SocketChange::Resync => "resync",
                    SocketChange::Closed => "closed",
                };
                let before = self.sockets.insert(&event.host, now).unwrap_or("-");
                seen.push(format!("socket {before} > {now}"));
            }
            Body::Fault { fault, family, phase, .. } => {
                match phase {
                    FaultPhase::Began => self.on.insert(fault, family),
                    FaultPhase::Ended => self.on.remove(fault.as_str()),
                };
                self.faults = self.on.values().copied().collect();
            }
            Body::Log { target, .. } => seen.push(format!("log {target}")),
            Body::Phase { phase } => self.over = *phase >= Phase::Quiescent,
            Body::World(_) | Body::Wire { .. } | Body::Sink(_) | Body::Media(_) | Body::Leg(_) => {}
        }
    }

    /// Two calls about one object at once.
    fn asked(&mut self, id: EventId, call: &Call, seen: &mut Vec<String>) {
        if self.over {
            return;
        }
        let (name, about) = (name(call), about(call));
        if about.is_some() {
            for (other, _) in self.open.values().filter(|(_, of)| *of == about) {
                let (one, two) = if *other < name { (*other, name) } else { (name, *other) };
                seen.push(format!("at once {one} and {two}"));
            }
        }
        self.open.insert(id, (name, about));
    }

    fn answered(&mut self, cause: Option<EventId>, outcome: &Outcome, seen: &mut Vec<String>) {
        let Some((name, _)) = cause.and_then(|cause| self.open.remove(&cause)) else { return };
        let answer = match outcome {
            Outcome::Done { answer } => done(answer).to_owned(),
            Outcome::Refused { code: Some(code), .. } => code.as_str().to_owned(),
            Outcome::Refused { status, code: None } => status.to_string(),
            Outcome::Unreachable {} => "unreachable".to_owned(),
            Outcome::Unknown {} => "no answer".to_owned(),
        };
        seen.push(format!("{name}: {answer}"));
    }
}

/// What of an object's details makes another state of it.
fn shape(concept: &str, detail: &Value) -> String {
    let is = |key: &str| !matches!(detail.get(key), None | Some(Value::Null));
    match concept {
        "conversation" => format!(" {}", detail.get("kind").and_then(Value::as_str).unwrap_or("-")),
        "slot" if is("mergingFrom") => " merging".to_owned(),
        "index" if is("supersededBy") => " superseded".to_owned(),
        "locus" => {
            let participants = detail.get("participants").and_then(Value::as_array);
            let joined = participants.into_iter().flatten().filter(|one| one["state"] == "JOINED").count();
            let of = participants.map_or(0, Vec::len);
            format!(" {}of{}", joined.min(3), if of > 2 { "many" } else { "two" })
        }
        _ => String::new(),
    }
}

fn done(answer: &Answer) -> &'static str {
    match answer {
        Answer::Conversation { created: true, .. }
        | Answer::Accepted { created: true, redirected_to: None, .. } => "created",
        Answer::Accepted { redirected_to: Some(_), .. }
        | Answer::Activities { redirected_to: Some(_), .. } => "redirected",
        Answer::Conversation { created: false, .. } | Answer::Accepted { created: false, .. } => {
            "there already"
        }
        Answer::LocusUnchanged { .. } => "unchanged",
        Answer::Joined { leg: None, .. } => "done, without a leg",
        _ => "done",
    }
}

fn name(call: &Call) -> &'static str {
    match call {
        Call::Provision { .. } => "provision",
        Call::Deprovision { .. } => "deprovision",
        Call::Move { .. } => "move",
        Call::Claim { .. } => "claim",
        Call::ReadDomain { .. } => "read domain",
        Call::LogIn { .. } => "log in",
        Call::Exchange { .. } => "exchange",
        Call::Resolve { .. } => "resolve",
        Call::Connect { .. } => "connect",
        Call::Disconnect { .. } => "disconnect",
        Call::Create { .. } => "create",
        Call::LookUp { .. } => "look up",
        Call::Post { verb, .. } if verb == "add" => "add",
        Call::Post { verb, .. } if verb == "message" => "say",
        Call::Post { .. } => "post",
        Call::Read { .. } => "read",
        Call::ReadConversation { .. } => "read conversation",
        Call::ReadIndex { .. } => "read index",
        Call::ReadLocus { .. } => "read locus",
        Call::ReadLocusSince { .. } => "read locus since",
        Call::Join { .. } => "join",
        Call::SetState { .. } => "set state",
        Call::Renew { .. } => "renew",
        Call::ListLoci {} => "list loci",
        Call::Talk { .. } => "talk",
        Call::Trespass { .. } => "trespass",
    }
}

/// The object that a call is about, where two calls about one may meet.
fn about(call: &Call) -> Option<String> {
    match call {
        Call::Provision { user, .. } | Call::Move { user, .. } | Call::Resolve { user, .. } => {
            Some(user.as_str().to_owned())
        }
        Call::Claim { domain, .. } => Some(domain.to_string()),
        Call::Create { others, .. } if others.len() == 1 => Some(others[0].as_str().to_owned()),
        Call::Post { conversation, .. }
        | Call::Read { conversation, .. }
        | Call::ReadConversation { conversation } => Some(conversation.to_string()),
        Call::ReadLocus { locus }
        | Call::ReadLocusSince { locus, .. }
        | Call::Join { locus, .. }
        | Call::SetState { locus, .. }
        | Call::Renew { locus, .. } => Some(locus.to_string()),
        _ => None,
    }
}

fn told(event_type: EventType) -> &'static str {
    match event_type {
        EventType::ConversationCreated => "created",
        EventType::ConversationActivity => "activity",
        EventType::ConversationChanged => "changed",
        EventType::LocusRinging => "ringing",
        EventType::LocusChanged => "call",
        EventType::LocusAnsweredElsewhere => "answered elsewhere",
        _ => "other",
    }
}
