//! How the files of a sweep's parts become one sweep again: what is missing is named, and what is corrupt or of
//! another sweep is told with its place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{FORMAT, Head, Record, Shard, Sweep};
use crate::explore::{Summary, Tally};
use crate::plan::Mode;

/// The longest line that is read, in octets.
const LINE_MAX_BYTES: u64 = 1 << 20;

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
