//! What is the case just after an event: machines, network, faults, and rows as what they say.

use std::collections::BTreeMap;
use std::sync::Arc;

use fusion_history::EventId;
use fusion_protocol::media::LegCounters;
use fusion_runtime::store::{Key, Row};
use serde::Serialize;
use serde_json::{Value, json};

use crate::engines::fabric::Stopped;
use crate::fabric::{Inspection, MachineState};

/// A run just after one of its events.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The event.
    pub event: EventId,
    /// What is the case in the world.
    pub world: Inspection,
    /// What each relay says of its legs, by host.
    pub legs: Vec<(String, LegCounters)>,
    rows: BTreeMap<Arc<str>, Vec<StoredRow>>,
}

/// A row of a store.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoredRow {
    /// The first part of its key: what kind of thing it is about.
    pub table: String,
    /// The other parts of its key.
    pub key: String,
    /// Goes up with every write.
    pub version: u64,
    /// What it says, decoded where it is JSON.
    pub value: Value,
}

impl Moment {
    pub(super) fn of(event: EventId, stopped: Stopped) -> Self {
        let mut world = stopped.world;
        let decoded = |machine: &mut MachineState| {
            std::mem::take(&mut machine.rows).iter().map(|(key, row)| StoredRow::of(key, row)).collect()
        };
        let rows = world.machines.iter_mut().map(|(name, machine)| (name.clone(), decoded(machine)));
        Self { event, rows: rows.collect(), legs: stopped.legs, world }
    }

    /// The rows of a host, by table and key.
    #[must_use]
    pub fn rows(&self, host: &str) -> &[StoredRow] {
        self.rows.get(host).map_or(&[], Vec::as_slice)
    }

    /// The names of all hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.world.machines.keys().map(|name| &**name)
    }

    /// A host.
    ///
    /// # Errors
    /// When there is none of that name; the error names one that is spelled like it.
    pub fn known_host(&self, name: &str) -> Result<&MachineState, String> {
        self.world.machines.get(name).ok_or_else(|| {
            let alike = |known: &&str| strsim::jaro_winkler(known, name);
            let nearest = self.hosts().max_by(|a, b| alike(a).total_cmp(&alike(b))).unwrap_or_default();
            format!("there is no host `{name}` at #{}; did you mean `{nearest}`?", self.event.0)
        })
    }
}

impl StoredRow {
    fn of(key: &Key, row: &Row) -> Self {
        let parts = key.parts();
        let mut parts = parts.iter().map(|part| String::from_utf8_lossy(part).into_owned());
        let table = parts.next().unwrap_or_default();
        let value = serde_json::from_slice(&row.value).unwrap_or_else(|_| bytes(&row.value));
        Self { table, key: parts.collect::<Vec<_>>().join(" "), version: row.version, value }
    }
}

/// What is no JSON: how much it is, and how it begins.
fn bytes(value: &[u8]) -> Value {
    let begins: String = value.iter().take(32).map(|byte| format!("{byte:02x}")).collect();
    json!({"bytes": value.len(), "begins": begins})
}
