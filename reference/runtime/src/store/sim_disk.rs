//! A disk in memory that forgets what was not synced, as a disk does when the power fails.
//!
//! Not here: when it crashes or refuses, and the judgement of what is left (tests and simulators).

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::Entropy;

/// A simulated disk under an [`EmbeddedStore`](super::EmbeddedStore). Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<Disk>>);

/// What the disk refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskFault {
    /// Nothing.
    #[default]
    None,
    /// To grow: it is full.
    Full,
    /// Every change.
    Writes,
    /// To sync: what was written can be read, and is lost in a crash.
    Syncs,
    /// Every change and every read.
    Everything,
}

/// What a crash did to the changes that were not synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Changes that are not there.
    pub lost: usize,
    /// Writes that are there in part.
    pub torn: usize,
}

#[derive(Debug, Default)]
struct Disk {
    /// What a read sees.
    seen: Vec<u8>,
    /// What a crash cannot take.
    durable: Vec<u8>,
    /// What was done since the last sync.
    unsynced: Vec<Change>,
    fault: DiskFault,
    /// The fault begins after this many further operations.
    fault_after: u64,
    unplugged: bool,
    /// The plug is pulled at this operation.
    unplug_at: Option<u64>,
    /// The plug is pulled when this many syncs have been done and the next is asked for.
    unplug_at_sync: Option<u64>,
    operations: u64,
    syncs: u64,
    damage: Damage,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Pulls the plug, and returns the disk as it is found afterwards: all that was synced, a random
    /// part of what was not, and at times one of those writes cut short. This one fails from now on.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let chance = Entropy::from_u64(seed).stream("crash");
        let mut disk = self.disk();
        disk.unplugged = true;
        let mut left = disk.durable.clone();
        let torn = chance.chance(0.5).then(|| chance.below(disk.unsynced.len() as u64) as usize);
        // From none to all of them, so that each extreme comes often enough.
        let survival = chance.below(4) as f64 / 3.0;
        let mut damage = Damage::default();
        for (index, change) in disk.unsynced.iter().enumerate() {
            if chance.chance(survival) {
                let torn = torn == Some(index) && matches!(change, Change::Write { .. });
                damage.torn += usize::from(torn);
                change.apply(&mut left, |len| if torn { chance.below(len as u64) as usize } else { len });
            } else {
                damage.lost += 1;
            }
        }
        let left = Self::holding(left);
        left.disk().damage = damage;
        left
    }

    /// What the crash that left this disk did.
    #[must_use]
    pub fn damage(&self) -> Damage {
        self.disk().damage
    }

    /// The plug is pulled by itself after `operations` further ones; [`SimDisk::crash`] then tells what
    /// is left.
    pub fn unplug_after(&self, operations: u64) {
        let mut disk = self.disk();
        disk.unplug_at = Some(disk.operations + operations);
    }

    /// The plug is pulled by itself at the next sync but `syncs`: everything is written, nothing is sure.
    pub fn unplug_at_sync(&self, syncs: u64) {
        let mut disk = self.disk();
        disk.unplug_at_sync = Some(disk.syncs + syncs);
    }

    /// Another disk with the same content, all of it synced.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self::holding(self.disk().seen.clone())
    }

    /// From now on, or after `operations` further ones, the disk refuses what `fault` says.
    pub fn refuse(&self, fault: DiskFault, operations: u64) {
        let mut disk = self.disk();
        disk.fault = fault;
        disk.fault_after = disk.operations + operations;
    }

    /// How many operations have been asked of it.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// How many times it has been synced.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// How many changes a crash could take now.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.disk().unsynced.len()
    }

    fn holding(bytes: Vec<u8>) -> Self {
        let disk = Disk { seen: bytes.clone(), durable: bytes, ..Disk::default() };
        Self(Arc::new(Mutex::new(disk)))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Operation {
    Read,
    Write { end: usize },
    Sync,
}

impl Disk {
    fn permit(&mut self, operation: &Operation) -> io::Result<()> {
        self.operations += 1;
        self.unplugged |= self.unplug_at.is_some_and(|at| self.operations > at);
        self.unplugged |= matches!(operation, Operation::Sync) && self.unplug_at_sync == Some(self.syncs);
        if self.unplugged {
            return Err(io::Error::other("the disk is gone"));
        }
        let fault = if self.operations > self.fault_after { self.fault } else { DiskFault::None };
        let refused = match (fault, operation) {
            (DiskFault::None, _) => None,
            (DiskFault::Full, Operation::Write { end }) if *end > self.seen.len() => Some("no space is left"),
            (DiskFault::Syncs | DiskFault::Writes, Operation::Sync) => Some("the disk does not sync"),
            (DiskFault::Writes, Operation::Write { .. }) => Some("the disk does not write"),
            (DiskFault::Everything, _) => Some("the disk does not answer"),
            _ => None,
        };
        refused.map_or(Ok(()), |reason| Err(io::Error::other(reason)))
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen, |len| len);
        self.unsynced.push(change);
    }
}

impl Change {
    /// Does it to `bytes`; of a write only as many bytes as `keep` says.
    fn apply(&self, bytes: &mut Vec<u8>, keep: impl Fn(usize) -> usize) {
        match self {
            Self::Length(len) => bytes.resize(*len, 0),
            Self::Write { offset, data } => {
                let data = &data[..keep(data.len())];
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
        }
    }
}

impl StorageBackend for SimDisk {
    fn len(&self) -> io::Result<u64> {
        let mut disk = self.disk();
        disk.permit(&Operation::Read)?;
        Ok(disk.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.permit(&Operation::Read)?;
        let range = offset as usize..offset as usize + out.len();
        let bytes = disk.seen.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.permit(&Operation::Write { end: len as usize })?;
        disk.change(Change::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.permit(&Operation::Sync)?;
        disk.syncs += 1;
        let Disk { durable, unsynced, .. } = &mut *disk;
        for change in unsynced.drain(..) {
            change.apply(durable, |len| len);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.permit(&Operation::Write { end: offset as usize + data.len() })?;
        disk.change(Change::Write { offset: offset as usize, data: data.to_vec() });
        Ok(())
    }
}
