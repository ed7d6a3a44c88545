//! A run as text: a column for each host, a line for each event, arrows for messages.
//!
//! ```text
//!                      a of acme            b of globex
//!                      a       alice/phone  b       bob/phone
//!      1.576 #11       │◀──────● logs in at a       │
//!      1.782 #13       ├──────▶▶ #11 done: a token  │
//! ```
//!
//! Everything that colours say is said by signs, too.

use std::fmt;

use anstyle::{AnsiColor, Style};
use fusion_history::{Body, Event, EventId};

use super::entries::{Entry, merged, used};
use super::lanes::Arrow;
use super::messages::Message;
use super::pick::{Pick, Unshown};
use super::{Band, Kind, Lanes, Names, Run, bands, faults};

/// Room for time and event at the left: `!  1234.567 #123456 `.
const LEFT: usize = 20;
/// The narrowest column, and the widest.
const COLUMN: (usize, usize) = (3, 26);
/// What is kept free for the words of the last column, when there is room.
const LAST: usize = 40;
/// The same, when there is none.
const LAST_MIN: usize = 16;
/// How many faults at a time have a band of their own; further ones are told by their lines alone.
const BANDS_MAX: usize = 8;
/// After how many lines the heads of the columns stand again.
const HEADS_EVERY: usize = 60;

/// The columns of what `pick` asks for of a run, at most `width` characters a line.
///
/// # Errors
/// When nothing is asked for that is there, and when the hosts do not fit.
pub fn columns(run: Run<'_>, pick: &Pick, width: usize) -> Result<String, Unshown> {
    let lanes = Lanes::of(run.history);
    let names = Names::of(run.history, &lanes);
    let events = pick.of(run, &lanes, &names)?;
    let entries = merged(&events, &pick.messages(run, &lanes, &names)?);
    let sheet = Sheet::new(run, &lanes, &names, &entries, width)?;
    let mut text = String::new();
    for (at, entry) in entries.iter().enumerate() {
        if at % HEADS_EVERY == 0 {
            text.push_str(if at > 0 { "\n" } else { "" });
            text.push_str(&sheet.heads());
        }
        text.push_str(&sheet.line(entry).to_string());
    }
    text.push_str(&sheet.notes(&text));
    Ok(text)
}

/// Where everything stands.
struct Sheet<'s> {
    run: Run<'s>,
    lanes: &'s Lanes<'s>,
    names: &'s Names,
    bands: Vec<Band>,
    /// The bands' places, beside each other where they last at the same time.
    slots: Vec<Option<usize>>,
    /// The lanes that are shown, with the place of each.
    places: Vec<(usize, usize)>,
    /// Where the first column begins.
    first: usize,
    width: usize,
    column: usize,
}

impl<'s> Sheet<'s> {
    fn new(
        run: Run<'s>,
        lanes: &'s Lanes<'s>,
        names: &'s Names,
        entries: &[Entry<'_>],
        width: usize,
    ) -> Result<Self, Unshown> {
        let used = used(entries, lanes, run.history);
        let bands = bands(run.history, lanes.all());
        let (slots, beside) = side_by_side(&bands);
        let first = LEFT + beside + usize::from(beside > 0);
        let least = first + used.len() * COLUMN.0 + LAST_MIN;
        if width < least {
            return Err(Unshown::TooNarrow { hosts: used.len(), width, least });
        }
        let others = used.len().saturating_sub(1).max(1);
        let room = |last: usize| width.saturating_sub(first + last) / others;
        let column = room(LAST).max(room(LAST_MIN).min(8)).clamp(COLUMN.0, COLUMN.1);
        let places = used.into_iter().enumerate().map(|(at, lane)| (lane, first + at * column)).collect();
        Ok(Self { run, lanes, names, bands, slots, places, first, width, column })
    }

    /// Group and name of each host above its column; where names are too long, each on a line of its own.
    fn heads(&self) -> String {
        let all = self.lanes.all();
        let mut last = self.places.iter().rev();
        last.next();
        if last.any(|(lane, _)| all[*lane].host.chars().count() >= self.column) {
            return self.stairs();
        }
        let mut groups = Row::new(self.width);
        let mut hosts = Row::new(self.width);
        let mut group = String::new();
        for (lane, at) in &self.places {
            let home = all[*lane].home();
            if home != group {
                groups.write(*at, &home, dim());
                group = home;
            }
            hosts.write(*at, &all[*lane].host, bold());
        }
        format!("{groups}{hosts}")
    }

    fn stairs(&self) -> String {
        let mut text = String::new();
        for (step, (lane, at)) in self.places.iter().enumerate() {
            let lane = &self.lanes.all()[*lane];
            let mut row = Row::new(self.width);
            self.places[..step].iter().for_each(|(_, before)| row.put(*before, '│', dim()));
            row.write(*at, &lane.host, bold());
            let home = Some(lane.home()).filter(|home| *home != lane.host).unwrap_or_default();
            row.write(at + lane.host.chars().count() + 2, &home, dim());
            text.push_str(&row.to_string());
        }
        text
    }

    fn line(&self, entry: &Entry<'_>) -> Row {
        let mut row = Row::new(self.width);
        let (at_us, near) = match entry {
            Entry::Event(event) => (event.at_us, event.id),
            Entry::Message(message, before) => (message.at_us, *before),
        };
        row.write(1, &format!("{:>6}.{:03}", at_us / 1_000_000, at_us / 1_000 % 1_000), Style::new());
        self.bars(near, matches!(entry, Entry::Event(_)), &mut row);
        match entry {
            Entry::Event(event) => self.event(event, &mut row),
            Entry::Message(message, _) => {
                self.lifelines(near, &mut row);
                self.message(message, &mut row);
            }
        }
        row
    }

    fn event(&self, event: &Event, row: &mut Row) {
        if self.run.shown_by(event.id).is_some() {
            row.put(0, '!', colour(AnsiColor::Red));
        }
        row.write(12, &event.id.to_string(), dim());
        if matches!(event.body, Body::Phase { .. }) {
            return self.rule(event, row);
        }
        self.lifelines(event.id, row);
        match self.lanes.at(&event.host) {
            Some(lane) => self.happening(event, lane, row),
            None => row.write(self.first, &format!("{} ", self.words(event)), style(Kind::of(&event.body))),
        }
    }

    fn message(&self, message: &Message, row: &mut Row) {
        let ends = (self.lanes.at(&message.from), self.lanes.at(&message.to));
        let (Some(from), Some(to)) = ends else { return };
        let (own, other) = (self.place(from), self.place(to));
        self.arrow(Arrow { from, to }, own, dim(), row);
        self.say(&self.names.shorten(&message.text), (own.min(other), own.max(other)), dim(), row);
    }

    /// A line across everything.
    fn rule(&self, event: &Event, row: &mut Row) {
        let end = self.places.last().map_or(self.first, |(_, at)| at + 1);
        (self.first..end).for_each(|at| row.put(at, '═', dim()));
        row.write(self.first + 2, &format!(" {} ", event.body), bold());
    }

    /// The bands of the faults that last.
    fn bars(&self, near: EventId, is_event: bool, row: &mut Row) {
        for (band, slot) in self.bands.iter().zip(&self.slots) {
            let (Some(slot), true) = (slot, band.lasts_at(near)) else { continue };
            let sign = match band.events {
                (began, _) if is_event && began == near => '┏',
                (_, Some(ended)) if is_event && ended == near => '┗',
                _ => '┃',
            };
            row.put(LEFT + slot, sign, colour(AnsiColor::Red));
        }
    }

    /// A host that a fault is about has a broken line.
    fn lifelines(&self, near: EventId, row: &mut Row) {
        for (lane, at) in &self.places {
            let mut bands = self.bands.iter();
            let is_touched = bands.any(|band| band.lanes.contains(lane) && band.lasts_at(near));
            let (sign, style) = if is_touched { ('┊', colour(AnsiColor::Red)) } else { ('│', dim()) };
            row.put(*at, sign, style);
        }
    }

    fn happening(&self, event: &Event, lane: usize, row: &mut Row) {
        let kind = Kind::of(&event.body);
        let own = self.place(lane);
        let mut ends = (own, own);
        match self.lanes.arrow(event, self.run.history) {
            None => row.put(own, if kind == Kind::Refused { '×' } else { '●' }, style(kind)),
            Some(arrow) => {
                self.arrow(arrow, own, style(kind), row);
                let other = self.place(if self.place(arrow.from) == own { arrow.to } else { arrow.from });
                ends = (own.min(other), own.max(other));
            }
        }
        self.say(&self.words(event), ends, style(kind), row);
    }

    fn arrow(&self, arrow: Arrow, own: usize, style: Style, row: &mut Row) {
        let (from, to) = (self.place(arrow.from), self.place(arrow.to));
        for at in from.min(to) + 1..from.max(to) {
            let crosses = self.places.iter().any(|(_, line)| *line == at);
            row.put(at, if crosses { '┼' } else { '─' }, style);
        }
        let tail = if from == own {
            '●'
        } else if from < to {
            '├'
        } else {
            '┤'
        };
        row.put(from, tail, style);
        row.put(to, if from < to { '▶' } else { '◀' }, style);
    }

    /// To the right of what is drawn, or to the left of it where there is more room.
    fn say(&self, words: &str, (left, right): (usize, usize), style: Style, row: &mut Row) {
        let long = words.chars().count();
        let room_right = self.width.saturating_sub(right + 2);
        let room_left = left.saturating_sub(self.first + 3);
        if long > room_right && room_left > room_right {
            let words = cut(words, room_left);
            row.write(left - 2 - words.chars().count(), &format!(" {words} "), style);
        } else {
            row.write(right + 2, &format!("{} ", cut(words, room_right)), style);
        }
    }

    fn words(&self, event: &Event) -> String {
        let said = words(event);
        let said = self.names.shorten(&said);
        said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    fn place(&self, lane: usize) -> usize {
        self.places.iter().find(|(shown, _)| *shown == lane).map_or(self.first, |(_, at)| *at)
    }

    /// What is wrong, and what short names stand for.
    fn notes(&self, text: &str) -> String {
        let mut notes = String::new();
        for violation in self.run.violations() {
            let shown: Vec<String> = violation.excerpt.iter().map(EventId::to_string).collect();
            let style = colour(AnsiColor::Red);
            let statement = self.names.shorten(&violation.statement);
            notes.push_str(&format!(
                "\n{style}! {} is violated{style:#}: {statement} ({})\n",
                violation.requirement,
                shown.join(", ")
            ));
        }
        let legend = self.names.legend(&format!("{text}{notes}"));
        if !legend.is_empty() {
            notes.push('\n');
        }
        for (short, url) in legend {
            notes.push_str(&format!("{short:<8} {url}\n"));
        }
        notes
    }
}

/// What happens, without what its column says already.
pub(crate) fn words(event: &Event) -> String {
    match &event.body {
        Body::Invoke { call, .. } => call.to_string(),
        Body::Return { outcome } => match event.cause {
            Some(cause) => format!("{cause} {outcome}"),
            None => outcome.to_string(),
        },
        Body::Deliver { resource, seq, .. } => {
            let event_type = event.body.to_string();
            let event_type = event_type.split(' ').nth(1).unwrap_or_default().to_owned();
            format!("told {event_type} {resource} (seq {seq})")
        }
        Body::State { concept, subject, state, .. } => format!("{concept} {subject} is {state}"),
        Body::Log { level, target, fields } => {
            let fields = fields.as_object().into_iter().flatten();
            let fields: Vec<String> = fields.map(|(name, value)| format!("{name}={value}")).collect();
            format!("{level} {target} {}", fields.join(" "))
        }
        Body::Fault { .. } => faults::told(event).unwrap_or_default(),
        other => other.to_string(),
    }
}

/// A place for each band, such that no two that last at the same time share one; and how many there are.
fn side_by_side(bands: &[Band]) -> (Vec<Option<usize>>, usize) {
    let mut ends: Vec<u64> = Vec::new();
    let mut slots = Vec::new();
    for band in bands {
        let free = ends.iter().position(|end| *end < band.from);
        let slot = free.or_else(|| {
            ends.push(0);
            Some(ends.len() - 1)
        });
        let slot = slot.filter(|slot| *slot < BANDS_MAX);
        ends.truncate(BANDS_MAX);
        if let Some(end) = slot.and_then(|slot| ends.get_mut(slot)) {
            *end = band.to;
        }
        slots.push(slot);
    }
    (slots, ends.len())
}

fn cut(words: &str, room: usize) -> String {
    if words.chars().count() <= room {
        return words.to_owned();
    }
    let kept: String = words.chars().take(room.saturating_sub(1)).collect();
    format!("{kept}…")
}

fn style(kind: Kind) -> Style {
    match kind {
        Kind::Call => colour(AnsiColor::Cyan),
        Kind::Answer => colour(AnsiColor::Blue),
        Kind::Refused | Kind::Log => colour(AnsiColor::Yellow),
        Kind::Told => colour(AnsiColor::Green),
        Kind::State => colour(AnsiColor::Magenta),
        Kind::Fault => colour(AnsiColor::Red),
        Kind::Said => dim(),
        Kind::Media | Kind::Other => Style::new(),
    }
}

fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(colour.into()))
}

fn dim() -> Style {
    Style::new().dimmed()
}

fn bold() -> Style {
    Style::new().bold()
}

/// A line of text in the making.
struct Row {
    cells: Vec<(char, Style)>,
    width: usize,
}

impl Row {
    fn new(width: usize) -> Self {
        Self { cells: Vec::new(), width }
    }

    fn put(&mut self, at: usize, sign: char, style: Style) {
        if at >= self.width {
            return;
        }
        if self.cells.len() <= at {
            self.cells.resize(at + 1, (' ', Style::new()));
        }
        self.cells[at] = (sign, style);
    }

    fn write(&mut self, at: usize, words: &str, style: Style) {
        for (place, sign) in (at..).zip(cut(words, self.width.saturating_sub(at)).chars()) {
            self.put(place, sign, style);
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.cells.iter().rposition(|(sign, _)| *sign != ' ').map_or(0, |last| last + 1);
        let mut rest = &self.cells[..end];
        while let Some((_, style)) = rest.first() {
            let run = rest.iter().position(|(_, other)| other != style).unwrap_or(rest.len());
            let text: String = rest[..run].iter().map(|(sign, _)| *sign).collect();
            if *style == Style::new() {
                f.write_str(&text)?;
            } else {
                write!(f, "{style}{text}{style:#}")?;
            }
            rest = &rest[run..];
        }
        f.write_str("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::fabric::{Options, captured};
    use crate::show::messages::messages;
    use crate::show::tests::{race, wrong_race};

    fn plain(run: Run<'_>, pick: &Pick, width: usize) -> Vec<String> {
        let text = columns(run, pick, width).unwrap();
        anstream::adapter::strip_str(&text).to_string().lines().map(str::to_owned).collect()
    }

    fn id_of(line: &str) -> Option<&str> {
        line.split_whitespace().take(3).find(|word| word.starts_with('#'))
    }

    #[test]
    fn every_event_has_its_line_and_no_line_is_too_wide() {
        let outcome = race();
        let shown = outcome.history.events().iter().filter(|event| !matches!(event.body, Body::World(_)));
        for width in [80, 132, 240] {
            let lines = plain(outcome.run(), &Pick::default(), width);
            assert_eq!(lines.iter().filter_map(|line| id_of(line)).count(), shown.clone().count());
            let pictures = lines.iter().take_while(|line| !line.starts_with("C1@"));
            pictures.for_each(|line| assert!(line.chars().count() <= width, "{line}"));
        }
    }

    #[test]
    fn a_message_leaves_one_column_and_arrives_in_another() {
        let outcome = race();
        let lines = plain(outcome.run(), &Pick { about: vec!["alice".into()], ..Pick::default() }, 160);
        let line = |words: &str| lines.iter().find(|line| line.contains(words)).unwrap();
        let asked = line("logs in at a");
        assert!(asked.find('◀') < asked.find('●'), "{asked}");
        let answered = line("done: a token");
        assert!(answered.find('├') < answered.find('▶'), "{answered}");
        let heads = lines.iter().take_while(|line| id_of(line).is_none());
        assert!(!heads.into_iter().any(|line| line.contains("bob")), "only who had to do with alice");
    }

    #[test]
    fn a_fault_has_a_band_from_its_beginning_to_its_end() {
        let outcome = race();
        let lines = plain(outcome.run(), &Pick::default(), 160);
        let begins = lines.iter().position(|line| line.contains("begins:")).unwrap();
        assert!(lines[begins].contains('┏'), "{}", lines[begins]);
        assert!(lines[begins + 1].contains('┃'), "{}", lines[begins + 1]);
        // What is over at once, or was never begun, has none.
        let begun = lines.iter().filter(|line| line.contains('┏')).count();
        assert!((2..=outcome.plan.faults.len()).contains(&begun), "{begun}");
        assert!(lines.iter().any(|line| line.contains('┗')));
    }

    #[test]
    fn what_is_wrong_is_marked_and_told() {
        let outcome = wrong_race();
        let lines = plain(outcome.run(), &Pick::default(), 120);
        for violation in outcome.run().violations() {
            let told = format!("! {} is violated: ", violation.requirement);
            assert!(lines.iter().any(|line| line.starts_with(&told)));
            for id in &violation.excerpt {
                let line = lines.iter().find(|line| id_of(line) == Some(&id.to_string())).unwrap();
                assert!(line.starts_with('!'), "{line}");
            }
        }
    }

    #[test]
    fn what_services_say_to_each_other_has_arrows_of_its_own() {
        let plan = race().plan;
        let (run, capture) = captured(&plan, &Options::default());
        let outcome = race();
        assert_eq!(run.history.hash(), outcome.hash);
        let said = messages(&capture);
        let pick = Pick { about: vec!["a".into()], ..Pick::default() };
        let text = columns(Run { said: &said, ..outcome.run() }, &pick, 200).unwrap();
        let text = anstream::adapter::strip_str(&text).to_string();
        let asked =
            text.lines().find(|line| line.contains("PUT ") && line.contains("/peers/")).expect("one asks");
        assert!(id_of(asked).is_none() && asked.contains('▶') || asked.contains('◀'), "{asked}");
        let answers = said.iter().filter(|message| message.text.starts_with("200 to ")).count();
        assert!(answers > 10, "{answers}");
        assert!(said.is_sorted_by_key(|message| message.at_us));
    }

    #[test]
    fn hosts_that_do_not_fit_are_refused_with_what_would() {
        let outcome = race();
        let Err(Unshown::TooNarrow { least, .. }) = columns(outcome.run(), &Pick::default(), 40) else {
            panic!("it fitted");
        };
        assert!(columns(outcome.run(), &Pick::default(), least - 1).is_err());
        assert!(columns(outcome.run(), &Pick::default(), least).is_ok());
    }

    #[test]
    fn bands_that_last_at_once_stand_beside_each_other() {
        let band = |from, to| Band {
            name: String::new(),
            events: (EventId(0), None),
            from,
            to,
            detail: String::new(),
            lanes: Vec::new(),
        };
        let (slots, beside) = side_by_side(&[band(1, 5), band(2, 3), band(4, 9), band(6, 7)]);
        assert_eq!((slots, beside), (vec![Some(0), Some(1), Some(1), Some(0)], 2));
    }
}
