//! The world's table of names: exact ones, answered at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use crate::engines::evidence::lock;

/// Names and their addresses. Clones are the same table.
#[derive(Clone, Default)]
pub(super) struct Names {
    addresses: Arc<BTreeMap<String, Vec<IpAddr>>>,
    missing: Arc<Mutex<BTreeSet<String>>>,
}

impl Names {
    pub(super) fn of(resolve: &BTreeMap<String, Vec<IpAddr>>) -> Self {
        let addresses = resolve.iter().map(|(name, addresses)| (canonical(name), addresses.clone()));
        Self { addresses: Arc::new(addresses.collect()), missing: Arc::default() }
    }

    /// The addresses of `name`: none when there is no such name, or when it is missing just now.
    pub(super) fn look_up(&self, name: &str) -> Vec<IpAddr> {
        let name = canonical(name);
        if lock(&self.missing).contains(&name) {
            return Vec::new();
        }
        self.addresses.get(&name).cloned().unwrap_or_default()
    }

    /// Lets exactly the names of `missing` not exist.
    pub(super) fn lose<'a>(&self, missing: impl Iterator<Item = &'a str>) {
        *lock(&self.missing) = missing.map(canonical).collect();
    }
}

fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
