//! Makes conversations, at the creator's own cluster (RDV-001).

use std::collections::BTreeSet;
use std::time::Duration;

use fusion_machines::conversation::{Announce, Conversation, Members};
use fusion_machines::pair::{Contender, Life, Slot, pair_key};
use fusion_protocol::conversation::{self as wire, CreateConversation, Kind, PairKey, Participant};
use fusion_protocol::map::UserRecord;
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, ClusterName, Code, Count, Problem, UserRef, Uuid, limits};
use fusion_runtime::store::Batch;
use futures_util::future::join_all;

use super::race::claim_again;
use super::store::{self, IdRow, Pair, SlotRow};
use super::writing::{Writing, local};
use super::{hold_pair, id_of, url, view};
use crate::outbox::{self, Effect};
use crate::rows::{Committed, Loaded};
use crate::{Cluster, index, locus, users};

/// How long the creation of a group waits for somebody's address: RDV-002, nobody waits for the dead.
const RESOLVE_WITHIN: Duration = Duration::from_secs(3);

/// A conversation, made now or earlier.
pub(super) enum Created {
    /// 201.
    New(wire::Conversation),
    /// 200 (CNV-002).
    Known(wire::Conversation),
}

/// Creates a conversation, or finds the one that this creation means.
pub(super) async fn create(
    cluster: &Cluster,
    creator: &UserRef,
    key: &str,
    asked: CreateConversation,
) -> Result<Created, Problem> {
    match asked.kind {
        Kind::OneToOne => one_to_one(cluster, creator, &other_of(creator, &asked)?).await,
        Kind::Group => group(cluster, creator, key, asked).await,
    }
}

/// CNV-002: two people, and no title.
fn other_of(creator: &UserRef, asked: &CreateConversation) -> Result<Address, Problem> {
    let others: BTreeSet<_> = asked.participants.iter().filter(|one| **one != creator.user).collect();
    if others.is_empty() && !asked.participants.is_empty() {
        return Err(Code::SamePerson.into());
    }
    match (others.len(), &asked.title) {
        (1, None) => others.into_iter().next().cloned().ok_or_else(|| Code::Unprocessable.into()),
        (1, Some(_)) => Err(Problem::new(Code::Unprocessable).detail("a one-to-one has no title")),
        _ => Err(Problem::new(Code::Unprocessable).detail("a one-to-one is with exactly one other person")),
    }
}

async fn one_to_one(cluster: &Cluster, creator: &UserRef, other: &Address) -> Result<Created, Problem> {
    let other = match users::resolve(cluster, other).await {
        Ok(found) => found.record,
        Err(problem) if problem.code == Code::ResolutionIncomplete => {
            // What was made before stays usable, even when nobody can say any more who that is.
            let known = store::any_slot(cluster, &creator.user, other).await?.ok_or(problem)?;
            return Ok(Created::Known(answer(cluster, creator, other, &known).await?));
        }
        Err(problem) => return Err(problem),
    };
    let other_ref = UserRef { user: other.user.clone(), incarnation: other.incarnation };
    let pair = pair_key(creator, &other_ref);
    let _held = hold_pair(cluster, &pair).await;
    loop {
        let making = Making::load(cluster, creator, &other, &pair).await?;
        if let Some(known) = &making.own.value {
            return Ok(Created::Known(answer(cluster, creator, &other.user, known).await?));
        }
        match making.found().await? {
            // Once adopted, it is found in the slot.
            Some(conversation) => making.adopt(conversation).await?,
            None => {
                if let Some(made) = making.make().await? {
                    return Ok(Created::New(made));
                }
            }
        }
    }
}

/// Everything that the creation of a 1:1 depends on.
struct Making<'a> {
    cluster: &'a Cluster,
    creator: &'a UserRef,
    other: &'a UserRecord,
    pair: &'a PairKey,
    own: Loaded<SlotRow>,
    others: Loaded<SlotRow>,
    here: Loaded<IdRow>,
}

impl<'a> Making<'a> {
    async fn load(
        cluster: &'a Cluster,
        creator: &'a UserRef,
        other: &'a UserRecord,
        pair: &'a PairKey,
    ) -> Result<Self, Problem> {
        let slot = |user, other| store::slot(cluster, Pair { user, other, key: pair });
        Ok(Self {
            own: slot(&creator.user, &other.user).await?,
            others: slot(&other.user, &creator.user).await?,
            here: store::of_pair(cluster, pair).await?,
            cluster,
            creator,
            other,
            pair,
        })
    }

    fn both_here(&self) -> bool {
        self.other.cluster == *self.cluster.name()
    }

    /// The pair's conversation, though the creator's slot does not know it: one that was made here by
    /// the other before a move, or the one of the other's slot when both are served here.
    async fn found(&self) -> Result<Option<Contender>, Problem> {
        if let Some(IdRow { conversation }) = self.here.value {
            let (_, conversation) = store::existing(self.cluster, conversation).await?;
            return Ok(Some(conversation.life.winner().unwrap_or(&conversation.place).clone()));
        }
        let others = self.others.value.as_ref().filter(|_| self.both_here());
        Ok(others.map(|row| row.slot.conversation.clone()))
    }

    /// Grants the creator's slot to a conversation, as its claim would be granted.
    async fn adopt(&self, conversation: Contender) -> Result<(), Problem> {
        let mut writing = Writing::new(self.cluster);
        writing.changes.rely_on(&self.creator.user).await?;
        let pair = self.pair_of(&self.creator.user, &self.other.user);
        writing.save_slot(pair, &self.own, Slot::bound(conversation));
        let (Committed::Yes | Committed::Again) = writing.commit().await?;
        Ok(())
    }

    fn pair_of(&self, user: &'a Address, other: &'a Address) -> Pair<'a> {
        Pair { user, other, key: self.pair }
    }

    /// CNV-003: object, locus, slot, index and outbox row in one transaction; `None`: begin again.
    async fn make(&self) -> Result<Option<wire::Conversation>, Problem> {
        let cluster = self.cluster;
        let id = draw(cluster);
        let life = if self.both_here() { Life::Bound } else { Life::Provisional };
        let other = UserRef { user: self.other.user.clone(), incarnation: self.other.incarnation };
        let participants =
            vec![participant(self.creator, cluster.name()), participant(&other, &self.other.cluster)];
        let members = Members::Fixed { pair: *self.pair };
        let conversation = new(cluster, id, self.creator, members, life, participants);
        let told = self.told(&conversation);
        let _indexes = index::hold(cluster, local(cluster, &told)).await;
        let mut writing = Writing::new(cluster);
        still_served(&mut writing.batch, cluster, self.creator).await?;
        self.here.save(&mut writing.batch, &IdRow { conversation: id });
        if self.both_here() {
            writing.changes.rely_on(&self.other.user).await?;
        }
        self.set_slots(&mut writing, &conversation.place);
        if !self.both_here() {
            let effect = Effect::Claim { user: self.other.user.clone(), conversation: id };
            outbox::post(cluster, &mut writing.batch, conversation.place.url.as_str(), effect)?;
        }
        let committed = put(writing, id, &conversation, &told).await?;
        Ok((committed == Committed::Yes).then(|| view(cluster, id, &conversation)))
    }

    fn set_slots(&self, writing: &mut Writing<'_>, place: &Contender) {
        let own = self.pair_of(&self.creator.user, &self.other.user);
        if self.both_here() {
            let others = self.pair_of(&self.other.user, &self.creator.user);
            writing.save_slot(own, &self.own, Slot::bound(place.clone()));
            writing.save_slot(others, &self.others, Slot::bound(place.clone()));
        } else {
            writing.save_slot(own, &self.own, Slot::own(place.clone()));
        }
    }

    /// Whose index is written now: the other's is written by the claim when they are elsewhere.
    fn told(&self, conversation: &Conversation) -> Vec<Announce> {
        let mut told = conversation.everybody(EventType::ConversationCreated);
        told.retain(|one| one.to.cluster.as_ref() == Some(self.cluster.name()));
        told
    }
}

/// A new identifier, by chance: as the rule of the race says, the lowest of several.
fn draw(cluster: &Cluster) -> Uuid {
    let first = cluster.host.entropy.uuid();
    (1..cluster.config.pair_rule.draws()).map(|_| cluster.host.entropy.uuid()).fold(first, Ord::min)
}

/// The answer of a creation that finds a slot: the loser while it is merging, else the pair's
/// conversation, wherever it lives.
async fn answer(
    cluster: &Cluster,
    creator: &UserRef,
    other: &Address,
    known: &SlotRow,
) -> Result<wire::Conversation, Problem> {
    let url = known.slot.answer();
    if let Some(id) = id_of(cluster, url) {
        claim_again(cluster, id).await?;
        let (_, conversation) = store::existing(cluster, id).await?;
        return Ok(view(cluster, id, &conversation));
    }
    let home = &known.slot.conversation.home;
    let id = url.path_segments().and_then(|mut path| path.next_back()).unwrap_or_default();
    let entry = index::entry(cluster, &creator.user, url).await?;
    let (last_seq, membership_seq) =
        entry.map_or((Count(0), Count(1)), |entry| (entry.last_seq, entry.membership_seq));
    let unresolved = |user: &Address| Participant {
        user: user.clone(),
        incarnation: None,
        cluster: None,
        joined_seq: Count(0),
        unreachable: None,
    };
    Ok(wire::Conversation {
        id: format!("{home}~{id}"),
        url: url.clone(),
        locus_url: index::locus_url(url),
        kind: Kind::OneToOne,
        state: wire::ConversationState::Bound,
        participants: vec![participant(creator, cluster.name()), unresolved(other)],
        title: None,
        last_seq,
        membership_seq,
        created: known.since.clone(),
        superseded_by: None,
    })
}

/// CNV-006: any number of people; who cannot be resolved now is told later.
async fn group(
    cluster: &Cluster,
    creator: &UserRef,
    key: &str,
    asked: CreateConversation,
) -> Result<Created, Problem> {
    let others: BTreeSet<_> = asked.participants.into_iter().filter(|one| *one != creator.user).collect();
    if others.len() >= limits::PARTICIPANTS_MAX {
        return Err(Problem::new(Code::Unprocessable).detail("too many participants"));
    }
    let title_octets = asked.title.as_ref().map_or(1, |title| title.expose().len());
    if title_octets == 0 || title_octets > limits::TITLE_MAX {
        return Err(Problem::new(Code::Unprocessable).detail("a title has 1 to 1024 octets"));
    }
    let mut participants = vec![participant(creator, cluster.name())];
    for found in join_all(others.into_iter().map(|other| newcomer(cluster, other))).await {
        participants.push(found?);
    }
    let _held = cluster.locks.hold(format!("create/{}/{key}", creator.user.as_str())).await;
    loop {
        let created = store::created(cluster, creator, key).await?;
        if let Some(IdRow { conversation: id }) = created.value {
            let (_, conversation) = store::existing(cluster, id).await?;
            return Ok(Created::Known(view(cluster, id, &conversation)));
        }
        let id = cluster.host.entropy.uuid();
        let mut conversation = new(cluster, id, creator, Members::Open, Life::Bound, participants.clone());
        conversation.title.clone_from(&asked.title);
        let told = conversation.everybody(EventType::ConversationCreated);
        let _indexes = index::hold(cluster, local(cluster, &told)).await;
        let mut writing = Writing::new(cluster);
        still_served(&mut writing.batch, cluster, creator).await?;
        created.save(&mut writing.batch, &IdRow { conversation: id });
        if put(writing, id, &conversation, &told).await? == Committed::Yes {
            return Ok(Created::New(view(cluster, id, &conversation)));
        }
    }
}

/// A participant as resolved, or not yet.
async fn newcomer(cluster: &Cluster, user: Address) -> Result<Participant, Problem> {
    let found = resolve_soon(cluster, &user).await?;
    let (incarnation, cluster) = found.map(|record| (record.incarnation, record.cluster)).unzip();
    Ok(Participant { user, incarnation, cluster, joined_seq: Count(0), unreachable: None })
}

/// Who and where somebody is; `None`: nobody can say now.
///
/// # Errors
/// `user-unknown` when there is nobody.
pub(super) async fn resolve_soon(cluster: &Cluster, user: &Address) -> Result<Option<UserRecord>, Problem> {
    match cluster.host.clock.timeout(RESOLVE_WITHIN, users::resolve(cluster, user)).await {
        Ok(Ok(found)) => Ok(Some(found.record)),
        Ok(Err(problem)) if problem.code == Code::UserUnknown => Err(problem),
        Ok(Err(_)) | Err(_) => Ok(None),
    }
}

async fn put(
    mut writing: Writing<'_>,
    id: Uuid,
    conversation: &Conversation,
    told: &[Announce],
) -> Result<Committed, Problem> {
    store::put_new(&mut writing.batch, id, conversation);
    locus::create(writing.cluster, &mut writing.batch, id);
    writing.announce(id, conversation, told, None).await?;
    writing.report(conversation);
    writing.commit().await
}

/// The commit depends on the creator being served here, as the very person that the token names.
async fn still_served(batch: &mut Batch, cluster: &Cluster, creator: &UserRef) -> Result<(), Problem> {
    let row = users::served_here(cluster, &creator.user).await?;
    let same = row.value.as_ref().is_some_and(|row| row.record.incarnation == creator.incarnation);
    row.unchanged(batch);
    if same { Ok(()) } else { Err(Code::WrongCluster.into()) }
}

fn new(
    cluster: &Cluster,
    id: Uuid,
    creator: &UserRef,
    members: Members,
    life: Life,
    participants: Vec<Participant>,
) -> Conversation {
    Conversation {
        place: Contender {
            rule: cluster.config.pair_rule,
            made: cluster.config.pair_rule.stamp(cluster.host.clock.wall().0),
            ..Contender::new(url(cluster, id), cluster.name().clone())
        },
        members,
        life,
        creator: creator.clone(),
        title: None,
        participants,
        last_seq: Count(0),
        membership_seq: Count(1),
        created: cluster.host.clock.wall().to_string(),
    }
}

fn participant(user: &UserRef, cluster: &ClusterName) -> Participant {
    Participant {
        user: user.user.clone(),
        incarnation: Some(user.incarnation),
        cluster: Some(cluster.clone()),
        joined_seq: Count(0),
        unreachable: None,
    }
}
