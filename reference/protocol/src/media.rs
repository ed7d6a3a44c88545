//! Media legs: how a locus gets one, and what a device sends (MED).
//!
//! | call | answer |
//! |---|---|
//! | `POST https://{c}-relay.{provider}/v1/legs` [`OpenLeg`] | 201 [`Leg`] (the relay's own cluster) |
//! | `DELETE https://{c}-relay.{provider}/v1/legs/{id}` | 204 |
//! | `DELETE https://{c}-relay.{provider}/v1/instances/{locus uuid}/{instance}` | 204 |
//! | `GET https://{c}-relay.{provider}/v1/counters` | [`Counters`] |
//! | `GET https://{c}-relay.{provider}/v1/life` | [`Life`]: whether it is there, and still the same (MED-004) |
//! | `GET https://{c}-relay.{provider}/v1/life?beats` | the same, and then a line feed each [`BEAT`] for [`BEATS`] times |
//!
//! A device binds its UDP address with a STUN binding request (RFC 8489) whose USERNAME is the leg's
//! token, and is answered with its XOR-MAPPED-ADDRESS; then it sends RTP or RTCP (RFC 3550).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Count, Uuid};

/// How often a relay that is listened to shows that it lives (MED-004).
pub const BEAT: Duration = Duration::from_millis(250);
/// After how many beats whoever listens asks anew: ten seconds, so that a relay that stops is not held up.
pub const BEATS: u32 = 40;
/// The longest datagram a relay takes.
pub const DATAGRAM_MAX: usize = 1_500;

/// Asks a relay for a leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenLeg {
    /// The leg's id, chosen by the locus: a repeated one is the same leg.
    pub id: Uuid,
    /// The locus, by the last part of its conversation's URL.
    pub locus: Uuid,
    /// The call.
    pub instance: Count,
}

/// A relay lives. It keeps nothing on disk: in another life it has none of the legs of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Life {
    /// New with every start.
    pub life: Uuid,
}

/// Where one device of one call sends its media.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leg {
    /// Its id.
    pub id: Uuid,
    /// The relay's UDP address.
    pub udp_address: SocketAddr,
    /// What the binding request must carry (MED-001).
    pub token: String,
    /// The SSRC that the device sends with.
    pub ssrc: u32,
}

/// What a relay has done with packets (MED-005): for each leg, received = forwarded + the drops.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// By leg, open and closed.
    pub legs: Vec<LegCounters>,
    /// Datagrams from addresses that no leg has bound.
    pub unbound: Count,
}

/// What a relay has done with the packets of one leg.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LegCounters {
    /// The leg.
    pub id: Uuid,
    /// The locus.
    pub locus: Uuid,
    /// The call.
    pub instance: Count,
    /// Whether the leg is open.
    pub open: bool,
    /// Packets that came from it.
    pub received: Count,
    /// Those that went on to at least one other leg.
    pub forwarded: Count,
    /// Those dropped because nobody else was bound.
    pub dropped_alone: Count,
    /// Those dropped because they were neither RTP nor RTCP.
    pub dropped_malformed: Count,
    /// Those dropped because the leg was closed.
    pub dropped_closed: Count,
    /// Those dropped because the relay stood still and found them too late.
    #[serde(default)]
    pub dropped_late: Count,
    /// Packets sent to it.
    pub sent: Count,
}

/// A datagram, as far as a relay looks into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// A binding request.
    Bind {
        /// The transaction to answer.
        transaction: [u8; 12],
        /// The leg's token.
        token: &'a str,
    },
    /// A binding response (what a device receives).
    Bound {
        /// The transaction that it answers.
        transaction: [u8; 12],
        /// The device's address as the relay saw it.
        address: SocketAddr,
    },
    /// An RTP packet.
    Rtp {
        /// Its source.
        ssrc: u32,
        /// Its place in the source's stream.
        sequence: u16,
    },
    /// An RTCP packet.
    Rtcp,
    /// Anything else.
    Malformed,
}

const STUN_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const STUN_REQUEST: [u8; 2] = [0x00, 0x01];
const STUN_RESPONSE: [u8; 2] = [0x01, 0x01];
const ATTRIBUTE_USERNAME: u16 = 0x0006;
const ATTRIBUTE_XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// Looks into a datagram (RFC 7983: the first two bits tell STUN from RTP).
#[must_use]
pub fn parse(bytes: &[u8]) -> Datagram<'_> {
    match bytes.first() {
        Some(first) if first >> 6 == 0 => parse_stun(bytes).unwrap_or(Datagram::Malformed),
        Some(first) if first >> 6 == 2 => parse_rtp(bytes).unwrap_or(Datagram::Malformed),
        _ => Datagram::Malformed,
    }
}

/// A binding request that carries a leg's token.
#[must_use]
pub fn binding_request(transaction: [u8; 12], token: &str) -> Vec<u8> {
    stun(STUN_REQUEST, transaction, ATTRIBUTE_USERNAME, token.as_bytes())
}

/// The answer to a binding request: where the sender was seen.
#[must_use]
pub fn binding_response(transaction: [u8; 12], address: SocketAddr) -> Vec<u8> {
    let mut value = vec![0, if address.is_ipv4() { 1 } else { 2 }];
    value.extend(address.port().to_be_bytes().iter().zip(STUN_COOKIE).map(|(a, b)| a ^ b));
    let mask = STUN_COOKIE.into_iter().chain(transaction);
    match address.ip() {
        IpAddr::V4(ip) => value.extend(ip.octets().iter().zip(mask).map(|(a, b)| a ^ b)),
        IpAddr::V6(ip) => value.extend(ip.octets().iter().zip(mask).map(|(a, b)| a ^ b)),
    }
    stun(STUN_RESPONSE, transaction, ATTRIBUTE_XOR_MAPPED_ADDRESS, &value)
}

/// An RTP packet with payload type 0 and no extensions.
#[must_use]
pub fn rtp(ssrc: u32, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(12 + payload.len());
    packet.extend([0x80, 0]);
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

fn stun(kind: [u8; 2], transaction: [u8; 12], attribute: u16, value: &[u8]) -> Vec<u8> {
    let padded = value.len().next_multiple_of(4);
    let mut message = Vec::with_capacity(24 + padded);
    message.extend(kind);
    message.extend(((padded + 4) as u16).to_be_bytes());
    message.extend(STUN_COOKIE);
    message.extend(transaction);
    message.extend(attribute.to_be_bytes());
    message.extend((value.len() as u16).to_be_bytes());
    message.extend(value);
    message.resize(24 + padded, 0);
    message
}

fn parse_stun(bytes: &[u8]) -> Option<Datagram<'_>> {
    let (header, mut rest) = bytes.split_at_checked(20)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[4..8] != STUN_COOKIE || length != rest.len() {
        return None;
    }
    let transaction: [u8; 12] = header[8..20].try_into().ok()?;
    while let Some((head, after)) = rest.split_at_checked(4) {
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = after.get(..length)?;
        match (kind, [header[0], header[1]]) {
            (ATTRIBUTE_USERNAME, STUN_REQUEST) => {
                return Some(Datagram::Bind { transaction, token: std::str::from_utf8(value).ok()? });
            }
            (ATTRIBUTE_XOR_MAPPED_ADDRESS, STUN_RESPONSE) => {
                return Some(Datagram::Bound { transaction, address: unmask(value, transaction)? });
            }
            _ => rest = after.get(length.next_multiple_of(4)..)?,
        }
    }
    None
}

fn unmask(value: &[u8], transaction: [u8; 12]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([value.get(2)? ^ STUN_COOKIE[0], value.get(3)? ^ STUN_COOKIE[1]]);
    let octets: Vec<u8> =
        value.get(4..)?.iter().zip(STUN_COOKIE.into_iter().chain(transaction)).map(|(a, b)| a ^ b).collect();
    let ip = match value.get(1)? {
        1 => IpAddr::from(<[u8; 4]>::try_from(octets).ok()?),
        2 => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// RTCP shares RTP's port (RFC 5761): packet types 192 to 223 are RTCP.
fn parse_rtp(bytes: &[u8]) -> Option<Datagram<'_>> {
    if (192..=223).contains(bytes.get(1)?) {
        return (bytes.len() >= 8).then_some(Datagram::Rtcp);
    }
    let header: &[u8; 12] = bytes.first_chunk()?;
    Some(Datagram::Rtp {
        sequence: u16::from_be_bytes([header[2], header[3]]),
        ssrc: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
    })
}
