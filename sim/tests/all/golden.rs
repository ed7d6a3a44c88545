//! Each scenario, played as it is written, is the story that lies beside it.
//!
//! A golden history changes when the system's behaviour changes: review it like code.

use fusion_history::Ruling;
use fusion_sim::engines::fabric::{Options, hosts};
use fusion_sim::library::Library;
use fusion_sim::narrate::narrate;
use fusion_sim::outcome::judged;
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::scenario::Scenario;

use crate::root;

fn plays_as_told(file: &str) {
    let scenarios = root().join("scenarios");
    let scenario = Scenario::read(&scenarios.join(file)).unwrap();
    let plan = Plan::new(&scenario, &hosts(&scenario.topology).unwrap(), 1, Mode::Story);
    let outcome = judged(&plan, &Options::default());
    assert_eq!(outcome.ruling, Ruling::Holds, "{}", outcome.explain());
    let told: Vec<String> = narrate(&outcome.history).collect();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(scenarios.join(file).parent().unwrap());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(scenario.name.clone(), told.join("\n")));
}

/// One test for each scenario, so that they are played side by side.
macro_rules! stories {
    ($($name:ident: $file:literal,)*) => {
        const STORIES: &[&str] = &[$($file),*];
        $(
            #[test]
            fn $name() {
                plays_as_told($file);
            }
        )*
    };
}

stories! {
    alice_chats_bob: "chat/alice-chats-bob.toml",
    address_does_not_resolve: "complaints/address-does-not-resolve.toml",
    both_call_at_once_fails: "complaints/both-call-at-once-fails.toml",
    duplicate_direct_chats: "complaints/duplicate-direct-chats.toml",
    looks_sent_never_delivered: "complaints/looks-sent-never-delivered.toml",
    lost_around_a_disconnect: "complaints/lost-around-a-disconnect.toml",
    unexplained_delays: "complaints/unexplained-delays.toml",
    clock_behind: "conversation/clock-behind.toml",
    group_across_four_clusters: "conversation/group-across-four-clusters.toml",
    hidden_and_made_again: "conversation/hidden-and-made-again.toml",
    late_joiner: "conversation/late-joiner.toml",
    made_by_both_during_a_move: "conversation/made-by-both-during-a-move.toml",
    one_to_one_race: "conversation/one-to-one-race.toml",
    race_under_partition: "conversation/race-under-partition.toml",
    writes_as_soon_as_added: "conversation/writes-as-soon-as-added.toml",
    alice_calls_bob: "locus/alice-calls-bob.toml",
    answered_too_late: "locus/answered-too-late.toml",
    declined_and_missed: "locus/declined-and-missed.toml",
    glare: "locus/glare.toml",
    group_call: "locus/group-call.toml",
    home_decides_alone: "locus/home-decides-alone.toml",
    lease_runs_out: "locus/lease-runs-out.toml",
    long_call: "locus/long-call.toml",
    three_calls: "locus/three-calls.toml",
    words_overtake_each_other: "locus/words-overtake-each-other.toml",
    address_taken_over: "mapping/address-taken-over.toml",
    away_during_a_move: "mapping/away-during-a-move.toml",
    claimed_at_once: "mapping/claimed-at-once.toml",
    claimed_domain_consumer_user: "mapping/claimed-domain-consumer-user.toml",
    first_word_in_an_outage: "mapping/first-word-in-an-outage.toml",
    hosted_cluster_beside_consumer: "mapping/hosted-cluster-beside-consumer.toml",
    made_twice_at_once: "mapping/made-twice-at-once.toml",
    map_from_the_replica: "mapping/map-from-the-replica.toml",
    new_cluster_dies: "mapping/new-cluster-dies.toml",
    started_anew_in_an_outage: "mapping/started-anew-in-an-outage.toml",
    two_clusters_one_org: "mapping/two-clusters-one-org.toml",
    unknown_takes_as_long: "mapping/unknown-takes-as-long.toml",
    user_moves: "mapping/user-moves.toml",
    hangs_up_and_talks_on: "media/hangs-up-and-talks-on.toml",
    media_stays_in_the_org: "media/media-stays-in-the-org.toml",
    own_relays_first: "media/own-relays-first.toml",
    relay_crash: "media/relay-crash.toml",
    relay_starts_again: "media/relay-starts-again.toml",
    beyond_retention: "mercury/beyond-retention.toml",
    device_resumes_after_server_crash: "mercury/device-resumes-after-server-crash.toml",
    notification_lost: "mercury/notification-lost.toml",
    slow_device: "mercury/slow-device.toml",
    group_without_a_word: "rendezvous/group-without-a-word.toml",
    home_away: "rendezvous/home-away.toml",
    index_table_lost: "rendezvous/index-table-lost.toml",
    keeps_looking: "rendezvous/keeps-looking.toml",
    one_of_them_has_moved: "rendezvous/one-of-them-has-moved.toml",
    sent_again_after_a_crash: "rendezvous/sent-again-after-a-crash.toml",
    told_after_all: "rendezvous/told-after-all.toml",
    clocks_apart: "security/clocks-apart.toml",
    hostile_cluster: "security/hostile-cluster.toml",
    tokens_run_out: "security/tokens-run-out.toml",
    down_while_written_to: "survivability/down-while-written-to.toml",
    home_crashes_mid_call: "survivability/home-crashes-mid-call.toml",
    keys_out_of_reach: "survivability/keys-out-of-reach.toml",
    killed_after_every_word: "survivability/killed-after-every-word.toml",
    one_cluster_down: "survivability/one-cluster-down.toml",
    provider_unreachable: "survivability/provider-unreachable.toml",
}

#[test]
fn every_scenario_has_its_story_beside_it() {
    let scenarios = root().join("scenarios");
    let all = Library::at(&scenarios).all().unwrap();
    let untold: Vec<&str> = all
        .iter()
        .map(|scenario| scenario.name.as_str())
        .filter(|name| !STORIES.iter().any(|file| file.ends_with(&format!("/{name}.toml"))))
        .collect();
    assert!(untold.is_empty(), "{untold:?}");
}
