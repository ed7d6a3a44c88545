//! Everything observed in a run, and the judges that read it.
//!
//! A [`History`] is one append-only stream of typed [`Event`]s with virtual time, host and cause. Its
//! SHA-256 chain over the event bytes is the proof of determinism. A judge is a pure function of a
//! history; the same judges read a simulated, a live and a load run.
//!
//! **Invariant:** this crate knows the wire (`fusion-protocol`) and nothing of services or engines.

pub mod canary;
mod circles;
pub mod event;
pub mod facts;
mod hearing;
pub mod history;
pub mod judge;
pub mod judges;
pub mod output;
pub mod rank;
pub mod recorder;
pub mod testing;

pub mod table;
mod text;

pub use event::{Answer, Body, Call, Event, EventId, Outcome, Phase};
pub use hearing::{judge_all, judge_in_parts};
pub use history::{Checkpoints, Difference, History, HistoryError, first_difference};
pub use judge::{Evidence, Judge, Ruling, Scope, Verdict, Violation, WhyUnknown, ruling_of};
pub use judges::judges;
pub use recorder::Recorder;
