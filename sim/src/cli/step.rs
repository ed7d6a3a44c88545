//! Stepping through a run, line by line: typed at a terminal, or read from a pipe.

use std::io::{BufRead as _, IsTerminal as _};

use anstream::{eprintln, print, println};
use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use fusion_history::Ruling;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::aftermath::Chosen;
use crate::library::Library;
use crate::plant::Plants;
use crate::step::{Command, Session};

/// The longest line that is read, octets.
const LINE_MAX_BYTES: usize = 4_096;

/// Steps through a run: forwards, backwards, and a look at any host on the way
///
/// Lines are typed, or read from a pipe. What is the case at an event is had by
/// playing the plan again up to there, so `back` is as true as `next`.
///
/// Examples:
///   cargo xtask sim step BUNDLE
///   printf 'until violation\nwhy\n' | cargo xtask sim step BUNDLE
///   cargo xtask sim step --scenario glare --seed 3 --swarm
///
/// Exit codes: 0 every line was obeyed, 2 a wrong argument, or a line from a pipe
/// that could not be obeyed.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Step {
    #[command(flatten)]
    run: Chosen,
}

/// Steps through a run until `quit` or the end of the lines. Lines from a pipe that cannot be obeyed make
/// the whole an error in the end, so that no script goes wrong unseen.
pub(super) fn step(args: &Step, library: &Library, json: bool, plants: Plants) -> Result<Ruling> {
    let plan = args.run.plan(library)?;
    let session = Session::new(&plan, plants.hooks(&plan)?).map_err(|why| anyhow!(why))?;
    let mut desk = Desk { session, json, refused: 0 };
    let greeting = desk.session.greeting();
    desk.tell(&greeting);
    if std::io::stdin().is_terminal() {
        typed(&mut desk)?;
    } else {
        piped(&mut desk)?;
        if desk.refused > 0 {
            bail!("{} lines could not be obeyed", desk.refused);
        }
    }
    Ok(Ruling::Holds)
}

/// Where a session is told.
struct Desk {
    session: Session,
    json: bool,
    refused: u64,
}

/// Whether more is wanted.
#[derive(PartialEq)]
enum Wanted {
    More,
    Nothing,
}

impl Desk {
    fn obey(&mut self, line: &str) -> Wanted {
        let command = match Command::parse(line) {
            Ok(Some(Command::Quit)) => return Wanted::Nothing,
            Ok(Some(command)) => command,
            Ok(None) => return Wanted::More,
            Err(unknown) => {
                self.refuse(line, &unknown.to_string());
                return Wanted::More;
            }
        };
        match self.session.obey(&command) {
            Ok(reply) => self.tell(&reply),
            Err(why) => self.refuse(line, &why),
        }
        Wanted::More
    }

    fn tell(&self, reply: &crate::step::Reply) {
        if self.json { println!("{}", reply.value) } else { print!("{}", reply.text) }
    }

    fn refuse(&mut self, line: &str, why: &str) {
        self.refused += 1;
        if self.json {
            return println!("{}", serde_json::json!({"refused": line, "why": why}));
        }
        eprintln!("{why}");
    }
}

/// With a prompt, a line that can be edited, and the lines before it.
fn typed(desk: &mut Desk) -> Result<()> {
    eprintln!("`help` lists what can be said");
    let mut editor = DefaultEditor::new().context("the terminal cannot be used")?;
    loop {
        let prompt = format!("{} > ", desk.session.at());
        match editor.readline(&prompt) {
            Ok(line) => {
                let _ = editor.add_history_entry(&line);
                if desk.obey(&line) == Wanted::Nothing {
                    return Ok(());
                }
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error).context("the terminal cannot be read"),
        }
    }
}

fn piped(desk: &mut Desk) -> Result<()> {
    let mut lines = std::io::stdin().lock();
    let mut line = String::new();
    loop {
        line.clear();
        let limit = LINE_MAX_BYTES as u64 + 1;
        let read = std::io::Read::take(&mut lines, limit).read_line(&mut line);
        match read.context("a line cannot be read")? {
            0 => return Ok(()),
            read if read > LINE_MAX_BYTES => bail!("a line is longer than {LINE_MAX_BYTES} octets"),
            _ if desk.obey(&line) == Wanted::Nothing => return Ok(()),
            _ => {}
        }
    }
}
