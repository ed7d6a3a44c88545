//! What every back-end must do: one body of tests, run against each of them.

use std::sync::Arc;

use super::{Batch, EmbeddedStore, Expect, Key, MemoryStore, Row, SimDisk, Store, StoreError};
use crate::{Entropy, Tasks};

macro_rules! every_back_end {
    ($($name:ident)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(Arc::new(super::MemoryStore::new())).await;
            })*
            use std::sync::Arc;
        }
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let store = super::EmbeddedStore::open_on(super::SimDisk::new()).unwrap();
                super::$name(Arc::new(store)).await;
            })*
            use std::sync::Arc;
        }
    };
}

every_back_end! {
    a_batch_is_written_whole_or_not_at_all
    a_precondition_that_does_not_hold_is_a_conflict
    preconditions_are_judged_even_when_nothing_is_written
    rows_come_back_in_the_order_asked_for
    a_scan_goes_by_the_parts_of_the_keys_within_its_bounds
    a_version_is_never_used_twice_not_even_after_a_deletion
    a_row_both_removed_and_written_is_written
    of_many_who_create_a_row_at_once_one_succeeds
    nobodys_increment_is_lost
    random_batches_do_what_they_do_in_memory
}

type Any = Arc<dyn Store>;

fn key(name: &str) -> Key {
    Key::of(&[name.as_bytes()])
}

async fn row(store: &Any, name: &str) -> Option<Row> {
    store.get(&[key(name)]).await.unwrap().remove(0)
}

async fn put(store: &Any, name: &str, value: &'static str) -> Row {
    let mut batch = Batch::default();
    batch.put(key(name), value);
    store.commit(batch).await.unwrap();
    row(store, name).await.unwrap()
}

async fn a_batch_is_written_whole_or_not_at_all(store: Any) {
    put(&store, "old", "1").await;

    let mut good = Batch::default();
    good.put(key("a"), "1").put(key("b"), "2").delete(key("old"));
    store.commit(good).await.unwrap();
    let mut bad = Batch::default();
    bad.expect(&key("missing"), None).expect(&key("a"), None);
    bad.put(key("c"), "3").put(key("a"), "9").delete(key("b"));

    assert_eq!(store.commit(bad).await, Err(StoreError::Conflict));
    let rows = store.get(&[key("a"), key("b"), key("c"), key("old")]).await.unwrap();
    let values: Vec<_> = rows.into_iter().map(|row| row.map(|row| row.value)).collect();
    assert_eq!(values, [Some("1".into()), Some("2".into()), None, None]);
}

async fn a_precondition_that_does_not_hold_is_a_conflict(store: Any) {
    let first = put(&store, "a", "1").await;
    let second = put(&store, "a", "2").await;
    let cases = [
        (key("a"), Some(&first), Err(StoreError::Conflict)),
        (key("a"), None, Err(StoreError::Conflict)),
        (key("b"), Some(&first), Err(StoreError::Conflict)),
        (key("b"), None, Ok(())),
        (key("a"), Some(&second), Ok(())),
    ];
    for (about, read, answer) in cases {
        let mut batch = Batch::default();
        batch.expect(&about, read).put(key("other"), "x");
        assert_eq!(store.commit(batch).await, answer, "{about:?} read as {read:?}");
    }
}

async fn preconditions_are_judged_even_when_nothing_is_written(store: Any) {
    let mut batch = Batch::default();
    batch.expects.push((key("a"), Expect::Version(1)));
    assert_eq!(store.commit(batch).await, Err(StoreError::Conflict));
    assert_eq!(store.commit(Batch::default()).await, Ok(()));
}

async fn rows_come_back_in_the_order_asked_for(store: Any) {
    put(&store, "a", "1").await;
    put(&store, "b", "2").await;
    let rows = store.get(&[key("b"), key("x"), key("a"), key("b")]).await.unwrap();
    let values: Vec<_> = rows.iter().map(|row| row.as_ref().map(|row| &row.value[..])).collect();
    assert_eq!(values, [Some(&b"2"[..]), None, Some(b"1"), Some(b"2")]);
    assert_eq!(store.get(&[]).await.unwrap(), []);
}

async fn a_scan_goes_by_the_parts_of_the_keys_within_its_bounds(store: Any) {
    let names: [&[&[u8]]; 7] =
        [&[b"b"], &[b"ab"], &[b"a", b"\xff\xff"], &[b"a", b"\0"], &[b"a", b""], &[b"a"], &[b"a\0"]];
    let mut batch = Batch::default();
    for name in names {
        batch.put(Key::of(name), "x");
    }
    store.commit(batch).await.unwrap();
    let scan = async |from: &Key, until: &Key, limit| {
        let found = store.scan(from, until, limit).await.unwrap();
        found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    let of = |names: &[&[&[u8]]]| names.iter().map(|name| Key::of(name)).collect::<Vec<_>>();

    let a = Key::of(&[b"a"]);
    let below_a: [&[&[u8]]; 4] = [&[b"a"], &[b"a", b""], &[b"a", b"\0"], &[b"a", b"\xff\xff"]];
    assert_eq!(scan(&a, &a.end(), 10).await, of(&below_a));
    assert_eq!(scan(&a, &a.end(), 2).await, of(&below_a[..2]));
    assert_eq!(scan(&a, &a.end(), 0).await, []);
    assert_eq!(scan(&Key::of(&[b"ab"]), &Key::of(&[b"b"]), 10).await, of(&[&[b"ab"]]));
    assert_eq!(scan(&a, &a, 10).await, []);
    assert_eq!(scan(&a.end(), &a, 10).await, []);
}

async fn a_version_is_never_used_twice_not_even_after_a_deletion(store: Any) {
    let first = put(&store, "a", "1").await;
    let mut deletion = Batch::default();
    deletion.expect(&key("a"), Some(&first)).delete(key("a"));
    store.commit(deletion).await.unwrap();
    assert_eq!(row(&store, "a").await, None);
    let again = put(&store, "a", "1").await;

    assert!(again.version > first.version, "{} after {}", again.version, first.version);
    let mut stale = Batch::default();
    stale.expect(&key("a"), Some(&first)).put(key("a"), "stale");
    assert_eq!(store.commit(stale).await, Err(StoreError::Conflict));
}

async fn a_row_both_removed_and_written_is_written(store: Any) {
    let mut batch = Batch::default();
    batch.put(key("a"), "1").delete(key("a"));
    store.commit(batch).await.unwrap();
    assert_eq!(row(&store, "a").await.unwrap().value, "1");
}

async fn of_many_who_create_a_row_at_once_one_succeeds(store: Any) {
    let (tasks, mut waiting) = (Tasks::default(), Vec::new());
    for number in 0..50 {
        let store = store.clone();
        waiting.push(tasks.spawn(async move {
            let mut batch = Batch::default();
            batch.expect(&key("a"), None).put(key("a"), format!("{number}"));
            store.commit(batch).await
        }));
    }
    let mut won = 0;
    for task in waiting {
        match task.join().await.unwrap() {
            Ok(()) => won += 1,
            Err(error) => assert_eq!(error, StoreError::Conflict),
        }
    }
    assert_eq!(won, 1);
}

async fn nobodys_increment_is_lost(store: Any) {
    const TASKS: u64 = 8;
    const INCREMENTS: u64 = 20;
    let (tasks, mut waiting) = (Tasks::default(), Vec::new());
    for _ in 0..TASKS {
        let store = store.clone();
        waiting.push(tasks.spawn(async move {
            for _ in 0..INCREMENTS {
                while !increment(&store).await {}
            }
        }));
    }
    for task in waiting {
        task.join().await.unwrap();
    }
    assert_eq!(number(row(&store, "count").await.as_ref()), TASKS * INCREMENTS);
}

async fn increment(store: &Any) -> bool {
    let read = row(store, "count").await;
    let mut batch = Batch::default();
    batch.expect(&key("count"), read.as_ref());
    batch.put(key("count"), (number(read.as_ref()) + 1).to_string());
    store.commit(batch).await.is_ok()
}

fn number(row: Option<&Row>) -> u64 {
    row.map_or(0, |row| std::str::from_utf8(&row.value).unwrap().parse().unwrap())
}

async fn random_batches_do_what_they_do_in_memory(store: Any) {
    let chance = Entropy::from_u64(11);
    let model: Any = Arc::new(MemoryStore::new());
    let mut conflicts = 0;
    for _ in 0..200 {
        let batch = random_batch(&chance, &model).await;
        let answer = model.commit(batch.clone()).await;
        conflicts += usize::from(answer.is_err());
        assert_eq!(store.commit(batch).await, answer);
    }
    let (from, until) = (Key::of(&[]), Key::from_bytes(vec![0xff].into()));
    assert_eq!(store.scan(&from, &until, 1000).await, model.scan(&from, &until, 1000).await);
    assert!((20..180).contains(&conflicts), "{conflicts} of 200 conflicted");
}

async fn random_batch(chance: &Entropy, store: &Any) -> Batch {
    let name = || key(&chance.below(8).to_string());
    let mut batch = Batch::default();
    for _ in 0..chance.below(3) {
        let name = name();
        let mut read = store.get(std::slice::from_ref(&name)).await.unwrap().remove(0);
        if chance.chance(0.3) {
            read = None;
        }
        batch.expect(&name, read.as_ref());
    }
    for _ in 0..chance.below(4) {
        batch.put(name(), chance.u64().to_string());
    }
    for _ in 0..chance.below(2) {
        batch.delete(name());
    }
    batch
}
