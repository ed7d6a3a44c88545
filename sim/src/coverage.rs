//! Coverage: what a run has reached, told from its history alone.
//!
//! A *trait* is something small that was seen: a transition of an object, an answer to a kind of call, two calls
//! about one object at once, each also under the faults that were on. The hash of its name is its fingerprint. A
//! *mark* is a trait that is declared beforehand, so that "all marks are reached" means something.

mod marks;
mod traits;

use std::collections::{BTreeMap, BTreeSet};

pub use marks::{MARKS, Mark, marks};

use crate::outcome::Outcome;

/// What one run has reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Names of traits, by fingerprint.
    seen: BTreeMap<u64, String>,
}

/// What many runs have reached together.
#[derive(Clone, Debug, Default)]
pub struct Reached {
    /// In how many runs each trait was seen, by fingerprint.
    seen: BTreeMap<u64, Seen>,
    runs: u64,
    last_new: u64,
}

/// A trait that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// In how many runs.
    pub runs: u64,
    /// In which run first, from 1.
    pub first: u64,
}

impl Coverage {
    /// What a run has reached.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        let mut coverage = Self::default();
        traits::of_history(&outcome.history, &mut |name| coverage.add(name));
        for verdict in outcome.verdicts.iter().filter(|verdict| verdict.reached > 0) {
            coverage.add(format!("judged {}", verdict.judge));
        }
        for (family, _) in outcome.faults.iter().filter(|(_, count)| count.effective > 0) {
            coverage.add(format!("fault {family}"));
        }
        coverage
    }

    /// Of a run that had these traits.
    #[must_use]
    pub fn naming(names: &[String]) -> Self {
        let mut coverage = Self::default();
        names.iter().for_each(|name| coverage.add(name.clone()));
        coverage
    }

    /// The names of everything seen, in order of fingerprint.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.seen.values().map(String::as_str)
    }

    fn add(&mut self, name: String) {
        self.seen.entry(fingerprint(&name)).or_insert(name);
    }
}

impl Reached {
    /// Counts a run. Returns how many of its traits no run before has had.
    pub fn add(&mut self, coverage: Coverage) -> usize {
        self.runs += 1;
        let before = self.seen.len();
        for (fingerprint, name) in coverage.seen {
            let seen = self.seen.entry(fingerprint);
            seen.or_insert(Seen { name, runs: 0, first: self.runs }).runs += 1;
        }
        let new = self.seen.len() - before;
        if new > 0 {
            self.last_new = self.runs;
        }
        new
    }

    /// How many fingerprints there are.
    #[must_use]
    pub fn fingerprints(&self) -> usize {
        self.seen.len()
    }

    /// How many runs have been counted.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// The last run that showed something new, from 1; 0 when none has.
    #[must_use]
    pub fn last_new(&self) -> u64 {
        self.last_new
    }

    /// In how many runs a trait of this name was seen.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.seen.get(&fingerprint(name)).map_or(0, |seen| seen.runs)
    }

    /// The declared marks that no run has reached, among those that are expected.
    #[must_use]
    pub fn missing(&self) -> BTreeSet<String> {
        let expected = marks().into_iter().filter(|mark| mark.exempt.is_none());
        expected.map(|mark| mark.name).filter(|name| self.count(name) == 0).collect()
    }

    /// How many fingerprints were new in each `size` runs, in order.
    #[must_use]
    pub fn new_per(&self, size: u64) -> Vec<usize> {
        let mut new = vec![0; self.runs.div_ceil(size.max(1)) as usize];
        for seen in self.seen.values() {
            if let Some(count) = new.get_mut(((seen.first - 1) / size.max(1)) as usize) {
                *count += 1;
            }
        }
        new
    }

    /// Everything seen, in order of fingerprint.
    pub fn traits(&self) -> impl Iterator<Item = &Seen> {
        self.seen.values()
    }
}

/// FNV-1a over the octets of a trait's name: the same in every build.
fn fingerprint(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(names: &[&str]) -> Coverage {
        Coverage::naming(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn only_what_no_run_before_had_is_new() {
        let mut reached = Reached::default();
        assert_eq!(reached.add(run(&["a", "b"])), 2);
        assert_eq!(reached.add(run(&["b"])), 0);
        assert_eq!(reached.add(run(&["b", "c"])), 1);
        assert_eq!((reached.fingerprints(), reached.runs(), reached.last_new()), (3, 3, 3));
        assert_eq!((reached.count("b"), reached.count("x")), (3, 0));
        assert_eq!(reached.new_per(2), [2, 1]);
    }

    #[test]
    fn fingerprints_are_those_of_fnv() {
        assert_eq!(fingerprint(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint("a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn every_mark_is_missing_until_it_is_reached() {
        let all = Reached::default().missing();
        assert!(all.contains("judged one-per-pair") && all.contains("fault crash"), "{all:?}");
        let mut reached = Reached::default();
        reached.add(run(&["judged one-per-pair"]));
        assert_eq!(reached.missing().len(), all.len() - 1);
    }
}
