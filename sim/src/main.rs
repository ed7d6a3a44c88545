//! The simulator's command line.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anstream::{eprintln, println};
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use fusion_history::Ruling;
use fusion_sim::determinism::{self, Fault, Found};
use fusion_sim::engines::fabric::{Options, hosts};
use fusion_sim::explore::{Batch, Summary, explore};
use fusion_sim::fabric::FaultCount;
use fusion_sim::library::Library;
use fusion_sim::narrate::narrate;
use fusion_sim::outcome::{Outcome, judged};
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::scenario::{FAMILIES, Scenario};
use indicatif::{ProgressBar, ProgressStyle};

/// In how many seeds of the whole batch each fault family must have made a difference.
const EFFECTIVE_SEEDS_MIN: u64 = 5;

/// Plays scenarios in a simulated network and judges them.
///
/// Without a command every scenario is played: once as it is written, and with a swarm of faults on 50
/// seeds. One line for each tells the verdict. Exit codes: 0 all hold, 1 something is violated, 2 a
/// scenario or an argument is wrong, 3 something could not be judged.
///
/// Examples:
///   cargo xtask sim
///   cargo xtask sim run one-to-one-race --seed 7 --tell
///   cargo xtask sim sweep one-to-one-race --seeds 1000
///   cargo xtask sim check-determinism --seeds 5
#[derive(Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim", version, verbatim_doc_comment)]
struct Line {
    /// The folder of scenarios [default: the nearest folder `scenarios`]
    #[arg(long, global = true, value_name = "FOLDER")]
    scenarios: Option<PathBuf>,
    /// One JSON object a line, for machines
    #[arg(long, global = true)]
    json: bool,
    /// How many runs at a time [default: one for each core]
    #[arg(long, global = true, value_name = "N")]
    jobs: Option<usize>,
    /// How many swarm seeds each scenario is played with, without a command
    #[arg(long, default_value_t = 50, value_name = "N")]
    seeds: u64,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the scenarios
    List,
    /// Plays one scenario with one seed
    Run {
        #[command(flatten)]
        which: Which,
        /// Tells the story of the run, event by event
        #[arg(long)]
        tell: bool,
        /// Writes the history to a file, as JSON lines
        #[arg(long, value_name = "FILE")]
        history: Option<PathBuf>,
        /// Where it is played
        #[arg(long, value_enum, default_value_t = Engine::Fabric)]
        engine: Engine,
    },
    /// Plays one scenario with many seeds and a swarm of faults
    Sweep {
        /// The scenario
        scenario: String,
        /// How many seeds
        #[arg(long, default_value_t = 1000, value_name = "N")]
        seeds: u64,
        /// The first seed
        #[arg(long, default_value_t = 1, value_name = "N")]
        from: u64,
        /// The story alone, without a swarm of faults
        #[arg(long)]
        story: bool,
    },
    /// Prints the plan that a scenario and a seed make, as JSON
    Plan {
        #[command(flatten)]
        which: Which,
    },
    /// Plays seeds twice here and once in a fresh process, and compares the histories
    CheckDeterminism {
        /// The scenarios [default: all]
        scenario: Vec<String>,
        /// How many seeds of each
        #[arg(long, default_value_t = 3, value_name = "N")]
        seeds: u64,
        /// Plants a fault that the check must find; then 0 is the exit code when it does
        #[arg(long, value_enum)]
        plant: Option<Fault>,
    },
    /// Prints the history of a run: what check-determinism asks of the other process
    #[command(hide = true)]
    History {
        #[command(flatten)]
        which: Which,
        #[arg(long, value_enum)]
        plant: Option<Fault>,
    },
}

#[derive(Args)]
struct Which {
    /// The scenario, by name or file
    scenario: String,
    /// The seed
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// With a swarm of faults drawn from the seed
    #[arg(long)]
    swarm: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Engine {
    /// The simulated network
    Fabric,
    /// Real sockets on this machine's loopback, in real time
    Live,
}

fn main() -> ExitCode {
    let line = Line::parse();
    match run(&line) {
        Ok(Ruling::Holds) => ExitCode::SUCCESS,
        Ok(Ruling::Violated) => ExitCode::from(1),
        Ok(Ruling::Unknown) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(line: &Line) -> Result<Ruling> {
    let library = match &line.scenarios {
        Some(folder) => Library::at(folder),
        None => Library::nearest()?,
    };
    let desk = Desk::new(line);
    match &line.command {
        None => desk.everything(&library.all()?, line.seeds),
        Some(Command::List) => {
            desk.list(&library.all()?);
            Ok(Ruling::Holds)
        }
        Some(Command::Run { which, tell, history, engine }) => {
            let outcome = match engine {
                Engine::Fabric => judged(&which.plan(&library)?, &Options::default()),
                Engine::Live => fusion_sim::engines::live::judged(&which.plan(&library)?)?,
            };
            if let Some(file) = history {
                let file = std::fs::File::create(file)?;
                outcome.history.write_lines(std::io::BufWriter::new(file))?;
            }
            if *tell {
                narrate(&outcome.history).for_each(|told| println!("{told}"));
            }
            desk.one(&outcome);
            Ok(outcome.ruling)
        }
        Some(Command::Sweep { scenario, seeds, from, story }) => {
            let mode = if *story { Mode::Story } else { Mode::Swarm };
            let scenario = library.find(scenario)?;
            let summary = desk.batch(&scenario, *from, *seeds, mode);
            desk.summary(&summary);
            desk.faults(&summary.faults, summary.runs);
            Ok(summary.ruling())
        }
        Some(Command::Plan { which }) => {
            println!("{}", serde_json::to_string_pretty(&which.plan(&library)?)?);
            Ok(Ruling::Holds)
        }
        Some(Command::CheckDeterminism { scenario, seeds, plant }) => {
            let scenarios = match scenario.as_slice() {
                [] => library.all()?,
                names => names.iter().map(|name| library.find(name)).collect::<Result<_, _>>()?,
            };
            desk.determinism(&scenarios, *seeds, *plant, &library)
        }
        Some(Command::History { which, plant }) => {
            let history =
                determinism::play(&library.find(&which.scenario)?, which.seed, which.mode(), *plant)?;
            history.write_lines(std::io::stdout().lock())?;
            Ok(Ruling::Holds)
        }
    }
}

impl Which {
    fn mode(&self) -> Mode {
        if self.swarm { Mode::Swarm } else { Mode::Story }
    }

    fn plan(&self, library: &Library) -> Result<Plan> {
        let scenario = library.find(&self.scenario)?;
        Ok(Plan::new(&scenario, &hosts(&scenario.topology)?, self.seed, self.mode()))
    }
}

/// Where results are put before people or machines.
struct Desk {
    json: bool,
    jobs: usize,
    stop: Arc<AtomicBool>,
}

impl Desk {
    fn new(line: &Line) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        // The first Ctrl-C ends the batch and keeps what was found, the second ends the program.
        let _ = ctrlc::set_handler(move || {
            if asked.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        });
        Self { json: line.json, jobs: line.jobs.unwrap_or(cores), stop }
    }

    fn list(&self, scenarios: &[Scenario]) {
        for scenario in scenarios {
            if self.json {
                println!(
                    "{}",
                    serde_json::json!({"scenario": scenario.name, "title": scenario.title, "requirements": scenario.requirements})
                );
            } else {
                println!("{:<26} {}", scenario.name, scenario.title);
            }
        }
    }

    /// Every scenario as written and with a swarm. Judges without a case and faults without effect are
    /// failures, too: they would be an empty victory.
    fn everything(&self, scenarios: &[Scenario], seeds: u64) -> Result<Ruling> {
        let mut ruling = Ruling::Holds;
        let mut faults: BTreeMap<&'static str, FaultCount> = BTreeMap::new();
        let mut runs = 0;
        for scenario in scenarios {
            let story = self.batch(scenario, 0, 1, Mode::Story);
            let mut swarm = self.batch(scenario, 1, seeds, Mode::Swarm);
            if story.ruling() != Ruling::Holds {
                self.explain(&story);
                ruling = ruling.max(story.ruling());
            }
            swarm.reached.extend(story.reached.iter().cloned());
            self.summary(&swarm);
            ruling = ruling.max(if seeds > 0 { swarm.ruling() } else { story.ruling() });
            for (family, count) in &swarm.faults {
                let total = faults.entry(family).or_default();
                total.chosen += count.chosen;
                total.effective += count.effective;
            }
            runs += swarm.runs;
            let never = swarm.never_reached(scenario);
            if !never.is_empty() && !self.stopped() {
                eprintln!("{}: no run had a case of {}", scenario.name, never.join(", "));
                ruling = ruling.max(Ruling::Unknown);
            }
            if self.stopped() {
                eprintln!("stopped; the lines above are what was found");
                return Ok(ruling.max(Ruling::Unknown));
            }
        }
        self.faults(&faults, runs);
        let wanted = EFFECTIVE_SEEDS_MIN.min(seeds);
        for family in FAMILIES {
            let effective = faults.get(family).map_or(0, |count| count.effective);
            if effective < wanted {
                eprintln!(
                    "fault family {family} made a difference in {effective} runs only; at least {wanted} are wanted"
                );
                ruling = ruling.max(Ruling::Unknown);
            }
        }
        Ok(ruling)
    }

    fn batch(&self, scenario: &Scenario, first: u64, seeds: u64, mode: Mode) -> Summary {
        let bar = self.bar(&scenario.name, seeds);
        let batch = Batch { first, seeds, mode, jobs: self.jobs };
        let summary = explore(scenario, batch, &Options::default(), &self.stop, &|outcome| {
            bar.inc(1);
            if outcome.ruling != Ruling::Holds {
                bar.set_message(format!("{} on seed {}", outcome.ruling, outcome.seed));
            }
        });
        bar.finish_and_clear();
        summary
    }

    /// On a terminal only.
    fn bar(&self, name: &str, length: u64) -> ProgressBar {
        if self.json || !std::io::stderr().is_terminal() || length < 2 {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(length);
        if let Ok(style) = ProgressStyle::with_template("{prefix:<26} {bar:30} {pos}/{len} {eta} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    fn one(&self, outcome: &Outcome) {
        if self.json {
            println!("{}", serde_json::to_string(&outcome.line()).unwrap_or_default());
            return;
        }
        println!(
            "{} {:<26} seed {:<6} {:>8.1} s simulated {:>7.3} s wall {:>7} events  {}",
            verdict(outcome.ruling),
            outcome.scenario,
            outcome.seed,
            outcome.simulated.as_secs_f64(),
            outcome.wall.as_secs_f64(),
            outcome.events,
            &outcome.hash[..16.min(outcome.hash.len())],
        );
        if outcome.ruling != Ruling::Holds {
            print!("{}", indented(&outcome.explain()));
        }
    }

    fn summary(&self, summary: &Summary) {
        if self.json {
            let line = serde_json::json!({
                "scenario": summary.scenario, "engine": "fabric", "seeds": summary.runs,
                "verdict": summary.ruling().to_string(), "violated": summary.violated, "unknown": summary.unknown,
                "events": summary.events, "simulated_s": summary.simulated.as_secs_f64(),
                "wall_s": summary.wall.as_secs_f64(), "hash": summary.hash, "distinct": summary.distinct,
                "failed_seeds": summary.failed.iter().map(|outcome| outcome.seed).collect::<Vec<_>>(),
            });
            println!("{line}");
        } else {
            println!(
                "{} {:<26} {:>5} seeds {:>10.0} s simulated {:>7.2} s wall {:>9} events  {}",
                verdict(summary.ruling()),
                summary.scenario,
                summary.runs,
                summary.simulated.as_secs_f64(),
                summary.wall.as_secs_f64(),
                summary.events,
                &summary.hash[..16],
            );
        }
        self.explain(summary);
    }

    fn explain(&self, summary: &Summary) {
        for outcome in &summary.failed {
            eprintln!("  {} on seed {}: {}", outcome.ruling, outcome.seed, outcome.reproduce());
            eprint!("{}", indented(&outcome.explain()));
        }
        let told = summary.failed.len() as u64;
        let all = summary.violated + summary.unknown;
        if all > told {
            eprintln!("  and {} more", all - told);
        }
    }

    fn faults(&self, faults: &BTreeMap<&'static str, FaultCount>, runs: u64) {
        if self.json {
            let families: BTreeMap<_, _> = faults
                .iter()
                .map(|(family, count)| {
                    (family, serde_json::json!({"chosen": count.chosen, "effective": count.effective}))
                })
                .collect();
            println!("{}", serde_json::json!({"faults": families, "runs": runs}));
            return;
        }
        println!("faults: in how many of {runs} runs each family was chosen and made a difference");
        for (family, count) in faults {
            println!("  {family:<20} chosen {:>5}  effective {:>5}", count.chosen, count.effective);
        }
    }

    fn determinism(
        &self,
        scenarios: &[Scenario],
        seeds: u64,
        plant: Option<Fault>,
        library: &Library,
    ) -> Result<Ruling> {
        let mut differing = 0;
        for scenario in scenarios {
            for seed in 1..=seeds {
                let mode = if seed % 2 == 0 { Mode::Story } else { Mode::Swarm };
                match determinism::check(scenario, seed, mode, plant, library.folder())? {
                    Found::Same(hash) => {
                        println!("same    {:<26} seed {seed:<6} {}", scenario.name, &hash[..16]);
                    }
                    Found::DiffersHere(difference) => {
                        differing += 1;
                        println!(
                            "differs {:<26} seed {seed:<6} in one process\n{}",
                            scenario.name,
                            indented(&difference.to_string())
                        );
                    }
                    Found::DiffersThere(difference) => {
                        differing += 1;
                        println!(
                            "differs {:<26} seed {seed:<6} in two processes\n{}",
                            scenario.name,
                            indented(&difference.to_string())
                        );
                    }
                }
                std::io::stdout().flush()?;
            }
        }
        let wanted = if plant.is_some() { scenarios.len() as u64 * seeds } else { 0 };
        Ok(if differing == wanted { Ruling::Holds } else { Ruling::Violated })
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The verdict first, in colour where there is one (`anstream` drops it elsewhere).
fn verdict(ruling: Ruling) -> String {
    use anstyle::{AnsiColor, Style};
    let colour = match ruling {
        Ruling::Holds => AnsiColor::Green,
        Ruling::Unknown => AnsiColor::Yellow,
        Ruling::Violated => AnsiColor::Red,
    };
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{ruling:<8}{style:#}")
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
