//! Idle connections of a client: bounded per authority and in total, closed when unused for long.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::Authority;
use super::exchange::Connection;

/// How many idle connections are kept to one authority.
const IDLE_PER_AUTHORITY_MAX: usize = 4;
/// How many idle connections are kept in all. The other end of one costs some 20 KiB.
const IDLE_MAX: usize = 256;
/// How long an unused connection is kept: less than the server waits (`HEADER_TIMEOUT`).
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Idle connections. The number of an entry goes up with the moment it became idle.
#[derive(Default)]
pub(super) struct Pool {
    next: u64,
    idle: BTreeMap<u64, Idle>,
    of: BTreeMap<Authority, Vec<u64>>,
}

struct Idle {
    authority: Authority,
    connection: Connection,
    since: Duration,
}

impl Pool {
    /// The connection to `authority` that was used last. Its peer may have closed it since: nobody waits at
    /// an idle connection, and whoever uses it finds out before anything is sent.
    pub(super) fn take(&mut self, authority: &Authority, now: Duration) -> Option<Connection> {
        self.expire(now);
        let number = *self.of.get(authority)?.last()?;
        self.remove(number)
    }

    /// Keeps `connection` for the next request to `authority`.
    pub(super) fn put(&mut self, authority: Authority, connection: Connection, now: Duration) {
        self.expire(now);
        if self.of.get(&authority).is_some_and(|numbers| numbers.len() >= IDLE_PER_AUTHORITY_MAX) {
            return;
        }
        if self.idle.len() >= IDLE_MAX {
            self.remove_oldest();
        }
        let number = self.next;
        self.next += 1;
        self.of.entry(authority.clone()).or_default().push(number);
        self.idle.insert(number, Idle { authority, connection, since: now });
    }

    fn expire(&mut self, now: Duration) {
        while let Some((_, oldest)) = self.idle.first_key_value() {
            if oldest.since + IDLE_TIMEOUT > now {
                return;
            }
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some((&number, _)) = self.idle.first_key_value() {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Connection> {
        let idle = self.idle.remove(&number)?;
        if let Some(numbers) = self.of.get_mut(&idle.authority) {
            numbers.retain(|&other| other != number);
            if numbers.is_empty() {
                self.of.remove(&idle.authority);
            }
        }
        Some(idle.connection)
    }
}
