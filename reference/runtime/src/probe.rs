//! Where services report what happened: state changes for judges, log lines for operators.
//!
//! In production a state change goes nowhere and a log line goes to the log. A simulator keeps both.

use serde_json::Value;

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever debugs this service.
    Debug,
    /// Normal life.
    Info,
    /// Something is wrong and was handled.
    Warn,
    /// Something is wrong and needs an operator.
    Error,
}

/// One change of one object's state, as its home commits it.
#[derive(Clone, Debug, PartialEq)]
pub struct StateChange {
    /// The kind of object, in the field's words: `conversation`, `slot`, `locus`, `index`, `leg`.
    pub concept: &'static str,
    /// Which object: its URL or key.
    pub subject: String,
    /// The state it is in now, in one word of SPEC where there is one (`BOUND`, `ACTIVE`).
    pub state: String,
    /// What a judge needs besides: camelCase members.
    pub detail: Value,
}

/// Receives reports. Implementations never block and never fail.
pub trait Probe: Send + Sync + 'static {
    /// Whether [`Probe::state`] is looked at; when not, services need not build the change.
    fn watches_state(&self) -> bool {
        false
    }

    /// An object's state has changed, durably.
    fn state(&self, change: StateChange) {
        let _ = change;
    }

    /// Whether lines of this level are looked at; when not, services need not build them.
    fn logs(&self, level: Level) -> bool {
        let _ = level;
        true
    }

    /// A structured log line: a target in the field's words, no prose, fields only (PRI-005: no
    /// addresses, no paths, no content).
    fn log(&self, level: Level, target: &'static str, fields: Value);
}

/// The probe of production: log lines go to `tracing`, state changes nowhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogProbe;

impl Probe for LogProbe {
    fn log(&self, level: Level, target: &'static str, fields: Value) {
        match level {
            Level::Debug => tracing::debug!(event = target, %fields),
            Level::Info => tracing::info!(event = target, %fields),
            Level::Warn => tracing::warn!(event = target, %fields),
            Level::Error => tracing::error!(event = target, %fields),
        }
    }
}
