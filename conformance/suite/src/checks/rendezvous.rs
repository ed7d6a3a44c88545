//! Making the two meet (RDV).

use fusion_protocol::conversation::Activity;
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Code, Count, Service, limits};
use http::Method;

use crate::check::{Check, Checked, Need};
use crate::device::Ask;
use crate::stage::{EVENTUALLY, Judged as _, Stage};

pub(super) const CHECKS: &[Check] = &[
    Check::new("RDV-001.at-home", &[Need::TwoOrgs], |stage| Box::pin(at_home(stage))),
    Check::new("RDV-002.index-before-notification", &[Need::TwoOrgs], |stage| {
        Box::pin(index_before_notification(stage))
    }),
    Check::new("RDV-003.found-by-asking", &[Need::TwoOrgs], |stage| Box::pin(found_by_asking(stage))),
    Check::new("RDV-004.preview", &[Need::TwoOrgs], |stage| Box::pin(preview(stage))),
];

async fn at_home(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.user("bob", &there).await?;
    let made = alice.one_to_one(bob.user()).await.must(stage, "create-refused")?.into_it();
    for url in [&made.url, &made.locus_url] {
        let at_home = stage.target().cluster_of(url).as_ref() == Some(&here);
        stage.require(at_home, "not-at-home", format!("{url} is in the creator's cluster {here}"))?;
    }
    let found = stage
        .eventually("not-found", "the other's cluster knows the conversation of the pair", || async {
            bob.look_up(alice.user()).await.ok()
        })
        .await?;
    let same = found.url == made.url && found.locus_url == made.locus_url;
    stage.require(same, "another-object", "both have the same conversation and the same locus")?;

    let token = bob.token_for(&there).await.set_up(stage, "getting a token")?;
    let Ok(at) = stage.target().template.locate(&made.url) else {
        return Err(stage.fail("not-at-home", "the conversation's URL is none of the federation"));
    };
    let copy = stage.target().template.url(&there, Service::Conv, &at.path);
    bob.read(&made.url).await.must(stage, "participant-refused")?;
    let what = "reading the conversation in the other's cluster";
    let ask = Ask::new(Method::GET, copy).token(token);
    stage.must_refuse(&bob, what, &[Code::NotFound], &ask, "second-home").await
}

async fn index_before_notification(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.online("bob", &there).await?;
    let carol = stage.online("carol", &here).await?;
    let pair = alice.one_to_one(bob.user()).await.must(stage, "create-refused")?.into_it();
    let everybody = [bob.user().clone(), carol.user().clone()];
    let group = alice.group(&everybody, "meeting").await.must(stage, "create-refused")?.into_it();
    for (who, made) in [(&bob, &pair.url), (&bob, &group.url), (&carol, &group.url)] {
        let woken = who
            .wait_for(EVENTUALLY, |event| {
                event.event_type == EventType::ConversationCreated && event.resource == *made
            })
            .await;
        let Some(woken) = woken else {
            return Err(stage.fail("never-notified", format!("{} is told of {made}", who.name())));
        };
        let cursor: Option<Count> = woken.member("indexCursor");
        stage.require(cursor.is_some(), "no-cursor", "the notification carries the index cursor")?;
        let page = who.read_index_page(Count(0), cursor).await.must(stage, "own-index-unreadable")?;
        let there_already = page.entries.iter().any(|entry| entry.url == *made);
        let text = format!("{} finds the entry at once after the notification", who.name());
        stage.require(there_already, "index-empty-when-notified", text)?;
    }
    Ok(())
}

async fn found_by_asking(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.user("bob", &there).await?;
    let pair = alice.one_to_one(bob.user()).await.must(stage, "create-refused")?.into_it();
    let group = alice.group(&[bob.user().clone()], "meeting").await.must(stage, "create-refused")?.into_it();
    for (what, made) in [("the conversation of two", &pair.url), ("the group", &group.url)] {
        let what = format!("{what} is in the participant's index without any notification");
        stage
            .eventually("not-in-index", &what, || async {
                bob.read_index().await.ok()?.into_iter().find(|entry| entry.url == *made)
            })
            .await?;
        bob.say(made, "found you").await.must(stage, "participant-refused")?;
    }
    Ok(())
}

async fn preview(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.user("bob", &there).await?;
    let made = alice.one_to_one(bob.user()).await.must(stage, "create-refused")?.into_it();
    let mut last = Count(0);
    for n in 0..limits::PREVIEW_MAX + 3 {
        last = alice.say(&made.url, &format!("line {n}")).await.must(stage, "message-refused")?.into_it().seq;
    }
    let entry = stage
        .eventually("preview-behind", "the index shows the last message", || async {
            bob.read_index()
                .await
                .ok()?
                .into_iter()
                .find(|entry| entry.url == made.url && entry.last_seq >= last)
        })
        .await?;
    let bounded = entry.preview.len() <= limits::PREVIEW_MAX;
    let text = format!("the preview has {} activities", entry.preview.len());
    stage.require(bounded && !entry.preview.is_empty(), "preview-unbounded", text)?;
    let truth = alice.read(&made.url).await.must(stage, "conversation-unreadable")?;
    let end = &truth[truth.len().saturating_sub(entry.preview.len())..];
    let same = names(end) == names(&entry.preview);
    stage.require(same, "preview-differs", "the preview is the end of the conversation, in its order")
}

fn names(activities: &[Activity]) -> Vec<(Count, String)> {
    activities.iter().map(|activity| (activity.seq, activity.id.to_string())).collect()
}
