//! How much work a world takes, and who does it when it takes more than it may.
//!
//! A run that livelocks or floods would never end, or end in a day. Its world counts what is done: polls of
//! tasks, those of one moment apart, and packets. When a limit is passed an account is opened: of up to a
//! second of simulated time from then on, or of so much work, it is written down who did what. Then the run
//! is ended, and the account says who spins.
//!
//! Counting draws nothing and wakes nobody: a run that stays within its limits is the same with others.

mod account;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fusion_runtime::Clock;
use futures_util::future::AbortHandle;
use serde::{Deserialize, Serialize};

use account::Account;
pub use account::{Load, Overrun, RequestKind, SPINS, Spin};

/// After how many polls it is looked whether time has passed: looking costs more than counting.
const LOOK_EVERY: u64 = 256;

/// How much may be done in a world. What is absent is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Polls of tasks while no simulated time passes; found out to within a few hundred.
    pub polls_at_once_max: Option<u64>,
    /// Polls of tasks in all.
    pub polls_max: Option<u64>,
    /// Packets sent in all: segments, those sent once more, datagrams.
    pub packets_max: Option<u64>,
}

/// What a world has done. Clones count together.
#[derive(Clone)]
pub struct Effort(Arc<Count>);

struct Count {
    clock: Clock,
    limits: Limits,
    polls: AtomicU64,
    packets: AtomicU64,
    /// The moment at which it was last looked at the clock, and how many polls there had been when it was
    /// first seen.
    moment_us: AtomicU64,
    polls_before: AtomicU64,
    account_open: AtomicBool,
    account: Mutex<Option<Account>>,
    halt: Mutex<Option<AbortHandle>>,
}

impl Effort {
    pub(super) fn new(clock: Clock, limits: Limits) -> Self {
        Self(Arc::new(Count {
            clock,
            limits,
            polls: AtomicU64::new(0),
            packets: AtomicU64::new(0),
            moment_us: AtomicU64::new(0),
            polls_before: AtomicU64::new(0),
            account_open: AtomicBool::new(false),
            account: Mutex::new(None),
            halt: Mutex::new(None),
        }))
    }

    /// How many polls of tasks there were.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.0.polls.load(Ordering::Relaxed)
    }

    /// How many packets were sent.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.0.packets.load(Ordering::Relaxed)
    }

    /// Notes that something was observed on `host`, by whoever observes.
    pub fn observed(&self, host: &str) {
        self.note(|account| account.host(host).observations += 1);
    }

    /// A limit that somebody else counts has been passed: an account is opened, and the run ends after it.
    /// The first limit counts.
    pub fn pass(&self, limit: Overrun) {
        let mut account = lock(&self.0.account);
        if account.is_none() {
            *account = Some(Account::open(limit, self.now_us()));
            self.0.account_open.store(true, Ordering::Relaxed);
        }
    }

    /// What ends the run.
    pub(super) fn arm(&self, halt: AbortHandle) {
        *lock(&self.0.halt) = Some(halt);
    }

    /// A task of `host` is polled.
    pub(super) fn polled(&self, host: &str) {
        let count = &self.0;
        let polls = count.polls.fetch_add(1, Ordering::Relaxed) + 1;
        if polls.is_multiple_of(LOOK_EVERY) {
            self.look(polls);
        }
        self.note(|account| account.host(host).polls += 1);
    }

    /// A packet leaves `host`.
    pub(super) fn sent(&self, host: &str) {
        let packets = self.0.packets.fetch_add(1, Ordering::Relaxed) + 1;
        if self.0.limits.packets_max.is_some_and(|max| packets > max) {
            self.pass(Overrun::Packets { packets });
        }
        self.note(|account| account.host(host).packets += 1);
    }

    /// Bytes of `from` reach `to`: perhaps the beginning of a request.
    pub(super) fn carried(&self, from: &str, to: &str, bytes: &[u8]) {
        self.note(|account| account.carried(from, to, bytes));
    }

    /// Who spins, if a limit was passed.
    pub(super) fn spin(&self) -> Option<Box<Spin>> {
        let account = lock(&self.0.account).take();
        account.map(|account| Box::new(account.close(self.now_us())))
    }

    fn look(&self, polls: u64) {
        let (count, now_us) = (&self.0, self.now_us());
        if count.moment_us.swap(now_us, Ordering::Relaxed) != now_us {
            count.polls_before.store(polls, Ordering::Relaxed);
        }
        let at_once = polls - count.polls_before.load(Ordering::Relaxed);
        if count.limits.polls_at_once_max.is_some_and(|max| at_once > max) {
            self.pass(Overrun::PollsAtOnce { polls: at_once });
        } else if count.limits.polls_max.is_some_and(|max| polls > max) {
            self.pass(Overrun::Polls { polls });
        }
    }

    /// Writes something down, if an account is open; ends the run when the account is full.
    fn note(&self, what: impl FnOnce(&mut Account)) {
        if !self.0.account_open.load(Ordering::Relaxed) {
            return;
        }
        let now_us = self.now_us();
        let mut open = lock(&self.0.account);
        let Some(account) = open.as_mut() else { return };
        what(account);
        if account.is_full(now_us) {
            self.0.account_open.store(false, Ordering::Relaxed);
            account.full_at(now_us);
            if let Some(halt) = lock(&self.0.halt).take() {
                halt.abort();
            }
        }
    }

    fn now_us(&self) -> u64 {
        self.0.clock.now().as_micros() as u64
    }
}

/// A poisoned lock only says that a task panicked; counts stay usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
