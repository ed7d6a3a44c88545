//! What has changed between two moments, or differs between two runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use super::moment::Moment;

/// The most characters of a value that a line shows.
const VALUE_SHOWN: usize = 120;

/// One thing that is other than it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Where; `network` for what is between hosts.
    pub host: String,
    /// What: a table and a key, or a property.
    pub what: String,
    /// Which member of it; empty: all of it.
    pub member: String,
    /// What it was; none: it was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is; none: it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// What is other in `right` than in `left`, rows first, host by host; or on one host alone. Counters of
/// connections are left out: they change with every packet.
#[must_use]
pub fn changes(left: &Moment, right: &Moment, host: Option<&str>) -> Vec<Change> {
    let hosts: BTreeSet<&str> = left.hosts().chain(right.hosts()).collect();
    let mut found = Vec::new();
    for name in hosts.into_iter().filter(|name| host.is_none_or(|host| host == *name)) {
        compare(name, &rows(left, name), &rows(right, name), &mut found);
        compare(name, &properties(left, name), &properties(right, name), &mut found);
    }
    if host.is_none() {
        compare("network", &between(left), &between(right), &mut found);
    }
    found
}

type Things = BTreeMap<String, Value>;

fn rows(moment: &Moment, host: &str) -> Things {
    let rows = moment.rows(host).iter();
    rows.map(|row| (format!("{} {}", row.table, row.key), row.value.clone())).collect()
}

/// The machine, its connections and its legs.
fn properties(moment: &Moment, host: &str) -> Things {
    let mut things = Things::new();
    if let Some(machine) = moment.world.machines.get(host) {
        things.insert("machine".to_owned(), serde_json::to_value(machine).unwrap_or_default());
    }
    let own = moment.world.connections.iter().filter(|connection| &*connection.from.host == host);
    for connection in own {
        let what = format!("connection {} to {}", connection.connection, connection.to.host);
        things.insert(what, json!({"state": connection.state}));
    }
    for (_, leg) in moment.legs.iter().filter(|(of, _)| of == host) {
        things.insert(format!("leg {}", leg.id), serde_json::to_value(leg).unwrap_or_default());
    }
    things
}

fn between(moment: &Moment) -> Things {
    let faults = moment.world.faults.iter();
    faults
        .map(|report| {
            let fault = serde_json::to_value(&report.fault).unwrap_or_default();
            (format!("fault {}", report.id.0), json!({"fault": fault, "effects": report.effects}))
        })
        .collect()
}

fn compare(host: &str, left: &Things, right: &Things, found: &mut Vec<Change>) {
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    for name in names {
        parts(host, name, String::new(), left.get(name), right.get(name), found);
    }
}

/// The smallest members that differ.
fn parts(
    host: &str,
    what: &str,
    member: String,
    left: Option<&Value>,
    right: Option<&Value>,
    found: &mut Vec<Change>,
) {
    match (left, right) {
        (left, right) if left == right => {}
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for name in names {
                parts(host, what, format!("{member}.{name}"), one.get(name), other.get(name), found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            for n in 0..one.len().max(other.len()) {
                parts(host, what, format!("{member}[{n}]"), one.get(n), other.get(n), found);
            }
        }
        (before, after) => found.push(Change {
            host: host.to_owned(),
            what: what.to_owned(),
            member,
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, what, member, before, after } = self;
        match (before, after) {
            (None, Some(after)) => write!(f, "{host:<12} + {what}{member} {}", short(after)),
            (Some(before), None) => write!(f, "{host:<12} - {what}{member} {}", short(before)),
            _ => {
                let shown = |value: &Option<Value>| value.as_ref().map(short).unwrap_or_default();
                write!(f, "{host:<12} ~ {what}{member} {} -> {}", shown(before), shown(after))
            }
        }
    }
}

/// A value in at most so many characters.
pub(super) fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_SHOWN) {
        None => text,
        Some((end, _)) => format!("{} ...", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(left: Value, right: Value) -> Vec<String> {
        let mut found = Vec::new();
        let things = |value| Things::from([("locus 1".to_owned(), value)]);
        compare("a", &things(left), &things(right), &mut found);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_the_members_that_differ_are_told() {
        let (left, right) = (
            json!({"state": "idle", "rev": 1, "who": ["x"]}),
            json!({"state": "active", "rev": 1, "who": ["x", "y"]}),
        );
        let expected =
            [r#"a            ~ locus 1.state "idle" -> "active""#, r#"a            + locus 1.who[1] "y""#];
        assert_eq!(told(left.clone(), right), expected);
        assert!(told(left.clone(), left).is_empty());
    }

    #[test]
    fn what_is_gone_and_what_is_new_is_told() {
        let mut found = Vec::new();
        let (one, other) =
            (Things::from([("x".to_owned(), json!(1))]), Things::from([("y".to_owned(), json!(2))]));
        compare("a", &one, &other, &mut found);
        let told: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["a            - x 1", "a            + y 2"]);
    }

    #[test]
    fn a_long_value_is_cut_at_a_character() {
        let text = short(&json!("é".repeat(500)));
        assert!(text.ends_with(" ...") && text.chars().count() == VALUE_SHOWN + 4, "{text}");
    }
}
