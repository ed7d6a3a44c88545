//! The blocks of a capture file.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const NAME_RESOLUTION: u32 = 4;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER_MAGIC: u32 = 0x1A2B_3C4D;
const LINK_TYPE_ETHERNET: u16 = 1;
const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const OPTION_APPLICATION: u16 = 4;
const OPTION_INTERFACE_NAME: u16 = 2;
const OPTION_TIME_RESOLUTION: u16 = 9;
const OPTION_PACKET_FLAGS: u16 = 2;
/// Timestamps count 10^-6 seconds.
const MICROSECONDS: u8 = 6;
/// The packet leaves the interface.
const OUTBOUND: u32 = 2;
const RECORD_END: u16 = 0;
const RECORD_IPV4: u16 = 1;
const RECORD_IPV6: u16 = 2;

/// Writes blocks, in the byte order of this machine's wire format: little-endian.
pub(super) struct Blocks<W> {
    to: W,
}

impl<W: Write> Blocks<W> {
    /// Begins the section.
    pub(super) fn begin(to: W, comment: &str) -> io::Result<Self> {
        let mut blocks = Self { to };
        let mut body = Vec::new();
        body.extend(BYTE_ORDER_MAGIC.to_le_bytes());
        // Version 1.0; how long the section is, is not said.
        body.extend([1, 0, 0, 0]);
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, OPTION_COMMENT, comment.as_bytes());
        option(&mut body, OPTION_APPLICATION, b"Stack Fusion simulator");
        option(&mut body, OPTION_END, &[]);
        blocks.block(SECTION_HEADER, &body)?;
        Ok(blocks)
    }

    /// Describes the next interface; the first has number 0.
    pub(super) fn interface(&mut self, name: &str) -> io::Result<()> {
        let mut body = Vec::new();
        body.extend(LINK_TYPE_ETHERNET.to_le_bytes());
        body.extend([0; 2]);
        // No packet is cut.
        body.extend(0u32.to_le_bytes());
        option(&mut body, OPTION_INTERFACE_NAME, name.as_bytes());
        option(&mut body, OPTION_TIME_RESOLUTION, &[MICROSECONDS]);
        option(&mut body, OPTION_END, &[]);
        self.block(INTERFACE_DESCRIPTION, &body)
    }

    /// Says which machine has which address.
    pub(super) fn names(&mut self, names: &BTreeMap<IpAddr, &str>) -> io::Result<()> {
        let mut body = Vec::new();
        for (address, name) in names {
            let (kind, mut record) = match address {
                IpAddr::V4(address) => (RECORD_IPV4, address.octets().to_vec()),
                IpAddr::V6(address) => (RECORD_IPV6, address.octets().to_vec()),
            };
            record.extend(name.as_bytes());
            record.push(0);
            option(&mut body, kind, &record);
        }
        option(&mut body, RECORD_END, &[]);
        self.block(NAME_RESOLUTION, &body)
    }

    /// A packet that left an interface, at microseconds since the Unix epoch.
    pub(super) fn packet(
        &mut self,
        interface: u32,
        at_us: u64,
        bytes: &[u8],
        comment: Option<&str>,
    ) -> io::Result<()> {
        let mut body = Vec::with_capacity(bytes.len() + 64);
        body.extend(interface.to_le_bytes());
        body.extend(((at_us >> 32) as u32).to_le_bytes());
        body.extend((at_us as u32).to_le_bytes());
        body.extend((bytes.len() as u32).to_le_bytes());
        body.extend((bytes.len() as u32).to_le_bytes());
        body.extend(bytes);
        pad(&mut body);
        if let Some(comment) = comment {
            option(&mut body, OPTION_COMMENT, comment.as_bytes());
        }
        option(&mut body, OPTION_PACKET_FLAGS, &OUTBOUND.to_le_bytes());
        option(&mut body, OPTION_END, &[]);
        self.block(ENHANCED_PACKET, &body)
    }

    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        // Type and length before it, length once more after it.
        let length = (body.len() as u32 + 12).to_le_bytes();
        self.to.write_all(&kind.to_le_bytes())?;
        self.to.write_all(&length)?;
        self.to.write_all(body)?;
        self.to.write_all(&length)
    }
}

/// An option or a record: its kind, its length, its value on whole words.
fn option(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(kind.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}
