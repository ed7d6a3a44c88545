//! Devices and notifications (MER).

use std::collections::BTreeMap;

use fusion_protocol::mercury::{Event, EventType, ServerFrame};
use fusion_protocol::{Count, Service, Url};

use crate::check::{Check, Checked, Need, Stop};
use crate::device::{Acks, Device, Heard, Received, Session};
use crate::stage::{EVENTUALLY, Judged as _, NEVER, Stage};

pub(super) const CHECKS: &[Check] = &[
    Check::new("MER-001.all-devices", &[Need::TwoOrgs], |stage| Box::pin(all_devices(stage))),
    Check::new("MER-002.gapless-and-resumed", &[Need::TwoOrgs], |stage| Box::pin(gapless_and_resumed(stage)))
        .within(120),
    Check::new("MER-005.newest-socket", &[Need::TwoOrgs], |stage| Box::pin(newest_socket(stage))),
];

async fn all_devices(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.person("bob", &there).await?;
    let phone = stage.device(&bob, "phone").await?;
    let tablet = stage.device(&bob, "tablet").await?;
    for device in [&phone, &tablet] {
        device.connect().await.set_up(stage, "connecting a device")?;
        let Some(registration) = device.registration() else { continue };
        let located = stage.target().template.locate(&registration.notification_url).ok();
        let right = located.is_some_and(|at| at.cluster == there && at.service == Service::Mercury);
        stage.require(right, "wrong-notification-url", "the notification URL is of the device's cluster")?;
    }
    let made = alice.one_to_one(&bob.user).await.set_up(stage, "creating a conversation")?.into_it();
    alice.say(&made.url, "to all your devices").await.set_up(stage, "saying something")?;
    for device in [&phone, &tablet] {
        let what = format!("the message reaches {}", device.name());
        let started = stage.host().clock.now();
        if device.wait_for(EVENTUALLY, |event| is_activity(event, &made.url)).await.is_none() {
            return Err(stage.fail("device-not-reached", what));
        }
        stage.came("device-not-reached", &what, stage.host().clock.now() - started);
    }
    Ok(())
}

async fn gapless_and_resumed(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.online("bob", &there).await?;
    let made = alice.one_to_one(bob.user()).await.set_up(stage, "creating a conversation")?.into_it();

    say_and_see(stage, &alice, &bob, &made.url, 3).await?;
    // Received and not acknowledged: they must come again, as the same events.
    bob.set_acks(Acks::Held);
    let held = say_and_see(stage, &alice, &bob, &made.url, 2).await?;
    bob.sever();
    bob.set_acks(Acks::Sent);
    // Said while nobody listens: they must come later.
    for n in 0..2 {
        alice.say(&made.url, &format!("while you were away {n}")).await.set_up(stage, "saying something")?;
    }
    let expected = activities(&bob, &made.url).len() + held.len() + 2;
    bob.connect().await.must(stage, "not-reconnected")?;
    stage
        .eventually("event-lost", "unacknowledged events come again and missed ones come", || async {
            (activities(&bob, &made.url).len() >= expected).then_some(())
        })
        .await?;
    for event in &held {
        let again = bob.received().iter().filter(|received| received.event.id == event.id).count();
        stage.require(again >= 2, "not-repeated", "an unacknowledged event came again with the same id")?;
    }
    numbered_without_gaps(stage, &bob.received())
}

async fn newest_socket(stage: &Stage) -> Checked {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.user("bob", &there).await?;
    let registration = bob.register().await.must(stage, "not-registered")?;
    let at = &registration.web_socket_url;
    let mut older = bob.open_session(at, None).await.must(stage, "not-opened")?;
    let first = ready(stage, &mut older).await?;
    let mut newer = bob.open_session(at, None).await.must(stage, "not-opened")?;
    let second = ready(stage, &mut newer).await?;
    let text = format!("the newer socket's session {second} is above the older one's {first}");
    stage.require(second > first, "session-not-newer", text)?;

    let ended = stage.host().clock.timeout(EVENTUALLY, ended(&mut older)).await;
    let text = "the older socket ends when the newer one is ready";
    stage.require(ended == Ok(Ended::WithoutEvents), "older-socket-lives", text)?;

    let made = alice.one_to_one(bob.user()).await.set_up(stage, "creating a conversation")?.into_it();
    alice.say(&made.url, "to the newest").await.set_up(stage, "saying something")?;
    let heard = async {
        loop {
            match newer.hear().await {
                Heard::Frame(ServerFrame::Event(event)) if event.resource == made.url => return true,
                Heard::Ended => return false,
                _ => {}
            }
        }
    };
    let heard = stage.host().clock.timeout(EVENTUALLY, heard).await;
    stage.require(heard == Ok(true), "newer-socket-silent", "the newer socket gets the events")
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    WithoutEvents,
    WithAnEvent,
}

async fn ended(session: &mut Session) -> Ended {
    loop {
        match session.hear().await {
            Heard::Ended | Heard::Frame(ServerFrame::Closing { .. }) => return Ended::WithoutEvents,
            Heard::Frame(ServerFrame::Event(_)) => return Ended::WithAnEvent,
            _ => {}
        }
    }
}

async fn ready(stage: &Stage, session: &mut Session) -> Result<Count, Stop> {
    let ready = async {
        loop {
            match session.hear().await {
                Heard::Frame(ServerFrame::Ready { session, .. }) => return Ok(session),
                Heard::Frame(ServerFrame::Closing { code }) => return Err(code.as_str().to_owned()),
                Heard::Ended => return Err("the socket ended".to_owned()),
                Heard::Garbage(why) => return Err(why),
                Heard::Ping | Heard::Frame(_) => {}
            }
        }
    };
    match stage.host().clock.timeout(EVENTUALLY, ready).await {
        Ok(Ok(session)) => Ok(session),
        Ok(Err(why)) => Err(stage.fail("not-ready", format!("the socket is not ready: {why}"))),
        Err(_) => Err(stage.fail("not-ready", "the socket is not ready in time")),
    }
}

/// Says `count` things and waits until the other has been told of each.
async fn say_and_see(
    stage: &Stage,
    speaker: &Device,
    listener: &Device,
    conversation: &Url,
    count: usize,
) -> Result<Vec<Event>, Stop> {
    let before = activities(listener, conversation).len();
    for n in 0..count {
        let said = speaker.say(conversation, &format!("number {n} of {count}")).await;
        said.set_up(stage, "saying something")?;
    }
    let told = stage
        .eventually("event-lost", "every message is told to the device", || async {
            let told = activities(listener, conversation);
            (told.len() >= before + count).then_some(told)
        })
        .await?;
    // Nothing may come twice while it is acknowledged.
    stage.host().clock.sleep(NEVER / 3).await;
    Ok(told.into_iter().skip(before).collect())
}

fn activities(device: &Device, conversation: &Url) -> Vec<Event> {
    let received = device.received().into_iter().map(|received| received.event);
    received.filter(|event| is_activity(event, conversation)).collect()
}

fn is_activity(event: &Event, conversation: &Url) -> bool {
    event.event_type == EventType::ConversationActivity && event.resource == *conversation
}

/// MER-002: each number once, without gaps, and the same number is always the same event.
fn numbered_without_gaps(stage: &Stage, received: &[Received]) -> Checked {
    let mut numbers = BTreeMap::new();
    for Received { event, .. } in received {
        let id = *numbers.entry(event.seq.0).or_insert(event.id);
        let text = format!("number {} is one event, however often it comes", event.seq);
        stage.require(id == event.id, "number-reused", text)?;
    }
    let (Some(first), Some(last)) = (numbers.keys().next(), numbers.keys().last()) else {
        return Err(stage.fail("event-lost", "no event came at all"));
    };
    let gapless = last - first + 1 == numbers.len() as u64;
    stage.require(gapless, "gap", format!("events {first} to {last} are all there: {}", numbers.len()))
}
