//! Bundles: everything that a failed run leaves, in a folder of its own.
//!
//! | file | what |
//! |---|---|
//! | `about.json` | which build, which scenario and seed, what was wrong, the command that plays it again |
//! | `plan.json` | the plan: what is played again, never the seed alone |
//! | `history.jsonl` | everything observed, with its hash |
//! | `story.txt` | the same for people, event by event |
//! | `timeline.html` | the same as a page, which opens at what is wrong |

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, bail};
use fusion_conformance::report::{self, Report};
use fusion_history::History;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::narrate::narrate;
use crate::outcome::{Outcome, quoted};
use crate::plan::{Mode, Plan};
use crate::shrink::fingerprints;
use crate::timeline;

/// The form of `about.json`.
const FORMAT: &str = "fusion-bundle-2";
/// The largest `about.json` or `plan.json` that is read, in octets.
const FILE_MAX_BYTES: u64 = 64 << 20;
/// The largest `history.jsonl` that is read, in octets.
const HISTORY_MAX_BYTES: u64 = 4 << 30;

/// The largest program that is hashed as a whole, octets; of a larger one, one block of so many.
const PROGRAM_WHOLE_BYTES: usize = 32 << 20;
const PROGRAM_BLOCK_BYTES: usize = 4 << 10;
const PROGRAM_PART: usize = 32;

/// What a failed run left.
#[derive(Debug)]
pub struct Bundle {
    /// Where it was made, and what was wrong.
    pub about: About,
    /// What was played.
    pub plan: Plan,
    /// What was observed.
    pub history: History,
}

/// Where a bundle was made, and what was wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// [`FORMAT`].
    format: String,
    /// The program that made it: its version and the hash of its file.
    pub build: String,
    /// The SHA-256 of the lock file it was built with.
    pub lock: String,
    /// The engine.
    pub engine: String,
    /// The scenario.
    pub scenario: String,
    /// Its file, where it is not found by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The bug that was planted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planted: Option<String>,
    /// The SHA-256 of `plan.json`.
    pub plan: String,
    /// The seed.
    pub seed: u64,
    /// Whether a swarm of faults was in it.
    pub swarm: bool,
    /// `violated` or `unknown`.
    pub verdict: String,
    /// The fingerprints of what was wrong.
    pub violations: Vec<String>,
    /// Why it could not be played to its end, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The hash of the history.
    pub hash: String,
    /// The command that makes the plan anew from scenario and seed, and plays it.
    pub reproduce: String,
}

/// Writes the bundle of a run below `folder`, in a folder named after scenario, seed and `suffix`, in place
/// of an older one.
///
/// # Errors
/// When a file cannot be written; the message names it.
pub fn write(outcome: &Outcome, folder: &Path, suffix: &str) -> Result<PathBuf> {
    let plan = serde_json::to_vec_pretty(&outcome.plan)?;
    let about = About::of(outcome, &plan);
    let swarm = if about.swarm { "-swarm" } else { "" };
    let folder = folder.join(format!("{}-{}{swarm}{suffix}", about.scenario, about.seed));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fill(&folder.join("about.json"), |to| Ok(serde_json::to_writer_pretty(to, &about)?))?;
    fill(&folder.join("plan.json"), |to| Ok(to.write_all(&plan)?))?;
    fill(&folder.join("history.jsonl"), |to| Ok(outcome.history.write_lines(to)?))?;
    fill(&folder.join("story.txt"), |to| {
        Ok(narrate(&outcome.history).try_for_each(|told| writeln!(to, "{told}"))?)
    })?;
    fill(&folder.join("timeline.html"), |to| Ok(to.write_all(timeline::page(outcome.run()).as_bytes())?))?;
    Ok(folder)
}

/// What the conformance suite found, to be kept when a deployment is not conformant.
pub struct Checked<'a> {
    /// What became of each check.
    pub report: &'a Report,
    /// Everything observed.
    pub history: &'a History,
    /// The world's seed.
    pub seed: u64,
    /// Which checks were asked for; none: all.
    pub only: &'a [String],
    /// The bug that was planted.
    pub plant: Option<&'a str>,
}

impl Checked<'_> {
    /// Writes `report.jsonl` and `history.jsonl` into a folder below `folder`, in place of older ones.
    ///
    /// # Errors
    /// When a file cannot be written; the message names it.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let planted = self.plant.map(|bug| format!("-{bug}")).unwrap_or_default();
        let folder = folder.join(format!("conform-{}{planted}", self.seed));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fill(&folder.join("report.jsonl"), |to| Ok(report::json::write(self.report, to)?))?;
        fill(&folder.join("history.jsonl"), |to| Ok(self.history.write_lines(to)?))?;
        Ok(folder)
    }

    /// The command that makes the same checks again: fewer would be another run.
    #[must_use]
    pub fn reproduce(&self) -> String {
        let only: String = self.only.iter().map(|pattern| format!(" --only {}", quoted(pattern))).collect();
        let planted = self.plant.map(|bug| format!(" --plant {bug}")).unwrap_or_default();
        format!("cargo xtask sim conform --seed {}{only}{planted}", self.seed)
    }
}

impl Bundle {
    /// Reads what [`write`] wrote.
    ///
    /// # Errors
    /// When a file is missing, too large, was changed, or is not what it should be: the message names file
    /// and place, and says so when another build made the bundle.
    pub fn read(folder: &Path) -> Result<Self> {
        let about = About::read(folder)?;
        let whole = || -> Result<Self> {
            let plan = about.plan(folder)?;
            let history = history(&folder.join("history.jsonl"))?;
            if history.hash() != about.hash {
                bail!("{}: history.jsonl is not the one that about.json tells of", folder.display());
            }
            Ok(Self { about: about.clone(), plan, history })
        };
        whole().map_err(|wrong| match about.other_build() {
            Some(other) => anyhow!("{wrong:#}\n  another build: {other}\n  {}", about.anew(folder)),
            None => anyhow!("{wrong:#}\n  {}", about.anew(folder)),
        })
    }
}

/// The history in a file that is not too large.
///
/// # Errors
/// When it cannot be read or is no history, with file, line, column and offset.
pub fn history(path: &Path) -> Result<History> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    bounded(path, file.metadata()?.len(), HISTORY_MAX_BYTES)?;
    History::read_lines(BufReader::new(file)).with_context(|| path.display().to_string())
}

impl About {
    /// Reads it from a bundle's folder.
    ///
    /// # Errors
    /// When there is none, or it is not what it should be; the message names file and place.
    pub fn read(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            bail!("{} is no folder; a bundle is the folder that a failed run leaves", folder.display());
        }
        let path = folder.join("about.json");
        if !path.exists() {
            bail!("{} is no bundle of a run: there is no about.json in it", folder.display());
        }
        let text = text(&path)?;
        let Format { format } = parse(&path, &text)?;
        if format != FORMAT {
            bail!("{}: the format is {format:?}; this program reads {FORMAT:?}", path.display());
        }
        parse(&path, &text)
    }

    /// The plan in the bundle's folder, which must be the one that was played.
    fn plan(&self, folder: &Path) -> Result<Plan> {
        let path = folder.join("plan.json");
        let text = text(&path)?;
        let plan: Plan = parse(&path, &text)?;
        let named = (&plan.scenario, plan.seed, plan.mode == Mode::Swarm, &plan.planted);
        if named != (&self.scenario, self.seed, self.swarm, &self.planted) {
            bail!("{} is of another run than about.json", path.display());
        }
        plan.check().map_err(|flaw| {
            let offset = text.find(&format!("\"{}\"", flaw.needle)).unwrap_or_default();
            anyhow!("{}: {flaw}", place(&path, &text, offset))
        })?;
        if hex(text.as_bytes()) != self.plan {
            bail!("{} was changed since it was written", path.display());
        }
        Ok(plan)
    }

    /// How the plan can be made anew, for whoever cannot use the bundle as it is.
    fn anew(&self, folder: &Path) -> String {
        let folder = quoted(&folder.display().to_string());
        format!("`cargo xtask sim replay {folder} --anew` makes its plan anew from scenario and seed")
    }

    fn of(outcome: &Outcome, plan: &[u8]) -> Self {
        Self {
            format: FORMAT.to_owned(),
            build: build(),
            lock: lock(),
            engine: outcome.engine.to_owned(),
            scenario: outcome.scenario.clone(),
            file: outcome.plan.file.clone(),
            planted: outcome.plan.planted.clone(),
            plan: hex(plan),
            seed: outcome.seed,
            swarm: outcome.mode == Mode::Swarm,
            verdict: outcome.ruling.to_string(),
            violations: fingerprints(outcome),
            failure: outcome.failure.clone(),
            hash: outcome.hash.clone(),
            reproduce: outcome.reproduce(),
        }
    }

    /// How this program differs from the one that made the bundle; `None` when it is the same.
    #[must_use]
    pub fn other_build(&self) -> Option<String> {
        if self.build == build() {
            return None;
        }
        let libraries = if self.lock == lock() { "the same" } else { "other" };
        Some(format!("made by {}, this is {}, with {libraries} versions of libraries", self.build, build()))
    }
}

fn fill(path: &Path, with: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let filled = File::create(path).map_err(anyhow::Error::from).and_then(|file| {
        let mut to = BufWriter::new(file);
        with(&mut to)?;
        Ok(to.flush()?)
    });
    filled.with_context(|| format!("cannot write {}", path.display()))
}

/// This program: its version and the hash of its file.
pub(crate) fn build() -> String {
    static BUILD: OnceLock<String> = OnceLock::new();
    let made = || {
        let file = std::env::current_exe().and_then(std::fs::read).unwrap_or_default();
        format!("{}+{}", env!("CARGO_PKG_VERSION"), &hash_of_program(&file)[..12])
    };
    BUILD.get_or_init(made).clone()
}

/// Of a program with everything that debuggers need, which takes long to hash, a part is enough: whatever is
/// compiled anew moves what comes after it.
fn hash_of_program(file: &[u8]) -> String {
    let every = if file.len() > PROGRAM_WHOLE_BYTES { PROGRAM_PART } else { 1 };
    let mut hash = Sha256::new();
    hash.update((file.len() as u64).to_be_bytes());
    file.chunks(PROGRAM_BLOCK_BYTES).step_by(every).for_each(|block| hash.update(block));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of the lock file that this program was built with.
fn lock() -> String {
    hex(include_bytes!("../../Cargo.lock"))
}

/// SHA-256, in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What every form of `about.json` has.
#[derive(Deserialize)]
struct Format {
    format: String,
}

fn text(path: &Path) -> Result<String> {
    let unreadable = || format!("cannot read {}", path.display());
    bounded(path, std::fs::metadata(path).with_context(unreadable)?.len(), FILE_MAX_BYTES)?;
    std::fs::read_to_string(path).with_context(unreadable)
}

fn bounded(path: &Path, size: u64, most: u64) -> Result<()> {
    if size > most {
        bail!("{} has {size} octets; at most {most} are read", path.display());
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        let lines = text.split_inclusive('\n').take(error.line().saturating_sub(1));
        let column = error.column().saturating_sub(1);
        let offset = if error.is_eof() { text.len() } else { lines.map(str::len).sum::<usize>() + column };
        let told = error.to_string();
        // The place is told in front.
        let told = told.rsplit_once(" at line ").map_or(told.as_str(), |(told, _)| told);
        anyhow!("{}: {told}", place(path, text, offset))
    })
}

/// File, line and column from 1, and offset from 0.
fn place(path: &Path, text: &str, offset: usize) -> String {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    format!("{}, line {line}, column {column} (offset {offset})", path.display())
}
