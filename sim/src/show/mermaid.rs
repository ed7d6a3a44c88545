//! An excerpt of a run as a Mermaid `sequenceDiagram`, for documentation.
//!
//! Without `--from`, `--until` and `--about` the excerpt is what shows the first violation and what came
//! just before it; where nothing is wrong, how people begin to act. What services said in that time takes
//! half of the room, where it is known.

use std::collections::BTreeSet;

use fusion_history::{Body, Event, EventId, Outcome, Phase};

use super::columns::words;
use super::entries::{Entry, merged, used};
use super::messages::Message;
use super::pick::{Pick, Unshown};
use super::{Lanes, Names, Run};

/// How many events and messages an excerpt has at most: more are no picture.
pub const EVENTS_MAX: usize = 40;
/// How many characters a label has at most.
const LABEL_CHARS: usize = 72;

/// The sequence diagram of what `pick` asks for of a run.
///
/// # Errors
/// When nothing is asked for that is there.
pub fn mermaid(run: Run<'_>, pick: &Pick) -> Result<String, Unshown> {
    let lanes = Lanes::of(run.history);
    let names = Names::of(run.history, &lanes);
    let events = pick.of(run, &lanes, &names)?;
    let whole = *pick == Pick::default();
    let said = pick.messages(run, &lanes, &names)?;
    let room = if said.is_empty() { EVENTS_MAX } else { EVENTS_MAX / 2 };
    let excerpt = excerpt(run, &events, whole, room);
    let entries = merged(&excerpt, meanwhile(&said, &excerpt));
    let diagram = Diagram { run, lanes: &lanes, names: &names };
    Ok(diagram.draw(&entries, (excerpt.len(), events.len())))
}

/// What was said during the excerpt; the last of it, where it is too much.
fn meanwhile<'s, 'm>(said: &'s [&'m Message], excerpt: &[&Event]) -> &'s [&'m Message] {
    let (Some(first), Some(last)) = (excerpt.first(), excerpt.last()) else { return &[] };
    let begins = said.partition_point(|message| message.at_us < first.at_us);
    let ends = said.partition_point(|message| message.at_us <= last.at_us);
    let room = EVENTS_MAX.saturating_sub(excerpt.len());
    &said[begins.max(ends.saturating_sub(room))..ends]
}

/// At most `room` of the events; of the whole run those that show the first violation, with what
/// came just before the last of them, or the first of the act.
fn excerpt<'e>(run: Run<'_>, events: &[&'e Event], whole: bool, room: usize) -> Vec<&'e Event> {
    let first = |from: usize| events.iter().skip(from).take(room).copied().collect();
    if !whole {
        return first(0);
    }
    let shown: BTreeSet<EventId> =
        run.violations().next().iter().flat_map(|found| &found.excerpt).copied().collect();
    let Some(last) = shown.last() else {
        let act = events.iter().position(|event| matches!(event.body, Body::Phase { phase: Phase::Act }));
        return first(act.unwrap_or_default());
    };
    // An answer is no picture without its question.
    let asked = shown.iter().filter_map(|id| run.history.event(*id)?.cause);
    let wanted: BTreeSet<EventId> = shown.iter().copied().chain(asked).collect();
    let others = room.saturating_sub(wanted.len());
    let before = events.iter().filter(|event| event.id <= *last && !wanted.contains(&event.id));
    let near: BTreeSet<EventId> = before.rev().take(others).map(|event| event.id).collect();
    let is_in = |event: &&&Event| wanted.contains(&event.id) || near.contains(&event.id);
    events.iter().filter(is_in).copied().collect()
}

struct Diagram<'d> {
    run: Run<'d>,
    lanes: &'d Lanes<'d>,
    names: &'d Names,
}

impl Diagram<'_> {
    fn draw(&self, entries: &[Entry<'_>], (shown, of): (usize, usize)) -> String {
        let mut text = format!(
            "%% {}, seed {}: {shown} of {of} events\nsequenceDiagram\n",
            self.run.scenario, self.run.seed,
        );
        let used = used(entries, self.lanes, self.run.history);
        self.participants(&used, &mut text);
        let across = match (used.first(), used.last()) {
            (Some(first), Some(last)) if first != last => format!("h{first},h{last}"),
            (Some(only), _) => format!("h{only}"),
            (None, _) => return text,
        };
        for entry in entries {
            let event = match entry {
                Entry::Event(event) => event,
                Entry::Message(message, _) => {
                    text.extend(self.said(message).map(|line| format!("  {line}\n")));
                    continue;
                }
            };
            text.push_str(&format!("  {}\n", self.line(event, &across)));
            if let Some(found) = self.run.shown_by(event.id)
                && found.excerpt.last() == Some(&event.id)
            {
                let statement = self.names.shorten(&found.statement);
                let label = label(&format!("{} is violated: {statement}", found.requirement), usize::MAX);
                text.push_str(&format!("  Note over {across}: {label}\n"));
            }
        }
        text
    }

    fn participants(&self, used: &BTreeSet<usize>, text: &mut String) {
        let all = self.lanes.all();
        let mut boxed: Option<String> = None;
        for &lane in used {
            let home = all[lane].home();
            if boxed.as_deref() != Some(&home) {
                text.push_str(if boxed.is_some_and(|home| !home.is_empty()) { "  end\n" } else { "" });
                if !home.is_empty() {
                    // The word before it is a colour; without one, Mermaid takes the first word for it.
                    text.push_str(&format!("  box transparent {}\n", label(&home, LABEL_CHARS)));
                }
                boxed = Some(home);
            }
            text.push_str(&format!("    participant h{lane} as {}\n", label(&all[lane].host, LABEL_CHARS)));
        }
        text.push_str(if boxed.is_some_and(|home| !home.is_empty()) { "  end\n" } else { "" });
    }

    fn line(&self, event: &Event, across: &str) -> String {
        let said = label(&self.names.shorten(&words(event)), LABEL_CHARS);
        let at = format!("{:.3} s", event.at_us as f64 / 1e6);
        let Some(own) = self.lanes.at(&event.host) else {
            return format!("Note over {across}: {at} {said}");
        };
        let Some(arrow) = self.lanes.arrow(event, self.run.history) else {
            return format!("Note over h{own}: {at} {said}");
        };
        let sign = match &event.body {
            Body::Return { outcome: Outcome::Done { .. } } => "-->>",
            Body::Return { .. } => "--x",
            Body::Deliver { .. } => "-)",
            _ => "->>",
        };
        format!("h{}{sign}h{}: {at} {said}", arrow.from, arrow.to)
    }

    /// What a service says to another; an answer with the arrow of an answer.
    fn said(&self, message: &Message) -> Option<String> {
        let (from, to) = (self.lanes.at(&message.from)?, self.lanes.at(&message.to)?);
        let sign = if message.text.starts_with(|c: char| c.is_ascii_digit()) { "-->>" } else { "->>" };
        let text = label(&self.names.shorten(&message.text), LABEL_CHARS);
        Some(format!("h{from}{sign}h{to}: {:.3} s {text}", message.at_us as f64 / 1e6))
    }
}

/// Text that Mermaid takes for text: its own signs as entities, one line, not too long.
fn label(text: &str, chars_max: usize) -> String {
    let mut label = String::new();
    let long = text.chars().count() > chars_max;
    for c in text.chars().take(if long { chars_max - 1 } else { chars_max }) {
        match c {
            '#' => label.push_str("#35;"),
            ';' => label.push_str("#59;"),
            '<' => label.push_str("#lt;"),
            '>' => label.push_str("#gt;"),
            '%' => label.push_str("#37;"),
            '{' => label.push_str("#123;"),
            '}' => label.push_str("#125;"),
            c if c.is_control() => label.push(' '),
            c => label.push(c),
        }
    }
    if long {
        label.push('…');
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::fabric::{Options, captured};
    use crate::show::messages::messages;
    use crate::show::pick::Edge;
    use crate::show::tests::{race, wrong_race};

    /// Whether every line of a diagram is one that Mermaid's grammar of sequence diagrams has.
    fn parsed(diagram: &str) -> usize {
        let mut lines = diagram.lines();
        assert!(lines.next().is_some_and(|line| line.starts_with("%% ")));
        assert_eq!(lines.next(), Some("sequenceDiagram"));
        let mut known = BTreeSet::new();
        let (mut boxes, mut messages) = (0, 0);
        for line in lines {
            let line = line.trim();
            let text = |text: &str| {
                assert!(!text.trim().is_empty(), "{line}");
                let rest =
                    text.replace("#35;", "").replace("#59;", "").replace("#lt;", "").replace("#gt;", "");
                let rest = rest.replace("#37;", "").replace("#123;", "").replace("#125;", "");
                assert!(!rest.contains([';', '#', '%', '<', '>', '{', '}']), "{line}");
            };
            if let Some(name) = line.strip_prefix("box transparent ") {
                text(name);
                boxes += 1;
            } else if line == "end" {
                boxes -= 1;
            } else if let Some(rest) = line.strip_prefix("participant ") {
                let (id, name) = rest.split_once(" as ").expect("an alias");
                text(name);
                assert!(known.insert(id.to_owned()), "{line}");
            } else if let Some(rest) = line.strip_prefix("Note over ") {
                let (over, said) = rest.split_once(": ").expect("a text");
                text(said);
                assert!(over.split(',').all(|id| known.contains(id)), "{line}");
            } else {
                let (ends, said) = line.split_once(": ").expect("a text");
                text(said);
                let sign = ["-->>", "--x", "->>", "-)"].into_iter().find(|sign| ends.contains(sign));
                let (from, to) = ends.split_once(sign.expect("an arrow")).expect("it is there");
                assert!(known.contains(from) && known.contains(to), "{line}");
                messages += 1;
            }
            assert!((0..=1).contains(&boxes), "{line}");
        }
        assert_eq!(boxes, 0);
        messages
    }

    #[test]
    fn a_diagram_is_one_of_mermaids_and_has_no_more_than_fits() {
        let outcome = race();
        let diagram = mermaid(outcome.run(), &Pick::default()).unwrap();
        let messages = parsed(&diagram);
        assert!((10..=EVENTS_MAX).contains(&messages), "{messages}: {diagram}");
        let until = Pick { until: Some(Edge::Event(13)), ..Pick::default() };
        assert!(parsed(&mermaid(outcome.run(), &until).unwrap()) < messages);
    }

    #[test]
    fn what_services_said_meanwhile_has_arrows_too() {
        let outcome = race();
        let said = messages(&captured(&outcome.plan, &Options::default()).1);
        let diagram = mermaid(Run { said: &said, ..outcome.run() }, &Pick::default()).unwrap();
        assert!(parsed(&diagram) <= EVENTS_MAX, "{diagram}");
        assert!(diagram.contains(" s GET users/") && diagram.contains(" s 200 to "), "{diagram}");
    }

    #[test]
    fn without_being_asked_a_diagram_shows_what_is_wrong() {
        let outcome = wrong_race();
        let diagram = mermaid(outcome.run(), &Pick::default()).unwrap();
        parsed(&diagram);
        let found = outcome.run().violations().next().unwrap();
        assert!(diagram.contains(&format!("{} is violated", found.requirement)), "{diagram}");
    }

    #[test]
    fn what_mermaid_would_take_for_its_own_is_written_as_an_entity() {
        assert_eq!(label("a; #1 <b>\n%", 99), "a#59; #35;1 #lt;b#gt; #37;");
        assert_eq!(label("abcdef", 3), "ab…");
    }
}
