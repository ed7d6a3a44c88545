//! Micro-benches of what is decided most often: a resolution, the judging of a run.

#![expect(clippy::unwrap_used, reason = "what a bench sets up is right")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fusion_history::judge_all;
use fusion_machines::resolution::{Answer, Next, Resolver};
use fusion_protocol::map::UserRecord;
use fusion_protocol::{ClusterName, Count, Incarnation, UserRef, Uuid};
use fusion_sim::engines::fabric::{Options, hosts, run};
use fusion_sim::library::Library;
use fusion_sim::plan::{Mode, Plan};

fn cluster(name: &str) -> ClusterName {
    name.parse().unwrap()
}

fn person(address: &str, number: u128) -> UserRef {
    UserRef { user: address.parse().unwrap(), incarnation: Incarnation(Uuid::from_u128(number)) }
}

/// Claimed domain, a hint to the next cluster, found there: MAP-001 with one hop.
fn resolution(criterion: &mut Criterion) {
    let bob = person("bob@globex.example", 2);
    let (first, second, consumer) = (cluster("b1"), cluster("b2"), vec![cluster("c")]);
    let record = UserRecord {
        user: bob.user.clone(),
        incarnation: bob.incarnation,
        cluster: second.clone(),
        version: Count(1),
    };
    criterion.bench_function("resolution, four questions", |bencher| {
        bencher.iter(|| {
            let (mut resolver, next) = Resolver::start(black_box(bob.user.clone()), consumer.clone(), false);
            assert!(matches!(next, Next::AskDomain(_)));
            resolver.step(Answer::Claimed(vec![first.clone(), second.clone()]));
            resolver.step(Answer::Elsewhere(vec![second.clone()]));
            let found = resolver.step(Answer::Found(record.clone()));
            assert!(matches!(found, Next::Found(_)));
            found
        });
    });
}

/// Every judge on one run, events a second.
fn judges(criterion: &mut Criterion) {
    let scenario = Library::nearest().unwrap().find("both-call-at-once-fails").unwrap();
    let plan = Plan::new(&scenario, &hosts(&scenario.topology).unwrap(), 1, Mode::Story);
    let history = run(&plan, &Options::default()).history;
    let mut group = criterion.benchmark_group("judges");
    group.throughput(Throughput::Elements(history.len() as u64));
    group.bench_function("one run", |bencher| {
        bencher.iter_batched(|| &history, |history| judge_all(black_box(history)), BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(micro, resolution, judges);
criterion_main!(micro);
