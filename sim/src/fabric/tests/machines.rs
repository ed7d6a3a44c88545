//! Machines: crash, restart, pause, clock, disk.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};

use fusion_runtime::store::{Batch, Key, StoreError};

use super::*;

fn key(number: u64) -> Key {
    Key::of(&[b"row", &number.to_be_bytes()])
}

async fn put(host: &Host, number: u64) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    batch.put(key(number), "value");
    host.store.commit(batch).await
}

async fn has(host: &Host, number: u64) -> bool {
    host.store.get(&[key(number)]).await.unwrap()[0].is_some()
}

/// Commits row after row, waiting for each, and counts the acknowledgements.
fn write_rows(host: &Host, acknowledged: &Arc<AtomicU64>) {
    let (machine, acknowledged) = (host.clone(), acknowledged.clone());
    host.tasks.spawn(async move {
        for number in 0.. {
            put(&machine, number).await.unwrap();
            acknowledged.store(number + 1, Ordering::Relaxed);
        }
    });
}

#[test]
fn what_was_acknowledged_survives_a_crash_and_the_rest_may() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let pair = Pair::new(seed);
        pair.world.run(async {
            let acknowledged = Arc::new(AtomicU64::new(0));
            write_rows(&pair.a, &acknowledged);
            pair.world.clock().sleep(ms(50)).await;
            pair.world.crash("a").await.unwrap();
            let acknowledged = acknowledged.load(Ordering::Relaxed);
            assert!(acknowledged > 10);
            let again = pair.world.restart("a").await.unwrap();
            for number in 0..acknowledged {
                assert!(has(&again, number).await);
            }
            outcomes.insert(has(&again, acknowledged).await);
            assert!(!has(&again, acknowledged + 1).await);
            assert_eq!(
                pair.world.rows("a").len() as u64 - acknowledged,
                u64::from(has(&again, acknowledged).await)
            );
        });
    }
    assert_eq!(outcomes.len(), 2, "a commit in flight was always lost or never");
}

#[test]
fn a_commit_goes_on_without_its_caller() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let clock = pair.world.clock();
        let slow = Fault::SlowDisk { host: "a".parse().unwrap(), add_ms: 100 };
        let _id = pair.world.inject(&slow).await.unwrap();
        assert!(clock.timeout(ms(10), put(&pair.a, 1)).await.is_err());
        assert!(!has(&pair.a, 1).await);
        clock.sleep(ms(200)).await;
        assert!(has(&pair.a, 1).await);
    });
    assert_eq!(pair.world.fault_counts()["slow_disk"], FaultCount { chosen: 1, effective: 1 });
}

#[test]
fn of_two_commits_on_one_row_as_read_one_succeeds() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let mut batch = Batch::default();
        batch.expect(&key(1), None).put(key(1), "mine");
        let (one, other) = tokio::join!(pair.a.store.commit(batch.clone()), pair.a.store.commit(batch));
        assert_eq!([one, other], [Ok(()), Err(StoreError::Conflict)]);
    });
}

#[test]
fn a_full_disk_refuses_and_keeps_what_it_has() {
    let pair = Pair::new(1);
    pair.world.run(async {
        put(&pair.a, 1).await.unwrap();
        let full = Fault::DiskFull { host: "a".parse().unwrap() };
        let id = pair.world.inject(&full).await.unwrap();
        assert!(matches!(put(&pair.a, 2).await, Err(StoreError::Refused(_))));
        assert!(has(&pair.a, 1).await && !has(&pair.a, 2).await);
        pair.world.heal(id).await.unwrap();
        put(&pair.a, 2).await.unwrap();
    });
    assert_eq!(pair.world.fault_counts()["disk_full"], FaultCount { chosen: 1, effective: 1 });
}

#[test]
fn a_table_that_is_lost_is_gone_and_no_other() {
    let pair = Pair::new(1);
    pair.world.run(async {
        put(&pair.a, 1).await.unwrap();
        let table = |key: &Key| String::from_utf8(key.parts().remove(0)).unwrap();
        let lose = |tables: Vec<String>| Fault::LoseRows { host: "a".parse().unwrap(), tables };
        let _id = pair.world.inject(&lose(vec!["another".to_owned()])).await.unwrap();
        assert!(has(&pair.a, 1).await);
        let _id = pair.world.inject(&lose(vec![table(&key(1))])).await.unwrap();
        assert!(!has(&pair.a, 1).await);
        put(&pair.a, 1).await.unwrap();
    });
    assert_eq!(pair.world.fault_counts()["lose_rows"], FaultCount { chosen: 2, effective: 1 });
}

#[test]
fn what_is_left_of_a_crashed_machine_can_do_nothing() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let (mut client, mut server) = pair.connection().await;
        let socket = pair.b.net.udp(at(2)).await.unwrap();
        let pending = put(&pair.b, 1);
        pair.world.crash("b").await.unwrap();
        for again in [false, true] {
            if again {
                let _machine = pair.world.restart("b").await.unwrap();
            }
            assert_eq!(put(&pair.b, 2).await, Err(StoreError::Closed));
            assert_eq!(pair.b.store.get(&[key(1)]).await, Err(StoreError::Closed));
            assert!(pair.b.net.listen(at(2)).await.is_err());
            assert!(pair.b.net.connect(at(1), "a").await.is_err());
            assert!(pair.b.net.resolve("a", PORT).await.is_err());
            assert!(socket.send_to(b"x", at(1)).await.is_err());
            assert!(server.write(b"x").await.is_err());
            assert!(server.read(&mut [0]).await.is_err());
            assert!(pair.b.tasks.spawn(async {}).join().await.is_none());
        }
        assert_eq!(pending.await, Err(StoreError::Closed));
        assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_zombie_does_not_close_what_its_successor_has_opened() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let old_listener = pair.b.net.listen(at(2)).await.unwrap();
        let old_socket = pair.b.net.udp(at(2)).await.unwrap();
        let again = pair.world.restart("b").await.unwrap();
        let socket = again.net.udp(at(2)).await.unwrap();
        serve_echo(&again, at(2));
        pair.world.clock().sleep(ms(1)).await;
        drop((old_listener, old_socket));
        ping(&mut pair.a.net.connect(at(2), "b").await.unwrap()).await.unwrap();
        pair.a.net.udp(at(1)).await.unwrap().send_to(b"x", at(2)).await.unwrap();
        socket.recv_from(&mut [0; 4]).await.unwrap();
    });
}

#[test]
fn a_crash_ends_every_task_and_resets_every_connection() {
    let pair = Pair::new(1);
    pair.world.run(async {
        serve_echo(&pair.b, at(2));
        let mut streams = Vec::new();
        for _ in 0..10 {
            let mut stream = pair.a.net.connect(at(2), "b").await.unwrap();
            ping(&mut stream).await.unwrap();
            streams.push(stream);
        }
        assert_eq!(pair.b.tasks.alive(), 11);
        let id = pair.world.inject(&Fault::Crash { host: "b".parse().unwrap() }).await.unwrap();
        assert_eq!(pair.b.tasks.alive(), 0);
        for stream in &mut streams {
            assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        assert_eq!(pair.world.faults()[0].effects, 11);
        pair.world.heal(id).await.unwrap();
        assert!(pair.world.machine("b").is_some());
    });
}

#[test]
fn without_power_a_machine_says_nothing_and_peers_find_out_by_sending() {
    let pair = Pair::new(1);
    pair.world.run(async {
        serve_echo(&pair.b, at(2));
        let mut idle = pair.a.net.connect(at(2), "b").await.unwrap();
        let mut busy = pair.a.net.connect(at(2), "b").await.unwrap();
        pair.world.power_off("b").await.unwrap();
        let clock = pair.world.clock();
        assert!(clock.timeout(ms(3_600_000), idle.read(&mut [0])).await.is_err(), "half open");
        assert_eq!(ping(&mut busy).await.unwrap_err().kind(), ErrorKind::TimedOut);
        let _machine = pair.world.restart("b").await.unwrap();
        assert_eq!(ping(&mut idle).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn healing_a_crash_boots_the_machine_again() {
    let world = World::new(1);
    let boot = |host: Host| serve_echo(&host, at(2));
    let a = world.host("a", ip(1), "here").start().unwrap();
    let b = world.host("b", ip(2), "here").boot(boot).start().unwrap();
    world.run(async {
        boot(b);
        ping(&mut a.net.connect(at(2), "b").await.unwrap()).await.unwrap();
        let _id = world.inject(&Fault::PowerOff { host: "b".parse().unwrap() }).await.unwrap();
        assert!(a.net.connect(at(2), "b").await.is_err());
        world.heal_all().await;
        world.clock().sleep(ms(1)).await;
        ping(&mut a.net.connect(at(2), "b").await.unwrap()).await.unwrap();
    });
}

#[test]
fn a_machine_that_cannot_start_is_started_again_and_one_with_another_life_is_not() {
    let world = World::new(1);
    let lives = Arc::new(AtomicU64::new(0));
    let (again, counted) = (world.clone(), lives.clone());
    let boot = move |host: Host| {
        let (world, lives) = (again.clone(), counted.clone());
        host.tasks.clone().spawn(async move {
            // The second life succeeds.
            if lives.fetch_add(1, Ordering::Relaxed) == 0 {
                world.restart_in(&host.name, ms(1_000));
            }
        });
    };
    let a = world.host("a", ip(1), "here").boot(boot.clone()).start().unwrap();
    world.run(async {
        boot(a);
        world.clock().sleep(ms(990)).await;
        assert_eq!(lives.load(Ordering::Relaxed), 1);
        world.clock().sleep(ms(5_000)).await;
        assert_eq!(lives.load(Ordering::Relaxed), 2);
        world.restart_in("a", ms(1_000));
        let _machine = world.restart("a").await.unwrap();
        world.clock().sleep(ms(5_000)).await;
        assert_eq!(lives.load(Ordering::Relaxed), 3);
        world.restart_in("a", ms(1_000));
        world.power_off("a").await.unwrap();
        world.clock().sleep(ms(5_000)).await;
        assert!(world.machine("a").is_none());
    });
}

#[test]
fn every_life_of_a_machine_draws_its_own_randomness() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let again = pair.world.restart("a").await.unwrap();
        assert_ne!(again.entropy.uuid(), pair.a.entropy.uuid());
        assert_ne!(again.entropy.stream("x").uuid(), pair.b.entropy.stream("x").uuid());
    });
}

#[test]
fn a_paused_machine_does_nothing_and_then_goes_on() {
    let pair = Pair::new(1);
    pair.world.run(async {
        serve_echo(&pair.b, at(2));
        let mut stream = pair.a.net.connect(at(2), "b").await.unwrap();
        ping(&mut stream).await.unwrap();
        let id = pair.world.inject(&Fault::Pause { host: "b".parse().unwrap() }).await.unwrap();
        let clock = pair.world.clock();
        let before = clock.now();
        let resume = async {
            clock.sleep(ms(60_000)).await;
            pair.world.heal(id).await.unwrap();
        };
        let (answer, ()) = tokio::join!(ping(&mut stream), resume);
        answer.unwrap();
        assert!(clock.now() - before >= ms(60_000));
    });
    assert_eq!(pair.world.fault_counts()["pause"], FaultCount { chosen: 1, effective: 1 });
}

#[test]
fn a_skewed_clock_is_wrong_by_itself() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let skew = Fault::Skew { host: "a".parse().unwrap(), us: -5_000_000 };
        let id = pair.world.inject(&skew).await.unwrap();
        assert_eq!(pair.b.clock.wall().0 - pair.a.clock.wall().0, 5_000_000);
        assert_eq!(pair.a.clock.now(), pair.b.clock.now());
        pair.world.heal(id).await.unwrap();
        assert_eq!(pair.b.clock.wall(), pair.a.clock.wall());
    });
}

#[test]
fn two_machines_share_neither_name_nor_address() {
    let pair = Pair::new(1);
    let start = |name, number| pair.world.host(name, ip(number), "here").start().err().unwrap();
    assert_eq!(start("a", 3), WorldError::NameTaken("a".into()));
    assert_eq!(start("c", 2), WorldError::AddressTaken(ip(2)));
}

#[test]
fn whoever_waits_on_a_machine_that_crashes_is_told() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let mut listener = pair.b.net.listen(at(2)).await.unwrap();
        let socket = pair.b.net.udp(at(2)).await.unwrap();
        let (mut buffer, mut other) = ([0; 4], [0; 4]);
        let mut stream = pair.a.net.connect(at(2), "b").await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        let (accept, receive, read, hung_up, ()) = tokio::join!(
            listener.accept(),
            socket.recv_from(&mut buffer),
            accepted.read(&mut other),
            async { stream.read(&mut [0]).await },
            async { pair.world.crash("b").await.unwrap() },
        );
        assert!(accept.is_err() && receive.is_err() && read.is_err() && hung_up.is_err());
    });
}

#[test]
fn a_panic_is_counted_after_a_restart_too() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let _ = pair.a.tasks.spawn(async { panic!("a planted panic") }).join().await;
        assert_eq!(pair.world.panics(), 1);
        let _machine = pair.world.restart("a").await.unwrap();
        assert_eq!(pair.world.panics(), 1);
    });
}
