//! Private things are typed, so that leaking them takes effort (PRI-001, PRI-005).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something about a person: a message, a title, a name. It goes over the wire as it is, and prints as
/// nothing at all: even a hash of it could be inverted by a dictionary.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pii<T>(T);

impl<T> Pii<T> {
    /// Marks `value` as private.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The private value. Every caller is a place to ask whether it leaks.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// The private value itself.
    pub fn into_exposed(self) -> T {
        self.0
    }
}

impl<T> fmt::Debug for Pii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<private>")
    }
}

impl<T> fmt::Display for Pii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<private>")
    }
}

impl From<&str> for Pii<String> {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}
