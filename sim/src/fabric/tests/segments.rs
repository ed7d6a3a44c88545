//! Streams over links that carry short packets only, or only sometimes.

use super::connections::{text, transfer};
use super::*;

/// A transfer of 200,000 bytes while `fault` comes and goes every 40 ms.
fn through(seed: u64, fault: &Fault) -> World {
    let pair = Pair::new(seed);
    pair.world.run(async {
        let (client, server) = pair.connection().await;
        let clock = pair.world.clock();
        let lossy = Fault::Loss { from: place("a"), to: place("b"), probability: 0.1 };
        let _lossy = pair.world.inject(&lossy).await.unwrap();
        let sent = text(200_000);
        let on_and_off = async {
            loop {
                let id = pair.world.inject(fault).await.unwrap();
                clock.sleep(ms(40)).await;
                pair.world.heal(id).await.unwrap();
                clock.sleep(ms(40)).await;
            }
        };
        tokio::select! {
            biased;
            heard = transfer(client, server, &sent) => assert!(heard == sent, "seed {seed}"),
            () = on_and_off => {}
        }
    });
    pair.world
}

#[test]
fn a_stream_arrives_whole_however_its_segments_are_cut_on_the_way() {
    for seed in 0..20 {
        for bytes in [68, 576, 1_000] {
            let world = through(seed, &Fault::Mtu { from: place("a"), to: place("b"), bytes });
            assert!(world.fault_counts()["mtu"].effective > 0);
        }
    }
}

#[test]
fn a_stream_arrives_whole_through_corruption_which_its_checksum_finds() {
    for seed in 0..20 {
        let fault = Fault::Corruption { from: place("a"), to: place("b"), probability: 0.2 };
        let world = through(seed, &fault);
        assert!(world.fault_counts()["corruption"].effective > 0);
        assert!(world.wire_counts().segments_retransmitted > 0);
    }
}
