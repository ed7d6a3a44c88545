//! TOML files whose mistakes are answered with file, line, what was expected and a suggestion.
//!
//! Scenarios, configurations and target files are all read by [`read`]: whatever is wrong with one, a
//! human is told where it stands and what to write instead. Nothing here knows what a file means.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// The largest file that is read, in octets.
pub const FILE_MAX: u64 = 4 << 20;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub struct Mistake {
    file: PathBuf,
    line: Option<usize>,
    source_line: Option<String>,
    what: String,
    suggestion: Option<String>,
}

/// Reads and parses a file.
///
/// # Errors
/// A [`Mistake`] when the file is missing, too large, not TOML, or says something else than `T` expects.
/// `T` should `deny_unknown_fields`, so that a misspelt key is a mistake and not a silence.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<T, Mistake> {
    parse(file, &text(file)?)
}

/// The text of a file.
///
/// # Errors
/// A [`Mistake`] when the file is missing, too large or not UTF-8.
pub fn text(file: &Path) -> Result<String, Mistake> {
    let size = std::fs::metadata(file).map_err(|error| unreadable(file, &error))?.len();
    if size > FILE_MAX {
        return Err(Mistake::new(file, format!("the file has {size} octets; at most {FILE_MAX} are read")));
    }
    std::fs::read_to_string(file).map_err(|error| unreadable(file, &error))
}

/// Parses the text of a file.
///
/// # Errors
/// A [`Mistake`] with the line, when the text is not TOML or says something else than `T` expects.
pub fn parse<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, Mistake> {
    toml::from_str(text).map_err(|error| {
        let mut mistake = Mistake::new(file, error.message());
        if let Some(span) = error.span() {
            mistake = mistake.at(text, span.start);
        }
        mistake.suggestion = suggestion_in(error.message());
        mistake
    })
}

/// The candidate that `written` was probably meant to be.
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored =
        candidates.into_iter().map(|candidate| (strsim::jaro_winkler(written, candidate), candidate));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(score, _)| *score > 0.75).map(|(_, candidate)| candidate)
}

impl Mistake {
    /// Something wrong with a file as a whole.
    #[must_use]
    pub fn new(file: &Path, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, source_line: None, what: what.into(), suggestion: None }
    }

    /// Says where in `text` it stands, by the octet it starts at.
    #[must_use]
    pub fn at(mut self, text: &str, octet: usize) -> Self {
        let before = text.get(..octet).unwrap_or(text);
        let line = before.matches('\n').count();
        self.line = Some(line + 1);
        self.source_line = text.lines().nth(line).map(|found| found.trim_end().chars().take(120).collect());
        self
    }

    /// Says where it stands: at the first place that `needle` stands in `text`.
    #[must_use]
    pub fn at_text(self, text: &str, needle: &str) -> Self {
        match text.find(needle) {
            Some(octet) => self.at(text, octet),
            None => self,
        }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// Suggests the nearest of `candidates`, or lists them.
    #[must_use]
    pub fn suggest_one_of<'a>(self, written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        let candidates: Vec<&str> = candidates.into_iter().collect();
        match nearest(written, candidates.iter().copied()) {
            Some(candidate) => self.suggest(format!("did you mean \"{candidate}\"?")),
            None => self.suggest(format!("there are: {}", candidates.join(", "))),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.what.trim_end())?;
        if let (Some(line), Some(source)) = (self.line, &self.source_line) {
            write!(f, "\n  {line} | {source}")?;
        }
        if let Some(suggestion) = &self.suggestion {
            write!(f, "\n  {suggestion}")?;
        }
        Ok(())
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> Mistake {
    let mistake = Mistake::new(file, format!("cannot be read: {error}"));
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| {
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    let written = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match nearest(&written, names.iter().map(String::as_str)) {
        Some(near) => mistake.suggest(format!("did you mean \"{}\"?", folder.join(near).display())),
        None => mistake,
    }
}

/// Serde says ``unknown field `a`, expected one of `b`, `c` ``: the nearest of what was expected.
fn suggestion_in(message: &str) -> Option<String> {
    let (unknown, expected) = message.split_once(", expected ")?;
    let quoted =
        |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let written = quoted(unknown).pop()?;
    let expected = quoted(expected);
    let near = nearest(&written, expected.iter().map(String::as_str))?;
    Some(format!("did you mean \"{near}\"?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Sample {
        listen: String,
        ports: Vec<u16>,
    }

    fn mistake_in(text: &str) -> String {
        parse::<Sample>(Path::new("sample.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn a_misspelt_key_is_answered_with_its_line_and_a_suggestion() {
        insta::assert_snapshot!(mistake_in("ports = [1]\n# a comment\nlisten_ = \"x\"\n"), @r#"
        sample.toml:3: unknown field `listen_`, expected `listen` or `ports`
          3 | listen_ = "x"
          did you mean "listen"?
        "#);
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_answered_with_its_line() {
        insta::assert_snapshot!(mistake_in("listen = \"x\"\nports = [1, 70000]\n"), @r"
        sample.toml:2: invalid value: integer `70000`, expected u16
          2 | ports = [1, 70000]
        ");
    }

    #[test]
    fn a_missing_file_is_answered_with_a_near_name() {
        let folder = std::env::temp_dir().join(format!("fusion-settings-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("target.toml"), "").unwrap();
        let said = read::<Sample>(&folder.join("targt.toml")).unwrap_err().to_string();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(said.contains("did you mean"), "{said}");
        assert!(said.contains("target.toml"), "{said}");
    }
}
