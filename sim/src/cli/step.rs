//! Stepping through a run, line by line: typed at a terminal, or read from a pipe.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;

use anstream::{eprintln, print, println};
use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use fusion_history::Ruling;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::aftermath::Bundled;
use crate::engines::fabric::hosts;
use crate::library::Library;
use crate::plan::{Mode, Plan};
use crate::plant::Plants;
use crate::step::{Command, Session};

/// The longest line that is read, octets.
const LINE_MAX_BYTES: usize = 4_096;

/// Which run to step through.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The folder of a bundle: what a failed run leaves
    #[arg(required_unless_present = "scenario", conflicts_with = "scenario")]
    bundle: Option<PathBuf>,
    /// Makes the bundle's plan anew from its scenario and seed
    #[arg(long, requires = "bundle")]
    anew: bool,
    /// A scenario instead, by name or file
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// The scenario's seed
    #[arg(long, default_value_t = 1, value_name = "N", requires = "scenario")]
    seed: u64,
    /// With a swarm of faults drawn from the seed
    #[arg(long, requires = "scenario")]
    swarm: bool,
    /// Plants a bug, as `run --plant` does
    #[arg(long, value_name = "BUG", requires = "scenario")]
    plant: Option<String>,
}

/// Steps through a run until `quit` or the end of the lines. Lines from a pipe that cannot be obeyed make
/// the whole an error in the end, so that no script goes wrong unseen.
pub(crate) fn step(arguments: &Arguments, library: &Library, json: bool, plants: Plants) -> Result<Ruling> {
    let plan = arguments.plan(library)?;
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

impl Arguments {
    fn plan(&self, library: &Library) -> Result<Plan> {
        let Some(scenario) = &self.scenario else {
            let bundle = self.bundle.clone().unwrap_or_default();
            return Ok(Bundled { bundle, anew: self.anew }.open(library)?.plan);
        };
        let scenario = library.find(scenario)?;
        let mode = if self.swarm { Mode::Swarm } else { Mode::Story };
        let plan = Plan::new(&scenario, &hosts(&scenario.topology)?, self.seed, mode);
        Ok(Plan { planted: self.plant.clone(), ..plan })
    }
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
