//! Goal: packets reach the other legs of the same call and nobody else, and every one is accounted for.
//! Method: the stories of SPEC section 9, then random lives beside a simple model.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const RTP: Datagram<'_> = Datagram::Rtp { ssrc: 1, sequence: 1 };

fn relay() -> SocketAddr {
    "192.0.2.1:4000".parse().unwrap()
}

fn device(number: u16) -> SocketAddr {
    SocketAddr::new("198.51.100.1".parse().unwrap(), 5_000 + number)
}

fn asking(id: u128, locus: u128, instance: u64) -> OpenLeg {
    OpenLeg { id: Uuid::from_u128(id), locus: Uuid::from_u128(locus), instance: Count(instance) }
}

fn secrets(token: impl ToString) -> Secrets {
    Secrets { token: token.to_string(), ssrc: 7 }
}

fn account(legs: &Legs, id: u128) -> LegCounters {
    legs.counters_of(Uuid::from_u128(id)).unwrap()
}

fn bound(binding: Binding) -> bool {
    binding != Binding::Refused
}

/// A call of two bound devices: leg 1 at `device(1)`, leg 2 at `device(2)`.
fn two() -> Legs {
    let mut legs = Legs::new(relay(), 100);
    for number in 1..=2 {
        legs.open(&asking(number, 9, 1), secrets(number)).unwrap();
        assert_eq!(
            legs.bind(&number.to_string(), device(number as u16)),
            Binding::New(Uuid::from_u128(number))
        );
    }
    legs
}

#[test]
fn a_packet_goes_to_the_other_leg_and_to_nobody_else() {
    let mut legs = two();
    legs.open(&asking(3, 8, 1), secrets("other call")).unwrap();
    assert!(bound(legs.bind("other call", device(3))));
    assert_eq!(legs.packet(device(1), &RTP), [device(2)]);
    assert_eq!(account(&legs, 1).forwarded, Count(1));
    assert_eq!(account(&legs, 2).sent, Count(1));
    assert_eq!(account(&legs, 3).sent, Count(0));
}

#[test]
fn an_unbound_address_sends_to_nobody_and_receives_nothing() {
    let mut legs = two();
    assert!(!bound(legs.bind("guess", device(9))));
    assert!(legs.packet(device(9), &RTP).is_empty());
    assert_eq!(legs.counters().unbound, Count(2));
    assert_eq!(legs.packet(device(1), &RTP), [device(2)]);
}

#[test]
fn a_closed_leg_is_silent_and_its_packets_are_counted() {
    let mut legs = two();
    legs.close_leg(Uuid::from_u128(2));
    assert!(legs.packet(device(2), &RTP).is_empty());
    assert_eq!(account(&legs, 2).dropped_closed, Count(1));
    assert!(legs.packet(device(1), &RTP).is_empty());
    assert_eq!(account(&legs, 1).dropped_alone, Count(1));
    assert!(!bound(legs.bind("2", device(2))), "its token is good for nothing any more");
}

#[test]
fn an_ended_instance_is_silent_for_ever() {
    let mut legs = two();
    legs.close_instance(Uuid::from_u128(9), Count(1));
    assert!(legs.packet(device(1), &RTP).is_empty());
    assert_eq!(legs.open(&asking(5, 9, 1), secrets(5)), Err(OpenRefusal::CallOver));
    assert!(legs.open(&asking(5, 9, 2), secrets(5)).is_ok());
}

#[test]
fn the_end_may_arrive_before_a_leg_of_the_instance() {
    let mut legs = Legs::new(relay(), 100);
    legs.close_instance(Uuid::from_u128(9), Count(3));
    assert_eq!(legs.open(&asking(1, 9, 3), secrets(1)), Err(OpenRefusal::CallOver));
}

#[test]
fn a_newer_instance_ends_the_older_one() {
    let mut legs = two();
    legs.open(&asking(3, 9, 2), secrets(3)).unwrap();
    assert!(!account(&legs, 1).open);
    assert_eq!(legs.open(&asking(4, 9, 1), secrets(4)), Err(OpenRefusal::CallOver));
}

#[test]
fn asking_again_gives_the_same_leg() {
    let mut legs = two();
    let again = legs.open(&asking(1, 9, 1), secrets("new")).unwrap();
    assert_eq!(again.token, "1");
    assert_eq!(legs.open(&asking(1, 8, 1), secrets("new")), Err(OpenRefusal::OtherCall));
}

#[test]
fn a_device_that_changes_its_network_binds_again() {
    let mut legs = two();
    assert!(bound(legs.bind("2", device(7))));
    assert_eq!(legs.packet(device(1), &RTP), [device(7)]);
    assert!(legs.packet(device(2), &RTP).is_empty());
    assert_eq!(legs.counters().unbound, Count(1));
}

#[test]
fn a_forged_binding_cannot_pull_an_address_into_another_call() {
    let mut legs = two();
    legs.open(&asking(3, 8, 1), secrets("forger")).unwrap();
    assert!(!bound(legs.bind("forger", device(1))));
    assert_eq!(legs.packet(device(1), &RTP), [device(2)]);
    legs.close_leg(Uuid::from_u128(1));
    assert!(bound(legs.bind("forger", device(1))), "after its call an address is free");
}

#[test]
fn a_datagram_that_is_no_media_is_dropped_and_counted() {
    let mut legs = two();
    assert!(legs.packet(device(1), &Datagram::Malformed).is_empty());
    assert!(!bound(legs.bind("guess", device(1))));
    assert_eq!(account(&legs, 1).dropped_malformed, Count(2));
}

#[test]
fn a_full_relay_refuses_and_forgets_the_oldest_closed_legs_first() {
    let mut legs = Legs::new(relay(), 2);
    for id in 1..=2 {
        legs.open(&asking(id, id, 1), secrets(id)).unwrap();
    }
    assert_eq!(legs.open(&asking(3, 3, 1), secrets(3)), Err(OpenRefusal::Full));
    for id in 1..=10 {
        legs.close_leg(Uuid::from_u128(id));
        legs.open(&asking(id + 2, id + 2, 1), secrets(id + 2)).unwrap();
    }
    assert_eq!(legs.counters().legs.len(), 4);
    assert!(legs.rooms.len() <= 4 + 1);
}

#[derive(Clone, Debug)]
enum Act {
    Open { id: u8, locus: u8, instance: u64 },
    Bind { id: u8, from: u16 },
    Packet { from: u16, kind: u8 },
    Late { from: u16 },
    CloseLeg { id: u8 },
    CloseInstance { locus: u8, instance: u64 },
}

fn any_act() -> impl Strategy<Value = Act> {
    let (id, from, locus, instance) = (0..6_u8, 0..6_u16, 0..2_u8, 1..4_u64);
    prop_oneof![
        2 => (id.clone(), locus.clone(), instance.clone())
            .prop_map(|(id, locus, instance)| Act::Open { id, locus, instance }),
        2 => (id.clone(), from.clone()).prop_map(|(id, from)| Act::Bind { id, from }),
        1 => from.clone().prop_map(|from| Act::Late { from }),
        5 => (from, 0..4_u8).prop_map(|(from, kind)| Act::Packet { from, kind }),
        1 => id.prop_map(|id| Act::CloseLeg { id }),
        1 => (locus, instance).prop_map(|(locus, instance)| Act::CloseInstance { locus, instance }),
    ]
}

fn datagram(kind: u8) -> Datagram<'static> {
    match kind {
        0 => Datagram::Malformed,
        1 => Datagram::Rtcp,
        _ => RTP,
    }
}

/// What a packet must reach, from the accounts and the bindings alone.
fn expected(legs: &Legs, from: SocketAddr) -> BTreeSet<SocketAddr> {
    let Some(sender) = legs.legs.values().find(|slot| slot.address == Some(from)) else {
        return BTreeSet::new();
    };
    let call = (sender.locus, sender.instance);
    let others = legs.legs.values().filter(|slot| slot.leg.id != sender.leg.id);
    let same = others.filter(|slot| slot.open && sender.open && (slot.locus, slot.instance) == call);
    same.filter_map(|slot| slot.address).collect()
}

fn check(legs: &Legs, packets: u64, limit: usize) {
    let mut received = legs.unbound;
    for leg in legs.counters().legs {
        let dropped = leg.dropped_alone.0 + leg.dropped_malformed.0 + leg.dropped_closed.0;
        let dropped = dropped + leg.dropped_late.0;
        assert_eq!(leg.received.0, leg.forwarded.0 + dropped, "MED-005: nothing is lost uncounted");
        received += leg.received.0;
    }
    assert!(received <= packets, "nothing is counted twice");
    assert!(legs.legs.len() <= 2 * limit, "the table is bounded");
    for (address, handle) in &legs.by_address {
        assert_eq!(legs.legs[handle].address, Some(*address));
    }
    assert!(legs.by_token.values().all(|handle| legs.legs[handle].open));
    for room in legs.rooms.values() {
        assert!(room.legs.iter().all(|handle| legs.legs[handle].instance == room.instance));
        assert!(!room.over || room.legs.is_empty());
    }
}

proptest! {
    #[test]
    fn the_table_keeps_its_promises(acts in vec(any_act(), 0..80), limit in 1..8_usize) {
        let mut legs = Legs::new(relay(), limit);
        let mut strays = 0;
        for act in acts {
            match act {
                Act::Open { id, locus, instance } => {
                    let ask = asking(id.into(), locus.into(), instance);
                    if let Ok(leg) = legs.open(&ask, secrets(format!("{id}.{}", legs.next))) {
                        prop_assert_eq!(leg.id, ask.id);
                    }
                }
                Act::Bind { id, from } => {
                    let token = legs.by_id.get(&Uuid::from_u128(id.into())).map(|h| legs.legs[h].leg.token.clone());
                    if !bound(legs.bind(&token.unwrap_or_default(), device(from))) {
                        strays += 1;
                    }
                }
                Act::Packet { from, kind } => {
                    strays += 1;
                    let datagram = datagram(kind);
                    let media = datagram != Datagram::Malformed;
                    let expected = if media { expected(&legs, device(from)) } else { BTreeSet::new() };
                    let to = legs.packet(device(from), &datagram).to_vec();
                    prop_assert_eq!(to.len(), expected.len(), "one copy each");
                    prop_assert_eq!(to.into_iter().collect::<BTreeSet<_>>(), expected);
                }
                Act::Late { from } => {
                    strays += 1;
                    legs.late(device(from));
                }
                Act::CloseLeg { id } => legs.close_leg(Uuid::from_u128(id.into())),
                Act::CloseInstance { locus, instance } => {
                    legs.close_instance(Uuid::from_u128(locus.into()), Count(instance));
                    prop_assert!(legs.open_legs(Uuid::from_u128(locus.into()), Count(instance)).is_empty());
                }
            }
            check(&legs, strays, limit);
        }
    }
}
