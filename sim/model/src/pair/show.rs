//! The race in words.

use std::fmt;

use fusion_machines::pair::{Hold, Life, Slot};

use super::world::Object;
use super::{Answer, Message, Pair, World};
use crate::cast::{self, Site};

impl Pair {
    /// A line for each slot, each conversation, and what is under way.
    pub(super) fn lines(&self, world: &World) -> Vec<String> {
        let slots = (0..2).map(|person| {
            let slot = world.slots[person].as_ref().map_or("no slot".to_owned(), |slot| self.slot(slot));
            format!("{}, served by {}: {slot}", cast::person(person), cast::site(world.served[person]))
        });
        let objects = world.objects.iter().enumerate();
        let objects = objects.filter_map(|(site, object)| Some(self.object(site, object.as_ref()?)));
        let under_way = world.under_way.iter().map(|message| format!("under way: {message}"));
        let alarm = world.alarm.map(|alarm| format!("alarm: {alarm}"));
        slots.chain(objects).chain(under_way).chain(alarm).collect()
    }

    fn slot(&self, slot: &Slot) -> String {
        let hold = match slot.hold {
            Hold::Unbound => "UNBOUND",
            Hold::Bound => "BOUND",
        };
        let to = cast::site(self.site(&slot.conversation.home));
        let merging = if slot.merging_from.is_some() { ", a loser's activities are moving" } else { "" };
        format!("slot {hold} to the conversation at {to}{merging}")
    }

    fn object(&self, site: Site, object: &Object) -> String {
        let state = match &object.life {
            Life::Provisional => "PROVISIONAL".to_owned(),
            Life::Bound => "BOUND".to_owned(),
            Life::Sealing { winner } => format!("SEALING, lost to {}", cast::site(self.site(&winner.home))),
            Life::Superseded { winner } => format!("SUPERSEDED by {}", cast::site(self.site(&winner.home))),
        };
        let posts = object.log.iter().map(|(who, number)| format!("{} {}", cast::person(*who), number + 1));
        let posts: Vec<_> = posts.collect();
        let posts = if posts.is_empty() { "empty".to_owned() } else { posts.join(", ") };
        let claiming =
            if object.claiming && object.life.winner().is_none() { ", claim in the outbox" } else { "" };
        format!("conversation at {}: {state}, {posts}{claiming}", cast::site(site))
    }
}

impl Message {
    /// Who sends it.
    pub(super) fn from(self) -> Site {
        match self {
            Self::Claim { home: from, .. }
            | Self::Answer { at: from, .. }
            | Self::Import { loser: from, .. }
            | Self::Imported { to: from, .. }
            | Self::Settle { loser: from, .. }
            | Self::Settled { at: from, .. } => from,
        }
    }

    /// For whom it is.
    pub(super) fn to(self) -> Site {
        match self {
            Self::Claim { at: to, .. }
            | Self::Answer { home: to, .. }
            | Self::Import { to, .. }
            | Self::Imported { loser: to, .. }
            | Self::Settle { at: to, .. }
            | Self::Settled { loser: to, .. } => to,
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let site = |site: &Site| cast::site(*site);
        match self {
            Self::Claim { home, at } => {
                write!(f, "the claim of the conversation at {} to {}", site(home), site(at))
            }
            Self::Answer { home, at, answer } => {
                write!(f, "the answer of {} to the claim of {}: {answer}", site(at), site(home))
            }
            Self::Import { loser, to, until, complete } => {
                let all = if *complete { "all" } else { "the first" };
                write!(f, "{all} {until} activities of the loser at {} to {}", site(loser), site(to))
            }
            Self::Imported { loser, to } => {
                write!(f, "the word of {} to {} that it has everything", site(to), site(loser))
            }
            Self::Settle { loser, at } => {
                write!(f, "the word of {} to {} that its conversation is superseded", site(loser), site(at))
            }
            Self::Settled { loser, at } => {
                write!(f, "the word of {} to {} that it knows", site(at), site(loser))
            }
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granted => f.write_str("granted"),
            Self::Taken(winner) => write!(f, "pair-taken by the conversation at {}", cast::site(*winner)),
            Self::WrongCluster => f.write_str("wrong-cluster"),
        }
    }
}
