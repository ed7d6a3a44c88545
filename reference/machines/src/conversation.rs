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
        // Nobody else learns where it went.
        if !self.is_participant(author.user) {
            return Err(Refusal::NotParticipant);
        }
        self.takes_writes()?;
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

    /// A participant who could not be resolved at first is found: who that is stays fixed from now on.
    /// Answers whether that is news.
    pub fn found(&mut self, user: &Address, incarnation: Incarnation, cluster: &ClusterName) -> bool {
        let unresolved = |one: &&mut Participant| one.user == *user && one.incarnation.is_none();
        let Some(participant) = self.participants.iter_mut().find(unresolved) else { return false };
        participant.incarnation = Some(incarnation);
        participant.cluster = Some(cluster.clone());
        true
    }

    /// RDV-002: nobody at `user`'s cluster will ever take the announcement, for this reason.
    pub fn give_up_on(&mut self, user: &Address, code: Code) {
        if let Some(found) = self.participants.iter_mut().find(|participant| participant.user == *user) {
            found.unreachable = Some(code);
        }
    }

    /// A pair is worth another claim, though an earlier one was refused for good: somebody asks for it
    /// again. Answers whom to ask.
    pub fn try_again(&mut self) -> Option<Address> {
        let live = self.life.winner().is_none() && self.kind() == Kind::OneToOne;
        let creator = &self.creator.user;
        let given_up = |one: &&mut Participant| one.user != *creator && one.unreachable.is_some();
        let other = self.participants.iter_mut().find(given_up).filter(|_| live)?;
        other.unreachable = None;
        Some(other.user.clone())
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
mod tests;
