//! MAP-007: an index moves whole, in the commit by which its user arrives.

use std::collections::BTreeMap;

use fusion_protocol::{Count, limits};

use super::{Moved, final_index};
use crate::event::{Answer, Call, EventId};
use crate::facts::{Asked, Facts, Verb};
use crate::judge::Casebook;

/// What the index listed before the move, it lists after it: as soon as anybody looks, and at rest.
pub(super) fn judge<'h>(facts: &Facts<'h>, moved: &Moved<'_, 'h>, case: &mut Casebook) {
    let listed = listed_before(facts, moved);
    judge_index(facts, moved, &listed, case);
    judge_readings(facts, moved, &listed, case);
}

/// What the index listed before the move: by URL the first reading that showed it. What lost a race may go.
fn listed_before<'f, 'h>(facts: &'f Facts<'h>, moved: &Moved<'_, 'h>) -> BTreeMap<&'h str, &'f Asked<'h>> {
    let mut listed = BTreeMap::new();
    let before = facts.asked_to(Verb::ReadIndex).take_while(|asked| asked.id < moved.ordered);
    for asked in before.filter(|asked| asked.actor == moved.user) {
        let Some(Answer::Index { entries, .. }) = asked.answer() else { continue };
        for entry in entries {
            let url = entry.url.as_str();
            let lost_race = facts.conversations().named(url).is_some_and(|known| known.is_superseded());
            if !lost_race && entry.superseded_by.is_none() {
                listed.entry(url).or_insert(asked);
            }
        }
    }
    listed
}

/// Whatever the index listed before is in it at rest.
fn judge_index<'h>(
    facts: &Facts<'h>,
    moved: &Moved<'_, 'h>,
    listed: &BTreeMap<&'h str, &Asked<'h>>,
    case: &mut Casebook,
) {
    let Some(index) = final_index(facts, moved.user) else {
        return case.not_observed("nobody read the index of a user who moved once nothing moved any more");
    };
    for (url, asked) in listed {
        case.reached();
        if !index.entries.contains_key(url) {
            left_behind(moved, url, asked.events().chain(index.events.iter().copied()), case);
        }
    }
}

/// The user and what came along are there in one commit: nobody is ever at the new cluster without it. A
/// cursor is what a reader goes on from, so it comes along, too. What a lost table took with it, a repair
/// brings back later.
fn judge_readings<'h>(
    facts: &Facts<'h>,
    moved: &Moved<'_, 'h>,
    listed: &BTreeMap<&'h str, &Asked<'h>>,
    case: &mut Casebook,
) {
    if facts.faults().had("lose_rows") {
        return;
    }
    let mut reached: Option<(Count, &Asked<'_>)> = None;
    for asked in facts.asked_to(Verb::ReadIndex).filter(|asked| asked.actor == moved.user) {
        let Some(Answer::Index { entries, cursor }) = asked.answer() else { continue };
        if asked.ended_before(moved.ordered) {
            if reached.is_none_or(|(highest, _)| *cursor > highest) {
                reached = Some((*cursor, asked));
            }
            continue;
        }
        let whole =
            matches!(asked.call, Call::ReadIndex { after: Count(0) }) && entries.len() < limits::PAGE_MAX;
        if asked.id < moved.done || !whole {
            continue;
        }
        case.reached();
        for (url, before) in listed {
            if !entries.iter().any(|entry| entry.url.as_str() == *url) {
                left_behind(moved, url, before.events().chain(asked.events()), case);
            }
        }
        if let Some((highest, before)) = reached.filter(|(highest, _)| highest > cursor) {
            let user = moved.user.as_str();
            let statement =
                format!("the index of {user} was at cursor {highest} before the move, and is at {cursor}");
            case.violated("cursor-went-back", statement, before.events().chain(asked.events()));
        }
    }
}

fn left_behind(moved: &Moved<'_, '_>, url: &str, events: impl Iterator<Item = EventId>, case: &mut Casebook) {
    let statement = format!("{url} was in the index of {} before the move", moved.user.as_str());
    case.violated("index-left-behind", statement, events);
}

#[cfg(test)]
mod tests {
    use super::super::tests::{comes_to_rest, judged, kind, move_of, story};
    use super::*;
    use crate::event::FaultPhase;
    use crate::testing::{Story, conversation_url, index_entry};
    use serde_json::json;

    #[test]
    fn an_entry_that_stayed_behind_violates() {
        let mut story = story();
        story.comes_to_rest();
        story.has_in_index("bob", &[]);
        assert_eq!(kind(&judged(&story)), "index-left-behind");
    }

    #[test]
    fn an_entry_that_comes_after_its_user_violates() {
        let mut story = story();
        story.has_in_index("bob", &[]);
        comes_to_rest(&mut story);
        assert_eq!(kind(&judged(&story)), "index-left-behind");
    }

    #[test]
    fn an_index_that_counts_anew_violates() {
        let mut story = Story::new();
        let urls = [1, 2].map(|n| conversation_url("a", n));
        story.has_in_index("bob", &[&urls[0], &urls[1]]);
        story.does("admin", move_of("bob"), Answer::Nothing {});
        let entries = urls.iter().map(|url| index_entry(url, 1)).collect();
        let found = Answer::Index { entries, cursor: Count(1) };
        story.does("bob", Call::ReadIndex { after: Count(0) }, found);
        assert_eq!(kind(&judged(&story)), "cursor-went-back");
    }

    #[test]
    fn what_a_lost_table_took_with_it_accuses_no_move() {
        let mut story = Story::new();
        let tables = json!({ "host": "d", "tables": ["index"] });
        story.fault("f", "lose_rows", FaultPhase::Began, tables);
        story.has_in_index("bob", &[&conversation_url("a", 1)]);
        story.does("admin", move_of("bob"), Answer::Nothing {});
        story.has_in_index("bob", &[]);
        assert_eq!(judged(&story).violated, 0);
    }
}
