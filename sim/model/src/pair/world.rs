//! The world of the race: what is durable where, what is under way, and how each step changes it. Every
//! decision is a machine's.

use std::collections::BTreeSet;

use fusion_machines::pair::{
    Callee, Contender, Hold, Life, LifeEffect, LifeEvent, LifeRefusal, Rule, Slot, SlotDecision, SlotEvent,
    decide,
};
use fusion_protocol::Url;
use fusion_protocol::conversation::RULE;

use super::{Answer, Bug, Message, Network, Pair, Step};
use crate::cast::{Person, Site};

/// More rounds than any world needs to come to rest.
const ROUNDS_MAX: usize = 12;

/// Everything in the race.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Which of the model's pairs it is.
    pub(super) pair: usize,
    /// Where each person is served.
    pub(super) served: [Site; 2],
    /// Each person's slot, durable where they are served.
    pub(crate) slots: [Option<Slot>; 2],
    /// The pair's conversation in each cluster, durable.
    pub(crate) objects: Vec<Option<Object>>,
    /// Messages under way. Equal ones count once: a message that arrives may stay.
    pub(super) under_way: BTreeSet<Message>,
    /// How many activities of each person were accepted.
    pub(super) accepted: [usize; 2],
    /// Where each person has ever been told that the conversation is, a bit for each cluster.
    pub(super) learnt: [u8; 2],
    /// Which conversations have ever been bound, a bit for each cluster.
    pub(super) bound: u8,
    /// Something that a machine refused, though it must never come to that.
    pub(super) alarm: Option<&'static str>,
}

/// A conversation of the pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Object {
    pub(super) creator: Person,
    pub(crate) life: Life,
    /// Whose activity, and which of theirs.
    pub(super) log: Vec<(Person, usize)>,
    /// In the outbox: the claim.
    pub(super) claiming: bool,
    /// In the outbox: the creator, who is served elsewhere, is to see the winner.
    settling: bool,
}

impl World {
    pub(super) fn new(pair: usize, sites: usize) -> Self {
        Self {
            pair,
            served: [0, 1],
            slots: [None, None],
            objects: vec![None; sites],
            under_way: BTreeSet::new(),
            accepted: [0, 0],
            learnt: [0, 0],
            bound: 0,
            alarm: None,
        }
    }

    fn object(&mut self, site: Site) -> &mut Object {
        self.objects[site].as_mut().expect("messages are about conversations that exist")
    }

    fn life(&self, site: Site) -> Option<&Life> {
        self.objects[site].as_ref().map(|object| &object.life)
    }
}

impl Pair {
    pub(super) fn take(&self, world: &mut World, step: Step) {
        match step {
            Step::Create(person) => self.create(world, person),
            Step::Post(person, site) => self.post(world, person, site),
            Step::Send(message) => drop(world.under_way.insert(message)),
            Step::Arrive(message) => {
                world.under_way.remove(&message);
                self.arrive(world, message);
            }
            Step::Double(message) => self.arrive(world, message),
            Step::Lose(message) => drop(world.under_way.remove(&message)),
            Step::Crash(site) => self.crash(world, site),
            Step::Move(person, site) => world.served[person] = site,
        }
        if self.network == Network::Keeps {
            world.under_way.extend(self.due(world));
        }
        for (site, object) in world.objects.iter().enumerate() {
            let bound = object.as_ref().is_some_and(|object| object.life == Life::Bound);
            world.bound |= u8::from(bound) << site;
        }
        for person in [0, 1] {
            let looked_up = self.looked_up(world, person);
            world.learnt[person] |= looked_up.map_or(0, |site| 1 << site);
        }
    }

    /// What the outboxes hold: each is sent until it is answered.
    pub(super) fn due(&self, world: &World) -> Vec<Message> {
        let mut due = Vec::new();
        for (home, object) in world.objects.iter().enumerate() {
            let Some(object) = object else { continue };
            if object.claiming && object.life.winner().is_none() {
                let callee = 1 - object.creator;
                // Where the other is, and where they were: whoever resolved them may know the old place.
                let places = BTreeSet::from([callee, world.served[callee]]);
                due.extend(places.into_iter().map(|at| Message::Claim { home, at }));
            }
            if let Life::Sealing { winner } = &object.life {
                let (to, all) = (self.site(&winner.home), object.log.len());
                let page = |until| Message::Import { loser: home, to, until, complete: until == all };
                due.extend((all > 1).then(|| page(1)));
                due.push(page(all));
            }
            if object.settling {
                due.push(Message::Settle { loser: home, at: world.served[object.creator] });
            }
        }
        due
    }

    /// Where somebody can post, at whatever place they know.
    pub(super) fn places_to_post(&self, world: &World, person: Person) -> impl Iterator<Item = Site> {
        let more = world.accepted[person] < self.posts_max;
        let known = (0..self.sites.len()).filter(move |site| more && world.learnt[person] & (1 << site) != 0);
        known.filter(|asked| !matches!(world.life(self.follow(world, *asked)), Some(Life::Sealing { .. })))
    }

    pub(super) fn points_to_the_bound(&self, world: &World) -> bool {
        let all = (0..self.sites.len()).filter_map(|site| world.life(site));
        let mut over = all.filter_map(|life| match life {
            Life::Superseded { winner } => Some(winner),
            Life::Provisional | Life::Bound | Life::Sealing { .. } => None,
        });
        over.all(|winner| world.life(self.site(&winner.home)) == Some(&Life::Bound))
    }

    pub(super) fn reads_what_was_written(&self, world: &World) -> bool {
        [0, 1].into_iter().all(|person| {
            let Some(asked) = self.looked_up(world, person) else { return world.accepted[person] == 0 };
            let read = world.objects[self.follow(world, asked)].as_ref();
            read.is_some_and(|object| object.has_all_of(person, world.accepted[person]))
        })
    }

    /// Nobody has anything to send. What is kept by the network may come at any time, and changes nothing.
    pub(super) fn is_at_rest(&self, world: &World) -> bool {
        (self.network == Network::Keeps || world.under_way.is_empty()) && self.due(world).is_empty()
    }

    /// CNV-004.
    pub(super) fn is_settled(&self, world: &World) -> bool {
        let homes = (0..self.sites.len()).filter(|site| world.life(*site).is_some());
        let (bound, others): (Vec<_>, Vec<_>) =
            homes.partition(|site| world.life(*site) == Some(&Life::Bound));
        let [home] = bound[..] else { return world.slots == [None, None] };
        let over = others.iter().all(|site| matches!(world.life(*site), Some(Life::Superseded { .. })));
        let Some(object) = &world.objects[home] else { return false };
        let place = &self.places[home][object.creator];
        let agree = |slot: &Slot| slot.conversation == *place && slot.merging_from.is_none();
        let slots = world.slots.iter().all(|slot| slot.as_ref().is_some_and(agree));
        over && slots && [0, 1].into_iter().all(|who| object.has_all_of(who, world.accepted[who]))
    }

    /// Whether it all ends once everything under way is lost, and nothing after that: everything is sent and
    /// delivered, round after round.
    pub(super) fn comes_to_rest(&self, world: &World) -> bool {
        let mut world = world.clone();
        for _ in 0..ROUNDS_MAX {
            world.under_way = self.due(&world).into_iter().collect();
            if world.under_way.is_empty() {
                return true;
            }
            while let Some(message) = world.under_way.pop_first() {
                self.arrive(&mut world, message);
            }
        }
        false
    }

    fn create(&self, world: &mut World, person: Person) {
        let (site, other) = (world.served[person], 1 - person);
        let found = world.objects[site].as_ref().map(|object| match object.life.winner() {
            Some(winner) => winner.clone(),
            None => self.places[site][object.creator].clone(),
        });
        let both_here = world.served[other] == site;
        let others = world.slots[other].as_ref().filter(|_| both_here);
        let found = found.or_else(|| others.map(|slot| slot.conversation.clone()));
        world.slots[person] = Some(match found {
            Some(conversation) => Slot::bound(conversation),
            None => self.make(world, person, site, both_here),
        });
    }

    fn make(&self, world: &mut World, creator: Person, site: Site, both_here: bool) -> Slot {
        let life = if both_here { Life::Bound } else { Life::Provisional };
        let made = Object { creator, life, log: Vec::new(), claiming: !both_here, settling: false };
        world.objects[site] = Some(made);
        let place = self.places[site][creator].clone();
        if both_here {
            world.slots[1 - creator] = Some(Slot::bound(place.clone()));
            return Slot::bound(place);
        }
        Slot::own(place)
    }

    fn post(&self, world: &mut World, person: Person, asked: Site) {
        let (site, number) = (self.follow(world, asked), world.accepted[person]);
        world.object(site).log.push((person, number));
        world.accepted[person] += 1;
    }

    /// Where a conversation points: one hop, or where it is.
    fn follow(&self, world: &World, asked: Site) -> Site {
        match world.life(asked) {
            Some(Life::Superseded { winner }) => self.site(&winner.home),
            _ => asked,
        }
    }

    /// What somebody's own cluster says.
    fn looked_up(&self, world: &World, person: Person) -> Option<Site> {
        world.slots[person].as_ref().map(|slot| self.site_of(slot.answer()))
    }

    pub(crate) fn site_of(&self, url: &Url) -> Site {
        let named = |places: &[Contender; 2]| places.iter().any(|place| place.url == *url);
        self.places.iter().position(named).expect("only conversations of the model are named")
    }

    fn arrive(&self, world: &mut World, message: Message) {
        match message {
            Message::Claim { home, at } => self.claimed(world, home, at),
            Message::Answer { home, answer, .. } => self.answered(world, home, answer),
            Message::Import { loser, to, until, complete } => self.import(world, loser, to, until, complete),
            Message::Imported { loser, .. } => self.live(world, loser, LifeEvent::Exported),
            Message::Settle { loser, at } => {
                let creator = world.object(loser).creator;
                if world.served[creator] == at {
                    self.settle(world, loser);
                    world.under_way.insert(Message::Settled { loser, at });
                }
            }
            Message::Settled { loser, .. } => world.object(loser).settling = false,
        }
    }

    fn claimed(&self, world: &mut World, home: Site, at: Site) {
        let creator = world.object(home).creator;
        let (callee, pair) = (1 - creator, self.pairs[world.pair]);
        let here = Callee::Here { pair, rule: Rule::default() };
        let callee_is = if world.served[callee] == at { here } else { Callee::Elsewhere };
        let claimant = self.places[home][creator].clone();
        let claim = SlotEvent::Claim { claimant, pair, rule: RULE.into(), callee: callee_is };
        let answer = match self.decided(world.slots[callee].as_ref(), claim, at) {
            SlotDecision::Granted { slot, outranked } => {
                let winner = slot.conversation.clone();
                world.slots[callee] = Some(slot);
                if outranked.is_some_and(|loser| loser.home == self.sites[at]) {
                    self.live(world, at, LifeEvent::Outranked { winner });
                }
                Answer::Granted
            }
            SlotDecision::Taken { winner } => Answer::Taken(self.site(&winner.home)),
            SlotDecision::WrongCluster => Answer::WrongCluster,
            SlotDecision::IncarnationGone | SlotDecision::RuleMismatch => {
                world.alarm = Some("one pair, one rule, and yet a mismatch");
                return;
            }
        };
        world.under_way.insert(Message::Answer { home, at, answer });
    }

    /// What the cluster `at` decides. One with [`Bug::RankBackwards`] sees the two homes exchanged.
    fn decided(&self, slot: Option<&Slot>, claim: SlotEvent, at: Site) -> SlotDecision {
        let Some(slot) = slot.filter(|_| self.has(Bug::RankBackwards) && at == 1) else {
            return decide(slot, &claim);
        };
        let (mut slot, SlotEvent::Claim { mut claimant, pair, rule, callee }) = (slot.clone(), claim);
        std::mem::swap(&mut slot.conversation.home, &mut claimant.home);
        let right = |contender: Contender| {
            let home = self.sites[self.site_of(&contender.url)].clone();
            Contender { home, ..contender }
        };
        match decide(Some(&slot), &SlotEvent::Claim { claimant, pair, rule, callee }) {
            SlotDecision::Granted { slot, outranked } => SlotDecision::Granted {
                slot: Slot { conversation: right(slot.conversation.clone()), ..slot },
                outranked: outranked.map(right),
            },
            SlotDecision::Taken { winner } => SlotDecision::Taken { winner: right(winner) },
            other => other,
        }
    }

    fn answered(&self, world: &mut World, home: Site, answer: Answer) {
        let event = match answer {
            Answer::WrongCluster => return,
            Answer::Granted => LifeEvent::Granted,
            Answer::Taken(winner) => match &world.objects[winner] {
                Some(object) => LifeEvent::Taken { winner: self.places[winner][object.creator].clone() },
                None => return,
            },
        };
        world.object(home).claiming = false;
        self.live(world, home, event);
    }

    fn import(&self, world: &mut World, loser: Site, winner: Site, until: usize, complete: bool) {
        let page = world.object(loser).log[..until].to_vec();
        self.live(world, winner, LifeEvent::Imported { loser_home: self.sites[loser].clone() });
        let forgets = self.has(Bug::ImportDoubled);
        let known = &mut world.object(winner).log;
        for post in page {
            if forgets || !known.contains(&post) {
                known.push(post);
            }
        }
        if complete {
            world.under_way.insert(Message::Imported { loser, to: winner });
        }
    }

    /// One event in the life of the conversation at `site`, with everything in its transaction.
    fn live(&self, world: &mut World, site: Site, event: LifeEvent) {
        let pair = self.pairs[world.pair];
        let object = world.object(site);
        let creator = object.creator;
        let own = &self.places[site][creator];
        let (life, effects) = match object.life.step(own, &pair, event) {
            Ok(stepped) => stepped,
            Err(refusal) => {
                world.alarm = Some(alarm(refusal));
                return;
            }
        };
        object.life = life;
        let slot_is_here = world.served[creator] == site;
        for effect in effects {
            match effect {
                LifeEffect::BindSlot if slot_is_here => match &mut world.slots[creator] {
                    Some(slot) if slot.conversation == *own => slot.hold = Hold::Bound,
                    _ => world.alarm = Some("a conversation is bound, and its creator's slot is another's"),
                },
                LifeEffect::YieldSlot(slot) if slot_is_here => world.slots[creator] = Some(slot),
                LifeEffect::Settle if slot_is_here => self.settle(world, site),
                LifeEffect::Settle => world.object(site).settling = true,
                LifeEffect::BindSlot | LifeEffect::YieldSlot(_) | LifeEffect::Export => {}
            }
        }
    }

    fn settle(&self, world: &mut World, loser: Site) {
        let object = world.object(loser);
        let (creator, winner) = (object.creator, object.life.winner().cloned());
        let (slot, place) = (&mut world.slots[creator], &self.places[loser][creator]);
        if let (Some(held), Some(winner)) = (&*slot, winner) {
            *slot = Some(held.settled(&place.url, &winner));
        }
    }

    fn crash(&self, world: &mut World, site: Site) {
        if self.network == Network::Loses {
            world.under_way.retain(|message| message.from() != site && message.to() != site);
        }
        if self.has(Bug::ClaimForgotten)
            && let Some(object) = &mut world.objects[site]
        {
            object.claiming = false;
        }
        if self.has(Bug::GrantForgotten) {
            for person in [0, 1].into_iter().filter(|person| world.served[*person] == site) {
                world.slots[person].take_if(|slot| slot.conversation.home != self.sites[site]);
            }
        }
    }
}

impl Object {
    /// Whether the first `count` activities of somebody are here, once each and in order.
    fn has_all_of(&self, person: Person, count: usize) -> bool {
        let theirs = self.log.iter().filter(|(who, _)| *who == person);
        theirs.map(|(_, number)| *number).eq(0..count)
    }
}

fn alarm(refusal: LifeRefusal) -> &'static str {
    match refusal {
        LifeRefusal::Disagreement => "the winner named does not outrank this conversation",
        LifeRefusal::Seated => "a bound conversation is told that it lost",
        LifeRefusal::NotTheWinner => "activities are sent to a conversation that did not win",
        LifeRefusal::NotSealing => "an acknowledgement without an export",
    }
}
