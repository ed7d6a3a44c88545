//! MER-004: a slow or dead device delays nobody else.

use std::collections::BTreeMap;

use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, Url};

use crate::event::{Answer, Body, Call, EventId, SocketChange};
use crate::facts::{Facts, Sight, Verb};
use crate::judge::{Casebook, Evidence, Judge};
use crate::judges::rendezvous::count;
use crate::table::Table;

/// How long a message may take to a device that is well, in microseconds.
const DELIVERY_MAX_US: u64 = 5_000_000;
/// What went wrong so shortly before may still be felt, in microseconds: the longest back-off, and more.
const AFTERMATH_US: u64 = 35_000_000;

/// MER-004: while a device of somebody's is stalled, the others of the same person are told within
/// [`DELIVERY_MAX_US`] what is said.
///
/// A case is a message that was accepted while one device of an addressee was stalled and another one was
/// well.
pub(crate) struct NobodyWaitsForTheSlow;

/// A device, as the network saw it.
#[derive(Default)]
struct Device<'h> {
    /// When it had a socket.
    open: Vec<(u64, u64)>,
    /// When it was told how much of each conversation, rising.
    told: BTreeMap<&'h Url, Vec<(u64, u64, EventId)>>,
}

impl Judge for NobodyWaitsForTheSlow {
    fn name(&self) -> &'static str {
        "nobody-waits-for-the-slow"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MER-004"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        // Without a fault nothing was stalled.
        if facts.faults().iter().next().is_none() {
            return;
        }
        let users = devices(facts);
        let ends_us = facts.history().events().last().map_or(0, |event| event.at_us);
        for asked in facts.asked_to(Verb::Post) {
            let (Call::Post { conversation, .. }, Some(back)) = (asked.call, asked.back) else { continue };
            let Some(Answer::Accepted { created: true, activity, redirected_to: None }) = asked.answer()
            else {
                continue;
            };
            let due_us = back.at_us.saturating_add(DELIVERY_MAX_US);
            let Some(known) = facts.conversations().at(conversation) else { continue };
            if known.is_superseded() || due_us > ends_us {
                continue;
            }
            for (user, devices) in known.members.iter().filter_map(|user| Some((user, users.get(*user)?))) {
                let joined = activity.seq.0;
                for (host, late) in delayed(facts, user, devices, (conversation, joined), back.at_us, due_us)
                {
                    case.reached();
                    if let Some(told) = late {
                        let statement = format!(
                            "{host} was not told message {joined} of {conversation} in time: it waited for another device"
                        );
                        case.violated("delayed", statement, asked.events().chain(told));
                    }
                }
            }
        }
    }
}

/// The devices of a user that were well while another one was stalled; with `Some` those that were not
/// told in time, and where they were told at last.
fn delayed<'d, 'h>(
    facts: &Facts<'h>,
    user: &Address,
    devices: &'d BTreeMap<&'h str, Device<'h>>,
    (conversation, seq): (&Url, u64),
    from_us: u64,
    due_us: u64,
) -> Vec<(&'d str, Option<Option<EventId>>)> {
    let faults = facts.faults();
    if !devices.keys().any(|host| faults.stall(host, from_us, due_us)) {
        return Vec::new();
    }
    let homes = facts.clusters_of_users();
    let homes = homes.get(user).into_iter().flatten().flat_map(|home| faults.hosts_of(home));
    let origin = facts.cluster_of(conversation).map(|home| faults.hosts_of(&home)).unwrap_or_default();
    let between: Vec<&str> = homes.chain(origin).collect();
    let well = devices.iter().filter(|(host, device)| {
        let mut way = between.clone();
        way.push(host);
        device.is_open(from_us, due_us) && !faults.hinder(&way, from_us.saturating_sub(AFTERMATH_US), due_us)
    });
    well.map(|(host, device)| {
        let told = device.told.get(conversation).map(Vec::as_slice).unwrap_or_default();
        let first = told.get(told.partition_point(|(known, ..)| *known < seq));
        let in_time = first.is_some_and(|(_, at_us, _)| *at_us <= due_us);
        (*host, (!in_time).then(|| first.map(|(.., id)| *id)))
    })
    .collect()
}

impl Device<'_> {
    fn is_open(&self, from_us: u64, until_us: u64) -> bool {
        self.open.iter().any(|(since, until)| *since <= from_us && *until >= until_us)
    }
}

/// The devices of every user who has several.
fn devices<'h>(facts: &Facts<'h>) -> Table<&'h Address, BTreeMap<&'h str, Device<'h>>> {
    let mut users: Table<&Address, BTreeMap<&str, Device<'_>>> = Table::default();
    for event in facts.seen(Sight::Device) {
        let (Body::Socket { user, .. } | Body::Deliver { user, .. }) = &event.body else { continue };
        let device = users.entry(user).or_default().entry(&event.host).or_default();
        match &event.body {
            Body::Socket { what: SocketChange::Ready, .. } => device.open.push((event.at_us, u64::MAX)),
            Body::Socket { what: SocketChange::Closed, .. } => {
                device.open.iter_mut().rev().take(1).for_each(|open| open.1 = open.1.min(event.at_us));
            }
            Body::Deliver { event_type: EventType::ConversationActivity, resource, data, .. } => {
                let told = device.told.entry(resource).or_default();
                if let Some(seq) = data.get("seq").and_then(count)
                    && told.last().is_none_or(|(last, ..)| *last < seq)
                {
                    told.push((seq, event.at_us, event.id));
                }
            }
            _ => {}
        }
    }
    users.retain(|_, devices| devices.len() > 1);
    users
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FaultPhase;
    use crate::judge::Ruling;
    use crate::testing::{Story, conversation_url, message, user};
    use fusion_protocol::conversation::ConversationState::Bound;
    use fusion_protocol::{Count, Uuid};
    use serde_json::json;
    use std::time::Duration;

    fn happens(story: &mut Story, host: &str, what: SocketChange) {
        story.happens(
            host,
            None,
            Body::Socket { user: user("bob"), what, base: Count(0), session: Count(1) },
        );
    }

    /// Bob's tablet hangs, and Alice says something, of which his phone is told so much later.
    fn alice_speaks(fault: serde_json::Value, after: Duration) -> (Ruling, u64, Vec<String>) {
        let url = conversation_url("a", 1);
        let mut story = Story::new();
        for host in ["bob/phone", "bob/tablet"] {
            happens(&mut story, host, SocketChange::Ready);
        }
        story.creates("alice", "bob", &url, Bound);
        story.wait(Duration::from_secs(60)).fault("f", "pause", FaultPhase::Began, fault);
        story.posts("alice", &url, &message("alice", "hello", 1));
        story.wait(after);
        let body = Body::Deliver {
            user: user("bob"),
            session: Count(1),
            id: Uuid::from_u128(1),
            seq: Count(1),
            event_type: EventType::ConversationActivity,
            resource: url,
            data: json!({ "seq": "1" }),
        };
        story.happens("bob/phone", None, body);
        story.wait(Duration::from_secs(60)).comes_to_rest();
        let verdict = NobodyWaitsForTheSlow.judge(story.told());
        let kinds = verdict.violations.iter().map(|violation| violation.fingerprint.clone()).collect();
        (verdict.ruling, verdict.reached, kinds)
    }

    #[test]
    fn the_phone_is_told_at_once_while_the_tablet_hangs() {
        let hangs = json!({ "host": "bob/tablet" });
        assert_eq!(alice_speaks(hangs, Duration::from_millis(50)), (Ruling::Holds, 1, vec![]));
    }

    #[test]
    fn a_phone_that_waits_for_the_tablet_violates() {
        let (_, _, kinds) = alice_speaks(json!({ "host": "bob/tablet" }), Duration::from_secs(10));
        assert_eq!(kinds, ["nobody-waits-for-the-slow/MER-004/delayed"]);
    }

    #[test]
    fn a_cluster_that_stands_still_itself_is_no_case() {
        let verdict = alice_speaks(json!({ "host": "*" }), Duration::from_secs(10));
        assert_eq!(verdict, (Ruling::Unknown, 0, vec![]));
        let nobody_stalled = alice_speaks(json!({ "host": "c" }), Duration::from_secs(10));
        assert_eq!(nobody_stalled.1, 0);
    }
}
