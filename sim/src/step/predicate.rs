//! What an event can be looked for by.

use std::fmt;
use std::time::Duration;

use fusion_history::{Body, Call, Event, Violation};

/// What an event is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// The event at this place.
    Event(u64),
    /// The first from this time on.
    At(Duration),
    /// Part of what any judge accuses.
    Violation,
    /// Part of what breaks this requirement, or tries to.
    Requirement(String),
    /// Of this kind.
    Kind(&'static str),
    /// Observed on this host.
    Host(String),
    /// Told with these words, whatever their case.
    Text(String),
}

/// The kinds of events.
const KINDS: [&str; 12] = [
    "world", "invoke", "return", "deliver", "socket", "state", "fault", "wire", "log", "sink", "media",
    "phase",
];

impl Predicate {
    /// Reads what people write after `until`.
    ///
    /// # Errors
    /// When it is nothing, or a host or words without any.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        Ok(match first {
            "" => {
                return Err("until what? an event, a time, a kind, a host, a requirement or words".to_owned());
            }
            "host" if rest.is_empty() => return Err("on which host?".to_owned()),
            "text" if rest.is_empty() => return Err("which words?".to_owned()),
            "host" => Self::Host(rest.to_owned()),
            "text" => Self::Text(rest.to_lowercase()),
            _ if !rest.is_empty() => Self::Text(text.to_lowercase()),
            "violation" => Self::Violation,
            word => Self::of_word(word),
        })
    }

    fn of_word(word: &str) -> Self {
        if let Ok(place) = word.trim_start_matches('#').parse() {
            return Self::Event(place);
        }
        if let Some(at) = time(word) {
            return Self::At(at);
        }
        if let Some(kind) = KINDS.iter().find(|kind| **kind == word) {
            return Self::Kind(kind);
        }
        let (area, number) = word.split_once('-').unwrap_or_default();
        let is_requirement = area.len() == 3
            && area.bytes().all(|byte| byte.is_ascii_uppercase())
            && number.len() == 3
            && number.bytes().all(|byte| byte.is_ascii_digit());
        if is_requirement { Self::Requirement(word.to_owned()) } else { Self::Text(word.to_lowercase()) }
    }

    /// Whether `event` is that; `violations` are those of the run.
    #[must_use]
    pub fn is_met(&self, event: &Event, violations: &[&Violation]) -> bool {
        let mut accusing = violations.iter().filter(|violation| violation.excerpt.contains(&event.id));
        match self {
            Self::Event(place) => event.id.0 == *place,
            Self::At(at) => u128::from(event.at_us) >= at.as_micros(),
            Self::Violation => accusing.next().is_some(),
            Self::Requirement(id) => {
                accusing.any(|violation| violation.requirement == *id)
                    || matches!(&event.body, Body::Invoke { call: Call::Trespass { requirement, .. }, .. } if requirement == id)
            }
            Self::Kind(kind) => kind_of(event) == *kind,
            Self::Host(host) => event.host == *host,
            Self::Text(words) => event.to_string().to_lowercase().contains(words),
        }
    }
}

impl fmt::Display for Predicate {
    /// What no event did: goes on after `no event`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(place) => write!(f, "is #{place}"),
            Self::At(at) => write!(f, "is as late as {} s", at.as_secs_f64()),
            Self::Violation => f.write_str("is part of a violation"),
            Self::Requirement(id) => write!(f, "is part of a violation of {id}"),
            Self::Kind(kind) => write!(f, "is of the kind `{kind}`"),
            Self::Host(host) => write!(f, "is on the host `{host}`"),
            Self::Text(words) => write!(f, "tells of \"{words}\""),
        }
    }
}

/// `12.5s`, or whatever scenarios write.
fn time(word: &str) -> Option<Duration> {
    let seconds = word.strip_suffix('s').and_then(|number| number.parse::<f64>().ok());
    let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.or_else(|| humantime::parse_duration(word).ok())
}

fn kind_of(event: &Event) -> &'static str {
    match &event.body {
        Body::World(_) => "world",
        Body::Invoke { .. } => "invoke",
        Body::Return { .. } => "return",
        Body::Deliver { .. } => "deliver",
        Body::Socket { .. } => "socket",
        Body::State { .. } => "state",
        Body::Fault { .. } => "fault",
        Body::Wire { .. } => "wire",
        Body::Log { .. } => "log",
        Body::Sink(_) => "sink",
        Body::Media(_) | Body::Leg(_) => "media",
        Body::Phase { .. } => "phase",
    }
}

/// What an event is about: the last part of the URL or of the subject it names.
pub(super) fn thing(event: &Event) -> Option<String> {
    let whole = match &event.body {
        Body::State { subject, .. } => subject.clone(),
        Body::Deliver { resource, .. } => resource.to_string(),
        Body::Fault { fault, .. } => fault.clone(),
        Body::Socket { .. } => event.host.clone(),
        Body::Media(media) => media.locus.to_string(),
        Body::Invoke { call, .. } => match call {
            Call::Post { conversation, .. }
            | Call::Read { conversation, .. }
            | Call::ReadConversation { conversation } => conversation.to_string(),
            Call::ReadLocus { locus }
            | Call::ReadLocusSince { locus, .. }
            | Call::Join { locus, .. }
            | Call::SetState { locus, .. }
            | Call::Renew { locus, .. } => locus.to_string(),
            _ => return None,
        },
        _ => return None,
    };
    Some(whole.rsplit('/').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_says_what_an_event_is_looked_for_by() {
        for (text, predicate) in [
            ("412", Predicate::Event(412)),
            ("#412", Predicate::Event(412)),
            ("12.5s", Predicate::At(Duration::from_millis(12_500))),
            ("250ms", Predicate::At(Duration::from_millis(250))),
            ("violation", Predicate::Violation),
            ("RDV-001", Predicate::Requirement("RDV-001".to_owned())),
            ("fault", Predicate::Kind("fault")),
            ("deliver", Predicate::Kind("deliver")),
            ("host alice/phone", Predicate::Host("alice/phone".to_owned())),
            ("text fault", Predicate::Text("fault".to_owned())),
            ("No Answer", Predicate::Text("no answer".to_owned())),
            ("superseded", Predicate::Text("superseded".to_owned())),
        ] {
            assert_eq!(Predicate::parse(text), Ok(predicate), "{text}");
        }
    }

    #[test]
    fn a_host_and_words_need_be_named() {
        assert_eq!(Predicate::parse("host"), Err("on which host?".to_owned()));
        assert_eq!(Predicate::parse("text "), Err("which words?".to_owned()));
    }
}
