//! The run itself: determinism, cost, and what it refuses to let pass.

use super::*;

/// Everything an observer sees of a small world with everything going on in it.
fn busy_world(seed: u64, explore_order: f64) -> Vec<WireEvent> {
    let log = Arc::new(Log::default());
    let options = WorldOptions { explore_order, ..WorldOptions::default() };
    let world = World::with(seed, options, log.clone());
    let hosts: Vec<_> = (1..=6_u8)
        .map(|number| {
            let datacenter = if number % 2 == 0 { "east" } else { "west" };
            let boot = move |host: Host| serve_echo(&host, at(number));
            let machine =
                world.host(&format!("h{number}"), ip(number), datacenter).boot(boot).start().unwrap();
            (number, machine)
        })
        .collect();
    world.run(async {
        for (number, host) in &hosts {
            serve_echo(host, at(*number));
            talk(host, *number);
        }
        let clock = world.clock();
        let everywhere = || vec![Place::Everywhere];
        let faults = [
            Fault::Loss { from: everywhere(), to: everywhere(), probability: 0.05 },
            Fault::Partition { a: place("datacenter:east"), b: place("datacenter:west") },
            Fault::Duplicate { from: everywhere(), to: everywhere(), probability: 0.3 },
            Fault::Crash { host: "h2".parse().unwrap() },
            Fault::Pause { host: "h3".parse().unwrap() },
        ];
        for fault in faults {
            let id = world.inject(&fault).await.unwrap();
            clock.sleep(ms(700)).await;
            world.heal(id).await.unwrap();
            clock.sleep(ms(300)).await;
        }
    });
    std::mem::take(&mut log.wire.lock().unwrap())
}

/// Connects to others over and over, and sends datagrams into the blue.
fn talk(host: &Host, number: u8) {
    for peer in (1..=6).filter(|peer| *peer != number) {
        let machine = host.clone();
        host.tasks.spawn(async move {
            let socket = machine.net.udp(SocketAddr::new(ip(number), 0)).await.unwrap();
            loop {
                if let Ok(mut stream) = machine.net.connect(at(peer), "peer").await {
                    let _ = machine.clock.timeout(ms(500), ping(&mut stream)).await;
                }
                let _ = socket.send_to(b"hello", at(peer)).await;
                machine.clock.sleep(Duration::from_micros(machine.entropy.below(200_000))).await;
            }
        });
    }
}

#[test]
fn the_same_seed_gives_the_same_events() {
    let first = busy_world(7, 0.0);
    assert!(first.len() > 1_000, "{}", first.len());
    assert!(first == busy_world(7, 0.0));
}

#[test]
fn another_seed_gives_other_events() {
    assert!(busy_world(7, 0.0) != busy_world(8, 0.0));
}

#[test]
fn exploring_the_order_of_tasks_is_another_world_and_as_repeatable() {
    let explored = busy_world(7, 0.2);
    assert!(explored == busy_world(7, 0.2));
    assert!(explored != busy_world(7, 0.0));
}

#[test]
fn what_is_observed_never_goes_back_in_time() {
    assert!(busy_world(3, 0.0).is_sorted_by_key(|event| event.at_us));
}

#[test]
fn the_bytes_that_reach_a_watched_machine_are_tapped() {
    let log = Arc::new(Log::default());
    let pair = Pair::with(1, WorldOptions::default(), log.clone());
    pair.world.run(async {
        serve_echo(&pair.b, at(2));
        ping(&mut pair.a.net.connect(at(2), "b").await.unwrap()).await.unwrap();
        let (from, to) = (pair.a.net.udp(at(1)).await.unwrap(), pair.b.net.udp(at(2)).await.unwrap());
        from.send_to(b"pong", at(2)).await.unwrap();
        to.recv_from(&mut [0; 4]).await.unwrap();
    });
    assert_eq!(*log.bytes.lock().unwrap(), b"pingpong");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the cost of a run is a matter of the real clock")]
fn an_idle_hour_of_a_thousand_machines_is_cheap() {
    let began = std::time::Instant::now();
    let world = World::new(1);
    let hosts: Vec<_> = (0..1_000_u32)
        .map(|number| {
            let ip = IpAddr::V4(Ipv4Addr::from(0x0b00_0000 + number));
            world.host(&format!("h{number}"), ip, "here").start().unwrap()
        })
        .collect();
    world.run(async {
        for host in &hosts {
            let address =
                host.net.udp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 1)).await.unwrap().local_addr();
            serve_echo(host, SocketAddr::new(address.ip(), PORT));
        }
        world.clock().sleep(Duration::from_secs(3_600)).await;
        assert_eq!(world.now_us(), 3_600_000_000);
    });
    // An engine that did anything per tick and machine would need minutes, however fast this one is.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_run_ends_every_machine() {
    let pair = Pair::new(1);
    pair.world.run(async {
        serve_echo(&pair.b, at(2));
        pair.a.tasks.spawn(std::future::pending::<()>());
    });
    assert_eq!(pair.a.tasks.alive() + pair.b.tasks.alive(), 0);
}

#[test]
#[should_panic = "tasks were spawned outside of their machines"]
#[expect(clippy::disallowed_methods, reason = "the mistake that must be found")]
fn a_task_outside_of_every_machine_is_found() {
    World::new(1).run(async {
        tokio::spawn(std::future::pending::<()>());
    });
}

#[test]
#[should_panic = "the run had not ended after 60 simulated seconds"]
fn a_run_that_does_not_end_is_ended() {
    let options = WorldOptions { run_limit_s: 60, ..WorldOptions::default() };
    World::with(1, options, Arc::new(Log::default())).run(std::future::pending::<()>());
}

#[test]
fn what_outlives_the_run_does_no_harm() {
    let pair = Pair::new(1);
    let ends = pair.world.run(pair.connection());
    drop(ends);
    assert_eq!(pair.world.now_us(), pair.world.now_us());
}
