//! Mercury: what a device is told, and in which order (MER).

mod reached;
mod resync;
mod sessions;
mod slow;
mod streams;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;

use fusion_protocol::mercury::{RETENTION_EVENTS, RETENTION_SECONDS};
use fusion_protocol::{Address, Uuid};

use crate::event::{Body, Call, Event, EventId, SocketChange};
use crate::facts::{Facts, Moment, Sight, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::table::Table;

pub(super) use reached::EveryDeviceIsReached;
pub(super) use resync::MissedIsTold;
pub(super) use sessions::OneSocketAtATime;
pub(super) use slow::NobodyWaitsForTheSlow;

/// MER-002: a device's events are numbered without gaps, also across sockets; only a re-sync may jump, and
/// only where more was owed, or for longer, than is kept (MER-005): not because of a crash, nor of a move
/// (MAP-007). A number that comes again is the same event again.
///
/// A case is a delivery to a device whose socket was ready, and a re-sync that nothing excuses.
pub(super) struct GaplessDelivery;

/// What destroys queues, and what makes that which was kept for a minute look like a day old.
const EXCUSES: [&str; 4] = ["lose_rows", "jump", "skew", "drift"];

/// The stream of one registered device.
#[derive(Default)]
struct Stream {
    /// The number of the last event, and what told of it; `None` before the first socket was ready.
    last: Option<(u64, EventId)>,
    /// Which event had which number.
    ids: BTreeMap<u64, (Uuid, EventId)>,
}

impl Judge for GaplessDelivery {
    fn name(&self) -> &'static str {
        "gapless-delivery"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MER-002"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let mut streams: Table<&str, Stream> = Table::default();
        judge_resyncs(facts, case);
        for moment in facts.moments() {
            match moment {
                // A device that is registered anew has a new stream.
                Moment::Asked(asked) if asked.verb == Verb::Connect => {
                    streams.swap_remove(asked.host);
                }
                Moment::Seen(event) => streams.entry(&event.host).or_default().see(event, case),
                Moment::Asked(_) | Moment::Returned(..) => {}
            }
        }
    }
}

/// A device that was told how far it is is told to re-sync only when what it was owed had to be given up.
fn judge_resyncs(facts: &Facts<'_>, case: &mut Casebook) {
    if EXCUSES.iter().any(|family| facts.faults().had(family)) {
        return;
    }
    // Of each device the number that it is known to have had last, and where that was seen.
    let mut had: Table<&str, (u64, EventId)> = Table::default();
    for event in facts.seen(Sight::Device).take_while(|event| event.at_us < RETENTION_SECONDS * 1_000_000) {
        match &event.body {
            Body::Deliver { seq, .. } => drop(had.insert(&event.host, (seq.0, event.id))),
            Body::Socket { what: SocketChange::Ready, base, .. } => {
                had.insert(&event.host, (base.0, event.id));
            }
            Body::Socket { user, what: SocketChange::Resync, base, .. } => {
                let Some((last, at)) = had.insert(&event.host, (base.0, event.id)) else { continue };
                if base.0.saturating_sub(last) <= RETENTION_EVENTS && !is_made_anew(facts, user) {
                    case.reached();
                    let statement = format!(
                        "{} had {last} and was told to re-sync at {base}, though nothing had to be given up",
                        event.host
                    );
                    case.violated("given-up-too-early", statement, [at, event.id]);
                }
            }
            _ => {}
        }
    }
}

/// Whether a user was deleted, or had an account in another cluster made beside the own one: then a device
/// begins anew.
fn is_made_anew(facts: &Facts<'_>, user: &Address) -> bool {
    let made = facts.asked_to(Verb::Provision).filter(|asked| {
        matches!(asked.call, Call::Provision { user: made, .. } if made == user) && asked.answer().is_some()
    });
    facts.deprovisioned().contains(user) || made.count() > 1
}

impl Stream {
    fn see(&mut self, event: &Event, case: &mut Casebook) {
        match &event.body {
            Body::Socket { what: SocketChange::Ready, base, .. } => self.ready(base.0, event, case),
            Body::Socket { what: SocketChange::Resync, base, .. } => self.last = Some((base.0, event.id)),
            Body::Deliver { id, seq, .. } => self.delivered(seq.0, *id, event, case),
            _ => {}
        }
    }

    /// A socket may begin before what the device has: that is repeated. Not after it.
    fn ready(&mut self, base: u64, event: &Event, case: &mut Casebook) {
        match self.last {
            Some((last, told)) if base > last => {
                let statement = format!("{} had {last} and its next socket began after {base}", event.host);
                case.violated("socket-jumps", statement, [told, event.id]);
                self.last = Some((base, event.id));
            }
            _ => self.last = Some((base, event.id)),
        }
    }

    fn delivered(&mut self, seq: u64, id: Uuid, event: &Event, case: &mut Casebook) {
        let Some((last, told)) = self.last else { return };
        case.reached();
        if let Some((known, first)) = self.ids.get(&seq).filter(|(known, _)| *known != id) {
            let statement = format!("{} was told two events as number {seq}: {known} and {id}", event.host);
            case.violated("number-reused", statement, [*first, event.id]);
        }
        if seq > last + 1 {
            let statement = format!("{} was told number {seq} after number {last}", event.host);
            case.violated("gap", statement, [told, event.id]);
        }
        self.ids.entry(seq).or_insert((id, event.id));
        self.last = Some((seq.max(last), event.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FaultPhase;
    use crate::judge::{Ruling, Verdict};
    use crate::testing::{Story, conversation_url, user};
    use fusion_protocol::Count;
    use fusion_protocol::mercury::EventType;
    use serde_json::Value;
    use std::time::Duration;

    fn socket(what: SocketChange, base: u64) -> Body {
        Body::Socket { user: user("alice"), what, base: Count(base), session: Count(1) }
    }

    fn told(seq: u64, id: u128) -> Body {
        Body::Deliver {
            user: user("alice"),
            session: Count(1),
            id: Uuid::from_u128(id),
            seq: Count(seq),
            event_type: EventType::ConversationActivity,
            resource: conversation_url("a", 1),
            data: Value::Null,
        }
    }

    fn judged(bodies: impl IntoIterator<Item = Body>) -> Verdict {
        let mut story = Story::new();
        for body in bodies {
            story.happens("alice1", None, body);
        }
        GaplessDelivery.judge(story.told())
    }

    #[test]
    fn one_after_the_other_also_on_the_next_socket_holds() {
        use SocketChange::{Closed, Ready};
        let verdict = judged([
            socket(Ready, 0),
            told(1, 1),
            told(2, 2),
            socket(Closed, 2),
            // The acknowledgement of 2 was lost: it comes again.
            socket(Ready, 1),
            told(2, 2),
            told(3, 3),
        ]);
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 4));
    }

    #[test]
    fn a_gap_violates() {
        let verdict = judged([socket(SocketChange::Ready, 0), told(1, 1), told(3, 3)]);
        assert_eq!((verdict.ruling, verdict.violated), (Ruling::Violated, 1));
        assert_eq!(verdict.violations[0].fingerprint, "gapless-delivery/MER-002/gap");
    }

    #[test]
    fn a_socket_that_begins_too_late_violates() {
        let verdict = judged([socket(SocketChange::Ready, 0), told(1, 1), socket(SocketChange::Ready, 2)]);
        assert_eq!(verdict.violations[0].fingerprint, "gapless-delivery/MER-002/socket-jumps");
    }

    #[test]
    fn only_a_resync_may_jump_where_more_was_owed_than_is_kept() {
        let base = RETENTION_EVENTS + 1;
        let resync = socket(SocketChange::Resync, base);
        let verdict = judged([socket(SocketChange::Ready, 0), resync, told(base + 1, 8)]);
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn a_resync_though_nothing_had_to_be_given_up_violates() {
        let verdict = judged([
            socket(SocketChange::Ready, 0),
            told(1, 1),
            socket(SocketChange::Closed, 1),
            socket(SocketChange::Ready, 1),
            socket(SocketChange::Resync, 3),
        ]);
        assert_eq!(verdict.violations[0].fingerprint, "gapless-delivery/MER-002/given-up-too-early");
        assert_eq!(verdict.violations[0].excerpt.len(), 2);
    }

    #[test]
    fn what_was_kept_for_a_day_may_be_given_up() {
        let mut story = Story::new();
        story.happens("alice1", None, socket(SocketChange::Ready, 0));
        story.wait(Duration::from_secs(RETENTION_SECONDS));
        story.happens("alice1", None, socket(SocketChange::Resync, 3));
        assert!(GaplessDelivery.judge(story.told()).had_no_case());
    }

    #[test]
    fn a_clock_that_was_put_forward_or_rows_that_were_lost_excuse_a_resync() {
        for family in EXCUSES {
            let mut story = Story::new();
            story.fault("f", family, FaultPhase::Began, serde_json::json!({ "host": "a" }));
            story.happens("alice1", None, socket(SocketChange::Ready, 0));
            story.happens("alice1", None, socket(SocketChange::Resync, 3));
            assert!(GaplessDelivery.judge(story.told()).had_no_case(), "{family}");
        }
    }

    #[test]
    fn a_number_for_another_event_violates() {
        let verdict =
            judged([socket(SocketChange::Ready, 0), told(1, 1), socket(SocketChange::Ready, 0), told(1, 2)]);
        assert_eq!(verdict.violations[0].fingerprint, "gapless-delivery/MER-002/number-reused");
    }

    #[test]
    fn without_a_socket_there_is_no_case() {
        let verdict = judged([told(4, 4)]);
        assert!(verdict.had_no_case());
    }
}
