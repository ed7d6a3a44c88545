//! What every bug of the base must be: named, of a requirement, held out by rule, and a bug at all.

use std::collections::BTreeSet;

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
fn who_has_an_odd_number_of_letters_is_held_out_and_that_is_half() {
    for bug in BUGS {
        assert_eq!(bug.held_out, bug.name.len() % 2 == 1, "{}", bug.name);
    }
    let held_out = BUGS.iter().filter(|bug| bug.held_out).count();
    assert!(
        held_out * 20 > BUGS.len() * 9 && held_out * 20 < BUGS.len() * 11,
        "{held_out} of {}",
        BUGS.len()
    );
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
