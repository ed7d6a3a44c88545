//! The judges, one file per area of SPEC.

mod conservation;
mod conversation;
mod durability;
mod floor;
mod linear;
mod locus;
mod mapping;
mod media;
mod mercury;
mod privacy;
mod rendezvous;
mod security;
mod session;
mod set_once;
mod survivability;

use crate::judge::Judge;

/// Every judge, in the order of SPEC's areas.
#[must_use]
pub fn judges() -> Vec<Box<dyn Judge>> {
    vec![
        Box::new(mapping::SameResolutionEverywhere),
        Box::new(mapping::MovedWhole),
        Box::new(mapping::FoundStaysFound),
        Box::new(mapping::OneOwner),
        Box::new(mapping::DomainMapInOneOrder),
        Box::new(mapping::WholeSetOfClusters),
        Box::new(mapping::OneOrgAtATime),
        Box::new(mapping::ReplicaOutlivesTheProvider),
        Box::new(mapping::UnknownTakesAsLong),
        Box::new(mercury::EveryDeviceIsReached),
        Box::new(mercury::GaplessDelivery),
        Box::new(mercury::MissedIsTold),
        Box::new(mercury::NobodyWaitsForTheSlow),
        Box::new(mercury::OneSocketAtATime),
        Box::new(rendezvous::OneHome),
        Box::new(rendezvous::IndexBeforeNotification),
        Box::new(rendezvous::PromptDelivery),
        Box::new(rendezvous::FoundBothWays),
        Box::new(rendezvous::PreviewsAreTheHomes),
        Box::new(rendezvous::EffectsArriveOnce),
        Box::new(rendezvous::HomesAway),
        Box::new(rendezvous::IndexRepair),
        Box::new(conversation::GaplessOrder),
        Box::new(conversation::CausalOrder),
        Box::new(conversation::OnePerPair),
        Box::new(conversation::LowerRankWins),
        Box::new(conversation::Convergence),
        Box::new(conversation::RacesAreSettled),
        Box::new(conversation::LateJoiners),
        Box::new(locus::OneLocusUrl),
        Box::new(locus::CallingIsJoining),
        Box::new(locus::GlareIsOneCall),
        Box::new(locus::CallsInOneOrder),
        Box::new(locus::OneActiveCall),
        Box::new(locus::DecidedAtHome),
        Box::new(locus::RingingEnds),
        Box::new(locus::Ghosts),
        Box::new(locus::RevisionsOnlyRise),
        Box::new(locus::GroupCallsHold),
        Box::new(media::MediaEndsWithTheCall),
        Box::new(media::OwnCallsStayHome),
        Box::new(media::NearestOwnRelay),
        Box::new(media::CallsSurviveRelays),
        Box::new(conservation::PacketsAreConserved),
        Box::new(security::LogInsStayHome),
        Box::new(security::TOKEN_FOR_ONE_CLUSTER),
        Box::new(security::GoesOnWithNewTokens),
        Box::new(security::CALLS_ARE_BOUND),
        Box::new(security::OWN_OBJECTS_ONLY),
        Box::new(security::PARTICIPANTS_ONLY),
        Box::new(security::ISSUER_SPEAKS_FOR_ITS_OWN),
        Box::new(privacy::NoPrivateByteAtTheProvider),
        Box::new(privacy::LogsNameNobody),
        Box::new(survivability::GoesOnWithoutTheProvider),
        Box::new(security::KnownPeersAreBelieved),
        Box::new(survivability::OthersAreUnaffected),
        Box::new(durability::AcknowledgedIsKept),
        Box::new(security::TokensOutliveRestarts),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Answer, Body, Call, EventId, Outcome};
    use crate::judge::{Ruling, WhyUnknown, ruling_of};
    use crate::testing::{
        self, Story, active, conversation_url, locus, locus_read, message, page_at, read, resolved, user,
    };
    use crate::{judge_all, judge_in_parts};
    use fusion_protocol::Code;
    use fusion_protocol::conversation::ConversationState::{Provisional, Sealing};
    use fusion_protocol::locus::LocusState;
    use fusion_protocol::locus::ParticipantState::{Joined, Notified};
    use fusion_protocol::mercury::EventType;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::sync::LazyLock;
    use std::time::Duration;

    /// Judges of what does not happen in the story below: media, second devices, groups, the end of a call,
    /// and what only faults bring about.
    const WITHOUT_A_CASE: &[&str] = &[
        "moved-whole",
        "unknown-takes-as-long",
        "media-ends-with-the-call",
        "own-calls-stay-home",
        "nearest-own-relay",
        "calls-survive-relays",
        "goes-on-without-the-provider",
        "others-are-unaffected",
        "acknowledged-is-kept",
        "tokens-outlive-restarts",
        "known-peers-are-believed",
        "goes-on-with-new-tokens",
        "packets-are-conserved",
        "index-repair",
        "causal-order",
        "calls-in-one-order",
        "prompt-delivery",
        "previews-are-the-homes",
        "homes-away",
        "late-joiners",
        "every-device-is-reached",
        "missed-is-told",
        "nobody-waits-for-the-slow",
        "one-socket-at-a-time",
        "ringing-ends",
        "ghosts",
        "group-calls-hold",
    ];

    /// Alice and Bob create at once, chat, call each other at once; everything ends as it must.
    fn everything() -> Story {
        let (won, lost) = (conversation_url("a", 1), conversation_url("b", 1));
        let mut story = Story::new();
        story.is_online("alice");
        story.is_online("bob");
        story.creates("alice", "bob", &won, Provisional);
        story.creates("bob", "alice", &lost, Provisional);
        story.posts("alice", &won, &message("alice", "one", 1));
        story.posts("bob", &lost, &message("bob", "two", 1));
        story.state("b", "conversation", lost.as_str(), "SEALING");
        story.is_told_of("bob", &won, 1);
        story.has_in_index("bob", &[&won]);
        let ringing = locus(&won, LocusState::Initializing, 1, &[("alice", Joined), ("bob", Notified)]);
        let mut both = locus(&won, LocusState::Active, 1, &[("alice", Joined), ("bob", Joined)]);
        both.rev = both.rev.next();
        let alice = story.asks("alice", testing::join(&ringing.url, 0, "alice"));
        let bob = story.asks("bob", testing::join(&ringing.url, 0, "bob"));
        story.answers(alice, testing::joined(&ringing));
        story.answers(bob, testing::joined(&both));
        let call = serde_json::json!({ "instance": "1", "rev": "2" });
        story.is_told("bob", EventType::LocusRinging, &both.url, call.clone());
        story.is_told("alice", EventType::LocusChanged, &both.url, call);
        for requirement in ["SEC-003", "SEC-004", "SEC-005", "SEC-006", "SEC-009"] {
            let (what, requirement) = ("a foreign token".to_owned(), requirement.to_owned());
            let trespass = Call::Trespass { what, requirement, expect: Code::WrongAudience };
            story.is_refused("bob", trespass, Code::WrongAudience);
        }
        claim_at_once(&mut story);
        story.comes_to_rest();
        let merged = [message("alice", "one", 1), message("bob", "two", 2)];
        for (who, other) in [("alice", "bob"), ("bob", "alice")] {
            story.finds(who, other, &won);
            let last_seq = fusion_protocol::Count(2);
            let entry = fusion_protocol::index::IndexEntry { last_seq, ..testing::index_entry(&won, 1) };
            let cursor = entry.cursor;
            let after = fusion_protocol::Count(0);
            story.does(who, Call::ReadIndex { after }, Answer::Index { entries: vec![entry], cursor });
            story.reads(who, &won, &merged);
            story.does(who, read(&lost, 0), page_at(&won, &merged));
            story.does(who, Call::ReadLocus { locus: both.url.clone() }, locus_read(&both));
            story.does(who, Call::ListLoci {}, Answer::Loci { loci: vec![active(&both, Joined)] });
            let via = testing::home_of(who);
            story.does(who, Call::Resolve { user: user("bob"), via: via.clone() }, resolved("bob", "b"));
            story.does(who, Call::Resolve { user: user("bob"), via }, resolved("bob", "b"));
        }
        story.is_searched("provider", "log", vec![]);
        story
    }

    /// Two orgs claim a domain at once, and one of them gives it an address that the consumer org had.
    fn claim_at_once(story: &mut Story) {
        let domain: fusion_protocol::Domain = "corp.example".parse().expect("a domain");
        let claim = |org: &str, at: &str| {
            let clusters = vec![testing::cluster(at)];
            Call::Claim { domain: domain.clone(), org: org.to_owned(), clusters }
        };
        let record = Answer::Domain(fusion_protocol::map::DomainRecord {
            domain: domain.clone(),
            org: "acme".to_owned(),
            clusters: vec![testing::cluster("a")],
            version: fusion_protocol::Count(1),
            ttl_seconds: 300,
        });
        let (won, lost) = (story.asks("alice", claim("acme", "a")), story.asks("bob", claim("bravo", "b")));
        story.answers(won, record.clone());
        story.refuses(lost, Code::DomainClaimed);
        story.does("carol", Call::ReadDomain { domain }, record);
        let provision = |at: &str| {
            let user = "dan@corp.example".parse().expect("an address");
            Call::Provision { user, cluster: testing::cluster(at) }
        };
        story.does("alice", provision("a"), Answer::Provisioned { incarnation: None });
        story.is_refused("carol", provision("c"), Code::Forbidden);
        let alices = Call::Provision { user: user("alice"), cluster: testing::cluster("a") };
        story.does("alice", alices, Answer::Provisioned { incarnation: None });
        story.does("alice", Call::LogIn { cluster: testing::cluster("a") }, Answer::Nothing {});
    }

    #[test]
    fn every_judge_has_a_name_of_its_own_and_a_requirement() {
        let names: BTreeSet<&str> = judges().iter().map(|judge| judge.name()).collect();
        let ids: BTreeSet<&str> = judges().iter().flat_map(|judge| judge.requirements()).copied().collect();
        assert_eq!(names.len(), judges().len());
        assert!(ids.iter().all(|id| id.split_once('-').is_some()), "{ids:?}");
        assert!(
            judges().iter().all(|judge| !judge.evidence().is_empty() && !judge.requirements().is_empty())
        );
    }

    #[test]
    fn a_run_in_which_everything_is_right_holds() {
        let story = everything();
        let verdicts = judge_all(story.told());
        for verdict in &verdicts {
            let has_case = !WITHOUT_A_CASE.contains(&verdict.judge.as_str());
            let expected = if has_case { Ruling::Holds } else { Ruling::Unknown };
            assert_eq!(verdict.ruling, expected, "{verdict:#?}");
            assert_eq!(verdict.reached > 0, has_case, "{}", verdict.judge);
        }
        assert_eq!(ruling_of(&verdicts), Ruling::Holds);
    }

    #[test]
    fn circle_by_circle_it_holds_as_well() {
        let story = everything();
        assert_eq!(judge_in_parts(story.told(), 1), judge_all(story.told()));
    }

    #[test]
    fn one_violation_spoils_the_whole_run() {
        let mut story = everything();
        let won = conversation_url("a", 1);
        story.state("a", "conversation", won.as_str(), "BOUND");
        story.state("a", "conversation", won.as_str(), "SUPERSEDED");
        let verdicts = judge_all(story.told());
        assert_eq!(ruling_of(&verdicts), Ruling::Violated);
        let violated = verdicts.iter().find(|verdict| verdict.ruling == Ruling::Violated);
        insta::assert_json_snapshot!(violated);
    }

    #[test]
    fn a_history_that_was_cut_proves_nothing() {
        let recorder = crate::Recorder::with_budget(everything().told().len() as u64);
        for event in everything().told().events().iter().chain(&everything().told().events()[..3]) {
            recorder.record(Duration::from_micros(event.at_us), &event.host, event.cause, event.body.clone());
        }
        let verdicts = judge_all(&recorder.finish());
        assert!(verdicts.iter().all(|verdict| verdict.ruling == Ruling::Unknown));
        assert_eq!(verdicts[0].why_unknown, Some(WhyUnknown::Cut { events: 3 }));
    }

    #[test]
    fn verdicts_are_read_as_they_were_written() {
        let verdicts = judge_all(everything().told());
        let json = serde_json::to_string(&verdicts).expect("verdicts are JSON");
        assert!(json.contains(r#""ruling":"holds""#) && json.contains(r#""ruling":"unknown""#));
        let read: Vec<crate::Verdict> = serde_json::from_str(&json).expect("verdicts");
        assert_eq!(read, verdicts);
    }

    /// Whatever a run leaves behind, judges answer; only a lie makes them accuse.
    mod any_history {
        use super::*;

        static STORY: LazyLock<Story> = LazyLock::new(everything);

        fn judged(events: impl Iterator<Item = (usize, Option<u64>)>) -> Vec<crate::Verdict> {
            let recorder = crate::Recorder::new();
            for (at, cause) in events {
                let event = &STORY.told().events()[at];
                let cause = cause.map(EventId);
                recorder.record(Duration::from_micros(event.at_us), &event.host, cause, event.body.clone());
            }
            let history = recorder.finish();
            assert_eq!(judge_in_parts(&history, 1).len(), judges().len());
            judge_all(&history)
        }

        proptest! {
            #[test]
            fn shuffled_events_do_not_trip_a_judge(
                events in vec((any::<prop::sample::Index>(), any::<Option<u8>>()), 0..120),
            ) {
                let length = STORY.told().len();
                let verdicts =
                    judged(events.iter().map(|(at, cause)| (at.index(length), cause.map(u64::from))));
                prop_assert_eq!(verdicts.len(), judges().len());
                for verdict in verdicts {
                    prop_assert!(verdict.ruling != Ruling::Holds || verdict.reached > 0);
                    prop_assert_eq!(verdict.ruling == Ruling::Violated, verdict.violated > 0);
                }
            }

            /// A run that is cut off anywhere shows less, and nothing wrong.
            #[test]
            fn the_beginning_of_a_right_run_accuses_nobody(end in any::<prop::sample::Index>()) {
                let length = end.index(STORY.told().len() + 1);
                let events = STORY.told().events()[..length].iter();
                let verdicts = judged(events.map(|event| {
                    let at = usize::try_from(event.id.0).expect("an index");
                    (at, event.cause.map(|cause| cause.0))
                }));
                for verdict in verdicts {
                    prop_assert!(verdict.ruling != Ruling::Violated, "{:?}", verdict.violations);
                }
            }

            /// Any answer that nobody received is one that was not observed.
            #[test]
            fn answers_that_never_came_accuse_nobody(lost in vec(any::<bool>(), 64)) {
                let recorder = crate::Recorder::new();
                for (event, lost) in STORY.told().events().iter().zip(lost.iter().cycle()) {
                    let body = match &event.body {
                        Body::Return { .. } if *lost => Body::Return { outcome: Outcome::Unknown {} },
                        body => body.clone(),
                    };
                    recorder.record(Duration::from_micros(event.at_us), &event.host, event.cause, body);
                }
                for verdict in judge_all(&recorder.finish()) {
                    prop_assert!(verdict.ruling != Ruling::Violated, "{:?}", verdict.violations);
                }
            }
        }
    }

    #[test]
    fn a_sealed_conversation_that_its_reader_sees_is_no_violation() {
        let mut story = everything();
        let lost = conversation_url("b", 1);
        let mut sealing = testing::conversation(&lost, &["alice", "bob"], Sealing);
        sealing.last_seq = fusion_protocol::Count(1);
        story.does("bob", Call::ReadConversation { conversation: lost }, testing::created(false, sealing));
        assert_ne!(ruling_of(&judge_all(story.told())), Ruling::Violated);
    }
}
