//! Goal: what is found in a large generated world is handed over as a small one. Method: a world of ten clusters,
//! with a bug planted, is played with its swarm, judged and shrunk; what must be left of it is known.

use std::sync::atomic::AtomicBool;

use fusion_bugs::BUGS;
use fusion_history::Ruling;
use fusion_sim::engines::fabric::{Options, hosts};
use fusion_sim::generate::Generated;
use fusion_sim::outcome::judged;
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::plant::Plants;
use fusion_sim::shrink::{Shrunk, Size, fingerprints, shrink};

/// Ten clusters, some of which lend their relays to others; two of its people write to each other.
const WORLD: Generated = Generated { seed: 99, clusters_max: 30 };
const BUG: &str = "preview-one-message-behind";
/// More plays than the search needs.
const REPLAYS_MAX: u32 = 120;

#[test]
fn a_bug_in_a_generated_world_of_ten_clusters_shrinks_to_two_people_and_their_clusters() {
    let scenario = WORLD.scenario();
    let plan = Plan::new(&scenario, &hosts(&scenario.topology).unwrap(), WORLD.seed, Mode::Swarm);
    assert_eq!(judged(&plan, &Options::default()).ruling, Ruling::Holds, "without the bug");
    let hooks = (Plants(BUGS).find(BUG).unwrap().hooks)();
    let options = Options { hooks, ..Options::default() };
    let found = judged(&plan, &options);
    assert_eq!(found.ruling, Ruling::Violated);
    let fingerprint = fingerprints(&found).into_iter().find(|one| one.contains("/RDV-005/")).unwrap();

    let shrunk =
        shrink(&plan, &fingerprint, REPLAYS_MAX, &options, &AtomicBool::new(false), &|_, _| {}).unwrap();

    let Shrunk { before, after, replays, cut_short, .. } = shrunk;
    println!("{fingerprint}: {before} -> {after}, in {replays} replays");
    assert!(before.clusters == 10 && before.faults > 10 && before.operations > 30, "{before}");
    assert!(!cut_short);
    assert!(after.operations <= 4, "{after}");
    assert_eq!(after, Size { faults: 0, people: 2, clusters: 2, ..after }, "{after}");
    assert!(fingerprints(&shrunk.outcome).contains(&fingerprint));
}
