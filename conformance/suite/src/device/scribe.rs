//! Writes a client's calls into the history: what was asked, and what became of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fusion_history::event::Answer;
use fusion_history::{Body, Call, EventId, Outcome, Recorder};
use fusion_protocol::{Address, Url};
use fusion_runtime::Clock;
use serde::de::DeserializeOwned;

use super::failure::Doubt;
use super::wire::Reply;
use super::{Failure, Made};

/// One client's pen. Clones write with the same numbering.
#[derive(Clone)]
pub(crate) struct Scribe {
    pub(crate) recorder: Recorder,
    clock: Clock,
    name: Arc<str>,
    actor: Address,
    next: Arc<AtomicU64>,
}

/// What became of a call after all its tries.
pub(crate) struct Tried<T> {
    pub(crate) result: Result<T, Failure>,
    pub(crate) doubt: Doubt,
    /// The URL that answered, when it was not the one asked (308, 307).
    pub(crate) moved_to: Option<Url>,
}

impl Scribe {
    pub(crate) fn new(recorder: Recorder, clock: Clock, name: Arc<str>, actor: Address) -> Self {
        Self { recorder, clock, name, actor, next: Arc::default() }
    }

    /// Somebody asks for something; `operation` is the stable id, made up when there is none.
    pub(crate) fn begin(&self, operation: Option<&str>, cause: Option<EventId>, call: Call) -> EventId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let operation = operation.map_or_else(|| format!("{}#{number}", self.name), str::to_owned);
        self.write(cause, Body::Invoke { operation, actor: self.actor.clone(), call })
    }

    /// What became of it.
    pub(crate) fn end<T>(
        &self,
        invoked: EventId,
        tried: Tried<T>,
        answer: impl FnOnce(&T) -> Answer,
    ) -> Result<T, Failure> {
        let outcome = match &tried.result {
            Ok(it) => Outcome::Done { answer: answer(it) },
            Err(failure) => failure.outcome(tried.doubt),
        };
        self.write(Some(invoked), Body::Return { outcome });
        tried.result
    }

    pub(crate) fn write(&self, cause: Option<EventId>, body: Body) -> EventId {
        self.recorder.record(self.clock.now(), &self.name, cause, body)
    }
}

impl<T> Tried<T> {
    pub(crate) fn once(result: Result<T, Failure>) -> Self {
        Self { result, doubt: Doubt::None, moved_to: None }
    }

    pub(crate) fn and_then<U>(self, then: impl FnOnce(T) -> Result<U, Failure>) -> Tried<U> {
        Tried { result: self.result.and_then(then), doubt: self.doubt, moved_to: self.moved_to }
    }
}

impl Tried<Reply> {
    pub(crate) fn json<T: DeserializeOwned>(self) -> Tried<T> {
        self.and_then(|reply| reply.json())
    }

    /// The body of a creation, which tells 201 from 200.
    pub(crate) fn made<T: DeserializeOwned>(self) -> Tried<Made<T>> {
        self.and_then(|reply| {
            let it = reply.json()?;
            Ok(if reply.status == 201 { Made::New(it) } else { Made::Known(it) })
        })
    }

    pub(crate) fn nothing(self) -> Tried<()> {
        self.and_then(|reply| reply.success())
    }
}
