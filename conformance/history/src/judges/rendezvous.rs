//! Rendezvous: the object is in one place, and everybody finds it (RDV).

mod away;
mod effects;
mod found;
mod previews;
pub(super) mod prompt;
mod repair;

use std::collections::{BTreeMap, BTreeSet};

use fusion_protocol::conversation::Kind;
use fusion_protocol::index::IndexEntry;
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, ClusterName, Url, limits};
use serde_json::Value;

use crate::event::{Answer, Body, Call, Event, EventId};
use crate::facts::{Asked, Facts, Moment, Pair, Sight, Verb, pair_of};
use crate::judge::{Casebook, Evidence, Judge, Scope};
use crate::table::{Set, Table};

pub(super) use away::HomesAway;
pub(super) use effects::EffectsArriveOnce;
pub(super) use found::FoundBothWays;
pub(super) use previews::PreviewsAreTheHomes;
pub(super) use prompt::PromptDelivery;
pub(super) use repair::IndexRepair;

/// RDV-001: the object is created in the originator's cluster and exists there only.
///
/// A case is a conversation that was made, and each service that reports to hold one.
pub(super) struct OneHome;

/// RDV-002: the index is written before the notification is sent.
///
/// A case is a notification followed by a reading of the index that it speaks of.
pub(super) struct IndexBeforeNotification;

impl Judge for OneHome {
    fn name(&self) -> &'static str {
        "one-home"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["RDV-001"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        if !facts.has_template() {
            case.inconclusive("no World says how URLs are made");
            return;
        }
        let served = facts.clusters_of_users();
        for asked in facts.asked_to(Verb::Create).chain(facts.asked_to(Verb::ReadIndex)) {
            match (asked.call, asked.answer()) {
                (Call::Create { at, .. }, Some(Answer::Conversation { created: true, conversation })) => {
                    judge_creation(facts, asked, &conversation.url, at, served.get(asked.actor), case);
                }
                (_, Some(Answer::Index { entries, .. })) => judge_homes(facts, asked, entries, case),
                _ => {}
            }
        }
        judge_holders(facts, case);
    }
}

/// `own` are the clusters that ever served whoever asks: who moves in the meantime is sent on, and the
/// originator's cluster is then the new one (MAP-007).
fn judge_creation(
    facts: &Facts<'_>,
    asked: &Asked<'_>,
    url: &Url,
    at: &ClusterName,
    own: Option<&BTreeSet<&ClusterName>>,
    case: &mut Casebook,
) {
    case.reached();
    if own.is_some_and(|own| !own.contains(at)) {
        let statement =
            format!("{at} made a conversation for {}, whom it does not serve", asked.actor.as_str());
        case.violated("made-for-a-foreign-user", statement, asked.events());
    }
    let made_at = facts.cluster_of(url);
    let sent_on = || own.zip(made_at.as_ref()).is_some_and(|(own, made_at)| own.contains(made_at));
    if made_at.as_ref() != Some(at) && !sent_on() {
        let statement = format!("a conversation was made at {at}, and its URL is {url}");
        case.violated("made-elsewhere", statement, asked.events());
    }
}

fn judge_homes(facts: &Facts<'_>, asked: &Asked<'_>, entries: &[IndexEntry], case: &mut Casebook) {
    for entry in entries {
        if facts.cluster_of(&entry.url).as_ref() != Some(&entry.home) {
            let statement = format!("an index says that {} lives in {}", entry.url, entry.home);
            case.violated("index-names-another-home", statement, asked.events());
        }
    }
}

/// Evidence `State`: only the cluster that a conversation's URL names holds it.
fn judge_holders(facts: &Facts<'_>, case: &mut Casebook) {
    let mut clusters: BTreeMap<&str, &ClusterName> = BTreeMap::new();
    for cluster in facts.world().into_iter().flat_map(|world| &world.clusters) {
        clusters.insert(cluster.name.as_str(), &cluster.name);
        clusters.extend(cluster.hosts.iter().map(|host| (host.as_str(), &cluster.name)));
    }
    let mut held: Set<(&str, &str)> = Set::default();
    for event in facts.seen(Sight::State) {
        let Body::State { concept, subject, .. } = &event.body else { continue };
        let Some(holder) = clusters.get(event.host.as_str()) else { continue };
        if concept != "conversation" || !held.insert((subject, holder.as_str())) {
            continue;
        }
        case.reached();
        let home = Url::parse(subject).ok().and_then(|url| facts.cluster_of(&url));
        if home.is_some_and(|home| home != **holder) {
            let statement = format!("{holder} holds {subject}");
            case.violated("held-elsewhere", statement, [event.id]);
        }
    }
}

impl Judge for IndexBeforeNotification {
    fn name(&self) -> &'static str {
        "index-before-notification"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["RDV-002"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn scope(&self) -> Scope {
        Scope::Circle
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let mut told: Table<&Address, Vec<Told<'_>>> = Table::default();
        // What each reading under way must show: all that its user had been told when it began.
        let mut due: BTreeMap<EventId, Vec<Told<'_>>> = BTreeMap::new();
        for moment in facts.moments() {
            match moment {
                Moment::Seen(event) => {
                    if let Some((user, news)) = news(event) {
                        told.entry(user).or_default().push(news);
                    }
                }
                Moment::Asked(asked) if asked.verb == Verb::ReadIndex => {
                    let news = told.get_mut(asked.actor).map(std::mem::take).unwrap_or_default();
                    due.insert(asked.id, news);
                }
                Moment::Returned(asked, _) if asked.verb == Verb::ReadIndex => {
                    let Some(news) = due.remove(&asked.id) else { continue };
                    let left = judge_reading(asked, news, case);
                    told.entry(asked.actor).or_default().extend(left);
                }
                Moment::Asked(_) | Moment::Returned(..) => {}
            }
        }
        let unread: usize = told.values().chain(due.values()).map(Vec::len).sum();
        (0..unread).for_each(|_| case.not_observed("nobody read the index after a notification of it"));
    }
}

/// A notification of a place in the user's index.
#[derive(Clone, Copy)]
struct Told<'h> {
    id: EventId,
    resource: &'h Url,
    cursor: u64,
}

fn news(event: &Event) -> Option<(&Address, Told<'_>)> {
    let Body::Deliver { user, event_type, resource, data, .. } = &event.body else { return None };
    let of_index = matches!(event_type, EventType::ConversationCreated | EventType::ConversationActivity);
    let cursor = count(data.get("indexCursor")?)?;
    of_index.then_some((user, Told { id: event.id, resource, cursor }))
}

/// Answers the news that this reading could not show: it failed, or began after them, or was cut.
fn judge_reading<'h>(asked: &Asked<'h>, news: Vec<Told<'h>>, case: &mut Casebook) -> Vec<Told<'h>> {
    let (Call::ReadIndex { after }, Some(Answer::Index { entries, cursor })) = (asked.call, asked.answer())
    else {
        return news;
    };
    let shown: BTreeMap<&str, u64> =
        entries.iter().map(|entry| (entry.url.as_str(), entry.cursor.0)).collect();
    let full = entries.len() >= limits::PAGE_MAX;
    let mut left = Vec::new();
    for told in news {
        let beyond = full && cursor.0 < told.cursor;
        if after.0 >= told.cursor || beyond {
            left.push(told);
            continue;
        }
        case.reached();
        let (url, due) = (told.resource, told.cursor);
        let who = asked.actor.as_str();
        let (kind, statement) = match shown.get(url.as_str()) {
            Some(at) if *at >= due => continue,
            Some(at) => (
                "index-behind",
                format!("{who} was told of {url} at cursor {due} and found it at cursor {at}"),
            ),
            None => ("index-empty", format!("{who} was told of {url} at cursor {due} and did not find it")),
        };
        case.violated(kind, statement, asked.events().chain([told.id]));
    }
    left
}

/// The conversations that raced no other: groups, and the only ones of their pairs, if nobody may have made
/// another one. The winner of a race is shown as a whole, and what was said in a loser takes another way.
pub(super) fn undisputed<'h>(facts: &Facts<'h>) -> Set<&'h str> {
    let may_have_made = |asked: &&Asked<'h>| {
        let refused = asked.refusal().is_some_and(|(status, _)| status < 500);
        matches!(asked.call, Call::Create { kind: Kind::OneToOne, .. })
            && asked.answer().is_none()
            && !refused
    };
    let mut open: BTreeSet<Pair<'h>> = BTreeSet::new();
    for asked in facts.asked_to(Verb::Create).filter(may_have_made) {
        if let Call::Create { others, .. } = asked.call {
            open.extend(others.iter().map(|other| pair_of(asked.actor, other)));
        }
    }
    let known = facts.conversations();
    let groups = known.iter().filter(|known| known.kind == Some(Kind::Group)).map(|known| known.url.as_str());
    let pairs =
        known.pairs().iter().filter(|case| case.conversations.len() == 1 && !open.contains(&case.pair));
    groups.chain(pairs.flat_map(|case| case.conversations.iter().copied())).collect()
}

/// Counters are strings on the wire; a number is understood too.
pub(super) fn count(value: &Value) -> Option<u64> {
    value.as_str().map_or_else(|| value.as_u64(), |text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Ruling;
    use crate::testing::{self, Story, conversation, conversation_url, create, created, index_entry, user};
    use fusion_protocol::Count;
    use fusion_protocol::conversation::ConversationState::Bound;

    #[test]
    fn a_conversation_lives_where_it_was_made() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.creates("alice", "bob", &url, Bound);
        story.state("a", "conversation", url.as_str(), "BOUND");
        story.has_in_index("bob", &[&url]);
        let verdict = OneHome.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 2));
    }

    /// MAP-007: whoever moves while a conversation is made is sent on.
    #[test]
    fn a_conversation_of_somebody_who_moves_may_be_made_at_the_new_cluster() {
        let mut story = Story::new();
        let to = testing::cluster("b");
        let provision = Call::Provision { user: user("alice"), cluster: to };
        story.does("admin", provision, Answer::Provisioned { incarnation: None });
        story.creates("alice", "bob", &conversation_url("b", 1), Bound);
        assert_eq!(OneHome.judge(story.told()).ruling, Ruling::Holds);
    }

    #[test]
    fn a_conversation_made_in_the_others_cluster_violates() {
        let mut story = Story::new();
        story.creates("alice", "bob", &conversation_url("b", 1), Bound);
        let verdict = OneHome.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Violated, 1));
        assert_eq!(verdict.violations[0].fingerprint, "one-home/RDV-001/made-elsewhere");
    }

    #[test]
    fn a_cluster_that_makes_conversations_for_others_violates() {
        let mut story = Story::new();
        let url = conversation_url("b", 1);
        let (kind, others) = (Kind::OneToOne, vec![user("bob")]);
        let at = testing::cluster("b");
        let call = Call::Create { kind, others, at, key: "k".into() };
        story.does("alice", call, created(true, conversation(&url, &["alice", "bob"], Bound)));
        let verdict = OneHome.judge(story.told());
        assert_eq!(verdict.violations[0].fingerprint, "one-home/RDV-001/made-for-a-foreign-user");
    }

    #[test]
    fn a_copy_in_another_cluster_violates() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.creates("alice", "bob", &url, Bound);
        story.state("b", "conversation", url.as_str(), "BOUND");
        assert_eq!(OneHome.judge(story.told()).violations[0].fingerprint, "one-home/RDV-001/held-elsewhere");
    }

    #[test]
    fn an_index_that_names_another_home_violates() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        let entry = IndexEntry { home: testing::cluster("b"), ..index_entry(&url, 1) };
        let answer = Answer::Index { entries: vec![entry], cursor: Count(1) };
        story.does("bob", Call::ReadIndex { after: Count(0) }, answer);
        assert_eq!(OneHome.judge(story.told()).ruling, Ruling::Violated);
    }

    #[test]
    fn finding_an_existing_conversation_is_no_case() {
        let mut story = Story::new();
        let found = conversation(&conversation_url("a", 1), &["alice", "bob"], Bound);
        story.does("bob", create("bob", "alice"), created(false, found));
        assert_eq!(OneHome.judge(story.told()).reached, 0);
    }

    #[test]
    fn what_was_notified_is_in_the_index() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.is_told_of("bob", &url, 1);
        story.has_in_index("bob", &[&url]);
        let verdict = IndexBeforeNotification.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Holds, 1));
    }

    #[test]
    fn a_fast_client_that_reads_an_empty_index_violates() {
        let mut story = Story::new();
        story.is_told_of("bob", &conversation_url("a", 1), 1);
        story.has_in_index("bob", &[]);
        let verdict = IndexBeforeNotification.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached), (Ruling::Violated, 1));
        assert_eq!(verdict.violations[0].excerpt.len(), 3);
    }

    #[test]
    fn an_entry_older_than_the_notification_violates() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        story.is_told_of("bob", &url, 2);
        story.has_in_index("bob", &[&url]);
        let verdict = IndexBeforeNotification.judge(story.told());
        assert_eq!(verdict.violations[0].fingerprint, "index-before-notification/RDV-002/index-behind");
    }

    #[test]
    fn a_reading_that_began_before_the_notification_may_miss_it() {
        let mut story = Story::new();
        let url = conversation_url("a", 1);
        let asked = story.asks("bob", Call::ReadIndex { after: Count(0) });
        story.is_told_of("bob", &url, 1);
        story.answers(asked, Answer::Index { entries: vec![], cursor: Count(0) });
        let verdict = IndexBeforeNotification.judge(story.told());
        assert_eq!((verdict.ruling, verdict.reached, verdict.unjudged), (Ruling::Unknown, 0, 1));
        story.has_in_index("bob", &[&url]);
        assert_eq!(IndexBeforeNotification.judge(story.told()).ruling, Ruling::Holds);
    }
}
