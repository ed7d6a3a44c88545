//! The world of an index: what is durable at the home and at the index, what the home has in memory, what is
//! under way. What leaves when is the outbox's decision, what an entry becomes is the merge's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fusion_machines::conversation::taken_back;
use fusion_machines::index::{Entry, merge, needs_preview};
use fusion_machines::outbox::{Addressee, Channel, Lane, Outbox, Outcome, Room, Row, RowId};
use fusion_protocol::conversation::{Act, Activity, ActivityId, Kind};
use fusion_protocol::index::{IndexWrite, Membership};
use fusion_protocol::limits::PREVIEW_MAX;
use fusion_protocol::{Count, Incarnation, Pii, Uuid};

use super::{Answer, Bug, Index, Rows, SAID_BEFORE, Step, WAITS_MAX};
use crate::cast::{self, Site};

/// Two rows fit into one request.
const ROOM: Room = Room { rows_max: 2, octets_max: 1_000 };
/// No chance in back-offs: how long they are does not matter, only which ends first.
const JITTER: u64 = 0;
/// More rounds than any world needs to come to rest.
const ROUNDS_MAX: usize = 30;

/// Everything about a conversation and a foreign index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The `seq` of the conversation's last activity.
    pub(super) said: u64,
    /// Which activity was taken back, and the `seq` of the activity that did it.
    pub(super) taken_back: Option<(u64, u64)>,
    /// The durable rows of the home's outbox, by the `seq` of what they announce.
    pub(super) rows: BTreeSet<u64>,
    /// In the home's memory: the rows that its outbox knows.
    pub(super) heard: BTreeSet<u64>,
    outbox: Outbox<u64>,
    now: Duration,
    waits: u8,
    /// The request that the home waits for an answer to.
    awaited: Option<Rows>,
    /// The home was told that Bob is not where it thought: what it remembers of him counts no more.
    told_moved: bool,
    /// Requests under way. Equal ones count once.
    pub(super) requests: BTreeSet<Rows>,
    pub(super) answers: BTreeSet<Answer>,
    /// Where Bob is served and his index is.
    pub(super) served: Site,
    entry: Option<Entry>,
    /// The preview's activities, and whether each still has its content.
    pub(super) preview: BTreeMap<u64, bool>,
    /// What a crash would take back, if the index answered before it kept something.
    kept: Option<(Option<Entry>, BTreeMap<u64, bool>)>,
    /// Whether the index has ever said less than before.
    pub(super) went_back: bool,
}

impl World {
    pub(super) fn last_seq(&self) -> u64 {
        self.entry.as_ref().map_or(0, |entry| entry.last_seq.0)
    }

    /// Nothing is to be sent, and nothing is under way.
    pub(super) fn is_at_rest(&self) -> bool {
        self.rows.is_empty() && self.requests.is_empty() && self.answers.is_empty()
    }

    /// Nothing is under way, and nobody waits.
    pub(super) fn is_quiet(&self) -> bool {
        self.requests.is_empty() && self.answers.is_empty() && self.awaited.is_none()
    }

    pub(super) fn previews_without_gap(&self) -> bool {
        let last = self.last_seq();
        let first = (last + 1).saturating_sub(PREVIEW_MAX as u64).max(1);
        self.preview.keys().copied().eq(first..=last)
    }

    pub(super) fn previews_nothing_taken_back(&self) -> bool {
        let Some((target, by)) = self.taken_back else { return true };
        self.last_seq() < by || self.preview.get(&target) != Some(&true)
    }
}

impl Index {
    pub(super) fn start(&self) -> World {
        let mut world = World {
            said: SAID_BEFORE,
            taken_back: None,
            rows: BTreeSet::new(),
            heard: BTreeSet::new(),
            outbox: Outbox::default(),
            now: Duration::ZERO,
            waits: 0,
            awaited: None,
            told_moved: false,
            requests: BTreeSet::new(),
            answers: BTreeSet::new(),
            served: 1,
            entry: None,
            preview: BTreeMap::new(),
            kept: None,
            went_back: false,
        };
        (1..=SAID_BEFORE).for_each(|seq| self.write(&mut world, seq));
        world.kept = None;
        world
    }

    /// What the home can do next.
    pub(super) fn steps_of_the_home(&self, world: &World, steps: &mut Vec<Step>) {
        steps.extend((world.heard != world.rows).then_some(Step::Wake));
        let mut outbox = world.outbox.clone();
        if !outbox.to_resolve().is_empty() {
            // Until it is told otherwise, the home may remember where Bob was.
            let remembered = if world.told_moved { world.served } else { 1 };
            steps.extend(BTreeSet::from([remembered, world.served]).into_iter().map(Step::Resolve));
        }
        let ready = outbox.ready(world.now).into_iter().map(|(to, _)| to);
        let site = |name| self.sites.iter().position(|site| *site == name);
        steps.extend(ready.filter(|_| world.awaited.is_none()).filter_map(site).map(Step::Send));
        steps.extend(world.awaited.as_ref().map(|_| Step::TimeOut));
        let silent = (0..self.sites.len()).filter(|site| !outbox.is_reachable(&self.sites[*site]));
        steps.extend(silent.map(Step::Contact));
        let asleep = outbox.next_due().is_some_and(|due| due > world.now);
        steps.extend((asleep && world.waits < WAITS_MAX).then_some(Step::Wait));
    }

    pub(super) fn take(&self, world: &mut World, step: &Step) {
        match step {
            Step::Say => self.say(world),
            Step::TakeBack => {
                world.taken_back = Some((world.said, world.said + 1));
                self.say(world);
            }
            Step::Move(to) => world.served = *to,
            Step::Wake => self.hear(world),
            Step::Resolve(at) => {
                world.outbox.to_resolve();
                world.outbox.resolved(&cast::address(1), self.sites[*at].clone());
            }
            Step::Send(to) => self.send(world, *to),
            Step::Arrive(rows) => {
                world.requests.remove(rows);
                self.arrive(world, rows);
            }
            Step::Double(rows) => self.arrive(world, rows),
            Step::Lose(rows) => drop(world.requests.remove(rows)),
            Step::Answer(answer) => {
                world.answers.remove(answer);
                self.answered(world, answer);
            }
            Step::LoseAnswer(answer) => drop(world.answers.remove(answer)),
            Step::TimeOut => self.time_out(world),
            Step::Contact(with) => drop(world.outbox.contact(&self.sites[*with])),
            Step::Wait => {
                world.now = world.outbox.next_due().unwrap_or(world.now).max(world.now);
                // Who looks at what is due wakes it.
                world.outbox.ready(world.now);
                world.waits += 1;
            }
            Step::Crash(site) => self.crash(world, *site),
        }
    }

    pub(super) fn previews_what_was_said(&self, world: &World) -> bool {
        let emptied = |seq: u64| world.taken_back.is_some_and(|(target, _)| target == seq);
        world.preview.iter().all(|(seq, has_content)| *has_content || emptied(*seq))
    }

    /// Whether all goes well once nothing is lost any more.
    pub(super) fn comes_to_rest(&self, world: &World) -> bool {
        let mut world = world.clone();
        for _ in 0..ROUNDS_MAX {
            if world.is_at_rest() {
                return world.last_seq() == world.said && !world.went_back;
            }
            self.go_on(&mut world);
        }
        false
    }

    /// One fair thing: whatever can be done, in the order in which it leads on.
    fn go_on(&self, world: &mut World) {
        let answer = world.answers.first().cloned().map(Step::Answer);
        let request = || world.requests.first().cloned().map(Step::Arrive);
        let step = answer.or_else(request).or_else(|| {
            let mut steps = Vec::new();
            world.waits = 0;
            self.steps_of_the_home(world, &mut steps);
            let fair = |step: &Step| match step {
                Step::Resolve(at) => *at == world.served,
                Step::TimeOut | Step::Contact(_) => false,
                _ => true,
            };
            steps.into_iter().find(fair)
        });
        if let Some(step) = step {
            self.take(world, &step);
        }
    }

    fn say(&self, world: &mut World) {
        world.said += 1;
        world.rows.insert(world.said);
    }

    /// The dispatcher takes in what is durable.
    fn hear(&self, world: &mut World) {
        for seq in world.rows.difference(&world.heard).copied().collect::<Vec<_>>() {
            let row = Row { id: RowId(seq.into()), channel: Channel::Index, octets: 100, what: seq };
            world.outbox.add(self.lane(), row);
            world.heard.insert(seq);
        }
    }

    fn send(&self, world: &mut World, to: Site) {
        let taken = world.outbox.take(&self.sites[to], Channel::Index, ROOM, world.now);
        let seqs: Vec<u64> = taken.iter().flat_map(|taken| &taken.rows).map(|row| row.what).collect();
        if seqs.is_empty() {
            return;
        }
        if self.has(Bug::RowRemovedEarly) {
            world.rows.retain(|seq| !seqs.contains(seq));
        }
        let rows = Rows { to, seqs };
        world.awaited = Some(rows.clone());
        world.requests.insert(rows);
    }

    fn arrive(&self, world: &mut World, rows: &Rows) {
        let here = rows.to == world.served;
        if here {
            let before = world.last_seq();
            rows.seqs.iter().for_each(|seq| self.write(world, *seq));
            world.went_back |= world.last_seq() < before;
        }
        world.answers.insert(Answer { to: rows.clone(), here });
    }

    /// An answer belongs to the request that is waited for, as on one connection.
    fn answered(&self, world: &mut World, answer: &Answer) {
        if world.awaited.as_ref() != Some(&answer.to) {
            return;
        }
        world.awaited = None;
        let outcome = if answer.here { Outcome::Done } else { Outcome::Misrouted };
        if answer.here {
            world.rows.retain(|seq| !answer.to.seqs.contains(seq));
            world.heard.retain(|seq| !answer.to.seqs.contains(seq));
        } else {
            world.told_moved = true;
        }
        let outcomes = vec![outcome; answer.to.seqs.len()];
        world.outbox.settle(&self.lane(), &outcomes, world.now, JITTER);
        world.outbox.contact(&self.sites[answer.to.to]);
    }

    fn time_out(&self, world: &mut World) {
        if let Some(rows) = world.awaited.take() {
            world.outbox.unreachable(&self.sites[rows.to], &[self.lane()], world.now, JITTER);
        }
    }

    fn crash(&self, world: &mut World, site: Site) {
        if site == 0 {
            if self.has(Bug::RowForgotten) {
                world.rows = world.heard.clone();
            }
            world.heard.clear();
            world.outbox = Outbox::default();
            (world.now, world.waits, world.awaited, world.told_moved) = (Duration::ZERO, 0, None, false);
            // Whoever starts takes in all that an earlier life left.
            self.hear(world);
            world.requests.clear();
            world.answers.clear();
            return;
        }
        world.requests.retain(|rows| rows.to != site);
        world.answers.retain(|answer| answer.to.to != site);
        if site == world.served
            && let Some((entry, preview)) = world.kept.take()
        {
            (world.entry, world.preview) = (entry, preview);
        }
    }

    /// The row of `seq` is merged into the index.
    fn write(&self, world: &mut World, seq: u64) {
        if self.has(Bug::AnsweredBeforeKept) {
            world.kept = Some((world.entry.clone(), world.preview.clone()));
        }
        let forgets = self.has(Bug::LateOverwrites) && seq < world.last_seq();
        let (write, known) = (self.announcement(world, seq), world.entry.as_ref().filter(|_| !forgets));
        let preview: Vec<Activity> = match needs_preview(known, &write) {
            true => world
                .preview
                .iter()
                .map(|(seq, has_content)| self.previewed(world, *seq, *has_content))
                .collect(),
            false => Vec::new(),
        };
        let Some(merged) = merge(known, &preview, &write, &self.sites[0]) else { return };
        world.entry = Some(merged.entry);
        world.preview.retain(|seq, _| !merged.drop.contains(&Count(*seq)));
        for kept in merged.keep {
            world.preview.insert(kept.seq.0, kept == self.activity(world, kept.seq.0));
        }
    }

    /// A row as it was posted: what was taken back later is still in it.
    fn announcement(&self, world: &World, seq: u64) -> IndexWrite {
        IndexWrite {
            id: Uuid::from_u128(seq.into()),
            user: cast::address(1),
            incarnation: Incarnation(Uuid::from_u128(1)),
            epoch: Count(1),
            url: self.url.clone(),
            locus_url: self.locus_url.clone(),
            kind: Kind::OneToOne,
            title: None,
            membership: Membership::Member,
            membership_seq: Count(1),
            last_seq: Count(seq),
            activities: vec![self.activity(world, seq)],
            superseded_by: None,
            event: None,
        }
    }

    fn activity(&self, world: &World, seq: u64) -> Activity {
        let id = |seq: u64| ActivityId([seq as u8; 32]);
        let target = world.taken_back.filter(|(_, by)| *by == seq).map(|(target, _)| target);
        let act = match target {
            Some(target) => Act::Delete { activity: id(target) },
            None => Act::Message { text: Pii::new(format!("the {seq}th")) },
        };
        Activity {
            id: id(seq),
            seq: Count(seq),
            author: cast::address(0),
            incarnation: Incarnation(Uuid::from_u128(0)),
            published: String::new(),
            act,
            attested_by: None,
        }
    }

    fn previewed(&self, world: &World, seq: u64, has_content: bool) -> Activity {
        let activity = self.activity(world, seq);
        if has_content { activity } else { taken_back(&activity) }
    }

    fn lane(&self) -> Lane {
        Lane { stream: self.url.to_string(), to: Addressee::User(cast::address(1)) }
    }
}
