//! Calls survive the relays that carry them (MED-004).

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::mercury::EventType;
use fusion_protocol::{Url, Uuid};

use super::legs::{self, Part};
use crate::event::{Body, Call, EventId, Media, WorldCluster};
use crate::facts::{Facts, Fault, Sight, Verb};
use crate::judge::{Casebook, Evidence, Judge};
use crate::judges::rendezvous::count;

/// How long nothing may be heard after a relay's crash.
const GAP_MAX_US: u64 = 2_000_000;
/// How much longer everything must have been calm, and somebody have talked, for silence to be proof.
const BEYOND_US: u64 = 1_000_000;
/// Whoever has heard nothing for so long before the crash did not hear anyway.
const DEAF_US: u64 = 700_000;

/// MED-004: when a relay goes down, the legs of its calls move to another relay that is there: who heard
/// somebody before hears somebody again within two seconds, in the same instance.
///
/// A case is a device that heard another one talk when the relay of their call went down, nothing else was
/// wrong with anybody in the call, another relay of the org was there, and the other one talked on.
pub(in crate::judges) struct CallsSurviveRelays;

/// A device in a call: its host, the locus, the instance.
type Seat<'h> = (&'h str, &'h Url, u64);

/// One call at a relay that goes down.
struct Crash<'f, 'h> {
    fault: &'f Fault<'h>,
    relay: &'h str,
    locus: &'h Url,
    instance: u64,
    parts: Vec<Part<'h>>,
}

impl Judge for CallsSurviveRelays {
    fn name(&self) -> &'static str {
        "calls-survive-relays"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MED-004"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client, Evidence::State]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        if !facts.faults().iter().any(Fault::takes_down) {
            return;
        }
        let crashes = crashes(facts);
        if crashes.is_empty() {
            return;
        }
        let (talks, left, heard) = (talks(facts), left(facts), heard(facts));
        for crash in crashes {
            let until_us = crash.until_us();
            let stayed = |device: &str| {
                left.get(&(device, crash.locus, crash.instance)).is_none_or(|at| *at > until_us)
            };
            let all_stayed = crash.parts.iter().all(|part| stayed(part.device));
            if !all_stayed || !crash.is_alone(facts) {
                continue;
            }
            let talks_on = |part: &&Part<'_>| {
                let talks = talks.get(part.device).into_iter().flatten();
                talks
                    .into_iter()
                    .any(|(from, until)| from + BEYOND_US <= crash.fault.from_us && *until >= until_us)
            };
            for receiver in &crash.parts {
                let others = || crash.parts.iter().filter(|part| part.device != receiver.device);
                if others().any(|part| talks_on(&part)) {
                    let accounts = heard.get(&(receiver.device, crash.locus, crash.instance));
                    crash.judge_receiver(receiver, accounts.map_or(&[][..], Vec::as_slice), case);
                }
            }
            crash.judge_end(facts, case);
        }
    }
}

impl<'h> Crash<'_, 'h> {
    fn until_us(&self) -> u64 {
        self.fault.from_us.saturating_add(GAP_MAX_US + BEYOND_US)
    }

    /// Whether nothing else was wrong, and another relay was there.
    fn is_alone(&self, facts: &Facts<'h>) -> bool {
        let Some(home) = legs::home(facts, self.locus) else { return false };
        let users = facts.clusters_of_users();
        let clusters = self.parts.iter().filter_map(|part| users.get(part.user)).flatten();
        let mut machines: BTreeSet<&str> = clusters.map(|cluster| cluster.as_str()).collect();
        machines.extend(self.parts.iter().map(|part| part.device));
        machines.insert(home.name.as_str());
        let machines: Vec<&str> = machines.into_iter().collect();
        let since = self.fault.from_us.saturating_sub(10 * BEYOND_US);
        let others = own_relays(facts, home).filter(|relay| *relay != self.relay);
        let mut others = others.filter(|relay| {
            let with: Vec<&str> = machines.iter().copied().chain([*relay]).collect();
            facts.faults().spare(&with, since, self.until_us())
        });
        others.next().is_some()
    }

    fn judge_receiver(&self, receiver: &Part<'_>, accounts: &[(EventId, &Media)], case: &mut Casebook) {
        let crashed = self.fault.from_us;
        let Some((last, media)) = accounts.iter().rev().find(|(id, _)| *id > self.fault.began) else {
            return case.not_observed("what a device heard after its relay went down");
        };
        let last_us = media.last_received_us.unwrap_or_default();
        let silences = accounts.iter().flat_map(|(_, media)| &media.silences);
        let mut silences = silences.filter(|it| it.from_us <= crashed + DEAF_US && it.until_us > crashed);
        let silence = silences.next().map(|it| (it.from_us, Some(it.until_us)));
        let for_good = (last_us <= crashed + DEAF_US).then_some((last_us, None));
        let Some((from_us, until_us)) = silence.or(for_good) else {
            return case.reached();
        };
        if from_us + DEAF_US < crashed {
            return;
        }
        case.reached();
        let again = match until_us {
            Some(until_us) if until_us <= crashed + GAP_MAX_US => return,
            Some(until_us) => format!("{} ms", (until_us - crashed) / 1_000),
            None => "and not again".to_owned(),
        };
        let (device, relay) = (receiver.device, self.relay);
        let statement = format!("{device} heard nothing after {relay} went down: {again}");
        case.violated("silent-too-long", statement, [self.fault.began, *last]);
    }

    fn judge_end(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let over = facts.seen(Sight::Device).find(|event| {
            let Body::Deliver { event_type: EventType::LocusEnded, resource, data, .. } = &event.body else {
                return false;
            };
            let during = event.id > self.fault.began && event.at_us <= self.until_us();
            during && resource == self.locus && data.get("instance").and_then(count) == Some(self.instance)
        });
        if let Some(event) = over {
            let statement =
                format!("{} ended when {} went down, and nobody had left", self.locus, self.relay);
            case.violated("call-ended", statement, [self.fault.began, event.id]);
        }
    }
}

/// The relays of the org that a cluster belongs to.
fn own_relays<'h>(facts: &Facts<'h>, home: &'h WorldCluster) -> impl Iterator<Item = &'h str> {
    let clusters = facts.world().map(|world| world.clusters.as_slice()).unwrap_or_default();
    clusters.iter().filter(|cluster| cluster.org == home.org).flat_map(legs::relays_of)
}

fn crashes<'f, 'h>(facts: &'f Facts<'h>) -> Vec<Crash<'f, 'h>> {
    let mut crashes = Vec::new();
    let (opened, parts) = (legs::opened(facts), legs::parts(facts));
    for fault in facts.faults().iter().filter(|fault| fault.takes_down()) {
        // Where each leg was when the relay went down.
        let before = opened.iter().take_while(|opened| opened.seen < fault.began);
        let at: BTreeMap<Uuid, &str> = before.map(|opened| (opened.leg, opened.relay)).collect();
        let host = fault.member("host").and_then(|host| host.as_str());
        let mut calls: BTreeMap<(&Url, u64), (&str, Vec<Part<'_>>)> = BTreeMap::new();
        for (leg, relay) in at.into_iter().filter(|(_, relay)| Some(*relay) == host) {
            let Some(part) = parts.get(&leg).filter(|part| part.at_us < fault.from_us) else { continue };
            calls.entry((part.locus, part.instance)).or_insert((relay, Vec::new())).1.push(*part);
        }
        crashes.extend(calls.into_iter().map(|((locus, instance), (relay, parts))| Crash {
            fault,
            relay,
            locus,
            instance,
            parts,
        }));
    }
    crashes
}

/// By device: when it talked, from and until.
fn talks<'h>(facts: &Facts<'h>) -> BTreeMap<&'h str, Vec<(u64, u64)>> {
    let mut talks: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for asked in facts.asked_to(Verb::Talk) {
        if let Some(back) = asked.back {
            talks.entry(asked.host).or_default().push((asked.at_us, back.at_us));
        }
    }
    talks
}

/// When a device first asked to leave a call.
fn left<'h>(facts: &Facts<'h>) -> BTreeMap<Seat<'h>, u64> {
    let mut left = BTreeMap::new();
    for asked in facts.asked_to(Verb::SetState) {
        if let Call::SetState { locus, instance, .. } = asked.call {
            left.entry((asked.host, locus, instance.0)).or_insert(asked.at_us);
        }
    }
    left
}

/// The accounts of each device in each call.
fn heard<'h>(facts: &Facts<'h>) -> BTreeMap<Seat<'h>, Vec<(EventId, &'h Media)>> {
    let mut heard: BTreeMap<_, Vec<(EventId, &Media)>> = BTreeMap::new();
    for event in facts.seen(Sight::Media) {
        if let Body::Media(media) = &event.body {
            let part = (event.host.as_str(), &media.locus, media.instance.0);
            heard.entry(part).or_default().push((event.id, media));
        }
    }
    heard
}

#[cfg(test)]
mod tests {
    use super::super::testing::{account, answered_leg, call, opens, world_with};
    use super::*;
    use crate::event::{Answer, FaultPhase, Silence};
    use crate::judge::{Ruling, Verdict};
    use crate::testing::Story;
    use serde_json::json;
    use std::time::Duration;

    /// Alice and Bob talk for ten seconds; after two the relay goes down. `silence` is what Bob had after
    /// that, milliseconds; `None`: for good.
    fn crash(another_relay: bool, silence_ms: Option<u64>) -> Story {
        let mut story = world_with(|clusters| {
            if another_relay {
                clusters[0].hosts.push("a-relay2".to_owned());
            }
        });
        story.wait(Duration::from_secs(20));
        for (who, leg) in [("alice", 1), ("bob", 2)] {
            opens(&mut story, "a-relay", leg);
            answered_leg(&mut story, who, &call(), leg);
        }
        let talk = |leg| Call::Talk { leg: Uuid::from_u128(leg), packets: 500 };
        let talks = [story.asks("alice", talk(1)), story.asks("bob", talk(2))];
        story.wait(Duration::from_secs(2));
        let down = story.fault("down", "crash", FaultPhase::Began, json!({ "host": "a-relay" }));
        let crashed = story.told().event(down).unwrap().at_us;
        story.wait(Duration::from_secs(8));
        let now = crashed + 8_000_000;
        let alice = account(1, &[(2, now)]);
        let mut bob = account(2, &[(1, silence_ms.map_or(crashed, |_| now))]);
        if let Some(silence_ms) = silence_ms.filter(|silence_ms| *silence_ms >= 500) {
            bob.silences.push(Silence { from_us: crashed - 10_000, until_us: crashed + silence_ms * 1_000 });
        }
        story.happens("alice1", None, Body::Media(alice));
        story.happens("bob1", None, Body::Media(bob));
        for asked in talks {
            story.answers(asked, Answer::Nothing {});
        }
        story
    }

    fn judged(story: &Story) -> (Ruling, u64, Vec<String>) {
        let verdict: Verdict = CallsSurviveRelays.judge(story.told());
        let prints = verdict.violations.into_iter().map(|violation| violation.fingerprint);
        (verdict.ruling, verdict.reached, prints.collect())
    }

    #[test]
    fn two_seconds_of_silence_are_survived() {
        assert_eq!(judged(&crash(true, Some(0))), (Ruling::Holds, 2, vec![]));
        assert_eq!(judged(&crash(true, Some(1_990))), (Ruling::Holds, 2, vec![]));
    }

    #[test]
    fn more_is_too_long() {
        let expected = vec!["calls-survive-relays/MED-004/silent-too-long".to_owned()];
        assert_eq!(judged(&crash(true, Some(2_500))).2, expected);
        assert_eq!(judged(&crash(true, None)).2, expected);
    }

    #[test]
    fn without_another_relay_there_is_nowhere_to_go() {
        assert_eq!(judged(&crash(false, None)).1, 0);
    }

    #[test]
    fn a_call_that_ends_with_its_relay_violates() {
        let mut story = world_with(|clusters| clusters[0].hosts.push("a-relay2".to_owned()));
        story.wait(Duration::from_secs(20));
        opens(&mut story, "a-relay", 1);
        answered_leg(&mut story, "alice", &call(), 1);
        story.fault("down", "crash", FaultPhase::Began, json!({ "host": "a-relay" }));
        story.is_told("alice", EventType::LocusEnded, &call().url, json!({ "instance": "1" }));
        assert_eq!(judged(&story).2, ["calls-survive-relays/MED-004/call-ended"]);
    }
}
