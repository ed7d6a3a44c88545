//! Where faults strike.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which hosts: `a` (by name), `datacenter:west`, `group:a`, or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// One host.
    Host(String),
    /// The hosts of a data centre.
    Datacenter(String),
    /// The hosts of a group, for example those of one cluster.
    Group(String),
    /// All hosts.
    Everywhere,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            _ if text == "*" => Ok(Self::Everywhere),
            Some(("datacenter", name)) if !name.is_empty() => Ok(Self::Datacenter(name.to_owned())),
            Some(("group", name)) if !name.is_empty() => Ok(Self::Group(name.to_owned())),
            None if !text.is_empty() => Ok(Self::Host(text.to_owned())),
            _ => Err(format!("`{text}` is no place: write `name`, `datacenter:name`, `group:name` or `*`")),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => write!(f, "{name}"),
            Self::Datacenter(name) => write!(f, "datacenter:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Everywhere => write!(f, "*"),
        }
    }
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}
