//! What a judge is, and what it answers.
//!
//! A judge is a pure function of a history: it holds one requirement of SPEC against what was observed.
//! It never guesses: without the evidence it needs it answers *unknown* and says what is missing, and it
//! counts the cases it really had to judge. The judges themselves are in [`mod@crate::judges`].

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::{Body, EventId};
use crate::facts::Facts;
use crate::history::History;

/// How many violations one verdict spells out; all are counted.
pub const VIOLATIONS_KEPT: usize = 20;
/// How many events one excerpt names: the first cause, the last effect, and what is nearest to them.
pub const EXCERPT_MAX: usize = 8;

/// Holds one requirement against a history.
pub trait Judge: Send + Sync {
    /// Its name, for example `one-per-pair`.
    fn name(&self) -> &'static str;

    /// The ids of the requirements it judges.
    fn requirements(&self) -> &'static [&'static str];

    /// What it cannot do without.
    fn evidence(&self) -> &'static [Evidence];

    /// How much of a history it must hear at once.
    fn scope(&self) -> Scope {
        Scope::History
    }

    /// Judges what [`Facts`] holds. Its evidence is there.
    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook);

    /// Judges a history by itself. Several judges of one history are faster by [`crate::judge_all`].
    fn judge(&self, history: &History) -> Verdict {
        judge_facts(self, &Facts::of(history))
    }
}

/// How much of a history a judge must hear at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of it: whether the requirement holds for some may depend on what others did.
    History,
    /// A circle: people who had to do with each other and with nobody else, and the faults of all.
    Circle,
}

/// What kind of thing was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Evidence {
    /// What the network carried.
    Wire,
    /// What clients asked, were answered and were told.
    Client,
    /// What services committed.
    State,
    /// Places searched for private bytes.
    Sink,
}

/// What a judge says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The judge's name.
    pub judge: String,
    /// The requirements it judged.
    pub requirements: Vec<String>,
    /// Its ruling.
    pub ruling: Ruling,
    /// How many cases it really had to judge. Never 0 when it holds: no empty victory.
    pub reached: u64,
    /// How many cases it saw and could not judge.
    pub unjudged: u64,
    /// How many violations there are.
    pub violated: u64,
    /// The first of them, at most [`VIOLATIONS_KEPT`].
    pub violations: Vec<Violation>,
    /// Why the ruling is unknown; also why cases were left unjudged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_unknown: Option<WhyUnknown>,
}

/// Three-valued: what was not seen is not claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ruling {
    /// Every case there was is as it must be.
    Holds,
    /// There was no case, or one could not be judged.
    Unknown,
    /// At least one case is not as it must be.
    Violated,
}

/// A case that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// The requirement that does not hold.
    pub requirement: String,
    /// What happened, in one sentence.
    pub statement: String,
    /// The events that show it, in order, at most [`EXCERPT_MAX`].
    pub excerpt: Vec<EventId>,
    /// Equal for equal bugs whatever the seed: judge, requirement and kind.
    pub fingerprint: String,
}

/// Why a ruling is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "why")]
pub enum WhyUnknown {
    /// The history has none of this evidence.
    MissingEvidence {
        /// Which.
        evidence: Vec<Evidence>,
    },
    /// Nothing happened that the requirement speaks of.
    NoCase {},
    /// Something happened, and nobody looked at what became of it.
    NotObserved {
        /// What was not looked at.
        what: String,
    },
    /// What was observed allows no ruling.
    Inconclusive {
        /// Why.
        what: String,
    },
    /// The history was cut at the recorder's budget: what came after is not known.
    Cut {
        /// How many events were not kept.
        events: u64,
    },
}

/// The ruling of several verdicts together. A requirement that had no case in this run does not spoil it;
/// when none had a case, it is unknown.
#[must_use]
pub fn ruling_of(verdicts: &[Verdict]) -> Ruling {
    let had_a_case = verdicts.iter().filter(|verdict| !verdict.had_no_case());
    had_a_case.map(|verdict| verdict.ruling).max().unwrap_or(Ruling::Unknown)
}

impl Verdict {
    /// Whether the judge is silent because nothing happened that its requirement speaks of, or because
    /// this kind of run has not its evidence.
    #[must_use]
    pub fn had_no_case(&self) -> bool {
        matches!(self.why_unknown, Some(WhyUnknown::NoCase {} | WhyUnknown::MissingEvidence { .. }))
    }
}

impl Violation {
    /// Whether its excerpt can be followed: neither empty nor too long, and no answer without its question.
    #[must_use]
    pub fn explains_itself(&self, history: &History) -> bool {
        let is_whole = |event: &EventId| {
            question_of(*event, history).is_none_or(|question| self.excerpt.contains(&question))
        };
        (1..=EXCERPT_MAX).contains(&self.excerpt.len()) && self.excerpt.iter().all(is_whole)
    }

    /// The violation with its excerpt, for humans.
    #[must_use]
    pub fn render(&self, history: &History) -> String {
        let mut text = format!("{} is violated: {}\n", self.requirement, self.statement);
        for event in self.excerpt.iter().filter_map(|id| history.event(*id)) {
            text.push_str(&format!("  {event}\n"));
        }
        text.push_str(&format!("  fingerprint {}\n", self.fingerprint));
        text
    }
}

impl fmt::Display for Ruling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Holds => "holds",
            Self::Unknown => "unknown",
            Self::Violated => "violated",
        })
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Wire => "wire",
            Self::Client => "client",
            Self::State => "state",
            Self::Sink => "sink",
        })
    }
}

impl fmt::Display for WhyUnknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingEvidence { evidence } => {
                let names: Vec<String> = evidence.iter().map(ToString::to_string).collect();
                write!(f, "the history has no {} evidence", names.join(" and no "))
            }
            Self::NoCase {} => f.write_str("nothing happened that the requirement speaks of"),
            Self::NotObserved { what } => write!(f, "not observed: {what}"),
            Self::Inconclusive { what } => write!(f, "inconclusive: {what}"),
            Self::Cut { events } => write!(f, "{events} events went beyond the budget and were not kept"),
        }
    }
}

/// What a judge notes down while it hears the facts.
#[derive(Debug)]
pub struct Casebook {
    judge: &'static str,
    requirements: &'static [&'static str],
    reached: u64,
    unjudged: u64,
    violated: u64,
    violations: Vec<Violation>,
    not_observed: Option<String>,
    doubt: Option<String>,
    missing: Vec<Evidence>,
}

impl Casebook {
    /// One more case that was really judged.
    pub fn reached(&mut self) {
        self.reached += 1;
    }

    /// `cases` more cases that were really judged.
    pub fn reached_many(&mut self, cases: u64) {
        self.reached = self.reached.saturating_add(cases);
    }

    /// A case of which nobody observed the outcome. The others are still judged.
    pub fn not_observed(&mut self, what: &str) {
        self.unjudged += 1;
        self.not_observed.get_or_insert_with(|| what.to_owned());
    }

    /// A case whose outcome was observed and allows no ruling: the whole ruling is unknown.
    pub fn inconclusive(&mut self, what: &str) {
        self.unjudged += 1;
        self.doubt.get_or_insert_with(|| what.to_owned());
    }

    /// A case that is not as it must be, of the judge's first requirement. `kind` names the bug, not the
    /// case.
    pub fn violated(&mut self, kind: &str, statement: String, excerpt: impl IntoIterator<Item = EventId>) {
        self.violated += 1;
        if self.violations.len() == VIOLATIONS_KEPT {
            return;
        }
        let requirement = self.requirements.first().copied().unwrap_or_default();
        let ordered: BTreeSet<EventId> = excerpt.into_iter().collect();
        self.violations.push(Violation {
            requirement: requirement.to_owned(),
            statement,
            excerpt: ordered.into_iter().collect(),
            fingerprint: format!("{}/{requirement}/{kind}", self.judge),
        });
    }

    pub(crate) fn new<J: Judge + ?Sized>(judge: &J) -> Self {
        Self {
            judge: judge.name(),
            requirements: judge.requirements(),
            reached: 0,
            unjudged: 0,
            violated: 0,
            violations: Vec::new(),
            not_observed: None,
            doubt: None,
            missing: Vec::new(),
        }
    }

    /// What was noted down of two parts of a history. Of the violations those are spelt out that came first.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.reached = self.reached.saturating_add(other.reached);
        self.unjudged += other.unjudged;
        self.violated += other.violated;
        self.violations.extend(other.violations);
        self.violations.sort_by(|one, other| one.excerpt.cmp(&other.excerpt));
        self.violations.truncate(VIOLATIONS_KEPT);
        self.not_observed = self.not_observed.or(other.not_observed);
        self.doubt = self.doubt.or(other.doubt);
        self
    }

    pub(crate) fn close(self, beyond_budget: u64) -> Verdict {
        let evidence = self.missing;
        let why_unknown = (!evidence.is_empty())
            .then_some(WhyUnknown::MissingEvidence { evidence })
            .or_else(|| self.doubt.map(|what| WhyUnknown::Inconclusive { what }))
            .or_else(|| (beyond_budget > 0).then_some(WhyUnknown::Cut { events: beyond_budget }));
        let ruling = if self.violated > 0 {
            Ruling::Violated
        } else if self.reached > 0 && why_unknown.is_none() {
            Ruling::Holds
        } else {
            Ruling::Unknown
        };
        let not_observed = self.not_observed.map(|what| WhyUnknown::NotObserved { what });
        let no_case = (ruling == Ruling::Unknown).then_some(WhyUnknown::NoCase {});
        Verdict {
            judge: self.judge.to_owned(),
            requirements: self.requirements.iter().map(|&id| id.to_owned()).collect(),
            ruling,
            reached: self.reached,
            unjudged: self.unjudged,
            violated: self.violated,
            violations: self.violations,
            why_unknown: why_unknown.or(not_observed).or(no_case),
        }
    }
}

/// An answer stands with its question. Of too many events those nearest to the first cause and to the last
/// effect are kept: the middle says least.
fn shortest(events: &[EventId], history: &History) -> Vec<EventId> {
    let from_both_ends = (0..events.len()).map(|at| match at % 2 {
        0 => events[at / 2],
        _ => events[events.len() - 1 - at / 2],
    });
    let mut kept = BTreeSet::new();
    for event in from_both_ends {
        let mut with = kept.clone();
        with.extend([Some(event), question_of(event, history)].into_iter().flatten());
        if with.len() <= EXCERPT_MAX {
            kept = with;
        }
    }
    kept.into_iter().collect()
}

/// The call that a return answers.
fn question_of(event: EventId, history: &History) -> Option<EventId> {
    let event = history.event(event)?;
    event.cause.filter(|_| matches!(event.body, Body::Return { .. }))
}

fn judge_facts<J: Judge + ?Sized>(judge: &J, facts: &Facts<'_>) -> Verdict {
    heard(judge, facts).close(facts.history().beyond_budget())
}

/// What a judge notes down of what [`Facts`] holds.
pub(crate) fn heard<J: Judge + ?Sized>(judge: &J, facts: &Facts<'_>) -> Casebook {
    let mut case = Casebook::new(judge);
    case.missing = judge.evidence().iter().copied().filter(|evidence| !facts.has(*evidence)).collect();
    if case.missing.is_empty() {
        judge.hear(facts, &mut case);
        case.violations.iter_mut().for_each(|it| it.excerpt = shortest(&it.excerpt, facts.history()));
    }
    case
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, conversation_url, page, read};

    /// Somebody reads so many times; the ids of all that happened.
    fn readings(times: u64) -> (Story, Vec<EventId>) {
        let (mut story, url) = (Story::new(), conversation_url("a", 1));
        let back = (0..times).map(|_| story.does("alice", read(&url, 0), page(&[])));
        let events = back.flat_map(|back| [EventId(back.0 - 1), back]).collect();
        (story, events)
    }

    #[test]
    fn an_answer_stands_with_its_question() {
        let (story, events) = readings(2);
        assert_eq!(shortest(&[events[1], events[3]], story.told()), events);
    }

    #[test]
    fn of_many_events_the_first_cause_and_the_last_effect_are_kept() {
        let (story, events) = readings(20);
        let kept = shortest(&events, story.told());
        assert_eq!(kept, [&events[..4], &events[36..]].concat());
        assert_eq!(shortest(&events[..EXCERPT_MAX], story.told()), events[..EXCERPT_MAX]);
    }

    #[test]
    fn an_excerpt_without_a_question_or_without_anything_explains_nothing() {
        let (story, events) = readings(1);
        let explains = |excerpt: &[EventId]| {
            let violation = Violation {
                requirement: "CNV-001".to_owned(),
                statement: String::new(),
                excerpt: excerpt.to_vec(),
                fingerprint: String::new(),
            };
            violation.explains_itself(story.told())
        };
        assert!(explains(&events));
        assert!(!explains(&[]));
        assert!(!explains(&events[1..]));
    }
}
