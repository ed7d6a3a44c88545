//! Conservation: nothing comes from nowhere, nothing goes nowhere (MED-005).

use std::collections::BTreeMap;

use fusion_protocol::media::LegCounters;

use crate::event::Body;
use crate::facts::{Facts, Sight};
use crate::judge::{Casebook, Evidence, Judge};

/// MED-005: for each leg, packets received = forwarded + dropped for a counted reason; and no device
/// receives more packets of a source than were sent with it, duplicates on the way aside. Where bits of packets
/// were flipped, a device cannot tell duplicates: their numbers may be wrong.
///
/// A case is a relay's account of a leg that something came from.
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
    }
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
    use fusion_protocol::{Count, Uuid};
    use serde_json::json;

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
}
