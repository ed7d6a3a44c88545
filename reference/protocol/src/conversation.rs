//! Conversations: the rendezvous objects of chats (CNV, RDV).
//!
//! | call | answer |
//! |---|---|
//! | `POST https://{c}-conv.{provider}/v1/conversations` [`CreateConversation`] | 201 (made) or 200 (was there, CNV-002) [`Conversation`] |
//! | `GET {url}` | [`Conversation`]; 308 once superseded |
//! | `POST {url}/activities` [`PostActivity`] | 201 (or 200, repeated) [`Activity`]; 503 `sealing` |
//! | `GET {url}/activities?after={seq}&limit={n}` | [`ActivityPage`] |
//! | `GET https://{c}-conv.{provider}/v1/users/{me}/peers/{other}` | [`PeerLookup`] |
//! | `PUT https://{c}-conv.{provider}/v1/users/{other}/peers/{me}` [`PeerClaim`] | 200 [`PeerGrant`]; 409 `pair-taken`; 409 `rule-mismatch`; 410; 421 (clusters) |
//! | `POST {url}/imports` [`Import`] | 200 [`Imported`] (clusters) |
//!
//! Every POST that creates takes an `Idempotency-Key`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Address, ClusterName, Count, Incarnation, Pii, Url};

/// The rule of the race that this version computes (CNV-003).
pub const RULE: &str = "sf-1to1-v1";

/// What kind of conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The one conversation of a pair (CNV-002).
    OneToOne,
    /// Any number of people, who come and go (CNV-006).
    Group,
}

/// Creates a conversation at the creator's own cluster (RDV-001).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateConversation {
    /// The others; the creator is a participant by creating.
    pub participants: Vec<Address>,
    /// Which kind.
    pub kind: Kind,
    /// What it is called; groups only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<Pii<String>>,
}

/// Where a 1:1 conversation is on its way to being the pair's only one (CNV-003).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ConversationState {
    /// Made here, not yet confirmed by the peer's cluster.
    Provisional,
    /// The pair's conversation, for ever. Groups are bound from the start.
    Bound,
    /// Lost the race; its activities are moving to the winner.
    Sealing,
    /// Its activities are in the winner.
    Superseded,
}

/// A conversation as its participants see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conversation {
    /// `{cluster}~{uuid}` (NAM-003).
    pub id: String,
    /// Its only place, for ever.
    pub url: Url,
    /// Its persistent locus, in the same cluster (LOC-001).
    pub locus_url: Url,
    /// Which kind.
    pub kind: Kind,
    /// Where it is in the race.
    pub state: ConversationState,
    /// Who is in it.
    pub participants: Vec<Participant>,
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<Pii<String>>,
    /// The `seq` of its last activity.
    pub last_seq: Count,
    /// The version of its membership.
    pub membership_seq: Count,
    /// When it was made; for display.
    pub created: String,
    /// The winner, once it lost the race.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<Url>,
}

/// Somebody in a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Participant {
    /// The address.
    pub user: Address,
    /// Who that is; absent until the address has been resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// The cluster that serves them, as last resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// The activity with which they joined.
    pub joined_seq: Count,
    /// Whether the announcement to their cluster was refused for good (RDV-002), with its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<crate::Code>,
}

/// What somebody does in a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "verb")]
pub enum Act {
    /// Says something.
    Message {
        /// What is said; at most [`crate::limits::TEXT_MAX`] octets.
        text: Pii<String>,
    },
    /// Brings somebody in; groups only.
    Add {
        /// Who.
        user: Address,
    },
    /// Goes; groups only.
    Leave {},
    /// Throws somebody out; groups only.
    Remove {
        /// Who.
        user: Address,
    },
    /// Renames the conversation; groups only.
    Title {
        /// The new title.
        title: Pii<String>,
    },
    /// Shares a file that lies at the conversation's home (CNV-008).
    Share {
        /// The file's URL.
        file: Url,
    },
    /// Takes an own activity back.
    Delete {
        /// Which.
        activity: ActivityId,
    },
    /// Has read up to an activity.
    Acknowledge {
        /// Which.
        activity: ActivityId,
    },
}

/// Adds an activity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostActivity {
    /// What is done.
    #[serde(flatten)]
    pub act: Act,
}

/// What identifies an activity everywhere: SHA-256 of (pair key or conversation URL, author,
/// `Idempotency-Key`), so that a client's retry at the winner is the same activity (CNV-003).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActivityId(pub [u8; 32]);

/// Something that was done in a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Activity {
    /// Its identity.
    pub id: ActivityId,
    /// Its place in its conversation, without gaps, from 1 (CNV-001).
    pub seq: Count,
    /// Who did it.
    pub author: Address,
    /// Who that is.
    pub incarnation: Incarnation,
    /// When; for display.
    pub published: String,
    /// What was done.
    #[serde(flatten)]
    pub act: Act,
    /// The cluster that vouches for the author after an import (CNV-003).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attested_by: Option<ClusterName>,
}

/// A page of a conversation, in order of `seq`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActivityPage {
    /// The activities.
    pub activities: Vec<Activity>,
    /// The `after` of the next page, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Count>,
    /// The `seq` of the last activity there is.
    pub last_seq: Count,
}

/// The conversation of a pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerLookup {
    /// The conversation.
    pub url: Url,
    /// Its locus.
    pub locus_url: Url,
    /// Whether it is still taking over a loser's activities.
    pub state: PeerState,
}

/// Whether a pair's conversation is at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PeerState {
    /// At rest.
    Live,
    /// The answer is the loser, whose activities are moving (CNV-003).
    Merging,
}

/// What identifies a pair of people: SHA-256 over both, in order (CNV-003).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairKey(pub [u8; 32]);

/// Asks a peer's cluster to bind a pair to a conversation; at the same time the index entry of RDV-002.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerClaim {
    /// The outbox row's id.
    pub id: crate::Uuid,
    /// The conversation.
    pub url: Url,
    /// Its locus.
    pub locus_url: Url,
    /// The cluster it lives in: the caller.
    pub home: ClusterName,
    /// The pair.
    pub pair_key: PairKey,
    /// The rule by which the caller ranks ([`RULE`]).
    pub rule: String,
    /// The creator as the caller serves them.
    pub creator: Incarnation,
    /// The other as the caller resolved them.
    pub other: Incarnation,
    /// The epoch of the other's record as resolved (MAP-007).
    pub epoch: Count,
    /// The first activities.
    pub preview: Vec<Activity>,
    /// The `seq` of the last activity.
    pub last_seq: Count,
    /// When it was made by the caller's clock, in microseconds: for the one rule that looks at it (CNV-005).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Count>,
}

/// The pair is bound to the claimed conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerGrant {
    /// The conversation.
    pub url: Url,
}

/// Part of a loser's activities, in its order (CNV-003).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    /// The loser.
    pub from: Url,
    /// The pair.
    pub pair_key: PairKey,
    /// The loser's activities from `first_seq` on.
    pub activities: Vec<Activity>,
    /// The loser's `seq` of the first of them.
    pub first_seq: Count,
    /// Whether nothing follows.
    pub complete: bool,
    /// The calls that go on at the winner (LOC-004).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<crate::locus::Replaces>,
}

/// The winner has them, durably.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// The loser's `seq` up to which everything is in the winner.
    pub through: Count,
}

macro_rules! hex_newtype {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl FromStr for $name {
            type Err = NotHex;

            fn from_str(text: &str) -> Result<Self, NotHex> {
                let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
                let digits = digits.filter(|digits| digits.len() == 64).ok_or(NotHex)?;
                let mut bytes = [0; 32];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    *byte = pair[0] << 4 | pair[1];
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

/// Not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not 64 hexadecimal digits")]
pub struct NotHex;

hex_newtype!(ActivityId);
hex_newtype!(PairKey);
