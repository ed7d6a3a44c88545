//! Each scenario, played as it is written, is the story that lies beside it.
//!
//! A golden history changes when the system's behaviour changes: review it like code.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

use std::path::Path;

use fusion_history::Ruling;
use fusion_sim::engines::fabric::{Options, hosts};
use fusion_sim::narrate::narrate;
use fusion_sim::outcome::judged;
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::scenario::Scenario;

fn plays_as_told(file: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("scenarios");
    let scenario = Scenario::read(&root.join(file)).unwrap();
    let plan = Plan::new(&scenario, &hosts(&scenario.topology).unwrap(), 1, Mode::Story);
    let outcome = judged(&plan, &Options::default());
    assert_eq!(outcome.ruling, Ruling::Holds, "{}", outcome.explain());
    let told: Vec<String> = narrate(&outcome.history).collect();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(root.join(file).parent().unwrap());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(scenario.name.clone(), told.join("\n")));
}

#[test]
fn alice_chats_bob() {
    plays_as_told("chat/alice-chats-bob.toml");
}

#[test]
fn alice_calls_bob() {
    plays_as_told("locus/alice-calls-bob.toml");
}

#[test]
fn one_to_one_race() {
    plays_as_told("conversation/one-to-one-race.toml");
}

#[test]
fn glare() {
    plays_as_told("locus/glare.toml");
}

#[test]
fn home_crashes_mid_call() {
    plays_as_told("survivability/home-crashes-mid-call.toml");
}

#[test]
fn provider_unreachable() {
    plays_as_told("survivability/provider-unreachable.toml");
}

#[test]
fn race_under_partition() {
    plays_as_told("conversation/race-under-partition.toml");
}

#[test]
fn notification_lost() {
    plays_as_told("mercury/notification-lost.toml");
}

#[test]
fn claimed_domain_consumer_user() {
    plays_as_told("mapping/claimed-domain-consumer-user.toml");
}

#[test]
fn hosted_cluster_beside_consumer() {
    plays_as_told("mapping/hosted-cluster-beside-consumer.toml");
}

#[test]
fn device_resumes_after_server_crash() {
    plays_as_told("mercury/device-resumes-after-server-crash.toml");
}

#[test]
fn group_across_four_clusters() {
    plays_as_told("conversation/group-across-four-clusters.toml");
}

#[test]
fn declined_and_missed() {
    plays_as_told("locus/declined-and-missed.toml");
}

#[test]
fn looks_sent_never_delivered() {
    plays_as_told("complaints/looks-sent-never-delivered.toml");
}

#[test]
fn lost_around_a_disconnect() {
    plays_as_told("complaints/lost-around-a-disconnect.toml");
}

#[test]
fn duplicate_direct_chats() {
    plays_as_told("complaints/duplicate-direct-chats.toml");
}

#[test]
fn both_call_at_once_fails() {
    plays_as_told("complaints/both-call-at-once-fails.toml");
}

#[test]
fn unexplained_delays() {
    plays_as_told("complaints/unexplained-delays.toml");
}

#[test]
fn address_does_not_resolve() {
    plays_as_told("complaints/address-does-not-resolve.toml");
}

#[test]
fn two_clusters_one_org() {
    plays_as_told("mapping/two-clusters-one-org.toml");
}

#[test]
fn slow_device() {
    plays_as_told("mercury/slow-device.toml");
}

#[test]
fn relay_crash() {
    plays_as_told("media/relay-crash.toml");
}

#[test]
fn late_joiner() {
    plays_as_told("conversation/late-joiner.toml");
}
