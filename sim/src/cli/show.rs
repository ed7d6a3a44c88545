//! `show`: a run as a picture, in one of several forms.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anstream::{eprintln, println};
use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use fusion_conformance::report::unless_nobody_listens;
use fusion_history::{Ruling, Verdict, judge_all, ruling_of};

use super::aftermath::{self, Chosen};
use crate::bundle::Bundle;
use crate::engines::fabric::{Options, captured};
use crate::library::Library;
use crate::outcome::{Outcome, judged};
use crate::plan::Plan;
use crate::plant::Plants;
use crate::show::columns::columns;
use crate::show::mermaid::mermaid;
use crate::show::messages::messages;
use crate::show::pcapng::Selection;
use crate::show::pick::{Edge, Pick};
use crate::show::{Run, lines};
use crate::timeline;

/// The width of what goes to no terminal.
const WIDTH: u16 = 160;

/// Shows a run: as text in columns, as a sequence diagram, as a page, as packets
///
/// Examples:
///   cargo xtask sim show BUNDLE --about LOC-003
///   cargo xtask sim show BUNDLE --from 3s --until '#80' --wire
///   cargo xtask sim show --scenario glare --seed 3 --as mermaid
///   cargo xtask sim show BUNDLE --as pcapng -o run.pcapng
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Show {
    #[command(flatten)]
    run: Chosen,
    /// The form
    #[arg(long = "as", value_enum, default_value_t = Form::Columns, value_name = "FORM")]
    form: Form,
    /// From this event or time on, such as #120, 1.5s or 300ms
    #[arg(long, value_name = "EVENT|TIME")]
    from: Option<Edge>,
    /// Up to and with this event or time
    #[arg(long, value_name = "EVENT|TIME")]
    until: Option<Edge>,
    /// Only what is about a requirement (LOC-008), an area (LOC), a host or user (a, alice), or a
    /// conversation with its locus (C1, or a part of its URL). May be repeated: any of them
    #[arg(long, value_name = "WORD")]
    about: Vec<String>,
    /// With what services say to each other: requests and answers, read from the packets
    #[arg(long)]
    wire: bool,
    /// How wide columns are together [default: the terminal, or 160]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(40..))]
    width: Option<u16>,
    /// Writes to this file instead
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Text: a column for each host, a line for each event, arrows for messages
    Columns,
    /// A sequence diagram for documentation: what shows the first violation, or what is asked for
    Mermaid,
    /// The timeline: a page for a browser
    Timeline,
    /// Packets, for Wireshark: HTTP, WebSockets and media as they left their hosts, also those that were lost
    Pcapng,
}

/// Where a run comes from.
enum Source {
    Kept(Box<Bundle>, Vec<Verdict>),
    Played(Box<Outcome>),
}

/// Shows a run.
pub(super) fn show(asked: &Show, json: bool, library: &Library, plants: Plants) -> Result<Ruling> {
    // A bundle whose plan is made anew has a history that is none of that plan.
    let kept = asked.run.bundle.as_deref().filter(|_| !asked.run.anew).map(aftermath::opened).transpose()?;
    let pick = Pick { from: asked.from, until: asked.until, about: asked.about.clone() };
    if asked.form == Form::Pcapng {
        let plan = kept.as_ref().map_or_else(|| asked.run.plan(library), |kept| Ok(kept.plan.clone()))?;
        return packets(asked, &plan, kept.as_ref(), &pick, json, plants);
    }
    let source = match kept {
        Some(bundle) => {
            let verdicts = judge_all(&bundle.history);
            Source::Kept(Box::new(bundle), verdicts)
        }
        None => {
            let plan = asked.run.plan(library)?;
            let options = Options { hooks: plants.hooks(&plan)?, ..Options::default() };
            Source::Played(Box::new(judged(&plan, &options)))
        }
    };
    // Packets are kept only when they are asked for, so that the run is played once more.
    let said = match asked.wire {
        true => {
            let plan = source.plan();
            messages(&captured(plan, &Options { hooks: plants.hooks(plan)?, ..Options::default() }).1)
        }
        false => Vec::new(),
    };
    let run = Run { said: &said, ..source.run() };
    let text = match asked.form {
        Form::Columns if json => {
            let lines = lines(run, &pick)?;
            let lines = lines.iter().map(|line| Ok(format!("{}\n", serde_json::to_string(line)?)));
            lines.collect::<Result<String>>()?
        }
        Form::Columns => columns(run, &pick, asked.width())?,
        Form::Mermaid => mermaid(run, &pick)?,
        Form::Timeline | Form::Pcapng => timeline::page(run),
    };
    match &asked.output {
        Some(file) => written(file, &anstream::adapter::strip_str(&text).to_string())?,
        None => unless_nobody_listens(anstream::stdout().lock().write_all(text.as_bytes()))
            .context("cannot write the picture")?,
    }
    Ok(Ruling::Holds)
}

/// Plays the run once more, for its packets are kept only when they are asked for.
fn packets(
    asked: &Show,
    plan: &Plan,
    kept: Option<&Bundle>,
    pick: &Pick,
    json: bool,
    plants: Plants,
) -> Result<Ruling> {
    let Some(path) = &asked.output else {
        bail!("packets are no text: name the file they go to with --output FILE");
    };
    let (run, capture) = captured(plan, &Options { hooks: plants.hooks(plan)?, ..Options::default() });
    if kept.is_some_and(|bundle| bundle.about.hash != run.history.hash()) {
        eprintln!("another history than the bundle's: these are the packets of the plan as it is played now");
    }
    let selection = Selection::of(&capture, &run.history, pick)?;
    let cannot = || format!("cannot write {}", path.display());
    let mut to = BufWriter::new(File::create(path).with_context(cannot)?);
    let title = format!("{}, seed {}", plan.scenario, plan.seed);
    let done = selection.write(&mut to, &title).with_context(cannot)?;
    to.flush().with_context(cannot)?;
    if json {
        println!("{}", serde_json::to_string(&done)?);
        return Ok(Ruling::Holds);
    }
    println!(
        "{} packets of {} hosts, {} of them lost, in {}",
        done.packets,
        done.hosts,
        done.lost,
        path.display()
    );
    if done.beyond > 0 {
        println!(
            "{} more were not kept: --from and --until do not change that, a shorter run does",
            done.beyond
        );
    }
    println!("RTP is recognised by: tshark -r {} -d udp.port==5004,rtp", path.display());
    Ok(Ruling::Holds)
}

impl Show {
    fn width(&self) -> usize {
        let terminal = || {
            let out = std::io::stdout();
            let is_shown = out.is_terminal() && self.output.is_none();
            is_shown.then(|| rustix::termios::tcgetwinsize(&out).ok()).flatten().map(|size| size.ws_col)
        };
        usize::from(self.width.or_else(terminal).filter(|width| *width > 0).unwrap_or(WIDTH))
    }
}

impl Source {
    fn plan(&self) -> &Plan {
        match self {
            Self::Played(outcome) => &outcome.plan,
            Self::Kept(bundle, _) => &bundle.plan,
        }
    }

    fn run(&self) -> Run<'_> {
        match self {
            Self::Played(outcome) => outcome.run(),
            Self::Kept(bundle, verdicts) => Run {
                scenario: &bundle.about.scenario,
                seed: bundle.about.seed,
                ruling: bundle
                    .about
                    .failure
                    .as_ref()
                    .map_or_else(|| ruling_of(verdicts), |_| Ruling::Violated),
                failure: bundle.about.failure.as_deref(),
                history: &bundle.history,
                verdicts,
                said: &[],
            },
        }
    }
}

fn written(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
