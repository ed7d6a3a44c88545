//! Moves a loser's activities into the winner (CNV-003): export at the loser's home, import at the
//! winner's.

use std::collections::BTreeSet;

use fusion_machines::conversation::{Conversation, Members, taken_back};
use fusion_machines::pair::{LifeEffect, LifeEvent, Slot};
use fusion_protocol::conversation::{
    Act, Activity, ActivityId, ConversationState, Import, Imported, PairKey,
};
use fusion_protocol::locus::Replaces;
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, ClusterName, Code, Count, Problem, Url, Uuid, limits};
use fusion_runtime::probe::Level;
use http::Method;
use serde_json::json;

use super::race::{bind_slot, claim_again, write_slot};
use super::writing::{Writing, local};
use super::{hold, hold_pair, problem, store};
use crate::outbox::Fate;
use crate::peers::{self, PeerError};
use crate::rows::Committed;
use crate::{Cluster, index, locus, users};

/// Activities of one page of an export.
const PAGE: usize = 100;
/// Octets of text of one page: the body has room for the rest.
const PAGE_OCTETS: usize = limits::BODY_MAX / 2;

/// Sends everything in a sealed conversation to the winner, from the start each time it is called: the
/// winner knows what it has.
pub(crate) async fn export(cluster: &Cluster, id: Uuid) -> Fate {
    let conversation = match store::conversation(cluster, id).await.map(|row| row.value) {
        Ok(Some(conversation)) => conversation,
        Ok(None) => return Fate::Answered,
        Err(_) => return Fate::Later,
    };
    let Members::Fixed { pair } = conversation.members else { return Fate::Answered };
    let sent = match conversation.life.winner() {
        Some(winner) if conversation.life.state() == ConversationState::Sealing => {
            send_all(cluster, id, &conversation, &pair, &imports_url(&winner.url)).await
        }
        _ => return Fate::Answered,
    };
    match sent {
        Ok(()) => finish(cluster, id, &pair).await.unwrap_or(Fate::Later),
        Err(fate) => fate,
    }
}

async fn send_all(
    cluster: &Cluster,
    id: Uuid,
    loser: &Conversation,
    pair: &PairKey,
    to: &Url,
) -> Result<(), Fate> {
    let replaces = locus::move_away(cluster, id).await.map_err(|_| Fate::Later)?;
    let mut after = Count(0);
    loop {
        let page = page(cluster, id, loser, after).await.map_err(|_| Fate::Later)?;
        after = page.last().map_or(loser.last_seq, |last| last.seq);
        let complete = after >= loser.last_seq;
        let import = Import {
            from: loser.place.url.clone(),
            pair_key: *pair,
            first_seq: page.first().map_or(Count(1), |first| first.seq),
            activities: page,
            complete,
            replaces: if complete { replaces.clone() } else { Vec::new() },
        };
        match peers::call(cluster, Method::POST, to, &import).await {
            Ok(_) if complete => return Ok(()),
            Ok(_) => {}
            Err(PeerError::Unreachable) => return Err(Fate::Unreachable),
            Err(PeerError::Refused(problem)) => {
                // What was accepted here must not be lost: tried for ever, and somebody must look.
                let fields = json!({ "code": problem.code });
                cluster.host.probe.log(Level::Error, "conversation.import-refused", fields);
                return Err(Fate::Later);
            }
        }
    }
}

/// The next activities, attested where their author is not this cluster's own, or no longer.
pub(super) async fn page(
    cluster: &Cluster,
    id: Uuid,
    loser: &Conversation,
    after: Count,
) -> Result<Vec<Activity>, Problem> {
    let mut octets = 0;
    let mut page = store::activities(cluster, id, after, PAGE).await?;
    let fits = page.iter().take_while(|activity| {
        octets += match &activity.act {
            Act::Message { text } => text.expose().len(),
            _ => 0,
        };
        octets <= PAGE_OCTETS
    });
    let count = fits.count().max(1);
    page.truncate(count);
    for activity in &mut page {
        if !is_own(cluster, loser, &activity.author).await? {
            activity.attested_by = Some(cluster.name().clone());
        }
    }
    Ok(page)
}

/// Whether this cluster serves the author, who was its user when the conversation was made: whoever has moved
/// since is somebody else's (MAP-007), and the winner may know that already.
async fn is_own(cluster: &Cluster, loser: &Conversation, author: &Address) -> Result<bool, Problem> {
    let known = loser.participant(author).and_then(|author| author.cluster.as_ref());
    Ok(known == Some(cluster.name()) && users::served_here(cluster, author).await?.value.is_some())
}

/// The winner has everything: from now on everything is there.
async fn finish(cluster: &Cluster, id: Uuid, pair: &PairKey) -> Result<Fate, Problem> {
    let _pair = hold_pair(cluster, pair).await;
    let _held = hold(cluster, id).await;
    loop {
        let (row, mut loser) = store::existing(cluster, id).await?;
        let stepped = loser.life.step(&loser.place, pair, LifeEvent::Exported);
        let Ok((life, effects)) = stepped else { return Ok(Fate::Answered) };
        let Some(winner) = life.winner().cloned() else { return Ok(Fate::Answered) };
        if !effects.contains(&LifeEffect::Settle) {
            return Ok(Fate::Answered);
        }
        loser.life = life;
        let mut told = loser.everybody(EventType::ConversationChanged);
        // Nobody but its creator has ever heard of the loser.
        told.retain(|one| one.to.user == loser.creator.user);
        let _indexes = index::hold(cluster, local(cluster, &told)).await;
        let mut writing = Writing::new(cluster);
        row.save(&mut writing.batch, &loser);
        let settled = |slot: &Slot| slot.settled(&loser.place.url, &winner);
        write_slot(&mut writing, &loser, pair, |slot| slot.map(settled)).await?;
        writing.announce(id, &loser, &told, None).await?;
        writing.changes.show(&mut writing.batch, &loser.creator.user, &winner.url).await?;
        writing.report(&loser);
        if writing.commit().await? == Committed::Yes {
            return Ok(Fate::Answered);
        }
    }
}

/// Takes over a page of a loser of another cluster.
///
/// # Errors
/// `not-your-object` when the loser is not the caller's or the caller does not speak for an author;
/// `conflict` when this conversation did not beat it.
pub(super) async fn import(
    cluster: &Cluster,
    id: Uuid,
    caller: &ClusterName,
    import: Import,
) -> Result<Imported, Problem> {
    if !index::is_conversation_of(cluster, caller, &import.from) || caller == cluster.name() {
        return Err(Code::NotYourObject.into());
    }
    if import.activities.len() > limits::PAGE_MAX {
        return Err(Problem::new(Code::Unprocessable).detail("too many activities in one import"));
    }
    {
        let _pair = hold_pair(cluster, &import.pair_key).await;
        let _held = hold(cluster, id).await;
        while take_in(cluster, id, caller, &import).await? == Committed::Again {}
    }
    // Whoever lost to this conversation needs its index entry, too.
    claim_again(cluster, id).await?;
    if import.complete && !import.replaces.is_empty() {
        locus::take_over(cluster, id, of_loser(import.replaces, &import.from)).await?;
    }
    let count = import.activities.len() as u64;
    Ok(Imported { through: Count((import.first_seq.0 + count).saturating_sub(1)) })
}

async fn take_in(
    cluster: &Cluster,
    id: Uuid,
    caller: &ClusterName,
    import: &Import,
) -> Result<Committed, Problem> {
    let (row, mut winner) = store::existing(cluster, id).await?;
    if winner.members != (Members::Fixed { pair: import.pair_key }) {
        return Err(Code::Conflict.into());
    }
    let known = known(cluster, id, &import.activities).await?;
    let taken = winner.import(caller, &import.activities, &known).map_err(|refusal| problem(&refusal))?;
    if taken.appended.is_empty() && row.value.as_ref() == Some(&winner) {
        return Ok(Committed::Yes);
    }
    let told = winner.everybody(EventType::ConversationActivity);
    let _indexes = index::hold(cluster, local(cluster, &told)).await;
    let mut writing = Writing::new(cluster);
    row.save(&mut writing.batch, &winner);
    if taken.effects.contains(&LifeEffect::BindSlot) {
        bind_slot(&mut writing, &winner, &import.pair_key).await?;
    }
    for target in &taken.taken_back {
        let here = store::find(cluster, id, *target).await?;
        here.iter().for_each(|activity| store::rewrite(&mut writing.batch, id, &taken_back(activity)));
    }
    for activity in &taken.appended {
        let activity = match taken.taken_back.contains(&activity.id) {
            true => taken_back(activity),
            false => activity.clone(),
        };
        store::append(&mut writing.batch, id, &activity);
        writing.announce(id, &winner, &told, Some(&activity)).await?;
    }
    writing.report(&winner);
    writing.commit().await
}

/// Which of them are here already.
async fn known(
    cluster: &Cluster,
    id: Uuid,
    activities: &[Activity],
) -> Result<BTreeSet<ActivityId>, Problem> {
    let places = store::places(cluster, id, activities.iter().map(|activity| activity.id)).await?;
    let known = activities.iter().zip(places).filter(|(_, place)| place.value.is_some());
    Ok(known.map(|(activity, _)| activity.id).collect())
}

/// A loser speaks of its own call only.
fn of_loser(mut replaces: Vec<Replaces>, loser: &Url) -> Vec<Replaces> {
    replaces.retain(|call| call.locus_url == index::locus_url(loser));
    replaces
}

fn imports_url(winner: &Url) -> Url {
    let mut url = winner.clone();
    let path = format!("{}/imports", winner.path());
    url.set_path(&path);
    url
}
