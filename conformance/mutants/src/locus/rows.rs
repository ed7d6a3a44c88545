//! Rows of loci gone wrong: what is decided is not what is kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use fusion_deployment::Hooks;
use fusion_runtime::store::{Batch, Key, Row, Store, StoreError};
use serde_json::{Value, json};

use crate::Mutant;
use crate::mercury::{commits, edit_rows};
use crate::wrap::{is_of, stores};

/// LOC-005: loci are read from a copy that is one write behind, and written without looking.
pub(crate) const READ_FROM_A_COPY: Mutant = Mutant {
    name: "locus-read-from-a-copy",
    hooks: || stores(|store| Arc::new(Behind { store, before: Mutex::default() })),
};

/// LOC-006: that a call was missed is not kept.
pub(crate) const RINGS_ON: Mutant = Mutant { name: "missed-call-not-kept", hooks: || forgetting("missed") };

/// LOC-007: that a lease has run out is not kept.
pub(crate) const LEASE_NOT_KEPT: Mutant =
    Mutant { name: "expired-lease-not-kept", hooks: || forgetting("lease") };

/// LOC-007: a home that starts takes all leases for run out.
pub(crate) const THROWN_OUT: Mutant =
    Mutant { name: "restart-ends-leases", hooks: || stores(|store| Arc::new(Impatient(store))) };

/// LOC-007: the end of a call is not posted.
pub(crate) const END_NOT_POSTED: Mutant = Mutant { name: "end-not-posted", hooks: || commits(lose_the_end) };

/// LOC-008: a locus at rest has its first revision again.
pub(crate) const REV_RESTARTS: Mutant =
    Mutant { name: "revision-restarts", hooks: || commits(|batch| restart_in(batch, "INACTIVE")) };

/// LOC-008: revisions are counted anew in every call.
pub(crate) const REV_OF_THE_CALL: Mutant =
    Mutant { name: "revision-of-the-call", hooks: || commits(|batch| restart_in(batch, "INITIALIZING")) };

/// LOC-009: a group's call ends as a call of two does, when one is left.
pub(crate) const GROUP_OF_TWO: Mutant = Mutant {
    name: "group-call-ends-with-one-left",
    hooks: || commits(|batch| edit_rows(batch, "locus", |row| row["kind"] = "oneToOne".into())),
};

fn restart_in(batch: &mut Batch, state: &str) {
    edit_rows(batch, "locus", |row| {
        if row["state"] == state {
            row["rev"] = "0".into();
        }
    });
}

fn lose_the_end(batch: &mut Batch) {
    let ends = |bytes: &[u8]| {
        serde_json::from_slice(bytes)
            .is_ok_and(|row: Value| row["effect"] == "active" && row["entry"]["state"] == "INACTIVE")
    };
    batch.puts.retain(|(key, bytes)| !(is_of(key, &["outbox"]) && ends(bytes)));
}

fn forgetting(reason: &'static str) -> Hooks {
    let wrap =
        move |role: &fusion_deployment::Role, store: Arc<dyn Store>| match crate::wrap::is_cluster(role) {
            true => Arc::new(Forgetful { store, reason }) as Arc<dyn Store>,
            false => store,
        };
    Hooks { wrap_store: Some(Arc::new(wrap)), ..Hooks::default() }
}

/// A store that shows of each locus what was before the last write, and lets every write pass.
struct Behind {
    store: Arc<dyn Store>,
    before: Mutex<BTreeMap<Key, Row>>,
}

#[async_trait]
impl Store for Behind {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        let mut rows = self.store.get(keys).await?;
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, row) in keys.iter().zip(&mut rows) {
            if let Some(before) = before.get(key) {
                *row = Some(before.clone());
            }
        }
        Ok(rows)
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        self.store.scan(from, until, limit).await
    }

    async fn commit(&self, mut batch: Batch) -> Result<(), StoreError> {
        let written: Vec<Key> =
            batch.puts.iter().map(|(key, _)| key).filter(|key| is_of(key, &["locus"])).cloned().collect();
        let rows = self.store.get(&written).await?;
        batch.expects.retain(|(key, _)| !is_of(key, &["locus"]));
        self.store.commit(batch).await?;
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        before.extend(written.into_iter().zip(rows).filter_map(|(key, row)| Some((key, row?))));
        Ok(())
    }
}

/// A store that acknowledges that somebody's part in a call ended for a reason, and does not keep it.
struct Forgetful {
    store: Arc<dyn Store>,
    reason: &'static str,
}

#[async_trait]
impl Store for Forgetful {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.store.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        self.store.scan(from, until, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let loci = batch.puts.iter().filter(|(key, _)| is_of(key, &["locus"]));
        let ends = |row: &Value| {
            row["parties"]
                .as_object()
                .is_some_and(|parties| parties.values().any(|party| party["reason"] == self.reason))
        };
        if loci.filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok()).any(|row: Value| ends(&row)) {
            return Ok(());
        }
        self.store.commit(batch).await
    }
}

/// A store in which, whenever a home looks which calls go on, all who are in them have run out of time.
struct Impatient(Arc<dyn Store>);

impl Impatient {
    async fn throw_out(&self, conversation: &[u8]) -> Result<(), StoreError> {
        let key = Key::of(&[b"locus", conversation]);
        let rows = self.0.get(std::slice::from_ref(&key)).await?;
        let Some(row) = rows.into_iter().next().flatten() else { return Ok(()) };
        let Ok(mut locus) = serde_json::from_slice::<Value>(&row.value) else { return Ok(()) };
        let rev = locus["rev"].as_str().and_then(|rev| rev.parse::<u64>().ok()).unwrap_or_default();
        locus["state"] = "INACTIVE".into();
        locus["rev"] = (rev + 1).to_string().into();
        for party in locus["parties"].as_object_mut().into_iter().flat_map(|parties| parties.values_mut()) {
            if party["state"] == "JOINED" {
                *party = json!({ "state": "LEFT", "reason": "lease", "devices": {} });
            }
        }
        let mut batch = Batch::default();
        batch.put(key, serde_json::to_vec(&locus).unwrap_or_default());
        self.0.commit(batch).await
    }
}

#[async_trait]
impl Store for Impatient {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.0.get(keys).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        let rows = self.0.scan(from, until, limit).await?;
        for (key, _) in rows.iter().filter(|(key, _)| is_of(key, &["locus-live"])) {
            if let Some(conversation) = key.parts().get(1) {
                self.throw_out(conversation).await?;
            }
        }
        Ok(rows)
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.0.commit(batch).await
    }
}
