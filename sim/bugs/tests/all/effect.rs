//! Every bug is one: somewhere it changes what happens, and always in the same way.
//!
//! Where the scenarios of the house do not show it, a story beside this file does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fusion_bugs::BUGS;
use fusion_deployment::Hooks;
use fusion_sim::engines::fabric::{self, Options, hosts};
use fusion_sim::library::Library;
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::plant::Plants;

/// A bug, the scenario that shows it, and the seed.
type Place = (&'static str, &'static str, u64);

const MAPPING: &[Place] = &[
    ("arrival-in-two-commits", "user-moves", 1),
    ("claims-within-a-second-both-win", "claimed-at-once", 1),
    ("creation-given-up-in-an-outage", "first-word-in-an-outage", 1),
    ("events-left-behind-by-a-move", "away-during-a-move", 1),
    ("incarnation-made-of-the-address", "address-taken-over", 1),
    ("map-answers-cached-for-ever", "user-moves", 1),
    ("newer-map-in-memory-only", "started-anew-in-an-outage", 1),
    ("outage-remembered-as-unknown", "address-does-not-resolve", 1),
    ("slots-left-behind-by-a-move", "user-moves", 1),
    ("unknown-address-takes-longer", "claimed-domain-consumer-user", 1),
];
const CONVERSATION: &[Place] = &[
    ("acknowledged-while-sealing", "one-to-one-race", 2),
    ("creation-key-forgotten-at-restart", "answers-lost-in-a-crash", 1),
    ("hiding-empties-the-slot", "hidden-and-made-again", 1),
    ("keys-kept-too-briefly", "answers-lost-in-a-crash", 1),
    ("lookup-cached", "looked-up-in-a-race", 1),
    ("members-cached", "writes-as-soon-as-added", 1),
    ("merge-of-one-page", "looked-up-in-a-race", 1),
    ("messages-sorted-by-time", "duplicate-direct-chats", 1),
    ("read-misses-the-last-word", "one-to-one-race", 1),
    ("redirect-forgets-the-rest", "race-under-partition", 1),
    ("repeated-after-restart", "sent-again-after-a-crash", 1),
    ("rule-differs-in-one-cluster", "one-to-one-race", 1),
];
const INDEX: &[Place] = &[
    ("creations-one-at-a-time", "dead-peer", 1),
    ("index-page-from-the-past", "keeps-looking", 1),
    ("last-of-a-group-never-told", "group-across-four-clusters", 1),
    ("loser-not-marked-in-the-index", "one-to-one-race", 1),
    ("notified-before-indexed", "alice-chats-bob", 1),
    ("once-unreachable-always-unreachable", "home-away", 1),
    ("one-refused-row-blocks-the-batch", "user-moves", 1),
    ("outbox-row-removed-when-sent", "told-after-all", 1),
    ("preview-one-message-behind", "alice-chats-bob", 1),
    ("repair-skips-what-is-missing", "index-table-lost", 1),
];
const LOCUS: &[Place] = &[
    ("active-call-hidden-early", "long-call", 1),
    ("join-answered-from-a-cache", "answered-too-late", 1),
    ("joined-call-listed-as-ringing", "still-talking", 1),
    ("last-word-on-a-call-wins", "words-overtake-each-other", 1),
    ("lease-renewed-by-anybody", "long-call", 1),
    ("left-and-still-in", "alice-calls-bob", 1),
    ("live-calls-forgotten-at-restart", "home-crashes-mid-call", 1),
    ("rev-compared-as-text", "three-calls", 1),
];
const MERCURY: &[Place] = &[
    ("devices-told-in-two-commits", "slow-device", 1),
    ("queue-cleared-when-a-socket-opens", "lost-around-a-disconnect", 1),
    ("queue-coalesced-by-resource", "device-resumes-after-server-crash", 1),
    ("queue-end-written-unchecked", "said-and-rung", 1),
    ("queues-in-memory-only", "device-resumes-after-server-crash", 1),
    ("taken-by-one-taken-for-all", "tablet-comes-later", 1),
    ("two-at-once-swapped", "race-under-partition", 1),
];
const MEDIA: &[Place] = &[
    ("every-fiftieth-packet-overtaken", "alice-calls-bob", 1),
    ("forwarded-and-not-sent", "alice-calls-bob", 1),
    ("leg-of-who-leaves-stays-open", "group-call", 1),
    ("legs-closed-three-seconds-late", "alice-calls-bob", 1),
    ("relay-says-it-never-died", "relay-back-at-once", 1),
];
const OTHERS: &[Place] = &[
    ("accepts-whom-it-cannot-resolve", "guest-of-a-cut-off-cluster", 1),
    ("no-leeway-for-clocks", "clock-behind", 1),
    ("peer-keys-in-memory-only", "guest-of-a-cut-off-cluster", 1),
    ("rights-by-address-only", "address-taken-over", 1),
    ("signing-key-made-anew-at-restart", "home-crashes-mid-call", 1),
    ("asks-the-provider-by-order-of-names", "one-to-one-race", 1),
    ("circuit-never-closes", "dead-peer", 1),
    ("slow-requests-logged-whole", "address-does-not-resolve", 1),
    ("unresolved-address-reported-to-the-provider", "address-does-not-resolve", 1),
    ("waits-for-the-provider-at-start", "map-from-the-replica", 1),
];

#[test]
fn every_bug_has_a_place_where_it_shows() {
    let all = [MAPPING, CONVERSATION, INDEX, LOCUS, MERCURY, MEDIA, OTHERS];
    let placed: BTreeSet<&str> = all.into_iter().flatten().map(|(name, ..)| *name).collect();
    assert_eq!(placed, BUGS.iter().map(|bug| bug.name).collect());
}

#[test]
fn bugs_of_the_mapping_show() {
    show(MAPPING);
}

#[test]
fn bugs_of_conversations_show() {
    show(CONVERSATION);
}

#[test]
fn bugs_of_the_index_show() {
    show(INDEX);
}

#[test]
fn bugs_of_loci_show() {
    show(LOCUS);
}

#[test]
fn bugs_of_mercury_show() {
    show(MERCURY);
}

#[test]
fn bugs_of_relays_show() {
    show(MEDIA);
}

#[test]
fn bugs_of_trust_privacy_and_survival_show() {
    show(OTHERS);
}

/// The history with the bug is another one than without it, and the same in a second world that has the
/// same hooks: nothing that a bug remembers outlives its world.
fn show(places: &[Place]) {
    let mut without: BTreeMap<(&str, u64), String> = BTreeMap::new();
    for (name, scenario, seed) in places {
        let plan = plan(scenario, *seed);
        let sound = without.entry((scenario, *seed)).or_insert_with(|| hash(&plan, &Hooks::default()));
        let hooks = (Plants(BUGS).find(name).unwrap().hooks)();
        let (first, second) = (hash(&plan, &hooks), hash(&plan, &hooks));
        assert_ne!(first, *sound, "{name} changes nothing in {scenario} with seed {seed}");
        assert_eq!(first, second, "{name} in {scenario} is not the same twice");
    }
}

fn hash(plan: &Plan, hooks: &Hooks) -> String {
    fabric::run(plan, &Options { hooks: hooks.clone(), ..Options::default() }).history.hash()
}

fn plan(scenario: &str, seed: u64) -> Plan {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let stories = Library::at(&crate_folder.join("tests/stories"));
    let scenarios = Library::at(&crate_folder.join("../../scenarios"));
    let scenario = stories.find(scenario).or_else(|_| scenarios.find(scenario)).unwrap();
    Plan::new(&scenario, &hosts(&scenario.topology).unwrap(), seed, Mode::Story)
}
