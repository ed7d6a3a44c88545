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

use anyhow::{Context as _, Result, bail};
use fusion_history::History;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::narrate::narrate;
use crate::outcome::Outcome;
use crate::plan::{Mode, Plan};
use crate::shrink::fingerprints;
use crate::timeline;

/// The form of `about.json`.
const FORMAT: &str = "fusion-bundle-1";
/// The largest `about.json` or `plan.json` that is read, in octets.
const FILE_MAX_BYTES: u64 = 64 << 20;

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
    let about = About::of(outcome);
    let swarm = if about.swarm { "-swarm" } else { "" };
    let folder = folder.join(format!("{}-{}{swarm}{suffix}", about.scenario, about.seed));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fill(&folder.join("about.json"), |to| Ok(serde_json::to_writer_pretty(to, &about)?))?;
    fill(&folder.join("plan.json"), |to| Ok(serde_json::to_writer_pretty(to, &outcome.plan)?))?;
    fill(&folder.join("history.jsonl"), |to| Ok(outcome.history.write_lines(to)?))?;
    fill(&folder.join("story.txt"), |to| {
        Ok(narrate(&outcome.history).try_for_each(|told| writeln!(to, "{told}"))?)
    })?;
    fill(&folder.join("timeline.html"), |to| Ok(to.write_all(timeline::page(outcome.run()).as_bytes())?))?;
    Ok(folder)
}

impl Bundle {
    /// Reads what [`write`] wrote.
    ///
    /// # Errors
    /// When a file is missing, too large, or is not what it should be; the message names file and place.
    pub fn read(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            bail!("{} is no folder; a bundle is the folder that a failed run leaves", folder.display());
        }
        let about: About = json(&folder.join("about.json"))?;
        if about.format != FORMAT {
            bail!("{}: the format is {:?}; this program reads {FORMAT:?}", folder.display(), about.format);
        }
        let path = folder.join("history.jsonl");
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let history =
            History::read_lines(BufReader::new(file)).with_context(|| path.display().to_string())?;
        Ok(Self { about, plan: json(&folder.join("plan.json"))?, history })
    }
}

impl About {
    fn of(outcome: &Outcome) -> Self {
        Self {
            format: FORMAT.to_owned(),
            build: build(),
            lock: lock(),
            engine: outcome.engine.to_owned(),
            scenario: outcome.scenario.clone(),
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
fn build() -> String {
    let file = std::env::current_exe().and_then(std::fs::read).unwrap_or_default();
    format!("{}+{}", env!("CARGO_PKG_VERSION"), &hex(&file)[..12])
}

/// The hash of the lock file that this program was built with.
fn lock() -> String {
    hex(include_bytes!("../../Cargo.lock"))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let unreadable = || format!("cannot read {}", path.display());
    let size = std::fs::metadata(path).with_context(unreadable)?.len();
    if size > FILE_MAX_BYTES {
        bail!("{} has {size} octets; at most {FILE_MAX_BYTES} are read", path.display());
    }
    let text = std::fs::read_to_string(path).with_context(unreadable)?;
    serde_json::from_str(&text).map_err(|error| {
        let line_start: usize =
            text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let offset = line_start + error.column().saturating_sub(1);
        anyhow::anyhow!("{}, offset {offset}: {error}", path.display())
    })
}
