//! Moving a user to another cluster of the org (MAP-007).
//!
//! | call | by | answer |
//! |---|---|---|
//! | `POST https://{old}-users.{provider}/v1/moves/{user}` | an admin of the old cluster: [`Order`] | 202 [`Move`]; 409 `conflict` during another move |
//! | `GET .../v1/moves/{user}` | the same | [`Move`] |
//! | `DELETE .../v1/moves/{user}` | the same: calls it off | 202 [`Move`], or 409 when it is done |
//! | `GET https://{new}-users.{provider}/v1/arrivals/{user}` | a cluster of the same org | 204: the user may come |
//! | `PUT .../v1/arrivals/{user}/{incarnation}/{epoch}/{part}` | the old cluster: [`Part`] | 204: it is kept until the commit |
//! | `POST .../v1/arrivals/{user}/{incarnation}/{epoch}` | the old cluster: [`Arrival`] | [`Decided`]; 409 `conflict` when a part is missing |
//! | `DELETE .../v1/arrivals/{user}/{incarnation}/{epoch}` | the old cluster | [`Decided`]: refused, unless it was committed before |

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Address, ClusterName, Count, Pii, Uuid};

/// The most parts that one user's things come in.
pub const PARTS_MAX: u32 = 64;
/// Octets of one part's rows as JSON: a request has room for more.
pub const PART_OCTETS: usize = 512 << 10;

/// Where a user is to be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The new cluster.
    pub to: ClusterName,
}

/// How far a move is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// The user.
    pub user: Address,
    /// The epoch until which the old cluster served, or serves.
    pub epoch: Count,
    /// Where the user goes, or went; absent when no move is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ClusterName>,
    /// What the old cluster holds.
    pub state: Standing,
}

/// What the old cluster holds of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Standing {
    /// It serves the user.
    Active,
    /// It serves nobody: the move is under way.
    Fenced,
    /// The new cluster serves the user.
    Gone,
}

/// A part of what a user has: rows as the services keep them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Which attempt it is of: parts of two attempts never make one whole.
    pub attempt: Uuid,
    /// Its rows, at most [`PART_OCTETS`] of them.
    pub rows: Vec<Carried>,
}

/// One row of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Carried {
    /// The concept, then what identifies it.
    pub key: Pii<Vec<String>>,
    /// What it says.
    pub row: Pii<Value>,
}

/// Everything has been sent: the record itself, which the new cluster is to serve from this epoch on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arrival {
    /// The attempt that its parts are of.
    pub attempt: Uuid,
    /// How many parts there are.
    pub parts: u32,
    /// SCIM's id.
    pub id: Uuid,
    /// The user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<Pii<String>>,
    /// The identity provider's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// Whether the user may log in.
    pub active: bool,
}

/// What the new cluster has decided, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    /// Whether it serves the user from that epoch on; else it never will.
    pub committed: bool,
}
