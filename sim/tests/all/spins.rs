//! A run in which somebody spins is ended soon, and says who does.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fusion_deployment::{Hooks, Role};
use fusion_history::Ruling;
use fusion_runtime::Host;
use fusion_sim::budget::Budget;
use fusion_sim::engines::fabric::Options;
use fusion_sim::outcome::{Outcome, judged};
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::shrink::fingerprints;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::stories::{self, CHAT};

/// Two clusters, and hardly anything to do.
fn quiet(budget: Budget) -> Plan {
    Plan { budget, ..stories::plan(&stories::scenario("quiet", CHAT), 1, Mode::Story) }
}

/// The run of a deployment in which cluster `a` does something besides.
fn with<F>(budget: Budget, besides: impl Fn(Host) -> F + Send + Sync + 'static) -> Outcome
where
    F: Future<Output = ()> + Send + 'static,
{
    let wrap = move |role: &Role, host: &Host, router| {
        if matches!(role, Role::Cluster(name) if name.as_str() == "a") {
            host.tasks.spawn(besides(host.clone()));
        }
        router
    };
    let hooks = Hooks { wrap_router: Some(Arc::new(wrap)), ..Hooks::default() };
    judged(&quiet(budget), &Options { hooks, ..Options::default() })
}

/// Asks the conversations of `cluster` for something; whether it was answered.
async fn asks(host: &Host, cluster: &str, request: &str) -> std::io::Result<()> {
    let name = format!("{cluster}-conv.provider.example");
    let at = host.net.resolve(&name, 443).await?[0];
    let mut stream = host.net.connect(at, &name).await?;
    stream
        .write_all(format!("{request} HTTP/1.1\r\nhost: {name}\r\ncontent-length: 0\r\n\r\n").as_bytes())
        .await?;
    stream.read_exact(&mut [0; 12]).await?;
    Ok(())
}

fn told(outcome: &Outcome) -> &str {
    outcome.failure.as_deref().unwrap_or_default()
}

fn is_spinning(outcome: &Outcome, beginning: &str) {
    assert_eq!(outcome.ruling, Ruling::Violated, "{}", told(outcome));
    assert!(told(outcome).starts_with(beginning), "{}", told(outcome));
    assert!(fingerprints(outcome).contains(&"spins".to_owned()), "{:?}", fingerprints(outcome));
    assert!(outcome.wall < Duration::from_secs(90), "it is ended soon, not after {:?}", outcome.wall);
}

#[test]
fn a_run_within_its_budget_is_the_same_with_a_larger_one() {
    let small = judged(&quiet(Budget::default()), &Options::default());
    let budget = Budget { events: 900_000, packets: 9_000_000, polls: 90_000_000, polls_at_once: 9_000_000 };
    let large = judged(&quiet(budget), &Options::default());
    assert_eq!((small.ruling, &small.hash), (Ruling::Holds, &large.hash), "{}", small.explain());
}

#[test]
fn a_service_that_asks_again_and_again_is_named_with_what_it_asks() {
    let budget = Budget { packets: 20_000, ..Budget::default() };
    let outcome = with(budget, |host| async move {
        // A few at a time: one alone is slowed down by the way there and back.
        let one = || async {
            loop {
                let _ = asks(&host, "b", "POST /v1/conversations/0b7e/activities").await;
            }
        };
        futures_util::future::join_all((0..20).map(|_| one())).await;
    });
    is_spinning(&outcome, "somebody spins: 20001 packets by ");
    let asked = told(&outcome).lines().find(|line| line.starts_with("  a asks b ")).unwrap();
    let words: Vec<&str> = asked.split_whitespace().collect();
    assert_eq!(words[3..5], ["POST", "/v1/conversations/{}/activities"], "{asked}");
    assert!(words[5].parse::<u64>().unwrap() > 100, "{asked}");
    let busiest: Vec<&str> = told(&outcome).lines().skip(1).take(2).collect();
    assert!(busiest.iter().any(|line| line.starts_with("  a: ")), "{}", told(&outcome));
}

#[test]
fn a_service_that_never_lets_time_pass_is_named_though_the_clock_stands_still() {
    let outcome = with(Budget::default(), |host| async move {
        host.clock.sleep(Duration::from_secs(2)).await;
        loop {
            let mut stepped_back = false;
            poll_fn(|context| {
                context.waker().wake_by_ref();
                if std::mem::replace(&mut stepped_back, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    });
    is_spinning(&outcome, "somebody spins: ");
    let mut lines = told(&outcome).lines();
    assert!(
        lines.next().unwrap().contains(" polls of tasks while time stood still by 2.00"),
        "{}",
        told(&outcome)
    );
    let first = lines.next().unwrap();
    assert!(first.starts_with("  a: ") && first.ends_with("while time stood still"), "{first}");
}

#[test]
fn a_client_that_connects_again_at_once_for_ever_is_named() {
    let budget = Budget { packets: 20_000, ..Budget::default() };
    let outcome = with(budget, |host| async move {
        loop {
            // What a mercury client asks when its socket is gone; it is refused, for it shows no token.
            let _ = asks(&host, "a", "GET /v1/mercury/socket").await;
        }
    });
    is_spinning(&outcome, "somebody spins: 20001 packets by ");
    assert!(told(&outcome).contains("\n  a asks a GET /v1/mercury/socket "), "{}", told(&outcome));
}

#[test]
fn more_events_than_the_budget_end_the_run() {
    let plan = quiet(Budget { events: 20, ..Budget::default() });
    let outcome = judged(&plan, &Options::default());
    is_spinning(&outcome, "somebody spins: 20 events by ");
    assert!(outcome.events < quiet_events(), "{} events", outcome.events);
}

fn quiet_events() -> u64 {
    judged(&quiet(Budget::default()), &Options::default()).events
}
