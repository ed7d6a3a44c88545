//! Who did what since a limit was passed.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// How every account begins, for whoever has only its text.
pub const SPINS: &str = "somebody spins";
/// How much simulated time an account covers at most, microseconds.
const LASTS_US_MAX: u64 = 1_000_000;
/// How many things are written down at most.
const NOTES_MAX: u64 = 200_000;
/// How many kinds of requests are told apart.
const KINDS_MAX: usize = 1_000;
/// How many hosts and kinds of requests are told of.
const TOLD: usize = 5;
/// The methods of requests, each before a space.
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
/// The longest path that is looked at, bytes.
const PATH_BYTES_MAX: usize = 512;

/// Who spins: an account of the work that was done just after a limit was passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Spin {
    /// Which limit was passed.
    pub limit: Overrun,
    /// When, virtual microseconds.
    pub at_us: u64,
    /// How much simulated time the account covers, microseconds; 0: time stood still.
    pub lasts_us: u64,
    /// The hosts that did most, the busiest first.
    pub hosts: Vec<(String, Load)>,
    /// The requests that were made most often, and how often.
    pub requests: Vec<(RequestKind, u64)>,
}

/// A limit that was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overrun {
    /// Tasks were polled this often while time stood still.
    PollsAtOnce {
        /// How often.
        polls: u64,
    },
    /// Tasks were polled this often in all.
    Polls {
        /// How often.
        polls: u64,
    },
    /// So many packets were sent.
    Packets {
        /// How many.
        packets: u64,
    },
    /// So much was observed, as whoever observes counts.
    Observations {
        /// How much.
        observations: u64,
    },
}

/// What a host did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Polls of its tasks.
    pub polls: u64,
    /// Packets that it sent.
    pub packets: u64,
    /// What was observed on it.
    pub observations: u64,
}

/// Requests of one kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RequestKind {
    /// Who asks.
    pub from: String,
    /// Who is asked.
    pub to: String,
    /// The method and the path, with `{}` for whatever names one thing of many.
    pub what: String,
}

/// An account in the making.
pub(super) struct Account {
    limit: Overrun,
    at_us: u64,
    full_at_us: Option<u64>,
    notes: u64,
    hosts: BTreeMap<String, Load>,
    requests: BTreeMap<RequestKind, u64>,
}

impl Account {
    pub(super) fn open(limit: Overrun, at_us: u64) -> Self {
        let (hosts, requests) = (BTreeMap::new(), BTreeMap::new());
        Self { limit, at_us, full_at_us: None, notes: 0, hosts, requests }
    }

    /// The page of a host.
    pub(super) fn host(&mut self, name: &str) -> &mut Load {
        self.notes += 1;
        self.hosts.entry(name.to_owned()).or_default()
    }

    /// Notes the request that begins with `bytes`, if one does.
    pub(super) fn carried(&mut self, from: &str, to: &str, bytes: &[u8]) {
        let Some(what) = request(bytes) else { return };
        let kind = RequestKind { from: from.to_owned(), to: to.to_owned(), what };
        if self.requests.len() < KINDS_MAX || self.requests.contains_key(&kind) {
            *self.requests.entry(kind).or_default() += 1;
        }
    }

    pub(super) fn is_full(&self, now_us: u64) -> bool {
        self.notes >= NOTES_MAX || now_us.saturating_sub(self.at_us) >= LASTS_US_MAX
    }

    pub(super) fn full_at(&mut self, now_us: u64) {
        self.full_at_us = Some(now_us);
    }

    pub(super) fn close(self, now_us: u64) -> Spin {
        let until_us = self.full_at_us.unwrap_or(now_us);
        let mut hosts: Vec<_> = self.hosts.into_iter().collect();
        hosts.sort_by_key(|(_, load)| std::cmp::Reverse(load.polls + load.packets + load.observations));
        hosts.truncate(TOLD);
        let mut requests: Vec<_> = self.requests.into_iter().collect();
        requests.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
        requests.truncate(TOLD);
        let lasts_us = until_us.saturating_sub(self.at_us);
        Spin { limit: self.limit, at_us: self.at_us, lasts_us, hosts, requests }
    }
}

impl fmt::Display for Spin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |us: u64| us as f64 / 1e6;
        write!(f, "{SPINS}: {} by {:.3} s", self.limit, seconds(self.at_us))?;
        let while_ = match self.lasts_us {
            0 => "while time stood still".to_owned(),
            us => format!("in the {:.3} s after that", seconds(us)),
        };
        for (host, load) in &self.hosts {
            let Load { polls, packets, observations } = load;
            write!(
                f,
                "\n  {host}: {polls} polls of tasks, {packets} packets, {observations} events {while_}"
            )?;
        }
        for (RequestKind { from, to, what }, times) in &self.requests {
            write!(f, "\n  {from} asks {to} {what} {times} times {while_}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PollsAtOnce { polls } => write!(f, "{polls} polls of tasks while time stood still"),
            Self::Polls { polls } => write!(f, "{polls} polls of tasks"),
            Self::Packets { packets } => write!(f, "{packets} packets"),
            Self::Observations { observations } => write!(f, "{observations} events"),
        }
    }
}

/// The method and the path template of the request that begins with these bytes.
fn request(bytes: &[u8]) -> Option<String> {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    let line = std::str::from_utf8(&line[..line.len().min(PATH_BYTES_MAX)]).ok()?;
    let mut words = line.split(' ');
    let method = words.next().filter(|word| METHODS.contains(word))?;
    let path = words.next().filter(|path| path.starts_with('/'))?;
    let path = path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> =
        path.split('/').map(|part| if names_one_of_many(part) { "{}" } else { part }).collect();
    Some(format!("{method} {}", parts.join("/")))
}

/// Whether a part of a path is an id, an address or a number rather than a word.
fn names_one_of_many(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let is_version = part.len() <= 3 && part.starts_with('v');
    !is_version && (digits > 0 || part.contains(['@', '%', ':']) || part.len() > 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_method_and_by_path_without_names() {
        for (bytes, kind) in [
            (
                "POST /v1/conversations/63cb3093-892e-4c63-98c1-8c5e026b6cc1/activities HTTP/1.1\r\nhost: a",
                "POST /v1/conversations/{}/activities",
            ),
            ("GET /v1/users/alice%40acme.example?x=1 HTTP/1.1\r\n", "GET /v1/users/{}"),
            ("GET / HTTP/1.1\r\n", "GET /"),
        ] {
            assert_eq!(request(bytes.as_bytes()).as_deref(), Some(kind));
        }
        for bytes in ["HTTP/1.1 200 OK\r\n", "GETX / HTTP/1.1", "", "{\"a\":1}", "POST", "\u{0}\u{ff}"] {
            assert_eq!(request(bytes.as_bytes()), None, "{bytes}");
        }
    }

    #[test]
    fn an_account_names_the_busiest_first() {
        let mut account = Account::open(Overrun::Packets { packets: 7 }, 2_000_000);
        account.host("a").packets += 3;
        account.host("b").packets += 9;
        (0..4).for_each(|_| account.carried("b", "a", b"POST /x HTTP/1.1\r\n"));
        account.carried("a", "b", b"GET /y HTTP/1.1\r\n");
        let told = account.close(3_000_000).to_string();
        let expected = "somebody spins: 7 packets by 2.000 s\n  \
            b: 0 polls of tasks, 9 packets, 0 events in the 1.000 s after that\n  \
            a: 0 polls of tasks, 3 packets, 0 events in the 1.000 s after that\n  \
            b asks a POST /x 4 times in the 1.000 s after that\n  \
            a asks b GET /y 1 times in the 1.000 s after that";
        assert_eq!(told, expected);
    }

    #[test]
    fn an_account_is_full_after_a_second_or_after_so_much_work() {
        let mut account = Account::open(Overrun::Polls { polls: 1 }, 0);
        assert!(!account.is_full(999_999) && account.is_full(1_000_000));
        (0..NOTES_MAX).for_each(|_| account.host("a").polls += 1);
        assert!(account.is_full(0));
    }
}
