//! The wire messages of media legs, and the datagrams that a relay looks into (MED).

#![expect(clippy::unwrap_used, reason = "what a test sets up is right")]

use std::net::SocketAddr;

use fusion_protocol::media::*;
use fusion_protocol::{Count, Uuid};
use insta::assert_json_snapshot;
use proptest::collection::vec;
use proptest::prelude::*;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn leg() -> Leg {
    Leg {
        id: id(1),
        udp_address: "[2001:db8::1]:4000".parse().unwrap(),
        token: "0123456789abcdef0123456789abcdef".to_owned(),
        ssrc: 4_000_000_000,
    }
}

#[test]
fn a_leg_and_how_it_is_asked_for() {
    let open = OpenLeg { id: id(1), locus: id(2), instance: Count(3) };
    assert_eq!(serde_json::from_str::<Leg>(&serde_json::to_string(&leg()).unwrap()).unwrap(), leg());
    assert_json_snapshot!(serde_json::json!([open, leg()]));
}

#[test]
fn the_accounts_of_a_relay() {
    let account = LegCounters {
        id: id(1),
        locus: id(2),
        instance: Count(3),
        open: true,
        received: Count(10),
        forwarded: Count(7),
        dropped_alone: Count(1),
        dropped_malformed: Count(2),
        dropped_closed: Count(0),
        dropped_late: Count(0),
        sent: Count(5),
    };
    let counters = Counters { legs: vec![account], unbound: Count(4) };
    let text = serde_json::to_string(&counters).unwrap();
    assert_eq!(serde_json::from_str::<Counters>(&text).unwrap(), counters);
    assert_json_snapshot!(counters);
}

/// RFC 5769, 2.2, shortened to the attributes that are read here: 192.0.2.1 port 32853 is a1 47 e1 12 a6 43.
#[test]
fn an_address_is_masked_as_in_the_rfcs_own_example() {
    let transaction = *b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae";
    let v4 = binding_response(transaction, "192.0.2.1:32853".parse().unwrap());
    assert_eq!(v4[24..], [0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
    let v6 = binding_response(transaction, "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap());
    let masked = b"\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9";
    assert_eq!(v6[24..28], [0x00, 0x02, 0xa1, 0x47]);
    assert_eq!(v6[28..], *masked);
}

#[test]
fn other_attributes_before_the_token_are_passed_over() {
    let plain = binding_request([7; 12], "token");
    let mut message = plain[..20].to_vec();
    message.extend([0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]);
    message.extend(&plain[20..]);
    message[3] += 8;
    assert_eq!(parse(&message), Datagram::Bind { transaction: [7; 12], token: "token" });
}

#[test]
fn a_binding_request_is_longer_than_its_answer_over_ipv4() {
    let request = binding_request([0; 12], &leg().token);
    let answer = binding_response([0; 12], "192.0.2.1:1".parse().unwrap());
    assert!(answer.len() <= request.len(), "MED-005: a relay amplifies nothing");
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u8; 16], u16)>().prop_map(SocketAddr::from),
    ]
}

/// What looks like STUN, with lengths that may lie.
fn nearly_stun() -> impl Strategy<Value = Vec<u8>> {
    let attribute = (prop_oneof![Just(6_u16), Just(0x20), any::<u16>()], 0..40_u16, vec(any::<u8>(), 0..40));
    (any::<bool>(), vec(attribute, 0..5), proptest::option::of(any::<u16>())).prop_map(
        |(request, attributes, lie)| {
            let mut body = Vec::new();
            for (kind, length, value) in attributes {
                body.extend(kind.to_be_bytes());
                body.extend(length.to_be_bytes());
                body.extend(value);
            }
            let mut message = vec![u8::from(!request), 1];
            message.extend(lie.unwrap_or(body.len() as u16).to_be_bytes());
            message.extend([0x21, 0x12, 0xa4, 0x42]);
            message.extend([5; 12]);
            message.extend(body);
            message
        },
    )
}

proptest! {
    #[test]
    fn no_bytes_break_the_parser(bytes in vec(any::<u8>(), 0..2_000)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn no_bytes_that_look_like_stun_break_the_parser(bytes in nearly_stun()) {
        let read = parse(&bytes);
        let media = matches!(read, Datagram::Rtp { .. } | Datagram::Rtcp);
        prop_assert!(!media);
    }

    #[test]
    fn a_cut_message_is_malformed(token in "[a-z0-9]{1,64}", transaction: [u8; 12], cut in 1..24_usize) {
        let request = binding_request(transaction, &token);
        prop_assert_eq!(parse(&request[..request.len() - cut]), Datagram::Malformed);
    }

    #[test]
    fn a_binding_request_is_read_as_written(token in "\\PC{0,64}", transaction: [u8; 12]) {
        let request = binding_request(transaction, &token);
        prop_assert_eq!(parse(&request), Datagram::Bind { transaction, token: &token });
    }

    #[test]
    fn a_binding_response_is_read_as_written(address in any_address(), transaction: [u8; 12]) {
        let response = binding_response(transaction, address);
        prop_assert_eq!(parse(&response), Datagram::Bound { transaction, address });
    }

    #[test]
    fn an_rtp_packet_is_read_as_written(
        ssrc: u32,
        sequence: u16,
        timestamp: u32,
        payload in vec(any::<u8>(), 0..1_400),
    ) {
        let packet = rtp(ssrc, sequence, timestamp, &payload);
        prop_assert_eq!(parse(&packet), Datagram::Rtp { ssrc, sequence });
    }

    #[test]
    fn rtcp_is_told_from_rtp(kind in 192..=223_u8, rest in vec(any::<u8>(), 6..100)) {
        let mut packet = vec![0x80, kind];
        packet.extend(rest);
        prop_assert_eq!(parse(&packet), Datagram::Rtcp);
    }
}
