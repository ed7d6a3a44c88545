//! Short names for long ones: a URL of a conversation fills half a line and differs from another in the
//! middle of it.

use std::collections::BTreeMap;

use fusion_history::History;

use super::{Lanes, is_drawn};

/// How many characters of an id that is no URL's are shown.
const ID_CHARS: usize = 8;
/// From how many hexadecimal digits on something is a hash, which nobody reads.
const HASH_CHARS_MIN: usize = 32;
/// An id, as RFC 9562 writes it.
const UUID_CHARS: usize = 36;

/// The short names of a run's conversations: `C1@a` is the first that is named, and is at cluster `a`; its
/// locus is `C1@a/locus`.
pub(crate) struct Names {
    /// By the URL of the conversation.
    short: BTreeMap<String, String>,
    /// In the order of their numbers.
    urls: Vec<String>,
}

impl Names {
    pub(crate) fn of(history: &History, lanes: &Lanes<'_>) -> Self {
        let mut names = Self { short: BTreeMap::new(), urls: Vec::new() };
        for event in history.events().iter().filter(|event| is_drawn(event)) {
            let text = event.body.to_string();
            for url in urls(&text) {
                names.meet(url, lanes);
            }
        }
        names
    }

    /// `text` with every long name made short.
    pub(crate) fn shorten(&self, text: &str) -> String {
        let mut short = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("https://") {
            let (before, from) = rest.split_at(at);
            short.push_str(&without_ids(before));
            let (url, after) = from.split_at(url_end(from));
            short.push_str(&self.of_url(url));
            rest = after;
        }
        short.push_str(&without_ids(rest));
        short
    }

    /// The URL that a short name stands for.
    pub(crate) fn url(&self, short: &str) -> Option<&str> {
        let mut named = self.short.iter().filter(|(_, known)| {
            known.eq_ignore_ascii_case(short)
                || known.split('@').next().is_some_and(|number| number.eq_ignore_ascii_case(short))
        });
        named.next().map(|(url, _)| url.as_str())
    }

    /// Each short name that `text` has, with what it stands for.
    pub(crate) fn legend(&self, text: &str) -> Vec<(String, String)> {
        let known = self.urls.iter().filter_map(|url| Some((self.short.get(url)?.clone(), url.clone())));
        known.filter(|(short, _)| has_word(text, short)).collect()
    }

    /// Every short name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &str> {
        self.urls.iter().filter_map(|url| self.short.get(url)).map(String::as_str)
    }

    fn meet(&mut self, url: &str, lanes: &Lanes<'_>) {
        let Some((conversation, _)) = conversation_of(url) else { return };
        if self.short.contains_key(conversation) {
            return;
        }
        let Some((cluster, _)) = lanes.locate(conversation) else { return };
        self.urls.push(conversation.to_owned());
        self.short.insert(conversation.to_owned(), format!("C{}@{cluster}", self.urls.len()));
    }

    fn of_url(&self, url: &str) -> String {
        if let Some((conversation, below)) = conversation_of(url)
            && let Some(short) = self.short.get(conversation)
        {
            return format!("{short}{}", without_ids(below));
        }
        // Of another URL what tells it from others: the path after the service.
        let path = url.rsplit_once("/v1/").map_or(url, |(_, path)| path);
        without_ids(&path.replace("%40", "@"))
    }
}

/// A URL's conversation, and what it says below that.
fn conversation_of(url: &str) -> Option<(&str, &str)> {
    let id = url.find("/conversations/")? + "/conversations/".len();
    let end = id + UUID_CHARS;
    url.get(id..end).filter(|id| is_uuid(id))?;
    Some(url.split_at(end))
}

fn urls(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("https://").map(|(at, _)| {
        let from = &text[at..];
        &from[..url_end(from)]
    })
}

fn url_end(text: &str) -> usize {
    text.find(|c: char| c.is_whitespace() || "\"',;)]}<>".contains(c)).unwrap_or(text.len())
}

fn without_ids(text: &str) -> String {
    let mut short = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if text.get(at..at + UUID_CHARS).is_some_and(is_uuid) {
            short.push_str(&text[at..at + ID_CHARS]);
            at += UUID_CHARS;
        } else if let Some(long) = hash_at(text, at) {
            short.push_str(&text[at..at + ID_CHARS]);
            at += long;
        } else {
            let Some(c) = text[at..].chars().next() else { break };
            short.push(c);
            at += c.len_utf8();
        }
    }
    short
}

/// How long the hash is that begins at a place, if one does.
fn hash_at(text: &str, at: usize) -> Option<usize> {
    let follows = text[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
    let long = text[at..].bytes().take_while(u8::is_ascii_hexdigit).count();
    (!follows && long >= HASH_CHARS_MIN).then_some(long)
}

fn is_uuid(text: &str) -> bool {
    let dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    text.len() == UUID_CHARS
        && text.bytes().enumerate().all(|(at, b)| if dash(at) { b == b'-' } else { b.is_ascii_hexdigit() })
}

/// Whether `word` stands in `text` and is not the beginning of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let after = text[at + word.len()..].chars().next();
        !after.is_some_and(|c| c.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "8cbc27d8-d360-4bb9-93e7-eed0a799d54f";

    fn names() -> Names {
        let url = format!("https://a-conv.provider.example/v1/conversations/{ID}");
        Names { short: BTreeMap::from([(url.clone(), "C1@a".to_owned())]), urls: vec![url] }
    }

    #[test]
    fn a_conversation_and_what_is_below_it_are_called_by_a_short_name() {
        let url = format!("https://a-conv.provider.example/v1/conversations/{ID}");
        let text = format!("reads {url} after 0, at \"{url}/locus\"");
        assert_eq!(names().shorten(&text), "reads C1@a after 0, at \"C1@a/locus\"");
        assert_eq!(names().url("c1"), Some(url.as_str()));
        assert_eq!(names().url("C1@a"), Some(url.as_str()));
        assert_eq!(names().url("C2"), None);
    }

    #[test]
    fn other_urls_keep_their_path_and_ids_their_beginning() {
        let text = format!("user https://b-users.provider.example/v1/users/bob%40globex.example is {ID}é.");
        assert_eq!(names().shorten(&text), "user users/bob@globex.example is 8cbc27d8é.");
    }

    #[test]
    fn hashes_keep_their_beginning_and_numbers_and_words_stay_whole() {
        let hash = "a246eedf0fca06024464a85453114c3fe2a749a731a1e17b35f92f46fbb90643";
        assert_eq!(
            names().shorten(&format!("slot {hash}/alice, 12345678901 facade")),
            "slot a246eedf/alice, 12345678901 facade"
        );
    }

    #[test]
    fn a_legend_has_the_names_that_are_used_and_no_other() {
        assert_eq!(names().legend("reads C1@a/locus").len(), 1);
        assert!(names().legend("reads C1@ab and C11@a").is_empty());
    }
}
