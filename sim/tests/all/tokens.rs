//! Tokens run out when clocks move on: more of them the further they move, none when they do not.

use std::collections::BTreeMap;

use fusion_history::event::{Body, Call, Outcome as Came};
use fusion_history::{Event, EventId, Ruling};
use fusion_sim::engines::fabric::Options;
use fusion_sim::outcome::{Outcome, judged};
use fusion_sim::plan::Mode;

use crate::{root, stories};

/// The scenario, its clocks moved on by so much instead.
fn moved_on_by(us: i64) -> Outcome {
    let text = std::fs::read_to_string(root().join("scenarios/security/tokens-run-out.toml")).unwrap();
    let (written, wanted) = ("us = 7200000000", format!("us = {us}"));
    assert!(text.contains(written));
    let scenario = stories::scenario("moved-on", &text.replace(written, &wanted));
    let outcome = judged(&stories::plan(&scenario, 1, Mode::Story), &Options::default());
    assert_eq!(outcome.ruling, Ruling::Holds, "{}", outcome.explain());
    outcome
}

/// How many tokens were got again while people acted: of the own cluster, and of others.
fn got_again(outcome: &Outcome) -> (usize, usize) {
    let events = outcome.history.events();
    let acting = events.iter().take_while(|event| !matches!(event.body, Body::Phase { phase: HEAL }));
    let mut had: BTreeMap<(&str, bool, String), u64> = BTreeMap::new();
    for event in acting {
        if let Some((is_own, cluster)) = asked_for(event) {
            *had.entry((&event.host, is_own, cluster)).or_default() += 1;
        }
    }
    let again = |own: bool| {
        let of = had.iter().filter(|((_, is_own, _), _)| *is_own == own);
        of.map(|(_, times)| *times as usize - 1).sum()
    };
    (again(true), again(false))
}

const HEAL: fusion_history::event::Phase = fusion_history::event::Phase::Heal;

/// The cluster that a token was asked for, and whether by logging in.
fn asked_for(event: &Event) -> Option<(bool, String)> {
    match &event.body {
        Body::Invoke { call: Call::LogIn { cluster }, .. } => Some((true, cluster.to_string())),
        Body::Invoke { call: Call::Exchange { cluster }, .. } => Some((false, cluster.to_string())),
        _ => None,
    }
}

/// Whether everything that was to be said was accepted.
fn all_was_said(outcome: &Outcome) -> bool {
    let events = outcome.history.events();
    let posts: Vec<EventId> = events
        .iter()
        .filter(|event| matches!(&event.body, Body::Invoke { call: Call::Post { .. }, .. }))
        .map(|event| event.id)
        .collect();
    let accepted = |post: &EventId| {
        events.iter().any(|event| {
            event.cause == Some(*post) && matches!(&event.body, Body::Return { outcome: Came::Done { .. } })
        })
    };
    posts.len() == 5 && posts.iter().all(accepted)
}

#[test]
fn the_further_clocks_move_on_the_more_tokens_are_got_again_and_everybody_goes_on() {
    const MINUTE_US: i64 = 60_000_000;
    let [not_at_all, half_an_hour, two_hours] = [0, 30 * MINUTE_US, 120 * MINUTE_US].map(moved_on_by);
    assert_eq!(got_again(&not_at_all), (0, 0));
    let (own, others) = got_again(&half_an_hour);
    assert!(own == 0 && others > 0, "those for others' clusters are good for ten minutes");
    let (own, others) = got_again(&two_hours);
    assert!(own > 0 && others > 0, "those for the own cluster are good for an hour");
    let effective = |outcome: &Outcome| outcome.faults["jump"].effective;
    assert_eq!([&not_at_all, &half_an_hour, &two_hours].map(effective), [0, 1, 1]);
    for outcome in [not_at_all, half_an_hour, two_hours] {
        assert!(all_was_said(&outcome), "{}", outcome.explain());
    }
}
