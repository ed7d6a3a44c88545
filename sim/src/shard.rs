//! A sweep in parts, on any number of machines: which seeds are whose, what each part leaves in a file, and
//! how the files become one sweep again.
//!
//! A file of results is JSON lines: first what is swept, and which shard of it; then a line for each run,
//! in whatever order runs end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fusion_history::Ruling;
use serde::{Deserialize, Serialize};

use crate::bundle;
use crate::explore::{Batch, Summary, Tally};
use crate::fabric::FaultCount;
use crate::outcome::Outcome;
use crate::plan::Mode;
use crate::scenario::Scenario;
use crate::shrink::fingerprints;

/// The form of a file of results.
const FORMAT: &str = "fusion-shard-1";
/// The longest line that is read, in octets.
const LINE_MAX_BYTES: u64 = 1 << 20;
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

/// Files of results, put together.
#[derive(Debug)]
pub struct Merged {
    /// What one sweep over all seeds would have shown; its wall time is the sum over all runs.
    pub summary: Summary,
    /// The seeds of which there is no result, by shard.
    pub missing: BTreeMap<Shard, Vec<u64>>,
    /// The command that plays one of the runs again, without its seed.
    sweep: Sweep,
}

/// Why files cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line is not what it should be.
    #[error("{}:{line}, offset {offset}: {why}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: u64,
        /// Where the line begins or, if known, where the mistake is, in octets from 0.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// Two files are not of one sweep.
    #[error("{} and {} are not of one sweep: {what} is {here} in the one and {there} in the other", one.display(), other.display())]
    Apart {
        /// A file.
        one: PathBuf,
        /// Another.
        other: PathBuf,
        /// In what they differ.
        what: &'static str,
        /// What it is in the one.
        here: String,
        /// What it is in the other.
        there: String,
    },
    /// Two files are of the same shard.
    #[error("shard {shard} is in {} and in {}: leave one out", one.display(), other.display())]
    Twice {
        /// The shard.
        shard: Shard,
        /// A file.
        one: PathBuf,
        /// Another.
        other: PathBuf,
    },
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

/// Puts the files of a sweep's shards together.
///
/// # Errors
/// When a file cannot be read or is corrupt, or two are not of one sweep or are of the same shard. A shard
/// or a seed that is missing is no error: [`Merged::missing`] names it.
pub fn merge(files: &[PathBuf]) -> Result<Merged, MergeError> {
    let mut parts: BTreeMap<Shard, Part> = BTreeMap::new();
    for file in files {
        let part = Part::read(file)?;
        if let Some(other) = parts.values().next() {
            other.fits(&part)?;
        }
        if let Some(other) = parts.get(&part.head.shard) {
            let (one, other) = (other.file.clone(), part.file);
            return Err(MergeError::Twice { shard: part.head.shard, one, other });
        }
        parts.insert(part.head.shard, part);
    }
    let Some(first) = parts.values().next() else {
        let error = std::io::Error::other("no file is named");
        return Err(MergeError::Unreadable { file: PathBuf::new(), error });
    };
    let sweep = first.head.sweep.clone();
    let missing = first.head.shard.each().filter_map(|shard| {
        let there = |seed: &u64| parts.get(&shard).is_some_and(|part| part.records.contains_key(seed));
        let missing: Vec<u64> = shard.of(sweep.first, sweep.seeds).filter(|seed| !there(seed)).collect();
        (!missing.is_empty()).then_some((shard, missing))
    });
    let missing = missing.collect();
    let records = || parts.values().flat_map(|part| part.records.values());
    let mut tally = Tally::default();
    records().for_each(|record| tally.count(record.seed, record));
    let wall = Duration::from_micros(records().map(|record| record.wall_us).sum());
    let summary = tally.summary(&sweep.scenario, wall);
    let summary = Summary { asked: sweep.seeds, engine: sweep.engine.clone(), ..summary };
    Ok(Merged { summary, missing, sweep })
}

impl Merged {
    /// The requirements that the scenario is about.
    #[must_use]
    pub fn requirements(&self) -> &[String] {
        &self.sweep.requirements
    }

    /// The command that plays a run again.
    #[must_use]
    pub fn reproduce(&self, seed: u64) -> String {
        let swarm = if self.sweep.mode == Mode::Swarm { " --swarm" } else { "" };
        let plant = self.sweep.planted.iter().map(|name| format!(" --plant {name}")).collect::<String>();
        let engine = match self.sweep.engine.as_str() {
            "fabric" => String::new(),
            engine => format!(" --engine {engine}"),
        };
        format!("cargo xtask sim run {} --seed {seed}{swarm}{plant}{engine}", self.sweep.scenario)
    }
}

/// What one file holds.
struct Part {
    file: PathBuf,
    head: Head,
    records: BTreeMap<u64, Record>,
}

impl Part {
    fn read(path: &Path) -> Result<Self, MergeError> {
        let unreadable = |error| MergeError::Unreadable { file: path.to_owned(), error };
        let file = File::open(path).map_err(unreadable)?;
        let mut lines = Lines { path, from: BufReader::new(file), line: 0, offset: 0 };
        let Some(head) = lines.next::<Head>()? else {
            return Err(lines.corrupt("the file is empty; a sweep's --results writes such files".to_owned()));
        };
        if head.format != FORMAT {
            let why = format!("the format is {:?}; this program reads {FORMAT:?}", head.format);
            return Err(lines.corrupt(why));
        }
        let mut records = BTreeMap::new();
        let (first, last) = (head.sweep.first, head.sweep.first.saturating_add(head.sweep.seeds));
        while let Some(record) = lines.next::<Record>()? {
            let seed = record.seed;
            if !(first..last).contains(&seed) || seed % head.shard.of != head.shard.index {
                return Err(lines.corrupt(format!("seed {seed} is not of shard {}", head.shard)));
            }
            if records.insert(seed, record).is_some() {
                return Err(lines.corrupt(format!("seed {seed} is there twice")));
            }
        }
        Ok(Self { file: path.to_owned(), head, records })
    }

    fn fits(&self, other: &Self) -> Result<(), MergeError> {
        let shards = |part: &Self| part.head.shard.of;
        let shards = (shards(self) != shards(other))
            .then(|| ("the number of shards", shards(self).to_string(), shards(other).to_string()));
        match self.head.sweep.differs(&other.head.sweep).or(shards) {
            None => Ok(()),
            Some((what, here, there)) => {
                let (one, other) = (self.file.clone(), other.file.clone());
                Err(MergeError::Apart { one, other, what, here, there })
            }
        }
    }
}

/// Lines of JSON, and where they are.
struct Lines<'a> {
    path: &'a Path,
    from: BufReader<File>,
    /// The number of the line that was read last.
    line: u64,
    /// Where it ends.
    offset: u64,
}

impl Lines<'_> {
    fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, MergeError> {
        let mut text = Vec::new();
        let read = self.from.by_ref().take(LINE_MAX_BYTES + 1).read_until(b'\n', &mut text);
        let read = read.map_err(|error| MergeError::Unreadable { file: self.path.to_owned(), error })?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        if text.last() != Some(&b'\n') {
            let long = read as u64 > LINE_MAX_BYTES;
            let why = if long { "a line is longer than a mebibyte" } else { "the file ends within a line" };
            return Err(self.corrupt(why.to_owned()));
        }
        match serde_json::from_slice(&text) {
            Ok(parsed) => {
                self.offset += read as u64;
                Ok(Some(parsed))
            }
            Err(error) => {
                self.offset += error.column().saturating_sub(1) as u64;
                Err(self.corrupt(error.to_string()))
            }
        }
    }

    fn corrupt(&self, why: String) -> MergeError {
        MergeError::Corrupt { file: self.path.to_owned(), line: self.line, offset: self.offset, why }
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
