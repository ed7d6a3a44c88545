//! What a bench prints: one row for each figure, for machines a JSON object a line, for people a table.

use std::cell::RefCell;
use std::io::Write as _;

use serde::Serialize;

/// A figure that is to be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// The value is this or less.
    AtMost(f64),
    /// The value is this or more.
    AtLeast(f64),
    /// Nobody said what it should be: it stands beside another figure.
    Reported,
}

/// One figure, measured or not.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    /// None: not measured; `conditions` says why.
    value: Option<f64>,
    unit: &'static str,
    target: Option<f64>,
    met: Option<bool>,
    conditions: String,
    #[serde(skip)]
    sign: &'static str,
}

/// Where rows and progress go.
pub(crate) struct Report {
    json: bool,
    /// Small sizes have no targets.
    quick: bool,
    rows: RefCell<Vec<Row>>,
}

impl Row {
    /// A measured figure.
    pub(crate) fn new(name: &str, value: f64, unit: &'static str, target: Target) -> Self {
        let (target, met, sign) = match target {
            Target::AtMost(most) => (Some(most), Some(value <= most), "<="),
            Target::AtLeast(least) => (Some(least), Some(value >= least), ">="),
            Target::Reported => (None, None, ""),
        };
        Self { name: name.to_owned(), value: Some(value), unit, target, met, conditions: String::new(), sign }
    }

    /// A figure that could not be measured here.
    pub(crate) fn not_measured(name: &str, unit: &'static str, why: &str) -> Self {
        let conditions = format!("not measured: {why}");
        Self { name: name.to_owned(), value: None, unit, target: None, met: None, conditions, sign: "" }
    }

    /// How it was measured: sizes, rounds, range, anything that makes it another figure elsewhere.
    pub(crate) fn under(mut self, conditions: impl Into<String>) -> Self {
        self.conditions = conditions.into();
        self
    }
}

impl Report {
    pub(crate) fn new(json: bool, quick: bool) -> Self {
        Self { json, quick, rows: RefCell::default() }
    }

    /// Prints a row for machines at once; for people they are kept for the table.
    pub(crate) fn add(&self, mut row: Row) {
        if self.quick {
            (row.target, row.met) = (None, None);
            row.conditions = format!("quick, no figure: {}", row.conditions);
        }
        if self.json {
            let line = serde_json::to_string(&row).unwrap_or_default();
            anstream::println!("{line}");
        } else {
            self.progress(&format!("{} = {}", row.name, shown(&row)));
        }
        self.rows.borrow_mut().push(row);
    }

    /// What is being done, for whoever waits.
    pub(crate) fn progress(&self, text: &str) {
        // A reader that has gone is no error.
        let _ = writeln!(anstream::stderr(), "  {text}");
    }

    /// The table, verdict first; whether every figure that has a target meets it.
    pub(crate) fn end(&self) -> bool {
        let rows = self.rows.borrow();
        if !self.json {
            for row in rows.iter() {
                let verdict = match row.met {
                    Some(true) => "met  ",
                    Some(false) => "SHORT",
                    None => "     ",
                };
                let target = row.target.map_or_else(String::new, |target| format!("{} {target}", row.sign));
                anstream::println!(
                    "{verdict}  {:<36} {:>16}  {:<12} {}",
                    row.name,
                    shown(row),
                    target,
                    row.conditions
                );
            }
        }
        rows.iter().all(|row| row.met != Some(false))
    }
}

fn shown(row: &Row) -> String {
    let Some(value) = row.value else { return "-".to_owned() };
    let digits = match value.abs() {
        large if large >= 1_000.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 3,
    };
    format!("{value:.digits$} {}", row.unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_by_itself_whether_its_target_is_met() {
        let met = |value, target| Row::new("x", value, "s", target).met;
        assert_eq!(met(0.2, Target::AtMost(0.2)), Some(true));
        assert_eq!(met(0.3, Target::AtMost(0.2)), Some(false));
        assert_eq!(met(2.0, Target::AtLeast(1.8)), Some(true));
        assert_eq!(met(1.0, Target::AtLeast(1.8)), Some(false));
        assert_eq!(met(1.0, Target::Reported), None);
    }

    #[test]
    fn what_was_not_measured_is_null_and_says_why() {
        let json = serde_json::to_value(Row::not_measured("x_madsim", "s", "no such build")).unwrap();
        assert!(json["value"].is_null() && json["met"].is_null());
        assert_eq!(json["conditions"], "not measured: no such build");
        assert!(json.get("sign").is_none());
    }
}
