//! A call, what came of it, and the steps of a history that calls are made of.

use fusion_protocol::{Address, Code};

use super::Verb;
use crate::event::{Answer, Call, Event, EventId, Outcome};

/// A call, and what came of it.
#[derive(Clone, Debug)]
pub struct Asked<'h> {
    /// The invocation.
    pub id: EventId,
    /// When, in microseconds since the run began.
    pub at_us: u64,
    /// Where: the device or the admin's place.
    pub host: &'h str,
    /// Who asked.
    pub actor: &'h Address,
    /// What for.
    pub call: &'h Call,
    /// What for, in a word.
    pub verb: Verb,
    /// What came back; `None` when the run cut it off.
    pub back: Option<Back<'h>>,
}

/// What came back from a call.
#[derive(Clone, Copy, Debug)]
pub struct Back<'h> {
    /// The return.
    pub id: EventId,
    /// When, in microseconds since the run began.
    pub at_us: u64,
    /// The outcome.
    pub outcome: &'h Outcome,
}

/// One step through a history in its order.
#[derive(Clone, Copy, Debug)]
pub enum Moment<'f, 'h> {
    /// A call begins.
    Asked(&'f Asked<'h>),
    /// A call ends.
    Returned(&'f Asked<'h>, Back<'h>),
    /// A device is told something, or its socket changes.
    Seen(&'h Event),
}

impl<'h> Asked<'h> {
    /// The answer, when it was done.
    #[must_use]
    pub fn answer(&self) -> Option<&'h Answer> {
        match self.back?.outcome {
            Outcome::Done { answer } => Some(answer),
            _ => None,
        }
    }

    /// The status and the code, when it was refused.
    #[must_use]
    pub fn refusal(&self) -> Option<(u16, Option<Code>)> {
        match self.back?.outcome {
            Outcome::Refused { status, code } => Some((*status, *code)),
            _ => None,
        }
    }

    /// Whether it had ended when `later` began.
    #[must_use]
    pub fn ended_before(&self, later: EventId) -> bool {
        self.back.is_some_and(|back| back.id < later)
    }

    /// Whether both were under way at one time.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        !self.ended_before(other.id) && !other.ended_before(self.id)
    }

    /// The invocation and the return.
    pub fn events(&self) -> impl Iterator<Item = EventId> + use<> {
        [Some(self.id), self.back.map(|back| back.id)].into_iter().flatten()
    }
}
