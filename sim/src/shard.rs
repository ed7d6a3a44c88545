//! A sweep in parts, on any number of machines: which seeds are whose, and what each part leaves in a file.
//!
//! A file of results is JSON lines: first what is swept, and which shard of it; then a line for each run,
//! in whatever order runs end.

mod merge;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use fusion_history::Ruling;
use serde::{Deserialize, Serialize};

pub use merge::{MergeError, Merged, merge};

use crate::bundle;
use crate::explore::Batch;
use crate::fabric::FaultCount;
use crate::outcome::Outcome;
use crate::plan::Mode;
use crate::scenario::Scenario;
use crate::shrink::fingerprints;

/// The form of a file of results.
const FORMAT: &str = "fusion-shard-1";
/// Into how many parts a sweep can be split.
const SHARDS_MAX: u64 = 100_000;

/// A part of a sweep: seed `s` is of shard `s mod of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    index: u64,
    of: u64,
}

/// What is not a shard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no shard: I/N is, with N from 1 to {SHARDS_MAX} and I from 0 to N-1, such as 0/4")]
pub struct NoShard(String);

/// What is swept. The parts of one sweep agree in all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// The program: its version and the hash of its file.
    build: String,
    engine: String,
    scenario: String,
    /// The hash of the scenario as it was played.
    content: String,
    requirements: Vec<String>,
    mode: Mode,
    planted: Option<String>,
    first: u64,
    seeds: u64,
}

/// One run, as far as a summary of many needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The seed.
    pub seed: u64,
    /// The hash of the history.
    pub hash: String,
    /// The ruling of all judges together.
    pub verdict: Ruling,
    /// How many events were observed.
    pub events: u64,
    /// How long it lasted in the world, microseconds.
    pub simulated_us: u64,
    /// How long it took, microseconds.
    pub wall_us: u64,
    /// How often each fault family was chosen and made a difference.
    pub faults: BTreeMap<String, FaultCount>,
    /// The requirements of which a judge had a case.
    pub reached: BTreeSet<String>,
    /// The fingerprints of what was wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<String>,
    /// Why it could not be played to its end, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A file of results in the making.
pub struct Results {
    path: PathBuf,
    state: Mutex<(File, Option<std::io::Error>)>,
}

impl Shard {
    /// All seeds.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Whether it is all seeds.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.of == 1
    }

    /// Which of the `seeds` seeds from `first` on are of this shard.
    pub fn of(self, first: u64, seeds: u64) -> impl ExactSizeIterator<Item = u64> + Clone {
        let skipped = (self.index + self.of - first % self.of) % self.of;
        let count = seeds.saturating_sub(skipped).div_ceil(self.of);
        (0..count as usize).map(move |n| first + skipped + n as u64 * self.of)
    }

    fn each(self) -> impl Iterator<Item = Self> {
        (0..self.of).map(move |index| Self { index, of: self.of })
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = NoShard;

    fn from_str(text: &str) -> Result<Self, NoShard> {
        let parsed =
            text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((index, of)) if index < of && of <= SHARDS_MAX => Ok(Self { index, of }),
            _ => Err(NoShard(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Shard {
    type Error = NoShard;

    fn try_from(text: String) -> Result<Self, NoShard> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

impl Sweep {
    /// What `batch` of `scenario` is, whichever of its shards.
    #[must_use]
    pub fn of(scenario: &Scenario, batch: &Batch, engine: &str) -> Self {
        let played = serde_json::to_vec(scenario).unwrap_or_default();
        Self {
            build: bundle::build(),
            engine: engine.to_owned(),
            scenario: scenario.name.clone(),
            content: bundle::hex(&played),
            requirements: scenario.requirements.clone(),
            mode: batch.mode,
            planted: batch.planted.clone(),
            first: batch.first,
            seeds: batch.seeds,
        }
    }

    /// What two sweeps differ in first.
    fn differs(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let seeds = |sweep: &Self| format!("{} from {} on", sweep.seeds, sweep.first);
        let mode = |sweep: &Self| format!("{:?}", sweep.mode).to_lowercase();
        let planted = |sweep: &Self| sweep.planted.clone().unwrap_or_else(|| "none".to_owned());
        let told = [
            ("the build", self.build.clone(), other.build.clone()),
            ("the engine", self.engine.clone(), other.engine.clone()),
            ("the scenario", self.scenario.clone(), other.scenario.clone()),
            ("the content of the scenario", self.content.clone(), other.content.clone()),
            ("the mode", mode(self), mode(other)),
            ("the planted bug", planted(self), planted(other)),
            ("the number of seeds", seeds(self), seeds(other)),
        ];
        told.into_iter().find(|(_, here, there)| here != there)
    }
}

impl Record {
    /// What is kept of a run.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        let judged = outcome.verdicts.iter().filter(|verdict| verdict.reached > 0);
        Self {
            seed: outcome.seed,
            hash: outcome.hash.clone(),
            verdict: outcome.ruling,
            events: outcome.events,
            simulated_us: outcome.simulated.as_micros() as u64,
            wall_us: outcome.wall.as_micros() as u64,
            faults: outcome.faults.iter().map(|(family, count)| ((*family).to_owned(), *count)).collect(),
            reached: judged.flat_map(|verdict| verdict.requirements.clone()).collect(),
            violations: fingerprints(outcome),
            failure: outcome.failure.clone(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: String,
    shard: Shard,
    sweep: Sweep,
}

impl Results {
    /// Begins the file of a shard, in place of an older one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(path: &Path, sweep: Sweep, shard: Shard) -> Result<Self> {
        let unwritable = || format!("cannot write {}", path.display());
        let mut file = File::create(path).with_context(unwritable)?;
        let head = serde_json::to_string(&Head { format: FORMAT.to_owned(), shard, sweep })?;
        writeln!(file, "{head}").with_context(unwritable)?;
        Ok(Self { path: path.to_owned(), state: Mutex::new((file, None)) })
    }

    /// Writes what is kept of a run, so that it stays whatever becomes of this process.
    pub fn add(&self, outcome: &Outcome) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, failed) = &mut *state;
        if failed.is_none() {
            let line = serde_json::to_string(&Record::of(outcome)).unwrap_or_default() + "\n";
            *failed = file.write_all(line.as_bytes()).err();
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// When something could not be written.
    pub fn end(self) -> Result<()> {
        let (_, failed) = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(()), |error| {
            Err(error).with_context(|| format!("cannot write {}", self.path.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seed_is_of_one_shard() {
        for (first, seeds, of) in [(1, 10, 3), (7, 2, 4), (0, 0, 2), (5, 100, 1)] {
            let shards = Shard { index: 0, of }.each();
            let mut all: Vec<u64> = shards.flat_map(|shard| shard.of(first, seeds)).collect();
            all.sort_unstable();
            assert_eq!(all, (first..first + seeds).collect::<Vec<_>>());
        }
        assert_eq!(Shard { index: 1, of: 4 }.of(1, 10).collect::<Vec<_>>(), [1, 5, 9]);
    }

    #[test]
    fn what_is_no_shard_is_told_what_one_is() {
        assert_eq!("3/4".parse(), Ok(Shard { index: 3, of: 4 }));
        for wrong in ["4/4", "0/0", "1", "-1/2", "a/b", "0/100001", ""] {
            let said = wrong.parse::<Shard>().unwrap_err().to_string();
            assert!(said.contains("such as 0/4"), "{said}");
        }
    }
}
