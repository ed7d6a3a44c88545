//! Swarms leave out kinds of steps, too: a run in which nobody ever reads, or nobody hangs up, goes where
//! the story never goes.
//!
//! What a story stands on stays: who is there, which conversations and calls there are, that who went comes
//! back. So does a kind on which one of these, or a fault of the story, hangs.

use std::collections::BTreeSet;

use fusion_runtime::Entropy;

use crate::scenario::{Act, Scenario, ScriptedFault, Start, Step};

/// How often a kind is left out.
const LEFT_OUT: f64 = 0.2;

/// The steps of `scenario` that the seed behind `entropy` keeps, in their order, and the kinds that it
/// leaves out. What waits for a step that is left out is left out with it.
#[must_use]
pub(crate) fn keep(scenario: &Scenario, entropy: &Entropy) -> (Vec<Step>, Vec<String>) {
    let mut kept: Vec<&Step> = scenario.steps.iter().collect();
    let mut left_out = Vec::new();
    for kind in scenario.steps.iter().filter_map(|step| optional(&step.act)).collect::<BTreeSet<_>>() {
        if !entropy.stream(kind).chance(LEFT_OUT) {
            continue;
        }
        let without = without(&kept, kind);
        if is_a_story(&kept, &without, &scenario.faults) {
            kept = without;
            left_out.push(kind.to_owned());
        }
    }
    (kept.into_iter().cloned().collect(), left_out)
}

/// Without the steps of a kind, and without those that wait for them.
fn without<'s>(steps: &[&'s Step], kind: &str) -> Vec<&'s Step> {
    let mut gone: BTreeSet<&str> = BTreeSet::new();
    let mut kept = Vec::new();
    for step in steps {
        // A step waits for earlier ones only.
        if optional(&step.act) == Some(kind)
            || awaited(&step.start).iter().any(|id| gone.contains(id.as_str()))
        {
            gone.insert(&step.id);
        } else {
            kept.push(*step);
        }
    }
    kept
}

/// Whether `after` has everything of `before` that the story stands on, something besides, and what its
/// faults wait for.
fn is_a_story(before: &[&Step], after: &[&Step], faults: &[ScriptedFault]) -> bool {
    let kept: BTreeSet<&str> = after.iter().map(|step| step.id.as_str()).collect();
    let stands = before.iter().filter(|step| optional(&step.act).is_none());
    let faults_stand = faults.iter().flat_map(|fault| awaited(&fault.start));
    !after.is_empty()
        && stands.into_iter().all(|step| kept.contains(step.id.as_str()))
        && faults_stand.into_iter().all(|id| kept.contains(id.as_str()))
}

fn awaited(start: &Start) -> &[String] {
    match start {
        Start::At(_) => &[],
        Start::After { steps, .. } => steps,
    }
}

/// The kind of a step that a run can do without; none for what a story stands on.
fn optional(act: &Act) -> Option<&'static str> {
    match act {
        Act::Say { .. } => Some("say"),
        Act::Read { .. } => Some("read"),
        Act::ReadIndex {} => Some("read_index"),
        Act::Hide { .. } => Some("hide"),
        Act::Add { .. } => Some("add"),
        Act::Decline { .. } => Some("decline"),
        Act::Talk { .. } => Some("talk"),
        Act::HangUp { .. } => Some("hang_up"),
        Act::Look { .. } => Some("look"),
        Act::Vanish {} => Some("vanish"),
        Act::Disconnect {} => Some("disconnect"),
        Act::LogIn {} => Some("log_in"),
        Act::Resolve { .. } => Some("resolve"),
        Act::ReplayToken { .. } => Some("replay_token"),
        Act::Trespass { .. } => Some("trespass"),
        Act::Create { .. }
        | Act::Find { .. }
        | Act::AwaitChat { .. }
        | Act::Call { .. }
        | Act::Answer { .. }
        | Act::Connect {}
        | Act::Provision { .. }
        | Act::Move { .. }
        | Act::Claim { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Alice makes a chat, says something and reads it; a fault and Bob's return hang on what is said.
    fn scenario(more: &str) -> Scenario {
        let text = format!(
            r#"
title = "t"
requirements = ["CNV-001"]
topology.orgs = [{{ name = "acme", domains = ["acme.example"], clusters = [{{ name = "a" }}] }}]
topology.users = [{{ address = "alice@acme.example", cluster = "a" }}, {{ address = "bob@acme.example", cluster = "a" }}]
step = [
    {{ id = "create", by = "alice", at = "1s", do = "create", chat = "ours", with = ["bob"] }},
    {{ id = "say", by = "alice", after = ["create"], do = "say", chat = "ours", text = "hello" }},
    {{ id = "read", by = "alice", after = ["say"], do = "read", chat = "ours" }},
    {{ id = "resolve", by = "alice", at = "2s", do = "resolve", who = "bob" }},
    {more}
]
"#
        );
        Scenario::parse(Path::new("t.toml"), &text).unwrap_or_else(|mistake| panic!("{mistake}"))
    }

    /// What many seeds keep, and what they leave out.
    fn drawn(scenario: &Scenario) -> BTreeSet<(Vec<String>, Vec<String>)> {
        let seeds = (0..400).map(|seed| keep(scenario, &Entropy::from_u64(seed)));
        let ids = |steps: Vec<Step>| steps.into_iter().map(|step| step.id).collect();
        seeds.map(|(steps, left_out)| (ids(steps), left_out)).collect()
    }

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn each_kind_is_left_out_by_some_seeds_and_what_waits_for_it_with_it() {
        let drawn = drawn(&scenario(""));
        assert!(drawn.contains(&(owned(&["create", "say", "read", "resolve"]), vec![])));
        assert!(drawn.contains(&(owned(&["create", "say", "resolve"]), owned(&["read"]))));
        assert!(drawn.contains(&(owned(&["create", "resolve"]), owned(&["say"]))));
        assert!(drawn.iter().all(|(kept, _)| kept.contains(&"create".to_owned())), "{drawn:?}");
    }

    #[test]
    fn a_kind_on_which_the_story_hangs_stays() {
        let back = r#"{ id = "back", by = "bob", after = ["say"], do = "connect" },"#;
        for (kept, left_out) in drawn(&scenario(back)) {
            assert!(kept.contains(&"say".to_owned()) && kept.contains(&"back".to_owned()), "{left_out:?}");
        }
    }

    #[test]
    fn the_same_seed_leaves_out_the_same() {
        let scenario = scenario("");
        let draw = || keep(&scenario, &Entropy::from_u64(7));
        assert_eq!(draw(), draw());
    }
}
