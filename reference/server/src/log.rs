//! Log lines: one a line, structured, without prose (PRI-005 is the affair of whoever writes them).

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use clap::ValueEnum;
use fusion_runtime::probe::Level;
use fusion_runtime::{Clock, Probe};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// One JSON object a line
    #[default]
    Json,
    /// For people
    Text,
}

/// The least level that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    /// Every request
    Debug,
    /// Normal life
    #[default]
    Info,
    /// What was wrong and was handled
    Warn,
    /// What needs an operator
    Error,
}

/// Where lines go. Clones write to the same place.
#[derive(Clone)]
pub(crate) struct Sink(Arc<Mutex<Box<dyn Write + Send>>>);

/// The log of one process's part.
pub(crate) struct Log {
    pub(crate) name: String,
    pub(crate) format: Format,
    pub(crate) level: LogLevel,
    pub(crate) sink: Sink,
    pub(crate) clock: Clock,
}

impl Sink {
    /// Appends to a file, which is made with its folder when it is not there.
    pub(crate) fn file(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file: File = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self::to(file))
    }

    /// Standard error.
    pub(crate) fn stderr() -> Self {
        Self::to(io::stderr())
    }

    fn to(writer: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Box::new(writer))))
    }

    fn line(&self, line: &str) {
        // A log that cannot be written must not stop the service.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}

impl Probe for Log {
    fn logs(&self, level: Level) -> bool {
        level >= self.level.least()
    }

    fn log(&self, level: Level, target: &'static str, fields: Value) {
        if !self.logs(level) {
            return;
        }
        let time = self.clock.wall();
        let line = match self.format {
            Format::Json => {
                let (time, level) = (time.to_string(), word(level));
                let line = json!({
                    "time": time, "level": level, "host": self.name, "event": target, "fields": fields,
                });
                format!("{line}\n")
            }
            Format::Text => text(&format!("{time} {:5} {} {target}", word(level), self.name), &fields),
        };
        self.sink.line(&line);
    }
}

impl LogLevel {
    fn least(self) -> Level {
        match self {
            Self::Debug => Level::Debug,
            Self::Info => Level::Info,
            Self::Warn => Level::Warn,
            Self::Error => Level::Error,
        }
    }
}

fn text(head: &str, fields: &Value) -> String {
    let mut line = head.to_owned();
    match fields {
        Value::Object(members) => {
            for (name, value) in members {
                // Writing to a String does not fail.
                let _ = match value {
                    Value::String(text) => write!(line, " {name}={text}"),
                    other => write!(line, " {name}={other}"),
                };
            }
        }
        Value::Null => {}
        other => drop(write!(line, " {other}")),
    }
    line.push('\n');
    line
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}
