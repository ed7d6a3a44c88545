//! Conservation: nothing comes from nowhere, nothing goes nowhere (MED-005).

use std::collections::BTreeMap;

use fusion_protocol::Uuid;
use fusion_protocol::media::LegCounters;

use crate::event::{Body, Event, EventId, Media};
use crate::facts::{Facts, Sight};
use crate::judge::{Casebook, Evidence, Judge};
use crate::table::Table;

/// Where nothing but a fault, a full queue or a machine that is down loses a datagram: any other network
/// may.
const LOSSLESS: &str = "fabric";
/// Whatever was sent to a leg before its end has arrived by then: far data centres are a third of a second
/// apart.
const SETTLED_US: u64 = 1_000_000;

/// MED-005: for each leg, packets received = forwarded + dropped for a counted reason; and no device
/// receives more packets of a source than were sent with it, duplicates on the way aside. Where bits of packets
/// were flipped, a device cannot tell duplicates: their numbers may be wrong. On a network that loses nothing
/// by itself, what a relay says it sent to a leg came to its device, when nothing was wrong with either.
///
/// A case is a relay's account of a leg that something came from, and one of a leg whose device listened from
/// its binding until after its end.
pub(super) struct PacketsAreConserved;

impl Judge for PacketsAreConserved {
    fn name(&self) -> &'static str {
        "packets-are-conserved"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MED-005"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        for event in facts.seen(Sight::Media) {
            let Body::Leg(leg) = &event.body else { continue };
            if leg.received.0 == 0 {
                continue;
            }
            case.reached();
            let accounted = accounted(leg);
            if accounted != leg.received.0 {
                let statement =
                    format!("leg {} received {} packets and accounts for {accounted}", leg.id, leg.received);
                case.violated("unaccounted", statement, [event.id]);
            }
        }
        if !facts.faults().had("corruption") {
            judge_receivers(facts, case);
        }
        if facts.world().is_some_and(|world| world.engine == LOSSLESS) {
            judge_arrivals(facts, case);
        }
    }
}

/// What became of a leg, as its relays told.
#[derive(Default)]
struct Life {
    opened: u32,
    bound: u32,
    from_us: u64,
    /// Its first end.
    closed: Option<(EventId, u64)>,
}

fn judge_arrivals(facts: &Facts<'_>, case: &mut Casebook) {
    let lives = lives(facts);
    let mut heard: Table<Uuid, (&Event, &Media)> = Table::default();
    for event in facts.seen(Sight::Media) {
        if let Body::Media(media) = &event.body {
            heard.insert(media.leg, (event, media));
        }
    }
    for event in facts.seen(Sight::Media) {
        let Body::Leg(leg) = &event.body else { continue };
        let (Some(life), Some((account, media))) = (lives.get(&leg.id), heard.get(&leg.id)) else { continue };
        let Some((closed, closed_us)) = life.closed else { continue };
        let (relay, device) = (event.host.as_str(), account.host.as_str());
        // Who binds anew, or at another relay, listens at another socket then.
        let listened = (life.opened, life.bound) == (1, 1) && account.at_us >= closed_us + SETTLED_US;
        if !listened || !facts.faults().spare(&[relay, device], life.from_us, account.at_us) {
            continue;
        }
        case.reached();
        let came: u64 = media.received.iter().map(|source| source.packets).sum();
        // The first packet of each source may have overtaken the relay's answer to the binding.
        if came + (media.received.len() as u64).max(1) < leg.sent.0 {
            let statement = format!("{relay} says it sent {} packets to {device}, and {came} came", leg.sent);
            case.violated("said-to-be-sent", statement, [closed, account.id, event.id]);
        }
    }
}

fn lives(facts: &Facts<'_>) -> Table<Uuid, Life> {
    let mut lives: Table<Uuid, Life> = Table::default();
    for event in facts.seen(Sight::State) {
        let Body::State { concept, subject, state, .. } = &event.body else { continue };
        let (true, Ok(leg)) = (concept == "leg", subject.parse()) else { continue };
        let life = lives.entry(leg).or_default();
        match state.as_str() {
            "OPEN" => (life.opened, life.from_us) = (life.opened + 1, event.at_us),
            "BOUND" => life.bound += 1,
            "CLOSED" => drop(life.closed.get_or_insert((event.id, event.at_us))),
            _ => {}
        }
    }
    lives
}

fn judge_receivers(facts: &Facts<'_>, case: &mut Casebook) {
    let accounts = || {
        facts.seen(Sight::Media).filter_map(|event| match &event.body {
            Body::Media(media) => Some((event.id, media)),
            _ => None,
        })
    };
    let mut sent: BTreeMap<u32, u64> = BTreeMap::new();
    for (_, media) in accounts() {
        let most = sent.entry(media.ssrc).or_default();
        *most = media.sent.max(*most);
    }
    for (id, media) in accounts() {
        for source in &media.received {
            let (ssrc, fresh) = (source.ssrc, source.packets.saturating_sub(source.duplicates));
            if let Some(sent) = sent.get(&ssrc).filter(|sent| fresh > **sent) {
                let statement = format!("{fresh} packets of source {ssrc} came, of {sent} that were sent");
                case.violated("from-nowhere", statement, [id]);
            }
        }
    }
}

fn accounted(leg: &LegCounters) -> u64 {
    [leg.forwarded, leg.dropped_alone, leg.dropped_malformed, leg.dropped_closed, leg.dropped_late]
        .iter()
        .map(|count| count.0)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{FaultPhase, Media, MediaSource};
    use crate::judge::Ruling;
    use crate::testing::{Story, conversation_url};
    use fusion_protocol::Count;
    use serde_json::json;
    use std::time::Duration;

    fn leg(received: u64, forwarded: u64, dropped_alone: u64) -> Body {
        Body::Leg(LegCounters {
            received: Count(received),
            forwarded: Count(forwarded),
            dropped_alone: Count(dropped_alone),
            ..LegCounters::default()
        })
    }

    #[test]
    fn what_came_was_forwarded_or_dropped_for_a_reason() {
        let mut story = Story::new();
        story.is_online("alice");
        story.happens("a-relay1", None, leg(10, 7, 3));
        let verdict = PacketsAreConserved.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn a_packet_that_is_not_accounted_for_violates() {
        let mut story = Story::new();
        story.is_online("alice");
        story.happens("a-relay1", None, leg(10, 7, 2));
        let verdict = PacketsAreConserved.judge(story.told());
        assert_eq!(verdict.ruling, Ruling::Violated);
        assert_eq!(verdict.violations[0].fingerprint, "packets-are-conserved/MED-005/unaccounted");
    }

    #[test]
    fn a_leg_that_nothing_came_from_is_no_case() {
        let mut story = Story::new();
        story.is_online("alice");
        story.happens("a-relay1", None, leg(0, 0, 0));
        assert!(PacketsAreConserved.judge(story.told()).had_no_case());
    }
    /// Of a source with which five packets were sent, seven came, and none of them twice.
    fn seven_of_five(story: &mut Story) {
        let account = |leg: u128, sent: u64, received: &[u64]| {
            let (locus, last_us) = (conversation_url("a", 1), 1);
            let source = |packets: &u64| MediaSource {
                ssrc: 1,
                packets: *packets,
                out_of_order: 0,
                duplicates: 0,
                last_us,
            };
            Body::Media(Media {
                leg: Uuid::from_u128(leg),
                locus,
                instance: Count(1),
                ssrc: leg as u32,
                bound: true,
                sent,
                received: received.iter().map(source).collect(),
                last_received_us: Some(last_us),
                silences: vec![],
            })
        };
        story.happens("alice", None, account(1, 5, &[]));
        story.happens("bob", None, account(2, 5, &[7]));
        story.happens("a-relay1", None, leg(10, 7, 3));
    }

    #[test]
    fn more_packets_than_were_sent_violate_unless_their_numbers_may_be_wrong() {
        let mut story = Story::new();
        story.is_online("alice");
        seven_of_five(&mut story);
        let verdict = PacketsAreConserved.judge(story.told());
        assert_eq!(verdict.violations[0].fingerprint, "packets-are-conserved/MED-005/from-nowhere");

        let mut story = Story::new();
        story.is_online("alice");
        story.fault("f", "corruption", FaultPhase::Began, json!({"from": ["*"], "to": ["*"]}));
        seven_of_five(&mut story);
        assert_eq!(PacketsAreConserved.judge(story.told()).ruling, Ruling::Holds);
    }

    /// Alice hears what the relay sends to her leg until a while after its end. `said` packets, says the
    /// relay, and `came`, says her phone.
    fn sent_to_alice(said: u64, came: u64, until: Duration, change: impl FnOnce(&mut Story)) -> Story {
        let mut story = Story::on("fabric");
        story.is_online("alice");
        let id = Uuid::from_u128(1);
        for state in ["OPEN", "BOUND"] {
            story.state("a-relay1", "leg", &id.to_string(), state);
        }
        story.wait(Duration::from_secs(5));
        change(&mut story);
        story.state("a-relay1", "leg", &id.to_string(), "CLOSED");
        story.wait(until);
        let source =
            MediaSource { ssrc: 2, packets: came, out_of_order: 0, duplicates: 0, last_us: 5_000_000 };
        let (locus, instance) = (conversation_url("a", 1), Count(1));
        story.happens(
            "alice1",
            None,
            Body::Media(Media {
                leg: id,
                locus,
                instance,
                ssrc: 1,
                bound: true,
                sent: 0,
                received: vec![source],
                last_received_us: Some(5_000_000),
                silences: vec![],
            }),
        );
        let account = LegCounters { id, sent: Count(said), ..LegCounters::default() };
        story.happens("a-relay1", None, Body::Leg(account));
        story
    }

    fn judged(story: &Story) -> (u64, Vec<String>) {
        let verdict = PacketsAreConserved.judge(story.told());
        (verdict.reached, verdict.violations.into_iter().map(|violation| violation.fingerprint).collect())
    }

    const LATER: Duration = Duration::from_secs(2);

    #[test]
    fn what_was_sent_to_a_leg_came() {
        assert_eq!(judged(&sent_to_alice(200, 200, LATER, |_| {})), (1, vec![]));
        assert_eq!(judged(&sent_to_alice(200, 199, LATER, |_| {})), (1, vec![]), "the first may overtake");
    }

    #[test]
    fn what_is_said_to_be_sent_and_never_came_violates() {
        let expected = vec!["packets-are-conserved/MED-005/said-to-be-sent".to_owned()];
        assert_eq!(judged(&sent_to_alice(200, 197, LATER, |_| {})).1, expected);
    }

    #[test]
    fn who_did_not_listen_until_the_end_or_was_hindered_proves_nothing() {
        let no_case = (0, vec![]);
        assert_eq!(judged(&sent_to_alice(200, 100, Duration::from_millis(100), |_| {})), no_case);
        let bound_again = |story: &mut Story| {
            story.state("a-relay1", "leg", &Uuid::from_u128(1).to_string(), "BOUND");
        };
        assert_eq!(judged(&sent_to_alice(200, 100, LATER, bound_again)), no_case);
        let lossy = |story: &mut Story| {
            let lines = json!({"from": ["*"], "to": ["*"], "probability": 0.1});
            story.fault("f", "loss", FaultPhase::Began, lines);
        };
        assert_eq!(judged(&sent_to_alice(200, 100, LATER, lossy)), no_case);
    }

    #[test]
    fn on_a_real_network_packets_may_be_lost() {
        let mut story = Story::on("live");
        for event in sent_to_alice(200, 100, LATER, |_| {}).told().events().iter().skip(1) {
            story.happens(&event.host, None, event.body.clone());
        }
        assert_eq!(judged(&story), (0, vec![]));
    }
}
