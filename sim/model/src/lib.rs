//! Small worlds round the protocol machines, searched in every order of events.
//!
//! A [`Model`] is a world of two or three clusters whose decisions are made by `fusion-machines` alone: the
//! same code that the services call. Messages are lost, doubled and reordered, clusters crash, and
//! stateright visits every state that can come of it, breadth first: a violated property is shown by one of
//! its shortest stories.
//!
//! | model | machines | story |
//! |---|---|---|
//! | [`pair`] | `pair` | two people create their 1:1 at once (CNV-003) |
//! | [`index`] | `outbox`, `index` | what is said in one cluster arrives in another's index (RDV-002, RDV-004) |
//! | [`locus`] | `locus` | people call each other at once, and one of them vanishes (LOC-003, LOC-007) |
//! | [`domain_claim`] | `domain_claim` | two orgs claim one domain at once (MAP-002) |
//!
//! Modelled: what is durable, what is under way, what is repeated until it is answered, what dies with a
//! process. Not modelled: HTTP, tokens, stores, time as a number, and whatever a service does besides
//! calling its machine; the simulator plays those.
//!
//! **Invariant:** nothing here decides. A world passes events to a machine and carries out what it says; a
//! [`Plant`] alters what goes in or comes out, so that the search can be seen to find it.

pub mod domain_claim;
pub mod index;
pub mod locus;
pub mod model;
pub mod pair;
pub mod path;
pub mod report;
pub mod search;

mod cast;
mod models;
mod words;

pub use model::{Model, Plant, Property, Sort};
pub use models::{ALL, Named, Unknown};
pub use report::{Judged, Report, Trace, Verdict};
pub use search::{Limits, search};
