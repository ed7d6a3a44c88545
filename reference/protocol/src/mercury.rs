//! Devices and notifications (MER).
//!
//! | call | answer |
//! |---|---|
//! | `POST https://{c}-mercury.{provider}/v1/devices` [`RegisterDevice`] | 201 [`Device`] |
//! | `DELETE {device url}` | 204 |
//! | `GET {webSocketUrl}` | upgrade; then [`ClientFrame`] and [`ServerFrame`] as JSON text frames |
//! | `POST {notificationUrl}` [`Notification`] | 202, to this device |
//! | `POST https://{c}-mercury.{provider}/v1/users/{user}/notifications` [`Notification`] | 202, to all devices of the user |

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Count, Incarnation, Pii, Url, Uuid};

/// How often a connection server pings, in seconds (MER-004).
pub const PING_SECONDS: u64 = 15;
/// After how many silent seconds a socket counts as dead (MER-004).
pub const DEAD_SECONDS: u64 = 30;
/// How many unacknowledged events a device keeps (MER-005).
pub const RETENTION_EVENTS: u64 = 10_000;
/// How long an unacknowledged event is kept, in seconds (MER-005).
pub const RETENTION_SECONDS: u64 = 24 * 3_600;

/// Registers a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterDevice {
    /// What its user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Pii<String>>,
}

/// A registered device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// `{cluster}~{uuid}` (NAM-003).
    pub id: String,
    /// The registration.
    pub url: Url,
    /// Where its WebSocket is opened (`wss`).
    pub web_socket_url: Url,
    /// Where anybody entitled may post to it (MER-001).
    pub notification_url: Url,
}

/// Something to wake a device with: a hint, never the truth (MER-003).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// The event's id: a repeated one is the same event.
    pub id: Uuid,
    /// What happened.
    pub event_type: EventType,
    /// The object it happened to.
    pub resource: Url,
    /// Whom it is for; a different person at the same address does not get it (NAM-004).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// What the device may show before it has asked.
    #[serde(default)]
    pub data: Value,
}

/// What events there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EventType {
    /// The user is in a new conversation. `data`: `{indexCursor}`.
    #[serde(rename = "conversation.created")]
    ConversationCreated,
    /// A new activity. `data`: `{indexCursor, seq, activity}`.
    #[serde(rename = "conversation.activity")]
    ConversationActivity,
    /// The conversation's members or title changed, or it was merged. `data`: `{indexCursor}`.
    #[serde(rename = "conversation.changed")]
    ConversationChanged,
    /// A call rings. `data`: `{conversationUrl, instance, rev}`.
    #[serde(rename = "locus.ringing")]
    LocusRinging,
    /// A call's state changed. `data`: `{conversationUrl, instance, rev, state}`.
    #[serde(rename = "locus.changed")]
    LocusChanged,
    /// A call rings no more here: another device of the user answered (LOC-006). `data`: `{instance, rev}`.
    #[serde(rename = "locus.answeredElsewhere")]
    LocusAnsweredElsewhere,
    /// The media of a call that the user is in go over another relay from now on, or over the same one
    /// started anew: its devices join again, which rings nobody and gives each its leg (MED-004).
    /// `data`: `{instance, rev}`.
    #[serde(rename = "locus.relayChanged")]
    LocusRelayChanged,
    /// A call is over. `data`: `{instance, rev}`.
    #[serde(rename = "locus.ended")]
    LocusEnded,
    /// An event of a later version.
    #[serde(other, rename = "unknown")]
    Unknown,
}

/// What a device sends over its WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum ClientFrame {
    /// The first frame. `resume`: the last `seq` the device has; all up to it counts as acknowledged
    /// (MER-005).
    Authenticate {
        /// The user's access token.
        token: String,
        /// The last sequence number the device has seen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume: Option<Count>,
    },
    /// All events up to `seq` have been taken.
    Ack {
        /// The last one taken.
        seq: Count,
    },
}

/// What a connection server sends over a device's WebSocket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum ServerFrame {
    /// The socket is authenticated; events after `base` follow.
    Ready {
        /// The session's epoch: a newer socket of the device has a higher one and ends this one.
        session: Count,
        /// The next event has this `seq` plus one.
        base: Count,
    },
    /// An event.
    Event(Event),
    /// Events were lost to retention: ask for the truth by REST. The next event has `base` plus one, the
    /// only permitted jump (MER-005).
    Resync {
        /// The new base.
        base: Count,
    },
    /// The socket ends, for the reason given by the problem's code.
    Closing {
        /// The stable code.
        code: crate::Code,
    },
}

/// A delivered notification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The notification's id.
    pub id: Uuid,
    /// Its place in the device's stream, without gaps (MER-002).
    pub seq: Count,
    /// What happened.
    pub event_type: EventType,
    /// The object it happened to.
    pub resource: Url,
    /// What the device may show before it has asked.
    pub data: Value,
}
