//! A plan with a crowd of faults shrinks to the few that a bug needs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use fusion_deployment::Hooks;
use fusion_runtime::Store;
use fusion_runtime::store::{Batch, Key, Row, StoreError};
use fusion_sim::engines::fabric::{Options, hosts};
use fusion_sim::library::Library;
use fusion_sim::outcome::judged;
use fusion_sim::plan::{Mode, Plan};
use fusion_sim::shrink::{Shrunk, Size, fingerprints, shrink};

use crate::root;

/// How many faults there are to begin with, at least.
const CROWD: usize = 60;

/// A store whose machine does not find the messages of its earlier lives.
struct Amnesia {
    inner: Arc<dyn Store>,
    /// The last version that an earlier life has written, once it is known.
    forgotten: Mutex<Option<u64>>,
}

impl Amnesia {
    async fn forgotten(&self) -> Result<u64, StoreError> {
        if let Some(version) = *self.forgotten.lock().unwrap() {
            return Ok(version);
        }
        let all = Key::of(&[b"activity"]);
        let rows = self.inner.scan(&all, &all.end(), usize::MAX).await?;
        let version = rows.iter().map(|(_, row)| row.version).max().unwrap_or_default();
        *self.forgotten.lock().unwrap() = Some(version);
        Ok(version)
    }
}

fn is_remembered(key: &Key, row: &Row, forgotten: u64) -> bool {
    key.parts().first().is_none_or(|table| table != b"activity") || row.version > forgotten
}

#[async_trait]
impl Store for Amnesia {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        let (forgotten, rows) = (self.forgotten().await?, self.inner.get(keys).await?);
        let rows = rows.into_iter().zip(keys);
        Ok(rows.map(|(row, key)| row.filter(|row| is_remembered(key, row, forgotten))).collect())
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        let forgotten = self.forgotten().await?;
        let rows = self.inner.scan(from, until, limit).await?;
        Ok(rows.into_iter().filter(|(key, row)| is_remembered(key, row, forgotten)).collect())
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.inner.commit(batch).await
    }
}

/// Shows nothing unless a cluster's machine crashes after somebody has said something.
fn forgetful() -> Options {
    let wrap = |_: &_, inner| -> Arc<dyn Store> { Arc::new(Amnesia { inner, forgotten: Mutex::default() }) };
    let hooks = Hooks { wrap_store: Some(Arc::new(wrap)), ..Hooks::default() };
    Options { hooks, ..Options::default() }
}

/// The swarms of several seeds in one plan, which shows that messages are lost; and how that is told.
fn crowded(options: &Options) -> (Plan, String) {
    let scenario = Library::at(&root().join("scenarios")).find("one-to-one-race").unwrap();
    let hosts = hosts(&scenario.topology).unwrap();
    let crowd = |first: u64| {
        let mut plan = Plan::new(&scenario, &hosts, first, Mode::Swarm);
        for seed in first + 1.. {
            if plan.faults.len() >= CROWD {
                break;
            }
            let more = Plan::new(&scenario, &hosts, seed, Mode::Swarm).faults;
            plan.faults.extend(more.into_iter().map(|mut fault| {
                fault.id = format!("{seed}-{}", fault.id);
                fault
            }));
        }
        plan
    };
    let plans = (1..60).map(|n| crowd(n * 100));
    let shown = |plan: Plan| {
        let sound = judged(&plan, &Options::default());
        let seen = fingerprints(&judged(&plan, options));
        let lost = seen.into_iter().find(|seen| !fingerprints(&sound).contains(seen))?;
        Some((plan, lost))
    };
    plans.filter_map(shown).next().unwrap()
}

#[test]
fn sixty_faults_shrink_to_the_crash_that_the_bug_needs() {
    let options = forgetful();
    let (plan, lost) = crowded(&options);
    assert!(plan.faults.len() >= CROWD, "{}", plan.faults.len());

    let shrunk = shrink(&plan, &lost, 200, &options, &AtomicBool::new(false), &|_, _| {}).unwrap();

    let Shrunk { before, after, replays, .. } = &shrunk;
    println!("{lost}: {before} -> {after}, in {replays} replays");
    assert_eq!(*before, Size::of(&plan));
    assert!((1..=3).contains(&after.faults), "{after}");
    assert!(*replays <= 203, "{replays} replays");
    assert!(
        shrunk
            .plan
            .faults
            .iter()
            .any(|fault| ["crash", "power_off", "restart"].contains(&fault.fault.family()))
    );
    assert!(fingerprints(&shrunk.outcome).contains(&lost));
    assert!(shrunk.plan.check().is_ok());
}

#[test]
fn what_is_stopped_keeps_the_smallest_plan_so_far() {
    let options = forgetful();
    let (plan, lost) = crowded(&options);
    let (stop, before) = (AtomicBool::new(false), Size::of(&plan));
    // Somebody presses Ctrl-C as soon as the plan has become smaller.
    let played: Mutex<Vec<(u64, Size)>> = Mutex::default();
    let progress = |replays: u64, size: Size| {
        played.lock().unwrap().push((replays, size));
        stop.store(size != before, Ordering::Relaxed);
    };
    let shrunk = shrink(&plan, &lost, 200, &options, &stop, &progress).unwrap();
    let played = played.into_inner().unwrap();
    assert!(shrunk.cut_short);
    assert_eq!(played.last(), Some(&(played.len() as u64 + 1, shrunk.after)));
    assert!(played.iter().rev().skip(1).all(|(_, size)| *size == before), "{played:?}");
    assert!(shrunk.after.faults < shrunk.before.faults, "{}", shrunk.after);
    assert!(fingerprints(&shrunk.outcome).contains(&lost));
}
