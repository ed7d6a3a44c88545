//! What can be said while stepping through a run.

use super::predicate::Predicate;

/// What is told when somebody asks for help.
pub(super) const HELP: &str = "\
next [N]            goes on by N events [1] and tells them
until WHAT          goes on to the next event that is WHAT:
                      #412 or 412      that event
                      12.5s or 250ms   the first event from that time on
                      fault            a fault begins or ends
                      violation        part of what a judge accuses
                      RDV-001          part of what breaks that requirement, or tries to
                      invoke, return, deliver, socket, state, log, phase, media, sink: of that kind
                      host NAME        observed on that host
                      text WORDS       tells of these words; other words mean the same
back [N]            goes back by N events [1]
where               tells the event again
why                 tells what led to it, back to the root, and the faults in force
show                all hosts, what is on its way, the faults in force
show HOST [TABLE]   that host: rows by table, queues, connections, faults in force
show conversation X, show locus X
                    what every host holds of it, and what was last committed of it
diff A [B] [HOST]   what has changed between two events [B: here], on one host or all
violations          everything that is violated, with excerpts
quit                ends
";

/// Something that is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Go on by so many events.
    Next(u64),
    /// Go on until this is met.
    Until(Predicate),
    /// Go back by so many events.
    Back(u64),
    /// Tell the event again.
    Where,
    /// Tell what led to it.
    Why,
    /// Tell everything that is violated.
    Violations,
    /// Tell what is the case, in short.
    Overview,
    /// Tell what is the case on a host, or of an object.
    Show {
        /// A host, or a kind of object.
        what: String,
        /// A table of the host, or which object.
        which: Option<String>,
    },
    /// Tell what has changed; `None` is here.
    Diff {
        /// From this event.
        from: Option<u64>,
        /// To this one.
        to: Option<u64>,
        /// On this host alone.
        host: Option<String>,
    },
    /// Tell what can be said.
    Help,
    /// End.
    Quit,
}

/// Something that is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Nothing begins with this word.
    #[error("there is no `{word}`; did you mean `{nearest}`? `help` lists everything")]
    Word {
        /// The word.
        word: String,
        /// The command that is spelled like it.
        nearest: &'static str,
    },
    /// The command has other arguments.
    #[error("`{command}`: {why}")]
    Arguments {
        /// The command.
        command: &'static str,
        /// What is wrong with them.
        why: String,
    },
}

/// Every command, with its short form.
const WORDS: [(&str, &str); 10] = [
    ("next", "n"),
    ("until", "u"),
    ("back", "b"),
    ("where", "."),
    ("why", "w"),
    ("show", "s"),
    ("diff", "d"),
    ("violations", "v"),
    ("help", "?"),
    ("quit", "q"),
];

impl Command {
    /// Every command's word, for completion.
    pub fn words() -> impl Iterator<Item = &'static str> {
        WORDS.iter().map(|(word, _)| *word)
    }

    /// Reads a line; none is an empty one or a comment that begins with `#` and a space.
    ///
    /// # Errors
    /// When it is no command, with the nearest one or what is expected.
    pub fn parse(line: &str) -> Result<Option<Self>, Unknown> {
        let line = line.trim();
        if line.is_empty() || line.starts_with("# ") {
            return Ok(None);
        }
        let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let Some((word, _)) = WORDS.iter().find(|(word, short)| *word == first || *short == first) else {
            return Err(nearest(first));
        };
        Self::of(word, rest.trim()).map(Some)
    }

    fn of(command: &'static str, rest: &str) -> Result<Self, Unknown> {
        let wrong = |why: String| Unknown::Arguments { command, why };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let by = || match words.as_slice() {
            [] => Ok(1),
            [by] => by
                .parse()
                .ok()
                .filter(|by| *by > 0)
                .ok_or_else(|| wrong(format!("`{by}` is no number of events"))),
            _ => Err(wrong("a number of events is expected, or nothing".to_owned())),
        };
        Ok(match command {
            "next" => Self::Next(by()?),
            "back" => Self::Back(by()?),
            "until" => Self::Until(Predicate::parse(rest).map_err(wrong)?),
            "show" => match words.as_slice() {
                [] => Self::Overview,
                [what] => Self::Show { what: (*what).to_owned(), which: None },
                [what, which] => Self::Show { what: (*what).to_owned(), which: Some((*which).to_owned()) },
                _ => return Err(wrong("a host, or what and which".to_owned())),
            },
            "diff" => diff(&words).map_err(wrong)?,
            _ if !words.is_empty() => {
                return Err(wrong(format!("nothing is expected after it, not `{rest}`")));
            }
            "where" => Self::Where,
            "why" => Self::Why,
            "violations" => Self::Violations,
            "help" => Self::Help,
            _ => Self::Quit,
        })
    }
}

fn diff(words: &[&str]) -> Result<Command, String> {
    let event = |word: &str| word.trim_start_matches('#').parse::<u64>().ok();
    let (from, rest) = match words {
        [first, rest @ ..] => (Some(event(first).ok_or_else(|| format!("`{first}` is no event"))?), rest),
        [] => return Err("two events are expected, such as `diff 10 20`, or one and here".to_owned()),
    };
    let (to, host) = match rest {
        [] => (None, None),
        [word] => event(word).map_or((None, Some(*word)), |to| (Some(to), None)),
        [to, host] => (Some(event(to).ok_or_else(|| format!("`{to}` is no event"))?), Some(*host)),
        _ => return Err("two events and a host at most".to_owned()),
    };
    Ok(Command::Diff { from, to, host: host.map(str::to_owned) })
}

fn nearest(word: &str) -> Unknown {
    let alike = |known: &str| strsim::jaro_winkler(known, word);
    let nearest = Command::words().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    Unknown::Word { word: word.to_owned(), nearest: nearest.unwrap_or("help") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Command {
        Command::parse(line).unwrap().unwrap()
    }

    #[test]
    fn commands_are_read_in_their_long_and_their_short_form() {
        assert_eq!(parsed("next"), Command::Next(1));
        assert_eq!(parsed("  n   20 "), Command::Next(20));
        assert_eq!(parsed("back 3"), Command::Back(3));
        assert_eq!(parsed("show"), Command::Overview);
        let show = Command::Show { what: "conversation".into(), which: Some("x".into()) };
        assert_eq!(parsed("show conversation x"), show);
        assert_eq!(parsed("q"), Command::Quit);
        assert_eq!(Command::parse("  "), Ok(None));
        assert_eq!(Command::parse("# a script says why"), Ok(None));
    }

    #[test]
    fn two_moments_are_compared_everywhere_or_on_one_host() {
        let diff = |from, to, host: Option<&str>| Command::Diff { from, to, host: host.map(str::to_owned) };
        assert_eq!(parsed("diff 10 20"), diff(Some(10), Some(20), None));
        assert_eq!(parsed("diff #10"), diff(Some(10), None, None));
        assert_eq!(parsed("diff 10 a"), diff(Some(10), None, Some("a")));
        assert_eq!(parsed("diff 10 20 a"), diff(Some(10), Some(20), Some("a")));
    }

    #[test]
    fn what_is_no_command_is_answered_with_the_nearest() {
        let said = Command::parse("untill fault").unwrap_err().to_string();
        assert_eq!(said, "there is no `untill`; did you mean `until`? `help` lists everything");
        for (line, said) in [
            ("next many", "`next`: `many` is no number of events"),
            ("back 0", "`back`: `0` is no number of events"),
            ("until", "`until`: until what? an event, a time, a kind, a host, a requirement or words"),
            ("diff", "`diff`: two events are expected, such as `diff 10 20`, or one and here"),
            ("why not", "`why`: nothing is expected after it, not `not`"),
        ] {
            assert_eq!(Command::parse(line).unwrap_err().to_string(), said);
        }
    }
}
