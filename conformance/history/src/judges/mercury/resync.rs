//! MER-003: a device that missed too much is told so, and finds the truth by asking.

use fusion_protocol::{Address, limits};

use super::streams::{families, missing};
use crate::event::{Answer, Body, Call, EventId, SocketChange};
use crate::facts::{Facts, Moment, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::judges::rendezvous::count;
use crate::table::Table;

/// MER-003: a device that was away and lacks what another one of its user's was told has been told to
/// re-sync; and whoever is told so finds by reading the index everything that the notifications spoke of.
///
/// The cases are devices that lacked something, and readings of the index after a `resync`.
pub(crate) struct MissedIsTold;

impl Judge for MissedIsTold {
    fn name(&self) -> &'static str {
        "missed-is-told"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MER-003"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        if facts.faults().had("lose_rows") {
            return;
        }
        for family in families(facts) {
            for stream in family.iter().filter(|stream| stream.was_away) {
                let missing = missing(&family, stream);
                let Some((id, at, by)) = missing.first() else { continue };
                case.reached();
                if stream.resyncs.is_empty() {
                    let (host, more) = (stream.host, missing.len());
                    let statement = format!(
                        "{host} was never told {more} events that {by} was told ({id}), and no resync"
                    );
                    case.violated("missed-and-not-told", statement, [*at]);
                }
            }
        }
        judge_readings(facts, case);
    }
}

/// A device that was told to re-sync and has not read its index to the end yet.
struct Reading {
    since: EventId,
    /// Up to where its user had been told when it began to read.
    owed: Option<(u64, EventId)>,
    through: u64,
}

fn judge_readings(facts: &Facts<'_>, case: &mut Casebook) {
    let homes = facts.clusters_of_users();
    let mut told: Table<&Address, (u64, EventId)> = Table::default();
    let mut readings: Table<&str, Reading> = Table::default();
    for moment in facts.moments() {
        match moment {
            Moment::Seen(event) => match &event.body {
                Body::Deliver { user, data, .. } => {
                    if let Some(cursor) = data.get("indexCursor").and_then(count) {
                        let known = told.entry(user).or_insert((cursor, event.id));
                        *known = (*known).max((cursor, event.id));
                    }
                }
                Body::Socket { what: SocketChange::Resync, user, .. }
                    if homes.get(user).is_some_and(|at| at.len() == 1) =>
                {
                    readings.insert(&event.host, Reading { since: event.id, owed: None, through: 0 });
                }
                _ => {}
            },
            Moment::Asked(asked) if asked.verb == Verb::ReadIndex => {
                if let (Call::ReadIndex { after }, Some(reading)) = (asked.call, readings.get_mut(asked.host))
                    && after.0 == 0
                {
                    reading.owed = Some(told.get(asked.actor).copied().unwrap_or((0, reading.since)));
                    reading.through = 0;
                }
            }
            Moment::Returned(asked, _) if asked.verb == Verb::ReadIndex => {
                let Some(reading) = readings.get_mut(asked.host) else { continue };
                let (Some(Answer::Index { entries, cursor }), Call::ReadIndex { after }, Some((owed, heard))) =
                    (asked.answer(), asked.call, reading.owed)
                else {
                    continue;
                };
                if after.0 != reading.through {
                    continue;
                }
                reading.through = cursor.0;
                if entries.len() >= limits::PAGE_MAX {
                    continue;
                }
                case.reached();
                if cursor.0 < owed {
                    let (host, since) = (asked.host, reading.since);
                    let statement = format!(
                        "{host} was told to re-sync, and the index ends at {cursor}; its user was told {owed}"
                    );
                    case.violated("truth-not-found", statement, asked.events().chain([heard, since]));
                }
                readings.swap_remove(asked.host);
            }
            Moment::Asked(_) | Moment::Returned(..) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Told, family};
    use super::*;
    use crate::judge::Ruling;
    use crate::testing::{Story, conversation_url};

    fn judged(story: &Story) -> (Ruling, u64, Vec<String>) {
        let verdict = MissedIsTold.judge(story.told());
        let kinds = verdict.violations.iter().map(|violation| violation.fingerprint.clone()).collect();
        (verdict.ruling, verdict.reached, kinds)
    }

    #[test]
    fn a_device_that_missed_something_is_told() {
        let story = family(&[Told::Away, Told::Resync]);
        assert_eq!(judged(&story), (Ruling::Holds, 1, vec![]));
    }

    #[test]
    fn a_device_that_comes_back_and_is_not_told_violates() {
        let story = family(&[Told::Event(1), Told::Away]);
        assert_eq!(judged(&story).2, ["missed-is-told/MER-003/missed-and-not-told"]);
    }

    /// Bob's device is told of a conversation, then to re-sync, and reads.
    fn bob_reads_afresh(found: bool) -> Story {
        let url = conversation_url("a", 1);
        let mut story = Story::new();
        story.is_online("bob");
        story.is_told_of("bob", &url, 1);
        story.socket("bob", SocketChange::Resync);
        let entries: &[&fusion_protocol::Url] = if found { &[&url] } else { &[] };
        story.has_in_index("bob", entries);
        story
    }

    #[test]
    fn reading_gives_the_truth() {
        assert_eq!(judged(&bob_reads_afresh(true)), (Ruling::Holds, 1, vec![]));
        assert_eq!(judged(&bob_reads_afresh(false)).2, ["missed-is-told/MER-003/truth-not-found"]);
    }
}
