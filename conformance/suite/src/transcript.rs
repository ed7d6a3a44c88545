//! What was said, for the report of a failure: requests and answers, without secrets, bounded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fusion_protocol::Url;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How many exchanges are kept: the last ones.
pub const EXCHANGES_MAX: usize = 200;
/// How much of a body is kept, in bytes.
pub const BODY_SHOWN_MAX: usize = 4_096;

/// Members and parameters whose values are secret.
const SECRET: [&str; 5] = ["token", "access_token", "assertion", "subject_token", "refresh_token"];

/// The exchanges of one check. Clones are the same transcript.
#[derive(Clone, Debug, Default)]
pub struct Transcript(Arc<Mutex<VecDeque<Exchange>>>);

/// One request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exchange {
    /// When it was sent, in microseconds since the run began.
    pub at_us: u64,
    /// Which client sent it.
    pub client: String,
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// The request's body, without secrets.
    pub request: String,
    /// The status, or why there is none.
    pub answer: String,
    /// The answer's body, without secrets.
    pub response: String,
    /// How long it took, in microseconds.
    pub took_us: u64,
}

impl Transcript {
    /// The exchanges, in the order in which they ended.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(crate) fn add(&self, exchange: Exchange) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == EXCHANGES_MAX {
            kept.pop_front();
        }
        kept.push_back(exchange);
    }
}

impl Exchange {
    pub(crate) fn new(at: Duration, client: &str, method: &Method, url: &Url, body: &Bytes) -> Self {
        Self {
            at_us: at.as_micros() as u64,
            client: client.to_owned(),
            method: method.to_string(),
            url: url.to_string(),
            request: shown(body),
            answer: String::new(),
            response: String::new(),
            took_us: 0,
        }
    }

    pub(crate) fn answered(mut self, answer: String, body: &Bytes, took: Duration) -> Self {
        self.answer = answer;
        self.response = shown(body);
        self.took_us = took.as_micros() as u64;
        self
    }
}

/// A body as a report may show it: secrets taken out, cut to [`BODY_SHOWN_MAX`].
#[must_use]
pub fn shown(body: &[u8]) -> String {
    let mut text = match serde_json::from_slice::<Value>(body) {
        Ok(mut value) => {
            hide_members(&mut value);
            value.to_string()
        }
        Err(_) => hide_parameters(&String::from_utf8_lossy(body)),
    };
    if text.len() > BODY_SHOWN_MAX {
        let end = (0..=BODY_SHOWN_MAX).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" ... (cut)");
    }
    text
}

fn hide_members(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members.iter_mut() {
                match SECRET.contains(&name.as_str()) {
                    true => *value = Value::from("<hidden>"),
                    false => hide_members(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide_members),
        _ => {}
    }
}

fn hide_parameters(text: &str) -> String {
    let hidden = text.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if SECRET.contains(&name) => format!("{name}=<hidden>"),
        _ => pair.to_owned(),
    });
    hidden.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown_of_json_or_of_a_form() {
        let json = shown(br#"{"a":[{"token":"s3cret"}],"access_token":"s3cret","text":"hi"}"#);
        assert_eq!(json, r#"{"a":[{"token":"<hidden>"}],"access_token":"<hidden>","text":"hi"}"#);
        let form = shown(b"grant_type=x&assertion=s3cret&subject_token=s3cret");
        assert_eq!(form, "grant_type=x&assertion=<hidden>&subject_token=<hidden>");
    }

    #[test]
    fn a_long_body_is_cut_between_characters() {
        let text = shown("ä".repeat(BODY_SHOWN_MAX).as_bytes());
        assert!(text.len() < BODY_SHOWN_MAX + 20 && text.ends_with("(cut)"));
    }

    #[test]
    fn only_the_last_exchanges_are_kept() {
        let transcript = Transcript::default();
        let url = "https://a-conv.provider.example/".parse().unwrap();
        for at in 0..EXCHANGES_MAX as u64 + 3 {
            let at = Duration::from_micros(at);
            transcript.add(Exchange::new(at, "x", &Method::GET, &url, &Bytes::new()));
        }
        let kept = transcript.exchanges();
        assert_eq!((kept.len(), kept[0].at_us), (EXCHANGES_MAX, 3));
    }
}
