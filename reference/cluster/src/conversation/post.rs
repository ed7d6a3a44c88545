//! Adds activities (CNV-001).

use fusion_machines::conversation::{About, Author, Conversation, Posted, Refusal, activity_id};
use fusion_protocol::conversation::{Act, Activity, ActivityId, Kind};
use fusion_protocol::map::UserRecord;
use fusion_protocol::{Code, Problem, Url, UserRef, Uuid};
use fusion_runtime::probe::Level;
use serde_json::json;

use super::create::resolve_soon;
use super::writing::{Writing, local};
use super::{hold, problem, store};
use crate::rows::Committed;
use crate::{Cluster, index, locus};

/// How often a call is told of a change of members before it is left to find out by itself.
const TELL_TRIES: usize = 3;

/// What became of a post.
pub(super) enum Answered {
    /// 201.
    New(Activity),
    /// 200: it had been posted before.
    Known(Activity),
    /// 308: the conversation went there.
    Elsewhere(Url),
}

/// What an act is about, looked up before the conversation is held.
enum Subject {
    Itself,
    Activity(Option<Activity>),
    Newcomer(Option<UserRecord>),
}

/// Adds an activity: activity, conversation, indexes and outbox rows in one commit.
pub(super) async fn post(
    cluster: &Cluster,
    id: Uuid,
    author: &UserRef,
    key: &str,
    act: &Act,
) -> Result<Answered, Problem> {
    let subject = subject(cluster, id, author, act).await?;
    let answered = add(cluster, id, author, key, act, &subject).await?;
    let membership = matches!(act, Act::Add { .. } | Act::Leave {} | Act::Remove { .. });
    if membership && matches!(answered, Answered::New(_)) {
        tell_the_call(cluster, id).await;
    }
    Ok(answered)
}

async fn add(
    cluster: &Cluster,
    id: Uuid,
    author: &UserRef,
    key: &str,
    act: &Act,
    subject: &Subject,
) -> Result<Answered, Problem> {
    let _held = hold(cluster, id).await;
    loop {
        let (row, mut conversation) = store::existing(cluster, id).await?;
        let activity = activity_id(&conversation, author, key);
        if let Some(known) = repeated(cluster, id, &conversation, author, activity).await? {
            return Ok(Answered::Known(known));
        }
        let published = cluster.host.clock.wall().to_string();
        let author = Author { user: author, id: activity, published };
        let posted = match conversation.post(author, act, &subject.about()) {
            Ok(posted) => posted,
            Err(Refusal::Superseded(winner)) => return Ok(Answered::Elsewhere(winner)),
            Err(refusal) => return Err(problem(&refusal)),
        };
        let _indexes = index::hold(cluster, local(cluster, &posted.announce)).await;
        let mut writing = Writing::new(cluster);
        row.save(&mut writing.batch, &conversation);
        if write(writing, id, &conversation, &posted).await? == Committed::Yes {
            return Ok(Answered::New(posted.activity));
        }
    }
}

async fn write(
    mut writing: Writing<'_>,
    id: Uuid,
    conversation: &Conversation,
    posted: &Posted,
) -> Result<Committed, Problem> {
    store::append(&mut writing.batch, id, &posted.activity);
    if let Some(taken_back) = &posted.taken_back {
        store::rewrite(&mut writing.batch, id, taken_back);
    }
    writing.announce(id, conversation, &posted.announce, Some(&posted.activity)).await?;
    writing.commit().await
}

/// A client's retry is the same activity. While the conversation is being merged nobody says so: the
/// winner will.
async fn repeated(
    cluster: &Cluster,
    id: Uuid,
    conversation: &Conversation,
    author: &UserRef,
    activity: ActivityId,
) -> Result<Option<Activity>, Problem> {
    if conversation.life.winner().is_some() || !conversation.is_participant(author) {
        return Ok(None);
    }
    store::find(cluster, id, activity).await
}

async fn subject(cluster: &Cluster, id: Uuid, author: &UserRef, act: &Act) -> Result<Subject, Problem> {
    match act {
        Act::Delete { activity } | Act::Acknowledge { activity } => {
            Ok(Subject::Activity(store::find(cluster, id, *activity).await?))
        }
        Act::Add { user } => {
            let (_, conversation) = store::existing(cluster, id).await?;
            // Who may not add anybody learns nothing about anybody.
            if !conversation.is_participant(author) {
                return Err(Code::NotParticipant.into());
            }
            if conversation.kind() == Kind::OneToOne {
                return Err(Code::FixedMembership.into());
            }
            Ok(Subject::Newcomer(resolve_soon(cluster, user).await?))
        }
        Act::Message { .. } | Act::Leave {} | Act::Remove { .. } | Act::Title { .. } | Act::Share { .. } => {
            Ok(Subject::Itself)
        }
    }
}

/// SEC-006: whoever is no longer in the conversation is out of its call at once.
async fn tell_the_call(cluster: &Cluster, id: Uuid) {
    for _ in 0..TELL_TRIES {
        match locus::members_changed(cluster, id).await {
            Ok(()) => return,
            Err(problem) => {
                let fields = json!({ "code": problem.code });
                cluster.host.probe.log(Level::Warn, "conversation.call-not-told", fields);
            }
        }
    }
}

impl Subject {
    fn about(&self) -> About<'_> {
        match self {
            Self::Itself => About::Itself,
            Self::Activity(activity) => About::Activity(activity.as_ref()),
            Self::Newcomer(found) => About::Newcomer {
                incarnation: found.as_ref().map(|record| record.incarnation),
                cluster: found.as_ref().map(|record| record.cluster.clone()),
            },
        }
    }
}
