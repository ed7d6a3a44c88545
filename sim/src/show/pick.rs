//! Which part of a run is shown: from where to where, and about what.

use std::collections::BTreeSet;
use std::str::FromStr;

use fusion_history::{Body, Event, EventId};

use super::messages::Message;
use super::{Lanes, Names, Run, area, is_drawn};

/// The areas of SPEC that events speak of.
const AREAS: [&str; 9] = ["CNV", "LOC", "MAP", "MED", "MER", "PRI", "PRO", "RDV", "SEC"];
/// How many characters of a URL or an id name an object at least.
const PART_CHARS_MIN: usize = 4;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pick {
    /// The first event or time.
    pub from: Option<Edge>,
    /// The last.
    pub until: Option<Edge>,
    /// Requirements, hosts, conversations or loci, any of them; everything when there is none.
    pub about: Vec<String>,
}

/// A place in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// An event.
    Event(u64),
    /// Microseconds since the run began.
    Time(u64),
}

/// Why something cannot be shown.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unshown {
    /// A word that nothing in the run is called.
    #[error("nothing in this run is called `{word}`: --about takes a requirement (LOC-008), an area ({areas}), a host ({hosts}) or a conversation ({objects})", areas = AREAS.join(", "))]
    Unknown {
        /// The word.
        word: String,
        /// Some of the hosts.
        hosts: String,
        /// Some of the conversations.
        objects: String,
    },
    /// Packets are picked by hosts.
    #[error("`{word}` is no host of this run: packets are picked by hosts and by time")]
    NoHost {
        /// The word.
        word: String,
    },
    /// Nothing is left.
    #[error("nothing is left to show: the run has {events} events and lasts {last_s:.3} s")]
    Nothing {
        /// How many events the run has.
        events: usize,
        /// When the last one is.
        last_s: f64,
    },
    /// Too many hosts for the width.
    #[error(
        "{hosts} hosts do not fit into {width} columns: at least {least} are needed; --about HOST shows fewer, --width takes more"
    )]
    TooNarrow {
        /// How many.
        hosts: usize,
        /// Into how many columns.
        width: usize,
        /// How many would do.
        least: usize,
    },
}

impl FromStr for Edge {
    type Err = String;

    /// An event as `#12` or `12`, a time with its unit as `1.5s`, `300ms` or `2m`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix('#').unwrap_or(text);
        if let Ok(event) = number.parse() {
            return Ok(Self::Event(event));
        }
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit_us = match unit {
            "us" => 1.0,
            "ms" => 1e3,
            "s" | "" => 1e6,
            "m" => 6e7,
            _ => f64::NAN,
        };
        match number.parse::<f64>().map(|number| number * unit_us) {
            Ok(us) if us.is_finite() => Ok(Self::Time(us as u64)),
            _ => Err("write an event (#12) or a time with its unit (1.5s, 300ms, 2m)".to_owned()),
        }
    }
}

impl Edge {
    fn is_before(self, event: &Event) -> bool {
        match self {
            Self::Event(id) => id < event.id.0,
            Self::Time(at_us) => at_us < event.at_us,
        }
    }

    fn is_after(self, event: &Event) -> bool {
        match self {
            Self::Event(id) => id > event.id.0,
            Self::Time(at_us) => at_us > event.at_us,
        }
    }
}

/// Something that events can be about.
enum Subject {
    /// A requirement or an area: the events of the area, and those that show it violated.
    Area(String),
    /// Whoever is in one of these lanes.
    Lanes(BTreeSet<usize>),
    /// An object, by a part of its URL or id.
    Object(String),
}

impl Pick {
    /// The events that are asked for, in order; faults and phases are always among them.
    ///
    /// # Errors
    /// When a word means nothing in this run, and when nothing is left.
    pub(crate) fn of<'r>(
        &self,
        run: Run<'r>,
        lanes: &Lanes<'_>,
        names: &Names,
    ) -> Result<Vec<&'r Event>, Unshown> {
        let about = self.subjects(run, lanes, names)?;
        let is_picked = |event: &&Event| {
            let always = matches!(event.body, Body::Fault { .. } | Body::Phase { .. });
            self.is_within(event)
                && (always || is_drawn(event))
                && (always
                    || about.is_empty()
                    || about.iter().any(|subject| subject.is_of(event, run, lanes)))
        };
        let picked: Vec<&Event> = run.history.events().iter().filter(is_picked).collect();
        if picked.iter().any(|event| lanes.at(&event.host).is_some()) {
            return Ok(picked);
        }
        let last_us = run.history.events().last().map_or(0, |event| event.at_us);
        Err(Unshown::Nothing { events: run.history.len(), last_s: last_us as f64 / 1e6 })
    }

    /// The messages between services that are asked for: by time, by host and by object. An area has none.
    ///
    /// # Errors
    /// When a word means nothing in this run.
    pub(crate) fn messages<'m>(
        &self,
        run: Run<'m>,
        lanes: &Lanes<'_>,
        names: &Names,
    ) -> Result<Vec<&'m Message>, Unshown> {
        let about = self.subjects(run, lanes, names)?;
        let time = |edge: Edge| match edge {
            Edge::Time(at_us) => Some(at_us),
            Edge::Event(id) => run.history.event(EventId(id)).map(|event| event.at_us),
        };
        let from_us = self.from.and_then(time).unwrap_or(0);
        let until_us = self.until.and_then(time).unwrap_or(u64::MAX);
        let is_picked = |message: &&Message| {
            let ends = [lanes.at(&message.from), lanes.at(&message.to)];
            let serves = |end: &Option<usize>| end.is_some_and(|lane| lanes.all()[lane].serves());
            let is_about = |subject: &Subject| match subject {
                Subject::Area(_) => false,
                Subject::Lanes(of) => ends.iter().flatten().any(|lane| of.contains(lane)),
                Subject::Object(part) => message.text.contains(part.as_str()),
            };
            (from_us..=until_us).contains(&message.at_us)
                && ends.iter().all(serves)
                && (about.is_empty() || about.iter().any(is_about))
        };
        Ok(run.said.iter().filter(is_picked).collect())
    }

    fn subjects(&self, run: Run<'_>, lanes: &Lanes<'_>, names: &Names) -> Result<Vec<Subject>, Unshown> {
        self.about.iter().map(|word| subject(word, run, lanes, names)).collect()
    }

    fn is_within(&self, event: &Event) -> bool {
        !self.from.is_some_and(|from| from.is_after(event))
            && !self.until.is_some_and(|until| until.is_before(event))
    }
}

fn subject(word: &str, run: Run<'_>, lanes: &Lanes<'_>, names: &Names) -> Result<Subject, Unshown> {
    let area = word.split('-').next().unwrap_or_default().to_ascii_uppercase();
    if AREAS.contains(&area.as_str()) {
        return Ok(Subject::Area(word.to_ascii_uppercase()));
    }
    let of_name: BTreeSet<usize> = lanes.named(word).map(|(at, _)| at).collect();
    if !of_name.is_empty() {
        return Ok(Subject::Lanes(of_name));
    }
    if let Some(url) = names.url(word) {
        return Ok(Subject::Object(url.to_owned()));
    }
    let is_named = |event: &Event| is_drawn(event) && event.body.to_string().contains(word);
    if word.len() >= PART_CHARS_MIN && run.history.events().iter().any(is_named) {
        return Ok(Subject::Object(word.to_owned()));
    }
    let hosts: Vec<&str> = lanes.all().iter().take(8).map(|lane| lane.host.as_str()).collect();
    let objects: Vec<&str> = names.all().take(8).collect();
    Err(Unshown::Unknown { word: word.to_owned(), hosts: hosts.join(", "), objects: objects.join(", ") })
}

impl Subject {
    fn is_of(&self, event: &Event, run: Run<'_>, lanes: &Lanes<'_>) -> bool {
        match self {
            Self::Area(word) => {
                let shows = |id: EventId| {
                    let mut violations = run.violations();
                    violations.any(|found| {
                        found.requirement.starts_with(word.as_str()) && found.excerpt.contains(&id)
                    })
                };
                let own = area(event, run.history);
                (!own.is_empty() && word.starts_with(own)) || shows(event.id)
            }
            Self::Lanes(of) => {
                let ends = lanes.arrow(event, run.history).map(|arrow| [arrow.from, arrow.to]);
                let own = lanes.at(&event.host);
                own.into_iter().chain(ends.into_iter().flatten()).any(|lane| of.contains(&lane))
            }
            Self::Object(part) => {
                let says = |event: &Event| event.body.to_string().contains(part.as_str());
                let asked = matches!(event.body, Body::Return { .. }).then_some(event.cause).flatten();
                says(event) || asked.and_then(|id| run.history.event(id)).is_some_and(says)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_an_event_or_a_time_with_its_unit() {
        assert_eq!("#12".parse(), Ok(Edge::Event(12)));
        assert_eq!("12".parse(), Ok(Edge::Event(12)));
        assert_eq!("1.5s".parse(), Ok(Edge::Time(1_500_000)));
        assert_eq!("300ms".parse(), Ok(Edge::Time(300_000)));
        assert_eq!("2m".parse(), Ok(Edge::Time(120_000_000)));
        assert_eq!("0.25".parse(), Ok(Edge::Time(250_000)));
        for wrong in ["", "#", "s", "-1s", "1.2.3s", "5 s", "3h"] {
            assert!(wrong.parse::<Edge>().is_err(), "{wrong}");
        }
    }
}
