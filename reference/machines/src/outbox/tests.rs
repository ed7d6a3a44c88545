use proptest::prelude::*;

use super::*;

const ROOM: Room = Room { rows_max: 4, octets_max: 1_000 };
const NOW: Duration = Duration::from_secs(1);

fn cluster(number: u8) -> ClusterName {
    format!("c{number}").parse().unwrap()
}

fn user(number: u8) -> Address {
    format!("u{number}@x.example").parse().unwrap()
}

fn lane(stream: &str, to: u8) -> Lane {
    Lane { stream: stream.to_owned(), to: Addressee::User(user(to)) }
}

fn row(id: u128) -> Row<()> {
    Row { id: RowId(id), channel: Channel::Index, octets: 100, what: () }
}

fn ids(taken: &[Taken<()>]) -> Vec<u128> {
    taken.iter().flat_map(|taken| &taken.rows).map(|row| row.id.0).collect()
}

fn take(outbox: &mut Outbox<()>, from: u8, now: Duration) -> Vec<Taken<()>> {
    outbox.take(&cluster(from), Channel::Index, ROOM, now)
}

#[test]
fn the_wait_doubles_up_to_its_limit_and_half_of_it_is_chance() {
    assert_eq!(backoff(0, 0), Duration::from_millis(100));
    assert!(backoff(0, u64::MAX) < Duration::from_millis(200));
    assert_eq!(backoff(3, 0), Duration::from_millis(800));
    assert_eq!(backoff(u32::MAX, 0), Duration::from_secs(15));
}

#[test]
fn a_row_waits_until_its_user_is_resolved() {
    let mut outbox = Outbox::default();
    outbox.add(lane("s", 1), row(1));
    assert!(outbox.ready(NOW).is_empty());
    assert_eq!(outbox.to_resolve(), BTreeSet::from([user(1)]));
    outbox.not_resolved(&user(1), NOW, 0);
    assert!(outbox.to_resolve().is_empty());
    let later = outbox.next_due().unwrap();
    assert!(outbox.ready(later).is_empty());
    assert_eq!(outbox.to_resolve(), BTreeSet::from([user(1)]));
    outbox.resolved(&user(1), cluster(1));
    assert_eq!(outbox.ready(later), [(cluster(1), Channel::Index)]);
}

#[test]
fn a_dead_cluster_delays_nobody_else() {
    let mut outbox = Outbox::default();
    for to in [1, 2] {
        outbox.add(lane("s", to), row(u128::from(to)));
        outbox.resolved(&user(to), cluster(to));
    }
    let taken = take(&mut outbox, 1, NOW);
    outbox.unreachable(&cluster(1), &[taken[0].lane.clone()], NOW, 0);
    assert_eq!(outbox.ready(NOW), [(cluster(2), Channel::Index)]);
    assert!(take(&mut outbox, 1, NOW).is_empty());
    assert_eq!(ids(&take(&mut outbox, 2, NOW)), [2]);
    let due = outbox.next_due().unwrap();
    assert_eq!(ids(&take(&mut outbox, 1, due)), [1]);
}

#[test]
fn a_sign_of_life_makes_everything_due_at_once() {
    let mut outbox = Outbox::default();
    outbox.add(lane("s", 1), row(1));
    outbox.resolved(&user(1), cluster(1));
    let taken = take(&mut outbox, 1, NOW);
    outbox.unreachable(&cluster(1), &[taken[0].lane.clone()], NOW, 0);
    outbox.add(lane("s", 2), row(2));
    outbox.to_resolve();
    outbox.not_resolved(&user(2), NOW, 0);
    assert!(!outbox.is_reachable(&cluster(1)));
    assert!(outbox.contact(&cluster(1)));
    assert!(outbox.is_reachable(&cluster(1)));
    assert_eq!(ids(&take(&mut outbox, 1, NOW)), [1]);
    assert_eq!(outbox.to_resolve(), BTreeSet::from([user(2)]));
    assert_eq!(outbox.next_due(), None);
}

#[test]
fn rows_after_a_claim_wait_for_its_answer_and_can_be_dropped_with_it() {
    let mut outbox = Outbox::default();
    outbox.add(lane("s", 1), Row { channel: Channel::Claims, ..row(1) });
    outbox.add(lane("s", 1), row(2));
    outbox.resolved(&user(1), cluster(1));
    assert_eq!(outbox.ready(NOW), [(cluster(1), Channel::Claims)]);
    let taken = outbox.take(&cluster(1), Channel::Claims, ROOM, NOW);
    assert_eq!(ids(&taken), [1]);
    assert!(outbox.ready(NOW).is_empty());
    outbox.settle(&lane("s", 1), &[Outcome::Done], NOW, 0);
    assert_eq!(outbox.ready(NOW), [(cluster(1), Channel::Index)]);
    assert_eq!(outbox.remove(&lane("s", 1)).len(), 1);
    assert!(outbox.is_empty() && outbox.ready(NOW).is_empty());
}

#[test]
fn whoever_is_not_there_is_resolved_again() {
    let mut outbox = Outbox::default();
    outbox.add(lane("s", 1), row(1));
    outbox.resolved(&user(1), cluster(1));
    let taken = take(&mut outbox, 1, NOW);
    outbox.settle(&taken[0].lane, &[Outcome::Misrouted], NOW, 0);
    let due = outbox.next_due().unwrap();
    assert!(outbox.ready(due).is_empty());
    outbox.to_resolve();
    outbox.resolved(&user(1), cluster(2));
    assert_eq!(ids(&take(&mut outbox, 2, due)), [1]);
}

#[test]
fn a_request_is_bounded_and_a_large_row_still_leaves() {
    let mut outbox = Outbox::default();
    outbox.add(lane("s", 1), Row { octets: 5_000, ..row(1) });
    (2..9).for_each(|id| outbox.add(lane("s", 1), row(id)));
    outbox.resolved(&user(1), cluster(1));
    for expected in [vec![1], vec![2, 3, 4, 5], vec![6, 7, 8]] {
        let taken = take(&mut outbox, 1, NOW);
        assert_eq!(ids(&taken), expected);
        outbox.settle(&taken[0].lane, &vec![Outcome::Done; expected.len()], NOW, 0);
    }
    assert!(outbox.is_empty());
}

/// What can happen to an outbox; numbers pick among what there is.
#[derive(Clone, Debug)]
enum Step {
    Add { stream: u8, to: u8 },
    Resolve { known: bool },
    Take { cluster: u8 },
    Settle { outcomes: Vec<u8> },
    Fail,
    Contact { cluster: u8 },
    Wait,
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..3, 0_u8..4).prop_map(|(stream, to)| Step::Add { stream, to }),
        2 => any::<bool>().prop_map(|known| Step::Resolve { known }),
        4 => (0_u8..2).prop_map(|cluster| Step::Take { cluster }),
        4 => prop::collection::vec(0_u8..5, 4).prop_map(|outcomes| Step::Settle { outcomes }),
        1 => Just(Step::Fail),
        1 => (0_u8..2).prop_map(|cluster| Step::Contact { cluster }),
        2 => Just(Step::Wait),
    ]
}

#[derive(Default)]
struct World {
    outbox: Outbox<()>,
    now: Duration,
    next: u128,
    under_way: Vec<(u8, Vec<Taken<()>>)>,
    waiting: BTreeMap<Lane, Vec<u128>>,
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Add { stream, to } => {
                self.next += 1;
                let lane = lane(&stream.to_string(), to);
                self.waiting.entry(lane.clone()).or_default().push(self.next);
                self.outbox.add(lane, row(self.next));
            }
            Step::Resolve { known } => {
                self.outbox.ready(self.now);
                for user in self.outbox.to_resolve() {
                    let at = cluster(user.local_part().as_bytes()[1] % 2);
                    match known {
                        true => self.outbox.resolved(&user, at),
                        false => self.outbox.not_resolved(&user, self.now, 0),
                    }
                }
            }
            Step::Take { cluster } => {
                let taken = take(&mut self.outbox, cluster, self.now);
                for taken in &taken {
                    let first = &self.waiting[&taken.lane][..taken.rows.len()];
                    assert_eq!(first, ids(std::slice::from_ref(taken)), "rows leave in order");
                    let other = self.under_way.iter().flat_map(|(_, all)| all);
                    assert!(other.clone().all(|other| other.lane != taken.lane), "one at a time");
                }
                self.under_way.push((cluster, taken));
            }
            Step::Settle { outcomes } => {
                let Some((_, all)) = self.under_way.pop() else { return };
                for taken in all {
                    let outcome = |number: &u8| match number {
                        0 => Outcome::Later,
                        1 => Outcome::Misrouted,
                        _ => Outcome::Done,
                    };
                    let outcomes: Vec<_> = outcomes.iter().take(taken.rows.len()).map(outcome).collect();
                    self.outbox.settle(&taken.lane, &outcomes, self.now, 0);
                    let waiting = self.waiting.get_mut(&taken.lane).unwrap();
                    let done = taken.rows.iter().zip(outcomes).filter(|(_, o)| *o == Outcome::Done);
                    let done: BTreeSet<_> = done.map(|(row, _)| row.id.0).collect();
                    waiting.retain(|id| !done.contains(id));
                }
            }
            Step::Fail => {
                let Some((to, all)) = self.under_way.pop() else { return };
                let lanes: Vec<_> = all.into_iter().map(|taken| taken.lane).collect();
                self.outbox.unreachable(&cluster(to), &lanes, self.now, 0);
            }
            Step::Contact { cluster: number } => drop(self.outbox.contact(&cluster(number))),
            Step::Wait => self.now = self.outbox.next_due().unwrap_or(self.now).max(self.now),
        }
    }
}

proptest! {
    /// Whatever happens, rows leave in order, one request a lane at a time, and when everything goes
    /// well again every row leaves, and nothing is left that would wake anybody.
    #[test]
    fn every_row_leaves_in_order(steps in prop::collection::vec(a_step(), 0..80)) {
        let mut world = World::default();
        steps.into_iter().for_each(|step| world.step(step));
        for _ in 0..200 {
            world.step(Step::Wait);
            world.step(Step::Resolve { known: true });
            for cluster in [0, 1] {
                world.step(Step::Take { cluster });
                world.step(Step::Settle { outcomes: vec![2; 4] });
                world.step(Step::Settle { outcomes: vec![2; 4] });
            }
        }
        prop_assert!(world.outbox.is_empty());
        prop_assert!(world.waiting.values().all(Vec::is_empty));
        prop_assert!(world.outbox.routes.is_empty());
        while let Some(due) = world.outbox.next_due() {
            world.outbox.ready(due);
        }
        world.outbox.to_resolve();
        for number in [0, 1] {
            world.outbox.contact(&cluster(number));
        }
        prop_assert!(world.outbox.peers.is_empty(), "nothing is remembered of those who are well");
    }
}
