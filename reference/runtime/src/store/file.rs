//! What a redb database of ours stands on: a file that can be taken away from it and given to the next.
//!
//! redb refuses everything, reads included, after its first I/O error. The embedded store then opens
//! the same file again, so the file must outlive the database: each database gets a [`Handle`].

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// One database's access to a file that it shares with the databases before and after it.
#[derive(Debug)]
pub(super) struct Handle {
    file: Arc<dyn StorageBackend>,
    cut: Arc<AtomicBool>,
}

/// Takes a [`Handle`]'s file away.
#[derive(Clone, Debug)]
pub(super) struct Cut(Arc<AtomicBool>);

impl Handle {
    pub(super) fn new(file: Arc<dyn StorageBackend>) -> (Self, Cut) {
        let cut = Arc::new(AtomicBool::new(false));
        (Self { file, cut: cut.clone() }, Cut(cut))
    }

    fn file(&self) -> io::Result<&dyn StorageBackend> {
        if self.cut.load(Ordering::Acquire) {
            return Err(io::Error::other("another database has taken over the file"));
        }
        Ok(&*self.file)
    }
}

impl Cut {
    /// From now on every operation of the handle fails.
    pub(super) fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        self.file()?.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file()?.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file()?.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file()?.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file()?.write(offset, data)
    }

    // No locks: the file is locked once for all its databases, by whoever opened it.
}

/// A file as it is, with changes that are only remembered: for reading on when the disk refuses writes.
#[derive(Debug)]
pub(super) struct Overlay {
    below: Arc<dyn StorageBackend>,
    /// Where `below` is no longer looked at.
    below_len: AtomicU64,
    changed: Mutex<Changed>,
}

#[derive(Debug)]
struct Changed {
    len: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

/// Changes are remembered in pieces of this size.
const PAGE: u64 = 4096;

impl Overlay {
    pub(super) fn over(below: Arc<dyn StorageBackend>) -> io::Result<Self> {
        let len = below.len()?;
        let changed = Mutex::new(Changed { len, pages: BTreeMap::new() });
        Ok(Self { below, below_len: AtomicU64::new(len), changed })
    }

    fn changed(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The page at `start` as it is below, zeros beyond its end.
    fn page_below(&self, start: u64) -> io::Result<Vec<u8>> {
        let mut page = vec![0; PAGE as usize];
        let there = self.below_len.load(Ordering::Relaxed).saturating_sub(start).min(PAGE) as usize;
        if there > 0 {
            self.below.read(start, &mut page[..there])?;
        }
        Ok(page)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changed().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changed = self.changed();
        for piece in pieces(offset, out.len()) {
            let page = match changed.pages.get(&piece.page) {
                Some(page) => page.clone(),
                None => self.page_below(piece.page)?,
            };
            out[piece.of_data].copy_from_slice(&page[piece.of_page]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut changed = self.changed();
        changed.len = len;
        changed.pages.retain(|&page, _| page < len);
        self.below_len.fetch_min(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changed = self.changed();
        for piece in pieces(offset, data.len()) {
            let mut page = match changed.pages.remove(&piece.page) {
                Some(page) => page,
                None => self.page_below(piece.page)?,
            };
            page[piece.of_page].copy_from_slice(&data[piece.of_data]);
            changed.pages.insert(piece.page, page);
        }
        Ok(())
    }
}

/// The part of a range of bytes that lies in one page.
struct Piece {
    page: u64,
    of_page: std::ops::Range<usize>,
    of_data: std::ops::Range<usize>,
}

fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let start = (at % PAGE) as usize;
        let size = (PAGE as usize - start).min(len - done);
        let piece = Piece { page: at - at % PAGE, of_page: start..start + size, of_data: done..done + size };
        done += size;
        Some(piece)
    })
}
