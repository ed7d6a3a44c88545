//! The packets of a run as a capture file, for Wireshark and its like.
//!
//! Every packet stands as it left its sender, at virtual time, on an interface of the sender's name: also one
//! that was lost, whose comment says why and which faults were on. What the simulated network leaves open is
//! made up so that analysers follow: Ethernet addresses, initial sequence numbers, and the last step of a
//! handshake. Streams are in plain here where TLS is elsewhere, so that port 443 is written as 80 and media as
//! 5004, by which analysers know what they see.
//!
//! The form is that of draft-ietf-opsawg-pcapng. `block` writes its blocks, `packet` what is in them.

mod block;
mod packet;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::IpAddr;

use fusion_history::{EventId, History};
use serde::Serialize;

use super::pick::{Edge, Pick, Unshown};
use super::{Band, Lanes, bands};
use crate::capture::{Capture, Packet};
use crate::fabric::{Fate, WorldOptions};
use block::Blocks;

/// The longest comment of a packet, characters.
const COMMENT_CHARS_MAX: usize = 400;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Packets.
    pub packets: u64,
    /// Those of them that were lost.
    pub lost: u64,
    /// Machines that sent some.
    pub hosts: usize,
    /// Packets that were sent when no more was kept.
    pub beyond: u64,
}

/// The packets of a run that are asked for.
pub struct Selection<'c> {
    history: &'c History,
    packets: Vec<&'c Packet>,
    beyond: u64,
}

impl<'c> Selection<'c> {
    /// What `pick` asks for of a capture: a time, and hosts as senders or receivers. The history is that of
    /// the same run.
    ///
    /// # Errors
    /// When something else than hosts is asked for.
    pub fn of(capture: &'c Capture, history: &'c History, pick: &Pick) -> Result<Self, Unshown> {
        let lanes = Lanes::of(history);
        let time = |edge: Edge| match edge {
            Edge::Time(at_us) => at_us,
            Edge::Event(id) => history.event(EventId(id)).map_or(u64::MAX, |event| event.at_us),
        };
        let (from_us, until_us) = (pick.from.map_or(0, time), pick.until.map_or(u64::MAX, time));
        let mut hosts: BTreeSet<&str> = BTreeSet::new();
        for word in &pick.about {
            let named: Vec<&str> = lanes.named(word).map(|(_, lane)| lane.host.as_str()).collect();
            if named.is_empty() {
                return Err(Unshown::NoHost { word: word.clone() });
            }
            hosts.extend(named);
        }
        let is_named = |host: &str| hosts.is_empty() || hosts.contains(host);
        let is_asked_for = |packet: &&Packet| {
            (from_us..=until_us).contains(&packet.at_us)
                && (is_named(&packet.from.0) || is_named(&packet.to.0))
        };
        let packets = capture.packets().iter().filter(is_asked_for).collect();
        Ok(Self { history, packets, beyond: capture.beyond() })
    }

    /// Writes a capture file.
    ///
    /// # Errors
    /// What the writer fails with.
    pub fn write(&self, to: impl Write, title: &str) -> io::Result<Written> {
        let lanes = Lanes::of(self.history);
        let bands = bands(self.history, lanes.all());
        let epoch_us = WorldOptions::default().epoch_us;
        let mut blocks = Blocks::begin(to, title)?;
        let mut interfaces: BTreeMap<&str, u32> = BTreeMap::new();
        let mut names: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for packet in &self.packets {
            for (host, address) in [&packet.from, &packet.to] {
                names.insert(address.ip(), host);
            }
            let next = interfaces.len() as u32;
            if let Entry::Vacant(free) = interfaces.entry(&packet.from.0) {
                free.insert(next);
                blocks.interface(&packet.from.0)?;
            }
        }
        blocks.names(&names)?;
        let mut written = Written { hosts: interfaces.len(), beyond: self.beyond, ..Written::default() };
        let comments = Comments { lanes: &lanes, bands: &bands };
        for packet in &self.packets {
            let interface = interfaces.get(&*packet.from.0).copied().unwrap_or_default();
            let comment = comments.of(packet);
            blocks.packet(
                interface,
                epoch_us + packet.at_us,
                &packet::ethernet(packet),
                comment.as_deref(),
            )?;
            written.packets += 1;
            written.lost += u64::from(packet.lost().is_some());
        }
        Ok(written)
    }
}

/// What is said of a packet besides what is in it.
struct Comments<'c> {
    lanes: &'c Lanes<'c>,
    bands: &'c [Band],
}

impl Comments<'_> {
    /// Nothing, for a packet with which all is well.
    fn of(&self, packet: &Packet) -> Option<String> {
        let mut said = Vec::new();
        if packet.again {
            said.push("sent again".to_owned());
        }
        match packet.fate {
            Fate::Lost(reason) => {
                let word = serde_json::to_value(reason).unwrap_or_default();
                let word = word.as_str().unwrap_or_default();
                said.push(format!("lost: {}", word.replace('_', " ")));
                let faults = self.faults(packet, word);
                if !faults.is_empty() {
                    said.push(format!("faults then and there: {}", faults.join(", ")));
                }
            }
            Fate::Arrives { twice, corrupted, .. } => {
                said.extend(twice.then(|| "arrives twice".to_owned()));
                said.extend(corrupted.then(|| "arrives with flipped bits".to_owned()));
            }
        }
        (!said.is_empty()).then(|| said.join("; ").chars().take(COMMENT_CHARS_MAX).collect())
    }

    /// The faults that are about one of its ends while it is sent: those of the family that it was lost by,
    /// where there are such.
    fn faults(&self, packet: &Packet, by: &str) -> Vec<String> {
        let ends = [self.lanes.at(&packet.from.0), self.lanes.at(&packet.to.0)];
        let is_here = |band: &&Band| {
            (band.from..=band.to).contains(&packet.at_us)
                && ends.iter().flatten().any(|lane| band.lanes.contains(lane))
        };
        let here: Vec<&Band> = self.bands.iter().filter(is_here).collect();
        let is_of_family = |band: &Band| band.name.starts_with(by);
        let of_family = here.iter().any(|band| is_of_family(band));
        let named = here.iter().filter(|band| !of_family || is_of_family(band));
        named.map(|band| format!("{} {}", band.events.0, band.name)).collect()
    }
}
