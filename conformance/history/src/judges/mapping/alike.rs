//! MAP-008: the clock tells nobody who is known.

use std::collections::BTreeMap;

use fusion_protocol::{Address, ClusterName, Code};

use crate::event::Call;
use crate::facts::{Asked, CONSUMER, Facts, Verb};
use crate::judge::{Casebook, Evidence, Judge};
use crate::table::Set;

/// MAP-008: a map answers in equal time for known and unknown.
///
/// Judged of whoever asks one cluster for many people of the consumer org within a while: some are there and
/// some are not, and none had been heard of before, for whom a cluster has found it remembers. With nothing
/// wrong anywhere, the two kinds must not lie apart: the slowest answer of one kind and the quickest of the
/// other, a difference that only the map can have made. Where the consumer org has several clusters, whoever
/// is not at the one that is asked must be asked for at the others: there time tells more than the map.
///
/// A case is a series of questions with at least [`EACH`] of each kind, the first question aside: it may have
/// had connections to make.
pub(in crate::judges) struct UnknownTakesAsLong;

/// How many known and how many unknown people one series must have.
const EACH: usize = 3;
/// How soon after each other the questions of a series are asked: connections are kept for as long.
const SERIES_GAP_US: u64 = 5_000_000;
/// How far apart the kinds must lie at least, microseconds: a network's jitter is less.
const APART_US: u64 = 50_000;

/// A question for somebody of whom nobody had heard.
#[derive(Clone, Copy)]
struct Sample<'f, 'h> {
    asked: &'f Asked<'h>,
    known: bool,
    took_us: u64,
}

impl Judge for UnknownTakesAsLong {
    fn name(&self) -> &'static str {
        "unknown-takes-as-long"
    }

    fn requirements(&self) -> &'static [&'static str] {
        &["MAP-008"]
    }

    fn evidence(&self) -> &'static [Evidence] {
        &[Evidence::Client]
    }

    fn hear(&self, facts: &Facts<'_>, case: &mut Casebook) {
        let unknown = facts.asked_to(Verb::Resolve).filter(|asked| is_unknown(asked)).count();
        if unknown < EACH || !has_one_consumer_cluster(facts) {
            return;
        }
        let samples = samples(facts);
        for (_, asked) in by_asker(&samples) {
            for series in asked.chunk_by(|one, next| next.asked.at_us <= one.asked.at_us + SERIES_GAP_US) {
                judge_series(facts, series, case);
            }
        }
    }
}

fn judge_series(facts: &Facts<'_>, series: &[Sample<'_, '_>], case: &mut Casebook) {
    let (Some(first), Some(last)) = (series.first(), series.last()) else { return };
    let until_us = last.asked.at_us + last.took_us;
    let is_calm = |from_us: u64, to_us: u64| from_us > until_us || to_us < first.asked.at_us;
    if !facts.faults().iter().all(|fault| is_calm(fault.from_us, fault.until_us)) {
        return;
    }
    let of = |known: bool| {
        let mut of: Vec<&Sample<'_, '_>> = series[1..].iter().filter(|it| it.known == known).collect();
        of.sort_by_key(|sample| sample.took_us);
        of
    };
    let (known, unknown) = (of(true), of(false));
    if known.len() < EACH || unknown.len() < EACH {
        return;
    }
    case.reached();
    for (quick, slow, which) in [(&known, &unknown, "unknown"), (&unknown, &known, "known")] {
        let (Some(slowest), Some(quickest)) = (quick.last(), slow.first()) else { continue };
        // What is far away has more jitter.
        let apart_us = APART_US.max(slowest.took_us / 3);
        if quickest.took_us > slowest.took_us + apart_us {
            let [at_least, at_most] = [quickest, slowest].map(|it| it.took_us / 1_000);
            let statement = format!(
                "to say that somebody is {which} took {at_least} ms and more, the other {at_most} ms"
            );
            let events = quickest.asked.events().chain(slowest.asked.events());
            case.violated("time-tells", statement, events);
        }
    }
}

/// The questions for consumer users of whom no call had told before, in order.
fn samples<'f, 'h>(facts: &'f Facts<'h>) -> Vec<Sample<'f, 'h>> {
    let mut heard_of: Set<&Address> = Set::default();
    let mut samples = Vec::new();
    for asked in facts.calls() {
        match asked.call {
            Call::Resolve { user, .. } => {
                if heard_of.insert(user) && is_consumers(facts, user) {
                    samples.extend(sample(asked));
                }
            }
            Call::Create { others, .. } => heard_of.extend(others),
            Call::LookUp { other } => drop(heard_of.insert(other)),
            // These show a user to the own cluster only.
            Call::Provision { .. } | Call::LogIn { .. } | Call::Connect { .. } => {}
            _ => drop(heard_of.insert(asked.actor)),
        }
    }
    samples
}

fn sample<'f, 'h>(asked: &'f Asked<'h>) -> Option<Sample<'f, 'h>> {
    let known = asked.answer().is_some();
    let took_us = asked.back?.at_us.checked_sub(asked.at_us)?;
    (known || is_unknown(asked)).then_some(Sample { asked, known, took_us })
}

fn by_asker<'f, 'h>(samples: &[Sample<'f, 'h>]) -> BTreeMap<(&'h str, &'h ClusterName), Vec<Sample<'f, 'h>>> {
    let mut by_asker: BTreeMap<_, Vec<Sample<'f, 'h>>> = BTreeMap::new();
    for sample in samples {
        if let Call::Resolve { via, .. } = sample.asked.call {
            by_asker.entry((sample.asked.host, via)).or_default().push(*sample);
        }
    }
    by_asker
}

fn is_unknown(asked: &Asked<'_>) -> bool {
    matches!(asked.refusal(), Some((_, Some(Code::UserUnknown))))
}

/// Nobody claims the domain, so that only the consumer org's map is asked.
fn is_consumers(facts: &Facts<'_>, user: &Address) -> bool {
    let domain = user.domain();
    let claimed =
        facts.world().is_none_or(|world| world.domains.iter().any(|(claimed, _)| *claimed == domain));
    let mut claims = facts.asked_to(Verb::Claim);
    !claimed
        && !claims
            .any(|asked| matches!(asked.call, Call::Claim { domain: claimed, .. } if *claimed == domain))
}

fn has_one_consumer_cluster(facts: &Facts<'_>) -> bool {
    let clusters = facts.world().map(|world| world.clusters.as_slice()).unwrap_or_default();
    clusters.iter().filter(|cluster| cluster.org == CONSUMER).count() == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FaultPhase;
    use crate::testing::{Story, cluster, resolved, user};
    use serde_json::json;
    use std::time::Duration;

    /// Alice asks for known and unknown people in turns; how long each kind takes, milliseconds.
    fn asks(story: &mut Story, turns: u64, known_ms: u64, unknown_ms: u64) {
        for turn in 0..turns {
            for (kind, took_ms) in [("known", known_ms), ("unknown", unknown_ms)] {
                let who = format!("{kind}-{turn}");
                let asked = story.asks("alice", Call::Resolve { user: user(&who), via: cluster("a") });
                // Never twice the same.
                story.wait(Duration::from_millis(took_ms + turn % 3));
                match kind {
                    "known" => drop(story.answers(asked, resolved(&who, "c"))),
                    _ => drop(story.refuses(asked, Code::UserUnknown)),
                }
                story.wait(Duration::from_millis(300));
            }
        }
    }

    fn judged(story: &Story) -> (u64, Vec<String>) {
        let verdict = UnknownTakesAsLong.judge(story.told());
        (verdict.reached, verdict.violations.into_iter().map(|it| it.fingerprint).collect())
    }

    fn asked(turns: u64, known_ms: u64, unknown_ms: u64) -> (u64, Vec<String>) {
        let mut story = Story::new();
        asks(&mut story, turns, known_ms, unknown_ms);
        judged(&story)
    }

    #[test]
    fn known_and_unknown_take_as_long() {
        assert_eq!(asked(4, 150, 150), (1, vec![]));
        assert_eq!(asked(4, 150, 190), (1, vec![]), "that much is jitter");
    }

    #[test]
    fn a_look_into_a_second_table_shows_whichever_kind_needs_it() {
        let told = vec!["unknown-takes-as-long/MAP-008/time-tells".to_owned()];
        assert_eq!(asked(4, 150, 270), (1, told.clone()));
        assert_eq!(asked(4, 270, 150), (1, told));
    }

    #[test]
    fn far_away_there_is_more_jitter() {
        assert_eq!(asked(4, 900, 1_020), (1, vec![]));
    }

    #[test]
    fn too_few_or_with_pauses_prove_nothing() {
        assert_eq!(asked(3, 150, 270).0, 0, "the first question does not count");
        let mut story = Story::new();
        for _ in 0..2 {
            asks(&mut story, 2, 150, 270);
            story.wait(Duration::from_secs(60));
        }
        assert_eq!(judged(&story).0, 0);
    }

    #[test]
    fn whom_a_cluster_may_remember_proves_nothing() {
        let mut story = Story::new();
        asks(&mut story, 4, 150, 150);
        story.wait(Duration::from_secs(60));
        asks(&mut story, 4, 20, 150);
        assert_eq!(judged(&story), (1, vec![]));
    }

    #[test]
    fn while_something_is_wrong_somewhere_time_proves_nothing() {
        let mut story = Story::new();
        story.fault("f", "pause", FaultPhase::Began, json!({ "host": "b" }));
        asks(&mut story, 4, 150, 270);
        assert_eq!(judged(&story).0, 0);
    }
}
