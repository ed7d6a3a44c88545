//! What happens in a conversation at its home: order, membership, who may do what (CNV-001, CNV-002,
//! CNV-006, SEC-006), and what a winner takes over from a loser (CNV-003).
//!
//! Not here: the race itself ([`crate::pair`]), the participants' indexes ([`crate::index`]), storage.

use std::collections::BTreeSet;

use fusion_protocol::conversation::{Act, Activity, ActivityId, Kind, PairKey, Participant};
use fusion_protocol::index::Membership;
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, ClusterName, Code, Count, Incarnation, Pii, Url, UserRef, limits};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::pair::{Contender, Life, LifeEffect, LifeEvent, LifeRefusal};

/// A conversation without its activities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conversation {
    /// Where it is, for ever.
    pub place: Contender,
    /// Whether its members are fixed.
    pub members: Members,
    /// Where it is in the race.
    pub life: Life,
    /// Who made it.
    pub creator: UserRef,
    /// What it is called.
    pub title: Option<Pii<String>>,
    /// Who is in it now.
    pub participants: Vec<Participant>,
    /// The `seq` of its last activity.
    pub last_seq: Count,
    /// The version of its membership.
    pub membership_seq: Count,
    /// When it was made; for display.
    pub created: String,
}

/// Whether members come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Members {
    /// A 1:1 of this pair (CNV-002).
    Fixed {
        /// The pair.
        pair: PairKey,
    },
    /// A group (CNV-006).
    Open,
}

/// Somebody who posts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author<'a> {
    /// Who.
    pub user: &'a UserRef,
    /// The post's identity.
    pub id: ActivityId,
    /// When; for display.
    pub published: String,
}

/// What an act is about, as the home has found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About<'a> {
    /// Nothing but itself.
    Itself,
    /// An activity of this conversation; `None`: there is no such activity.
    Activity(Option<&'a Activity>),
    /// A newcomer, as resolved; unknown parts are resolved later (RDV-002: nobody waits for them).
    Newcomer {
        /// Who that is.
        incarnation: Option<Incarnation>,
        /// Where they are served.
        cluster: Option<ClusterName>,
    },
}

/// What a post leads to, all of it in one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The activity with its place.
    pub activity: Activity,
    /// The activity whose content is taken back.
    pub taken_back: Option<Activity>,
    /// Whose indexes change.
    pub announce: Vec<Announce>,
}

/// One user's index changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Whose, and where as last resolved.
    pub to: Participant,
    /// Whether they are in it now.
    pub membership: Membership,
    /// What their devices are woken with.
    pub event: EventType,
}

/// What a winner takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenOver {
    /// The new activities, at the end, in the loser's order.
    pub appended: Vec<Activity>,
    /// Activities, here or among the appended, whose content is taken back by them.
    pub taken_back: Vec<ActivityId>,
    /// What the race demands.
    pub effects: Vec<LifeEffect>,
}

/// Why something is not done; nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// SEC-006.
    #[error("only participants may")]
    NotParticipant,
    /// CNV-002.
    #[error("a one-to-one conversation has fixed members")]
    FixedMembership,
    /// CNV-003: it is being merged.
    #[error("the conversation is being merged")]
    Sealing,
    /// CNV-003: go to the winner.
    #[error("the conversation is superseded")]
    Superseded(Url),
    /// That person is in it.
    #[error("already a participant")]
    AlreadyIn,
    /// That person is not in it.
    #[error("not a participant")]
    NotIn,
    /// SEC-007.
    #[error("too many participants")]
    TooMany,
    /// SEC-007.
    #[error("the text is too long")]
    TooLong,
    /// There is nothing in it.
    #[error("the text is empty")]
    Empty,
    /// There is no such activity here.
    #[error("no such activity")]
    NoSuchActivity,
    /// Only the author takes an activity back.
    #[error("not the author")]
    NotAuthor,
    /// The file does not lie in this conversation (CNV-008).
    #[error("the file does not lie at the conversation's home")]
    ForeignFile,
    /// CNV-003: this author is not the exporting cluster's to speak for.
    #[error("the exporting cluster does not speak for this author")]
    NotYours,
    /// The race does not allow it.
    #[error(transparent)]
    Race(#[from] LifeRefusal),
}

/// What identifies an activity everywhere: in a 1:1 the same in every conversation of the pair, so that
/// a client's retry at the winner is the same activity (CNV-003).
#[must_use]
pub fn activity_id(conversation: &Conversation, author: &UserRef, idempotency_key: &str) -> ActivityId {
    let scope = match &conversation.members {
        Members::Fixed { pair } => pair.0.to_vec(),
        Members::Open => conversation.place.url.as_str().as_bytes().to_vec(),
    };
    let digest = Sha256::new()
        .chain_update(scope)
        .chain_update([0])
        .chain_update(author.octets())
        .chain_update([0])
        .chain_update(idempotency_key);
    ActivityId(digest.finalize().into())
}

/// An activity whose content its author has taken back: an empty message, which nobody can post.
#[must_use]
pub fn taken_back(activity: &Activity) -> Activity {
    let act = match &activity.act {
        Act::Message { .. } => Act::Message { text: Pii::default() },
        other => other.clone(),
    };
    Activity { act, ..activity.clone() }
}

impl Conversation {
    /// Which kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.members {
            Members::Fixed { .. } => Kind::OneToOne,
            Members::Open => Kind::Group,
        }
    }

    /// SEC-006: whether this very person is in it. An unresolved participant is whoever the map says
    /// the address is, which the token's check has just asked.
    #[must_use]
    pub fn is_participant(&self, user: &UserRef) -> bool {
        self.participant(&user.user)
            .is_some_and(|found| found.incarnation.is_none_or(|known| known == user.incarnation))
    }

    /// The participant with this address.
    #[must_use]
    pub fn participant(&self, user: &Address) -> Option<&Participant> {
        self.participants.iter().find(|participant| participant.user == *user)
    }

    /// The one participant of a 1:1 who did not make it.
    #[must_use]
    pub fn other(&self) -> Option<&Participant> {
        self.participants.iter().find(|participant| participant.user != self.creator.user)
    }

    /// CNV-001: adds one activity at the end.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn post(&mut self, author: Author<'_>, act: &Act, about: &About<'_>) -> Result<Posted, Refusal> {
        self.takes_writes()?;
        if !self.is_participant(author.user) {
            return Err(Refusal::NotParticipant);
        }
        self.allows(author.user, act, about)?;
        let seq = self.last_seq.next();
        self.last_seq = seq;
        let announce = self.change(author.user, act, about, seq);
        let activity = Activity {
            id: author.id,
            seq,
            author: author.user.user.clone(),
            incarnation: author.user.incarnation,
            published: author.published,
            act: act.clone(),
            attested_by: None,
        };
        let taken_back = match about {
            About::Activity(Some(target)) if matches!(act, Act::Delete { .. }) => Some(taken_back(target)),
            _ => None,
        };
        Ok(Posted { activity, taken_back, announce })
    }

    /// CNV-003: takes over what `loser_home` sends of a loser, except what is `known` here. Activities
    /// keep their author's order, and get their places at the end.
    ///
    /// # Errors
    /// [`Refusal::NotYours`] for an author whom the exporting cluster does not serve and does not attest,
    /// [`Refusal::Race`] when this conversation is not the winner.
    pub fn import(
        &mut self,
        loser_home: &ClusterName,
        activities: &[Activity],
        known: &BTreeSet<ActivityId>,
    ) -> Result<TakenOver, Refusal> {
        let Members::Fixed { pair } = self.members else { return Err(LifeRefusal::NotTheWinner.into()) };
        for activity in activities {
            self.vouched(loser_home, activity)?;
        }
        let event = LifeEvent::Imported { loser_home: loser_home.clone() };
        let (life, effects) = self.life.step(&self.place, &pair, event)?;
        self.life = life;
        let (mut seen, mut appended) = (known.clone(), Vec::new());
        for activity in activities {
            if seen.insert(activity.id) {
                self.last_seq = self.last_seq.next();
                appended.push(Activity { seq: self.last_seq, ..activity.clone() });
            }
        }
        let taken_back = appended.iter().filter_map(|activity| match activity.act {
            Act::Delete { activity } => Some(activity),
            _ => None,
        });
        Ok(TakenOver { taken_back: taken_back.collect(), appended, effects })
    }

    /// Everybody in it, to be told of an activity.
    #[must_use]
    pub fn everybody(&self, event: EventType) -> Vec<Announce> {
        let reachable = self.participants.iter().filter(|participant| participant.unreachable.is_none());
        let announce = |to: &Participant| Announce { to: to.clone(), membership: Membership::Member, event };
        reachable.map(announce).collect()
    }

    /// RDV-002: nobody at `user`'s cluster will ever take the announcement, for this reason.
    pub fn give_up_on(&mut self, user: &Address, code: Code) {
        if let Some(found) = self.participants.iter_mut().find(|participant| participant.user == *user) {
            found.unreachable = Some(code);
        }
    }

    fn takes_writes(&self) -> Result<(), Refusal> {
        match &self.life {
            Life::Provisional | Life::Bound => Ok(()),
            Life::Sealing { .. } => Err(Refusal::Sealing),
            Life::Superseded { winner } => Err(Refusal::Superseded(winner.url.clone())),
        }
    }

    fn allows(&self, author: &UserRef, act: &Act, about: &About<'_>) -> Result<(), Refusal> {
        match act {
            Act::Message { text } => within(text, limits::TEXT_MAX),
            Act::Title { title } => self.is_open().and(within(title, limits::TITLE_MAX)),
            Act::Leave {} => self.is_open(),
            Act::Remove { user } => {
                self.is_open()?;
                self.participant(user).map(|_| ()).ok_or(Refusal::NotIn)
            }
            Act::Add { user } => {
                self.is_open()?;
                self.has_room_for(user, about)
            }
            Act::Share { file } => {
                let inside =
                    file.as_str().strip_prefix(self.place.url.as_str()).is_some_and(|r| r.starts_with('/'));
                if inside { Ok(()) } else { Err(Refusal::ForeignFile) }
            }
            Act::Acknowledge { .. } => target(about).map(|_| ()),
            Act::Delete { .. } => {
                let target = target(about)?;
                let own = target.author == author.user && target.incarnation == author.incarnation;
                if own { Ok(()) } else { Err(Refusal::NotAuthor) }
            }
        }
    }

    fn is_open(&self) -> Result<(), Refusal> {
        match self.members {
            Members::Open => Ok(()),
            Members::Fixed { .. } => Err(Refusal::FixedMembership),
        }
    }

    /// NAM-004: a new person at an address takes the old one's place in the list, and nothing else.
    fn has_room_for(&self, user: &Address, about: &About<'_>) -> Result<(), Refusal> {
        match (self.participant(user), about) {
            (None, _) if self.participants.len() >= limits::PARTICIPANTS_MAX => Err(Refusal::TooMany),
            (None, _) => Ok(()),
            (Some(old), About::Newcomer { incarnation: Some(new), .. })
                if old.incarnation.is_some_and(|old| old != *new) =>
            {
                Ok(())
            }
            (Some(_), _) => Err(Refusal::AlreadyIn),
        }
    }

    /// Changes members and title, and says who is told what.
    fn change(&mut self, author: &UserRef, act: &Act, about: &About<'_>, seq: Count) -> Vec<Announce> {
        match act {
            Act::Add { user } => {
                self.participants.retain(|participant| participant.user != *user);
                let mut announce = self.everybody(EventType::ConversationChanged);
                let newcomer = newcomer(user, about, seq);
                self.participants.push(newcomer.clone());
                self.membership_seq = self.membership_seq.next();
                announce.push(Announce {
                    to: newcomer,
                    membership: Membership::Member,
                    event: EventType::ConversationCreated,
                });
                announce
            }
            Act::Leave {} => self.without(&author.user),
            Act::Remove { user } => self.without(user),
            Act::Title { title } => {
                self.title = Some(title.clone());
                self.everybody(EventType::ConversationChanged)
            }
            Act::Message { .. } | Act::Share { .. } | Act::Delete { .. } | Act::Acknowledge { .. } => {
                self.everybody(EventType::ConversationActivity)
            }
        }
    }

    /// SEC-006: whoever goes loses the right at once, and is told so.
    fn without(&mut self, user: &Address) -> Vec<Announce> {
        let mut announce = self.everybody(EventType::ConversationChanged);
        for gone in announce.iter_mut().filter(|announce| announce.to.user == *user) {
            gone.membership = Membership::Left;
        }
        self.participants.retain(|participant| participant.user != *user);
        self.membership_seq = self.membership_seq.next();
        announce
    }

    /// CNV-003: whether the exporting cluster speaks for the author of an imported activity.
    fn vouched(&self, loser_home: &ClusterName, activity: &Activity) -> Result<(), Refusal> {
        let author = UserRef { user: activity.author.clone(), incarnation: activity.incarnation };
        if !self.is_participant(&author) {
            return Err(Refusal::NotYours);
        }
        let served_there =
            self.participant(&author.user).and_then(|found| found.cluster.as_ref()) == Some(loser_home);
        let vouched = match &activity.attested_by {
            None => served_there,
            Some(attestor) => attestor == loser_home,
        };
        let fixed =
            !matches!(activity.act, Act::Add { .. } | Act::Leave {} | Act::Remove { .. } | Act::Title { .. });
        if vouched && fixed { Ok(()) } else { Err(Refusal::NotYours) }
    }
}

fn newcomer(user: &Address, about: &About<'_>, joined_seq: Count) -> Participant {
    let (incarnation, cluster) = match about {
        About::Newcomer { incarnation, cluster } => (*incarnation, cluster.clone()),
        About::Itself | About::Activity(_) => (None, None),
    };
    Participant { user: user.clone(), incarnation, cluster, joined_seq, unreachable: None }
}

fn target<'a>(about: &About<'a>) -> Result<&'a Activity, Refusal> {
    match about {
        About::Activity(Some(target)) => Ok(target),
        _ => Err(Refusal::NoSuchActivity),
    }
}

fn within(text: &Pii<String>, octets_max: usize) -> Result<(), Refusal> {
    match text.expose().len() {
        0 => Err(Refusal::Empty),
        octets if octets > octets_max => Err(Refusal::TooLong),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use fusion_protocol::Uuid;
    use proptest::prelude::*;

    use super::*;
    use crate::pair::pair_key;

    fn user(name: &str) -> UserRef {
        let number = name.bytes().fold(0_u128, |sum, byte| sum * 256 + u128::from(byte));
        UserRef {
            user: format!("{name}@x.example").parse().unwrap(),
            incarnation: Incarnation(Uuid::from_u128(number)),
        }
    }

    fn participant(name: &str, cluster: &str) -> Participant {
        let user = user(name);
        Participant {
            user: user.user,
            incarnation: Some(user.incarnation),
            cluster: Some(cluster.parse().unwrap()),
            joined_seq: Count(0),
            unreachable: None,
        }
    }

    fn conversation(members: Members, participants: Vec<Participant>) -> Conversation {
        let home: ClusterName = "a".parse().unwrap();
        let url = format!("https://{home}-conv.provider.example/v1/conversations/1").parse().unwrap();
        Conversation {
            place: Contender { url, home },
            members,
            life: Life::Bound,
            creator: user("alice"),
            title: None,
            participants,
            last_seq: Count(0),
            membership_seq: Count(1),
            created: String::new(),
        }
    }

    fn group() -> Conversation {
        conversation(Members::Open, vec![participant("alice", "a"), participant("bob", "b")])
    }

    fn one_to_one() -> Conversation {
        let pair = pair_key(&user("alice"), &user("bob"));
        conversation(Members::Fixed { pair }, vec![participant("alice", "a"), participant("bob", "b")])
    }

    fn message(text: &str) -> Act {
        Act::Message { text: text.into() }
    }

    fn post(
        to: &mut Conversation,
        who: &str,
        key: &str,
        act: &Act,
        about: &About<'_>,
    ) -> Result<Posted, Refusal> {
        let author = user(who);
        let id = activity_id(to, &author, key);
        to.post(Author { user: &author, id, published: String::new() }, act, about)
    }

    #[test]
    fn activities_get_places_without_gaps() {
        let mut group = group();
        for seq in 1..=5 {
            let posted = post(&mut group, "alice", &seq.to_string(), &message("hi"), &About::Itself).unwrap();
            assert_eq!(posted.activity.seq, Count(seq));
        }
        assert_eq!(group.last_seq, Count(5));
    }

    #[test]
    fn a_refused_post_changes_nothing() {
        let mut one_to_one = one_to_one();
        let before = one_to_one.clone();
        let add = Act::Add { user: user("carol").user };
        assert_eq!(post(&mut one_to_one, "alice", "1", &add, &About::Itself), Err(Refusal::FixedMembership));
        assert_eq!(
            post(&mut one_to_one, "mallory", "2", &message("hi"), &About::Itself),
            Err(Refusal::NotParticipant)
        );
        let long = "x".repeat(limits::TEXT_MAX + 1);
        assert_eq!(
            post(&mut one_to_one, "alice", "3", &message(&long), &About::Itself),
            Err(Refusal::TooLong)
        );
        assert_eq!(post(&mut one_to_one, "alice", "4", &message(""), &About::Itself), Err(Refusal::Empty));
        assert_eq!(one_to_one, before);
    }

    #[test]
    fn a_one_to_one_has_fixed_members() {
        let bob = user("bob").user;
        let acts = [
            Act::Add { user: bob.clone() },
            Act::Leave {},
            Act::Remove { user: bob },
            Act::Title { title: "x".into() },
        ];
        for act in acts {
            assert_eq!(
                post(&mut one_to_one(), "alice", "1", &act, &About::Itself),
                Err(Refusal::FixedMembership)
            );
        }
    }

    #[test]
    fn another_person_at_a_participants_address_is_no_participant() {
        let group = group();
        let impostor = UserRef { incarnation: Incarnation(Uuid::from_u128(99)), ..user("bob") };
        assert!(group.is_participant(&user("bob")));
        assert!(!group.is_participant(&impostor));
    }

    #[test]
    fn a_newcomer_is_told_of_a_conversation_and_the_others_of_a_change() {
        let mut group = group();
        let carol = user("carol");
        let about = About::Newcomer { incarnation: Some(carol.incarnation), cluster: "c".parse().ok() };
        let posted = post(&mut group, "bob", "1", &Act::Add { user: carol.user.clone() }, &about).unwrap();
        let told: Vec<_> =
            posted.announce.iter().map(|one| (one.to.user.local_part().to_owned(), one.event)).collect();
        assert_eq!(
            told,
            [
                ("alice".to_owned(), EventType::ConversationChanged),
                ("bob".to_owned(), EventType::ConversationChanged),
                ("carol".to_owned(), EventType::ConversationCreated),
            ]
        );
        assert_eq!((group.membership_seq, group.participants[2].joined_seq), (Count(2), Count(1)));
        assert_eq!(
            post(&mut group, "alice", "2", &Act::Add { user: carol.user }, &about),
            Err(Refusal::AlreadyIn)
        );
    }

    #[test]
    fn whoever_leaves_or_is_removed_is_out_at_once() {
        let mut group = group();
        let posted = post(&mut group, "bob", "1", &Act::Leave {}, &About::Itself).unwrap();
        let left: Vec<_> = posted.announce.iter().filter(|one| one.membership == Membership::Left).collect();
        assert_eq!((left.len(), &left[0].to.user), (1, &user("bob").user));
        assert_eq!(
            post(&mut group, "bob", "2", &message("wait"), &About::Itself),
            Err(Refusal::NotParticipant)
        );
        let remove = Act::Remove { user: user("bob").user };
        assert_eq!(post(&mut group, "alice", "3", &remove, &About::Itself), Err(Refusal::NotIn));
    }

    #[test]
    fn only_the_author_takes_an_activity_back() {
        let mut group = group();
        let said = post(&mut group, "alice", "1", &message("oops"), &About::Itself).unwrap().activity;
        let delete = Act::Delete { activity: said.id };
        let about = About::Activity(Some(&said));
        assert_eq!(post(&mut group, "bob", "2", &delete, &about), Err(Refusal::NotAuthor));
        let posted = post(&mut group, "alice", "2", &delete, &about).unwrap();
        assert_eq!(posted.taken_back.unwrap().act, message(""));
        assert_eq!(
            post(&mut group, "alice", "3", &delete, &About::Activity(None)),
            Err(Refusal::NoSuchActivity)
        );
    }

    #[test]
    fn a_sealed_conversation_takes_no_writes_and_a_superseded_one_says_where_to_go() {
        let winner = Contender {
            url: "https://b-conv.provider.example/v1/conversations/2".parse().unwrap(),
            home: "b".parse().unwrap(),
        };
        let mut sealed = one_to_one();
        sealed.life = Life::Sealing { winner: winner.clone() };
        assert_eq!(post(&mut sealed, "alice", "1", &message("hi"), &About::Itself), Err(Refusal::Sealing));
        sealed.life = Life::Superseded { winner: winner.clone() };
        assert_eq!(
            post(&mut sealed, "alice", "1", &message("hi"), &About::Itself),
            Err(Refusal::Superseded(winner.url))
        );
    }

    #[test]
    fn a_retry_at_the_winner_is_the_same_activity() {
        let (here, mut there) = (one_to_one(), one_to_one());
        there.place.url = "https://b-conv.provider.example/v1/conversations/2".parse().unwrap();
        let alice = user("alice");
        assert_eq!(activity_id(&here, &alice, "k"), activity_id(&there, &alice, "k"));
        assert_ne!(activity_id(&here, &alice, "k"), activity_id(&here, &alice, "l"));
        assert_ne!(activity_id(&here, &alice, "k"), activity_id(&here, &user("bob"), "k"));
        let mut other_group = group();
        other_group.place.url = there.place.url.clone();
        assert_ne!(activity_id(&group(), &alice, "k"), activity_id(&other_group, &alice, "k"));
    }

    /// A winner and a loser of one pair: (winner, the loser's home and its author's name).
    fn winner() -> (Conversation, ClusterName, &'static str) {
        let mut winner = one_to_one();
        let (a, b): (ClusterName, ClusterName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let Members::Fixed { pair } = winner.members else { unreachable!("made fixed") };
        let (home, loser, author) = if crate::pair::rank(&pair, &a) < crate::pair::rank(&pair, &b) {
            (a, b, "bob")
        } else {
            (b, a, "alice")
        };
        winner.place.home = home;
        winner.life = Life::Provisional;
        (winner, loser, author)
    }

    fn said(conversation: &Conversation, who: &str, key: &str, seq: u64) -> Activity {
        let author = user(who);
        Activity {
            id: activity_id(conversation, &author, key),
            seq: Count(seq),
            author: author.user,
            incarnation: author.incarnation,
            published: String::new(),
            act: message(key),
            attested_by: None,
        }
    }

    #[test]
    fn an_exporting_cluster_speaks_only_for_its_users_unless_it_attests() {
        let (mut winner, loser, author) = winner();
        let stranger = if author == "bob" { "alice" } else { "bob" };
        let mut foreign = said(&winner, stranger, "k", 1);
        let refused = winner.import(&loser, std::slice::from_ref(&foreign), &BTreeSet::new());
        assert_eq!(refused, Err(Refusal::NotYours));
        foreign.attested_by = Some(loser.clone());
        let taken = winner.import(&loser, &[foreign], &BTreeSet::new()).unwrap();
        assert_eq!(taken.appended.len(), 1);
    }

    proptest! {
        /// Imports come in pages, late, twice and overlapping: each activity is appended once, in order.
        #[test]
        fn an_import_appends_each_activity_once_in_its_order(
            own in 0_u64..5, total in 1_u64..20, cuts in prop::collection::vec(0_usize..20, 1..6),
        ) {
            let (mut winner, loser, author) = winner();
            let served_here = if author == "bob" { "alice" } else { "bob" };
            for key in 0..own {
                post(&mut winner, served_here, &format!("own{key}"), &message("hi"), &About::Itself).unwrap();
            }
            let log: Vec<_> = (1..=total).map(|seq| said(&winner, author, &seq.to_string(), seq)).collect();
            let (mut known, mut imported) = (BTreeSet::new(), Vec::new());
            // Sent again from the start until somewhere, in any order of lengths, at last completely.
            for cut in cuts.into_iter().map(|cut| cut.min(log.len())).chain([log.len()]) {
                let taken = winner.import(&loser, &log[..cut], &known).unwrap();
                known.extend(taken.appended.iter().map(|activity| activity.id));
                imported.extend(taken.appended);
            }
            let seqs: Vec<_> = imported.iter().map(|activity| activity.seq.0).collect();
            prop_assert_eq!(seqs, (own + 1..=own + total).collect::<Vec<_>>());
            let ids: Vec<_> = imported.iter().map(|activity| activity.id).collect();
            prop_assert_eq!(ids, log.iter().map(|activity| activity.id).collect::<Vec<_>>());
            prop_assert_eq!(winner.life, Life::Bound);
        }
    }
}
