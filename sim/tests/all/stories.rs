//! What several areas play: the smallest story in which clusters need each other.

use std::path::Path;

use fusion_sim::engines::fabric::hosts;
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::scenario::Scenario;

/// Alice writes to Bob, who lives elsewhere.
pub(crate) const CHAT: &str = r#"
title = "A message to another org"
requirements = ["CNV-001", "RDV-001"]
act = "8s"
settle = "30s"

[[topology.orgs]]
name = "acme"
domains = ["acme.example"]
clusters = [{ name = "a", relays = 0 }]

[[topology.orgs]]
name = "globex"
domains = ["globex.example"]
clusters = [{ name = "b", relays = 0 }]

[[topology.users]]
address = "alice@acme.example"
cluster = "a"

[[topology.users]]
address = "bob@globex.example"
cluster = "b"

[[step]]
id = "create"
by = "alice"
at = "100ms"
jitter = "1s"
do = "create"
chat = "ours"
with = ["bob"]

[[step]]
id = "say"
by = "alice"
after = ["create"]
delay = "500ms"
do = "say"
chat = "ours"
text = "hello"
"#;

/// To be put after [`CHAT`]: the line between the two is cut while she writes.
pub(crate) const WHILE_CUT: &str = r#"
[[fault]]
id = "cut"
after = ["create"]
for = "3s"
fault = { kind = "partition", a = ["a"], b = ["b"] }
"#;

/// To be put after [`CHAT`]: a swarm after which everything holds soon.
pub(crate) const ONLY_LATENCY: &str = r#"
[swarm]
families = ["latency"]
"#;

/// The scenario of this text, named after no file that there is.
pub(crate) fn scenario(name: &str, text: &str) -> Scenario {
    Scenario::parse(Path::new(&format!("{name}.toml")), text).unwrap()
}

pub(crate) fn plan(scenario: &Scenario, seed: u64, mode: Mode) -> Plan {
    Plan::new(scenario, &hosts(&scenario.topology).unwrap(), seed, mode)
}
