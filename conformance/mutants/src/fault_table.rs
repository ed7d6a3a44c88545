//! The table of rules under faults: in which runs a rule was judged while a family of faults made a
//! difference. An empty cell says why.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::requirements::{Cell, Row};

/// One line for each rule that a judge had a case of, one column for each family. A number counts runs;
/// `o`: the family was drawn there and never made a difference; `-`: no scenario of the rule draws it.
#[must_use]
pub fn fault_table(rows: &[Row]) -> String {
    let judged: Vec<&Row> = rows.iter().filter(|row| !row.faults.is_empty()).collect();
    let families: BTreeSet<&str> =
        judged.iter().flat_map(|row| row.faults.keys().map(String::as_str)).collect();
    let mut table = format!("{:<8}", "rule");
    for family in &families {
        let _ = write!(table, "  {family}");
    }
    table.push('\n');
    for row in &judged {
        let _ = write!(table, "{:<8}", row.id);
        for family in &families {
            let cell = row.faults.get(*family).map_or_else(|| "-".to_owned(), Cell::to_string);
            let _ = write!(table, "  {cell:>width$}", width = family.len());
        }
        table.push('\n');
    }
    table.push_str("a number: runs in which the rule was judged while the family made a difference\n");
    table.push_str("o: drawn in the rule's scenarios, and never made a difference while it was judged\n");
    table.push_str("-: no scenario in which the rule is judged draws the family\n");
    table
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Judged { runs } => f.pad(&runs.to_string()),
            Self::NoEffect { .. } => f.pad("o"),
            Self::NotDrawn => f.pad("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, faults: &[(&'static str, Cell)]) -> Row {
        Row {
            id: id.to_owned(),
            level: "MUST".to_owned(),
            judges: vec![],
            checks: vec![],
            scenarios: vec![],
            mutants: vec![],
            faults: faults.iter().map(|(family, cell)| ((*family).to_owned(), *cell)).collect(),
            verdict: None,
            reason: None,
        }
    }

    #[test]
    fn an_empty_cell_says_why() {
        let rows = [
            row("LOC-001", &[("crash", Cell::Judged { runs: 12 }), ("partition", Cell::NotDrawn)]),
            row(
                "MED-002",
                &[("crash", Cell::NoEffect { drawn: 3 }), ("partition", Cell::Judged { runs: 4 })],
            ),
            row("PRO-001", &[]),
        ];
        insta::assert_snapshot!(fault_table(&rows));
    }
}
