//! The folder of scenarios.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fusion_settings::Mistake;

use crate::generate::{self, Generated};
use crate::scenario::Scenario;

/// Where scenarios are looked for.
#[derive(Clone, Debug)]
pub struct Library {
    folder: PathBuf,
    /// Whether it is the folder that is found without being named.
    is_nearest: bool,
}

impl Library {
    /// The scenarios below `folder`.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        let found = nearest();
        let is_nearest = found.is_some_and(|found| same(&found, folder));
        Self { folder: folder.to_owned(), is_nearest }
    }

    /// The folder `scenarios` here, or in the nearest folder above that has one.
    ///
    /// # Errors
    /// When there is none.
    pub fn nearest() -> Result<Self, Mistake> {
        match nearest() {
            Some(folder) => Ok(Self { folder, is_nearest: true }),
            None => {
                let here = std::env::current_dir().unwrap_or_default();
                Err(Mistake::new(&here.join("scenarios"), "there is no folder of scenarios here or above")
                    .suggest("name it with --scenarios FOLDER"))
            }
        }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where bundles of failed runs are written: `target/bundles` beside the scenarios.
    #[must_use]
    pub fn bundles(&self) -> PathBuf {
        self.folder.with_file_name("target").join("bundles")
    }

    /// Every scenario, in order of folder and name.
    ///
    /// # Errors
    /// The first mistake in any of them, two of one name, or none at all.
    pub fn all(&self) -> Result<Vec<Scenario>, Mistake> {
        let files = self.files()?;
        if files.is_empty() {
            return Err(Mistake::new(&self.folder, "there is no scenario in this folder"));
        }
        let mut names = BTreeSet::new();
        if let Some(file) = files.iter().find(|file| !names.insert(stem(file))) {
            return Err(Mistake::new(file, "another folder has a scenario of the same name"));
        }
        files.iter().map(|file| self.read(file)).collect()
    }

    /// One scenario, by the name of its file, with or without its folder's, or by a path; or a generated one by
    /// its name, such as `generated-7`.
    ///
    /// # Errors
    /// When there is none of that name, or there is a mistake in it.
    pub fn find(&self, name: &str) -> Result<Scenario, Mistake> {
        let path = Path::new(name);
        if path.extension().is_some_and(|ending| ending == "toml") {
            return Ok(Scenario { file: std::path::absolute(path).ok(), ..Scenario::read(path)? });
        }
        match name.parse::<Generated>() {
            Ok(generated) => return Ok(generated.scenario()),
            Err(why) if name.starts_with(generate::PREFIX) => {
                return Err(Mistake::new(&self.folder, format!("there is no scenario \"{name}\": {why}")));
            }
            Err(_) => {}
        }
        let files = self.files()?;
        let named = |file: &&PathBuf| file.with_extension("").ends_with(path);
        match files.iter().find(named) {
            Some(file) => self.read(file),
            None => {
                let mistake = Mistake::new(&self.folder, format!("there is no scenario \"{name}\""));
                Err(mistake.suggest_one_of(name, files.iter().map(|file| stem(file))))
            }
        }
    }

    /// The scenarios of these names, or all where none is named; each with the name to find it by.
    ///
    /// # Errors
    /// As [`Library::find`] and [`Library::all`].
    pub fn named(&self, names: &[String]) -> Result<Vec<(String, Scenario)>, Mistake> {
        match names {
            [] => Ok(self.all()?.into_iter().map(|scenario| (scenario.name.clone(), scenario)).collect()),
            names => names.iter().map(|name| Ok((name.clone(), self.find(name)?))).collect(),
        }
    }

    /// A scenario of the library, which remembers its file where its name is not enough to find it again.
    fn read(&self, file: &Path) -> Result<Scenario, Mistake> {
        let named = if self.is_nearest { None } else { std::path::absolute(file).ok() };
        Ok(Scenario { file: named, ..Scenario::read(file)? })
    }

    fn files(&self) -> Result<Vec<PathBuf>, Mistake> {
        let unreadable =
            |error: std::io::Error| Mistake::new(&self.folder, format!("cannot be read: {error}"));
        let mut files = Vec::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).map_err(unreadable)? {
                let path = entry.map_err(unreadable)?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ending| ending == "toml") {
                    files.push(path);
                }
            }
        }
        files.sort();
        Ok(files)
    }
}

/// The folder `scenarios` here, or in the nearest folder above that has one.
fn nearest() -> Option<PathBuf> {
    let here = std::env::current_dir().unwrap_or_default();
    here.ancestors().map(|folder| folder.join("scenarios")).find(|folder| folder.is_dir())
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn stem(file: &Path) -> &str {
    file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
}
