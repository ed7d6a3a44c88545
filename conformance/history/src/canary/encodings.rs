//! The encodings in which a private text may turn up.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use fusion_protocol::Address;
use sha2::{Digest as _, Sha256};

use super::CANARY_MIN_BYTES;

/// Of a longer text only so much is looked for: whoever leaks all of it leaks its beginning.
const PREFIX_BYTES: usize = 64;
/// Local parts that say nothing about a person: RFC 2142's, and words of this system.
const ROLES: [&str; 16] = [
    "abuse",
    "accounts",
    "admin",
    "billing",
    "cluster",
    "consumer",
    "contact",
    "hostmaster",
    "newsletter",
    "office",
    "postmaster",
    "provider",
    "sales",
    "security",
    "support",
    "webmaster",
];

/// `text` in every encoding, by the encoding's name. The automaton ignores the case of letters, so that
/// one spelling stands for all.
pub(super) fn of(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let mut all = Vec::new();
    spell("plain", text, &mut all);
    hash(text, &mut all);
    if let Ok(address) = text.parse::<Address>() {
        let local = address.local_part();
        if address.as_str() != text {
            spell("canonical", address.as_str(), &mut all);
            hash(address.as_str(), &mut all);
        }
        if local.len() >= CANARY_MIN_BYTES && !ROLES.contains(&local) {
            spell("local part", local, &mut all);
        }
    }
    let mut seen = BTreeSet::new();
    all.retain(|(name, bytes)| {
        let same = if is_case_sensitive(name) { bytes.clone() } else { bytes.to_ascii_lowercase() };
        bytes.len() >= CANARY_MIN_BYTES && seen.insert(same)
    });
    all
}

/// Whether letters of another case are other bytes.
pub(super) fn is_case_sensitive(encoding: &str) -> bool {
    encoding.contains("base64") || encoding.contains("raw")
}

fn spell(name: &'static str, text: &str, into: &mut Vec<(&'static str, Vec<u8>)>) {
    let cut = text.floor_char_boundary(PREFIX_BYTES);
    let text = &text[..cut];
    // Letters beyond ASCII have no case in the automaton's eyes.
    for text in BTreeSet::from([text.to_owned(), text.to_lowercase(), text.to_uppercase()]) {
        let bytes = text.as_bytes();
        into.push((name, bytes.to_vec()));
        into.push(("percent", percent(bytes, b"-._~")));
        into.push(("percent", percent(bytes, b"-._~+@!$&'()*,;=:")));
        into.push(("percent", percent(bytes, b"-._~ ").into_iter().map(plus_for_space).collect()));
        into.push(("json", json(&text)));
        into.push(("utf-16le", text.encode_utf16().flat_map(u16::to_le_bytes).collect()));
        into.push(("utf-16be", text.encode_utf16().flat_map(u16::to_be_bytes).collect()));
        into.push(("reversed", text.chars().rev().collect::<String>().into_bytes()));
        into.push(("reversed", bytes.iter().rev().copied().collect()));
    }
    // In these the case of the text is lost to the automaton; nobody shouts before encoding.
    for text in BTreeSet::from([text.to_owned(), text.to_lowercase()]) {
        into.push(("hex", hex(text.as_bytes())));
        for alignment in 0..3 {
            into.push(("base64", base64(&STANDARD, text.as_bytes(), alignment)));
            into.push(("base64", base64(&URL_SAFE, text.as_bytes(), alignment)));
        }
    }
}

fn hash(text: &str, into: &mut Vec<(&'static str, Vec<u8>)>) {
    let digest = Sha256::digest(text);
    into.push(("sha-256 in hex", hex(&digest)));
    into.push(("sha-256 in base64", STANDARD_NO_PAD.encode(digest).into_bytes()));
    into.push(("sha-256 in base64", URL_SAFE_NO_PAD.encode(digest).into_bytes()));
    into.push(("sha-256 raw", digest.to_vec()));
}

/// The characters that depend on `bytes` alone when they stand `alignment` bytes after a multiple of 3.
fn base64(engine: &impl base64::Engine, bytes: &[u8], alignment: usize) -> Vec<u8> {
    let mut padded = vec![0; alignment];
    padded.extend_from_slice(bytes);
    let start = (alignment * 8).div_ceil(6);
    let end = padded.len() * 8 / 6;
    engine.encode(&padded).into_bytes().get(start..end).unwrap_or_default().to_vec()
}

fn plus_for_space(byte: u8) -> u8 {
    if byte == b' ' { b'+' } else { byte }
}

fn percent(bytes: &[u8], kept: &[u8]) -> Vec<u8> {
    let encode = |&byte: &u8| {
        let plain = byte.is_ascii_alphanumeric() || kept.contains(&byte);
        if plain { vec![byte] } else { format!("%{byte:02x}").into_bytes() }
    };
    bytes.iter().flat_map(encode).collect()
}

fn json(text: &str) -> Vec<u8> {
    let escape = |c: char| match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        ' '..='~' => c.to_string(),
        _ => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    };
    text.chars().map(escape).collect::<String>().into_bytes()
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}
