//! The check of determinism finds what it must find, and finds nothing where nothing is.
//!
//! Each test starts the program itself, so that the second process is a real one.

use crate::{Said, program_with_scenarios};

fn check(arguments: &[&str]) -> (i32, String) {
    let mut command = program_with_scenarios();
    let said = Said::by(command.args(["check-determinism", "one-to-one-race"]).args(arguments));
    (said.code, said.out)
}

#[test]
fn the_same_plan_gives_the_same_history_in_two_processes() {
    let (code, said) = check(&["--seeds", "2"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("same")).count(), 2, "{said}");
}

#[test]
fn a_hash_map_order_is_found_by_the_other_process_and_shown_with_both_sides() {
    let (code, said) = check(&["--seeds", "1", "--plant", "hash-order"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("differs") && said.contains("in two processes"), "{said}");
    assert!(said.contains("left") && said.contains("right"), "{said}");
}

#[test]
fn a_read_of_the_wall_clock_is_found() {
    let (code, said) = check(&["--seeds", "1", "--plant", "wall-clock"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("differs"), "{said}");
}

#[test]
fn many_seeds_are_compared_with_one_other_process() {
    let (code, said) = check(&["--seeds", "3", "--batch"]);
    assert!(
        code == 0 && said.starts_with("same") && said.contains("3 seeds in two processes, 0 differ"),
        "{said}"
    );
    let (code, said) = check(&["--seeds", "2", "--batch", "--plant", "hash-order"]);
    assert!(code == 0 && said.starts_with("differs") && said.contains("2 differ"), "{said}");
    assert!(said.contains("left") && said.contains("right"), "{said}");
}

#[test]
fn a_check_of_no_seed_is_refused() {
    let (code, said) = check(&["--seeds", "0"]);
    assert_eq!((code, said.as_str()), (2, ""));
}
