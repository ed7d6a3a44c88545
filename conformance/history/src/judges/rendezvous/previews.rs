//! RDV-004: an index points, and shows; it knows nothing of its own.

use fusion_protocol::conversation::{Act, Activity};
use fusion_protocol::index::IndexEntry;
use fusion_protocol::limits::PREVIEW_MAX;

use crate::event::{Answer, Call, EventId};
use crate::facts::{Asked, Facts, Verb};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::table::Table;

/// RDV-004: the preview of an index is bounded, in the home's order, and says what the home says.
///
/// A case is a preview of which the home's own word on at least one activity is known.
pub(crate) struct PreviewsAreTheHomes;

/// Where an activity stands at its home, and what somebody was answered there.
type AtHome<'h> = Table<(&'h str, u64), (&'h Activity, EventId)>;

impl Judge for PreviewsAreTheHomes {
    fn name(&self) -> &'static str {
        "previews-are-the-homes"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["RDV-004"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let at_home = at_home(facts);
        for asked in facts.asked_to(Verb::ReadIndex) {
            let Some(Answer::Index { entries, .. }) = asked.answer() else { continue };
            for entry in entries.iter().filter(|entry| !entry.preview.is_empty()) {
                judge_preview(asked, entry, &at_home, case);
            }
        }
    }
}

/// What homes answered: to readers, and to those who wrote.
fn at_home<'h>(facts: &Facts<'h>) -> AtHome<'h> {
    let mut at_home = AtHome::default();
    // Only the first word counts, whoever had it: in the order of the questions.
    for asked in facts.calls().iter().filter(|asked| matches!(asked.verb, Verb::Read | Verb::Post)) {
        let Some(back) = asked.back else { continue };
        let (url, activities, to) = match (asked.call, asked.answer()) {
            (Call::Read { conversation, .. }, Some(Answer::Activities { activities, redirected_to, .. })) => {
                (conversation, activities.as_slice(), redirected_to)
            }
            (Call::Post { conversation, .. }, Some(Answer::Accepted { activity, redirected_to, .. })) => {
                (conversation, std::slice::from_ref(&**activity), redirected_to)
            }
            _ => continue,
        };
        let url = to.as_ref().unwrap_or(url).as_str();
        for activity in activities {
            at_home.entry((url, activity.seq.0)).or_insert((activity, back.id));
        }
    }
    at_home
}

fn judge_preview(asked: &Asked<'_>, entry: &IndexEntry, at_home: &AtHome<'_>, case: &mut Casebook) {
    let (who, url, preview) = (asked.actor.as_str(), &entry.url, &entry.preview);
    let known = |activity: &Activity| at_home.get(&(url.as_str(), activity.seq.0));
    if preview.iter().any(|activity| known(activity).is_some()) {
        case.reached();
    }
    if preview.len() > PREVIEW_MAX {
        let statement = format!("the index of {who} shows {} activities of {url}", preview.len());
        case.violated("preview-too-long", statement, asked.events());
    }
    let in_order = preview.windows(2).all(|two| two[0].seq < two[1].seq);
    if !in_order || preview.last().is_some_and(|last| last.seq > entry.last_seq) {
        let statement =
            format!("the index of {who} shows activities of {url} in an order that is not the home's");
        case.violated("preview-disordered", statement, asked.events());
    }
    for activity in preview {
        if let Some((home, at)) = known(activity).filter(|(home, _)| !is_same(home, activity)) {
            let statement =
                format!("the index of {who} shows at seq {} of {url} what its home does not", home.seq);
            case.violated("preview-differs", statement, asked.events().chain([*at]));
        }
    }
}

/// The same activity, but for a content that its author took back before or after.
fn is_same(one: &Activity, other: &Activity) -> bool {
    let taken_back = |act: &Act| matches!(act, Act::Message { text } if text.expose().is_empty());
    let same_act = one.act == other.act || taken_back(&one.act) || taken_back(&other.act);
    one.id == other.id && one.author == other.author && same_act
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Ruling, Verdict};
    use crate::testing::{Story, conversation_url, index_entry, message};
    use fusion_protocol::Count;

    /// What Bob's index shows of what Alice said, one and two.
    fn shown(preview: Vec<Activity>) -> Verdict {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.posts("alice", &url, &message("alice", "one", 1));
        story.posts("alice", &url, &message("alice", "two", 2));
        let last_seq = preview.iter().map(|activity| activity.seq).max().unwrap_or_default();
        let entry = IndexEntry { preview, last_seq, ..index_entry(&url, 1) };
        let answer = Answer::Index { entries: vec![entry], cursor: Count(1) };
        story.does("bob", Call::ReadIndex { after: Count(0) }, answer);
        PreviewsAreTheHomes.judge(story.told())
    }

    fn kinds(verdict: &Verdict) -> Vec<&str> {
        verdict.violations.iter().filter_map(|found| found.fingerprint.rsplit('/').next()).collect()
    }

    #[test]
    fn a_preview_that_says_what_the_home_says_holds() {
        let verdict = shown(vec![message("alice", "one", 1), message("alice", "two", 2)]);
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
        let mut taken_back = message("alice", "one", 1);
        taken_back.act = Act::Message { text: "".into() };
        assert_eq!(shown(vec![taken_back]).ruling, Ruling::Holds);
    }

    #[test]
    fn a_preview_with_a_mind_of_its_own_violates() {
        assert_eq!(kinds(&shown(vec![message("alice", "three", 1)])), ["preview-differs"]);
        let swapped = vec![message("alice", "two", 2), message("alice", "one", 1)];
        assert_eq!(kinds(&shown(swapped)), ["preview-disordered"]);
        let endless = (1..=21).map(|seq| message("bob", "more", 100 + seq)).collect();
        assert_eq!(kinds(&shown(endless)), ["preview-too-long"]);
    }

    #[test]
    fn a_preview_of_what_nobody_saw_at_the_home_is_no_case() {
        assert_eq!(shown(vec![message("alice", "seven", 7)]).reached, 0);
    }
}
