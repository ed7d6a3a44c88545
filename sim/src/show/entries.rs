//! What happens and what services say to each other, in one order.

use std::collections::BTreeSet;

use fusion_history::{Event, EventId, History};

use super::Lanes;
use super::messages::Message;

/// One thing of a picture.
#[derive(Clone, Copy)]
pub(super) enum Entry<'e> {
    /// What was observed.
    Event(&'e Event),
    /// What a service said, with the event before it.
    Message(&'e Message, EventId),
}

/// Both in the order of time; what is said before what comes of it.
pub(super) fn merged<'e>(events: &[&'e Event], messages: &[&'e Message]) -> Vec<Entry<'e>> {
    let mut messages = messages.iter().copied().peekable();
    let mut entries = Vec::new();
    let mut before = EventId(0);
    for &event in events {
        while let Some(message) = messages.next_if(|message| message.at_us <= event.at_us) {
            entries.push(Entry::Message(message, before));
        }
        entries.push(Entry::Event(event));
        before = event.id;
    }
    entries.extend(messages.map(|message| Entry::Message(message, before)));
    entries
}

/// The lanes that have a part in it.
pub(super) fn used(entries: &[Entry<'_>], lanes: &Lanes<'_>, history: &History) -> BTreeSet<usize> {
    let mut used = BTreeSet::new();
    for entry in entries {
        match entry {
            Entry::Event(event) => {
                let arrow = lanes.arrow(event, history);
                used.extend(lanes.at(&event.host));
                used.extend(arrow.into_iter().flat_map(|arrow| [arrow.from, arrow.to]));
            }
            Entry::Message(message, _) => {
                used.extend([&message.from, &message.to].into_iter().filter_map(|host| lanes.at(host)));
            }
        }
    }
    used
}
