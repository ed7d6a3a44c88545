//! A planted bug is found by a swarm, kept as a bundle, and made small.

use std::sync::atomic::AtomicBool;

use fusion_mutants::MUTANTS;
use fusion_sim::bundle::{self, Bundle};
use fusion_sim::engines::fabric::{Options, hosts};
use fusion_sim::library::Library;
use fusion_sim::outcome::{Outcome, judged};
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::shrink::{ShrinkError, Size, fingerprints, shrink};

/// What the loser of a race held is acknowledged by the winner and thrown away.
const PLANTED: &str = "losers-messages-dropped";
const LOST: &str = "convergence/CNV-004/lost";

fn planted() -> Options {
    let mutant = MUTANTS.iter().find(|mutant| mutant.name == PLANTED).unwrap();
    Options { hooks: (mutant.hooks)(), wire: false }
}

/// The first plan with at least ten faults on which the bug is seen.
fn found(options: &Options) -> Plan {
    let scenario = Library::nearest().unwrap().find("race-under-partition").unwrap();
    let hosts = hosts(&scenario.topology).unwrap();
    let plans = (1..200).map(|seed| Plan::new(&scenario, &hosts, seed, Mode::Swarm));
    let mut runs = plans.filter(|plan| plan.faults.len() >= 10).map(|plan| (judged(&plan, options), plan));
    runs.find(|(outcome, _)| fingerprints(outcome).contains(&LOST.to_owned())).unwrap().1
}

#[test]
fn a_swarm_of_faults_shrinks_to_the_race_that_needs_none_of_them() {
    let options = planted();
    let plan = found(&options);
    let shrunk = shrink(&plan, LOST, 200, &options, &AtomicBool::new(false), &|_, _| {}).unwrap();
    assert!(!shrunk.cut_short && shrunk.replays <= 203, "{} replays", shrunk.replays);
    assert!(shrunk.after.faults <= 1 && shrunk.after.operations <= 5, "{}", shrunk.after);
    assert_eq!(shrunk.before, Size::of(&plan));
    assert!(fingerprints(&shrunk.outcome).contains(&LOST.to_owned()));
}

/// A run in which nothing is wrong.
fn sound() -> Outcome {
    let scenario = Library::nearest().unwrap().find("alice-chats-bob").unwrap();
    let plan = Plan::new(&scenario, &hosts(&scenario.topology).unwrap(), 1, Mode::Story);
    judged(&plan, &Options::default())
}

#[test]
fn what_a_plan_does_not_show_is_not_shrunk() {
    let never = AtomicBool::new(false);
    let refused = shrink(&sound().plan, LOST, 10, &Options::default(), &never, &|_, _| {}).unwrap_err();
    assert!(matches!(refused, ShrinkError::NotShown { .. }), "{refused}");
}

#[test]
fn a_bundle_is_read_as_it_was_written_and_plays_the_same_again() {
    let (outcome, folder) = (sound(), tempfile::tempdir().unwrap());
    let written = bundle::write(&outcome, folder.path(), "").unwrap();
    let read = Bundle::read(&written).unwrap();
    assert_eq!(read.about.other_build(), None);
    assert_eq!(read.history.hash(), outcome.hash);
    assert_eq!(judged(&read.plan, &Options::default()).hash, outcome.hash);
}

#[test]
fn a_corrupt_bundle_is_answered_with_file_and_offset() {
    let folder = tempfile::tempdir().unwrap();
    let written = bundle::write(&sound(), folder.path(), "").unwrap();
    let path = written.join("plan.json");
    let mut plan = std::fs::read_to_string(&path).unwrap();
    let colon = plan.find(':').unwrap();
    plan.replace_range(colon..=colon, "\u{7f}");
    std::fs::write(&path, plan).unwrap();
    let mistake = format!("{:#}", Bundle::read(&written).unwrap_err());
    assert!(mistake.contains("plan.json, line ") && mistake.contains("(offset "), "{mistake}");
}
