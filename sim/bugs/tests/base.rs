//! What every bug of the base must be: named, of a requirement, held out by rule, and a bug at all.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

use std::collections::{BTreeMap, BTreeSet};

use fusion_bugs::BUGS;
use fusion_conformance::catalogue::catalogue;

#[test]
fn no_two_bugs_have_one_name_and_every_name_is_written_as_on_the_command_line() {
    let names: BTreeSet<&str> = BUGS.iter().map(|bug| bug.name).collect();
    assert_eq!(names.len(), BUGS.len());
    let odd = |name: &&&str| !name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    assert_eq!(names.iter().find(odd), None);
}

#[test]
fn of_all_names_in_order_every_second_is_held_out() {
    let held_out: BTreeMap<&str, bool> = BUGS.iter().map(|bug| (bug.name, bug.held_out)).collect();
    for (at, (name, held_out)) in held_out.iter().enumerate() {
        assert_eq!(*held_out, at % 2 == 1, "{name}, at place {at}");
    }
}

#[test]
fn every_bug_breaks_a_requirement_of_the_catalogue() {
    let known: BTreeSet<&str> =
        catalogue().requirements.iter().map(|requirement| requirement.id.as_str()).collect();
    for bug in BUGS {
        assert!(known.contains(bug.requirement), "{} of {}", bug.requirement, bug.name);
        assert!(bug.wrong.len() > 40 && !bug.wrong.ends_with('.'), "{}: {}", bug.name, bug.wrong);
    }
}
