//! The race for a pair as a whole (CNV-003, CNV-004): two and three clusters whose messages are lost,
//! doubled and reordered, whose senders repeat them after crashes, and whose users move.
//!
//! Only the machines of `pair` decide; this file is the world between them. What a cluster has decided is
//! durable, what is under way may be lost at any time: so a crash is a loss followed by a repetition.

#![expect(clippy::unwrap_used, reason = "what a test sets up is right")]

use std::collections::BTreeSet;

use fusion_machines::pair::{
    Callee, Contender, Hold, Life, LifeEffect, LifeEvent, LifeRefusal, Rule, Slot, SlotDecision, SlotEvent,
    decide, pair_key,
};
use fusion_protocol::conversation::{PairKey, RULE};
use fusion_protocol::{ClusterName, Incarnation, Url, UserRef, Uuid};
use proptest::prelude::*;

/// One of the two people, 0 or 1.
type Person = usize;
/// One of the clusters, by number.
type Site = usize;
/// A post: whose, and which of theirs.
type Post = (Person, u32);

#[derive(Clone, Debug)]
struct Object {
    place: Contender,
    creator: Person,
    life: Life,
    log: Vec<Post>,
    /// Outbox: the claim is sent until answered.
    claiming: bool,
    /// Outbox: the creator's slot, which is elsewhere, is to be settled.
    settling: bool,
}

#[derive(Clone, Debug)]
enum Message {
    Claim { home: Site, at: Site },
    Answer { home: Site, decision: Box<SlotDecision> },
    Import { loser: Site, log: Vec<Post>, complete: bool },
    Imported { loser: Site },
    Settle { loser: Site, at: Site },
    Settled { loser: Site },
}

#[derive(Clone, Debug)]
enum Step {
    Create(Person),
    /// Posts where the own cluster says, or at any place learnt earlier.
    Post(Person, usize),
    /// Repeats whatever the outbox of a cluster holds; the number picks a stale route or part of a log.
    Send(Site, usize),
    Deliver(usize),
    Double(usize),
    Lose(usize),
    Move(Person, Site),
}

struct World {
    pair: PairKey,
    sites: Vec<ClusterName>,
    served: [Site; 2],
    slots: [Option<Slot>; 2],
    objects: Vec<Option<Object>>,
    messages: Vec<Message>,
    accepted: [Vec<u32>; 2],
    learnt: [BTreeSet<Site>; 2],
    bound: BTreeSet<Site>,
    raced: bool,
}

impl World {
    fn new(sites: usize, salt: u128) -> Self {
        let user = |name: &str, number: u128| UserRef {
            user: format!("{name}@x.example").parse().unwrap(),
            incarnation: Incarnation(Uuid::from_u128(number)),
        };
        let people = [user("alice", salt), user("bob", salt + 1)];
        Self {
            pair: pair_key(&people[0], &people[1]),
            sites: (0..sites).map(|site| format!("c{site}").parse().unwrap()).collect(),
            served: [0, 1],
            slots: [None, None],
            objects: vec![None; sites],
            messages: Vec::new(),
            accepted: [Vec::new(), Vec::new()],
            learnt: [BTreeSet::new(), BTreeSet::new()],
            bound: BTreeSet::new(),
            raced: false,
        }
    }

    fn site(&self, name: &ClusterName) -> Site {
        self.sites.iter().position(|site| site == name).unwrap()
    }

    fn site_of(&self, url: &Url) -> Site {
        let objects = self.objects.iter().flatten();
        let place = objects.map(|object| &object.place).find(|place| place.url == *url).unwrap();
        self.site(&place.home)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Create(person) => self.create(person),
            Step::Post(person, pick) => self.post(person, pick),
            Step::Send(site, pick) => self.send(site, pick),
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
            Step::Deliver(_) | Step::Double(_) | Step::Lose(_) => {}
            Step::Move(person, site) => self.served[person] = site,
        }
        self.check();
    }

    fn create(&mut self, person: Person) {
        let (site, other) = (self.served[person], 1 - person);
        if self.slots[person].is_none() {
            let found = self.objects[site].as_ref().map(|object| match object.life.winner() {
                Some(winner) => winner.clone(),
                None => object.place.clone(),
            });
            let others = self.slots[other].as_ref().filter(|_| self.served[other] == site);
            let found = found.or_else(|| others.map(|slot| slot.conversation.clone()));
            self.slots[person] = Some(match found {
                Some(conversation) => Slot::bound(conversation),
                None => self.make(person, site),
            });
        }
        self.look_up(person);
    }

    fn make(&mut self, person: Person, site: Site) -> Slot {
        let url = format!("https://{}-conv.x.example/v1/conversations/{person}", self.sites[site]);
        let place = Contender::new(url.parse().unwrap(), self.sites[site].clone());
        let both_here = self.served[1 - person] == site;
        let life = if both_here { Life::Bound } else { Life::Provisional };
        self.objects[site] = Some(Object {
            place: place.clone(),
            creator: person,
            life,
            log: Vec::new(),
            claiming: !both_here,
            settling: false,
        });
        if both_here {
            self.slots[1 - person] = Some(Slot::bound(place.clone()));
            return Slot::bound(place);
        }
        Slot::own(place)
    }

    fn look_up(&mut self, person: Person) -> Option<Site> {
        let site = self.site_of(self.slots[person].as_ref()?.answer());
        self.learnt[person].insert(site);
        Some(site)
    }

    fn post(&mut self, person: Person, pick: usize) {
        let looked_up = self.look_up(person);
        let learnt: Vec<_> = self.learnt[person].iter().copied().collect();
        let Some(asked) = looked_up.filter(|_| pick == 0).or_else(|| learnt.get(pick % 3).copied()) else {
            return;
        };
        let site = self.follow(asked);
        let object = self.objects[site].as_mut().unwrap();
        if matches!(object.life, Life::Sealing { .. }) {
            return;
        }
        let number = self.accepted[person].len() as u32;
        object.log.push((person, number));
        self.accepted[person].push(number);
    }

    /// A redirect is followed once, and never leads to another one.
    fn follow(&self, asked: Site) -> Site {
        let Life::Superseded { winner } = &self.objects[asked].as_ref().unwrap().life else { return asked };
        let to = self.site(&winner.home);
        let life = &self.objects[to].as_ref().unwrap().life;
        assert!(matches!(life, Life::Bound), "one hop leads to the conversation that is bound");
        to
    }

    fn send(&mut self, home: Site, pick: usize) {
        let Some(object) = &self.objects[home] else { return };
        let mut messages = Vec::new();
        if object.claiming {
            let now = self.served[1 - object.creator];
            let at = if pick % 4 == 3 { pick % self.sites.len() } else { now };
            messages.push(Message::Claim { home, at });
        }
        if matches!(object.life, Life::Sealing { .. }) {
            let end = object.log.len().saturating_sub(pick % 3);
            let complete = end == object.log.len();
            messages.push(Message::Import { loser: home, log: object.log[..end].to_vec(), complete });
        }
        if object.settling {
            messages.push(Message::Settle { loser: home, at: self.served[object.creator] });
        }
        self.messages.extend(messages);
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Claim { home, at } => self.claimed(home, at),
            Message::Answer { home, decision } => self.answered(home, *decision),
            Message::Import { loser, log, complete } => self.import(loser, &log, complete),
            Message::Imported { loser } => self.live(loser, LifeEvent::Exported),
            Message::Settle { loser, at } => {
                let object = self.objects[loser].as_ref().unwrap();
                if self.served[object.creator] == at {
                    self.settle(loser);
                    self.messages.push(Message::Settled { loser });
                }
            }
            Message::Settled { loser } => self.objects[loser].as_mut().unwrap().settling = false,
        }
    }

    fn claimed(&mut self, home: Site, at: Site) {
        let object = self.objects[home].as_ref().unwrap();
        let callee = 1 - object.creator;
        let here = self.served[callee] == at;
        let event = SlotEvent::Claim {
            claimant: object.place.clone(),
            pair: self.pair,
            rule: RULE.into(),
            callee: if here {
                Callee::Here { pair: self.pair, rule: Rule::default() }
            } else {
                Callee::Elsewhere
            },
        };
        let decision = decide(self.slots[callee].as_ref(), &event);
        if let SlotDecision::Granted { slot, outranked } = &decision {
            let winner = slot.conversation.clone();
            self.slots[callee] = Some(slot.clone());
            let lives_here = |loser: &Contender| loser.home == self.sites[at];
            if outranked.as_ref().is_some_and(lives_here) {
                self.live(at, LifeEvent::Outranked { winner });
            }
        }
        self.messages.push(Message::Answer { home, decision: Box::new(decision) });
    }

    fn answered(&mut self, home: Site, decision: SlotDecision) {
        let event = match decision {
            SlotDecision::WrongCluster => return,
            SlotDecision::Granted { .. } => LifeEvent::Granted,
            SlotDecision::Taken { winner } => LifeEvent::Taken { winner },
            SlotDecision::IncarnationGone | SlotDecision::RuleMismatch => unreachable!("one pair, one rule"),
        };
        self.objects[home].as_mut().unwrap().claiming = false;
        self.live(home, event);
    }

    fn import(&mut self, loser: Site, log: &[Post], complete: bool) {
        let winner = self.objects[loser].as_ref().unwrap().life.winner().unwrap().home.clone();
        let (winner, loser_home) = (self.site(&winner), self.sites[loser].clone());
        self.live(winner, LifeEvent::Imported { loser_home });
        let known = &mut self.objects[winner].as_mut().unwrap().log;
        log.iter().for_each(|post| {
            if !known.contains(post) {
                known.push(*post);
            }
        });
        if complete {
            self.messages.push(Message::Imported { loser });
        }
    }

    /// One event in the life of the conversation at `site`, with everything in its transaction.
    fn live(&mut self, site: Site, event: LifeEvent) {
        let object = self.objects[site].as_mut().unwrap();
        let stepped = object.life.step(&object.place, &self.pair, event);
        let (life, effects) = match stepped {
            Ok(stepped) => stepped,
            Err(LifeRefusal::NotSealing) => panic!("an acknowledgement without an export"),
            Err(refusal) => panic!("{refusal}"),
        };
        object.life = life;
        let (creator, url) = (object.creator, object.place.url.clone());
        let slot_is_here = self.served[creator] == site;
        for effect in effects {
            match effect {
                LifeEffect::BindSlot if slot_is_here => {
                    let slot = self.slots[creator].as_mut().unwrap();
                    assert_eq!(slot.conversation.url, url, "whoever is bound holds the own creator's slot");
                    slot.hold = Hold::Bound;
                }
                LifeEffect::YieldSlot(slot) if slot_is_here => self.slots[creator] = Some(slot),
                LifeEffect::Settle if slot_is_here => self.settle(site),
                LifeEffect::Settle => self.objects[site].as_mut().unwrap().settling = true,
                LifeEffect::Export => self.raced = true,
                LifeEffect::BindSlot | LifeEffect::YieldSlot(_) => {}
            }
        }
    }

    fn settle(&mut self, loser: Site) {
        let object = self.objects[loser].as_ref().unwrap();
        let slot = &mut self.slots[object.creator];
        let winner = object.life.winner().expect("only a loser is settled");
        *slot = slot.as_ref().map(|slot| slot.settled(&object.place.url, winner));
    }

    /// What holds at every moment.
    fn check(&mut self) {
        for (site, object) in self.objects.iter().enumerate() {
            let Some(object) = object else { continue };
            let is_bound = object.life == Life::Bound;
            assert!(is_bound || !self.bound.contains(&site), "no bound conversation is unseated");
            if is_bound {
                self.bound.insert(site);
            }
        }
        assert!(self.bound.len() <= 1, "a pair has one bound conversation");
        for person in [0, 1] {
            for asked in &self.learnt[person] {
                self.follow(*asked);
            }
            let Some(asked) = self.look_up(person) else { continue };
            let log = &self.objects[self.follow(asked)].as_ref().unwrap().log;
            let own: Vec<_> = log.iter().filter(|post| post.0 == person).map(|post| post.1).collect();
            assert_eq!(own, self.accepted[person], "whoever wrote something reads it, in order");
        }
    }

    /// Everything is sent until everything is answered.
    fn come_to_rest(&mut self) {
        for _ in 0..20 {
            (0..self.sites.len()).for_each(|site| self.send(site, 0));
            while !self.messages.is_empty() {
                self.step(&Step::Deliver(0));
            }
        }
    }

    /// CNV-004, at quiescence.
    fn check_at_rest(&self) {
        let objects: Vec<_> = self.objects.iter().flatten().collect();
        if objects.is_empty() {
            return;
        }
        let bound: Vec<_> = objects.iter().filter(|object| object.life == Life::Bound).collect();
        assert_eq!(bound.len(), 1, "one live conversation");
        let others = objects.iter().filter(|object| object.life != Life::Bound);
        assert!(others.clone().all(|object| matches!(object.life, Life::Superseded { .. })));
        for slot in &self.slots {
            let slot = slot.as_ref().expect("both slots are set");
            assert_eq!((&slot.conversation, &slot.merging_from), (&bound[0].place, &None));
        }
        for person in [0, 1] {
            let log = bound[0].log.iter().filter(|post| post.0 == person).map(|post| post.1);
            assert_eq!(log.collect::<Vec<_>>(), self.accepted[person], "once each, in the author's order");
        }
    }
}

fn steps(sites: usize, movable: bool) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_usize..2).prop_map(Step::Create),
        4 => (0_usize..2, 0_usize..4).prop_map(|(person, pick)| Step::Post(person, pick)),
        6 => (0..sites, 0_usize..12).prop_map(|(site, pick)| Step::Send(site, pick)),
        8 => (0_usize..20).prop_map(Step::Deliver),
        2 => (0_usize..20).prop_map(Step::Double),
        2 => (0_usize..20).prop_map(Step::Lose),
        u32::from(movable) * 2 => (0_usize..2, 0..sites).prop_map(|(person, site)| Step::Move(person, site)),
    ];
    prop::collection::vec(step, 0..60)
}

fn run(sites: usize, salt: u128, steps: &[Step]) -> World {
    let mut world = World::new(sites, salt);
    steps.iter().for_each(|step| world.step(step));
    world.come_to_rest();
    world.check_at_rest();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn two_clusters_end_with_one_conversation(salt in 0_u128..16, steps in steps(2, false)) {
        run(2, salt, &steps);
    }

    #[test]
    fn three_clusters_end_with_one_conversation_wherever_people_move(
        salt in 0_u128..16, steps in steps(3, true),
    ) {
        run(3, salt, &steps);
    }
}

#[test]
fn creating_at_once_is_a_race_and_both_sides_can_win_it() {
    let both = [
        Step::Create(0),
        Step::Create(1),
        Step::Post(0, 0),
        Step::Post(1, 0),
        Step::Send(0, 0),
        Step::Send(1, 0),
    ];
    let winners: BTreeSet<_> = (0..16)
        .map(|salt| {
            let world = run(2, salt, &both);
            assert!(world.raced, "both had created before either claim arrived");
            world.bound.first().copied()
        })
        .collect();
    assert_eq!(winners, BTreeSet::from([Some(0), Some(1)]));
}
