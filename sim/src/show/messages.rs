//! What services say to each other, read from the packets of a run: the history has what clients saw alone.
//!
//! Each stream is read as HTTP/1.1 up to where it becomes something else, a WebSocket for example.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::capture::{Capture, Packet};

/// The longest head of a message that is read, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A request of one machine to another, or the answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// When it first left, virtual microseconds.
    pub at_us: u64,
    /// Who sent it.
    pub from: Arc<str>,
    /// To whom.
    pub to: Arc<str>,
    /// A request by its method and URL; an answer by its status and what it answers.
    pub text: String,
}

/// The requests and answers of a run, in the order in which they were sent.
#[must_use]
pub fn messages(capture: &Capture) -> Vec<Message> {
    let mut streams: BTreeMap<(u64, SocketAddr), Stream> = BTreeMap::new();
    let mut asked: BTreeMap<u64, VecDeque<String>> = BTreeMap::new();
    let mut found = Vec::new();
    // What is sent for the first time is sent in order.
    for packet in capture.packets().iter().filter(|packet| packet.tcp.is_some() && !packet.again) {
        let stream = streams.entry((packet.connection, packet.from.1)).or_default();
        stream.take(packet.at_us, &packet.bytes);
        while let Some((at_us, head)) = stream.next_head() {
            let asked = asked.entry(packet.connection).or_default();
            match said(&head, asked) {
                Some(text) => found.push(message(at_us, packet, text)),
                None => stream.reading = Reading::Nothing,
            }
            if head.becomes_something_else() {
                stream.reading = Reading::Nothing;
            }
        }
    }
    found.sort_by_key(|message| message.at_us);
    found
}

fn message(at_us: u64, packet: &Packet, text: String) -> Message {
    Message { at_us, from: packet.from.0.clone(), to: packet.to.0.clone(), text }
}

/// What a head says; nothing, when it is none.
fn said(head: &Head, asked: &mut VecDeque<String>) -> Option<String> {
    let mut words = head.first.split(' ');
    let (first, second) = (words.next()?, words.next()?);
    if first.starts_with("HTTP/") {
        let request = asked.pop_front().unwrap_or_default();
        return Some(format!("{second} to {request}"));
    }
    let host = head.value("host").unwrap_or_default();
    // What is asked for is in the path; the query says from where on.
    let path = second.split('?').next().unwrap_or(second);
    let request = format!("{first} https://{host}{path}");
    asked.push_back(request.clone());
    Some(request)
}

/// One direction of a connection.
#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    reading: Reading,
    /// When the first of the bytes was sent, and when the last.
    since_us: u64,
    latest_us: u64,
}

#[derive(Default)]
enum Reading {
    /// The head of a message.
    #[default]
    Head,
    /// So many bytes of a body.
    Body(usize),
    /// What it is now is not HTTP.
    Nothing,
}

struct Head {
    first: String,
    fields: Vec<(String, String)>,
}

impl Stream {
    fn take(&mut self, at_us: u64, bytes: &[u8]) {
        if matches!(self.reading, Reading::Nothing) || bytes.is_empty() {
            return;
        }
        if self.bytes.is_empty() {
            self.since_us = at_us;
        }
        self.latest_us = at_us;
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > HEAD_BYTES_MAX && matches!(self.reading, Reading::Head) {
            self.reading = Reading::Nothing;
        }
    }

    /// The next head that is complete, and when it was sent; its body is passed over.
    fn next_head(&mut self) -> Option<(u64, Head)> {
        if let Reading::Body(left) = self.reading {
            let passed = left.min(self.bytes.len());
            self.bytes.drain(..passed);
            self.reading = if left > passed { Reading::Body(left - passed) } else { Reading::Head };
        }
        if !matches!(self.reading, Reading::Head) {
            return None;
        }
        let end = self.bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let head = Head::parsed(&self.bytes[..end]);
        self.bytes.drain(..end);
        // What is left came with the packet that made the head whole.
        let since_us = std::mem::replace(&mut self.since_us, self.latest_us);
        let length = head.value("content-length").and_then(|length| length.parse().ok());
        self.reading = match length {
            Some(length) => Reading::Body(length),
            None if head.value("transfer-encoding").is_some() => Reading::Nothing,
            None => Reading::Head,
        };
        Some((since_us, head))
    }
}

impl Head {
    fn parsed(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let fields = lines.filter_map(|line| line.split_once(':'));
        let fields =
            fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Self { first, fields }
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn becomes_something_else(&self) -> bool {
        self.first.starts_with("HTTP/1.1 101") || self.value("upgrade").is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(pieces: &[&str]) -> Vec<String> {
        let mut stream = Stream::default();
        let mut found = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            stream.take(at as u64, piece.as_bytes());
            while let Some((at_us, head)) = stream.next_head() {
                found.push(format!("{at_us} {}", head.first));
            }
        }
        found
    }

    #[test]
    fn heads_are_found_wherever_packets_end_and_bodies_are_passed_over() {
        let first = "POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\nGET /no\r\n";
        let second = "GET /b HTTP/1.1\r\nHost: x\r\n\r\n";
        let whole = format!("{first}{second}");
        assert_eq!(heads(&[&whole]), ["0 POST /a HTTP/1.1", "0 GET /b HTTP/1.1"]);
        let (one, two) = whole.split_at(first.len() - 4);
        assert_eq!(heads(&[one, two]), ["0 POST /a HTTP/1.1", "1 GET /b HTTP/1.1"]);
        let (one, two) = whole.split_at(5);
        assert_eq!(heads(&[one, two]), ["0 POST /a HTTP/1.1", "1 GET /b HTTP/1.1"]);
    }

    #[test]
    fn what_has_no_length_and_what_is_too_long_is_read_no_further() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        assert_eq!(heads(&[chunked, "HTTP/1.1 204 No Content\r\n\r\n"]).len(), 1);
        let endless = "x".repeat(HEAD_BYTES_MAX + 1);
        assert!(heads(&[&endless, "\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"]).is_empty());
    }

    #[test]
    fn an_answer_names_what_it_answers() {
        let mut asked = VecDeque::new();
        let request = Head::parsed(b"GET /v1/x?after=3 HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert_eq!(said(&request, &mut asked).as_deref(), Some("GET https://a.example/v1/x"));
        let answer = Head::parsed(b"HTTP/1.1 404 Not Found\r\n\r\n");
        assert_eq!(said(&answer, &mut asked).as_deref(), Some("404 to GET https://a.example/v1/x"));
        assert_eq!(said(&Head::parsed(b"nonsense\r\n\r\n"), &mut asked), None);
    }
}
