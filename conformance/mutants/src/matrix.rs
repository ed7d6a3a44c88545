//! The kill matrix: which check failed, or judge saw a violation, on which mutant.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::self_test::Found;

/// One line for each mutant, one column for each check or judge that found any of them out. `#` is the one
/// that had to and did, `!` one that had to and did not, `x` one that did as well.
#[must_use]
pub fn kill_matrix(mutants: &[Found]) -> String {
    let failed = mutants.iter().flat_map(|found| found.also.iter().chain([&found.by]));
    let checks: Vec<&String> = failed.collect::<BTreeSet<_>>().into_iter().collect();
    let width = mutants.iter().map(|found| found.mutant.len()).max().unwrap_or(0);
    let mut matrix = String::new();
    for place in [10, 1] {
        let digits: String = (1..=checks.len()).map(|number| digit(number, place)).collect();
        let _ = writeln!(matrix, "{:width$}  {digits}", "");
    }
    for found in mutants {
        let cells: String = checks.iter().map(|check| cell(found, check)).collect();
        let _ = writeln!(matrix, "{:width$}  {cells}", found.mutant);
    }
    for (number, check) in (1..).zip(&checks) {
        let kills = mutants.iter().filter(|found| cell(found, check) != '.').count();
        let _ = writeln!(matrix, "{number:>2} {check}, on {kills}");
    }
    matrix
}

/// A digit of a column's number; tens only where they change, to be quiet.
fn digit(number: usize, place: usize) -> char {
    let quiet = place == 10 && !number.is_multiple_of(10);
    let digit = char::from_digit((number / place % 10) as u32, 10);
    digit.filter(|_| !quiet).unwrap_or(' ')
}

fn cell(found: &Found, check: &str) -> char {
    match (found.by == check, found.caught) {
        (true, true) => '#',
        (true, false) => '!',
        (false, _) if found.also.iter().any(|failed| failed == check) => 'x',
        (false, _) => '.',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mutant: &str, check: &str, caught: bool, also: &[&str]) -> Found {
        Found {
            mutant: mutant.to_owned(),
            requirement: String::new(),
            by: check.to_owned(),
            with: String::new(),
            caught,
            instead: None,
            also: also.iter().map(|&check| check.to_owned()).collect(),
            wall_s: 0.0,
        }
    }

    #[test]
    fn the_matrix_shows_who_was_caught_by_what() {
        let mutants = [found("one", "A", true, &["B"]), found("other", "B", false, &[])];
        insta::assert_snapshot!(kill_matrix(&mutants));
    }
}
