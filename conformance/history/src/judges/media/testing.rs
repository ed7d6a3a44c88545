//! Calls with legs, made up.

use fusion_protocol::Uuid;
use fusion_protocol::conversation::ConversationState;
use fusion_protocol::locus::ParticipantState::Joined;
use fusion_protocol::locus::{Locus, LocusState};

use crate::event::{Answer, Body, EventId, Media, MediaSource, World, WorldCluster};
use crate::testing::{Story, conversation_url, join, locus};

/// A call of Alice and Bob at cluster a.
pub(super) fn call() -> Locus {
    let members = [("alice", Joined), ("bob", Joined)];
    locus(&conversation_url("a", 1), LocusState::Active, 1, &members)
}

/// A call of Alice and Ann, both of cluster a, in a conversation at `cluster`.
pub(super) fn lone_call(story: &mut Story, cluster: &str) -> Locus {
    let url = conversation_url(cluster, 7);
    story.creates("alice", "ann", &url, ConversationState::Bound);
    locus(&url, LocusState::Active, 1, &[("alice", Joined), ("ann", Joined)])
}

/// The made-up world with other clusters.
pub(super) fn world_with(change: impl FnOnce(&mut Vec<WorldCluster>)) -> Story {
    let mut story = Story::new();
    let first = story.told().event(EventId(0)).map(|event| event.body.clone());
    if let Some(Body::World(mut world)) = first {
        change(&mut world.clusters);
        story.happens("engine", None, Body::World(World { ..world }));
    }
    story
}

/// A relay opens a leg.
pub(super) fn opens(story: &mut Story, relay: &str, leg: u128) -> EventId {
    story.state(relay, "leg", &Uuid::from_u128(leg).to_string(), "OPEN")
}

/// Somebody joins and is answered with a leg.
pub(super) fn answered_leg(story: &mut Story, who: &str, locus: &Locus, leg: u128) -> EventId {
    let answer = Answer::Joined { locus: Box::new(locus.clone()), leg: Some(Uuid::from_u128(leg)) };
    story.does(who, join(&locus.url, 0, who), answer)
}

/// What a device sent and received: five packets of each source.
pub(super) fn account(leg: u128, received: &[(u32, u64)]) -> Media {
    let source = |(ssrc, last_us): &(u32, u64)| {
        let (ssrc, last_us) = (*ssrc, *last_us);
        MediaSource { ssrc, packets: 5, out_of_order: 0, duplicates: 0, last_us }
    };
    Media {
        leg: Uuid::from_u128(leg),
        locus: call().url,
        instance: call().instance,
        ssrc: leg as u32,
        bound: true,
        sent: 5,
        received: received.iter().map(source).collect(),
        last_received_us: received.iter().map(|(_, last_us)| *last_us).max(),
        silences: vec![],
    }
}
