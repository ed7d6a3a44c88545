//! Goal: what a simulated world does is a path of the model, and what no machine can do is refused where it
//! stands. Method: histories of the simulator's own race, from many seeds, whole and spoiled.

use std::path::Path;

use fusion_history::{Body, Event, History};
use fusion_model::path::{Projection, Refused, project};
use fusion_sim::determinism;
use fusion_sim::library::Library;
use fusion_sim::plan::Mode;

pub(crate) fn history(scenario: &str, seed: u64, mode: Mode) -> History {
    let library = Library::at(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios")));
    determinism::play(&library.find(scenario).unwrap(), seed, mode, None).unwrap()
}

fn only_pair(events: &[Event]) -> Projection {
    let mut pairs = project(events).unwrap();
    assert_eq!(pairs.len(), 1, "the scenario has one pair");
    pairs.remove(0).unwrap()
}

/// The places of what is projected.
pub(crate) fn states(events: &[Event]) -> Vec<usize> {
    let is_state = |event: &Event| match &event.body {
        Body::State { concept, detail, .. } => {
            concept == "slot" || concept == "conversation" && detail["pairKey"].is_string()
        }
        _ => false,
    };
    (0..events.len()).filter(|place| is_state(&events[*place])).collect()
}

fn refused(events: &[Event]) -> Refused {
    *only_pair(events).follow().unwrap_err()
}

#[test]
fn what_the_simulator_does_is_a_path_of_the_model() {
    let (mut raced, mut calm) = (0, 0);
    let seeds = (1..=8).map(|seed| (seed, Mode::Swarm)).chain((1..=4).map(|seed| (seed, Mode::Story)));
    for (seed, mode) in seeds {
        let history = history("one-to-one-race", seed, mode);
        let projection = only_pair(history.events());
        assert!(projection.observed.len() >= 3, "two slots and a conversation at least");
        let path = projection.follow();
        let path = path.unwrap_or_else(|refused| panic!("seed {seed}, {mode:?}: {refused}"));
        let observed = path.steps.iter().filter(|(_, at)| at.is_some()).count();
        assert!(observed > 0 && observed <= projection.observed.len());
        let lost = projection.observed.iter().flat_map(|one| &one.states);
        match lost.map(ToString::to_string).any(|state| state.contains("SUPERSEDED")) {
            true => raced += 1,
            false => calm += 1,
        }
    }
    assert!(raced > 0, "no seed has raced, {calm} have not");
}

#[test]
fn a_history_whose_events_are_exchanged_is_refused_at_the_first_of_them() {
    let mut events = history("one-to-one-race", 1, Mode::Story).events().to_vec();
    let places = states(&events);
    let (first, last) = (places[0], places[places.len() - 1]);
    let (one, other) = (events[first].body.clone(), events[last].body.clone());
    (events[first].body, events[last].body) = (other, one);
    let refused = refused(&events);
    assert_eq!(refused.at, events[first].id);
    assert_eq!(refused.followed, 0);
    assert!(!refused.possible.is_empty(), "it says what could have been");
}

#[test]
fn a_state_that_cannot_follow_is_refused_where_it_stands() {
    let mut events = history("one-to-one-race", 2, Mode::Story).events().to_vec();
    let bound = states(&events).into_iter().rev().find(|place| {
        matches!(&events[*place].body, Body::State { concept, state, .. } if concept == "slot" && state == "BOUND")
    });
    let place = bound.unwrap();
    let Body::State { state, .. } = &mut events[place].body else { unreachable!("it was one") };
    "UNBOUND".clone_into(state);
    let refused = refused(&events);
    assert_eq!(refused.at_us, events[place].at_us);
    assert!(refused.observed.iter().any(|state| state.contains("UNBOUND")), "{refused}");
}

#[test]
fn a_history_with_a_step_left_out_is_refused() {
    let history = history("one-to-one-race", 1, Mode::Story);
    let places = states(history.events());
    // The first commit makes a slot and a conversation.
    let at_us = history.events()[places[0]].at_us;
    let made = |event: &Event| {
        event.at_us == at_us && matches!(&event.body, Body::State { concept, .. } if concept == "slot")
    };
    let events: Vec<_> = history.events().iter().filter(|event| !made(event)).cloned().collect();
    assert_eq!(refused(&events).followed, 0);
}

#[test]
fn a_pair_that_is_none_of_the_model_is_told() {
    assert!(project(&[]).unwrap_err().to_string().contains("no beginning"));
}
