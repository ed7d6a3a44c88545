//! Media (MED).

use std::time::Duration;

use fusion_protocol::Url;
use fusion_protocol::locus::Joined;
use fusion_protocol::media::rtp;
use futures_util::future::join;

use super::locus::{hang_up, start};
use crate::check::{Check, Checked, Need, Stop, Verdict};
use crate::device::{Device, Failure, MediaLeg, bind_with, expect};
use crate::stage::{Judged as _, Stage};

/// How many packets each sends, 20 ms apart.
const PACKETS: u64 = 25;
/// Between two packets of G.711.
const EVERY: Duration = Duration::from_millis(20);
/// How many of the packets must arrive, in hundredths: networks lose some.
const ARRIVE_MIN_PERCENT: u64 = 80;
/// MED-001: packets stop within this time.
const STOP_MAX: Duration = Duration::from_secs(1);

pub(super) const CHECKS: &[Check] = &[
    Check::new("MED-001.media-flows", &[Need::TwoOrgs], |stage| Box::pin(media_flows(stage))),
    Check::new("MED-001.wrong-token", &[Need::TwoOrgs], |stage| Box::pin(wrong_token(stage))),
    Check::new("MED-001.stops-after-leave", &[Need::TwoOrgs], |stage| Box::pin(stops_after_leave(stage))),
];

async fn media_flows(stage: &Stage) -> Checked {
    let Some(mut call) = call(stage).await? else { return Ok(()) };
    call.both_talk(stage).await?;
    for (who, leg, other) in [("alice", &call.a, &call.b), ("bob", &call.b, &call.a)] {
        let account = leg.account();
        let own = account.received.iter().any(|source| source.ssrc == leg.leg().ssrc);
        stage.require(!own, "heard-oneself", format!("{who} does not hear the own packets"))?;
        let known = account.received.iter().all(|source| source.ssrc == other.leg().ssrc);
        stage.require(known, "unknown-source", format!("{who} hears the other's source and no other"))?;
        let (late, twice) = account
            .received
            .iter()
            .fold((0, 0), |(late, twice), source| (late + source.out_of_order, twice + source.duplicates));
        if late + twice > 0 {
            let text = format!("{who} got {late} packets out of order and {twice} twice");
            stage.saw("order-changed", Verdict::Warn, text);
        }
    }
    call.end(stage).await
}

async fn wrong_token(stage: &Stage) -> Checked {
    let Some(mut call) = call(stage).await? else { return Ok(()) };
    call.both_talk(stage).await?;
    let relay = call.a.leg().udp_address;
    let token = format!("{}x", call.a.leg().token);
    match bind_with(stage.host(), relay, &token).await {
        Ok(_) => {
            return Err(stage.fail("wrong-token-bound", "the relay answers a binding with a wrong token"));
        }
        Err(Failure::Unknown(_)) => {
            stage.saw("wrong-token-bound", Verdict::Pass, "the relay does not answer a wrong token");
        }
        Err(failure) => return Err(stage.inconclusive("no-answer", failure.to_string())),
    }
    // From a port that nobody has bound, with the source of somebody who has.
    let before = (call.a.received(), call.b.received());
    let unbound = stage.host().net.udp((std::net::Ipv4Addr::UNSPECIFIED, 0).into()).await;
    let unbound = unbound.map_err(|error| stage.inconclusive("not-set-up", error.to_string()))?;
    for sequence in 0..10 {
        let packet = rtp(call.a.leg().ssrc, 30_000 + sequence, 0, &[0; 160]);
        let sent = unbound.send_to(&packet, relay).await;
        sent.map_err(|error| stage.inconclusive("no-answer", error.to_string()))?;
        stage.host().clock.sleep(EVERY).await;
    }
    stage.host().clock.sleep(STOP_MAX).await;
    let after = (call.a.received(), call.b.received());
    stage.require(before == after, "unbound-forwarded", "packets from an unbound address go nowhere")?;
    call.end(stage).await
}

async fn stops_after_leave(stage: &Stage) -> Checked {
    let Some(mut call) = call(stage).await? else { return Ok(()) };
    call.both_talk(stage).await?;
    let left = call.alice.leave(&call.joined.locus.url, call.joined.locus.instance).await;
    left.must(stage, "leave-refused")?;
    stage.host().clock.sleep(STOP_MAX).await;
    let (heard_by_alice, heard_by_bob) = (call.a.received(), call.b.received());
    let (a, b) = join(call.a.talk(10, EVERY), call.b.talk(10, EVERY)).await;
    a.set_up(stage, "sending after leaving")?;
    b.set_up(stage, "sending to somebody who left")?;
    stage.host().clock.sleep(Duration::from_millis(300)).await;
    let deaf = call.a.received() == heard_by_alice;
    stage.require(deaf, "hears-after-leaving", "who has left hears nothing more")?;
    let mute = call.b.received() == heard_by_bob;
    stage.require(mute, "heard-after-leaving", "who has left is heard no more")?;
    call.a.record();
    call.b.record();
    hang_up(stage, &[&call.bob], &call.joined).await
}

/// A call of two with both legs bound.
struct Call {
    alice: Device,
    bob: Device,
    joined: Joined,
    a: MediaLeg,
    b: MediaLeg,
}

/// `None` when the clusters have no relay: there is nothing to check.
async fn call(stage: &Stage) -> Result<Option<Call>, Stop> {
    let (here, there) = (stage.here()?, stage.there()?);
    let alice = stage.user("alice", &here).await?;
    let bob = stage.user("bob", &there).await?;
    let made = alice.one_to_one(bob.user()).await.set_up(stage, "creating a conversation")?.into_it();
    let locus: &Url = &made.locus_url;
    let joined = start(stage, &alice, locus).await?;
    let answered = bob.join(locus, expect(&joined.locus)).await.must(stage, "join-refused")?;
    if joined.leg.is_none() || answered.leg.is_none() {
        stage.saw("no-relay", Verdict::NotApplicable, "the conversation's cluster offers no media leg");
        return Ok(None);
    }
    let a = alice.bind(&joined).await.must(stage, "not-bound");
    let b = bob.bind(&answered).await.must(stage, "not-bound");
    Ok(Some(Call { a: a?, b: b?, alice, bob, joined }))
}

impl Call {
    async fn both_talk(&mut self, stage: &Stage) -> Checked {
        let (a, b) = join(self.a.talk(PACKETS, EVERY), self.b.talk(PACKETS, EVERY)).await;
        a.set_up(stage, "sending media")?;
        b.set_up(stage, "sending media")?;
        let enough = PACKETS * ARRIVE_MIN_PERCENT / 100;
        for (who, leg) in [("alice", &self.a), ("bob", &self.b)] {
            let arrived = leg.wait_received(enough, Duration::from_secs(2)).await;
            let text = format!("{who} hears {} of {PACKETS} packets", leg.received());
            stage.require(arrived, "no-media", text)?;
            leg.record();
        }
        Ok(())
    }

    async fn end(self, stage: &Stage) -> Checked {
        hang_up(stage, &[&self.alice, &self.bob], &self.joined).await
    }
}
