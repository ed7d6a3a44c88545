//! The durable store of one machine: redb, with one writer that groups commits.
//!
//! - **Writing.** One thread owns all write transactions. It takes the commits that wait, judges each
//!   against the rows as the ones before it leave them, and makes the whole group durable at once. An
//!   answer is given only after that.
//! - **Reading** happens where it is asked for, on the last durable state and without waiting for the
//!   writer. A page in redb's cache costs microseconds; one that is not costs a read of the file, which
//!   holds up the asking thread. That is the price of not handing every read to another thread.
//! - **A disk that refuses** (full, I/O error) costs the group that met it and no other: the database
//!   is opened again from what is durable. While the disk goes on refusing, rows are still read and
//!   commits are refused; when it gives way, commits work again.
//!
//! Not here: simulated crashes (`SimDisk` does them underneath), replication, the meaning of rows.

mod rows;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use redb::backends::FileBackend;
use redb::{Database, StorageBackend};
use tokio::sync::{mpsc, oneshot, watch};

use self::writer::{Current, Order, Writer};
use super::file::Handle;
use super::{Batch, Key, Row, Store, StoreError};

/// Commits that may wait for the writer; further callers wait to hand theirs over.
const QUEUE_MAX: usize = 1024;

/// How often a read is tried on what the writer opened again.
const READ_ATTEMPTS: usize = 3;

/// A durable store in one file. Dropping it waits for the commits under way.
pub struct EmbeddedStore {
    current: watch::Receiver<Current>,
    orders: Option<mpsc::Sender<Order>>,
    writer: Option<JoinHandle<()>>,
}

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the store {path}: {reason}")]
pub struct OpenError {
    /// Which file.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl EmbeddedStore {
    /// Opens the store in the file at `path`, which is made when it is not there.
    ///
    /// After a crash the file is repaired, in time linear in its size. The file is locked: a second
    /// process that opens it gets an error.
    ///
    /// # Errors
    /// [`OpenError`] when the folder is missing, the file is no store, is damaged or is in use.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let explain = |reason: String| OpenError { path: path.display().to_string(), reason };
        if !path.exists() {
            create(path).map_err(|error| explain(error.to_string()))?;
        }
        let file = lock(path).map_err(|error| explain(error.to_string()))?;
        if file.len().is_ok_and(|len| len == 0) {
            return Err(explain("the file is empty; remove it to begin with an empty store".to_owned()));
        }
        Self::start(Arc::new(file)).map_err(explain)
    }

    /// Opens the store on a storage of the caller's: a [`SimDisk`](super::SimDisk), for example.
    ///
    /// # Errors
    /// [`OpenError`] when what is stored there is no store, or the storage refuses.
    pub fn open_on(storage: impl StorageBackend) -> Result<Self, OpenError> {
        Self::start(Arc::new(storage))
            .map_err(|reason| OpenError { path: "(given storage)".to_owned(), reason })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the writer's thread lives beside simulated time, not in it"
    )]
    fn start(file: Arc<dyn StorageBackend>) -> Result<Self, String> {
        let (publish, current) = watch::channel(Current::default());
        let (orders, queue) = mpsc::channel(QUEUE_MAX);
        let writer = Writer::open(file, publish)?;
        let thread = std::thread::Builder::new().name("store-writer".to_owned());
        let writer = thread.spawn(move || writer.run(queue)).map_err(|error| error.to_string())?;
        Ok(Self { current, orders: Some(orders), writer: Some(writer) })
    }

    /// `read` on the last durable state; tried again when the writer had to open the file anew.
    async fn read<T>(&self, read: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let mut current = self.current.clone();
        let mut reason = String::new();
        for _ in 0..READ_ATTEMPTS {
            let Current { generation, database } = current.borrow_and_update().clone();
            match database.map(|database| read(&database)) {
                Some(Ok(read)) => return Ok(read),
                Some(Err(error)) => reason = error.to_string(),
                None => "the file cannot be read".clone_into(&mut reason),
            }
            self.order(Order::Recover { failed: generation }).await?;
            current.wait_for(|now| now.generation > generation).await.map_err(|_| StoreError::Closed)?;
        }
        Err(StoreError::Refused(reason))
    }

    async fn order(&self, order: Order) -> Result<(), StoreError> {
        let orders = self.orders.as_ref().ok_or(StoreError::Closed)?;
        orders.send(order).await.map_err(|_| StoreError::Closed)
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Row>>, StoreError> {
        self.read(|database| rows::get(database, keys)).await
    }

    async fn scan(&self, from: &Key, until: &Key, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        if from >= until {
            return Ok(Vec::new());
        }
        self.read(|database| rows::scan(database, from, until, limit)).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.puts.iter().any(|(_, value)| value.len() > rows::VALUE_MAX) {
            return Err(StoreError::Refused(format!("a row is longer than {} bytes", rows::VALUE_MAX)));
        }
        let (answer, answered) = oneshot::channel();
        self.order(Order::Commit { batch, answer }).await?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to save.
            let _ = writer.join();
        }
    }
}

/// Makes an empty store under another name first, so that a crash leaves no half-made one.
fn create(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&unfinished)?;
    let (handle, _) = Handle::new(Arc::new(FileBackend::new(file)?));
    drop(rows::open(handle)?);
    std::fs::rename(&unfinished, path)?;
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all()?,
        None => File::open(".")?.sync_all()?,
    }
    Ok(())
}

fn lock(path: &Path) -> io::Result<FileBackend> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let file = FileBackend::new(file).map_err(io::Error::other)?;
    match file.try_lock_range(Bound::Unbounded, Bound::Unbounded) {
        Ok(false) => Err(io::Error::other("another process has it open")),
        // A file system without locks: the operator sees to it that nobody else opens the file.
        Ok(true) | Err(_) => Ok(file),
    }
}
