//! The writer: groups commits, and opens the file again after the disk has refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::{Database, Error, ReadableTable as _, StorageBackend, Table};
use tokio::sync::{mpsc, oneshot, watch};

use super::super::file::{Cut, Handle, Overlay};
use super::super::{Batch, Expect, StoreError};
use super::rows::{self, ROWS, VERSION};

/// Commits that become durable together: bounds how long the first of them waits.
const GROUP_MAX: usize = 512;
/// Bytes of values that become durable together.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// While several commits come at a time, more are waited for this long,
const NAP: Duration = Duration::from_micros(150);
/// and again as long as some have come, at most so often. To make a group durable costs as much as to make
/// one commit durable.
const NAPS_MAX: usize = 6;
/// After the disk has refused, it is left alone for this long at least.
const REST_MIN: Duration = Duration::from_millis(50);
/// And for this many times what opening the file again took, so that a full disk costs little.
const REST_FACTOR: u32 = 10;

/// What is asked of the writer.
pub(super) enum Order {
    Commit {
        batch: Batch,
        answer: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Reading failed on this generation: open the file again.
    Recover {
        failed: u64,
    },
}

/// The database to read from; none when the file cannot even be read.
#[derive(Clone, Default)]
pub(super) struct Current {
    /// Goes up whenever the file is opened again.
    pub(super) generation: u64,
    pub(super) database: Option<Arc<Database>>,
}

pub(super) struct Writer {
    file: Arc<dyn StorageBackend>,
    publish: watch::Sender<Current>,
    state: State,
    /// Takes the file from the database that has it now.
    cut: Cut,
    resting_until: Option<Instant>,
}

enum State {
    Writable(Arc<Database>),
    /// Reads go on; the disk refused to write, with this reason.
    Refused(String),
}

type Waiting = (Batch, oneshot::Sender<Result<(), StoreError>>);

/// Commits that will be durable together.
#[derive(Default)]
struct Group {
    members: Vec<Waiting>,
    bytes: usize,
}

/// What became of a group's members once the group is durable, and the version it ends with.
struct Judged {
    answers: Vec<Result<(), StoreError>>,
    version: u64,
}

impl Group {
    fn has_room(&self) -> bool {
        self.members.len() < GROUP_MAX && self.bytes < GROUP_BYTES_MAX
    }
}

impl Writer {
    pub(super) fn open(
        file: Arc<dyn StorageBackend>,
        publish: watch::Sender<Current>,
    ) -> Result<Self, String> {
        let (handle, cut) = Handle::new(file.clone());
        let database = Arc::new(rows::open(handle).map_err(|error| error.to_string())?);
        publish.send_modify(|current| current.database = Some(database.clone()));
        Ok(Self { file, publish, state: State::Writable(database), cut, resting_until: None })
    }

    /// Serves until every sender is gone.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Order>) {
        let mut crowded = false;
        while let Some(order) = queue.blocking_recv() {
            let mut group = Group::default();
            self.take(order, &mut group);
            self.take_waiting(&mut queue, &mut group);
            for _ in 0..NAPS_MAX {
                let before = group.members.len();
                if !group.has_room() || !(crowded || before > 1) {
                    break;
                }
                nap();
                self.take_waiting(&mut queue, &mut group);
                if group.members.len() == before {
                    break;
                }
            }
            crowded = group.members.len() > 1;
            if !group.members.is_empty() {
                self.write(group.members);
            }
        }
    }

    fn take_waiting(&mut self, queue: &mut mpsc::Receiver<Order>, group: &mut Group) {
        while group.has_room()
            && let Ok(order) = queue.try_recv()
        {
            self.take(order, group);
        }
    }

    fn take(&mut self, order: Order, group: &mut Group) {
        match order {
            Order::Commit { batch, answer } => {
                group.bytes += batch.puts.iter().map(|(_, value)| value.len()).sum::<usize>();
                group.members.push((batch, answer));
            }
            Order::Recover { failed } => self.recover_from(failed),
        }
    }

    fn write(&mut self, group: Vec<Waiting>) {
        if let Err(reason) = self.ready() {
            return answer(group, |_| Err(StoreError::Refused(reason.clone())));
        }
        let State::Writable(database) = &self.state else { return };
        let mut judged = Judged { answers: Vec::new(), version: 0 };
        match apply(database, &group, &mut judged) {
            Ok(()) => answer(group, |member| judged.answers[member].clone()),
            Err(error) => self.after_failure(group, &judged, &error.to_string()),
        }
    }

    /// A group met a disk that refuses. What the file says after having been opened again decides
    /// what its members are told.
    fn after_failure(&mut self, group: Vec<Waiting>, judged: &Judged, reason: &str) {
        self.reopen(reason);
        let current = self.publish.borrow().database.clone();
        let found = current.and_then(|database| rows::version(&database).ok()?);
        let written = judged.answers.len() == group.len() && found == Some(judged.version);
        answer(group, |member| match (written, found, &self.state) {
            // The failure came after the last needed write, and opening the file has synced it.
            (true, _, State::Writable(_)) => judged.answers[member].clone(),
            (true, _, State::Refused(_)) | (false, None, _) => Err(StoreError::Closed),
            (false, Some(_), _) => Err(StoreError::Refused(reason.to_owned())),
        });
    }

    /// Makes the database writable if the disk lets it, or says why not.
    fn ready(&mut self) -> Result<(), String> {
        if self.resting_until.is_some_and(|until| now() < until) {
            return Err("the disk has just refused to write".to_owned());
        }
        if let State::Refused(reason) = &self.state {
            let reason = reason.clone();
            self.reopen(&reason);
        }
        match &self.state {
            State::Writable(_) => Ok(()),
            State::Refused(reason) => Err(reason.clone()),
        }
    }

    fn recover_from(&mut self, failed: u64) {
        if self.publish.borrow().generation == failed {
            self.publish.send_modify(|current| current.database = None);
            self.reopen("the disk does not answer");
        }
    }

    /// Opens the file again: for writing if that can be, else for reading only.
    fn reopen(&mut self, reason: &str) {
        let began = now();
        let was_writable = matches!(self.state, State::Writable(_));
        if was_writable {
            self.cut.cut();
        }
        let (handle, cut) = Handle::new(self.file.clone());
        match rows::open(handle) {
            Ok(database) => {
                self.cut.cut();
                self.cut = cut;
                let database = Arc::new(database);
                self.state = State::Writable(database.clone());
                self.publish(Some(database));
            }
            Err(_) => {
                cut.cut();
                self.state = State::Refused(reason.to_owned());
                // What is read from already stays good: nothing has been written since.
                if was_writable || self.publish.borrow().database.is_none() {
                    self.read_only();
                } else {
                    let same = self.publish.borrow().database.clone();
                    self.publish(same);
                }
            }
        }
        self.resting_until = Some(began + (began.elapsed() * REST_FACTOR).max(REST_MIN));
    }

    fn read_only(&mut self) {
        let (handle, cut) = Handle::new(self.file.clone());
        self.cut = cut;
        let database = Overlay::over(Arc::new(handle)).map_err(Error::from).and_then(rows::open);
        self.publish(database.ok().map(Arc::new));
    }

    fn publish(&self, database: Option<Arc<Database>>) {
        self.publish.send_modify(|current| {
            current.generation += 1;
            current.database = database;
        });
    }
}

/// Judges the group's members in order, writes those that hold, and makes them durable.
fn apply(database: &Database, group: &[Waiting], judged: &mut Judged) -> Result<(), Error> {
    let transaction = database.begin_write()?;
    {
        let mut rows = transaction.open_table(ROWS)?;
        let mut version_row = transaction.open_table(VERSION)?;
        let before = version_row.get(())?.map_or(0, |version| version.value());
        judged.version = before;
        for (batch, _) in group {
            let holds = holds(&rows, batch)?;
            if holds {
                judged.version += 1;
                write(&mut rows, batch, judged.version)?;
            }
            judged.answers.push(if holds { Ok(()) } else { Err(StoreError::Conflict) });
        }
        if judged.version == before {
            return Ok(());
        }
        version_row.insert((), judged.version)?;
    }
    Ok(transaction.commit()?)
}

fn holds(rows: &Table<'_, &'static [u8], &'static [u8]>, batch: &Batch) -> Result<bool, Error> {
    for (key, expect) in &batch.expects {
        let row = rows.get(key.as_bytes())?.map(|stored| rows::decode(stored.value())).transpose()?;
        let as_expected = match expect {
            Expect::Absent => row.is_none(),
            Expect::Version(version) => row.is_some_and(|row| row.version == *version),
        };
        if !as_expected {
            return Ok(false);
        }
    }
    Ok(true)
}

fn write(
    rows: &mut Table<'_, &'static [u8], &'static [u8]>,
    batch: &Batch,
    version: u64,
) -> Result<(), Error> {
    for key in &batch.deletes {
        rows.remove(key.as_bytes())?;
    }
    for (key, value) in &batch.puts {
        rows.insert(key.as_bytes(), rows::encode(version, value).as_slice())?;
    }
    Ok(())
}

fn answer(group: Vec<Waiting>, answers: impl Fn(usize) -> Result<(), StoreError>) {
    for (member, (_, answer)) in group.into_iter().enumerate() {
        // Who no longer waits does not want to know.
        let _ = answer.send(answers(member));
    }
}

#[expect(clippy::disallowed_methods, reason = "this thread lives beside simulated time, not in it")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this thread lives beside simulated time, not in it")]
fn nap() {
    std::thread::sleep(NAP);
}
