//! LOC-007: a call that nobody is in any more is over, everywhere.

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::locus::{
    ActiveLocus, LEASE_SECONDS, Locus, LocusParticipant, LocusState, ParticipantState, Reason,
};
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, Count, Url};

use super::locus_of;
use crate::event::{Answer, Body, Call, Event, EventId, Phase};
use crate::facts::{Asked, Back, Facts, Moment, Sight, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::judges::rendezvous::count;
use crate::table::{Set, Table};

const LEASE_US: u64 = LEASE_SECONDS * 1_000_000;
/// What a busy home may take longer to notice that a lease has run out, in microseconds.
const SLACK_US: u64 = 15_000_000;
/// How long the word of a call's end may take to a cluster that can be reached, in microseconds: the
/// longest pause of whoever sends it, twice.
const WORD_US: u64 = 60_000_000;

/// LOC-007: a call is over when the last has left it, and then in nobody's list; a device that is heard of
/// no more leaves by its lease, and one that is heard of does not; an entry of the active list is a
/// register that only goes forward.
///
/// The cases are ended calls that were looked for in a participant's list, and devices whose lease ran out.
pub(crate) struct Ghosts;

#[derive(Default)]
struct Heard<'h> {
    /// Each locus: when it was known that which call was over, rising.
    over: Table<&'h Url, Vec<(u64, EventId, u64)>>,
    /// What each user was told or has seen of each locus: the register's value at least.
    entries: Table<(&'h Address, &'h Url), Vec<(EventId, Known)>>,
    /// When each device of a user last acted in a call, successfully.
    alive: Table<(&'h Address, &'h Url), (u64, EventId)>,
    /// By device: how many of its acts are under way, or were cut off, and when the last other one ended.
    acts: Table<&'h str, (u64, u64)>,
    devices: Table<(&'h Address, &'h Url), BTreeSet<&'h str>>,
    healed_us: Option<u64>,
}

/// The value of the register, and whether it was the end: nothing of that value may be shown again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    at: (u64, u64),
    over: bool,
}

impl Judge for Ghosts {
    fn name(&self) -> &'static str {
        "ghosts"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["LOC-007"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let mut heard = Heard::of(facts);
        let mut run_out: Set<(&Url, u64, &Address)> = Set::default();
        for moment in facts.moments() {
            match moment {
                Moment::Returned(asked, back) => {
                    if asked.verb == Verb::ListLoci
                        && let Some(Answer::Loci { loci }) = asked.answer()
                    {
                        heard.judge_register(facts, asked, back, loci, case);
                    }
                    if let Some(locus) = locus_of(asked) {
                        heard.judge_locus(facts, asked, back, locus, &mut run_out, case);
                    }
                    heard.acted(asked, back);
                }
                Moment::Seen(event) => heard.told(event),
                Moment::Asked(asked) => heard.begins(asked),
            }
        }
        case.reached_many(run_out.len() as u64);
        heard.judge_lists(facts, case);
    }
}

impl<'h> Heard<'h> {
    /// What must be known before the first answer is judged.
    fn of(facts: &Facts<'h>) -> Self {
        let mut heard = Self::default();
        for asked in facts.asked_to(Verb::Join).chain(facts.asked_to(Verb::Renew)) {
            let (Call::Join { locus, device, .. } | Call::Renew { locus, device, .. }) = asked.call else {
                continue;
            };
            heard.devices.entry((asked.actor, locus)).or_default().insert(device);
        }
        let healed = |event: &&Event| matches!(event.body, Body::Phase { phase: Phase::Heal });
        heard.healed_us = facts.seen(Sight::Phase).filter(healed).last().map(|event| event.at_us);
        let known: Table<&str, &Url> =
            facts.loci().map(|(.., locus)| (locus.url.as_str(), &locus.url)).collect();
        for event in facts.seen(Sight::State) {
            let Body::State { concept, subject, state, detail } = &event.body else { continue };
            if concept != "locus" || state != "INACTIVE" {
                continue;
            }
            let instance = detail.get("instance").and_then(count);
            if let Some((url, instance)) = known.get(subject.as_str()).zip(instance) {
                heard.is_over(url, event.at_us, event.id, instance);
            }
        }
        heard
    }

    fn is_over(&mut self, locus: &'h Url, at_us: u64, seen: EventId, instance: u64) {
        let known = self.over.entry(locus).or_default();
        if known.last().is_none_or(|(_, _, last)| *last < instance) {
            known.push((at_us, seen, instance));
        }
    }

    fn begins(&mut self, asked: &Asked<'h>) {
        if let Call::Join { device, .. } | Call::Renew { device, .. } = asked.call {
            self.acts.entry(device).or_default().0 += 1;
        }
    }

    /// A device that acts is alive.
    fn acted(&mut self, asked: &Asked<'h>, back: Back<'h>) {
        let (Call::Join { locus, device, .. } | Call::Renew { locus, device, .. }) = asked.call else {
            return;
        };
        let acts = self.acts.entry(device).or_default();
        *acts = (acts.0.saturating_sub(1), back.at_us);
        if asked.answer().is_some() {
            self.alive.insert((asked.actor, locus), (asked.at_us, back.id));
        }
    }

    /// The end of a call is written into the list with the event that tells of it.
    fn told(&mut self, event: &'h Event) {
        let Body::Deliver { user, event_type: EventType::LocusEnded, resource, data, .. } = &event.body
        else {
            return;
        };
        let number = |name: &str| data.get(name).and_then(count);
        if let (Some(instance), Some(rev)) = (number("instance"), number("rev")) {
            let known = Known { at: (instance, rev), over: true };
            raise(self.entries.entry((user, resource)).or_default(), event.id, known);
        }
    }

    fn judge_register(
        &mut self,
        facts: &Facts<'_>,
        asked: &Asked<'h>,
        back: Back<'h>,
        loci: &'h [ActiveLocus],
        case: &mut Casebook,
    ) {
        // Somebody who has moved, or is another person now, has another list.
        let homes = facts.clusters_of_users();
        let moved = homes.get(asked.actor).is_none_or(|homes| homes.len() != 1);
        if moved || facts.deprovisioned().contains(asked.actor) {
            return;
        }
        for entry in loci {
            let known = self.entries.entry((asked.actor, &entry.locus_url)).or_default();
            let shown = (entry.instance.0, entry.rev.0);
            let before = known.partition_point(|(at, _)| *at < asked.id);
            if let Some((told, known)) = before.checked_sub(1).map(|at| known[at]) {
                let (who, url) = (asked.actor.as_str(), &entry.locus_url);
                if shown < known.at {
                    let statement =
                        format!("{who}'s list had {url} at {:?} and shows it at {shown:?}", known.at);
                    case.violated("list-went-back", statement, asked.events().chain([told]));
                } else if known.over && shown == known.at && entry.state != LocusState::Inactive {
                    let statement =
                        format!("{who} was told that a call of {url} is over, and the list has it");
                    case.violated("ghost-call", statement, asked.events().chain([told]));
                }
            }
            raise(known, back.id, Known { at: shown, over: false });
        }
    }

    fn judge_locus(
        &mut self,
        facts: &Facts<'_>,
        asked: &Asked<'h>,
        back: Back<'h>,
        locus: &'h Locus,
        run_out: &mut Set<(&'h Url, u64, &'h Address)>,
        case: &mut Casebook,
    ) {
        let (url, instance) = (&locus.url, locus.instance);
        let nobody = locus.participants.iter().all(|part| part.state != ParticipantState::Joined);
        if nobody && locus.state != LocusState::Inactive {
            let statement = format!("call {instance} of {url} goes on and nobody is in it");
            case.violated("empty-goes-on", statement, asked.events());
        }
        let over =
            if locus.state == LocusState::Inactive { instance } else { Count(instance.0.saturating_sub(1)) };
        self.is_over(url, back.at_us, back.id, over.0);
        // A call that was taken over began its leases when nobody saw it.
        if !locus.replaces.is_empty() {
            return;
        }
        let limit = lease_limit(facts, asked, locus);
        for part in &locus.participants {
            if part.reason == Some(Reason::Lease) {
                run_out.insert((url, instance.0, &part.user));
                self.judge_run_out(asked, back, locus, part, case);
            }
            for device in &part.devices {
                let acts = self.acts.get(device.as_str()).filter(|(under_way, _)| *under_way == 0);
                let acted = acts.map(|(_, at_us)| *at_us);
                let Some((acted, limit)) = acted.zip(limit) else { continue };
                if asked.at_us > limit.max(acted.saturating_add(LEASE_US + SLACK_US)) {
                    run_out.insert((url, instance.0, &part.user));
                    let late = (asked.at_us - acted) / 1_000_000;
                    let statement = format!("{url} keeps a device in call {instance}, silent for {late} s");
                    case.violated("lease-outlives-device", statement, asked.events());
                }
            }
        }
    }

    /// A lease that was renewed cannot have run out.
    fn judge_run_out(
        &self,
        asked: &Asked<'_>,
        back: Back<'_>,
        locus: &Locus,
        part: &LocusParticipant,
        case: &mut Casebook,
    ) {
        let key = (&part.user, &locus.url);
        let one_device = self.devices.get(&key).is_some_and(|devices| devices.len() == 1);
        let Some((renewed_us, renewed)) = self.alive.get(&key).filter(|_| one_device) else { return };
        if *renewed < asked.id && renewed_us.saturating_add(LEASE_US) > back.at_us {
            let (who, url) = (part.user.as_str(), &locus.url);
            let statement = format!("{who} was thrown out of {url} by a lease that had not run out");
            case.violated("left-while-alive", statement, asked.events().chain([*renewed]));
        }
    }

    /// What is over stands in nobody's list.
    fn judge_lists(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let Some(healed_us) = self.healed_us else { return };
        let finals = facts.finals();
        let mut reads = finals.loci.iter().peekable();
        for (who, list) in &finals.active {
            // Both are in the order of who read.
            while reads.next_if(|((reader, _), _)| reader < who).is_some() {}
            let mut of_reader = Vec::new();
            while let Some((_, read)) = reads.next_if(|((reader, _), _)| reader == who) {
                of_reader.push(read);
            }
            let Some(Answer::Loci { loci }) = list.answer() else { continue };
            let listed: BTreeMap<&Url, &ActiveLocus> =
                loci.iter().map(|entry| (&entry.locus_url, entry)).collect();
            for read in of_reader {
                let Some(locus) = locus_of(read) else { continue };
                let entry = listed.get(&locus.url).filter(|entry| entry.state != LocusState::Inactive);
                let ended = |instance: u64| {
                    let known = self.over.get(&locus.url)?;
                    known.get(known.partition_point(|(_, _, over)| *over < instance))
                };
                let looked_for = entry.map_or(locus.instance.0, |entry| entry.instance.0);
                let Some((at_us, seen, _)) = ended(looked_for).filter(|_| looked_for > 0) else { continue };
                if list.at_us < healed_us.max(*at_us).saturating_add(WORD_US) {
                    continue;
                }
                case.reached();
                if let Some(entry) = entry {
                    let (who, url, instance) = (who.as_str(), &locus.url, entry.instance);
                    let statement = format!("call {instance} of {url} is over, and {who}'s list has it");
                    case.violated("ghost-call", statement, list.events().chain(read.events()).chain([*seen]));
                }
            }
        }
    }
}

fn raise(known: &mut Vec<(EventId, Known)>, at: EventId, to: Known) {
    if known.last().is_none_or(|(_, last)| *last < to) {
        known.push((at, to));
    }
}

/// Until when leases last at least that were full when the last fault at the home ended; `None`: one
/// lasts still.
fn lease_limit(facts: &Facts<'_>, asked: &Asked<'_>, locus: &Locus) -> Option<u64> {
    let home = facts.cluster_of(&locus.url)?;
    let calm = facts.faults().calm_at(&home, asked.at_us)?;
    Some(calm.saturating_add(LEASE_US + SLACK_US))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FaultPhase;
    use crate::judge::Ruling;
    use crate::testing::{Story, active, conversation_url, locus, locus_read};
    use fusion_protocol::locus::ParticipantState::{Joined, Left, Notified};
    use serde_json::json;
    use std::time::Duration;

    fn call(state: LocusState, alice: ParticipantState, bob: ParticipantState) -> Locus {
        let mut call = locus(&conversation_url("a", 1), state, 1, &[("alice", alice), ("bob", bob)]);
        for part in call.participants.iter_mut().filter(|part| part.state == Joined) {
            part.devices =
                vec![if part.user.as_str().starts_with("bob") { "bob1" } else { "alice1" }.to_owned()];
        }
        call
    }

    fn both() -> Locus {
        call(LocusState::Active, Joined, Joined)
    }

    fn over() -> Locus {
        let mut over = call(LocusState::Inactive, Left, Left);
        over.rev = Count(2);
        over
    }

    fn reads(story: &mut Story, who: &str, locus: &Locus) {
        story.does(who, Call::ReadLocus { locus: locus.url.clone() }, locus_read(locus));
    }

    fn lists(story: &mut Story, who: &str, loci: &[&Locus]) {
        let loci = loci.iter().map(|locus| active(locus, Joined)).collect();
        story.does(who, Call::ListLoci {}, Answer::Loci { loci });
    }

    fn leaves(story: &mut Story, who: &str) {
        let (locus, instance) = (over().url, over().instance);
        story.does(who, Call::SetState { locus, state: Left, instance }, locus_read(&over()));
    }

    /// Alice and Bob are in a call.
    fn in_call() -> Story {
        let mut story = Story::new();
        story.joins("alice", 0, &call(LocusState::Initializing, Joined, Notified));
        story.joins("bob", 0, &both());
        story
    }

    fn rests(story: &mut Story) {
        story.happens("engine", None, Body::Phase { phase: Phase::Heal });
        story.wait(Duration::from_secs(150)).comes_to_rest();
    }

    fn judged(story: &Story) -> (Ruling, u64, Vec<String>) {
        let verdict = Ghosts.judge(story.told());
        let kind = |print: &str| print.rsplit('/').next().unwrap_or_default().to_owned();
        (verdict.ruling, verdict.reached, verdict.violations.iter().map(|it| kind(&it.fingerprint)).collect())
    }

    #[test]
    fn a_call_that_is_over_is_in_nobodys_list() {
        let mut story = in_call();
        leaves(&mut story, "alice");
        rests(&mut story);
        for who in ["alice", "bob"] {
            reads(&mut story, who, &over());
            lists(&mut story, who, &[]);
        }
        assert_eq!(judged(&story), (Ruling::Holds, 2, vec![]));
    }

    #[test]
    fn a_ghost_call_violates() {
        let mut story = in_call();
        leaves(&mut story, "alice");
        rests(&mut story);
        reads(&mut story, "bob", &over());
        lists(&mut story, "bob", &[&both()]);
        assert_eq!(judged(&story).2, ["ghost-call"]);
    }

    #[test]
    fn a_call_that_has_just_ended_may_be_listed() {
        let mut story = in_call();
        rests(&mut story);
        leaves(&mut story, "alice");
        reads(&mut story, "bob", &over());
        lists(&mut story, "bob", &[&both()]);
        assert_eq!(judged(&story), (Ruling::Unknown, 0, vec![]));
    }

    #[test]
    fn a_call_that_its_user_was_told_is_over_is_no_more_in_the_list() {
        let mut story = in_call();
        let data = json!({ "instance": "1", "rev": "2" });
        story.is_told("bob", EventType::LocusEnded, &both().url, data);
        let mut ghost = both();
        ghost.rev = Count(2);
        lists(&mut story, "bob", &[&ghost]);
        assert_eq!(judged(&story).2, ["ghost-call"]);
    }

    #[test]
    fn a_list_that_goes_back_violates() {
        let mut story = in_call();
        let mut later = both();
        later.rev = Count(3);
        lists(&mut story, "bob", &[&later]);
        lists(&mut story, "bob", &[&both()]);
        assert_eq!(judged(&story).2, ["list-went-back"]);
    }

    /// The call, after Bob's lease ran out.
    fn without_bob() -> Locus {
        let mut rest = call(LocusState::Inactive, Left, Left);
        rest.rev = Count(3);
        rest.participants[1].reason = Some(Reason::Lease);
        rest
    }

    #[test]
    fn a_device_that_is_heard_of_no_more_leaves() {
        let mut story = in_call();
        reads(story.wait(Duration::from_secs(50)), "alice", &without_bob());
        assert_eq!(judged(&story), (Ruling::Holds, 1, vec![]));
    }

    #[test]
    fn a_lease_that_never_runs_out_violates() {
        let mut story = in_call();
        story.wait(Duration::from_secs(100));
        let renew = Call::Renew { locus: both().url, instance: Count(1), device: "alice1".to_owned() };
        story.does("alice", renew, Answer::Nothing {});
        reads(&mut story, "alice", &both());
        assert_eq!(judged(&story).2, ["lease-outlives-device"]);
    }

    #[test]
    fn a_lease_does_not_run_while_the_home_is_away() {
        let mut story = in_call();
        story.wait(Duration::from_secs(30)).fault("f", "crash", FaultPhase::Began, json!({ "host": "a" }));
        story.wait(Duration::from_secs(40)).fault("f", "crash", FaultPhase::Ended, json!({ "host": "a" }));
        reads(story.wait(Duration::from_secs(40)), "alice", &both());
        assert_eq!(judged(&story), (Ruling::Unknown, 0, vec![]));
    }

    #[test]
    fn whoever_renews_and_is_thrown_out_was_wronged() {
        let mut story = in_call();
        story.wait(Duration::from_secs(30));
        let renew = Call::Renew { locus: both().url, instance: Count(1), device: "bob1".to_owned() };
        story.does("bob", renew, Answer::Nothing {});
        reads(story.wait(Duration::from_secs(30)), "alice", &without_bob());
        assert_eq!(judged(&story).2, ["left-while-alive"]);
    }

    #[test]
    fn a_call_that_nobody_is_in_violates() {
        let mut story = in_call();
        reads(&mut story, "alice", &call(LocusState::Active, Left, Notified));
        assert_eq!(judged(&story).2, ["empty-goes-on"]);
    }
}
