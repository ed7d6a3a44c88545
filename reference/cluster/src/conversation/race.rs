//! The race for a pair (CNV-003): claims of other clusters, and the answers to our own.

use fusion_machines::conversation::{Conversation, Members};
use fusion_machines::index::Shown;
use fusion_machines::pair::{
    Callee, Contender, Hold, LifeEffect, LifeEvent, LifeRefusal, Slot, SlotDecision, SlotEvent, decide,
    pair_key,
};
use fusion_protocol::conversation::{Kind, PairKey, PeerClaim, PeerGrant};
use fusion_protocol::index::{IndexWrite, Membership};
use fusion_protocol::map::{Resolution, UserRecord};
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, ClusterName, Code, Count, Incarnation, Problem, Service, Url, UserRef, Uuid};
use fusion_runtime::probe::Level;
use http::Method;
use serde_json::json;

use super::store::{self, Pair, SlotRow};
use super::writing::Writing;
use super::{hold, hold_pair, id_of};
use crate::outbox::{self, Effect, Fate};
use crate::peers::{self, PeerError};
use crate::rows::{Committed, Loaded};
use crate::{Cluster, index, users};

/// A claim with everything that was checked about it.
struct Claimed<'a> {
    claim: &'a PeerClaim,
    caller: &'a ClusterName,
    callee: &'a Address,
    creator: &'a Address,
    pair: PairKey,
}

/// The callee's side: a cluster claims the pair of a user served here for its conversation.
///
/// # Errors
/// 421 `wrong-cluster`, 410 `incarnation-gone`, 409 `rule-mismatch`, 409 `pair-taken` with `winner`: the
/// table of CNV-003. Besides 403 `not-your-object` for a conversation of somebody else's cluster, or a
/// creator whom the caller does not serve.
pub(super) async fn claimed(
    cluster: &Cluster,
    caller: &ClusterName,
    callee: &Address,
    creator: &Address,
    claim: &PeerClaim,
) -> Result<PeerGrant, Problem> {
    if claim.home != *caller || !index::is_conversation_of(cluster, caller, &claim.url) {
        return Err(Code::NotYourObject.into());
    }
    if callee == creator {
        return Err(Code::SamePerson.into());
    }
    let Some(record) = users::served_here(cluster, callee).await?.value.map(|row| row.record) else {
        let clusters = index::whereabouts(cluster, callee).await;
        return Err(Problem::new(Code::WrongCluster).with("clusters", clusters));
    };
    if claim.epoch < record.version {
        return Err(Problem::new(Code::WrongCluster).with("clusters", [cluster.name()]));
    }
    speaks_for(cluster, caller, creator, claim.creator).await?;
    let callee_ref = UserRef { user: callee.clone(), incarnation: record.incarnation };
    let creator_ref = UserRef { user: creator.clone(), incarnation: claim.creator };
    let pair = pair_key(&callee_ref, &creator_ref);
    let claimed = Claimed { claim, caller, callee, creator, pair };
    let _held = hold_pair(cluster, &pair).await;
    loop {
        if let Some(answer) = claimed.step(cluster, &record).await? {
            return answer;
        }
    }
}

/// SEC-005, SEC-009: only the cluster that serves the creator claims a pair for them, or one of the same
/// org that served them when they made the conversation (MAP-007); else a hostile cluster could seat itself
/// between any two people for ever.
async fn speaks_for(
    cluster: &Cluster,
    caller: &ClusterName,
    creator: &Address,
    incarnation: Incarnation,
) -> Result<(), Problem> {
    let domain = creator.domain();
    let fits = |found: &Resolution| {
        let now = &found.record.cluster;
        let served = now == caller || users::of_one_org(cluster, &domain, [now, caller]);
        served && found.record.incarnation == incarnation
    };
    match users::resolve(cluster, creator).await {
        Ok(found) if fits(&found) => return Ok(()),
        // What is remembered may be old: the creator may have come, or come again, since.
        Ok(_) => {}
        Err(problem) if problem.code == Code::UserUnknown => return Err(Code::NotYourObject.into()),
        Err(problem) => return Err(problem),
    }
    match users::resolve_again(cluster, creator).await {
        Ok(found) if fits(&found) => Ok(()),
        Err(problem) if problem.code != Code::UserUnknown => Err(problem),
        Ok(_) | Err(_) => Err(Code::NotYourObject.into()),
    }
}

impl Claimed<'_> {
    /// Decides and writes, in one transaction; `None`: begin again.
    async fn step(
        &self,
        cluster: &Cluster,
        record: &UserRecord,
    ) -> Result<Option<Result<PeerGrant, Problem>>, Problem> {
        let pair = Pair { user: self.callee, other: self.creator, key: &self.pair };
        let row = store::slot(cluster, pair).await?;
        let rule = cluster.config.pair_rule;
        let claimant = Contender {
            rule,
            made: self.claim.made,
            ..Contender::new(self.claim.url.clone(), self.caller.clone())
        };
        let here = record.incarnation == self.claim.other;
        let event = SlotEvent::Claim {
            claimant: claimant.clone(),
            pair: self.claim.pair_key,
            rule: self.claim.rule.clone(),
            callee: if here { Callee::Here { pair: self.pair, rule } } else { Callee::AnotherPerson },
        };
        let (slot, outranked) = match decide(row.value.as_ref().map(|row| &row.slot), &event) {
            SlotDecision::Granted { slot, outranked } => (slot, outranked),
            refused => return Ok(Some(Err(refusal(cluster, refused)))),
        };
        let loser = outranked.and_then(|loser| id_of(cluster, &loser.url));
        let _held = match loser {
            Some(id) => Some(hold(cluster, id).await),
            None => None,
        };
        let _index = index::hold(cluster, [self.callee]).await;
        let mut writing = Writing::new(cluster);
        writing.changes.rely_on(self.callee).await?;
        if let Some(id) = loser
            && let Err(seated) = seal(&mut writing, id, claimant).await?
        {
            return Ok(Some(Err(taken(&seated))));
        }
        let shown = if slot.merging_from.is_some() { Shown::Held } else { Shown::Listed };
        let write = self.index_write(record);
        writing.changes.write(&mut writing.batch, self.caller, &write, shown).await?;
        if row.value.as_ref().map(|row| &row.slot) != Some(&slot) {
            writing.save_slot(pair, &row, slot);
        }
        let committed = writing.commit().await?;
        Ok((committed == Committed::Yes).then(|| Ok(PeerGrant { url: self.claim.url.clone() })))
    }

    /// RDV-002: the claim is at the same time the index entry.
    fn index_write(&self, record: &UserRecord) -> IndexWrite {
        IndexWrite {
            id: self.claim.id,
            user: self.callee.clone(),
            incarnation: record.incarnation,
            epoch: record.version,
            url: self.claim.url.clone(),
            locus_url: index::locus_url(&self.claim.url),
            kind: Kind::OneToOne,
            title: None,
            membership: Membership::Member,
            membership_seq: Count(1),
            last_seq: self.claim.last_seq,
            activities: self.claim.preview.clone(),
            superseded_by: None,
            event: Some(EventType::ConversationCreated),
        }
    }
}

/// The conversation here that loses to `winner` is sealed, in the transaction that gives the slot away.
/// Answers the conversation itself if it is bound after all.
async fn seal(
    writing: &mut Writing<'_>,
    id: Uuid,
    winner: Contender,
) -> Result<Result<(), Contender>, Problem> {
    let (row, mut conversation) = store::existing(writing.cluster, id).await?;
    let Members::Fixed { pair } = conversation.members else { return Ok(Err(conversation.place)) };
    let event = LifeEvent::Outranked { winner: winner.clone() };
    match conversation.life.step(&conversation.place, &pair, event) {
        Ok((life, effects)) => {
            conversation.life = life;
            if effects.contains(&LifeEffect::Export) {
                post_export(writing, id, &conversation, winner.home)?;
            }
            row.save(&mut writing.batch, &conversation);
            writing.report(&conversation);
            Ok(Ok(()))
        }
        Err(_) => Ok(Err(conversation.place)),
    }
}

fn post_export(
    writing: &mut Writing<'_>,
    id: Uuid,
    loser: &Conversation,
    to: ClusterName,
) -> Result<(), Problem> {
    let effect = Effect::Import { to, conversation: id };
    outbox::post(writing.cluster, &mut writing.batch, loser.place.url.as_str(), effect)
}

fn refusal(cluster: &Cluster, decision: SlotDecision) -> Problem {
    match decision {
        SlotDecision::WrongCluster => Code::WrongCluster.into(),
        SlotDecision::IncarnationGone => Code::IncarnationGone.into(),
        SlotDecision::RuleMismatch => {
            cluster.host.probe.log(Level::Error, "pair.rule-mismatch", json!({ "side": "callee" }));
            Code::RuleMismatch.into()
        }
        SlotDecision::Taken { winner } => taken(&winner),
        SlotDecision::Granted { .. } => Code::Internal.into(),
    }
}

fn taken(winner: &Contender) -> Problem {
    let taken = Problem::new(Code::PairTaken).with("winner", &winner.url);
    // Only a rule that looks at the time knows one.
    if let Some(made) = winner.made { taken.with("winnerMade", made) } else { taken }
}

/// The caller's side: claims the pair for a conversation of this cluster, and does what the answer
/// demands.
pub(crate) async fn claim(cluster: &Cluster, id: Uuid, row: Uuid, other: &UserRecord) -> Fate {
    let conversation = match store::conversation(cluster, id).await.map(|row| row.value) {
        Ok(Some(conversation)) => conversation,
        Ok(None) => return Fate::LaneOver,
        Err(_) => return Fate::Later,
    };
    let Members::Fixed { pair } = conversation.members else { return Fate::LaneOver };
    if conversation.life.winner().is_some() {
        // Lost as the callee of the winner's claim: nobody needs to be asked any more.
        return Fate::LaneOver;
    }
    let meant = conversation.participant(&other.user).and_then(|found| found.incarnation);
    if meant != Some(other.incarnation) {
        return Fate::Dead(Code::IncarnationGone);
    }
    match ask(cluster, &conversation, pair, row, other).await {
        Asked::Granted => settle(cluster, id, pair, LifeEvent::Granted).await,
        Asked::Taken(winner) => settle(cluster, id, pair, LifeEvent::Taken { winner }).await,
        Asked::Not(fate) => fate,
    }
}

/// Claims the pair again if an earlier claim was refused for good: what refused it may be over.
pub(super) async fn claim_again(cluster: &Cluster, id: Uuid) -> Result<(), Problem> {
    let _held = hold(cluster, id).await;
    loop {
        let (row, mut conversation) = store::existing(cluster, id).await?;
        let Some(user) = conversation.try_again() else { return Ok(()) };
        let mut writing = Writing::new(cluster);
        let effect = Effect::Claim { user, conversation: id };
        outbox::post(cluster, &mut writing.batch, conversation.place.url.as_str(), effect)?;
        row.save(&mut writing.batch, &conversation);
        if writing.commit().await? == Committed::Yes {
            return Ok(());
        }
    }
}

enum Asked {
    Granted,
    Taken(Contender),
    Not(Fate),
}

async fn ask(
    cluster: &Cluster,
    conversation: &Conversation,
    pair: PairKey,
    row: Uuid,
    other: &UserRecord,
) -> Asked {
    let place = &conversation.place;
    let claim = PeerClaim {
        id: row,
        url: place.url.clone(),
        locus_url: index::locus_url(&place.url),
        home: place.home.clone(),
        pair_key: pair,
        rule: place.rule.name().to_owned(),
        creator: conversation.creator.incarnation,
        other: other.incarnation,
        epoch: other.version,
        // Every activity has a row of its own behind this one, and an event of its own at the receiver.
        preview: Vec::new(),
        last_seq: Count(0),
        made: place.made,
    };
    let (user, peer) = (other.user.path_segment(), conversation.creator.user.path_segment());
    let path = format!("/v1/users/{user}/peers/{peer}");
    let url = cluster.config.template.url(&other.cluster, Service::Conv, &path);
    match peers::call(cluster, Method::PUT, &url, &claim).await {
        Ok(body) => match serde_json::from_slice::<PeerGrant>(&body) {
            Ok(grant) if grant.url == place.url => Asked::Granted,
            _ => Asked::Not(Fate::Later),
        },
        Err(PeerError::Unreachable) => Asked::Not(Fate::Unreachable),
        Err(PeerError::Refused(problem)) if problem.code == Code::PairTaken => {
            winner_of(cluster, &problem).map_or(Asked::Not(Fate::Later), Asked::Taken)
        }
        Err(PeerError::Refused(problem)) => {
            if problem.code == Code::RuleMismatch {
                alarm(cluster);
            }
            Asked::Not(Fate::of_code(Some(problem.code)))
        }
    }
}

/// The winner that a refusal names, if it can be one.
fn winner_of(cluster: &Cluster, problem: &Problem) -> Option<Contender> {
    let url: Url = problem.member("winner")?;
    let home = cluster.config.template.locate(&url).ok()?.cluster;
    let made = problem.member("winnerMade");
    let rule = cluster.config.pair_rule;
    let is_one = index::is_conversation_of(cluster, &home, &url);
    is_one.then(|| Contender { rule, made, ..Contender::new(url, home) })
}

/// What the answer to a claim does to the conversation, in one transaction.
async fn settle(cluster: &Cluster, id: Uuid, pair: PairKey, event: LifeEvent) -> Fate {
    let _pair = hold_pair(cluster, &pair).await;
    let _held = hold(cluster, id).await;
    loop {
        match settle_once(cluster, id, &event).await {
            Ok(Some(fate)) => return fate,
            Ok(None) => {}
            Err(_) => return Fate::Later,
        }
    }
}

async fn settle_once(cluster: &Cluster, id: Uuid, event: &LifeEvent) -> Result<Option<Fate>, Problem> {
    let (row, mut conversation) = store::existing(cluster, id).await?;
    let Members::Fixed { pair } = conversation.members else { return Ok(Some(Fate::LaneOver)) };
    let (life, effects) = match conversation.life.step(&conversation.place, &pair, event.clone()) {
        Ok(stepped) => stepped,
        Err(LifeRefusal::Disagreement) => {
            alarm(cluster);
            return Ok(Some(Fate::Dead(Code::RuleMismatch)));
        }
        Err(LifeRefusal::Seated | LifeRefusal::NotTheWinner | LifeRefusal::NotSealing) => {
            return Ok(Some(Fate::Later));
        }
    };
    let fate = if life.winner().is_some() { Fate::LaneOver } else { Fate::Answered };
    if effects.is_empty() {
        return Ok(Some(fate));
    }
    conversation.life = life;
    let mut writing = Writing::new(cluster);
    for effect in effects {
        match effect {
            LifeEffect::BindSlot => bind_slot(&mut writing, &conversation, &pair).await?,
            LifeEffect::YieldSlot(slot) => {
                write_slot(&mut writing, &conversation, &pair, |_| Some(slot)).await?;
            }
            LifeEffect::Export => {
                let to = conversation.life.winner().map(|winner| winner.home.clone());
                let to = to.ok_or(Code::Internal)?;
                post_export(&mut writing, id, &conversation, to)?;
            }
            LifeEffect::Settle => {}
        }
    }
    row.save(&mut writing.batch, &conversation);
    writing.report(&conversation);
    Ok((writing.commit().await? == Committed::Yes).then_some(fate))
}

/// The creator's slot is bound to the conversation that the creator made here.
pub(super) async fn bind_slot(
    writing: &mut Writing<'_>,
    conversation: &Conversation,
    pair: &PairKey,
) -> Result<(), Problem> {
    let bound = |slot: &Slot| {
        let own = slot.conversation == conversation.place && slot.hold == Hold::Unbound;
        own.then(|| Slot { hold: Hold::Bound, ..slot.clone() })
    };
    write_slot(writing, conversation, pair, |slot| slot.and_then(bound)).await
}

/// Changes the creator's slot, if it is kept here.
pub(super) async fn write_slot(
    writing: &mut Writing<'_>,
    conversation: &Conversation,
    pair: &PairKey,
    change: impl FnOnce(Option<&Slot>) -> Option<Slot>,
) -> Result<(), Problem> {
    let creator = &conversation.creator;
    let Some(other) = conversation.other().map(|other| other.user.clone()) else { return Ok(()) };
    if !writing.changes.rely_on(&creator.user).await? {
        return Ok(());
    }
    let names = Pair { user: &creator.user, other: &other, key: pair };
    let row: Loaded<SlotRow> = store::slot(writing.cluster, names).await?;
    if let Some(slot) = change(row.value.as_ref().map(|row| &row.slot)) {
        writing.save_slot(names, &row, slot);
    }
    Ok(())
}

/// Two clusters compute differently: nobody seals, and somebody must look.
fn alarm(cluster: &Cluster) {
    cluster.host.probe.log(Level::Error, "pair.rule-mismatch", json!({ "side": "caller" }));
}
