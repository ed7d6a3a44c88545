//! A packet as it would be on a wire: Ethernet, IP, and TCP or UDP, with right lengths and checksums.

use std::net::{IpAddr, SocketAddr};

use crate::capture::{Packet, Tcp};
use crate::fabric::TcpSign;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86DD;
const TCP: u8 = 6;
const UDP: u8 = 17;
const TTL: u8 = 64;
/// IPv4, and a header of five words.
const IPV4_VERSION: u8 = 0x45;
const DONT_FRAGMENT: u16 = 0x4000;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
/// Windows are told in units of 16 bytes (RFC 7323), for they go beyond 65,535.
const WINDOW_SHIFT: u8 = 4;
/// Largest segment 1,460; no operation; window scale.
const SYN_OPTIONS: [u8; 8] = [2, 4, 0x05, 0xB4, 1, 3, 3, WINDOW_SHIFT];
/// By how much the initial sequence numbers of two connections differ at least: one after the other may have
/// the same addresses.
const SEQUENCE_STEP: u32 = 0x0010_0001;

/// What is plain HTTP in the simulated network, and as what it is written.
const SECURED: u16 = 443;
const PLAIN: u16 = 80;
/// The port by which analysers know RTP (RFC 3551).
const MEDIA: u16 = 5004;

/// The packet, from its Ethernet header on.
pub(super) fn ethernet(packet: &Packet) -> Vec<u8> {
    let (from, to) = (as_written(packet, packet.from.1), as_written(packet, packet.to.1));
    let segment = match &packet.tcp {
        Some(tcp) => tcp_segment(packet, tcp, from, to),
        None => datagram(packet, from, to),
    };
    let protocol = if packet.tcp.is_some() { TCP } else { UDP };
    let mut bytes = Vec::with_capacity(segment.len() + 54);
    bytes.extend(hardware(to.ip()));
    bytes.extend(hardware(from.ip()));
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes.extend(ETHERTYPE_IPV4.to_be_bytes());
            let mut header = vec![IPV4_VERSION, 0];
            header.extend((segment.len() as u16 + 20).to_be_bytes());
            header.extend([0, 0]);
            header.extend(DONT_FRAGMENT.to_be_bytes());
            header.extend([TTL, protocol, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            bytes.extend(header);
        }
        (from, to) => {
            bytes.extend(ETHERTYPE_IPV6.to_be_bytes());
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend((segment.len() as u16).to_be_bytes());
            bytes.extend([protocol, TTL]);
            bytes.extend(sixteen(from));
            bytes.extend(sixteen(to));
        }
    }
    bytes.extend(segment);
    bytes
}

/// The address with the port that analysers know it by.
fn as_written(packet: &Packet, address: SocketAddr) -> SocketAddr {
    let port = match (address.port(), packet.tcp.is_some()) {
        (SECURED, true) => PLAIN,
        (SECURED, false) => MEDIA,
        (other, _) => other,
    };
    SocketAddr::new(address.ip(), port)
}

fn tcp_segment(packet: &Packet, tcp: &Tcp, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let client_asks = tcp.sign == TcpSign::Request;
    let (own, others) = (initial(packet, packet.from.1), initial(packet, packet.to.1));
    let opens = matches!(tcp.sign, TcpSign::Request | TcpSign::Consent);
    // The request and the consent take a place of their own before the first byte.
    let sequence = own.wrapping_add(if opens { 0 } else { 1 }).wrapping_add(tcp.at as u32);
    let acknowledged = others.wrapping_add(1).wrapping_add(tcp.received as u32);
    let mut flags = match tcp.sign {
        TcpSign::Request => SYN,
        TcpSign::Consent => SYN | ACK,
        TcpSign::Reset => RST | ACK,
        TcpSign::Goes => ACK,
    };
    flags |= if tcp.last { FIN } else { 0 };
    flags |= if packet.bytes.is_empty() { 0 } else { PSH };
    // Before both ends have heard of it, the window is told in bytes.
    let window = if opens { tcp.window } else { tcp.window >> WINDOW_SHIFT };
    let options: &[u8] = if opens { &SYN_OPTIONS } else { &[] };
    let words = (20 + options.len() as u8) / 4;

    let mut segment = Vec::with_capacity(28 + packet.bytes.len());
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend((if client_asks { 0 } else { acknowledged }).to_be_bytes());
    segment.extend([words << 4, flags]);
    segment.extend((window.min(u64::from(u16::MAX)) as u16).to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(options);
    segment.extend(&packet.bytes[..]);
    let sum = checksum(&[&pseudo(from.ip(), to.ip(), TCP, segment.len()), &segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

fn datagram(packet: &Packet, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(8 + packet.bytes.len());
    datagram.extend(from.port().to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend((packet.bytes.len() as u16 + 8).to_be_bytes());
    datagram.extend([0; 2]);
    datagram.extend(&packet.bytes[..]);
    let sum = checksum(&[&pseudo(from.ip(), to.ip(), UDP, datagram.len()), &datagram]);
    // Zero would mean that there is none (RFC 768).
    let sum = if sum == 0 { u16::MAX } else { sum };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

/// The initial sequence number of one end of a connection.
fn initial(packet: &Packet, end: SocketAddr) -> u32 {
    (packet.connection as u32).wrapping_mul(SEQUENCE_STEP).wrapping_add(u32::from(end.port()))
}

/// A locally administered address made of the IP address.
fn hardware(ip: IpAddr) -> [u8; 6] {
    let whole = sixteen(ip);
    [0x02, 0, whole[12], whole[13], whole[14], whole[15]]
}

fn sixteen(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// What checksums of TCP and UDP are made of besides the segment (RFC 9293, RFC 8200).
fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(40);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend(from.octets());
            header.extend(to.octets());
        }
        (from, to) => {
            header.extend(sixteen(from));
            header.extend(sixteen(to));
        }
    }
    header.extend((length as u32).to_be_bytes());
    header.extend([0, 0, 0, protocol]);
    header
}

/// The internet checksum (RFC 1071) of parts of which all but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_that_of_rfc_1071() {
        // Section 3 of the RFC: the sum is ddf2.
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
        assert_eq!(checksum(&[&[0x01]]), !0x0100);
        assert_eq!(checksum(&[&[0x00, 0x01], &[0xf2]]), checksum(&[&[0x00, 0x01, 0xf2]]));
    }
}
