//! Faults as data: where they strike, what they count, how they end.

use super::*;

/// A world with `a1`, `a2` (group a, data centre east) and `b1` (group b, west), all answering.
fn three() -> (World, [Host; 3]) {
    let world = World::new(1);
    let machines = [("a1", 1, "a", "east"), ("a2", 2, "a", "east"), ("b1", 3, "b", "west")];
    let hosts = machines.map(|(name, number, group, datacenter)| {
        world.host(name, ip(number), datacenter).group(group).start().unwrap()
    });
    (world, hosts)
}

/// Which of the three can reach which, as `from>to`.
async fn reachable(hosts: &[Host; 3]) -> Vec<String> {
    let mut reached = Vec::new();
    for (number, from) in (1_u8..).zip(hosts) {
        let socket = from.net.udp(SocketAddr::new(ip(number), 0)).await.unwrap();
        for to in 1..=3 {
            let ears = hosts[to as usize - 1].net.udp(at(to)).await.unwrap();
            socket.send_to(b"x", at(to)).await.unwrap();
            if from.clock.timeout(ms(500), ears.recv_from(&mut [0; 4])).await.is_ok() && number != to {
                reached.push(format!("{number}>{to}"));
            }
        }
    }
    reached
}

#[test]
fn a_partition_separates_the_places_it_names_and_no_others() {
    let (world, hosts) = three();
    world.run(async {
        assert_eq!(reachable(&hosts).await, ["1>2", "1>3", "2>1", "2>3", "3>1", "3>2"]);
        let cut = Fault::Partition { a: place("group:a"), b: place("datacenter:west") };
        let id = world.inject(&cut).await.unwrap();
        assert_eq!(reachable(&hosts).await, ["1>2", "2>1"]);
        world.heal(id).await.unwrap();
        let cut = Fault::PartitionOneWay { from: place("a1"), to: place("*") };
        let id = world.inject(&cut).await.unwrap();
        assert_eq!(reachable(&hosts).await, ["2>1", "2>3", "3>1", "3>2"]);
        world.heal(id).await.unwrap();
        assert_eq!(reachable(&hosts).await.len(), 6);
    });
}

#[test]
fn overlapping_partitions_end_one_by_one() {
    let (world, hosts) = three();
    world.run(async {
        let first = world.inject(&Fault::Partition { a: place("a1"), b: place("*") }).await.unwrap();
        let second = world.inject(&Fault::Partition { a: place("a1"), b: place("a2") }).await.unwrap();
        world.heal(first).await.unwrap();
        assert_eq!(reachable(&hosts).await, ["1>3", "2>3", "3>1", "3>2"]);
        world.heal(second).await.unwrap();
        assert_eq!(world.heal(second).await, Err(FaultError::NotActive(second)));
    });
}

#[test]
fn data_centres_are_far_apart_and_neighbours_are_near() {
    let (world, hosts) = three();
    world.run(async {
        let clock = world.clock();
        let mut took = Vec::new();
        for to in [2, 3] {
            let ears = hosts[to as usize - 1].net.udp(at(to)).await.unwrap();
            let before = clock.now();
            hosts[0].net.udp(at(1)).await.unwrap().send_to(b"x", at(to)).await.unwrap();
            ears.recv_from(&mut [0; 4]).await.unwrap();
            took.push(clock.now() - before);
        }
        assert!(took[0] <= ms(2), "{took:?}");
        assert!((ms(10)..ms(62)).contains(&took[1]), "{took:?}");
    });
}

#[test]
fn a_fault_that_nobody_noticed_was_not_effective() {
    let (world, _) = three();
    world.run(async {
        let id = world.inject(&Fault::Partition { a: place("a1"), b: place("b1") }).await.unwrap();
        world.clock().sleep(ms(10_000)).await;
        world.heal(id).await.unwrap();
        let _id = world.inject(&Fault::Crash { host: "a1".parse().unwrap() }).await.unwrap();
    });
    let counts = world.fault_counts();
    assert_eq!(counts["partition"], FaultCount { chosen: 1, effective: 0 });
    assert_eq!(counts["crash"], FaultCount { chosen: 1, effective: 0 }, "it had no tasks");
}

#[test]
fn a_fault_of_a_place_that_is_not_there_is_refused() {
    let (world, _) = three();
    world.run(async {
        let nowhere: Place = "group:c".parse().unwrap();
        let fault = Fault::Partition { a: place("a1"), b: vec![nowhere.clone()] };
        assert_eq!(world.inject(&fault).await, Err(FaultError::NobodyThere(nowhere.clone())));
        let fault = Fault::Crash { host: nowhere.clone() };
        assert_eq!(world.inject(&fault).await, Err(FaultError::NobodyThere(nowhere)));
        let fault = Fault::Partition { a: place("a1"), b: Vec::new() };
        assert_eq!(world.inject(&fault).await, Err(FaultError::NoPlace("partition")));
    });
    assert!(world.faults().is_empty());
}

#[test]
fn the_observer_is_told_of_beginning_and_end() {
    let log = Arc::new(Log::default());
    let pair = Pair::with(1, WorldOptions::default(), log.clone());
    pair.world.run(async {
        let id = pair.world.inject(&pair.partition()).await.unwrap();
        pair.world.clock().sleep(ms(5)).await;
        pair.world.heal(id).await.unwrap();
    });
    let told: Vec<_> = log.faults.lock().unwrap().iter().map(|event| (event.at_us, event.phase)).collect();
    assert_eq!(told, [(0, FaultPhase::Injected), (5_000, FaultPhase::Healed)]);
}

#[test]
fn resetting_connections_resets_those_between_the_two_places() {
    let (world, hosts) = three();
    world.run(async {
        serve_echo(&hosts[1], at(2));
        serve_echo(&hosts[2], at(3));
        let mut near = hosts[0].net.connect(at(2), "a2").await.unwrap();
        let mut far = hosts[0].net.connect(at(3), "b1").await.unwrap();
        let fault = Fault::ResetConnections { a: place("group:a"), b: place("group:b") };
        let id = world.inject(&fault).await.unwrap();
        assert_eq!(world.heal(id).await, Err(FaultError::NotActive(id)), "it is over at once");
        ping(&mut near).await.unwrap();
        assert_eq!(ping(&mut far).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    });
    assert_eq!(world.faults()[0].effects, 1);
}

#[test]
fn a_name_can_be_missing_or_stale_for_a_while() {
    let (world, hosts) = three();
    world.run(async {
        let resolve = async || hosts[0].net.resolve("c.example", PORT).await.map_err(|error| error.kind());
        world.publish("c.example", [ip(1)]);
        world.publish("c.example", [ip(2)]);
        assert_eq!(resolve().await, Ok(vec![at(2)]));
        let stale = world.inject(&Fault::DnsStale { name: "c.example".into() }).await.unwrap();
        assert_eq!(resolve().await, Ok(vec![at(1)]));
        let missing = world.inject(&Fault::DnsMissing { name: "c.example".into() }).await.unwrap();
        assert_eq!(resolve().await, Err(std::io::ErrorKind::NotFound));
        world.heal(missing).await.unwrap();
        world.heal(stale).await.unwrap();
        assert_eq!(resolve().await, Ok(vec![at(2)]));
        assert_eq!(hosts[0].net.resolve("203.0.113.2", PORT).await.unwrap(), [at(2)]);
    });
    assert!(world.fault_counts().values().all(|count| count.effective == 1));
}

#[test]
fn latency_is_added_and_taken_away() {
    let (world, hosts) = three();
    world.run(async {
        serve_echo(&hosts[1], at(2));
        let mut stream = hosts[0].net.connect(at(2), "a2").await.unwrap();
        let clock = world.clock();
        let mut took = Vec::new();
        let slow = Fault::Latency {
            from: place("a1"),
            to: place("a2"),
            add_ms: 300,
            jitter_ms: 10,
            shape: Shape::Uniform,
        };
        for fault in [None, Some(slow), None] {
            let id = match fault {
                Some(fault) => Some(world.inject(&fault).await.unwrap()),
                None => None,
            };
            let before = clock.now();
            ping(&mut stream).await.unwrap();
            took.push(clock.now() - before);
            if let Some(id) = id {
                world.heal(id).await.unwrap();
            }
        }
        assert!(took[0] < ms(10) && took[1] >= ms(300) && took[2] < ms(10), "{took:?}");
    });
}

#[test]
fn of_overlapping_faults_of_one_machine_the_latest_rules_until_it_ends() {
    let (world, hosts) = three();
    world.run(async {
        let skew = |us| Fault::Skew { host: "a1".parse().unwrap(), us };
        let wrong_by = || i128::from(hosts[0].clock.wall().0) - i128::from(world.clock().wall().0);
        let first = world.inject(&skew(1)).await.unwrap();
        let second = world.inject(&skew(2)).await.unwrap();
        assert_eq!(wrong_by(), 2);
        world.heal(second).await.unwrap();
        assert_eq!(wrong_by(), 1);
        world.heal(first).await.unwrap();
        assert_eq!(wrong_by(), 0);
    });
}

#[test]
fn a_machine_stays_down_until_the_last_fault_that_wants_it_so_ends() {
    let (world, _) = three();
    world.run(async {
        let crash = world.inject(&Fault::Crash { host: "a1".parse().unwrap() }).await.unwrap();
        let outage = world.inject(&Fault::PowerOff { host: "group:a".parse().unwrap() }).await.unwrap();
        world.heal(crash).await.unwrap();
        assert!(world.machine("a1").is_none());
        world.heal(outage).await.unwrap();
        assert!(world.machine("a1").is_some() && world.machine("a2").is_some());
    });
}
