//! Moves as a whole (MAP-007): three clusters whose messages are lost, doubled and late, one user who is
//! written to all the time, and admins who order moves and call them off.
//!
//! Only the machines of `moving` decide. What a cluster has decided is durable, what is under way may be lost
//! at any time: so a crash is a loss followed by a repetition.

#![expect(clippy::unwrap_used, reason = "what a test sets up is right")]

use fusion_machines::moving::{Asks, Decision, Destination, Origin, OriginEvent, OriginRefusal, Verdict};
use fusion_protocol::{ClusterName, Count};
use proptest::prelude::*;

/// One of the clusters, by number.
type Site = usize;

/// What a cluster holds of the user.
#[derive(Clone, Debug, Default)]
struct Cluster {
    /// Nothing: the user has never been here.
    origin: Option<Origin>,
    destination: Destination,
    /// What was written to the user here, or came with the user.
    content: Vec<u32>,
}

#[derive(Clone, Debug)]
enum Message {
    Commit { from: Site, to: Site, epoch: Count, content: Vec<u32> },
    Withdraw { from: Site, to: Site, epoch: Count },
    Decided { at: Site, epoch: Count, decision: Decision },
}

#[derive(Clone, Debug)]
enum Step {
    Write(Site),
    Order(Site, Site),
    CallOff(Site),
    /// Asks again whatever is not answered.
    Send(Site),
    Deliver(usize),
    Double(usize),
    Lose(usize),
}

struct World {
    sites: Vec<ClusterName>,
    clusters: Vec<Cluster>,
    messages: Vec<Message>,
    /// Every write that was acknowledged.
    written: Vec<u32>,
    /// The highest epoch that has ever been served.
    served: Count,
    moves: usize,
}

impl World {
    fn new() -> Self {
        let mut clusters = vec![Cluster::default(); 3];
        clusters[0].origin = Some(Origin::Active { epoch: Count(1) });
        Self {
            sites: (0..3).map(|site| format!("c{site}").parse().unwrap()).collect(),
            clusters,
            messages: Vec::new(),
            written: Vec::new(),
            served: Count(1),
            moves: 0,
        }
    }

    fn site(&self, name: &ClusterName) -> Site {
        self.sites.iter().position(|site| site == name).unwrap()
    }

    fn serving(&self) -> Vec<Site> {
        (0..3).filter(|site| self.clusters[*site].origin.as_ref().is_some_and(Origin::serves)).collect()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Write(site) => self.write(site),
            Step::Order(site, to) if site != to => {
                let to = self.sites[to].clone();
                self.tell(site, &OriginEvent::Order { to });
            }
            Step::CallOff(site) => self.tell(site, &OriginEvent::CallOff),
            Step::Send(site) => self.send(site),
            Step::Deliver(pick) if !self.messages.is_empty() => {
                let message = self.messages.remove(pick % self.messages.len());
                self.deliver(message);
            }
            Step::Double(pick) if !self.messages.is_empty() => {
                let message = self.messages[pick % self.messages.len()].clone();
                self.deliver(message);
            }
            Step::Lose(pick) if !self.messages.is_empty() => {
                self.messages.remove(pick % self.messages.len());
            }
            Step::Order(..) | Step::Deliver(_) | Step::Double(_) | Step::Lose(_) => {}
        }
        self.check();
    }

    /// Only whoever serves the user takes a write; everybody else refuses, and the writer asks again.
    fn write(&mut self, site: Site) {
        if self.clusters[site].origin.as_ref().is_some_and(Origin::serves) {
            let number = self.written.len() as u32;
            self.clusters[site].content.push(number);
            self.written.push(number);
        }
    }

    fn tell(&mut self, site: Site, event: &OriginEvent) {
        let Some(origin) = &self.clusters[site].origin else { return };
        if let Ok(next) = origin.step(event) {
            self.clusters[site].origin = Some(next);
        }
    }

    fn send(&mut self, from: Site) {
        let asks = self.clusters[from].origin.as_ref().and_then(Origin::asks);
        self.messages.extend(asks.map(|asks| match asks {
            Asks::Commit { to, epoch } => {
                let content = self.clusters[from].content.clone();
                Message::Commit { from, to: self.site(&to), epoch, content }
            }
            Asks::Withdraw { to, epoch } => Message::Withdraw { from, to: self.site(&to), epoch },
        }));
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Commit { from, to, epoch, content } => {
                let cluster = &mut self.clusters[to];
                let decision = match cluster.destination.commit(epoch, true) {
                    Verdict::Decided(decision) => decision,
                    Verdict::Incomplete => unreachable!("everything came at once"),
                    Verdict::Commit(next) => {
                        cluster.destination = next;
                        cluster.origin = Some(Origin::Active { epoch });
                        cluster.content = content;
                        self.moves += 1;
                        Decision::Committed
                    }
                };
                self.messages.push(Message::Decided { at: from, epoch, decision });
            }
            Message::Withdraw { from, to, epoch } => {
                let (next, decision) = self.clusters[to].destination.withdraw(epoch);
                self.clusters[to].destination = next;
                self.messages.push(Message::Decided { at: from, epoch, decision });
            }
            Message::Decided { at, epoch, decision } => {
                self.tell(at, &OriginEvent::Decided { epoch, decision });
            }
        }
    }

    /// What holds at every moment.
    fn check(&mut self) {
        let serving = self.serving();
        assert!(serving.len() <= 1, "one cluster at most serves the user: {serving:?}");
        for site in serving {
            let cluster = &self.clusters[site];
            let Some(Origin::Active { epoch }) = cluster.origin else { unreachable!("it serves") };
            assert!(epoch >= self.served, "no epoch comes back");
            self.served = epoch;
            assert_eq!(cluster.content, self.written, "whoever serves has everything that was written");
        }
    }

    /// Everything is asked until everything is answered.
    fn come_to_rest(&mut self) {
        for _ in 0..8 {
            (0..3).for_each(|site| self.send(site));
            while !self.messages.is_empty() {
                self.step(&Step::Deliver(0));
            }
        }
        assert_eq!(self.serving().len(), 1, "somebody serves the user");
        assert!(self.clusters.iter().all(|cluster| cluster.origin.as_ref().and_then(Origin::asks).is_none()));
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0_usize..3).prop_map(Step::Write),
        3 => (0_usize..3, 0_usize..3).prop_map(|(from, to)| Step::Order(from, to)),
        1 => (0_usize..3).prop_map(Step::CallOff),
        5 => (0_usize..3).prop_map(Step::Send),
        6 => (0_usize..20).prop_map(Step::Deliver),
        2 => (0_usize..20).prop_map(Step::Double),
        2 => (0_usize..20).prop_map(Step::Lose),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn wherever_a_user_is_sent_one_cluster_serves_and_nothing_is_lost(steps in steps()) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        world.come_to_rest();
    }
}

#[test]
fn a_move_that_is_called_off_too_late_is_done() {
    let mut world = World::new();
    let before = [Step::Write(0), Step::Order(0, 1), Step::Send(0), Step::Deliver(0), Step::CallOff(0)];
    before.iter().for_each(|step| world.step(step));
    world.come_to_rest();
    assert_eq!((world.serving(), world.moves), (vec![1], 1));
}

#[test]
fn a_refused_epoch_is_never_taken_and_the_old_cluster_serves_again() {
    let mut world = World::new();
    let steps = [Step::Order(0, 1), Step::Send(0), Step::CallOff(0), Step::Send(0), Step::Deliver(1)];
    steps.iter().for_each(|step| world.step(step));
    assert_eq!(world.messages.len(), 2, "the request to commit is still under way");
    world.come_to_rest();
    assert_eq!((world.serving(), world.moves, world.served), (vec![0], 0, Count(2)));
}

#[test]
fn whoever_never_heard_of_the_commit_hears_it_after_two_more_moves() {
    let mut world = World::new();
    let away = [Step::Order(0, 1), Step::Send(0), Step::Deliver(0), Step::Lose(0)];
    let on = [Step::Order(1, 2), Step::Send(1), Step::Deliver(0), Step::Deliver(0)];
    let back = [Step::Order(2, 1), Step::Send(2), Step::Deliver(0), Step::Deliver(0)];
    away.iter().chain(&on).chain(&back).for_each(|step| world.step(step));
    assert_eq!((world.serving(), world.moves), (vec![1], 3));
    world.come_to_rest();
    assert_eq!(world.serving(), [1]);
    assert!(matches!(world.clusters[0].origin, Some(Origin::Gone { .. })));
}

#[test]
fn orders_that_make_no_sense_are_refused() {
    let (one, two): (ClusterName, ClusterName) = ("c1".parse().unwrap(), "c2".parse().unwrap());
    let active = Origin::Active { epoch: Count(1) };
    let order = |to: &ClusterName| OriginEvent::Order { to: to.clone() };
    let fenced = active.step(&order(&one)).unwrap();
    assert_eq!(active.step(&OriginEvent::CallOff), Err(OriginRefusal::NotMoving));
    assert_eq!(fenced.step(&order(&one)), Ok(fenced.clone()), "the same order again");
    assert_eq!(fenced.step(&order(&two)), Err(OriginRefusal::Busy));
    let committed = OriginEvent::Decided { epoch: Count(2), decision: Decision::Committed };
    let gone = fenced.step(&committed).unwrap();
    assert_eq!(gone.step(&order(&two)), Err(OriginRefusal::Gone));
    assert_eq!(gone.step(&order(&one)), Ok(gone), "it is done");
    assert_eq!(Destination::default().commit(Count(2), false), Verdict::Incomplete);
}
