//! TCP: never a byte lost, only late or broken off.

use std::io::ErrorKind;

use proptest::prelude::*;

use super::*;

/// Sends `text` from one end to the other, whole, and reads until its end.
pub(super) async fn transfer(mut from: Stream, mut to: Stream, text: &[u8]) -> Vec<u8> {
    let send = async {
        from.write_all(text).await.unwrap();
        from.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let receive = async { to.read_to_end(&mut heard).await.unwrap() };
    tokio::join!(send, receive);
    heard
}

pub(super) fn text(len: usize) -> Vec<u8> {
    (0..len).map(|place| (place * 7 % 251) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bytes_arrive_whole_and_in_order_whatever_is_lost(
        seed: u64, loss in 0.0..0.4, there_len in 0_usize..150_000, back_len in 0_usize..30_000,
    ) {
        // With much loss, patience: a connection given up would be no failure.
        let mut options = WorldOptions::default();
        options.tcp.give_up_ms = 3_600_000;
        let pair = Pair::with(seed, options, Arc::new(Log::default()));
        pair.world.run(async {
            let (mut client, mut server) = pair.connection().await;
            let everywhere = || vec![Place::Everywhere];
            let fault = Fault::Loss { from: everywhere(), to: everywhere(), probability: loss };
            let _id = pair.world.inject(&fault).await.unwrap();
            let (there, back) = (text(there_len), text(back_len));
            let (mut heard_there, mut heard_back) = (vec![0; there_len], vec![0; back_len]);
            let (client_end, server_end) = (
                async {
                    let (mut read, mut write) = tokio::io::split(&mut client);
                    let (sent, read) = tokio::join!(write.write_all(&there), read.read_exact(&mut heard_back));
                    sent.and(read.map(|_| ()))
                },
                async {
                    let (mut read, mut write) = tokio::io::split(&mut server);
                    let (sent, read) = tokio::join!(write.write_all(&back), read.read_exact(&mut heard_there));
                    sent.and(read.map(|_| ()))
                },
            );
            let (client_end, server_end) = tokio::join!(client_end, server_end);
            client_end.unwrap();
            server_end.unwrap();
            assert!(heard_there == there && heard_back == back);
        });
    }
}

#[test]
fn lost_segments_are_sent_again_and_counted() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let (client, server) = pair.connection().await;
        let fault = Fault::Loss { from: place("a"), to: place("b"), probability: 0.2 };
        let _id = pair.world.inject(&fault).await.unwrap();
        assert_eq!(transfer(client, server, &text(100_000)).await, text(100_000));
    });
    let counts = pair.world.wire_counts();
    assert!(counts.segments_dropped > 0 && counts.segments_retransmitted >= counts.segments_dropped);
    assert_eq!(pair.world.fault_counts()["loss"], FaultCount { chosen: 1, effective: 1 });
}

#[test]
fn without_a_fault_nothing_is_sent_twice() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let (client, server) = pair.connection().await;
        assert_eq!(transfer(client, server, &text(300_000)).await, text(300_000));
    });
    let counts = pair.world.wire_counts();
    assert_eq!((counts.segments_dropped, counts.segments_retransmitted, counts.connections_reset), (0, 0, 0));
}

#[test]
fn a_partition_stalls_a_connection_and_healing_lets_it_go_on() {
    let pair = Pair::new(1);
    pair.world.run(async {
        serve_echo(&pair.b, at(2));
        let mut stream = pair.a.net.connect(at(2), "b").await.unwrap();
        ping(&mut stream).await.unwrap();
        let id = pair.world.inject(&pair.partition()).await.unwrap();
        let clock = pair.world.clock();
        let before = clock.now();
        let heal = async {
            clock.sleep(ms(3_000)).await;
            pair.world.heal(id).await.unwrap();
        };
        let (answer, ()) = tokio::join!(ping(&mut stream), heal);
        answer.unwrap();
        let took = clock.now() - before;
        assert!((ms(3_000)..ms(8_500)).contains(&took), "{took:?}");
    });
    assert_eq!(pair.world.fault_counts()["partition"], FaultCount { chosen: 1, effective: 1 });
}

#[test]
fn a_connection_on_which_nothing_gets_through_is_broken_off_at_both_ends() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let (mut client, mut server) = pair.connection().await;
        let _id = pair.world.inject(&pair.partition()).await.unwrap();
        let clock = pair.world.clock();
        let before = clock.now();
        client.write_all(b"anybody there?").await.unwrap();
        let mut byte = [0];
        assert_eq!(client.read(&mut byte).await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(server.read(&mut byte).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(client.write(b"x").await.unwrap_err().kind(), ErrorKind::TimedOut);
        let took = clock.now() - before;
        assert!((ms(15_000)..ms(20_000)).contains(&took), "{took:?}");
    });
}

#[test]
fn an_idle_connection_outlives_any_partition() {
    let pair = Pair::new(1);
    pair.world.run(async {
        serve_echo(&pair.b, at(2));
        let mut stream = pair.a.net.connect(at(2), "b").await.unwrap();
        let id = pair.world.inject(&pair.partition()).await.unwrap();
        pair.world.clock().sleep(ms(3_600_000)).await;
        pair.world.heal(id).await.unwrap();
        ping(&mut stream).await.unwrap();
    });
}

#[test]
fn where_only_the_way_back_is_cut_bytes_arrive_but_the_sender_gives_up() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let (mut client, mut server) = pair.connection().await;
        let fault = Fault::PartitionOneWay { from: place("b"), to: place("a") };
        let _id = pair.world.inject(&fault).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(client.read(&mut heard).await.unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn connecting_into_a_partition_times_out() {
    let pair = Pair::new(1);
    pair.world.run(async {
        serve_echo(&pair.b, at(2));
        let _id = pair.world.inject(&pair.partition()).await.unwrap();
        let clock = pair.world.clock();
        let before = clock.now();
        let error = pair.a.net.connect(at(2), "b").await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!((ms(5_000)..ms(10_000)).contains(&(clock.now() - before)));
    });
}

#[test]
fn connecting_over_a_link_that_is_too_slow_times_out() {
    let pair = Pair::new(1);
    pair.world.run(async {
        serve_echo(&pair.b, at(2));
        let fault = Fault::Latency {
            from: place("a"),
            to: place("b"),
            add_ms: 20_000,
            jitter_ms: 0,
            shape: Shape::Uniform,
        };
        let id = pair.world.inject(&fault).await.unwrap();
        let clock = pair.world.clock();
        assert_eq!(pair.a.net.connect(at(2), "b").await.err().unwrap().kind(), ErrorKind::TimedOut);
        assert_eq!(clock.now(), ms(7_000));
        pair.world.heal(id).await.unwrap();
        ping(&mut pair.a.net.connect(at(2), "b").await.unwrap()).await.unwrap();
    });
}

#[test]
fn a_connection_request_is_repeated_until_the_partition_heals() {
    let pair = Pair::new(1);
    pair.world.run(async {
        serve_echo(&pair.b, at(2));
        let id = pair.world.inject(&pair.partition()).await.unwrap();
        let heal = async {
            pair.world.clock().sleep(ms(2_000)).await;
            pair.world.heal(id).await.unwrap();
        };
        let (stream, ()) = tokio::join!(pair.a.net.connect(at(2), "b"), heal);
        ping(&mut stream.unwrap()).await.unwrap();
    });
}

#[test]
fn nobody_listens_nobody_lives_there_and_no_such_address_are_told_apart() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let kind = async |to| pair.a.net.connect(to, "b").await.err().unwrap().kind();
        assert_eq!(kind(at(2)).await, ErrorKind::ConnectionRefused);
        assert_eq!(kind(at(99)).await, ErrorKind::TimedOut);
        pair.world.crash("b").await.unwrap();
        assert_eq!(kind(at(2)).await, ErrorKind::ConnectionRefused);
        let _machine = pair.world.restart("b").await.unwrap();
        pair.world.power_off("b").await.unwrap();
        assert_eq!(kind(at(2)).await, ErrorKind::TimedOut);
    });
}

#[test]
fn a_full_backlog_refuses() {
    let mut options = WorldOptions::default();
    options.tcp.backlog_max = 3;
    let pair = Pair::with(1, options, Arc::new(Log::default()));
    pair.world.run(async {
        let mut listener = pair.b.net.listen(at(2)).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(pair.a.net.connect(at(2), "b").await.unwrap());
        }
        let refused = pair.a.net.connect(at(2), "b").await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let _accepted = listener.accept().await.unwrap();
        pair.a.net.connect(at(2), "b").await.unwrap();
    });
    assert_eq!(pair.world.wire_counts().connections_refused, 1);
}

#[test]
fn whoever_waits_at_a_listener_that_ends_is_reset() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let listener = pair.b.net.listen(at(2)).await.unwrap();
        let mut client = pair.a.net.connect(at(2), "b").await.unwrap();
        drop(listener);
        assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_writer_is_held_back_by_a_reader_that_does_not_read() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let (mut client, mut server) = pair.connection().await;
        let clock = pair.world.clock();
        let big = text(200_000);
        let stuck = clock.timeout(ms(60_000), client.write_all(&big)).await;
        assert!(stuck.is_err(), "200,000 bytes cannot be on their way");
        let mut heard = vec![0; 100_000];
        let read = clock.timeout(ms(1_000), server.read_exact(&mut heard)).await;
        assert!(read.is_err(), "what did not fit was never taken");
        assert_eq!(heard[..65_536], big[..65_536]);
        // The window is open again.
        client.write_all(b"more").await.unwrap();
    });
}

#[test]
fn lost_tidings_of_room_do_not_stop_a_writer_for_ever() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let (mut client, mut server) = pair.connection().await;
        let clock = pair.world.clock();
        let big = text(200_000);
        let mut heard = vec![0; big.len()];
        let write = client.write_all(&big);
        let read = async {
            clock.sleep(ms(1_000)).await;
            let fault = Fault::PartitionOneWay { from: place("b"), to: place("a") };
            let id = pair.world.inject(&fault).await.unwrap();
            server.read_exact(&mut heard[..65_536]).await.unwrap();
            clock.sleep(ms(5_000)).await;
            pair.world.heal(id).await.unwrap();
            server.read_exact(&mut heard[65_536..]).await.unwrap();
        };
        let (written, ()) = tokio::join!(write, read);
        written.unwrap();
        assert!(heard == big);
    });
}

#[test]
fn one_direction_can_end_while_the_other_goes_on() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let (mut client, mut server) = pair.connection().await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!((question.as_slice(), answer.as_slice()), (b"question".as_slice(), b"answer".as_slice()));
        assert_eq!(client.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_server_may_speak_and_close_before_its_client_knows_of_the_connection() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let mut listener = pair.b.net.listen(at(2)).await.unwrap();
        let speak = async {
            let (mut server, _) = listener.accept().await.unwrap();
            server.write_all(b"hello").await.unwrap();
        };
        let (client, ()) = tokio::join!(pair.a.net.connect(at(2), "b"), speak);
        let mut heard = Vec::new();
        client.unwrap().read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"hello");
    });
}

#[test]
fn writing_to_a_peer_that_has_closed_is_answered_by_a_reset() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let (mut client, server) = pair.connection().await;
        drop(server);
        client.write_all(b"late").await.unwrap();
        pair.world.clock().sleep(ms(10)).await;
        assert_eq!(client.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn closing_without_reading_resets_the_peer() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let (mut client, server) = pair.connection().await;
        client.write_all(b"unread").await.unwrap();
        pair.world.clock().sleep(ms(10)).await;
        drop(server);
        assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn what_was_written_before_closing_survives_a_partition() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let (mut client, mut server) = pair.connection().await;
        let id = pair.world.inject(&pair.partition()).await.unwrap();
        client.write_all(b"goodbye").await.unwrap();
        drop(client);
        pair.world.clock().sleep(ms(5_000)).await;
        pair.world.heal(id).await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"goodbye");
    });
}

#[test]
fn a_connect_that_is_dropped_leaves_nothing_behind() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let mut listener = pair.b.net.listen(at(2)).await.unwrap();
        let clock = pair.world.clock();
        let slow = Fault::Latency {
            from: place("a"),
            to: place("b"),
            add_ms: 50,
            jitter_ms: 0,
            shape: Shape::Uniform,
        };
        let _id = pair.world.inject(&slow).await.unwrap();
        assert!(clock.timeout(ms(10), pair.a.net.connect(at(2), "b")).await.is_err());
        assert!(clock.timeout(ms(1_000), listener.accept()).await.is_err());
        let slow = Fault::Latency {
            from: place("b"),
            to: place("a"),
            add_ms: 50,
            jitter_ms: 0,
            shape: Shape::Uniform,
        };
        let _id = pair.world.inject(&slow).await.unwrap();
        assert!(clock.timeout(ms(70), pair.a.net.connect(at(2), "b")).await.is_err());
        let (mut accepted, _) = listener.accept().await.unwrap();
        assert_eq!(accepted.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_narrow_line_takes_its_time() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let (client, server) = pair.connection().await;
        let fault =
            Fault::Bandwidth { from: place("a"), to: place("b"), bytes_per_s: 1_000_000, queue_bytes: None };
        let _id = pair.world.inject(&fault).await.unwrap();
        let clock = pair.world.clock();
        let before = clock.now();
        assert_eq!(transfer(client, server, &text(500_000)).await, text(500_000));
        let took = clock.now() - before;
        assert!((ms(500)..ms(700)).contains(&took), "{took:?}");
    });
    assert_eq!(pair.world.fault_counts()["bandwidth"].effective, 1);
}

#[test]
fn two_listeners_cannot_share_an_address_but_one_may_follow_the_other() {
    let pair = Pair::new(1);
    pair.world.run(async {
        let first = pair.b.net.listen(at(2)).await.unwrap();
        let second = pair.b.net.listen(at(2)).await.err().unwrap();
        assert_eq!(second.kind(), ErrorKind::AddrInUse);
        drop(first);
        pair.b.net.listen(at(2)).await.unwrap();
        let foreign = pair.b.net.listen(at(1)).await.err().unwrap();
        assert_eq!(foreign.kind(), ErrorKind::AddrNotAvailable);
    });
}
