//! Bugs are found when they show, are not found when they do not, and a system that is violated anyway
//! proves nothing about a bug.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::IntoResponse as _;
use fusion_deployment::{Hooks, Role};
use fusion_runtime::Host;
use fusion_sim::detect::{Arena, Budget, Finding, Hunt};
use fusion_sim::engines::fabric::Options;
use fusion_sim::outcome::judged;
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::plant::Plant;
use fusion_sim::scenario::Scenario;

use crate::stories::{self, CHAT, ONLY_LATENCY};

/// A cluster answers that it has taken an index row, and throws it away.
static FORGETS_INDEX: Plant = Plant {
    name: "forgets-index",
    requirement: "RDV-001",
    wrong: "rows that another cluster pushes are acknowledged and thrown away",
    held_out: false,
    hooks: forgets_index,
};

/// Nothing serves at all.
static SERVES_NOTHING: Plant = Plant {
    name: "serves-nothing",
    requirement: "RDV-001",
    wrong: "-",
    held_out: true,
    hooks: serves_nothing,
};

/// Not a bug.
static HARMLESS: Plant =
    Plant { name: "harmless", requirement: "MED-001", wrong: "-", held_out: false, hooks: Hooks::default };

fn chat() -> Scenario {
    stories::scenario("chat", &[CHAT, ONLY_LATENCY].concat())
}

fn answering(what: fn(&Request) -> Option<StatusCode>) -> Hooks {
    let wrap = move |_: &Role, _: &Host, router: Router| {
        router.layer(middleware::from_fn(move |request: Request, next: Next| async move {
            match what(&request) {
                Some(status) => (status, axum::Json(serde_json::json!({"rows": []}))).into_response(),
                None => next.run(request).await,
            }
        }))
    };
    Hooks { wrap_router: Some(Arc::new(wrap)), ..Hooks::default() }
}

fn forgets_index() -> Hooks {
    answering(|request| (request.uri().path() == "/v1/index").then_some(StatusCode::OK))
}

fn serves_nothing() -> Hooks {
    answering(|_| Some(StatusCode::SERVICE_UNAVAILABLE))
}

fn hunted(bugs: &[&'static Plant], seeds: u64, system: fn() -> Hooks) -> Vec<Finding> {
    let scenario = chat();
    let arena = Arena {
        engine: "fabric",
        refusal: &|_| None,
        judged: &|plan, hooks| {
            let hooks = if plan.planted.is_none() { system() } else { hooks.clone() };
            judged(plan, &Options { hooks, ..Options::default() })
        },
    };
    let budget = Budget { seeds, within: Duration::from_secs(600) };
    let stop = AtomicBool::new(false);
    Hunt::prepare(vec![scenario], arena, budget, 2, &stop, &|| {}).all(bugs, 2, &stop, &|_| {})
}

#[test]
fn a_bug_is_found_by_a_judge_and_what_is_no_bug_uses_up_its_budget() {
    let findings = hunted(&[&FORGETS_INDEX, &HARMLESS], 3, Hooks::default);
    let [found, harmless] = findings.as_slice() else { panic!("{findings:?}") };
    let sighting = found.sighting.as_ref().unwrap();
    assert_eq!((found.bug.name, found.seeds, found.discarded), ("forgets-index", 1, 0), "{sighting:?}");
    assert_eq!((sighting.scenario.as_str(), sighting.mode), ("chat", Mode::Story));
    assert!(sighting.fingerprint.starts_with(&sighting.judge), "{sighting:?}");
    assert_eq!(sighting.reproduce, "cargo xtask sim run chat --seed 0 --plant forgets-index");
    assert_eq!((harmless.sighting.as_ref(), harmless.seeds, harmless.stopped), (None, 3, false));
}

#[test]
fn a_run_that_only_the_bug_keeps_from_being_played_is_found_by_the_play() {
    let findings = hunted(&[&SERVES_NOTHING], 2, Hooks::default);
    let sighting = findings[0].sighting.as_ref().unwrap();
    assert_eq!((sighting.judge.as_str(), sighting.own), ("play", false));
    assert!(sighting.fingerprint.contains("setting up"), "{sighting:?}");
}

#[test]
fn a_violation_that_is_there_without_the_bug_does_not_count() {
    let findings = hunted(&[&FORGETS_INDEX], 2, forgets_index);
    assert_eq!((findings[0].sighting.as_ref(), findings[0].seeds), (None, 2));
    assert!(findings[0].discarded > 0, "{findings:?}");
}

#[test]
fn what_does_not_hold_tells_what_had_not_come_to_rest() {
    let scenario = chat();
    let plan = Plan::new(&scenario, &[], 1, Mode::Story);
    let deaf = || {
        answering(|request| (request.uri().path() == "/v1/index").then_some(StatusCode::SERVICE_UNAVAILABLE))
    };
    let options = Options { hooks: deaf(), ..Options::default() };
    let told = judged(&plan, &options).explain();
    let (_, rest) = told.split_once("what had not come to rest at the end:\n").unwrap();
    assert!(rest.contains("the outbox of a still holds for bob@globex.example: index "), "{told}");
    assert!(judged(&plan, &Options::default()).explain().is_empty(), "what holds has nothing to explain");
}

#[test]
fn a_hunt_that_is_stopped_keeps_what_was_found() {
    let scenario = chat();
    let stop = AtomicBool::new(false);
    let planted =
        |plan: &Plan, hooks: &Hooks| judged(plan, &Options { hooks: hooks.clone(), ..Options::default() });
    let arena = Arena { engine: "fabric", refusal: &|_| None, judged: &planted };
    let budget = Budget { seeds: 50, within: Duration::from_secs(600) };
    let hunt = Hunt::prepare(vec![scenario], arena, budget, 1, &stop, &|| {});
    let found = hunt.all(&[&FORGETS_INDEX, &HARMLESS], 1, &stop, &|_| {
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(found.len(), 1, "the second was not begun");
    assert!(found[0].sighting.is_some() && !found[0].stopped);
}
