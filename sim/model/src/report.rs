//! What a search has found.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::model::{Kind, Sort};

/// What a search of one model has found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Different worlds that were visited.
    pub worlds: usize,
    /// Steps that were taken, to whichever world.
    pub transitions: usize,
    /// The longest of the shortest ways to a world, in worlds.
    pub depth: usize,
    /// Whether every world within the bounds was visited.
    pub whole: bool,
    /// How long it took.
    pub elapsed: Duration,
    /// What must have happened, and never did.
    pub missing: Vec<Sort>,
    /// How many of the steps were of which sort.
    pub steps: Vec<(Sort, u64)>,
    /// Each property with its verdict.
    pub properties: Vec<Judged>,
    /// How far the search goes.
    pub bounds: String,
}

/// A property with its verdict.
#[derive(Clone, Debug)]
pub struct Judged {
    /// How often it is to hold.
    pub kind: Kind,
    /// What.
    pub words: &'static str,
    /// What was found.
    pub verdict: Verdict,
    /// A shortest story that violates it, or shows it.
    pub story: Option<Trace>,
}

/// What a search says of a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// In every world within the bounds.
    Holds,
    /// What is to happen sometimes has happened.
    Seen,
    /// The search ended before it could be said.
    Open,
    /// Violated.
    Violated,
    /// What is to happen sometimes never did: the model is empty.
    NeverSeen,
}

/// A story: how the world was, and what happened, each with the lines that are new after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The world at its start.
    pub start: Vec<String>,
    /// Each step, with what has changed.
    pub steps: Vec<(String, Vec<String>)>,
}

impl Report {
    /// The weightiest verdict: of its properties, and of what must have happened.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let empty = self.whole && !self.missing.is_empty();
        let all = self.properties.iter().map(|judged| judged.verdict);
        match all.chain(empty.then_some(Verdict::NeverSeen)).max() {
            Some(Verdict::Seen) => Verdict::Holds,
            other => other.unwrap_or(Verdict::Open),
        }
    }

    /// The violated property of the shortest story; one whose story ends in what is wrong comes before one
    /// that only leads there.
    #[must_use]
    pub fn violated(&self) -> Option<(&Judged, &Trace)> {
        let violated = self.properties.iter().filter(|judged| judged.verdict == Verdict::Violated);
        let told = violated.filter_map(|judged| Some((judged, judged.story.as_ref()?)));
        told.min_by_key(|(judged, story)| (judged.kind == Kind::Eventually, story.steps.len()))
    }

    /// For machines; the caller adds which model it is.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let steps: serde_json::Map<_, _> =
            self.steps.iter().map(|(sort, count)| (sort.plural().to_owned(), json!(count))).collect();
        json!({
            "verdict": self.verdict(),
            "worlds": self.worlds,
            "transitions": self.transitions,
            "depth": self.depth,
            "whole": self.whole,
            "seconds": self.elapsed.as_secs_f64(),
            "bounds": self.bounds,
            "steps": steps,
            "properties": self.properties.iter().map(Judged::to_json).collect::<Vec<_>>(),
        })
    }
}

impl Judged {
    fn to_json(&self) -> Value {
        let story = self.story.as_ref().filter(|_| self.verdict == Verdict::Violated);
        let steps = |story: &Trace| {
            let each = story.steps.iter().map(|(step, after)| json!({ "step": step, "after": after }));
            json!({ "start": story.start, "steps": each.collect::<Vec<_>>() })
        };
        json!({
            "kind": self.kind.name(),
            "property": self.words,
            "verdict": self.verdict,
            "seenAfter": self.story.as_ref().map(|story| story.steps.len()),
            "counterexample": story.map(steps),
        })
    }
}
