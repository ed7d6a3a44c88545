//! The embedded store on disks that crash, fill up and refuse, and on files that are not as they should be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redb::StorageBackend as _;

use super::super::{Batch, Damage, DiskFault, EmbeddedStore, Key, SimDisk, Store, StoreError};
use crate::{Clock, Entropy, Tasks};

fn key(number: u64) -> Key {
    Key::of(&[b"row", &number.to_be_bytes()])
}

/// A batch that only makes sense whole: three rows with one value.
fn triple(slot: u64, value: &str) -> Batch {
    let mut batch = Batch::default();
    (0..3).for_each(|row| {
        batch.put(key(slot * 3 + row), value.to_owned());
    });
    batch
}

/// What the triples hold; a panic where one is not whole.
async fn triples(store: &EmbeddedStore) -> BTreeMap<u64, String> {
    let rows = store.scan(&key(0), &key(u64::MAX), usize::MAX).await.unwrap();
    let mut whole = BTreeMap::new();
    for rows in rows.chunks(3) {
        let slot = u64::from_be_bytes(rows[0].0.parts()[1].clone().try_into().unwrap()) / 3;
        let expected: Vec<_> = (0..3).map(|row| key(slot * 3 + row)).collect();
        assert_eq!(rows.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), expected, "a partial commit");
        assert!(rows.iter().all(|(_, row)| *row == rows[0].1), "a partial commit: {rows:?}");
        whole.insert(slot, String::from_utf8(rows[0].1.value.to_vec()).unwrap());
    }
    whole
}

/// Goal: whatever was acknowledged before the power failed is there afterwards, and nothing by halves.
///
/// Method: concurrent commits to an embedded store on a simulated disk; the plug is pulled after a
/// random number of the disk's operations or at a sync, before the database is dropped (dropping it would end it
/// in good order); the disk loses and tears what was not synced; the store is opened from what is left.
#[tokio::test]
async fn what_was_acknowledged_survives_a_power_failure_whole() {
    const ROUNDS: u64 = 250;
    let (mut lost_unacknowledged, mut survived_unacknowledged, mut unsynced) = (0, 0, 0);
    let mut damage = Damage::default();
    let made = SimDisk::new();
    drop(EmbeddedStore::open_on(made.clone()).unwrap());
    for round in 0..ROUNDS {
        let chance = Entropy::from_u64(round);
        let disk = made.copy();
        let store = Arc::new(EmbeddedStore::open_on(disk.clone()).unwrap());
        let (acknowledged, asked) = commits_until_the_plug_is_pulled(&store, &disk, &chance).await;
        unsynced += disk.unsynced();
        let left = disk.crash(round);
        damage.lost += left.damage().lost;
        damage.torn += left.damage().torn;
        drop(store);

        let store = EmbeddedStore::open_on(left).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let found = triples(&store).await;
        for (slot, value) in &asked {
            let found = found.get(slot);
            match acknowledged.get(slot) {
                Some(value) => assert_eq!(found, Some(value), "round {round}: an acknowledged write is lost"),
                None if found == Some(value) => survived_unacknowledged += 1,
                None => {
                    assert_eq!(found, None, "round {round}: a write that nobody asked for");
                    lost_unacknowledged += 1;
                }
            }
        }
        store.commit(triple(1_000, "after")).await.unwrap();
    }
    // The crashes really cut something, at moments where it could have gone either way.
    assert!(unsynced > 100, "only {unsynced} writes were at risk");
    assert!(damage.lost > 100 && damage.torn > 20, "the disk did too little: {damage:?}");
    assert!(lost_unacknowledged > 50, "only {lost_unacknowledged} writes were lost");
    assert!(survived_unacknowledged > 20, "only {survived_unacknowledged} writes survived unacknowledged");
}

/// The more was not synced, the more a power failure loses and tears; what was synced it cannot touch.
#[test]
fn a_power_failure_loses_and_tears_what_was_not_synced_and_nothing_else() {
    let after = |unsynced: usize| {
        let (mut damage, mut wrong) = (Damage::default(), 0);
        for seed in 0..200 {
            let disk = SimDisk::new();
            (0..10).for_each(|page| disk.write(page * 8, b"synced!!").unwrap());
            disk.sync_data().unwrap();
            (10..10 + unsynced as u64).for_each(|page| disk.write(page * 8, b"unsynced").unwrap());
            let left = disk.crash(seed);
            let mut found = vec![0; left.len().unwrap() as usize];
            left.read(0, &mut found).unwrap();
            assert!(found[..80].chunks(8).all(|page| page == b"synced!!"));
            let whole = found[80..].chunks(8).filter(|page| *page == b"unsynced").count();
            wrong += unsynced - whole;
            damage.lost += left.damage().lost;
            damage.torn += left.damage().torn;
        }
        assert_eq!(wrong, damage.lost + damage.torn, "it is counted as it is");
        damage
    };
    let (none, few, many) = (after(0), after(2), after(20));
    assert_eq!(none, Damage::default());
    assert!(0 < few.lost && few.lost < many.lost, "{few:?} {many:?}");
    // At most one write of a crash is torn, and only one that is there: more writes make it no likelier.
    assert!(few.torn > 20 && many.torn > 20, "{few:?} {many:?}");
}

/// What was acknowledged and what was asked for, by slot.
async fn commits_until_the_plug_is_pulled(
    store: &Arc<EmbeddedStore>,
    disk: &SimDisk,
    chance: &Entropy,
) -> (BTreeMap<u64, String>, BTreeMap<u64, String>) {
    if chance.chance(0.3) {
        disk.unplug_at_sync(chance.below(4));
    } else {
        disk.unplug_after(1 + chance.below(120));
    }
    let (tasks, mut waiting, mut asked) = (Tasks::default(), Vec::new(), BTreeMap::new());
    for slot in 0..10 + chance.below(20) {
        let size = if chance.chance(0.2) { 20_000 } else { 100 };
        let value = format!("{slot}:{}", "x".repeat(chance.below(size) as usize));
        asked.insert(slot, value.clone());
        let store = store.clone();
        waiting.push(tasks.spawn(async move {
            let answer = store.commit(triple(slot, &value)).await;
            (slot, value, answer)
        }));
        if chance.chance(0.3) {
            // Lets a group form and be written before the next commits arrive.
            Clock::real().sleep(Duration::from_micros(chance.below(300))).await;
        }
    }
    let mut acknowledged = BTreeMap::new();
    for task in waiting {
        let (slot, value, answer) = task.join().await.unwrap();
        if answer.is_ok() {
            acknowledged.insert(slot, value);
        }
    }
    (acknowledged, asked)
}

/// Commits until the store accepts it again.
async fn commit_in_the_end(store: &EmbeddedStore, batch: &Batch) {
    let clock = Clock::real();
    for _ in 0..500 {
        match store.commit(batch.clone()).await {
            Ok(()) => return,
            Err(StoreError::Refused(_)) => clock.sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the store did not recover");
}

async fn fill(store: &EmbeddedStore, slots: std::ops::Range<u64>) -> (BTreeMap<u64, String>, usize) {
    let (mut acknowledged, mut refused) = (BTreeMap::new(), 0);
    for slot in slots {
        let value = slot.to_string().repeat(5_000);
        match store.commit(triple(slot, &value)).await {
            Ok(()) => drop(acknowledged.insert(slot, value)),
            Err(StoreError::Refused(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    (acknowledged, refused)
}

#[tokio::test]
async fn on_a_full_disk_acknowledged_writes_survive_and_writing_goes_on_when_there_is_space() {
    for round in 0..20 {
        let disk = SimDisk::new();
        let store = EmbeddedStore::open_on(disk.clone()).unwrap();
        disk.refuse(DiskFault::Full, Entropy::from_u64(round).below(200));
        let (mut acknowledged, refused) = fill(&store, 0..100).await;
        assert!(refused > 0, "round {round}: the disk was never full");
        assert_eq!(triples(&store).await, acknowledged, "round {round}: reads go on");

        disk.refuse(DiskFault::None, 0);
        commit_in_the_end(&store, &triple(1_000, "after")).await;
        acknowledged.insert(1_000, "after".to_owned());
        assert_eq!(triples(&store).await, acknowledged, "round {round}");
        drop(store);
        assert_eq!(triples(&EmbeddedStore::open_on(disk).unwrap()).await, acknowledged, "round {round}");
    }
}

#[tokio::test]
async fn while_a_disk_refuses_every_write_rows_are_still_read() {
    for round in 0..20 {
        let disk = SimDisk::new();
        let store = EmbeddedStore::open_on(disk.clone()).unwrap();
        let (mut acknowledged, _) = fill(&store, 0..5).await;
        disk.refuse(DiskFault::Writes, round);
        let mut refusal = None;
        for attempt in 0..40 {
            let value = attempt.to_string();
            refusal = store.commit(triple(50, &value)).await.err();
            if refusal.is_some() {
                break;
            }
            acknowledged.insert(50, value);
        }
        let refusal = refusal.expect("the disk refuses at some time");
        assert!(matches!(refusal, StoreError::Refused(_) | StoreError::Closed), "round {round}: {refusal}");
        let found = triples(&store).await;
        if refusal != StoreError::Closed {
            assert_eq!(found, acknowledged, "round {round}: reads go on, refused writes are not there");
        }
        assert!(matches!(store.commit(triple(60, "no")).await, Err(StoreError::Refused(_))), "round {round}");

        disk.refuse(DiskFault::None, 0);
        commit_in_the_end(&store, &triple(70, "after")).await;
        assert_eq!(triples(&store).await.len(), found.len() + 1, "round {round}");
    }
}

#[tokio::test]
async fn a_commit_whose_sync_fails_is_not_acknowledged_unless_it_is_durable() {
    for round in 0..40 {
        let disk = SimDisk::new();
        let store = EmbeddedStore::open_on(disk.clone()).unwrap();
        let (acknowledged, _) = fill(&store, 0..3).await;
        disk.refuse(DiskFault::Syncs, round);
        let mut promised = acknowledged;
        for slot in 10..20 {
            if store.commit(triple(slot, "x")).await.is_ok() {
                promised.insert(slot, "x".to_owned());
            }
        }
        let left = disk.crash(round);
        drop(store);
        let found = triples(&EmbeddedStore::open_on(left).unwrap()).await;
        for (slot, value) in promised {
            assert_eq!(found.get(&slot), Some(&value), "round {round}");
        }
    }
}

#[tokio::test]
async fn a_disk_that_does_not_answer_refuses_reads_until_it_does() {
    let disk = SimDisk::new();
    let store = EmbeddedStore::open_on(disk.clone()).unwrap();
    let (acknowledged, _) = fill(&store, 0..5).await;
    disk.refuse(DiskFault::Everything, 0);
    assert!(store.commit(triple(50, "no")).await.is_err());
    let answer = store.get(&[key(0)]).await;
    assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");

    disk.refuse(DiskFault::None, 0);
    assert_eq!(triples(&store).await, acknowledged);
    commit_in_the_end(&store, &triple(60, "after")).await;
}

#[tokio::test]
async fn commits_that_wait_together_share_a_sync() {
    const COMMITS: u64 = 400;
    let disk = SimDisk::new();
    let store = Arc::new(EmbeddedStore::open_on(disk.clone()).unwrap());
    let (tasks, mut waiting) = (Tasks::default(), Vec::new());
    let before = disk.syncs();
    for slot in 0..COMMITS {
        let store = store.clone();
        waiting.push(tasks.spawn(async move { store.commit(triple(slot, "x")).await }));
    }
    for task in waiting {
        task.join().await.unwrap().unwrap();
    }
    assert!(disk.syncs() - before < COMMITS / 4, "{} syncs for {COMMITS} commits", disk.syncs() - before);
    assert_eq!(triples(&store).await.len() as u64, COMMITS);
}

#[tokio::test]
async fn rows_and_versions_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.store");
    let store = EmbeddedStore::open(&path).unwrap();
    store.commit(triple(1, "one")).await.unwrap();
    let mut deletion = Batch::default();
    deletion.delete(key(3)).delete(key(4)).delete(key(5));
    store.commit(deletion).await.unwrap();
    drop(store);

    let store = EmbeddedStore::open(&path).unwrap();
    assert_eq!(triples(&store).await, BTreeMap::new());
    store.commit(triple(1, "again")).await.unwrap();
    assert_eq!(store.get(&[key(3)]).await.unwrap()[0].as_ref().unwrap().version, 3);
    let names: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["rows.store"], "nothing else is left in the folder");
}

#[tokio::test]
async fn a_file_that_is_no_store_is_named_in_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("garbage.store");
    std::fs::write(&garbage, "not a store ".repeat(1_000)).unwrap();
    let empty = folder.path().join("empty.store");
    std::fs::write(&empty, "").unwrap();
    let cut = folder.path().join("cut.store");
    drop(EmbeddedStore::open(&cut).unwrap());
    let whole = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &whole[..100]).unwrap();
    let nowhere = folder.path().join("no/such/folder.store");

    for path in [&garbage, &empty, &cut, &nowhere, &folder.path().to_owned()] {
        let error = EmbeddedStore::open(path).err().expect("it is no store").to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_store_in_use_is_not_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.store");
    let store = EmbeddedStore::open(&path).unwrap();
    let error = EmbeddedStore::open(&path).err().expect("it is in use").to_string();
    assert!(error.contains("has it open"), "{error}");
    drop(store);
    EmbeddedStore::open(&path).unwrap();
}
