//! LOC-001: where a conversation's locus is.

use std::collections::BTreeSet;

use fusion_protocol::{Address, Url};

use super::locus_of;
use crate::event::{Answer, EventId};
use crate::facts::{Asked, Facts};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::table::Table;

/// LOC-001: the locus is in its conversation's cluster, its URL never changes, and both participants
/// always see the same one.
///
/// A case is a conversation whose locus two participants have seen, or one has twice.
pub(crate) struct OneLocusUrl;

/// What was seen of the locus of one conversation.
struct Sight<'h> {
    locus: &'h Url,
    first: EventId,
    times: u64,
    by: BTreeSet<&'h Address>,
}

impl Judge for OneLocusUrl {
    fn name(&self) -> &'static str {
        "one-locus-url"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["LOC-001"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let mut sights: Table<&Url, Sight<'_>> = Table::default();
        for asked in facts.calls() {
            for (conversation, locus) in seen(asked) {
                let sight = sights.entry(conversation).or_insert_with(|| {
                    judge_place(conversation, locus, asked, case);
                    Sight { locus, first: asked.id, times: 0, by: BTreeSet::new() }
                });
                sight.times += 1;
                sight.by.insert(asked.actor);
                if sight.locus != locus {
                    let statement =
                        format!("the locus of {conversation} is {} and then {locus}", sight.locus);
                    case.violated("changed", statement, asked.events().chain([sight.first]));
                }
            }
        }
        let again = sights.values().filter(|sight| sight.times > 1 || sight.by.len() > 1);
        again.for_each(|_| case.reached());
    }
}

/// `{conversation}/locus` is the persistent locus: by that it is in the same cluster.
fn judge_place(conversation: &Url, locus: &Url, asked: &Asked<'_>, case: &mut Casebook) {
    let place = locus.as_str().strip_prefix(conversation.as_str());
    if place != Some("/locus") {
        let statement = format!("the locus of {conversation} is at {locus}");
        case.violated("elsewhere", statement, asked.events());
    }
}

/// Every conversation with its locus that an answer names.
fn seen<'h>(asked: &Asked<'h>) -> Vec<(&'h Url, &'h Url)> {
    if let Some(locus) = locus_of(asked) {
        return vec![(&locus.conversation_url, &locus.url)];
    }
    match asked.answer() {
        Some(Answer::Conversation { conversation, .. }) => vec![(&conversation.url, &conversation.locus_url)],
        Some(Answer::Peer(peer)) => vec![(&peer.url, &peer.locus_url)],
        Some(Answer::Index { entries, .. }) => {
            entries.iter().map(|entry| (&entry.url, &entry.locus_url)).collect()
        }
        Some(Answer::Loci { loci }) => {
            loci.iter().map(|locus| (&locus.conversation_url, &locus.locus_url)).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Call;
    use crate::judge::Ruling;
    use crate::testing::{Story, conversation_url, locus, locus_read, locus_url};
    use fusion_protocol::conversation::ConversationState::Bound;
    use fusion_protocol::locus::{Locus, LocusState};

    #[test]
    fn both_see_the_same_url() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.creates("alice", "bob", &url, Bound);
        story.has_in_index("bob", &[&url]);
        let verdict = OneLocusUrl.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn a_locus_that_moves_violates() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.creates("alice", "bob", &url, Bound);
        let at_b = locus_url(&conversation_url("b", 1));
        let moved = Locus { url: at_b.clone(), ..locus(&url, LocusState::Inactive, 0, &[]) };
        story.does("bob", Call::ReadLocus { locus: at_b }, locus_read(&moved));
        let verdict = OneLocusUrl.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Violated, 1));
        assert_eq!(verdict.violations[0].fingerprint, "one-locus-url/LOC-001/changed");
    }

    #[test]
    fn a_locus_in_another_cluster_violates() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        let at_b = locus_url(&conversation_url("b", 1));
        let away = Locus { url: at_b.clone(), ..locus(&url, LocusState::Inactive, 0, &[]) };
        story.does("bob", Call::ReadLocus { locus: at_b }, locus_read(&away));
        let verdict = OneLocusUrl.judge(story.told());
        assert_eq!(verdict.violations[0].fingerprint, "one-locus-url/LOC-001/elsewhere");
    }
}
