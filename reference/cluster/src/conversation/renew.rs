//! Announces a conversation again to participants whose index has lost something of it (RDV-007).

use fusion_machines::conversation::{Announce, Conversation};
use fusion_machines::repair::{announced_from, that_fit};
use fusion_protocol::conversation::{Activity, Participant};
use fusion_protocol::index::{DigestRow, Membership};
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Count, Problem, Uuid, limits};

use super::writing::{Writing, local};
use super::{id_of, store};
use crate::rows::Committed;
use crate::{Cluster, index};

/// Sends the participant of `row` whatever comes after `known` (`None`: there is no entry), as any other
/// announcement: through the outbox, or into the own indexes. Whoever is no longer in it is told nothing.
///
/// # Errors
/// When the store cannot be read or written.
pub(crate) async fn announce_again(
    cluster: &Cluster,
    row: &DigestRow,
    known: Option<Count>,
) -> Result<(), Problem> {
    let Some(id) = id_of(cluster, &row.url) else { return Ok(()) };
    let event = match known {
        Some(_) => EventType::ConversationChanged,
        None => EventType::ConversationCreated,
    };
    loop {
        let (loaded, conversation) = store::existing(cluster, id).await?;
        let is_meant = |one: &&Participant| one.user == row.user && one.incarnation == Some(row.incarnation);
        let Some(to) = conversation.participants.iter().find(is_meant).cloned() else { return Ok(()) };
        let from = announced_from(conversation.last_seq, to.joined_seq, known);
        let activities = activities(cluster, id, &conversation, from).await?;
        let told = [Announce { to, membership: Membership::Member, event }];
        let _index = index::hold(cluster, local(cluster, &told)).await;
        let mut writing = Writing::new(cluster);
        // What is announced is the conversation as it is now.
        loaded.unchanged(&mut writing.batch);
        writing.announce_all(id, &conversation, &told, &activities).await?;
        if writing.commit().await? == Committed::Yes {
            return Ok(());
        }
    }
}

async fn activities(
    cluster: &Cluster,
    id: Uuid,
    conversation: &Conversation,
    from: Count,
) -> Result<Vec<Activity>, Problem> {
    let before = Count(from.0.saturating_sub(1));
    let mut activities = store::activities(cluster, id, before, limits::PREVIEW_MAX).await?;
    activities.retain(|activity| activity.seq <= conversation.last_seq);
    Ok(that_fit(activities))
}
