//! Conversations: the rendezvous objects of chats (CNV, RDV).
//!
//! `http` is what participants and clusters ask; `create` makes conversations, `post` adds activities,
//! `race` claims and grants pairs, `merge` moves a loser's activities into the winner, `renew` announces
//! again what an index has lost; `store` keeps the rows, and `writing` is the one commit that everything
//! ends in.
//!
//! Not here: what is decided (`fusion_machines::{conversation, pair}`), users' pointers (`index`), how
//! anything reaches another cluster (`outbox`).

mod create;
mod http;
mod merge;
mod post;
mod race;
mod renew;
mod store;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod writing;

use axum::Router;
use fusion_machines::conversation::{Conversation, Members, Refusal};
use fusion_machines::pair::LifeRefusal;
use fusion_protocol::conversation::{self as wire, ConversationState, Kind, Participant};
use fusion_protocol::map::UserRecord;
use fusion_protocol::{Address, Code, Problem, Service, Url, Uuid};
use fusion_runtime::store::Batch;

pub(crate) use merge::export;
pub(crate) use race::claim;
pub(crate) use renew::announce_again;
pub(crate) use store::{CARRIED, page, settle_slots};

use crate::rows::{self, Committed};
use crate::{Cluster, index};

/// What the locus needs to know of its conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) kind: Kind,
    pub(crate) state: ConversationState,
    /// Its members now.
    pub(crate) members: Vec<Participant>,
    /// Where it went, when it lost the race.
    pub(crate) superseded_by: Option<Url>,
}

pub(crate) fn routes() -> Router<Cluster> {
    http::routes()
}

/// Who is in a conversation of this cluster; `not-found` when there is none.
pub(crate) async fn membership(cluster: &Cluster, conversation: Uuid) -> Result<Membership, Problem> {
    let (_, conversation) = store::existing(cluster, conversation).await?;
    Ok(Membership {
        kind: conversation.kind(),
        state: conversation.life.state(),
        superseded_by: conversation.life.winner().map(|winner| winner.url.clone()),
        members: conversation.participants,
    })
}

/// The URL of a conversation of this cluster.
pub(crate) fn url(cluster: &Cluster, conversation: Uuid) -> Url {
    cluster.url(Service::Conv, &format!("/v1/conversations/{conversation}"))
}

/// Whether `user` may read and write it (SEC-006).
pub(crate) fn is_member(membership: &Membership, user: &Address) -> bool {
    membership.members.iter().any(|member| member.user == *user)
}

/// RDV-002: whoever made a conversation is shown whom it will never reach, and why.
pub(crate) async fn give_up_on(
    cluster: &Cluster,
    id: Uuid,
    user: &Address,
    code: Code,
) -> Result<(), Problem> {
    change(cluster, id, |conversation| conversation.give_up_on(user, code)).await?;
    let Some(conversation) = store::conversation(cluster, id).await?.value else { return Ok(()) };
    writing::remind(cluster, &conversation.creator.user, &conversation.place.url).await
}

/// A participant who could not be resolved at first has been found.
pub(crate) async fn found(cluster: &Cluster, id: Uuid, record: &UserRecord) -> Result<(), Problem> {
    let found = |conversation: &mut Conversation| {
        conversation.found(&record.user, record.incarnation, &record.cluster);
    };
    change(cluster, id, found).await
}

/// Changes what a conversation says of its participants.
async fn change(cluster: &Cluster, id: Uuid, change: impl Fn(&mut Conversation)) -> Result<(), Problem> {
    let _held = hold(cluster, id).await;
    loop {
        let row = store::conversation(cluster, id).await?;
        let Some(mut conversation) = row.value.clone() else { return Ok(()) };
        change(&mut conversation);
        if row.value.as_ref() == Some(&conversation) {
            return Ok(());
        }
        let mut batch = Batch::default();
        row.save(&mut batch, &conversation);
        if rows::commit(&*cluster.host.store, batch).await? == Committed::Yes {
            return Ok(());
        }
    }
}

/// Whether a conversation lost the race: nobody else is to hear of it.
pub(crate) async fn is_lost(cluster: &Cluster, id: Uuid) -> Result<bool, Problem> {
    let conversation = store::conversation(cluster, id).await?.value;
    Ok(conversation.is_some_and(|conversation| conversation.life.winner().is_some()))
}

/// CNV-005, only by a rule that frees a pair when somebody hides its conversation: whatever says here which
/// conversation `user` has with whom at `url` is forgotten.
pub(crate) async fn free_pair(cluster: &Cluster, user: &Address, url: &Url) -> Result<(), Problem> {
    if !cluster.config.pair_rule.empties() {
        return Ok(());
    }
    let mut batch = Batch::default();
    for slot in store::slots(cluster, user).await? {
        if slot.value.as_ref().is_some_and(|row| row.slot.conversation.url == *url) {
            slot.remove(&mut batch);
        }
    }
    let here = match id_of(cluster, url) {
        Some(id) => store::conversation(cluster, id).await?.value,
        None => None,
    };
    if let Some(Members::Fixed { pair }) = here.map(|conversation| conversation.members) {
        store::of_pair(cluster, &pair).await?.remove(&mut batch);
    }
    let (Committed::Yes | Committed::Again) = rows::commit(&*cluster.host.store, batch).await?;
    Ok(())
}

/// Holds a conversation: what is decided about it is decided in order (CNV-001).
async fn hold(cluster: &Cluster, id: Uuid) -> crate::locks::Held<'_> {
    cluster.locks.hold(format!("conversation/{id}")).await
}

/// Holds a pair. Whoever holds a pair and a conversation holds the pair first.
async fn hold_pair<'c>(cluster: &'c Cluster, pair: &wire::PairKey) -> crate::locks::Held<'c> {
    cluster.locks.hold(format!("pair/{pair}")).await
}

/// The id of a conversation of this cluster, from its URL.
fn id_of(cluster: &Cluster, url: &Url) -> Option<Uuid> {
    let located = cluster.config.template.locate(url).ok()?;
    let here = located.cluster == *cluster.name() && located.service == Service::Conv;
    here.then(|| located.path.strip_prefix("/v1/conversations/")?.parse().ok())?
}

/// A conversation as its participants see it.
fn view(cluster: &Cluster, id: Uuid, conversation: &Conversation) -> wire::Conversation {
    let url = &conversation.place.url;
    wire::Conversation {
        id: format!("{}~{id}", cluster.name()),
        url: url.clone(),
        locus_url: index::locus_url(url),
        kind: conversation.kind(),
        state: conversation.life.state(),
        participants: conversation.participants.clone(),
        title: conversation.title.clone(),
        last_seq: conversation.last_seq,
        membership_seq: conversation.membership_seq,
        created: conversation.created.clone(),
        superseded_by: conversation.life.winner().map(|winner| winner.url.clone()),
    }
}

/// A refusal as it is answered. (A superseded conversation is answered with a redirect before.)
fn problem(refusal: &Refusal) -> Problem {
    let code = match refusal {
        Refusal::NotParticipant => Code::NotParticipant,
        Refusal::FixedMembership => Code::FixedMembership,
        Refusal::Sealing => Code::Sealing,
        Refusal::Superseded(_) | Refusal::NotIn => Code::Conflict,
        Refusal::AlreadyIn => Code::AlreadyExists,
        Refusal::TooMany | Refusal::TooLong | Refusal::Empty => Code::Unprocessable,
        Refusal::NoSuchActivity => Code::NotFound,
        Refusal::NotAuthor => Code::Forbidden,
        Refusal::ForeignFile => Code::UntrustedUrl,
        Refusal::NotYours => Code::NotYourObject,
        Refusal::Race(LifeRefusal::Disagreement) => Code::RuleMismatch,
        Refusal::Race(LifeRefusal::Seated | LifeRefusal::NotTheWinner | LifeRefusal::NotSealing) => {
            Code::Conflict
        }
    };
    Problem::new(code).detail(refusal.to_string())
}
