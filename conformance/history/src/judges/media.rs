//! Media: who may send, and until when (MED-001); where they go ([`choice`]), and what becomes of them when
//! a relay goes down ([`survival`]).

mod choice;
mod legs;
mod survival;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;

use fusion_protocol::locus::LocusState;
use fusion_protocol::mercury::EventType;
use fusion_protocol::{ClusterName, Url, Uuid};
use serde_json::Value;

pub(super) use self::choice::{NearestOwnRelay, OwnCallsStayHome};
pub(super) use self::survival::CallsSurviveRelays;
use crate::event::{Answer, Body, Call, EventId, FaultPhase, Media, WorldCluster};
use crate::facts::{Facts, Sight, Verb};
use crate::judge::{Casebook, Evidence, Judge};
use crate::judges::rendezvous::count;
use crate::judges::security::trespasses;
use crate::table::{Set, Table};

/// How long packets may still come after the end (MED-001).
const GRACE_US: u64 = 1_000_000;

/// MED-001: only a leg with a valid token of the current instance sends or receives, and its packets
/// stop within a second when its participant leaves or the instance ends. While a fault touches the call's
/// home or its relays, the second does not run: a relay that is paused or cut off cannot learn of the end.
///
/// A case is a leg that sent or received and whose end was seen, an intruder that tried, and each
/// trespass against the requirement.
pub(super) struct MediaEndsWithTheCall;

/// A device's part in a call, as far as media go.
#[derive(Default)]
struct Legs<'h> {
    /// By leg: when it ended.
    ends: Table<Uuid, End>,
    /// When faults touched the hosts of each cluster.
    faults: BTreeMap<&'h ClusterName, Faults>,
    /// By SSRC: the accounts of those who sent with it.
    senders: Table<u32, Vec<&'h Media>>,
}

#[derive(Clone, Copy)]
struct End {
    at_us: u64,
    seen: EventId,
}

impl Judge for MediaEndsWithTheCall {
    fn name(&self) -> &'static str {
        "media-ends-with-the-call"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MED-001"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        trespasses(facts, "MED-001", case);
        let mut legs = Legs { ends: ends(facts), faults: faults(facts), senders: Table::default() };
        let accounts = || {
            facts.seen(Sight::Media).filter_map(|event| match &event.body {
                Body::Media(media) => Some((event.id, media)),
                _ => None,
            })
        };
        for (_, media) in accounts() {
            legs.senders.entry(media.ssrc).or_default().push(media);
        }
        let mut counted: Set<Uuid> = Set::default();
        for (id, media) in accounts() {
            let moved = media.sent > 0 || !media.received.is_empty();
            let is_case = !media.bound || legs.ends.contains_key(&media.leg);
            if moved && is_case && counted.insert(media.leg) {
                case.reached();
            }
            judge_receiver(facts, id, media, &legs, case);
            judge_sources(facts, id, media, &legs, case);
        }
    }
}

fn judge_receiver(facts: &Facts<'_>, id: EventId, media: &Media, legs: &Legs<'_>, case: &mut Casebook) {
    let (locus, instance) = (&media.locus, media.instance);
    if !media.bound && !media.received.is_empty() {
        let statement = format!("somebody without a valid token received media of {locus}");
        case.violated("unbound-received", statement, [id]);
    }
    if let (Some(end), Some(last_us)) = (legs.ends.get(&media.leg), media.last_received_us)
        && last_us > legs.deadline(facts, locus, *end)
    {
        let late = millis(last_us - end.at_us);
        let statement = format!("a leg of {locus}, call {instance}, received media {late} ms after its end");
        case.violated("received-after-the-end", statement, [end.seen, id]);
    }
}

fn judge_sources(facts: &Facts<'_>, id: EventId, media: &Media, legs: &Legs<'_>, case: &mut Casebook) {
    for source in media.received.iter().filter(|source| source.packets > 0) {
        let Some(senders) = legs.senders.get(&source.ssrc) else { continue };
        let same_call = |sender: &&&Media| (&sender.locus, sender.instance) == (&media.locus, media.instance);
        let entitled: Vec<&Media> =
            senders.iter().filter(|sender| sender.bound).filter(same_call).copied().collect();
        let locus = &media.locus;
        if entitled.is_empty() {
            let intruder = senders.iter().any(|sender| !sender.bound);
            let (kind, who) = if intruder {
                ("unbound-forwarded", "somebody without a valid token")
            } else {
                ("foreign-call-forwarded", "a leg of another call")
            };
            let statement = format!("packets of {who} were forwarded into {locus}");
            case.violated(kind, statement, [id]);
            continue;
        }
        let ends: Option<Vec<End>> =
            entitled.iter().map(|sender| legs.ends.get(&sender.leg).copied()).collect();
        let last_end = ends.and_then(|ends| ends.into_iter().max_by_key(|end| end.at_us));
        if let Some(end) = last_end.filter(|end| source.last_us > legs.deadline(facts, &media.locus, *end)) {
            let late = millis(source.last_us - end.at_us);
            let statement = format!("packets of a leg of {locus} were forwarded {late} ms after its end");
            case.violated("sent-after-the-end", statement, [end.seen, id]);
        }
    }
}

/// The times during which at least one fault lasted.
#[derive(Default)]
struct Faults {
    /// From and until, apart from each other, in order.
    spans_us: Vec<(u64, u64)>,
}

/// When faults touched the hosts of each cluster.
fn faults<'h>(facts: &Facts<'h>) -> BTreeMap<&'h ClusterName, Faults> {
    let clusters = facts.world().map(|world| world.clusters.as_slice()).unwrap_or_default();
    clusters.iter().map(|cluster| (&cluster.name, Faults::touching(facts, cluster))).collect()
}

impl Legs<'_> {
    /// When packets must have stopped: a second after the end, faults at the call's home aside.
    fn deadline(&self, facts: &Facts<'_>, locus: &Url, end: End) -> u64 {
        let home = facts.cluster_of(locus).and_then(|home| self.faults.get(&home));
        home.map_or(end.at_us.saturating_add(GRACE_US), |faults| faults.calm_after(end.at_us, GRACE_US))
    }
}

impl Faults {
    fn touching(facts: &Facts<'_>, cluster: &WorldCluster) -> Self {
        let mut began: BTreeMap<&str, u64> = BTreeMap::new();
        let mut spans: Vec<(u64, u64)> = Vec::new();
        for event in facts.seen(Sight::Fault) {
            let Body::Fault { fault, phase, detail, .. } = &event.body else { continue };
            match phase {
                FaultPhase::Began if touches(detail, cluster) => {
                    began.insert(fault, event.at_us);
                }
                FaultPhase::Began => {}
                FaultPhase::Ended => {
                    spans.extend(began.remove(fault.as_str()).map(|from| (from, event.at_us)));
                }
            }
        }
        spans.extend(began.into_values().map(|from| (from, u64::MAX)));
        spans.sort_unstable();
        let mut spans_us: Vec<(u64, u64)> = Vec::new();
        for (from, until) in spans {
            match spans_us.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(until),
                _ => spans_us.push((from, until)),
            }
        }
        Self { spans_us }
    }

    /// When `grace_us` without any fault have passed since `at_us`.
    fn calm_after(&self, at_us: u64, grace_us: u64) -> u64 {
        let mut due = at_us.saturating_add(grace_us);
        for (from, until) in &self.spans_us {
            if *until > at_us && *from < due {
                due = due.saturating_add(until - (*from).max(at_us));
            }
        }
        due
    }
}

/// Whether a fault touches a cluster's hosts or what is between them: each side that it names has one of
/// them. A fault that names no place could be anywhere.
fn touches(detail: &Value, cluster: &WorldCluster) -> bool {
    let is_ours = |place: &Value| {
        let place = place.as_str().unwrap_or("*");
        place == "*"
            || place.starts_with("datacenter:")
            || place.strip_prefix("group:").is_some_and(|group| group == cluster.name.as_str())
            || cluster.hosts.iter().any(|host| host == place)
    };
    ["host", "a", "b", "from", "to"].iter().filter_map(|side| detail.get(side)).all(|side| match side {
        Value::Array(places) => places.iter().any(is_ours),
        place => is_ours(place),
    })
}

/// When each leg ended at the latest: its device had left, its user had declined, or the call was seen
/// to be over. A leg that was joined again has not ended.
fn ends(facts: &Facts<'_>) -> Table<Uuid, End> {
    let over = calls_over(facts);
    let mut left: Table<(&str, &Url, u64), End> = Table::default();
    for asked in facts.asked_to(Verb::SetState) {
        if let (Call::SetState { locus, instance, .. }, Some(_), Some(back)) =
            (asked.call, asked.answer(), asked.back)
        {
            let end = End { at_us: back.at_us, seen: back.id };
            left.insert((asked.host, locus, instance.0), end);
        }
    }
    let mut ends = Table::default();
    for asked in facts.asked_to(Verb::Join) {
        let Some(Answer::Joined { locus, leg: Some(leg) }) = asked.answer() else { continue };
        let instance = locus.instance.0;
        let by_leaving = left.get(&(asked.host, &locus.url, instance));
        let by_ending = over.get(&locus.url).and_then(|ends| ends.range(instance..).next());
        let after = |end: &&End| end.seen > asked.id;
        let both = [by_leaving.filter(after), by_ending.map(|(_, end)| end).filter(after)];
        // A later join of the same leg overrides what an earlier one found.
        match both.into_iter().flatten().min_by_key(|end| end.at_us) {
            Some(end) => drop(ends.insert(*leg, *end)),
            None => drop(ends.swap_remove(leg)),
        }
    }
    ends
}

/// By locus: the calls that were seen to be over, and when first.
fn calls_over<'h>(facts: &Facts<'h>) -> Table<&'h Url, BTreeMap<u64, End>> {
    let mut over: Table<&Url, BTreeMap<u64, End>> = Table::default();
    let mut note = |locus: &'h Url, instance: u64, end: End| {
        let first = over.entry(locus).or_default().entry(instance).or_insert(end);
        if end.at_us < first.at_us {
            *first = end;
        }
    };
    for (_, back, locus) in facts.loci() {
        let end = End { at_us: back.at_us, seen: back.id };
        if locus.state == LocusState::Inactive {
            note(&locus.url, locus.instance.0, end);
        } else if let Some(before) = locus.instance.0.checked_sub(1) {
            note(&locus.url, before, end);
        }
    }
    for event in facts.seen(Sight::Device) {
        if let Body::Deliver { event_type: EventType::LocusEnded, resource, data, .. } = &event.body
            && let Some(instance) = data.get("instance").and_then(count)
        {
            note(resource, instance, End { at_us: event.at_us, seen: event.id });
        }
    }
    over
}

fn millis(us: u64) -> u64 {
    us / 1_000
}

#[cfg(test)]
mod tests {
    use super::testing::{account, call};
    use super::*;
    use crate::judge::Ruling;
    use crate::testing::{Story, conversation_url, join, locus, locus_read};
    use fusion_protocol::locus::ParticipantState::{Joined, Left};
    use std::time::Duration;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn only_faults_at_the_home_or_its_relays_excuse_it() {
        let hosts = vec!["a".to_owned(), "a-relay1".to_owned()];
        let (name, org, data_center) = ("a".parse().unwrap(), "acme".to_owned(), "a".to_owned());
        let cluster = WorldCluster { name, org, data_center, hosts, overflow: vec![] };
        let touched = |detail: Value| touches(&detail, &cluster);
        assert!(touched(serde_json::json!({"kind": "pause", "host": "a-relay1"})));
        assert!(touched(serde_json::json!({"kind": "partition", "a": ["a"], "b": ["*"]})));
        assert!(touched(serde_json::json!({"kind": "loss", "from": ["*"], "to": ["*"]})));
        assert!(!touched(serde_json::json!({"kind": "crash", "host": "b"})));
        assert!(!touched(serde_json::json!({"kind": "partition", "a": ["provider"], "b": ["*"]})));
    }

    #[test]
    fn while_a_fault_lasts_the_second_does_not_run() {
        let faults = Faults { spans_us: vec![(500_000, 700_000), (900_000, 5_000_000)] };
        assert_eq!(faults.calm_after(0, SECOND), 5_300_000);
        assert_eq!(faults.calm_after(600_000, SECOND), 5_800_000);
        assert_eq!(faults.calm_after(6_000_000, SECOND), 7_000_000);
    }

    /// Alice has leg 1 and Bob leg 2; Alice leaves after ten seconds. Answers when, in microseconds.
    fn alice_leaves(story: &mut Story) -> u64 {
        for (who, leg) in [("alice", 1), ("bob", 2)] {
            let leg = Some(Uuid::from_u128(leg));
            let answer = Answer::Joined { locus: Box::new(call()), leg };
            story.does(who, join(&call().url, 0, who), answer);
        }
        story.wait(Duration::from_secs(10));
        let left =
            locus(&conversation_url("a", 1), LocusState::Active, 1, &[("alice", Left), ("bob", Joined)]);
        let call = Call::SetState { locus: call().url, state: Left, instance: call().instance };
        let end = story.does("alice", call, locus_read(&left));
        story.told().event(end).map(|event| event.at_us).unwrap_or_default()
    }

    fn kinds(story: &Story) -> Vec<String> {
        let verdict = MediaEndsWithTheCall.judge(story.told());
        let kind = |print: &str| print.rsplit('/').next().unwrap_or_default().to_owned();
        verdict.violations.iter().map(|violation| kind(&violation.fingerprint)).collect()
    }

    #[test]
    fn media_stop_when_alice_leaves() {
        let mut story = Story::new();
        let end = alice_leaves(&mut story);
        story.happens("alice1", None, Body::Media(account(1, &[(2, end + SECOND / 2)])));
        story.happens("bob1", None, Body::Media(account(2, &[(1, end + SECOND)])));
        let verdict = MediaEndsWithTheCall.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn whoever_left_and_still_hears_violates() {
        let mut story = Story::new();
        let end = alice_leaves(&mut story);
        story.happens("alice1", None, Body::Media(account(1, &[(2, end + 2 * SECOND)])));
        story.happens("bob1", None, Body::Media(account(2, &[])));
        assert_eq!(kinds(&story), ["received-after-the-end"]);
    }

    #[test]
    fn whoever_left_and_is_still_heard_violates() {
        let mut story = Story::new();
        let end = alice_leaves(&mut story);
        story.happens("alice1", None, Body::Media(account(1, &[])));
        story.happens("bob1", None, Body::Media(account(2, &[(1, end + 2 * SECOND)])));
        assert_eq!(kinds(&story), ["sent-after-the-end"]);
    }

    #[test]
    fn a_call_that_is_over_ends_every_leg() {
        let mut story = Story::new();
        let end = alice_leaves(&mut story);
        story.is_told("bob", EventType::LocusEnded, &call().url, serde_json::json!({ "instance": "1" }));
        story.happens("bob1", None, Body::Media(account(2, &[(2, end + 2 * SECOND)])));
        assert!(kinds(&story).contains(&"received-after-the-end".to_owned()));
    }

    #[test]
    fn an_intruder_who_is_forwarded_violates() {
        let mut story = Story::new();
        alice_leaves(&mut story);
        story.happens("eve1", None, Body::Media(Media { bound: false, ..account(9, &[]) }));
        story.happens("bob1", None, Body::Media(account(2, &[])));
        let verdict = MediaEndsWithTheCall.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
        story.happens("bob1", None, Body::Media(account(2, &[(9, 1)])));
        assert_eq!(kinds(&story), ["unbound-forwarded"]);
    }

    #[test]
    fn an_intruder_who_hears_violates() {
        let mut story = Story::new();
        story.happens("bob1", None, Body::Media(account(2, &[])));
        story.happens("eve1", None, Body::Media(Media { bound: false, ..account(9, &[(2, 1)]) }));
        assert_eq!(kinds(&story), ["unbound-received"]);
    }

    #[test]
    fn media_of_another_call_violate() {
        let mut story = Story::new();
        let other = Media { instance: fusion_protocol::Count(2), ..account(3, &[]) };
        story.happens("ann1", None, Body::Media(other));
        story.happens("bob1", None, Body::Media(account(2, &[(3, 1)])));
        assert_eq!(kinds(&story), ["foreign-call-forwarded"]);
    }

    #[test]
    fn without_media_there_is_no_case() {
        let mut story = Story::new();
        alice_leaves(&mut story);
        assert!(MediaEndsWithTheCall.judge(story.told()).had_no_case());
    }
}
