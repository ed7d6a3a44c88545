//! UDP: what is lost is gone, what is doubled comes twice, what is late is overtaken.

use super::*;

/// Sends `number` datagrams, a millisecond apart, and gives back what arrives.
async fn exchange(pair: &Pair, number: u32) -> Vec<u32> {
    let (from, to) = pair.sockets().await;
    let clock = pair.world.clock();
    let send = async {
        for count in 0..number {
            from.send_to(&count.to_be_bytes(), at(2)).await.unwrap();
            clock.sleep(ms(1)).await;
        }
    };
    let mut heard = Vec::new();
    let receive = async {
        let mut buffer = [0; 16];
        while let Ok(received) = clock.timeout(ms(1_000), to.recv_from(&mut buffer)).await {
            let (len, sender) = received.unwrap();
            assert_eq!((len, sender), (4, at(1)));
            heard.push(u32::from_be_bytes(buffer[..4].try_into().unwrap()));
        }
    };
    tokio::join!(send, receive);
    heard
}

/// What arrives of 1,000 datagrams under `fault`, and what the wire counted.
fn under(fault: Option<Fault>) -> (Vec<u32>, WireCounts, Pair) {
    let pair = Pair::new(1);
    let heard = pair.world.run(async {
        if let Some(fault) = fault {
            let _id = pair.world.inject(&fault).await.unwrap();
        }
        exchange(&pair, 1_000).await
    });
    let counts = pair.world.wire_counts();
    (heard, counts, pair)
}

#[test]
fn without_a_fault_every_datagram_arrives_once_and_in_order() {
    let (heard, counts, _) = under(None);
    assert!(heard.into_iter().eq(0..1_000));
    let expected = WireCounts { datagrams_sent: 1_000, datagrams_delivered: 1_000, ..WireCounts::default() };
    assert_eq!(counts, expected);
}

#[test]
fn loss_loses() {
    let (heard, counts, pair) =
        under(Some(Fault::Loss { from: place("a"), to: place("b"), probability: 0.1 }));
    assert!((50..150).contains(&counts.datagrams_dropped), "{counts:?}");
    assert_eq!(heard.len() as u64, 1_000 - counts.datagrams_dropped);
    assert_eq!(pair.world.faults()[0].effects, counts.datagrams_dropped);
}

#[test]
fn loss_the_other_way_does_not_matter() {
    let (heard, _, pair) = under(Some(Fault::Loss { from: place("b"), to: place("a"), probability: 1.0 }));
    assert_eq!(heard.len(), 1_000);
    assert_eq!(pair.world.fault_counts()["loss"], FaultCount { chosen: 1, effective: 0 });
}

#[test]
fn bursts_lose_several_in_a_row() {
    let fault = Fault::LossBurst {
        from: place("a"),
        to: place("b"),
        probability: 0.02,
        recovery: 0.0,
        packets_max: 20,
        loss_good: 0.0,
        loss_bad: 1.0,
    };
    let (heard, counts, pair) = under(Some(fault));
    let longest = heard.windows(2).map(|pair| pair[1] - pair[0] - 1).max().unwrap();
    assert!((5..=20).contains(&longest), "{longest}");
    assert_eq!(pair.world.faults()[0].effects, counts.datagrams_dropped);
}

#[test]
fn duplication_doubles() {
    let fault = Fault::Duplicate { from: place("a"), to: place("b"), probability: 0.1 };
    let (heard, counts, pair) = under(Some(fault));
    assert!((50..150).contains(&counts.datagrams_duplicated), "{counts:?}");
    assert_eq!(heard.len() as u64, 1_000 + counts.datagrams_duplicated);
    assert_eq!(pair.world.faults()[0].effects, counts.datagrams_duplicated);
}

#[test]
fn reordering_reorders() {
    let fault = Fault::Reorder { from: place("a"), to: place("b"), probability: 0.1, hold_ms: 20 };
    let (mut heard, counts, pair) = under(Some(fault));
    assert!((50..150).contains(&counts.datagrams_reordered), "{counts:?}");
    assert_eq!(pair.world.faults()[0].effects, counts.datagrams_reordered);
    assert!(!heard.is_sorted());
    heard.sort_unstable();
    assert!(heard.into_iter().eq(0..1_000));
}

#[test]
fn a_receiver_that_is_too_slow_loses_what_its_queue_cannot_hold() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let (from, to) = pair.sockets().await;
        for _ in 0..300 {
            from.send_to(b"x", at(2)).await.unwrap();
        }
        pair.world.clock().sleep(ms(100)).await;
        let mut heard = 0;
        while pair.world.clock().timeout(ms(1), to.recv_from(&mut [0; 4])).await.is_ok() {
            heard += 1;
        }
        assert_eq!(heard, 256);
    });
    assert_eq!(pair.world.wire_counts().datagrams_overflowed, 44);
}

#[test]
fn a_receive_that_is_cancelled_loses_nothing() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let (from, to) = pair.sockets().await;
        let clock = pair.world.clock();
        for _ in 0..20 {
            assert!(clock.timeout(ms(1), to.recv_from(&mut [0; 4])).await.is_err());
        }
        from.send_to(b"x", at(2)).await.unwrap();
        clock.timeout(ms(10), to.recv_from(&mut [0; 4])).await.unwrap().unwrap();
    });
}

#[test]
fn a_socket_that_is_closed_frees_its_port_and_takes_nothing() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let (from, to) = pair.sockets().await;
        assert!(pair.b.net.udp(at(2)).await.is_err());
        drop(to);
        from.send_to(b"x", at(2)).await.unwrap();
        pair.world.clock().sleep(ms(10)).await;
        let again = pair.b.net.udp(at(2)).await.unwrap();
        assert!(pair.world.clock().timeout(ms(10), again.recv_from(&mut [0; 4])).await.is_err());
        let free = pair.b.net.udp(SocketAddr::new(ip(2), 0)).await.unwrap();
        assert_ne!(free.local_addr().port(), 0);
    });
}

#[test]
fn a_long_datagram_is_cut_at_the_buffer_and_a_too_long_one_is_refused() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let (from, to) = pair.sockets().await;
        from.send_to(b"long", at(2)).await.unwrap();
        let mut short = [0; 2];
        assert_eq!(to.recv_from(&mut short).await.unwrap().0, 2);
        assert!(from.send_to(&vec![0; 65_508], at(2)).await.is_err());
    });
}
