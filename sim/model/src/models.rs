//! The models by name.

use std::fmt;

use crate::domain_claim::{self, DomainClaim};
use crate::index::{self, Index};
use crate::locus::{self, Call};
use crate::model::Plant;
use crate::pair::{self, Pair};
use crate::report::Report;
use crate::search::{Limits, search};

/// The models, in the order in which they are searched.
pub const ALL: [Named; 4] = [Named::Pair, Named::Index, Named::Locus, Named::DomainClaim];

/// A model by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// [`mod@crate::pair`].
    Pair,
    /// [`mod@crate::index`].
    Index,
    /// [`mod@crate::locus`].
    Locus,
    /// [`mod@crate::domain_claim`].
    DomainClaim,
}

/// There is no such model, or no such plant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    what: &'static str,
    name: String,
    known: Vec<&'static str>,
}

impl Named {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::Index => "index",
            Self::Locus => "locus",
            Self::DomainClaim => "domain-claim",
        }
    }

    /// Its story in one line.
    #[must_use]
    pub fn story(self) -> &'static str {
        match self {
            Self::Pair => "two people create their 1:1 conversation at once (CNV-003, CNV-004)",
            Self::Index => "what is said in one cluster is in another's index, the newest (RDV-002, RDV-004)",
            Self::Locus => "people call each other at once, and one of them vanishes (LOC-003, LOC-007)",
            Self::DomainClaim => "two orgs claim one domain at once (MAP-002)",
        }
    }

    /// The bugs that its search must find.
    #[must_use]
    pub fn plants(self) -> Vec<Plant> {
        match self {
            Self::DomainClaim => domain_claim::Bug::ALL.map(domain_claim::Bug::plant).to_vec(),
            Self::Locus => locus::Bug::ALL.map(locus::Bug::plant).to_vec(),
            Self::Index => index::Bug::ALL.map(index::Bug::plant).to_vec(),
            Self::Pair => pair::Bug::ALL.map(pair::Bug::plant).to_vec(),
        }
    }

    /// The model of this name.
    ///
    /// # Errors
    /// [`Unknown`], with the names that there are.
    pub fn find(name: &str) -> Result<Self, Unknown> {
        let found = ALL.into_iter().find(|model| model.name() == name);
        let known = || ALL.map(Self::name).to_vec();
        found.ok_or_else(|| Unknown { what: "model", name: name.to_owned(), known: known() })
    }

    /// The model that has a plant of this name.
    ///
    /// # Errors
    /// [`Unknown`], with the names that there are.
    pub fn with_plant(name: &str) -> Result<Self, Unknown> {
        let has = |model: &Self| model.plants().iter().any(|plant| plant.name == name);
        let known = || ALL.into_iter().flat_map(Self::plants).map(|plant| plant.name).collect();
        ALL.into_iter().find(has).ok_or_else(|| Unknown {
            what: "plant",
            name: name.to_owned(),
            known: known(),
        })
    }

    /// Searches it in a world of so many clusters, 2 or 3, with one of its plants or none.
    ///
    /// # Errors
    /// [`Unknown`] when it has no such plant.
    pub fn search(
        self,
        clusters: usize,
        plant: Option<&str>,
        limits: &Limits,
        tell: impl FnMut(usize, usize),
    ) -> Result<Report, Unknown> {
        Ok(match self {
            Self::Pair => {
                let bug = self.planted(&pair::Bug::ALL, pair::Bug::plant, plant)?;
                search(Pair::new(clusters, bug), limits, tell)
            }
            Self::Index => {
                let bug = self.planted(&index::Bug::ALL, index::Bug::plant, plant)?;
                search(Index::new(clusters, bug), limits, tell)
            }
            Self::Locus => {
                let bug = self.planted(&locus::Bug::ALL, locus::Bug::plant, plant)?;
                search(Call::new(clusters, bug), limits, tell)
            }
            Self::DomainClaim => {
                let bug = self.planted(&domain_claim::Bug::ALL, domain_claim::Bug::plant, plant)?;
                search(DomainClaim::new(clusters, bug), limits, tell)
            }
        })
    }

    fn planted<B: Copy>(
        self,
        bugs: &[B],
        plant: impl Fn(B) -> Plant,
        name: Option<&str>,
    ) -> Result<Option<B>, Unknown> {
        let Some(name) = name else { return Ok(None) };
        let found = bugs.iter().copied().find(|bug| plant(*bug).name == name);
        let known = || self.plants().iter().map(|plant| plant.name).collect();
        found.map(Some).ok_or_else(|| Unknown { what: "plant", name: name.to_owned(), known: known() })
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, name, known } = self;
        write!(f, "there is no {what} {name:?}")?;
        let near = known.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name));
        if let Some(near) = near.filter(|near| strsim::jaro_winkler(near, name) > 0.8) {
            write!(f, "; do you mean {near}?")?;
        }
        write!(f, " There are: {}", known.join(", "))
    }
}

impl std::error::Error for Unknown {}
