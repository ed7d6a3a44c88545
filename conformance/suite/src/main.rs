//! `fusion-conformance`: checks a deployment over real sockets.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use fusion_conformance::catalogue::catalogue;
use fusion_conformance::report::{Report, html, json, junit, text, unless_nobody_listens};
use fusion_conformance::run::chosen;
use fusion_conformance::target::Writes;
use fusion_conformance::{Options, Progress, Target, live, run};
use fusion_runtime::{Host, Latch};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Exit code for a mistake in the arguments or the target file.
const CONFIGURATION: u8 = 2;
/// Exit code when the suite itself goes wrong.
const HARNESS: u8 = 4;

/// Checks a deployment against the numbered requirements, over real sockets.
///
/// Users, conversations and calls that the checks make are their own, and are taken away at the end, also
/// after Ctrl-C. With `read_only` in the target file or `--read-only` nothing is made.
#[derive(Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    /// Which deployment, and as whom: a target file (TOML; `--explain-target` shows one).
    #[arg(long, value_name = "FILE", required_unless_present_any = ["list", "explain_target"])]
    target: Option<PathBuf>,
    /// Only checks whose id begins like this; `*` stands for anything. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Make nothing in the deployment: checks that would are `blocked`.
    #[arg(long)]
    read_only: bool,
    /// How many checks are under way at a time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    at_once: u16,
    /// How many times its own time limit each check may take, for slow networks.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    patience: u32,
    /// End the whole run after so many seconds: what is not over then is incomplete.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Print one JSON object a line instead of text: checks, requirements, judges, summary.
    #[arg(long)]
    json: bool,
    /// Write JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write a page that is complete in itself and opens on what is wrong.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// List the checks, and check nothing.
    #[arg(long)]
    list: bool,
    /// Show a target file with every key explained, and check nothing.
    #[arg(long)]
    explain_target: bool,
}

const EXAMPLES: &str = "\
Examples:
  fusion-conformance --target acme.toml
  fusion-conformance --target acme.toml --only CNV --only '*glare' --html report.html
  fusion-conformance --target production.toml --read-only --json > result.jsonl
  fusion-conformance --list --only SEC

Exit codes:
  0  conformant: everything that must hold and was looked at holds
  1  not conformant
  2  a mistake in the arguments or the target file
  3  incomplete: something that must hold could not be looked at to the end
  4  the suite itself went wrong
  5  unreachable: nobody answers who speaks the protocol";

fn main() -> ExitCode {
    fusion_history::output::mind();
    let arguments = Arguments::parse();
    if arguments.explain_target {
        return done(write_example());
    }
    if arguments.list {
        return done(list(&arguments));
    }
    let target = match target(&arguments) {
        Ok(target) => target,
        Err(error) => return complain(&error, CONFIGURATION),
    };
    match check(&arguments, target) {
        Ok(report) => ExitCode::from(report.exit_code()),
        Err(error) => complain(&error, HARNESS),
    }
}

fn target(arguments: &Arguments) -> Result<Target> {
    let file = arguments.target.as_deref().context("--target is needed")?;
    let mut target = Target::read(file)?;
    if arguments.read_only {
        target.limits.writes = Writes::ReadOnly;
    }
    if chosen(&arguments.only).is_empty() {
        anyhow::bail!("no check is called like {}; --list shows them", arguments.only.join(" or "));
    }
    Ok(target)
}

fn check(arguments: &Arguments, target: Target) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let host = live::host(&target)?;
        let stop = Arc::<Latch>::default();
        stop_on_signals(&host, stop.clone());
        stop_in_time(&host, stop.clone(), Duration::from_secs(arguments.timeout));
        let options = Options {
            only: arguments.only.clone(),
            at_once: usize::from(arguments.at_once),
            patience: arguments.patience,
            stop,
            engine: "live".to_owned(),
        };
        let face = Face::new(arguments.json);
        let report = run(&host, Arc::new(target), &options, |progress| face.show(&progress)).await;
        face.end();
        anyhow::Ok(report)
    })?;
    tell(arguments, &report)?;
    // Sockets that a peer keeps open are not waited for.
    runtime.shutdown_background();
    Ok(report)
}

fn tell(arguments: &Arguments, report: &Report) -> Result<()> {
    let mut out = anstream::stdout().lock();
    unless_nobody_listens(match arguments.json {
        true => json::write(report, &mut out),
        false => text::write_end(report, &mut out),
    })?;
    if let Some(file) = &arguments.junit {
        write_file(file, &junit::render(report)?)?;
    }
    if let Some(file) = &arguments.html {
        write_file(file, &html::render(report))?;
    }
    Ok(())
}

fn write_file(file: &Path, content: &str) -> Result<()> {
    File::create(file)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Once: stop and take away what was made. Twice: leave at once.
fn stop_on_signals(host: &Host, stop: Arc<Latch>) {
    let asked = AtomicBool::new(false);
    host.tasks.spawn(async move {
        loop {
            if interrupted().await.is_err() {
                return;
            }
            if asked.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(HARNESS));
            }
            eprintln!("stopping: what was made is taken away (once more leaves it there)");
            stop.open();
        }
    });
}

async fn interrupted() -> std::io::Result<()> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        biased;
        pressed = tokio::signal::ctrl_c() => pressed,
        _ = terminated.recv() => Ok(()),
    }
}

fn stop_in_time(host: &Host, stop: Arc<Latch>, limit: Duration) {
    let clock = host.clock.clone();
    host.tasks.spawn(async move {
        clock.sleep(limit).await;
        stop.open();
    });
}

/// What a person sees while the run goes on: lines, and a bar below them on a terminal.
struct Face {
    lines: bool,
    bar: ProgressBar,
}

impl Face {
    fn new(json: bool) -> Self {
        let on_terminal = std::io::stderr().is_terminal() && !json;
        let draw = if on_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, draw);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
            bar.set_style(style);
        }
        Self { lines: !json, bar }
    }

    fn show(&self, progress: &Progress) {
        match progress {
            Progress::Planned(checks) => self.bar.set_length(*checks as u64),
            Progress::Started(id) => self.bar.set_message(*id),
            Progress::Finished(report) => {
                self.bar.inc(1);
                if self.lines {
                    self.bar.suspend(|| {
                        // A closed pipe is no reason to leave users behind.
                        let _ = text::write_line(report, &mut anstream::stdout().lock());
                    });
                }
            }
            Progress::CleaningUp => self.bar.set_message("taking away what was made"),
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn list(arguments: &Arguments) -> std::io::Result<()> {
    let mut out = anstream::stdout().lock();
    let width = catalogue().checks.iter().map(|check| check.id.len()).max().unwrap_or(0);
    for (_, entry) in chosen(&arguments.only) {
        if arguments.json {
            let row = serde_json::json!({
                "id": entry.id, "title": entry.title, "requirements": entry.requirements,
                "level": catalogue().level_of(entry),
            });
            writeln!(out, "{row}")?;
        } else {
            writeln!(out, "{:<6} {:<width$}  {}", catalogue().level_of(entry), entry.id, entry.title)?;
        }
    }
    Ok(())
}

fn write_example() -> std::io::Result<()> {
    anstream::stdout().lock().write_all(fusion_conformance::target::file::EXAMPLE.as_bytes())
}

fn done(told: std::io::Result<()>) -> ExitCode {
    match unless_nobody_listens(told) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.into(), HARNESS),
    }
}

fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(code)
}
