//! Calls (LOC).

use fusion_protocol::locus::{Joined, Locus, LocusDelta, LocusState, ParticipantState};
use fusion_protocol::mercury::EventType;
use fusion_protocol::{Address, Code, Count, Url};
use futures_util::future::join;

use crate::check::{Check, Checked, Need, Stop};
use crate::device::{Device, Received, expect};
use crate::stage::{EVENTUALLY, Judged as _, NEVER, Stage};

pub(super) const CHECKS: &[Check] = &[
    Check::new("LOC-001.with-the-conversation", &[Need::TwoOrgs], |stage| {
        Box::pin(with_the_conversation(stage))
    }),
    Check::new("LOC-002.ring-and-answer", &[Need::TwoOrgs], |stage| Box::pin(ring_and_answer(stage))),
    Check::new("LOC-003.glare", &[Need::TwoOrgs], |stage| Box::pin(glare(stage))),
    Check::new("LOC-003.late-join", &[Need::TwoOrgs], |stage| Box::pin(late_join(stage))),
    Check::new("LOC-006.decline", &[Need::TwoOrgs], |stage| Box::pin(decline(stage))),
    Check::new("LOC-006.answered-elsewhere", &[Need::TwoOrgs], |stage| Box::pin(answered_elsewhere(stage))),
    Check::new("LOC-007.end", &[Need::TwoOrgs], |stage| Box::pin(end(stage))),
    Check::new("LOC-008.revisions", &[Need::TwoOrgs], |stage| Box::pin(revisions(stage))),
];

async fn with_the_conversation(stage: &Stage) -> Checked {
    let (alice, bob, made) = couple(stage).await?;
    let below = format!("{}/locus", made.url);
    stage.require(
        made.locus_url.as_str() == below,
        "locus-elsewhere",
        "the locus is below its conversation",
    )?;
    let by_alice = alice.read_locus(&made.locus_url).await.must(stage, "locus-unreadable")?;
    let by_bob = bob.read_locus(&made.locus_url).await.must(stage, "locus-unreadable")?;
    let same = by_alice.url == made.locus_url && by_bob.url == made.locus_url;
    stage.require(same, "locus-moved", "both see the locus under the same URL")?;
    let right = by_alice.conversation_url == made.url && by_alice.state == LocusState::Inactive;
    stage.require(right, "not-at-rest", "it belongs to the conversation and is at rest")?;
    let first = call(stage, &alice, &bob, &made.locus_url).await?;
    hang_up(stage, &[&alice, &bob], &first).await?;
    let second = call(stage, &bob, &alice, &made.locus_url).await?;
    let kept = second.locus.url == made.locus_url && second.locus.instance == first.locus.instance.next();
    stage.require(kept, "locus-moved", "the next call is the next instance at the same URL")?;
    hang_up(stage, &[&alice, &bob], &second).await
}

async fn ring_and_answer(stage: &Stage) -> Checked {
    let (alice, bob, made) = couple(stage).await?;
    bob.connect().await.set_up(stage, "connecting bob")?;
    let before = alice.read_locus(&made.locus_url).await.must(stage, "locus-unreadable")?;
    let joined = alice.join(&made.locus_url, expect(&before)).await.must(stage, "join-refused")?;
    let next = joined.locus.instance == before.instance.next();
    stage.require(next, "wrong-instance", "a call that starts is the next instance")?;

    let ringing = rings(stage, &bob, &made.locus_url).await?;
    let same = ringing.member::<Count>("instance") == Some(joined.locus.instance);
    stage.require(same, "wrong-instance", "the ringing names the instance")?;
    stage
        .eventually("not-in-list", "the call is in the other's list of active calls", || async {
            let listed = bob.list_loci().await.ok()?;
            listed.into_iter().find(|entry| {
                entry.locus_url == made.locus_url && entry.participant_state == ParticipantState::Notified
            })
        })
        .await?;
    let answered = bob.join(&made.locus_url, expect(&joined.locus)).await.must(stage, "join-refused")?;
    let one = answered.locus.instance == joined.locus.instance;
    stage.require(one, "second-call", "answering joins the call that rings")?;
    both_joined(stage, &alice, &bob, &made.locus_url).await?;
    hang_up(stage, &[&alice, &bob], &answered).await
}

async fn glare(stage: &Stage) -> Checked {
    let (alice, bob, made) = couple(stage).await?;
    let before = alice.read_locus(&made.locus_url).await.must(stage, "locus-unreadable")?;
    bob.read_locus(&made.locus_url).await.must(stage, "locus-unreadable")?;
    let expected = expect(&before);
    let (a, b) = join(alice.join(&made.locus_url, expected), bob.join(&made.locus_url, expected)).await;
    let (a, b) = (a.must(stage, "join-refused")?, b.must(stage, "join-refused")?);
    let one = a.locus.instance == b.locus.instance && a.locus.instance == before.instance.next();
    let text =
        format!("both are in call {}: {} and {}", before.instance.next(), a.locus.instance, b.locus.instance);
    stage.require(one, "two-calls", text)?;
    both_joined(stage, &alice, &bob, &made.locus_url).await?;
    for who in [&alice, &bob] {
        let what = format!("{} is left ringing nowhere", who.name());
        stage
            .eventually("left-ringing", &what, || async {
                let listed = who.list_loci().await.ok()?;
                let ringing =
                    listed.iter().any(|entry| entry.participant_state == ParticipantState::Notified);
                (!ringing).then_some(())
            })
            .await?;
    }
    hang_up(stage, &[&alice, &bob], &a).await
}

async fn late_join(stage: &Stage) -> Checked {
    let (alice, bob, made) = couple(stage).await?;
    let before = alice.read_locus(&made.locus_url).await.must(stage, "locus-unreadable")?;
    let expected = expect(&before);
    let joined = alice.join(&made.locus_url, expected).await.must(stage, "join-refused")?;
    alice.leave(&made.locus_url, joined.locus.instance).await.must(stage, "leave-refused")?;
    is_over(stage, &alice, &made.locus_url).await?;
    alice.connect().await.set_up(stage, "connecting alice")?;

    let late = bob.join(&made.locus_url, expected).await;
    stage.refused(late, "joining a call that is over", &[Code::CallOver], "rang-again")?;
    let rung = alice.wait_for(NEVER, |event| event.event_type == EventType::LocusRinging).await;
    stage.require(rung.is_none(), "rang-again", "the late join rings nobody")?;
    let after = alice.read_locus(&made.locus_url).await.must(stage, "locus-unreadable")?;
    let still = after.state == LocusState::Inactive && after.instance == joined.locus.instance;
    stage.require(still, "rang-again", "the locus is still at rest")
}

async fn decline(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.person("bob", &there).await?;
    let phone = stage.device(&bob, "phone").await?;
    let tablet = stage.device(&bob, "tablet").await?;
    for device in [&phone, &tablet] {
        device.connect().await.set_up(stage, "connecting a device")?;
    }
    let made = alice.one_to_one(&bob.user).await.set_up(stage, "creating a conversation")?.into_it();
    let joined = start(stage, &alice, &made.locus_url).await?;
    for device in [&phone, &tablet] {
        rings(stage, device, &made.locus_url).await?;
    }
    phone.decline(&made.locus_url, joined.locus.instance).await.must(stage, "decline-refused")?;
    let over = is_over(stage, &alice, &made.locus_url).await?;
    let state = state_of(&over, &bob.user);
    let declined = state == Some(ParticipantState::Declined);
    stage.require(declined, "not-declined", format!("the other has declined: {state:?}"))?;
    for device in [&phone, &tablet] {
        listed_nowhere(stage, device, &made.locus_url).await?;
    }
    listed_nowhere(stage, &alice, &made.locus_url).await
}

async fn answered_elsewhere(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.person("bob", &there).await?;
    let phone = stage.device(&bob, "phone").await?;
    let tablet = stage.device(&bob, "tablet").await?;
    for device in [&phone, &tablet] {
        device.connect().await.set_up(stage, "connecting a device")?;
    }
    let made = alice.one_to_one(&bob.user).await.set_up(stage, "creating a conversation")?.into_it();
    let joined = start(stage, &alice, &made.locus_url).await?;
    for device in [&phone, &tablet] {
        rings(stage, device, &made.locus_url).await?;
    }
    phone.join(&made.locus_url, expect(&joined.locus)).await.must(stage, "join-refused")?;
    let silenced = tablet
        .wait_for(EVENTUALLY, |event| {
            event.event_type == EventType::LocusAnsweredElsewhere && event.resource == made.locus_url
        })
        .await;
    stage.require(silenced.is_some(), "still-rings", "the other device is told that the call is answered")?;
    both_joined(stage, &alice, &phone, &made.locus_url).await?;
    hang_up(stage, &[&alice, &phone], &joined).await
}

async fn end(stage: &Stage) -> Checked {
    let (alice, bob, made) = couple(stage).await?;
    let joined = call(stage, &alice, &bob, &made.locus_url).await?;
    for who in [&alice, &bob] {
        stage
            .eventually("not-in-list", "the call is in the list of both", || async {
                let listed = who.list_loci().await.ok()?;
                listed.into_iter().find(|entry| entry.locus_url == made.locus_url)
            })
            .await?;
    }
    hang_up(stage, &[&alice, &bob], &joined).await?;
    for who in [&alice, &bob] {
        listed_nowhere(stage, who, &made.locus_url).await?;
    }
    let late = alice.renew(&made.locus_url, joined.locus.instance).await;
    stage.refused(late, "renewing a lease of a call that is over", &[Code::CallOver], "lease-outlives-call")
}

async fn revisions(stage: &Stage) -> Checked {
    let (alice, bob, made) = couple(stage).await?;
    let before = alice.read_locus(&made.locus_url).await.must(stage, "locus-unreadable")?;
    let joined = start(stage, &alice, &made.locus_url).await?;
    stage.require(joined.locus.rev > before.rev, "rev-stands-still", "joining makes a higher revision")?;
    let answered = bob.join(&made.locus_url, expect(&joined.locus)).await.must(stage, "join-refused")?;
    stage.require(answered.locus.rev > joined.locus.rev, "rev-stands-still", "so does answering")?;
    let now = alice.read_locus(&made.locus_url).await.must(stage, "locus-unreadable")?;
    let delta = alice.read_locus_since(&made.locus_url, now.rev).await.must(stage, "delta-refused")?;
    let rev = match &delta {
        LocusDelta::Unchanged { rev } => *rev,
        LocusDelta::Whole(locus) => locus.rev,
    };
    let right = rev == now.rev || matches!(&delta, LocusDelta::Whole(locus) if locus.rev > now.rev);
    stage.require(right, "wrong-delta", "who is up to date is told that nothing is new")?;
    let delta = alice.read_locus_since(&made.locus_url, before.rev).await.must(stage, "delta-refused")?;
    let newer = matches!(&delta, LocusDelta::Whole(locus) if locus.rev >= now.rev);
    stage.require(newer, "wrong-delta", "who is behind gets what is new")?;
    hang_up(stage, &[&alice, &bob], &answered).await?;
    let after = alice.read_locus(&made.locus_url).await.must(stage, "locus-unreadable")?;
    stage.require(after.rev > now.rev, "rev-restarted", "ending makes a higher revision")
}

struct Couple {
    url: Url,
    locus_url: Url,
}

/// Two people with a conversation.
async fn couple(stage: &Stage) -> Result<(Device, Device, Couple), Stop> {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.user("bob", &there).await?;
    let made = alice.one_to_one(bob.user()).await.set_up(stage, "creating a conversation")?.into_it();
    Ok((alice, bob, Couple { url: made.url, locus_url: made.locus_url }))
}

/// Joins a locus at rest.
pub(super) async fn start(stage: &Stage, caller: &Device, locus: &Url) -> Result<Joined, Stop> {
    let before = caller.read_locus(locus).await.must(stage, "locus-unreadable")?;
    caller.join(locus, expect(&before)).await.must(stage, "join-refused")
}

/// One calls, the other answers; answers what the caller got.
pub(super) async fn call(
    stage: &Stage,
    caller: &Device,
    callee: &Device,
    locus: &Url,
) -> Result<Joined, Stop> {
    let joined = start(stage, caller, locus).await?;
    callee.join(locus, expect(&joined.locus)).await.must(stage, "join-refused")?;
    both_joined(stage, caller, callee, locus).await?;
    Ok(joined)
}

/// All leave, and the call is over.
pub(super) async fn hang_up(stage: &Stage, who: &[&Device], joined: &Joined) -> Checked {
    for device in who {
        let left = device.leave(&joined.locus.url, joined.locus.instance).await;
        // The last one may be told that the call was over already.
        if left.as_ref().is_err_and(|failure| failure.code() == Some(Code::CallOver)) {
            continue;
        }
        left.must(stage, "leave-refused")?;
    }
    let Some(reader) = who.first() else { return Ok(()) };
    is_over(stage, reader, &joined.locus.url).await.map(drop)
}

async fn rings(stage: &Stage, device: &Device, locus: &Url) -> Result<Received, Stop> {
    let ringing = |event: &fusion_protocol::mercury::Event| {
        event.event_type == EventType::LocusRinging && event.resource == *locus
    };
    let started = stage.host().clock.now();
    let what = format!("the call rings at {}", device.name());
    match device.wait_for(EVENTUALLY, ringing).await {
        Some(received) => {
            stage.came("never-rang", &what, stage.host().clock.now() - started);
            Ok(received)
        }
        None => Err(stage.fail("never-rang", what)),
    }
}

async fn both_joined(stage: &Stage, alice: &Device, bob: &Device, locus: &Url) -> Checked {
    stage
        .eventually("not-connected", "the call is active with both in it", || async {
            let read = alice.read_locus(locus).await.ok()?;
            let joined = |user| state_of(&read, user) == Some(ParticipantState::Joined);
            (read.state == LocusState::Active && joined(alice.user()) && joined(bob.user())).then_some(())
        })
        .await
}

async fn is_over(stage: &Stage, reader: &Device, locus: &Url) -> Result<Locus, Stop> {
    stage
        .eventually("never-over", "the call is over", || async {
            reader.read_locus(locus).await.ok().filter(|read| read.state == LocusState::Inactive)
        })
        .await
}

async fn listed_nowhere(stage: &Stage, who: &Device, locus: &Url) -> Checked {
    let what = format!("{}'s list has the call no more", who.name());
    stage
        .eventually("ghost-call", &what, || async {
            let listed = who.list_loci().await.ok()?;
            (!listed.iter().any(|entry| entry.locus_url == *locus)).then_some(())
        })
        .await
}

fn state_of(locus: &Locus, user: &Address) -> Option<ParticipantState> {
    let participant = locus.participants.iter().find(|participant| participant.user == *user)?;
    Some(participant.state)
}
